r"""The smallest box that meets given half-spaces: a linear program of few, dense rows.

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
is worth: `benchmarks/pointwise.py` shows by how much.
"""

import numpy as np

__all__ = ["BoxProgram"]

_TOLERANCE = 1e-11  # in units of the input, since rows have norm 1
_PIVOT = 1e-12  # smaller changes of a gradient are rounding
_MAX_STEPS = 1000  # of one call
_REFRESH = 16  # steps, from where on rounding in what is updated could show


class BoxProgram:
    """The program above; rows can be added at any time, and solving goes on from there.

    Parameters
    ----------
    low, high : ndarray of shape (n_features,)
        Bounds l <= 0 <= u.

    Attributes
    ----------
    radius : float
        A lower bound of the optimum; the optimum itself where `solve` returned "optimal".
    point : ndarray of shape (n_features,)
        What attains it.
    n_rows : int
    n_steps : int
        Dual simplex steps so far.
    """

    def __init__(self, low, high):
        self.below, self.above = -np.asarray(low, dtype=float), np.asarray(high, dtype=float)
        n = len(self.above)
        self._A, self._b, self._scale = np.empty((16, n)), np.empty(16), np.empty(16)
        self.n_rows = self.n_steps = 0
        self.radius, self.point = 0.0, np.zeros(n)
        self._active = []  # rows with a weight
        self._free = []  # columns strictly inside of their box, one fewer than active rows

    @property
    def A(self):
        """Rows, scaled to an L1 norm of 1."""
        return self._A[: self.n_rows]

    @property
    def b(self):
        return self._b[: self.n_rows]

    def add(self, A, b):
        """Add rows: A of shape (k, n_features), b of shape (k,)."""
        start, end = self.n_rows, self.n_rows + len(b)
        while end > len(self._b):
            self._A, self._b, self._scale = (
                np.concatenate([v, np.empty_like(v)]) for v in (self._A, self._b, self._scale)
            )
        scale = np.abs(A).sum(axis=1)
        scale[scale == 0] = 1.0
        self._A[start:end] = A / scale[:, None]
        self._b[start:end] = b / scale
        self._scale[start:end] = scale
        self.n_rows = end

    def change(self, row, b):
        """Change the right-hand side of a row to a larger value."""
        self._b[row] = b / self._scale[row]

    def solve(self, limit=np.inf):
        """Solve for the rows so far.

        Returns
        -------
        {"optimal", "infeasible", "limit", "failure"}
            "limit" where `radius` has passed `limit`; "infeasible" where no point of the box
            satisfies the rows; "failure" where rounding stopped the method.
        """
        try:
            with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
                return self._solve(limit)
        except np.linalg.LinAlgError:
            return "failure"

    def bound(self):
        """Return the lower bound that the weights prove, computed afresh."""
        if not self._active:
            return 0.0
        y = np.maximum(self._weights, 0.0)
        r = y @ self._A[self._active]
        reach = np.where(r > 0, self.above, self.below)
        return _root(np.abs(r), reach, y @ self._b[self._active])[0]

    def _solve(self, limit):
        if not self._active and not self._start():
            return "optimal"
        for step in range(_MAX_STEPS):
            if step % _REFRESH == 0:
                self._refresh()
            self.radius, self._sizes = _root(self._r, self._reach, self._wanted, self.radius)
            if self.radius > limit:
                return "limit"
            if self.radius == np.inf:
                return "infeasible"
            missing = self._place()
            kind, index = self._most_violated(missing)
            if kind is None:
                return "optimal"
            self.n_steps += 1
            if kind == "row":
                self._step(index, None)
            else:
                self._step(None, index)
        return "failure"

    def _start(self):
        """Put all weight on the row that the centre misses by most."""
        first = int(np.argmax(self.b))
        if self._b[first] <= 0:
            return False
        self._active, self._weights = [first], np.ones(1)
        row = self._A[first]
        is_up = row > 0
        # Of each column: the side that it lies on, how far that reaches, and the other one.
        self._side = np.where(is_up, 1.0, -1.0)
        self._reach = np.where(is_up, self.above, self.below)
        self._other = np.where(is_up, self.below, self.above)
        return True

    def _refresh(self):
        """Compute the gradient afresh; times side it is not negative."""
        r = self._weights @ self._A[self._active]
        r[self._free] = 0.0
        r *= self._side
        self._flip((r < -1e-15).nonzero()[0])
        self._r = np.abs(r)
        self._wanted = self._weights @ self._b[self._active]

    def _flip(self, columns):
        self._side[columns] *= -1.0
        reach = self._reach[columns]
        self._reach[columns] = self._other[columns]
        self._other[columns] = reach

    def _place(self):
        """Compute the point: columns at their sides, free ones such that active rows are tight.

        Returns how much of its right-hand side each row misses.
        """
        self.point = self._side * self._sizes
        if not self._free:
            missing = self.b - self.A @ self.point
            missing[self._active] = 0.0
            return missing
        self.point[self._free] = 0.0
        missing = self.b - self.A @ self.point
        self._columns = self.A.take(self._free, axis=1)
        basis = np.empty((len(self._active), len(self._active)))
        basis[:, :-1] = self._columns.take(self._active, axis=0)
        # The weights are orthogonal to the other columns, and the system is consistent: the
        # last unknown is zero but for rounding.
        basis[:, -1] = self._weights
        self._rays = np.linalg.inv(basis)[:-1]
        self._x = self._rays @ missing[self._active]
        self.point[self._free] = self._x
        missing -= self._columns @ self._x
        missing[self._active] = 0.0
        return missing

    def _most_violated(self, missing):
        """Choose what to repair, by dual steepest edge: violation over the length of its ray.

        Returns ("row", its number), ("column", its place among the free ones) or (None, None).
        """
        row = int(missing.argmax())
        is_missing = missing[row] > _TOLERANCE
        if not self._free:
            return ("row", row) if is_missing else (None, None)
        self._over = self._x - np.minimum(self.above[self._free], self.radius)
        self._under = -self._x - np.minimum(self.below[self._free], self.radius)
        excess = np.maximum(self._over, self._under)
        column = int(excess.argmax())
        is_outside = excess[column] > _TOLERANCE
        if not is_outside:
            if not is_missing:
                return None, None
            column, gain = None, 0.0
        else:
            lengths = np.einsum("ij,ij->i", self._rays, self._rays)
            gains = np.maximum(excess, 0.0) ** 2 / lengths
            best = int(gains.argmax())
            column = best if excess[best] > _TOLERANCE else column
            gain = gains[column]
        if is_missing:
            products = self._columns @ self._rays
            lengths = np.einsum("ij,ij->i", products, products)
            gains = np.maximum(missing, 0.0) ** 2 / (1.0 + lengths)
            best = int(gains.argmax())
            row = best if missing[best] > _TOLERANCE else row
            if column is None or gains[row] > gain:
                return "row", row
        return "column", column

    def _step(self, row, place):
        """Move the weights: give a row weight, or let the gradient of a free column grow."""
        radius, reach = self.radius, self._reach
        fall, sign = 0.0, 0.0
        if place is not None:
            sign = 1.0 if self._over[place] > self._under[place] else -1.0
            ray = sign * self._rays[place]
            column = self._free[place]
            fall = min(self.above[column] if sign > 0 else self.below[column], radius)
        elif self._free:
            ray = -self._columns[row] @ self._rays
        else:
            ray = np.zeros(1)
        if not ray.min() < -_PIVOT:
            # The same ray up to the scale of y, but such that one weight vanishes.
            positive = self._weights > 0
            rate = (ray[positive] / self._weights[positive]).max()
            ray = ray - (rate + 1.0) * self._weights
        spread = np.zeros(self.n_rows)
        spread[self._active] = ray
        if row is not None:
            spread[row] = 1.0
        slope = spread @ self.A
        slope[self._free] = 0.0  # free columns stay so
        slope *= self._side
        wanted = spread @ self.b
        # Derivative of L along the ray, at its start: negative.
        fall += slope @ self._sizes - wanted

        ends = np.where(ray < -_PIVOT, self._weights / -ray, np.inf)
        leaving = int(ends.argmin())
        end = max(ends[leaving], 0.0)
        # A column changes sides where its gradient passes zero, before a weight does.
        times = self._r / -slope
        flips = ((slope < -_PIVOT) & (times < end)).nonzero()[0]
        times = times[flips]
        order = times.argsort()
        flips, times = flips[order], times[order]
        width = np.minimum(reach[flips], radius)
        width += np.minimum(self._other[flips], radius)
        rates = -slope[flips]
        rise = (rates * width).cumsum()
        stop = int(rise.searchsorted(-fall))
        entering = None
        if stop < len(flips):
            end = times[stop]
            # Among columns that flip at the same time, the largest pivot is the safest.
            last = int(times.searchsorted(end, side="right"))
            entering = int(flips[stop + int(rates[stop:last].argmax())])
        if stop:
            self._flip(flips[:stop])
        self._r = np.abs(self._r + end * slope)
        self._wanted += end * wanted
        self._exchange(row, place, sign, leaving, entering, end, ray)

    def _exchange(self, row, place, sign, leaving, entering, length, ray):
        """Move what enters and what leaves the basis, and scale the weights."""
        weights = self._weights + length * ray
        active, free = list(self._active), list(self._free)
        if row is not None:
            active.append(row)
            weights = np.append(weights, length)
        if place is not None:
            column = free.pop(place)
            self._r[column] = length
            if self._side[column] != sign:
                self._flip(column)
        if entering is not None:
            free.append(entering)
            self._r[entering] = 0.0
        else:
            active.pop(leaving)
            weights = np.delete(weights, leaving)
        self._active, self._free = active, free
        scale = 1.0 / weights.max()
        weights *= scale
        weights[weights <= _PIVOT] = 0.0
        self._weights = weights
        self._r *= scale
        self._wanted *= scale


def _root(size, reach, wanted, start=0.0):
    """Return the e >= start where size @ min(e, reach) is `wanted`, and min(e, reach) there."""
    radius = start
    for _ in range(200):
        sizes = np.minimum(reach, radius)
        gap = wanted - size @ sizes
        if gap <= 1e-15 * abs(wanted):
            return radius, sizes
        slope = size @ (sizes < reach)
        if slope <= 1e-14:
            return np.inf, reach
        radius += gap / slope  # Newton from the left on a concave function: never past the root
    return radius, sizes
