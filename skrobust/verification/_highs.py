"""One row of a piecewise linear network over a box, as a mixed-integer program for HiGHS."""

from copy import copy
from dataclasses import dataclass
from functools import singledispatch

import highspy
import numpy as np
from scipy import sparse

from skrobust.bounds import Units, farthest
from skrobust.graphs import Clamp, MaxPool, Relu
from skrobust.verification._program import NetworkProgram, no_rule
from skrobust.verification._result import Reason

__all__ = ["Minimum", "Program", "add_node"]

_TOLERANCE = 1e-9  # of HiGHS, in each constraint and in the reduced costs
# A row counts as proved where it is above this, relative to the numbers in it. HiGHS may be
# wrong by its tolerance in each constraint, which what follows in the network multiplies.
_MARGIN = 1e-6
_ROUNDING = 1e-14  # of the shift of a row, relative to the numbers in it
_OPTIONS = {
    "output_flag": False,
    "threads": 1,
    "primal_feasibility_tolerance": _TOLERANCE,
    "dual_feasibility_tolerance": _TOLERANCE,
    "mip_feasibility_tolerance": _TOLERANCE,
    "small_matrix_value": 1e-12,
    "mip_rel_gap": 0.0,
}
_LIMITS = {
    highspy.HighsModelStatus.kTimeLimit: Reason.TIME_OUT,
    highspy.HighsModelStatus.kSolutionLimit: Reason.WORK_LIMIT,
}


@dataclass(frozen=True, eq=False)
class Minimum:
    """What a program said of one row.

    Attributes
    ----------
    reason : Reason
        PROVED where the row is above 0; COUNTEREXAMPLE where the solver names a point, which
        the network has to confirm; TIME_OUT or SOLVER_ERROR.
    lower : float
        The solver's lower bound of the row, where it is one.
    point : ndarray of shape (n_features,) or None
        Where the row is least, as far as is known.
    """

    reason: Reason
    lower: float = -np.inf
    point: np.ndarray | None = None


class Program(NetworkProgram):
    """The network over one box, with a 0-1 variable for each unit that is not decided there.

    Parameters
    ----------
    maps : AffineMaps
    relaxation : Relaxation
        Of one ball of the L-infinity norm. Units are decided by its intervals.
    nearest : float or None, default=None
        Where it is a number, there is a variable d, at least that and the distance from the
        center.
    integer : bool, default=True
        Whether undecided units are decided by 0-1 variables; their triangles if not.
    """

    def __init__(self, maps, relaxation, nearest=None, integer=True):
        super().__init__(maps, relaxation)
        self.integer = integer
        self.kinds = []  # which variables are whole numbers
        self.rows = []  # (matrix, lower, upper)
        center, low, high = self.box()
        self._add_image(0, low, high)
        self.distance = None
        if nearest is not None:
            self._add_distance(center, low, high, nearest)
        for i in self.graph.piecewise:
            self._add_image(i, *self._range(i))
            add_node(self.graph.nodes[i], self, i)

    def columns(self, low, high, integer=False):
        places = super().columns(low, high)
        self.kinds.append(np.full(len(places), integer))
        return places

    def binaries(self, n):
        """Add 0-1 variables, or, without `integer`, numbers in between; return their places."""
        return self.columns(np.zeros(n), np.ones(n), self.integer)

    def pick(self, columns, values=1.0):
        """Return rows that are single variables, times values."""
        return self.selection(np.arange(len(columns)), columns, values, len(columns))

    def entries(self, i, units):
        """Return rows that are entries of the image of node i."""
        return self.widened(self.images[i][0])[units]

    def constrain(self, matrix, low, high):
        """Add rows between low and high."""
        n = matrix.shape[0]
        if n:
            self.rows.append((matrix, np.broadcast_to(low, n), np.broadcast_to(high, n)))

    def _add_image(self, i, low, high):
        """Add a variable for each entry of a node."""
        self.images[i] = (self.pick(self.columns(low, high)), np.zeros(len(low)))

    def _range(self, i):
        node = self.graph.nodes[i]
        ends = (side[node.inputs[0]][:1] for side in (self.relaxation.lows, self.relaxation.highs))
        image = Units().image(i, node, *ends)
        return (end[0].flatten().cpu().numpy() for end in image)

    def _add_distance(self, center, low, high, nearest):
        far = float(farthest(self.relaxation.ball)[0])
        (self.distance,) = self.columns([min(nearest, far)], [far])
        moves = np.flatnonzero(high > low)
        d = self.pick(np.full(len(moves), self.distance))
        x = self.entries(0, moves)
        self.constrain(d - x, -center[moves], np.inf)
        self.constrain(d + x, center[moves], np.inf)

    def restrict(self, j, units, signs):
        """Add that the entries `units` of node j are at least 0 (sign 1) or at most (-1)."""
        z, shift = self.expression(j, units)
        self.constrain(sparse.diags(signs) @ z, -signs * shift, np.inf)

    def cut(self, row, shift, limit):
        """Return two programs: row . outputs + shift at most `limit`, and at least."""
        matrix, constant = self.expression(self.last)
        matrix = sparse.csr_matrix(row[None]) @ matrix
        limit = limit - shift - row @ constant
        halves = copy(self), copy(self)
        for half, ends in zip(halves, ((-np.inf, limit), (limit, np.inf)), strict=True):
            half.rows = list(self.rows)
            half.constrain(matrix, *ends)
        return halves

    def minimize(self, row, slope, shift, *, watch=None, decide=True):
        """Minimize row . outputs + slope d + shift; see `Minimum`.

        With `decide`, the search ends as soon as the sign of the minimum is known. It keeps to
        the limits of a `Stopwatch`, in which nodes of its tree count as domains.
        """
        cost, shift, scale = self._cost(row, slope, shift)
        if not np.isfinite(scale):  # the network's own numbers overflow
            return Minimum(Reason.SOLVER_ERROR)
        return self._solved(cost, shift, scale, watch, decide)

    def minimize_largest(self, rows, slopes, shifts, *, watch=None):
        """Minimize the largest of several rows, as `minimize` does one, until its sign is known.

        It is the least variable that is not below any of them.
        """
        costs, shifts, scales = zip(*map(self._cost, rows, slopes, shifts), strict=True)
        scale = max(scales)
        if not np.isfinite(scale):
            return Minimum(Reason.SOLVER_ERROR)
        larger = copy(self)
        for name in ("lows", "highs", "kinds", "rows"):
            setattr(larger, name, list(getattr(self, name)))
        costs, shifts = np.stack(costs), np.array(shifts)
        low, high = np.concatenate(self.lows), np.concatenate(self.highs)
        ends = (costs.clip(min=0) @ sides[0] + costs.clip(max=0) @ sides[1] + shifts
                for sides in ((low, high), (high, low)))  # fmt: skip
        # With room for the rounding of the sums.
        column = larger.columns(*([end.max() + d] for end, d in zip(ends, (-1, 1), strict=True)))
        largest = larger.pick(np.repeat(column, len(costs)))
        costs = larger.widened(sparse.csr_matrix(costs))
        larger.constrain(largest - costs, shifts, np.inf)
        cost = np.zeros(larger.n_columns)
        cost[column] = 1.0
        return larger._solved(cost, 0.0, scale, watch, decide=True)

    def _cost(self, row, slope, shift):
        """Return a row as a function of the variables, its constant, and how large it can be."""
        outputs, constant = self.expression(self.last)
        cost = np.asarray(sparse.csr_matrix(row[None]) @ outputs.tocsr().todense()).ravel()
        if self.distance is not None:
            cost[self.distance] += slope
        shift = float(shift + row @ constant)
        with np.errstate(invalid="ignore", over="ignore"):
            reach = np.abs(self.interval(self.last)).max(axis=0)
            return cost, shift, 1.0 + abs(shift) + float(np.abs(row) @ reach)

    def _solved(self, cost, shift, scale, watch, decide):
        margin = _MARGIN * scale
        solver, scale = self._solver(cost, shift, margin if decide else np.inf, watch)
        if solver is None:
            return Minimum(Reason.SOLVER_ERROR)
        first = self._run(solver, margin, scale, watch)
        if first.reason is not Reason.PROVED or not np.concatenate(self.kinds).any():
            return first
        # Its presolve has called feasible mixed-integer programs infeasible.
        solver.clearSolver()
        solver.setOptionValue("presolve", "off")
        again = self._run(solver, margin, scale, watch)
        return again if again.reason in (Reason.PROVED, Reason.COUNTEREXAMPLE) else first

    def _run(self, solver, margin, scale, watch):
        solver.run()
        if watch is not None:
            # A node of the tree of a mixed-integer program is a domain; a linear one has none.
            watch.count(max(0, solver.getInfo().mip_node_count))
            solver.setOptionValue("time_limit", float(min(watch.left, 1e9)))
        return self._minimum(solver, margin, scale)

    def _solver(self, cost, shift, margin, watch):
        """Return HiGHS with the scaled program, and the scale; None where rounding is too large.

        HiGHS has absolute tolerances, and drops small entries without a word. So each variable
        x becomes middle + half u with u in [-1, 1], and each row is divided by its largest entry.
        """
        low, high = np.concatenate(self.lows), np.concatenate(self.highs)
        kinds = np.concatenate(self.kinds)
        middle = np.where(kinds, 0.0, (low + high) / 2)
        half = np.where(kinds | (high <= low), 1.0, (high - low) / 2)
        # Only what might break the row is of interest.
        rows = self._scaled_rows(cost, margin - shift, middle, half)
        if rows is None:
            return None, None
        program = highspy.HighsLp()
        program.num_col_, program.num_row_ = self.n_columns, rows[0].shape[0]
        program.col_cost_, program.offset_ = cost * half, shift + float(cost @ middle)
        program.col_lower_, program.col_upper_ = (low - middle) / half, (high - middle) / half
        matrix, program.row_lower_, program.row_upper_ = rows
        program.a_matrix_.format_ = highspy.MatrixFormat.kRowwise
        program.a_matrix_.start_ = matrix.indptr
        program.a_matrix_.index_ = matrix.indices
        program.a_matrix_.value_ = matrix.data
        if kinds.any():
            types = (highspy.HighsVarType.kContinuous, highspy.HighsVarType.kInteger)
            program.integrality_ = [types[int(kind)] for kind in kinds]
        solver = highspy.Highs()
        limits = {"objective_target": -margin}
        if watch is not None:
            limits["time_limit"] = float(min(watch.left, 1e9))
            limits["mip_max_nodes"] = int(min(watch.domains_left, 2**31 - 1))
        for name, value in (_OPTIONS | limits).items():
            solver.setOptionValue(name, value)
        solver.passModel(program)
        n = self.graph.n_features
        return solver, (middle[:n], half[:n])

    def _scaled_rows(self, cost, most, middle, half):
        """Return the rows, and cost at most `most`, in scaled variables: matrix, low, high.

        None where rounding of the shift is more than the solver's tolerance.
        """
        blocks = [self.widened(matrix) for matrix, _, _ in self.rows]
        matrix = sparse.vstack([*blocks, sparse.csr_matrix(cost[None])]).tocsr()
        matrix.sum_duplicates()
        lower = np.concatenate([*(part[1] for part in self.rows), [-np.inf]])
        upper = np.concatenate([*(part[2] for part in self.rows), [most]])
        moved, weight = matrix @ middle, abs(matrix) @ np.abs(middle)
        weight = weight + np.where(np.isfinite(lower), np.abs(lower), 0.0)
        weight = weight + np.where(np.isfinite(upper), np.abs(upper), 0.0)
        matrix = (matrix @ sparse.diags(half)).tocsr()
        largest = abs(matrix).max(axis=1).toarray().ravel()
        if (weight * _ROUNDING > _TOLERANCE * np.where(largest > 0, largest, np.inf)).any():
            return None
        scale = 1 / np.where(largest > 0, largest, 1.0)
        matrix = (sparse.diags(scale) @ matrix).tocsr()
        return matrix, (lower - moved) * scale, (upper - moved) * scale

    def _minimum(self, solver, margin, scale):
        status = solver.getModelStatus()
        kinds = highspy.HighsModelStatus
        if status == kinds.kInfeasible:
            return Minimum(Reason.PROVED, 0.0)
        info = solver.getInfo()
        if info.primal_solution_status == highspy.SolutionStatus.kSolutionStatusFeasible:
            middle, half = scale
            point = middle + half * np.array(solver.getSolution().col_value)[: len(half)]
            is_least = status == kinds.kOptimal and not np.concatenate(self.kinds).any()
            lower = info.objective_function_value - margin if is_least else -np.inf
            return Minimum(Reason.COUNTEREXAMPLE, lower, point)
        if status in _LIMITS:
            return Minimum(_LIMITS[status])
        return Minimum(Reason.SOLVER_ERROR)


@singledispatch
def add_node(node, program, i):
    """Add the rows that tie the variables of piecewise node i to what it reads.

    Raises
    ------
    UnsupportedModelError
        For kinds of nodes without a rule.
    """
    raise no_rule("program", node, "HiGHS needs linear rows with 0-1 variables. Use Bounds.")


@add_node.register
def _(node: Relu, program, i):
    j = node.inputs[0]
    lower, upper = program.interval(j)
    slope = node.slope.expand(node.shape).flatten().cpu().numpy()
    fixed = (upper <= 0) & (slope == 0)
    linear = np.flatnonzero(((lower >= 0) | (upper <= 0)) & ~fixed)
    factor = np.where(lower >= 0, 1.0, slope)[linear]
    whole, constant = program.expression(j)
    z, shift = whole[linear], constant[linear]
    matrix = program.entries(i, linear) - sparse.diags(factor) @ z
    program.constrain(matrix, factor * shift, factor * shift)
    units = np.flatnonzero((lower < 0) & (upper > 0))
    if len(units) == 0:
        return
    low, high, s = lower[units], upper[units], slope[units]
    binary = program.binaries(len(units))
    z, shift = program.widened(whole[units]), constant[units]
    y = program.entries(i, units)
    steep, flat = y - z, y - sparse.diags(s) @ z
    # f is the larger of z and s z; the smaller for s > 1, where all inequalities turn.
    sign = np.where(s <= 1, 1.0, -1.0)
    turn = sparse.diags(sign)
    program.constrain(turn @ steep, sign * shift, np.inf)
    program.constrain(turn @ flat, sign * s * shift, np.inf)
    rise, fall = program.pick(binary, (1 - s) * high), program.pick(binary, (1 - s) * low)
    program.constrain(turn @ (flat - rise), -np.inf, sign * s * shift)
    program.constrain(turn @ (steep - fall), -np.inf, sign * (shift - (1 - s) * low))


@add_node.register
def _(node: Clamp, program, i):
    j = node.inputs[0]
    lower, upper = program.interval(j)
    inside = np.flatnonzero((lower >= node.low) & (upper <= node.high))
    whole, constant = program.expression(j)
    z, shift = whole[inside], constant[inside]
    program.constrain(program.entries(i, inside) - z, shift, shift)
    for limit, sign, crossed in (
        (node.low, 1.0, (lower < node.low) & (upper > node.low)),
        (node.high, -1.0, (upper > node.high) & (lower < node.high)),
    ):
        units = np.flatnonzero(crossed)
        if len(units) == 0:
            continue
        # At `low`: y <= z + (low - lower) a, y <= low + (top - low) (1 - a); y >= z there
        # only where `high` is not passed. At `high` the same, upside down.
        binary = program.binaries(len(units))
        z, shift = program.widened(whole[units]), constant[units]
        y = program.entries(i, units)
        away = (limit - lower[units]) if sign > 0 else (upper[units] - limit)
        span = np.minimum(upper[units], node.high) - np.maximum(lower[units], node.low)
        gate, hold = program.pick(binary, away), program.pick(binary, span)
        program.constrain(sign * (y - z) - gate, -np.inf, sign * shift)
        program.constrain(sign * y + hold, -np.inf, sign * limit + span)
        # The other side of y = z, where the other limit is out of reach.
        free = (upper[units] <= node.high) if sign > 0 else (lower[units] >= node.low)
        free = np.flatnonzero(free)
        program.constrain(sign * (y - z)[free], sign * shift[free], np.inf)


@add_node.register
def _(node: MaxPool, program, i):
    lower, upper = program.interval(node.inputs[0])
    whole, constant = program.expression(node.inputs[0])
    for unit, window in enumerate(node.members.cpu().numpy()):
        window = np.unique(window)
        window = window[upper[window] >= lower[window].max()]
        binary = program.binaries(len(window)) if len(window) > 1 else None
        z, shift = program.widened(whole[window]), constant[window]
        y = program.entries(i, np.full(len(window), unit))
        if binary is None:
            program.constrain(y - z, shift, shift)
            continue
        gap = upper[window].max() - lower[window]
        program.constrain(y - z, shift, np.inf)
        program.constrain(y - z + program.pick(binary, gap), -np.inf, shift + gap)
        total = program.pick(binary).sum(axis=0)
        program.constrain(sparse.csr_matrix(total), 1.0, 1.0)
