r"""The smallest boxes that meet given half-spaces: linear programs of few, dense rows.

.. math:: \min e \quad \text{s.t.} \quad A\delta \ge b,\; |\delta_j| \le e,\;
   l_j \le \delta_j \le u_j

has one column a feature, but only a handful of rows that matter. For weights y >= 0 of the
rows, and r = A'y, weak duality says that e is at least the root of

.. math:: L(y, e) = \sum_j \max_{\delta_j} r_j \delta_j - b'y,

where each :math:`\delta_j` ranges over its box. L is convex in y and concave in e. A dual
simplex method raises that root: each step picks what is violated, moves y along the ray that
repairs it, and on past columns that merely change sides (the long-step rule), until L no
longer falls. Only the scale of L matters, so that y may be multiplied by any positive number;
a ray can therefore be chosen along which some weight vanishes, and no step is unbounded.

A general solver takes the same path but pays more for each step than a problem of this size
is worth, and so does NumPy, for one program at a time. So all programs take their steps
together: `benchmarks/pointwise.py` shows what that saves.
"""

from dataclasses import dataclass, fields

import numpy as np
import torch

from skrobust.pointwise._simplex_rows import Rows, dots, ranks, roots

__all__ = ["FAILURE", "INFEASIBLE", "LIMIT", "OPEN", "OPTIMAL", "BoxPrograms"]

OPEN, OPTIMAL, LIMIT, INFEASIBLE, FAILURE = range(5)
_TOLERANCE = 1e-11  # in units of the radius, since rows have norm 1
_PIVOT = 1e-12  # smaller changes of a gradient are rounding
_MAX_STEPS = 1000  # of one call of `solve`
_NEAR = 1 / 4  # of the longest step: most need no more
_REFRESH = 16  # steps, from where on rounding in what is updated could show


@dataclass(eq=False)
class BoxPrograms:
    """K programs as above; rows can be added at any time, and solving goes on from there.

    Make them by `BoxPrograms.empty`.

    Parameters
    ----------
    rows : Rows
    home : ndarray of int, shape (K,)
        Which of the programs in `rows` each one is.
    below, above : ndarray of shape (K, n_features)
        Bounds -l and u, not negative.
    n_rows : ndarray of shape (K,)
    radius : ndarray of shape (K,)
        Lower bounds of the optima; the optima themselves where the status is OPTIMAL.
    point : ndarray of shape (K, n_features)
        What attains them.
    status : ndarray of int, shape (K,)
        OPEN, or how `step` ended.
    n_steps : ndarray of shape (K,)
        Steps since the last call of `restart`.
    weights : ndarray of shape (K, P)
        Of the active rows, the largest of them near 1.
    active, free : ndarray of int, shape (K, P)
        Rows with a weight, and columns strictly inside of their box, in the first places.
    n_active : ndarray of shape (K,)
        One more than the number of free columns, or 0 before the first step.
    side : ndarray of shape (K, n_features)
        Which side each column lies on: -1 or 1.
    reach, other : ndarray of shape (K, n_features)
        How far that side lies from 0, and the other one.
    r : ndarray of shape (K, n_features)
        A'y times `side`, not negative.
    wanted : ndarray of shape (K,)
        b'y.
    """

    rows: Rows
    home: np.ndarray
    below: np.ndarray
    above: np.ndarray
    n_rows: np.ndarray
    radius: np.ndarray
    point: np.ndarray
    status: np.ndarray
    n_steps: np.ndarray
    weights: np.ndarray
    active: np.ndarray
    free: np.ndarray
    n_active: np.ndarray
    side: np.ndarray
    reach: np.ndarray
    other: np.ndarray
    r: np.ndarray
    wanted: np.ndarray

    @classmethod
    def empty(cls, low, high):
        """Return programs without rows, for bounds l <= 0 <= u of shape (K, n_features)."""
        below, above = -np.asarray(low, dtype=float), np.asarray(high, dtype=float)
        K, n = above.shape
        none, nothing = np.zeros((K, n)), np.zeros(K)
        return cls(
            Rows(K, n), np.arange(K), below, above, np.zeros(K, dtype=int), nothing, none,
            np.zeros(K, dtype=int), np.zeros(K, dtype=int), np.zeros((K, 16)),
            np.zeros((K, 16), dtype=int), np.zeros((K, 16), dtype=int), np.zeros(K, dtype=int),
            np.ones((K, n)), above.copy(), below.copy(), none.copy(), nothing.copy(),
        )  # fmt: skip

    def __len__(self):
        return len(self.radius)

    def __getitem__(self, index):
        """Return the programs at `index`: their rows are shared, all else is copied."""
        rest = (getattr(self, field.name)[index] for field in fields(self)[1:])
        return BoxPrograms(self.rows, *rest)

    def put(self, index, others, which):
        """Take over how far those of `others` at `which` have come, as the programs `index`."""
        self._widen(others.free.shape[1])
        others._widen(self.free.shape[1])
        for field in fields(self)[4:]:
            getattr(self, field.name)[index] = getattr(others, field.name)[which]

    def _widen(self, P):
        """Make room for that many active rows in each program."""
        more = P - self.free.shape[1]
        if more > 0:
            for name in ("weights", "active", "free"):
                setattr(self, name, np.pad(getattr(self, name), ((0, 0), (0, more))))

    def add(self, owner, A, b):
        """Add rows to programs.

        Parameters
        ----------
        owner : ndarray of int, shape (k,)
            Ascending.
        A : ndarray of shape (k, n_features)
        b : ndarray of shape (k,)

        Returns
        -------
        ndarray of shape (k,)
            The place of each row in its program.
        """
        place = self.n_rows[owner] + ranks(owner, len(self))
        rows, home = self.rows, self.home[owner]
        if len(place) and place.max() >= rows.b.shape[1]:
            rows.widen(max(place.max() + 1, 2 * rows.b.shape[1]))
        scale = np.abs(A).sum(axis=1)
        scale[scale == 0] = 1.0
        rows.A[home, place] = A / scale[:, None]
        rows.b[home, place] = b / scale
        rows.scale[home, place] = scale
        self.n_rows += np.bincount(owner, minlength=len(self))
        for k in np.unique(owner).tolist():
            rows.used[self.home[k]] = rows.A[self.home[k], : self.n_rows[k]]
        return place

    def change(self, owner, place, b):
        """Change the right-hand sides of rows to larger values."""
        home = self.home[owner]
        self.rows.b[home, place] = b / self.rows.scale[home, place]

    def restart(self, at):
        """Open the programs at `at` again, after rows were added or changed."""
        self.status[at] = OPEN
        self.n_steps[at] = 0
        fresh = at[self.n_active[at] == 0]
        if len(fresh):
            self._start(fresh)
        self._refresh(at[self.n_active[at] > 0])

    def _start(self, at):
        """Put all weight on the row that the center misses by most."""
        b = self.rows.b[self.home[at]]
        first = b.argmax(axis=1)
        misses = b.max(axis=1) > 0
        self.status[at[~misses]] = OPTIMAL
        self.point[at[~misses]] = 0.0
        at, first = at[misses], first[misses]
        self.n_active[at] = 1
        self.active[at, 0], self.weights[at, 0] = first, 1.0
        is_up = self.rows.A[self.home[at], first] > 0
        self.side[at] = np.where(is_up, 1.0, -1.0)
        self.reach[at] = np.where(is_up, self.above[at], self.below[at])
        self.other[at] = np.where(is_up, self.below[at], self.above[at])

    def _refresh(self, at):
        """Compute gradients afresh; times side they are not negative."""
        if len(at) == 0:
            return
        y = self._dense()
        r = self._sums(at, y)[at]
        k, p = self._is_free(at).nonzero()
        r[k, self.free[at[k], p]] = 0.0
        r *= self.side[at]
        k, j = (r < -1e-15).nonzero()
        self._flip(at[k], j)
        self.r[at] = np.abs(r)
        self.wanted[at] = (y[at] * self.rows.b[self.home[at]]).sum(axis=1)

    def _each(self, at):
        """Return, for the programs `at`, their numbers and their rows.

        Products with rows are computed program by program: to read the rows is what takes time,
        and most programs have few.
        """
        used = self.rows.used
        return zip(at.tolist(), [used[home] for home in self.home[at].tolist()], strict=True)

    def _sums(self, at, y):
        """Return sums of rows with weights y of shape (K, M); zeros but for the programs `at`."""
        sums = np.zeros_like(self.r)
        for k, rows in self._each(at):
            np.dot(y[k, : len(rows)], rows, out=sums[k])
        return sums

    def _dense(self):
        """Return the weights of all rows, of shape (K, M)."""
        y = np.zeros((len(self), self.rows.b.shape[1]))
        k, p = (np.arange(self.active.shape[1]) < self.n_active[:, None]).nonzero()
        y[k, self.active[k, p]] = self.weights[k, p]
        return y

    def _is_free(self, at):
        return np.arange(self.free.shape[1]) < self.n_active[at, None] - 1

    def _flip(self, k, j):
        """Put columns j of programs k on their other side."""
        at = k * self.r.shape[1] + j
        side, reach, other = self.side.ravel(), self.reach.ravel(), self.other.ravel()
        side[at] *= -1.0
        reach[at], other[at] = other[at], reach[at]

    def bound(self):
        """Return the lower bounds that the weights prove, computed afresh: for checking."""
        y = np.maximum(self._dense(), 0.0)
        r = self._sums(np.arange(len(self)), y)
        reach = np.where(r > 0, self.above, self.below)
        wanted = (y * self.rows.b[self.home]).sum(axis=1)
        return roots(np.abs(r), reach, wanted, np.zeros(len(self)))[0]

    def solve(self, limit=np.inf):
        """Take steps until no program is open; see `step`."""
        self.restart(np.arange(len(self)))
        limit = np.broadcast_to(limit, len(self))
        while (self.status == OPEN).any():
            self.step(limit)

    def step(self, limit):
        """Take one step of the dual simplex method in each open program.

        A program leaves with the status LIMIT where its radius has passed `limit`, of shape
        (K,); INFEASIBLE where no point of the box satisfies its rows; FAILURE where rounding
        stops the method.
        """
        is_open = self.status == OPEN
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            stale = (is_open & (self.n_steps % _REFRESH == _REFRESH - 1)).nonzero()[0]
            self._refresh(stale)
            radius, sizes = roots(self.r, self.reach, self.wanted, self.radius, is_open)
            self.radius = np.where(is_open, radius, self.radius)
            self._end(is_open, self.radius > limit, LIMIT)
            self._end(is_open, self.radius == np.inf, INFEASIBLE)
            self._end(is_open, self.n_steps >= _MAX_STEPS, FAILURE)
            self._pivot(is_open, sizes)
            self.n_steps += is_open

    def _end(self, is_open, which, status):
        """Close programs, also in `is_open`."""
        which = which & is_open
        self.status[which] = status
        is_open &= ~which

    def _pivot(self, is_open, sizes):
        """Repair what is violated most; close the programs where nothing is."""
        K, M, P = len(self), int(self.n_rows.max()), max(1, int(self.n_active.max()))
        b, each = self.rows.b[self.home, :M], np.arange(K)
        active, free, weights = self.active[:, :P], self.free[:, :P], self.weights[:, :P]
        is_active = np.arange(P) < self.n_active[:, None]
        k_active, p_active = is_active.nonzero()
        i_active = active[k_active, p_active]
        is_free = np.arange(P) < self.n_active[:, None] - 1
        k_free, p_free = is_free.nonzero()
        j_free = free[k_free, p_free]

        # The point: columns at their sides, free ones such that active rows are tight.
        point = self.side * sizes
        point[k_free, j_free] = 0.0
        at_work = np.flatnonzero(is_open)
        reached = np.zeros_like(b)
        for k, rows in self._each(at_work):
            np.dot(rows, point[k], out=reached[k, : len(rows)])
        missing = b - reached
        columns = np.zeros((K, P, M))
        columns[k_free, p_free] = self.rows.A[self.home[k_free], :M, j_free]
        basis = np.zeros((K, P, P))
        basis[k_active, p_active] = columns[k_active, :, i_active]
        # The weights are orthogonal to the other columns, and the system is consistent: the
        # last unknown is zero but for rounding.
        basis[each, :, self.n_active - 1] = weights
        k, p = (~is_active).nonzero()
        basis[k, p, p] = 1.0
        rays = self._inverses(basis, is_open) * is_free[:, :, None]
        tight = np.zeros((K, P, 1))
        tight[k_active, p_active, 0] = missing[k_active, i_active]
        x = np.matmul(rays, tight)[:, :, 0]
        point[k_free, j_free] = x[k_free, p_free]
        missing -= np.matmul(x[:, None], columns)[:, 0]
        missing[k_active, i_active] = 0.0

        # What to repair, by dual steepest edge: violation over the length of its ray.
        ends, radius = (each[:, None], free), self.radius[:, None]
        over = x - np.minimum(self.above[ends], radius)
        under = -x - np.minimum(self.below[ends], radius)
        excess = np.where(is_free, np.maximum(over, under), 0.0)
        gains = np.where(excess > _TOLERANCE, excess**2 / (rays**2).sum(axis=2), -1.0)
        products = np.matmul(rays.swapaxes(1, 2), columns)
        lengths = (products**2).sum(axis=1)
        of_rows = np.where(missing > _TOLERANCE, missing**2 / (1.0 + lengths), -1.0)
        place, row = gains.argmax(axis=1), of_rows.argmax(axis=1)
        gain, of_row = gains[each, place], of_rows[each, row]
        by_row = of_row > gain
        is_done = is_open & (np.maximum(gain, of_row) < 0)
        self.point[is_done] = point[is_done]
        self._end(is_open, is_done, OPTIMAL)
        self._end(is_open, np.isnan(missing).any(axis=1), FAILURE)
        if not is_open.any():
            return

        # Move the weights: give a row weight, or let the gradient of a free column grow.
        sign = np.where(over[each, place] > under[each, place], 1.0, -1.0)
        ray = np.where(by_row[:, None], -products[each, :, row], sign[:, None] * rays[each, place])
        column = free[each, place]
        edge = np.where(sign > 0, self.above[each, column], self.below[each, column])
        fall = np.where(by_row, 0.0, np.minimum(edge, self.radius))
        # The same ray up to the scale of y, but such that one weight vanishes.
        rate = np.where(weights > 0, ray / weights, -np.inf).max(axis=1)
        grows = ray.min(axis=1) >= -_PIVOT
        ray -= np.where(grows, rate + 1.0, 0.0)[:, None] * weights
        spread = np.zeros((K, M))
        spread[k_active, i_active] = ray[k_active, p_active]
        spread[by_row, row[by_row]] = 1.0
        slope = self._sums(at_work, spread)
        slope[k_free, j_free] = 0.0  # free columns stay so
        slope *= self.side
        wanted = dots(spread, b)
        # Derivative of L along the ray, at its start: negative.
        fall = fall + dots(slope, sizes) - wanted

        ends = np.where(ray < -_PIVOT, weights / -ray, np.inf)
        leaving = ends.argmin(axis=1)
        length = np.where(is_open, np.maximum(ends[each, leaving], 0.0), 0.0)
        length, entering = self._flip_on_the_way(slope, length, -fall)
        slope *= length[:, None]
        self.r += slope
        np.abs(self.r, out=self.r)
        self.wanted += length * wanted
        weights += length[:, None] * ray
        self._exchange(is_open, by_row, row, place, sign, leaving, entering, length)

    def _inverses(self, basis, is_open):
        """Invert the matrices of open programs; close those whose matrix has no inverse."""
        inverses = np.zeros_like(basis)
        found, info = torch.linalg.inv_ex(torch.from_numpy(basis[is_open]))
        inverses[is_open] = found.numpy()
        failed = is_open.copy()
        failed[is_open] = info.numpy() != 0
        inverses[failed] = 0.0
        self._end(is_open, failed, FAILURE)
        return inverses

    def _flip_on_the_way(self, slope, length, need):
        """Flip columns whose gradients pass zero within `length`, until L has fallen by `need`.

        Returns the lengths, shorter where L stops falling, and the columns at which it does,
        or -1.
        """
        K = len(slope)
        entering = np.full(K, -1)
        # Most steps are short: what lies ahead is looked at in full only where it matters.
        near = _NEAR * length
        k, j, times, rises = self._crossings(slope, near, np.arange(K))
        rise = np.bincount(k, rises, K)
        is_far = (rise < need) | (rise == 0)
        if is_far.any():
            parts = self._crossings(slope, length, np.flatnonzero(is_far))
            is_near = ~is_far[k]
            k, j, times, rises = (
                np.concatenate([first[is_near], second])
                for first, second in zip((k, j, times, rises), parts, strict=True)
            )
        length = np.where(is_far, length, near)
        # By program, then by time: one key sorts much faster than two. Of times that are equal
        # but for rounding, any order is right.
        order = np.argsort(k + 0.5 * times / length[k])
        k, j, times, rises = k[order], j[order], times[order], rises[order]
        counts = np.bincount(k, minlength=K)
        starts = np.cumsum(counts) - counts
        rise = np.concatenate([[0.0], np.cumsum(rises)])
        rise = rise[1:] - rise[starts][k]
        passed = rise < need[k]
        self._flip(k[passed], j[passed])
        n_passed = np.bincount(k[passed], minlength=K)
        stops = n_passed < counts
        at = (starts + n_passed)[stops]
        entering[stops] = j[at]
        length[stops] = times[at]
        return length, entering

    def _crossings(self, slope, length, at):
        """Return which gradients pass zero within `length`, in the programs `at`.

        Returns
        -------
        k, j : ndarray of int, shape (t,)
            Programs and columns.
        times, rises : ndarray of shape (t,)
            When, and by how much the slope of L rises there.
        """
        n = slope.shape[1]
        after = slope[at] if len(at) < len(slope) else slope
        after = after * length[at, None]
        after += self.r[at] if len(at) < len(slope) else self.r
        passes = after < 0
        counts = np.count_nonzero(passes, axis=1)
        k, j = np.repeat(at, counts), np.flatnonzero(passes)
        j -= np.repeat(np.arange(len(at)) * n, counts)
        flat = k * n + j
        rates = -slope.ravel()[flat]
        steep = rates > _PIVOT
        if not steep.all():
            k, j, flat, rates = k[steep], j[steep], flat[steep], rates[steep]
        width = np.minimum(self.reach.ravel()[flat], self.radius[k])
        width += np.minimum(self.other.ravel()[flat], self.radius[k])
        return k, j, self.r.ravel()[flat] / rates, rates * width

    def _exchange(self, is_open, by_row, row, place, sign, leaving, entering, length):
        """Move what enters and what leaves the bases, and scale the weights."""
        if (self.n_active[is_open]).max() + 1 >= self.free.shape[1]:
            self._widen(2 * self.free.shape[1])
        k = (is_open & by_row).nonzero()[0]
        p = self.n_active[k]
        self.active[k, p], self.weights[k, p] = row[k], length[k]
        self.n_active[k] += 1
        # The last free column takes the place of the one that is free no more.
        k = (is_open & ~by_row).nonzero()[0]
        column, last = self.free[k, place[k]], self.n_active[k] - 2
        self.free[k, place[k]] = self.free[k, last]
        self.r[k, column] = length[k]
        turned = self.side[k, column] != sign[k]
        self._flip(k[turned], column[turned])
        # Here `n_active` is one too high; the entering column or the leaving row restores it.
        k = (is_open & (entering >= 0)).nonzero()[0]
        p = self.n_active[k] - 2
        self.free[k, p] = entering[k]
        self.r[k, entering[k]] = 0.0
        k = (is_open & (entering < 0)).nonzero()[0]
        last = self.n_active[k] - 1
        self.active[k, leaving[k]] = self.active[k, last]
        self.weights[k, leaving[k]] = self.weights[k, last]
        self.n_active[k] -= 1
        self.weights[np.arange(self.weights.shape[1]) >= self.n_active[:, None]] = 0.0
        self.weights[self.weights <= _PIVOT] = 0.0
        largest = self.weights.max(axis=1)
        k = np.flatnonzero(is_open & ((largest < 0.1) | (largest > 10)))
        if len(k):
            scale = 1.0 / largest[k]
            self.weights[k] *= scale[:, None]
            self.r[k] *= scale[:, None]
            self.wanted[k] *= scale
