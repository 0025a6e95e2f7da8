"""One row of a network over a box, as Marabou is asked about it."""

import numpy as np
import torch
from scipy import sparse

from skrobust.bounds import farthest
from skrobust.graphs import Clamp, MaxPool

__all__ = ["MARGIN", "MarabouProgram"]

# Marabou takes a variable whose bounds are closer than 1e-5 as fixed, also where it has found
# these bounds itself. So variables have a width of about 1, and rows room above 0, relative to
# their width: the points at which a row is below 0 leave it more than that.
_NARROW = 1e-4  # least width of either side of a ReLU
_DECIDED = 1e-9  # where one side of a unit is less than that of the other one, it is no ReLU
MARGIN = 2e-5
_RESOLVED = 1e-7  # least width of a row, relative to the numbers in it


class MarabouProgram:
    """The network over one box, as Marabou is told it: linear equations and ReLUs.

    All variables are scaled to a width of about 1. An expression is a pair of a sparse matrix
    and a constant: values in the network's own units, as functions of the variables.

    Parameters
    ----------
    maps : dict
        From `affine_maps`.
    relaxation : Relaxation
        Of one box. Units that it decides need no ReLU.
    nearest : float or None, default=None
        Where it is a number, there is a variable d, at least that and the distance from the
        center.
    """

    def __init__(self, maps, relaxation, nearest=None):
        self.maps, self.relaxation = maps, relaxation
        self.low, self.high, self.relus, self.equations = [], [], [], []
        ball, graph = relaxation.ball, relaxation.graph
        self.expressions = {0: self._inputs(ball)}
        self.n_inputs = len(self.low)
        self.distance = None if nearest is None else self._distance(ball, nearest)
        for i in graph.piecewise:
            self.expressions[i] = self._image(graph.nodes[i])

    @property
    def task(self):
        """The program in plain Python, for a process without NumPy."""
        return {
            "lower": [float(value) for value in self.low],
            "upper": [float(value) for value in self.high],
            "n_inputs": self.n_inputs,
            "equations": self.equations,
            "relus": self.relus,
        }

    def point(self, values):
        """Return the input, of shape (n_features,), at values of the first variables."""
        matrix, constant = self.expressions[0]
        return torch.as_tensor(matrix[:, : self.n_inputs] @ np.array(values) + constant)

    def _columns(self, low, high):
        """Add variables; return their places."""
        start = len(self.low)
        self.low.extend(np.asarray(low, dtype=float))
        self.high.extend(np.asarray(high, dtype=float))
        return np.arange(start, len(self.low))

    def _diagonal(self, rows, columns, values, shape):
        values = np.broadcast_to(values, len(rows))
        return sparse.csr_matrix((values, (rows, columns)), shape=(shape, len(self.low)))

    def _equate(self, columns, scale, expression):
        """Set variables, in units of `scale`, equal to the rows of an expression."""
        matrix, constant = expression
        matrix = (sparse.diags(1 / scale) @ self._widened(matrix)).tocsr()
        ends = zip(matrix.indptr[:-1], matrix.indptr[1:], strict=True)
        shifts = (constant / scale).tolist()
        for (start, end), column, shift in zip(ends, columns.tolist(), shifts, strict=True):
            variables = [*matrix.indices[start:end].tolist(), column]
            self.equations.append((variables, [*(-matrix.data[start:end]).tolist(), 1.0], shift))

    def _widened(self, matrix):
        """Return a matrix that was made when there were fewer variables."""
        parts = (matrix.data, matrix.indices, matrix.indptr)
        return sparse.csr_matrix(parts, shape=(matrix.shape[0], len(self.low)))

    def _inputs(self, ball):
        low, high = ball.lower[0].cpu().numpy(), ball.upper[0].cpu().numpy()
        moves = np.flatnonzero(high > low)
        columns = self._columns(-np.ones(len(moves)), np.ones(len(moves)))
        middle = np.where(high > low, (low + high) / 2, low)
        return self._diagonal(moves, columns, ((high - low) / 2)[moves], len(low)), middle

    def _distance(self, ball, nearest):
        """Add d in units of the largest distance, and that it is at least each change."""
        far = float(farthest(ball)[0])
        column = self._columns([min(nearest / far, 0.5)], [1.0])[0]
        matrix, middle = self.expressions[0]
        moves = matrix.getnnz(axis=1).nonzero()[0]
        offset = middle - ball.center[0].cpu().numpy()
        for sign in (1.0, -1.0):
            # d = sign * (x - center) + what is left, which is not below 0.
            rest = self._columns(np.zeros(len(moves)), 2 * np.ones(len(moves)))
            change = self._widened(matrix[moves]) * (-sign / far)
            change = change + self._diagonal(
                np.arange(len(moves)), np.full(len(moves), column), 1.0, len(moves)
            )
            self._equate(rest, np.ones(len(moves)), (change, -sign / far * offset[moves]))
        return column, far

    def _expression(self, j):
        """Return node j, which is affine in the input and in piecewise nodes."""
        matrices, constant = self.maps[j]
        total = sparse.csr_matrix((len(constant), len(self.low)))
        for k, matrix in matrices.items():
            inner, shift = self.expressions[k]
            total, constant = total + matrix @ self._widened(inner), constant + matrix @ shift
        return total, constant

    def _image(self, node):
        """Return a piecewise node as an expression."""
        j = node.inputs[0]
        low, high = (
            part[j][0].flatten().cpu().numpy()
            for part in (self.relaxation.lows, self.relaxation.highs)
        )
        matrix, constant = self._expression(j)
        if isinstance(node, MaxPool):
            return self._pool(node.members.cpu().numpy(), matrix, constant, low, high)
        if isinstance(node, Clamp):
            return self._clamp(node, matrix, constant, low, high)
        slope = node.slope.expand(node.shape).flatten().cpu().numpy()
        if (slope == 0).all():
            return self._relu(matrix, constant, low, high)
        bent, shift = self._relu(matrix, constant, low, high)
        # slope z + (1 - slope) relu(z), for any slope.
        matrix = sparse.diags(slope) @ self._widened(matrix) + sparse.diags(1 - slope) @ bent
        return matrix, slope * constant + (1 - slope) * shift

    def _clamp(self, node, matrix, constant, low, high):
        """low + relu(z - low) - relu(z - high)."""
        if np.isfinite(node.low):
            matrix, constant = self._relu(
                matrix, constant - node.low, low - node.low, high - node.low
            )
            constant = constant + node.low
            low, high = np.maximum(low, node.low), np.maximum(high, node.low)
        if np.isfinite(node.high):
            # min(z, high) = high - relu(high - z)
            matrix, constant = self._relu(
                -matrix, node.high - constant, node.high - high, node.high - low
            )
            matrix, constant = -matrix, node.high - constant
        return matrix, constant

    def _pool(self, members, matrix, constant, low, high):
        """The larger of two is the second plus the ReLU of the difference, and so on."""
        first = members[:, 0]
        top, top_shift, top_low, top_high = matrix[first], constant[first], low[first], high[first]
        for k in range(1, members.shape[1]):
            other = members[:, k]
            new = ~(members[:, :k] == other[:, None]).any(axis=1)
            # relu(other - top); what is repeated in a window adds nothing.
            difference = self._widened(matrix[other]) - self._widened(top)
            rise, rise_shift = self._relu(
                difference,
                constant[other] - top_shift,
                np.where(new, low[other] - top_high, 0.0),
                np.where(new, high[other] - top_low, 0.0),
            )
            top, top_shift = self._widened(top) + rise, top_shift + rise_shift
            top_low, top_high = np.maximum(top_low, low[other]), np.maximum(top_high, high[other])
        return top, top_shift

    def _relu(self, matrix, constant, low, high):
        """Return the ReLU of an expression that lies between `low` and `high`."""
        size = len(constant)
        width, least = high - low, np.minimum(high, -low)
        crosses = (low < 0) & (high > 0)
        loose = crosses & (least < _DECIDED * width)
        units = np.flatnonzero(crosses & ~loose)
        linear = ((low >= 0) & (high > 0)) | (loose & (high > -low))
        # What is nearly decided differs from its line by what is free in a small interval.
        free = np.flatnonzero(loose)
        rest = self._columns(np.zeros(len(free)), np.ones(len(free)))
        scale = np.minimum(width, least / _NARROW)[units]
        before = self._columns(low[units] / scale, high[units] / scale)
        after = self._columns(np.zeros(len(units)), high[units] / scale)
        self._equate(before, scale, (matrix[units], constant[units]))
        self.relus += list(zip(before.tolist(), after.tolist(), strict=True))
        image = sparse.diags(linear.astype(float)) @ self._widened(matrix)
        image = image + self._diagonal(units, after, scale, size)
        image = image + self._diagonal(free, rest, least[free], size)
        return image, linear * constant

    def add_rows(self, A, slope, shift, lower):
        """Add a variable for each row of the outputs, in units of its width; return their places.

        None where a row changes too little for Marabou's arithmetic.
        """
        last = len(self.relaxation.graph.nodes) - 1
        A, shift, lower = A.cpu().numpy(), shift.cpu().numpy(), lower.cpu().numpy()
        ends = (self.relaxation.lows[last][0], self.relaxation.highs[last][0])
        low, high = (end.flatten().cpu().numpy() for end in ends)
        outputs, constant = self._expression(last)
        matrix, constant = sparse.csr_matrix(A) @ outputs, A @ constant + shift
        upper = A.clip(min=0) @ high + A.clip(max=0) @ low + shift
        if slope is not None:
            slope, (column, far) = slope.cpu().numpy(), self.distance
            rows = np.arange(len(A))
            matrix = matrix + self._diagonal(rows, np.full(len(A), column), slope * far, len(A))
            upper = upper + slope.clip(min=0) * far
        width = upper - lower
        reach = np.abs(A) @ np.maximum(-low, high) + np.abs(shift)
        if not (width > _RESOLVED * reach).all():
            return None
        places = self._columns(lower / width, np.maximum(upper / width, 2 * MARGIN))
        self._equate(places, width, (matrix, constant))
        return places.tolist()
