"""One row of a network over a box, as Marabou is asked about it."""

from functools import singledispatch

import numpy as np
import torch
from scipy import sparse

from skrobust.bounds import farthest
from skrobust.graphs import Clamp, MaxPool, Relu
from skrobust.verification._program import NetworkProgram, no_rule

__all__ = ["MARGIN", "MarabouProgram", "image"]

# Marabou takes a variable whose bounds are closer than 1e-5 as fixed, also where it has found
# these bounds itself. So every variable is scaled to a width of about 1, and rows are asked to
# be at least MARGIN of their width: the points that break one then span more than 1e-5.
_NARROW = 1e-4  # least width of either side of a ReLU
_DECIDED = 1e-9  # share; a unit with a smaller side is linear plus a bounded error
MARGIN = 2e-5
_RESOLVED = 1e-7  # least width of a row, relative to the numbers in it


class MarabouProgram(NetworkProgram):
    """The network over one box, as Marabou is told it: linear equations and ReLUs.

    All variables are scaled to a width of about 1. Expressions are values in the network's own
    units, as functions of the variables.

    Parameters
    ----------
    maps : AffineMaps
    relaxation : Relaxation
        Of one box. Units that it decides need no ReLU.
    nearest : float or None, default=None
        Where it is a number, there is a variable d, at least that and the distance from the
        center.
    """

    def __init__(self, maps, relaxation, nearest=None):
        super().__init__(maps, relaxation)
        self.relus, self.equations = [], []
        center, low, high = self.box()
        self.images[0] = self._inputs(low, high)
        self.n_inputs = self.n_columns
        self.distance = None if nearest is None else self._distance(center, nearest)
        for i in self.graph.piecewise:
            self.images[i] = image(self.graph.nodes[i], self, i)

    @property
    def task(self):
        """The program in plain Python, for a process without NumPy."""
        return {
            "lower": np.concatenate(self.lows).tolist(),
            "upper": np.concatenate(self.highs).tolist(),
            "n_inputs": self.n_inputs,
            "equations": self.equations,
            "relus": self.relus,
        }

    def point(self, values):
        """Return the input, of shape (n_features,), at values of the first variables."""
        matrix, constant = self.images[0]
        return torch.as_tensor(matrix[:, : self.n_inputs] @ np.array(values) + constant)

    def equate(self, columns, scale, expression):
        """Set variables, in units of `scale`, equal to the rows of an expression."""
        matrix, constant = expression
        matrix = (sparse.diags(1 / scale) @ self.widened(matrix)).tocsr()
        ends = zip(matrix.indptr[:-1], matrix.indptr[1:], strict=True)
        shifts = (constant / scale).tolist()
        for (start, end), column, shift in zip(ends, columns.tolist(), shifts, strict=True):
            variables = [*matrix.indices[start:end].tolist(), column]
            self.equations.append((variables, [*(-matrix.data[start:end]).tolist(), 1.0], shift))

    def _inputs(self, low, high):
        moves = np.flatnonzero(high > low)
        columns = self.columns(-np.ones(len(moves)), np.ones(len(moves)))
        middle = np.where(high > low, (low + high) / 2, low)
        return self.selection(moves, columns, ((high - low) / 2)[moves], len(low)), middle

    def _distance(self, center, nearest):
        """Add d in units of the largest distance, and that it is at least each change."""
        far = float(farthest(self.relaxation.ball)[0])
        (column,) = self.columns([min(nearest / far, 0.5)], [1.0])
        matrix, middle = self.images[0]
        moves = matrix.getnnz(axis=1).nonzero()[0]
        offset = middle - center
        for sign in (1.0, -1.0):
            # d - sign * (x - center) is a variable that is not below 0.
            rest = self.columns(np.zeros(len(moves)), 2 * np.ones(len(moves)))
            change = self.widened(matrix[moves]) * (-sign / far)
            change = change + self.selection(
                np.arange(len(moves)), np.full(len(moves), column), 1.0, len(moves)
            )
            self.equate(rest, np.ones(len(moves)), (change, -sign / far * offset[moves]))
        return column, far

    def relu(self, matrix, constant, low, high):
        """Return the ReLU of an expression that lies between `low` and `high`."""
        size = len(constant)
        width, least = high - low, np.minimum(high, -low)
        crosses = (low < 0) & (high > 0)
        loose = crosses & (least < _DECIDED * width)
        units = np.flatnonzero(crosses & ~loose)
        linear = ((low >= 0) & (high > 0)) | (loose & (high > -low))
        # What is nearly decided differs from its line by what is free in a small interval.
        free = np.flatnonzero(loose)
        rest = self.columns(np.zeros(len(free)), np.ones(len(free)))
        scale = np.minimum(width, least / _NARROW)[units]
        before = self.columns(low[units] / scale, high[units] / scale)
        after = self.columns(np.zeros(len(units)), high[units] / scale)
        self.equate(before, scale, (matrix[units], constant[units]))
        self.relus += list(zip(before.tolist(), after.tolist(), strict=True))
        bent = sparse.diags(linear.astype(float)) @ self.widened(matrix)
        bent = bent + self.selection(units, after, scale, size)
        bent = bent + self.selection(free, rest, least[free], size)
        return bent, linear * constant

    def add_rows(self, A, slope, shift, lower):
        """Add a variable for each row of the outputs, in units of its width; return their places.

        None where a row changes too little for Marabou's arithmetic.
        """
        A, shift, lower = A.cpu().numpy(), shift.cpu().numpy(), lower.cpu().numpy()
        low, high = self.interval(self.last)
        outputs, constant = self.expression(self.last)
        matrix, constant = sparse.csr_matrix(A) @ outputs, A @ constant + shift
        upper = A.clip(min=0) @ high + A.clip(max=0) @ low + shift
        if slope is not None:
            slope, (column, far) = slope.cpu().numpy(), self.distance
            rows = np.arange(len(A))
            matrix = matrix + self.selection(rows, np.full(len(A), column), slope * far, len(A))
            upper = upper + slope.clip(min=0) * far
        width = upper - lower
        reach = np.abs(A) @ np.maximum(-low, high) + np.abs(shift)
        if not (width > _RESOLVED * reach).all():
            return None
        places = self.columns(lower / width, np.maximum(upper / width, 2 * MARGIN))
        self.equate(places, width, (matrix, constant))
        return places.tolist()


@singledispatch
def image(node, program, i):
    """Return piecewise node i as an expression, with the variables and ReLUs that it needs.

    Raises
    ------
    UnsupportedModelError
        For kinds of nodes without a rule.
    """
    raise no_rule("marabou", node, "Marabou needs it as equations and ReLUs. Use Bounds.")


@image.register
def _(node: Relu, program, i):
    low, high = program.interval(node.inputs[0])
    matrix, constant = program.expression(node.inputs[0])
    slope = node.slope.expand(node.shape).flatten().cpu().numpy()
    bent, shift = program.relu(matrix, constant, low, high)
    if (slope == 0).all():
        return bent, shift
    # slope z + (1 - slope) relu(z), for any slope.
    matrix = sparse.diags(slope) @ program.widened(matrix) + sparse.diags(1 - slope) @ bent
    return matrix, slope * constant + (1 - slope) * shift


@image.register
def _(node: Clamp, program, i):
    """low + relu(z - low) - relu(z - high)."""
    low, high = program.interval(node.inputs[0])
    matrix, constant = program.expression(node.inputs[0])
    if np.isfinite(node.low):
        matrix, constant = program.relu(
            matrix, constant - node.low, low - node.low, high - node.low
        )
        constant = constant + node.low
        low, high = np.maximum(low, node.low), np.maximum(high, node.low)
    if np.isfinite(node.high):
        # min(z, high) = high - relu(high - z)
        matrix, constant = program.relu(
            -matrix, node.high - constant, node.high - high, node.high - low
        )
        matrix, constant = -matrix, node.high - constant
    return matrix, constant


@image.register
def _(node: MaxPool, program, i):
    """The larger of two is the second plus the ReLU of the difference, and so on."""
    low, high = program.interval(node.inputs[0])
    matrix, constant = program.expression(node.inputs[0])
    members = node.members.cpu().numpy()
    first = members[:, 0]
    top, top_shift, top_low, top_high = matrix[first], constant[first], low[first], high[first]
    for k in range(1, members.shape[1]):
        other = members[:, k]
        new = ~(members[:, :k] == other[:, None]).any(axis=1)
        # relu(other - top); what is repeated in a window adds nothing.
        difference = program.widened(matrix[other]) - program.widened(top)
        rise, rise_shift = program.relu(
            difference,
            constant[other] - top_shift,
            np.where(new, low[other] - top_high, 0.0),
            np.where(new, high[other] - top_low, 0.0),
        )
        top, top_shift = program.widened(top) + rise, top_shift + rise_shift
        top_low, top_high = np.maximum(top_low, low[other]), np.maximum(top_high, high[other])
    return top, top_shift
