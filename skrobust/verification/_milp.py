"""One row of a piecewise linear network over a box, as a mixed-integer program for HiGHS."""

from copy import copy
from dataclasses import dataclass

import highspy
import numpy as np
import torch
from scipy import sparse

from skrobust.bounds import NUMBERS_AT_ONCE, Units, farthest
from skrobust.graphs import Clamp, MaxPool, Relu

__all__ = ["Outcome", "Program", "affine_maps"]

_TOLERANCE = 1e-9  # of HiGHS, in each constraint and in the reduced costs
# A row counts as proved where it is above this, relative to the numbers in it. HiGHS may be
# wrong by its tolerance in each constraint, which what follows in the network multiplies.
_MARGIN = 1e-6
_ROUNDING = 1e-14  # of the shift of a row, relative to the numbers in it


@dataclass(frozen=True, eq=False)
class Outcome:
    """What a program said of one row.

    Attributes
    ----------
    status : {"proved", "found", "limit", "failure"}
    lower : float
        The solver's lower bound of the row, where it is one.
    point : ndarray of shape (n_features,) or None
        Where the row is least, as far as is known.
    """

    status: str
    lower: float = -np.inf
    point: np.ndarray | None = None


def affine_maps(graph):
    """Return each node that matters as an affine function of the input and piecewise nodes.

    Returns
    -------
    dict of int to (dict of int to csr_matrix, ndarray)
        For the nodes that piecewise nodes read, and the last one: a matrix for each node
        that it depends on, and the constant.
    """
    wanted = {graph.nodes[i].inputs[0] for i in graph.piecewise} | {len(graph.nodes) - 1}
    return {j: _affine_map(graph, j) for j in sorted(wanted)}


def _affine_map(graph, j):
    size = graph.nodes[j].size
    largest = max(node.size for node in graph.nodes)
    step = max(1, NUMBERS_AT_ONCE // largest)
    matrices, constants = {}, []
    for start in range(0, size, step):
        count = min(step, size - start)
        rows = torch.zeros(count, size, dtype=torch.float64)
        rows[torch.arange(count), start + torch.arange(count)] = 1.0
        parts, constant = _pull(graph, j, rows.view(count, *graph.nodes[j].shape))
        constants.append(constant.numpy())
        for k, part in parts.items():
            matrices.setdefault(k, []).append(sparse.csr_matrix(part.flatten(1).numpy()))
    return {k: sparse.vstack(blocks).tocsr() for k, blocks in matrices.items()}, np.concatenate(
        constants
    )


def _pull(graph, j, rows):
    pending, parts = {j: rows}, {}
    constant = rows.new_zeros(len(rows))
    for i in range(j, -1, -1):
        here = pending.pop(i, None)
        if here is None:
            continue
        node = graph.nodes[i]
        if i == 0 or not node.is_affine:
            parts[i] = here
            continue
        constant = constant + here.flatten(1) @ graph.constants[i].flatten()
        for k, part in zip(node.inputs, node.adjoint(here), strict=True):
            if part is not None:
                pending[k] = pending[k] + part if k in pending else part
    return parts, constant


class Program:
    """The network over one box, with a 0-1 variable for each unit that is not decided there.

    Parameters
    ----------
    maps : dict
        From `affine_maps`.
    relaxation : Relaxation
        Of one ball of the L-infinity norm. Units are decided by its intervals.
    nearest : float or None, default=None
        Where it is a number, there is a variable d, at least that and the distance from the
        center.
    integer : bool, default=True
        Whether undecided units are decided by 0-1 variables; their triangles if not.
    """

    def __init__(self, maps, relaxation, nearest=None, integer=True):
        self.maps, self.relaxation, self.integer = maps, relaxation, integer
        ball, graph = relaxation.ball, relaxation.graph
        self.low, self.high = [ball.lower[0].cpu().numpy()], [ball.upper[0].cpu().numpy()]
        self.kinds = [np.zeros(graph.n_features, dtype=bool)]
        self.offsets = {0: 0}
        self.n_columns = graph.n_features
        self.rows = []  # (matrix, lower, upper)
        self.distance = None
        if nearest is not None:
            self._add_distance(ball, nearest)
        for i in graph.piecewise:
            self._add_node(i, graph.nodes[i])

    def _columns(self, low, high, integer=False):
        """Add variables; return the place of the first."""
        place = self.n_columns
        self.low.append(np.asarray(low, dtype=float))
        self.high.append(np.asarray(high, dtype=float))
        self.kinds.append(np.full(len(self.low[-1]), integer))
        self.n_columns += len(self.low[-1])
        return place

    def _selection(self, place, units, values=1.0):
        """Return rows that pick the variables place + units, times values."""
        n = len(units)
        values = np.broadcast_to(values, n)
        return sparse.csr_matrix(
            (values, (np.arange(n), place + np.asarray(units))), shape=(n, self.n_columns)
        )

    def _expression(self, j, units=None):
        """Return node j as rows over the variables there are, and its constant."""
        matrices, constant = self.maps[j]
        total = sparse.csr_matrix((len(constant), self.n_columns))
        for k, matrix in matrices.items():
            matrix = matrix.tocoo()
            place = (matrix.row, matrix.col + self.offsets[k])
            total = total + sparse.csr_matrix((matrix.data, place), shape=total.shape)
        return (total, constant) if units is None else (total[units], constant[units])

    def _constrain(self, matrix, low, high):
        n = matrix.shape[0]
        if n:
            self.rows.append((matrix, np.broadcast_to(low, n), np.broadcast_to(high, n)))

    def _add_distance(self, ball, nearest):
        far = float(farthest(ball)[0])
        self.distance = self._columns([min(nearest, far)], [far])
        center = ball.center[0].cpu().numpy()
        units = np.flatnonzero(self.high[0] > self.low[0])
        d = self._selection(self.distance, np.zeros(len(units), dtype=int))
        x = self._selection(0, units)
        self._constrain(d - x, -center[units], np.inf)
        self._constrain(d + x, center[units], np.inf)

    def _add_node(self, i, node):
        j = node.inputs[0]
        lower = self.relaxation.lows[j][0].flatten().cpu().numpy()
        upper = self.relaxation.highs[j][0].flatten().cpu().numpy()
        ends = (self.relaxation.lows[j][:1], self.relaxation.highs[j][:1])
        low, high = (end[0].flatten().cpu().numpy() for end in Units().image(i, node, *ends))
        self.offsets[i] = self._columns(low, high)
        if isinstance(node, Relu):
            slope = node.slope.expand(node.shape).flatten().cpu().numpy()
            self._add_relu(i, j, slope, lower, upper)
        elif isinstance(node, Clamp):
            self._add_clamp(i, j, node, lower, upper)
        elif isinstance(node, MaxPool):
            self._add_pool(i, j, node, lower, upper)

    def _add_relu(self, i, j, slope, lower, upper):
        place = self.offsets[i]
        fixed = (upper <= 0) & (slope == 0)
        linear = np.flatnonzero(((lower >= 0) | (upper <= 0)) & ~fixed)
        factor = np.where(lower >= 0, 1.0, slope)[linear]
        z, shift = self._expression(j, linear)
        matrix = self._selection(place, linear) - sparse.diags(factor) @ z
        self._constrain(matrix, factor * shift, factor * shift)
        units = np.flatnonzero((lower < 0) & (upper > 0))
        if len(units) == 0:
            return
        low, high, s = lower[units], upper[units], slope[units]
        zero, one = np.zeros(len(units)), np.ones(len(units))
        binary = self._columns(zero, one, self.integer)
        z, shift = self._expression(j, units)
        y = self._selection(place, units)
        steep, flat = y - z, y - sparse.diags(s) @ z
        # f is the larger of z and s z; the smaller for s > 1, where all inequalities turn.
        sign = np.where(s <= 1, 1.0, -1.0)
        turn = sparse.diags(sign)
        self._constrain(turn @ steep, sign * shift, np.inf)
        self._constrain(turn @ flat, sign * s * shift, np.inf)
        places = np.arange(len(units))
        rise = self._selection(binary, places, (1 - s) * high)
        fall = self._selection(binary, places, (1 - s) * low)
        self._constrain(turn @ (flat - rise), -np.inf, sign * s * shift)
        self._constrain(turn @ (steep - fall), -np.inf, sign * (shift - (1 - s) * low))

    def _add_clamp(self, i, j, node, lower, upper):
        place = self.offsets[i]
        inside = np.flatnonzero((lower >= node.low) & (upper <= node.high))
        z, shift = self._expression(j, inside)
        self._constrain(self._selection(place, inside) - z, shift, shift)
        for limit, sign, crossed in (
            (node.low, 1.0, (lower < node.low) & (upper > node.low)),
            (node.high, -1.0, (upper > node.high) & (lower < node.high)),
        ):
            units = np.flatnonzero(crossed)
            if len(units) == 0:
                continue
            # At `low`: y <= z + (low - lower) a, y <= low + (top - low) (1 - a); y >= z there
            # only where `high` is not passed. At `high` the same, upside down.
            binary = self._columns(np.zeros(len(units)), np.ones(len(units)), self.integer)
            z, shift = self._expression(j, units)
            y = self._selection(place, units)
            away = (limit - lower[units]) if sign > 0 else (upper[units] - limit)
            span = np.minimum(upper[units], node.high) - np.maximum(lower[units], node.low)
            places = np.arange(len(units))
            gate = self._selection(binary, places, away)
            hold = self._selection(binary, places, span)
            self._constrain(sign * (y - z) - gate, -np.inf, sign * shift)
            self._constrain(sign * y + hold, -np.inf, sign * limit + span)
            # The other side of y = z, where the other limit is out of reach.
            free = (upper[units] <= node.high) if sign > 0 else (lower[units] >= node.low)
            free = np.flatnonzero(free)
            self._constrain(sign * (y - z)[free], sign * shift[free], np.inf)

    def _add_pool(self, i, j, node, lower, upper):
        place = self.offsets[i]
        members = node.members.cpu().numpy()
        for unit, window in enumerate(members):
            window = np.unique(window)
            window = window[upper[window] >= lower[window].max()]
            z, shift = self._expression(j, window)
            y = self._selection(place, np.full(len(window), unit))
            if len(window) == 1:
                self._constrain(y - z, shift, shift)
                continue
            binary = self._columns(np.zeros(len(window)), np.ones(len(window)), self.integer)
            z, shift = self._expression(j, window)
            y = self._selection(place, np.full(len(window), unit))
            gap = upper[window].max() - lower[window]
            chosen = self._selection(binary, np.arange(len(window)), gap)
            self._constrain(y - z, shift, np.inf)
            self._constrain(y - z + chosen, -np.inf, shift + gap)
            total = self._selection(binary, np.arange(len(window))).sum(axis=0)
            self._constrain(sparse.csr_matrix(total), 1.0, 1.0)

    def restrict(self, j, units, signs):
        """Add that the entries `units` of node j are at least 0 (sign 1) or at most (-1)."""
        z, shift = self._expression(j, units)
        self._constrain(sparse.diags(signs) @ z, -signs * shift, np.inf)

    def cut(self, row, shift, limit):
        """Return two programs: row . outputs + shift at most `limit`, and at least."""
        matrix, constant = self._expression(len(self.relaxation.graph.nodes) - 1)
        matrix = sparse.csr_matrix(row[None]) @ matrix
        limit = limit - shift - row @ constant
        halves = copy(self), copy(self)
        for half, ends in zip(halves, ((-np.inf, limit), (limit, np.inf)), strict=True):
            half.rows = list(self.rows)
            half._constrain(matrix, *ends)
        return halves

    def minimise(self, row, slope, shift, *, time_limit=np.inf, decide=True):
        """Minimise row . outputs + slope d + shift; see `Outcome`.

        With `decide`, the search ends as soon as the sign of the minimum is known.
        """
        last = len(self.relaxation.graph.nodes) - 1
        outputs, constant = self._expression(last)
        cost = np.asarray(sparse.csr_matrix(row[None]) @ outputs.tocsr().todense()).ravel()
        if self.distance is not None:
            cost[self.distance] += slope
        shift = float(shift + row @ constant)
        ends = (self.relaxation.lows[last][0], self.relaxation.highs[last][0])
        reach = torch.stack(ends).abs().amax(dim=0).flatten().cpu().numpy()
        scale = 1.0 + abs(shift) + float(np.abs(row) @ reach)
        margin = _MARGIN * scale
        solver, scale = self._solver(cost, shift, margin if decide else np.inf, time_limit)
        if solver is None:
            return Outcome("failure")
        solver.run()
        return self._read(solver, margin, scale)

    def _ends(self):
        return np.concatenate(self.low), np.concatenate(self.high)

    def _solver(self, cost, shift, margin, time_limit):
        """Return HiGHS with the scaled program, and the scale; None where rounding is too large.

        HiGHS has absolute tolerances, and drops small entries without a word. So each variable
        x becomes middle + half u with u in [-1, 1], and each row is divided by its largest entry.
        """
        low, high = self._ends()
        kinds = np.concatenate(self.kinds)
        middle = np.where(kinds, 0.0, (low + high) / 2)
        half = np.where(kinds | (high <= low), 1.0, (high - low) / 2)
        blocks = [_widened(matrix, self.n_columns) for matrix, _, _ in self.rows]
        blocks.append(sparse.csr_matrix(cost[None]))
        matrix = sparse.vstack(blocks).tocsr()
        matrix.sum_duplicates()
        lower = np.concatenate([*(part[1] for part in self.rows), [-np.inf]])
        # Only what might break the row is of interest.
        upper = np.concatenate([*(part[2] for part in self.rows), [margin - shift]])
        moved, weight = matrix @ middle, abs(matrix) @ np.abs(middle)
        weight = weight + np.where(np.isfinite(lower), np.abs(lower), 0.0)
        weight = weight + np.where(np.isfinite(upper), np.abs(upper), 0.0)
        offset = shift + float(cost @ middle)
        matrix, cost = (matrix @ sparse.diags(half)).tocsr(), cost * half
        largest = abs(matrix).max(axis=1).toarray().ravel()
        if (weight * _ROUNDING > _TOLERANCE * np.where(largest > 0, largest, np.inf)).any():
            return None, None
        scale = 1 / np.where(largest > 0, largest, 1.0)
        matrix = (sparse.diags(scale) @ matrix).tocsr()
        program = highspy.HighsLp()
        program.num_col_, program.num_row_ = self.n_columns, matrix.shape[0]
        program.col_cost_, program.offset_ = cost, offset
        program.col_lower_ = (low - middle) / half
        program.col_upper_ = (high - middle) / half
        program.row_lower_ = (lower - moved) * scale
        program.row_upper_ = (upper - moved) * scale
        program.a_matrix_.format_ = highspy.MatrixFormat.kRowwise
        program.a_matrix_.start_ = matrix.indptr
        program.a_matrix_.index_ = matrix.indices
        program.a_matrix_.value_ = matrix.data
        if kinds.any():
            types = (highspy.HighsVarType.kContinuous, highspy.HighsVarType.kInteger)
            program.integrality_ = [types[int(kind)] for kind in kinds]
        solver = highspy.Highs()
        for name, value in {
            "output_flag": False,
            "threads": 1,
            "primal_feasibility_tolerance": _TOLERANCE,
            "dual_feasibility_tolerance": _TOLERANCE,
            "mip_feasibility_tolerance": _TOLERANCE,
            "small_matrix_value": 1e-12,
            "mip_rel_gap": 0.0,
            "objective_target": -margin,
            "time_limit": float(min(time_limit, 1e9)),
        }.items():
            solver.setOptionValue(name, value)
        solver.passModel(program)
        n = self.relaxation.graph.n_features
        return solver, (middle[:n], half[:n])

    def _read(self, solver, margin, scale):
        status = solver.getModelStatus()
        kinds = highspy.HighsModelStatus
        if status == kinds.kInfeasible:
            return Outcome("proved", 0.0)
        info = solver.getInfo()
        if info.primal_solution_status == highspy.SolutionStatus.kSolutionStatusFeasible:
            middle, half = scale
            point = middle + half * np.array(solver.getSolution().col_value)[: len(half)]
            is_least = status == kinds.kOptimal and not np.concatenate(self.kinds).any()
            lower = info.objective_function_value - margin if is_least else -np.inf
            return Outcome("found", lower, point)
        if status == kinds.kTimeLimit:
            return Outcome("limit")
        return Outcome("failure")


def _widened(matrix, n_columns):
    """Return a matrix that was made when there were fewer variables."""
    return sparse.csr_matrix(
        (matrix.data, matrix.indices, matrix.indptr), shape=(matrix.shape[0], n_columns)
    )
