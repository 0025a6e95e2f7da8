"""The closest points of linear regions at which another label wins (Bastani et al.)."""

import time
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from scipy import sparse
from scipy.optimize import linprog

from skrobust.pointwise._ascent import climb
from skrobust.pointwise._simplex import FAILURE, INFEASIBLE, LIMIT, OPEN, OPTIMAL, BoxPrograms
from skrobust.pointwise._simplex_rows import ranks
from skrobust.pointwise._solutions import Solutions, units

__all__ = ["LazyPrograms", "closest_by_half_spaces"]

_ROWS_AT_A_TIME = 24
_SUMS = 2  # rows up to which many are added as one
_FEW_ROWS = 100  # from here on, to climb with all rows is faster than to add rows
_CLIMB = 500  # steps, each a forward and a backward pass
_SEEDS = 300  # rows of the largest weights that HiGHS begins with
_SETTLED = 1 + FAILURE
_FEASIBLE = 1e-9  # slack, relative to the largest output, or the largest input of the same node
_ROUNDING = 1e-6  # of the tolerance of earlier nodes, where one cancels all that comes in
_PARTS = 3  # finished programs are handled once they are one in so many of those running


@dataclass(frozen=True, eq=False)
class _Violated:
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
        return _Violated(
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
        Classes that win at the centers: their rows are the first ones.
    max_rows : float, default=inf
        The search gives up where more half-spaces than that are needed.
    try_points : callable, default=None
        Is called as ``try_points(k, points)`` with points of shape (len(k), n_features) that
        the programs k, an array of int, reach with only some of their rows.
    """

    def __init__(
        self,
        region,
        centers,
        targets,
        low,
        high,
        margin,
        labels,
        max_rows=np.inf,
        try_points=None,
    ):
        begin = time.perf_counter()
        self.region, self.centers, self.targets = region, centers, targets
        self.max_rows, self.try_points = max_rows, try_points
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
        self.unit = units(low, high)
        self.programs = BoxPrograms.empty(low / self.unit[:, None], high / self.unit[:, None])
        outputs = np.zeros(logits.shape, dtype=bool)
        outputs[each, labels] = True
        self._add(self.programs, each, each, _Violated(self.used, self.start, each < 0, outputs))
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
        solutions = Solutions.none(len(at), self.centers.shape[1])
        solutions.seconds[:], self.seconds[at] = self.seconds[at], 0.0
        work, running = self.programs[at], np.arange(len(at))  # places in `solutions`
        work.restart(running)
        is_large = work.n_rows > _FEW_ROWS  # climbed before
        work.status[is_large] = FAILURE
        while len(running):
            begin = time.perf_counter()
            is_open = work.status == OPEN
            work.step(limit[running] / self.unit[at[running]])
            solutions.seconds[running[is_open]] += (time.perf_counter() - begin) / max(
                1, is_open.sum()
            )
            begin = time.perf_counter()
            idle = np.flatnonzero(work.status == OPTIMAL)
            if len(idle) and len(idle) * _PARTS >= (work.status <= OPTIMAL).sum():
                self._look(work, idle, at, running, solutions)
                solutions.seconds[running[idle]] += (time.perf_counter() - begin) / len(idle)
            done = work.status > OPTIMAL
            if done.sum() * _PARTS >= len(running):
                begin = time.perf_counter()
                for end, status in ((LIMIT, "limit"), (INFEASIBLE, "infeasible")):
                    which = work.status == end
                    solutions.keep(running[which], status, self._radius(work, which, at[running]))
                self.programs.put(at[running[done]], work, done)
                solutions.seconds[running] += (time.perf_counter() - begin) / len(running)
                work, running = work[~done], running[~done]
        left = np.flatnonzero((solutions.status == "failure") & ~is_large)
        if len(left):
            self._climb(at[left], limit[left], left, solutions)
        for k in np.flatnonzero(solutions.status == "failure"):
            begin = time.perf_counter()
            solutions.keep(k, *self._by_highs(at[[k]], limit[k]))
            solutions.seconds[k] += time.perf_counter() - begin
        return solutions

    def _radius(self, work, which, k):
        """Return radii of some of the programs `work`, which are the programs k."""
        return work.radius[which] * self.unit[k][which]

    def _look(self, work, idle, at, running, solutions):
        """Add the rows that optima violate; settle the programs whose optimum violates none."""
        k = at[running[idle]]
        moves = work.point[idle] * self.unit[k, None]
        rows = self._violated(k, moves, work.n_rows[idle])
        total = work.n_rows[idle] + rows.counts
        is_settled = rows.counts == 0
        is_full = ~is_settled & (total > self.max_rows)
        which = idle[is_settled]
        points = (self.centers[k] + moves)[is_settled]
        solutions.keep(running[which], "optimal", self._radius(work, which, at[running]), points)
        which = idle[is_full]
        solutions.keep(running[which], "rows", self._radius(work, which, at[running]))
        go = ~is_settled & ~is_full & (total <= _FEW_ROWS)
        work.status[idle[is_settled | is_full]] = _SETTLED
        work.status[idle[~is_settled & ~is_full & ~go]] = FAILURE
        if go.any():
            self._add(work, idle[go], k[go], rows[go])
            work.restart(idle[go])

    def _violated(self, k, moves, n_rows):
        """Return what moves of programs k, of shape (len(k), n_features), violate."""
        if self.try_points is not None:
            self.try_points(k, self.centers[k] + moves)
        region = self.region if np.array_equal(k, np.arange(len(self.region))) else self.region[k]
        values = region.values(self._tensor(self.centers[k] + moves))
        logits = values[-1].flatten(1).cpu().numpy()
        short = self.margin[k, None] + logits - logits[np.arange(len(k)), self.targets[k], None]
        short[np.arange(len(k)), self.targets[k]] = 0.0
        outputs = (short > self.tolerance[k, None]) & (self.place[k] < 0)
        slacks = region.slacks(values).cpu().numpy()
        chosen = (slacks < -self.row_tolerance[k]) & ~self.used[k]
        # The most violated first: those that the segment from the center meets first, tried as
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
        return _Violated(chosen, -slacks, is_sum, outputs)

    def _add(self, programs, owner, k, rows):
        """Add `_Violated` to the programs `owner`, which are those of the regions k."""
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

    def _climb(self, k, limit, place, solutions):
        """Settle the programs k whose limit weights of all rows pass; give the others rows."""
        begin = time.perf_counter()
        right = np.concatenate([-self.start[k], self.gaps[k] + self.margin[k, None]], axis=1)
        n_rows = self.start.shape[1]
        right[np.arange(len(k)), n_rows + self.targets[k]] = -np.inf
        outputs = np.repeat(self.tolerance[k, None], self.gaps.shape[1], axis=1)
        tolerance = np.concatenate([self.row_tolerance[k], outputs], axis=1)
        unit = self.unit[k, None]
        low, high = -self.programs.below[k] * unit, self.programs.above[k] * unit
        size = np.where(np.isfinite(limit) & (limit > 0), limit, 2 * self.unit[k])
        targets = torch.as_tensor(self.targets[k], device=self.region.x.device)
        arrays = (self._tensor(array) for array in (low, high, size))
        found = climb(
            self.region[k], self._tensor(right), self._tensor(tolerance), targets, *arrays, _CLIMB
        )
        bound, weights = found.bound.cpu().numpy(), found.weights.cpu().numpy()
        is_past = bound > limit
        solutions.keep(place[is_past], "limit", bound[is_past])
        k, weights = k[~is_past], weights[~is_past]
        n_seeds = int(min(_SEEDS, weights.shape[1], self.max_rows - _FEW_ROWS))
        if len(k) and n_seeds > 0:
            least = np.sort(weights, axis=1)[:, -n_seeds]
            is_seed = (weights > 0) & (weights >= least[:, None])
            chosen = is_seed[:, :n_rows] & ~self.used[k]
            outputs = is_seed[:, n_rows:] & (self.place[k] < 0)
            rows = _Violated(chosen, chosen * 1.0, np.zeros(len(k), dtype=bool), outputs)
            if rows.counts.any():
                self._add(self.programs, k, k, rows)
        solutions.seconds[place] += (time.perf_counter() - begin) / len(place)

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
    identity = sparse.identity(n, format="csr")
    # Where the domain ends at the center, the row of that side says nothing.
    upper, lower = np.flatnonzero(high > 0), np.flatnonzero(low < 0)
    rows = sparse.vstack(
        [
            sparse.hstack([sparse.csr_matrix(-A), sparse.csr_matrix((len(b), 1))]),
            sparse.hstack([identity[upper], -np.ones((len(upper), 1))]),
            sparse.hstack([-identity[lower], -np.ones((len(lower), 1))]),
        ]
    )
    right = np.concatenate([-b, np.zeros(len(upper) + len(lower))])
    bounds = np.column_stack([np.append(low, 0.0), np.append(high, np.inf)])
    cost = np.append(np.zeros(n), 1.0)
    # By interior points first: with 6,700 rows of 3,072 pixels that takes 6 s, the simplex method
    # 50 s. Crossover makes either end at a vertex.
    for method in ("highs-ipm", "highs-ds"):
        result = linprog(cost, A_ub=rows, b_ub=right, bounds=bounds, method=method)
        if result.status in (0, 2):
            break
    if result.status == 2:
        return "infeasible", np.inf, None
    if result.status != 0:
        return "failure", 0.0, None
    return "optimal", float(result.fun), result.x[:-1]


def closest_by_half_spaces(region, centers, targets, low, high, margin, labels, limit=np.inf):
    """Solve with `scipy.optimize.linprog` on every half-space of each region.

    Slow: tests and benchmarks check the other solvers by it.
    """
    solutions = Solutions.none(*centers.shape)
    low, high = (np.broadcast_to(end, centers.shape) for end in (low, high))
    for k in range(len(centers)):
        begin = time.perf_counter()
        at = slice(k, k + 1)
        lazy = LazyPrograms(
            region[at], centers[at], targets[at], low[at], high[at], margin, labels[at]
        )
        one, classes = np.zeros(1, dtype=int), np.arange(lazy.place.shape[1])
        others = (lazy.place < 0) & (classes != targets[k])
        rows = _Violated(np.isfinite(lazy.start), lazy.start, one > 0, others)
        lazy._add(lazy.programs, one, one, rows)
        solutions.keep(k, *lazy._by_highs(one, limit))
        solutions.seconds[k] = time.perf_counter() - begin
    return solutions
