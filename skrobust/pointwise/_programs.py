"""The closest points of linear regions at which another label wins (Bastani et al.)."""

import time
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from scipy import sparse
from scipy.optimize import linprog

from skrobust.pointwise._simplex import (
    FAILURE,
    INFEASIBLE,
    LIMIT,
    OPEN,
    OPTIMAL,
    BoxPrograms,
    ranks,
)

__all__ = ["LazyPrograms", "Solutions", "StatedPrograms", "closest_by_half_spaces"]

_ROWS_AT_A_TIME = 24
_SUMS = 2  # rows up to which many are added as one
_FEW_ROWS = 200  # from here on, HiGHS is faster than dense steps in NumPy
_SETTLED = 1 + FAILURE
_FEASIBLE = 1e-9  # slack, relative to the largest output, or the largest input of the same node
_ROUNDING = 1e-6  # of the tolerance of earlier nodes, where one cancels all that comes in
_PARTS = 3  # what has come so far is dealt with when it is one in so many of the programs


@dataclass(frozen=True, eq=False)
class Solutions:
    """What n linear programs found.

    Parameters
    ----------
    status : ndarray of str, shape (n,)
        "optimal", "infeasible", "limit" where the radius has passed the limit, "rows" where
        more rows than allowed are needed, or "failure".
    radius : ndarray of shape (n,)
        The optima; for "limit" and "rows", lower bounds of them.
    points : ndarray of shape (n, n_features)
        What attains them; NaN where the status is another one.
    seconds : ndarray of shape (n,)
        Wall-clock time; what is done for several programs together is shared out evenly.
    """

    status: np.ndarray
    radius: np.ndarray
    points: np.ndarray
    seconds: np.ndarray

    @classmethod
    def none(cls, n, n_features):
        """Return failures, to be filled."""
        status, points = np.full(n, "failure", dtype="<U10"), np.full((n, n_features), np.nan)
        return cls(status, np.zeros(n), points, np.zeros(n))

    def keep(self, k, status, radius, points=np.nan):
        """Fill in what was found for programs k."""
        self.status[k], self.radius[k], self.points[k] = status, radius, points


@dataclass(frozen=True, eq=False)
class _Rows:
    """What is to be added to k programs: half-spaces, or a sum of them, and rows of outputs.

    Parameters
    ----------
    chosen : ndarray of bool, shape (k, n_rows)
        Half-spaces.
    weights : ndarray of shape (k, n_rows)
        Of the half-spaces, where they are to be added up.
    is_sum : ndarray of bool, shape (k,)
        Where they are, into one row.
    outputs : ndarray of bool, shape (k, n_classes)
        Classes that the target is to beat.
    """

    chosen: np.ndarray
    weights: np.ndarray
    is_sum: np.ndarray
    outputs: np.ndarray

    def __getitem__(self, index):
        return _Rows(
            self.chosen[index], self.weights[index], self.is_sum[index], self.outputs[index]
        )

    @cached_property
    def n_half_spaces(self):
        counts = np.count_nonzero(self.chosen, axis=1)
        return np.where(self.is_sum, np.minimum(counts, 1), counts)

    @cached_property
    def counts(self):
        """How many rows each program gets, of shape (k,)."""
        return self.n_half_spaces + np.count_nonzero(self.outputs, axis=1)


def _units(low, high):
    """Return the largest finite distance to the domain, of shape (n,); 1 if there is none.

    Programs are solved in these units, so that tolerances mean the same whatever those of the
    inputs are.
    """
    reach = np.maximum(-low, high)
    unit = np.max(reach, axis=1, initial=0.0, where=np.isfinite(reach))
    return np.where(unit > 0, unit, 1.0)


class LazyPrograms:
    """A program over each of n regions, with rows added where they are violated.

    All programs take their steps together, so that each step is a few operations on arrays.

    Parameters
    ----------
    region : LinearRegion
        Of n points.
    centers : ndarray of shape (n, n_features)
        Distances are measured from here; they need not lie in the regions.
    targets : ndarray of int, shape (n,)
        Classes that are to win.
    low, high : ndarray of shape (n, n_features)
        Domains.
    margin : float
        By how much.
    labels : ndarray of int, shape (n,)
        Classes that win at the centres: their rows are the first ones.
    max_rows : float, default=inf
        The search gives up where more half-spaces than that are needed.
    """

    def __init__(self, region, centers, targets, low, high, margin, labels, max_rows=np.inf):
        begin = time.perf_counter()
        self.region, self.centers, self.targets = region, centers, targets
        self.max_rows = max_rows
        at_centers = region.at_x is not None and np.array_equal(region.x.cpu(), centers)
        values = region.at_x if at_centers else region.values(self._tensor(centers))
        logits = values[-1].flatten(1).cpu().numpy()
        each = np.arange(len(centers))
        self.gaps = logits - logits[each, targets, None]
        self.margin = np.full(len(centers), float(margin))
        self.start = region.slacks(values).cpu().numpy()
        self.tolerance = _FEASIBLE * np.abs(logits).max(axis=1)
        self.row_tolerance = self._row_tolerances(values)
        self.used = np.zeros(self.start.shape, dtype=bool)
        self.place = np.full(logits.shape, -1)  # of the rows of outputs in the programs
        low, high = low - centers, high - centers
        self.unit = _units(low, high)
        self.programs = BoxPrograms.empty(low / self.unit[:, None], high / self.unit[:, None])
        outputs = np.zeros(logits.shape, dtype=bool)
        outputs[each, labels] = True
        self._add(self.programs, each, each, _Rows(self.used, self.start, each < 0, outputs))
        self.seconds = np.full(len(centers), (time.perf_counter() - begin) / len(centers))

    def _tensor(self, x):
        return torch.as_tensor(x, dtype=torch.float64, device=self.region.x.device)

    def _row_tolerances(self, values):
        """Return a tolerance for each half-space, of shape (n, n_rows)."""
        graph, tolerance = self.region.graph, np.zeros(len(values[0]))
        parts = [np.zeros((len(tolerance), 0))]
        for i in graph.piecewise:
            largest = values[graph.nodes[i].inputs[0]].flatten(1).abs().amax(dim=1)
            tolerance = np.maximum(_FEASIBLE * largest.cpu().numpy(), _ROUNDING * tolerance)
            parts.append(np.repeat(tolerance[:, None], graph.nodes[i].n_rows, axis=1))
        return np.concatenate(parts, axis=1)

    def tighten(self, margin, at):
        """Ask for larger margins, of shape (k,), in the programs `at`."""
        self.margin[at] = margin
        k, j = (self.place[at] >= 0).nonzero()
        k = at[k]
        self.programs.change(k, self.place[k, j], self.gaps[k, j] + self.margin[k])

    def solve(self, limit=np.inf, at=None):
        """Return the `Solutions` of the programs `at`, in that order; of all if None."""
        at = np.arange(len(self.centers)) if at is None else at
        limit = np.broadcast_to(limit, len(at)).astype(float)
        found = Solutions.none(len(at), self.centers.shape[1])
        found.seconds[:], self.seconds[at] = self.seconds[at], 0.0
        work, left = self.programs[at], np.arange(len(at))  # left: places in `found`
        work.restart(left)
        while len(left):
            begin = time.perf_counter()
            is_open = work.status == OPEN
            work.step(limit[left] / self.unit[at[left]])
            found.seconds[left[is_open]] += (time.perf_counter() - begin) / max(1, is_open.sum())
            begin = time.perf_counter()
            idle = np.flatnonzero(work.status == OPTIMAL)
            if len(idle) and len(idle) * _PARTS >= (work.status <= OPTIMAL).sum():
                self._look(work, idle, at, left, found)
                found.seconds[left[idle]] += (time.perf_counter() - begin) / len(idle)
            done = work.status > OPTIMAL
            if done.sum() * _PARTS >= len(left):
                begin = time.perf_counter()
                for end, status in ((LIMIT, "limit"), (INFEASIBLE, "infeasible")):
                    which = work.status == end
                    found.keep(left[which], status, self._radius(work, which, at[left]))
                self.programs.put(at[left[done]], work, done)
                found.seconds[left] += (time.perf_counter() - begin) / len(left)
                work, left = work[~done], left[~done]
        for k in np.flatnonzero(found.status == "failure"):
            begin = time.perf_counter()
            found.keep(k, *self._by_highs(at[[k]], limit[k]))
            found.seconds[k] += time.perf_counter() - begin
        return found

    def _radius(self, work, which, k):
        """Return radii of some of the programs `work`, which are the programs k."""
        return work.radius[which] * self.unit[k][which]

    def _look(self, work, idle, at, left, found):
        """Add the rows that optima violate; settle the programs whose optimum violates none."""
        k = at[left[idle]]
        moves = work.point[idle] * self.unit[k, None]
        rows = self._violated(k, moves, work.n_rows[idle])
        total = work.n_rows[idle] + rows.counts
        is_settled = rows.counts == 0
        is_full = ~is_settled & (total > self.max_rows)
        which = idle[is_settled]
        points = (self.centers[k] + moves)[is_settled]
        found.keep(left[which], "optimal", self._radius(work, which, at[left]), points)
        which = idle[is_full]
        found.keep(left[which], "rows", self._radius(work, which, at[left]))
        go = ~is_settled & ~is_full & (total <= _FEW_ROWS)
        work.status[idle[is_settled | is_full]] = _SETTLED
        work.status[idle[~is_settled & ~is_full & ~go]] = FAILURE
        if go.any():
            self._add(work, idle[go], k[go], rows[go])
            work.restart(idle[go])

    def _violated(self, k, moves, n_rows):
        """Return the `_Rows` that moves of programs k, of shape (len(k), n_features), violate."""
        region = self.region if np.array_equal(k, np.arange(len(self.region))) else self.region[k]
        values = region.values(self._tensor(self.centers[k] + moves))
        logits = values[-1].flatten(1).cpu().numpy()
        short = self.margin[k, None] + logits - logits[np.arange(len(k)), self.targets[k], None]
        short[np.arange(len(k)), self.targets[k]] = 0.0
        outputs = (short > self.tolerance[k, None]) & (self.place[k] < 0)
        slacks = region.slacks(values).cpu().numpy()
        chosen = (slacks < -self.row_tolerance[k]) & ~self.used[k]
        # The most violated first: those that the segment from the centre meets first, tried as
        # well, raise the bound more slowly.
        limits = np.maximum(_ROWS_AT_A_TIME, n_rows // 2)
        is_many = np.count_nonzero(chosen, axis=1) > limits
        # At first, all in one sum: that costs a single backward pass, and often is enough to
        # pass the limit.
        is_sum = is_many & (n_rows <= _SUMS)
        for i in np.flatnonzero(is_many & ~is_sum):
            rows = np.flatnonzero(chosen[i])
            chosen[i] = False
            chosen[i, rows[np.argpartition(slacks[i, rows], limits[i])[: limits[i]]]] = True
        return _Rows(chosen, -slacks, is_sum, outputs)

    def _add(self, programs, owner, k, rows):
        """Add `_Rows` to the programs `owner`, which are those of the regions k."""
        first = np.cumsum(rows.counts) - rows.counts
        i, row = rows.chosen.nonzero()
        is_sum = rows.is_sum[i]
        place = first[i] + np.where(is_sum, 0, ranks(i, len(k)))
        weight = np.where(is_sum, rows.weights[i, row], 1.0)
        right = np.zeros(rows.counts.sum())
        np.add.at(right, place, -weight * self.start[k[i], row])
        self.used[k[i], row] |= ~is_sum
        i, output = rows.outputs.nonzero()
        of_outputs = first[i] + rows.n_half_spaces[i] + ranks(i, len(k))
        right[of_outputs] = self.gaps[k[i], output] + self.margin[k[i]]
        weights = np.zeros((len(right), self.gaps.shape[1]))
        weights[of_outputs, self.targets[k[i]]] = 1.0
        weights[of_outputs, output] = -1.0
        own = np.repeat(np.arange(len(k)), rows.counts)
        normals = self.region.normals(
            k[own], place, row, weight, self._tensor(weights) if len(i) else None
        )
        normals = normals.cpu().numpy() * self.unit[k[own], None]
        self.place[k[i], output] = programs.add(owner[own], normals, right)[of_outputs]

    def _by_highs(self, k, limit):
        """Solve the program k, an array of one, where rounding or its size stopped the method."""
        programs, n_rows = self.programs, self.programs.n_rows
        while True:
            used = slice(n_rows[k[0]])
            status, radius, move = _by_linprog(
                programs.rows.A[k[0], used],
                programs.rows.b[k[0], used],
                -programs.below[k[0]],
                programs.above[k[0]],
            )
            if status != "optimal":
                return status, radius, np.nan
            radius, move = radius * self.unit[k[0]], move * self.unit[k[0]]
            if radius > limit:
                return "limit", radius, np.nan
            rows = self._violated(k, move[None], n_rows[k])
            if rows.counts[0] == 0:
                return "optimal", radius, self.centers[k[0]] + move
            if n_rows[k[0]] + rows.counts[0] > self.max_rows:
                return "rows", radius, np.nan
            self._add(programs, k, k, rows)


def _by_linprog(A, b, low, high):
    n = len(high)
    identity, ones = sparse.identity(n, format="csr"), np.ones((n, 1))
    rows = sparse.vstack(
        [
            sparse.hstack([sparse.csr_matrix(-A), sparse.csr_matrix((len(b), 1))]),
            sparse.hstack([identity, -ones]),
            sparse.hstack([-identity, -ones]),
        ]
    )
    right = np.concatenate([-b, np.zeros(2 * n)])
    bounds = np.column_stack([np.append(low, 0.0), np.append(high, np.inf)])
    cost = np.append(np.zeros(n), 1.0)
    found = linprog(cost, A_ub=rows, b_ub=right, bounds=bounds, method="highs")
    if found.status == 2:
        return "infeasible", np.inf, None
    if found.status != 0:
        return "failure", 0.0, None
    return "optimal", float(found.fun), found.x[:-1]


def closest_by_half_spaces(region, centers, targets, low, high, margin, labels, limit=np.inf):
    """Solve with `scipy.optimize.linprog` on every half-space of each region.

    Slow: tests and benchmarks check the other solvers by it.
    """
    found = Solutions.none(*centers.shape)
    low, high = (np.broadcast_to(end, centers.shape) for end in (low, high))
    for k in range(len(centers)):
        begin = time.perf_counter()
        at = slice(k, k + 1)
        lazy = LazyPrograms(
            region[at], centers[at], targets[at], low[at], high[at], margin, labels[at]
        )
        one, classes = np.zeros(1, dtype=int), np.arange(lazy.place.shape[1])
        others = (lazy.place < 0) & (classes != targets[k])
        rows = _Rows(np.isfinite(lazy.start), lazy.start, one > 0, others)
        lazy._add(lazy.programs, one, one, rows)
        found.keep(k, *lazy._by_highs(one, limit))
        found.seconds[k] = time.perf_counter() - begin
    return found


class StatedPrograms:
    """The programs as section 3.3 of the paper states them: a variable for every unit.

    The value of each node is a variable; affine nodes are equations between them, decisions
    are equations and inequalities. Each is solved by HiGHS in cvxpy, one after the other. The
    parameters are those of `LazyPrograms`.
    """

    def __init__(self, region, centers, targets, low, high, margin, labels, max_rows=np.inf):
        self.region, self.centers, self.targets = region, centers, targets
        self.low, self.high = (np.broadcast_to(end, centers.shape) for end in (low, high))
        self.margin = np.full(len(centers), float(margin))

    def tighten(self, margin, at):
        """Ask for larger margins, of shape (k,), in the programs `at`."""
        self.margin[at] = margin

    def solve(self, limit=np.inf, at=None):
        """Return the `Solutions` of the programs `at`, in that order; of all if None."""
        at = np.arange(len(self.centers)) if at is None else at
        limit = np.broadcast_to(limit, len(at))
        found = Solutions.none(len(at), self.centers.shape[1])
        for place, k in enumerate(at):
            begin = time.perf_counter()
            status, radius, point = self._solve_one(k)
            if status == "optimal" and radius > limit[place]:
                status, point = "limit", np.nan
            found.keep(place, status, radius, point)
            found.seconds[place] = time.perf_counter() - begin
        return found

    def _solve_one(self, k):
        import cvxpy as cp

        region, graph, center = self.region[k : k + 1], self.region.graph, self.centers[k]
        low, high = self.low[k] - center, self.high[k] - center
        unit = _units(low[None], high[None])[0]
        # The variables are moves away from the values at the centre, each node in units of its
        # own: the tolerances of the solver are absolute.
        start = region.values(torch.as_tensor(center[None], dtype=torch.float64))
        start = [value.flatten().numpy() for value in start]
        scales = [unit, *(np.abs(value).max() or 1.0 for value in start[1:])]
        radius = cp.Variable()
        values = [cp.Variable(graph.n_features)]
        constraints = [values[0] <= radius, -values[0] <= radius]
        finite = np.isfinite(low), np.isfinite(high)
        if finite[0].any():
            constraints.append(values[0][finite[0]] >= low[finite[0]] / unit)
        if finite[1].any():
            constraints.append(values[0][finite[1]] <= high[finite[1]] / unit)
        for i, node in enumerate(graph.nodes[1:], start=1):
            value = cp.Variable(node.size)
            matrices = _as_matrices(region, i)
            parts = [
                (M * (scales[j] / scales[i])) @ values[j]
                for M, j in zip(matrices, node.inputs, strict=True)
            ]
            constraints.append(value == sum(parts[1:], parts[0]))
            if not node.is_affine:
                (j,) = node.inputs
                normals, offsets = _half_spaces(region, i)
                slacks = (offsets + normals @ start[j]) / scales[j]
                constraints.append(normals @ values[j] + slacks >= 0)
            values.append(value)
        others = np.delete(np.arange(graph.n_classes), self.targets[k])
        gaps = (self.margin[k] + start[-1][others] - start[-1][self.targets[k]]) / scales[-1]
        constraints.append(values[-1][self.targets[k]] - values[-1][others] >= gaps)
        problem = cp.Problem(cp.Minimize(radius), constraints)
        try:
            problem.solve(solver=cp.HIGHS)
        except (cp.error.SolverError, ValueError):  # the latter for a solution of no status
            return "failure", 0.0, np.nan
        if problem.status in (cp.INFEASIBLE, "infeasible_or_unbounded"):
            return "infeasible", np.inf, np.nan
        if problem.status not in (cp.OPTIMAL, cp.OPTIMAL_INACCURATE):
            return "failure", 0.0, np.nan
        return "optimal", max(float(radius.value), 0.0) * unit, center + values[0].value * unit


def _as_matrices(region, i):
    """Return a sparse matrix for each input of a node."""
    graph, node = region.graph, region.graph.nodes[i]
    shapes = [graph.nodes[j].shape for j in node.inputs]

    def apply(*parts):
        if node.is_affine:
            return node.apply(*parts)
        return node.frozen(region.decisions[i], *parts)

    zeros = [torch.zeros(1, *shape, dtype=torch.float64) for shape in shapes]
    constant = apply(*zeros)
    matrices = []
    for k, shape in enumerate(shapes):
        size = int(np.prod(shape, dtype=int))
        blocks = []
        for start in range(0, size, 256):
            count = min(256, size - start)
            unit = torch.zeros(count, size, dtype=torch.float64)
            unit[torch.arange(count), start + torch.arange(count)] = 1.0
            parts = [zero.expand(count, *zero.shape[1:]) for zero in zeros]
            parts[k] = unit.view(count, *shape)
            columns = (apply(*parts) - constant).reshape(count, -1)
            blocks.append(sparse.csr_matrix(columns.numpy()))
        matrices.append(sparse.vstack(blocks).T.tocsr())
    return matrices


def _half_spaces(region, i):
    """Return the rows of a node's decision as a sparse matrix of its input, and constants."""
    node, decision = region.graph.nodes[i], region.decisions[i]
    size = region.graph.nodes[node.inputs[0]].size
    zero = torch.zeros(1, *region.graph.nodes[node.inputs[0]].shape, dtype=torch.float64)
    offsets = node.slacks(decision, zero)[0].numpy()
    rows = np.flatnonzero(np.isfinite(offsets))
    step = max(1, min(256, len(rows)))
    blocks = []
    for start in range(0, max(len(rows), 1), step):
        row = torch.as_tensor(rows[start : start + step])
        repeated = tuple(d.expand(len(row), *d.shape[1:]) for d in decision)
        place, weight = torch.arange(len(row)), torch.ones(len(row), dtype=torch.float64)
        seeds = node.seeds(repeated, place, row, weight)
        blocks.append(sparse.csr_matrix(seeds.reshape(-1, size).numpy()))
    return sparse.vstack(blocks), offsets[rows]
