"""The valid points near reference points: which single values they may take, and uniform draws."""

import itertools
import math
from dataclasses import dataclass

import numpy as np

from skrobust.properties._domain import Domain

__all__ = ["LocalSet"]

_MOST_TRIES = 2000  # draws for each that is asked for, where constraints reject


@dataclass(frozen=True, eq=False)
class LocalSet:
    """The points of a `Domain` within a distance of reference points, feature by feature.

    The single values are counted exactly: a whole number k is within reach of a whole x where
    k - x is at most what the feature may rise, and x - k at most what it may fall.

    Parameters
    ----------
    domain : Domain
    down, up : ndarray of shape (n_features,)
        How far features may fall and rise.
    """

    domain: Domain
    down: np.ndarray
    up: np.ndarray

    @property
    def discrete(self):
        """Places of the features that take single values only."""
        return self.domain.discrete

    def values(self, x):
        """Return what the discrete features may be near one reference point.

        Parameters
        ----------
        x : ndarray of shape (n_features,)
            Valid.

        Returns
        -------
        list of (places, ndarray of shape (k, n_places))
            For each integer and each one-hot group, the k values; that of `x` itself comes
            first.
        """
        choices = []
        for place in self.domain.integer_places:
            first, last = self._whole_ends(x, place)
            steps = np.arange(first, last + 1)
            steps = steps[np.argsort(np.abs(steps - x[place]), kind="stable")]
            choices.append(([place], steps[:, None]))
        return choices + self._codes(x)

    def _whole_ends(self, x, place):
        """Return the least and the largest whole number that a feature may be."""
        low, high = (np.broadcast_to(side, len(x))[place] for side in self.domain.box)
        first = max(x[place] - np.floor(self.down[place]), np.ceil(low))
        last = min(x[place] + np.floor(self.up[place]), np.floor(high))
        return min(first, x[place]), max(last, x[place])

    def _codes(self, x):
        """Return what `values` does, of the one-hot groups alone."""
        choices = []
        for group in self.domain.groups:
            at = int(x[group].argmax())
            others = [
                k
                for k, place in enumerate(group)
                if k != at and self.down[group[at]] >= 1 and self.up[place] >= 1
            ]
            choices.append((group, np.eye(len(group))[[at, *others]]))
        return choices

    def reach(self, x):
        """Return how far features may fall and rise at most, constraints aside.

        Parameters
        ----------
        x : ndarray of shape (n_features,)
            Valid.

        Returns
        -------
        down, up : ndarray of shape (n_features,)
        """
        down, up = (np.array(side, dtype=np.float64) for side in (self.down, self.up))
        for place in self.domain.integer_places:
            first, last = self._whole_ends(x, place)
            down[place], up[place] = x[place] - first, last - x[place]
        for places, values in self._codes(x):
            down[places] = x[places] - values.min(axis=0)
            up[places] = values.max(axis=0) - x[places]
        return down, up

    def count(self, x):
        """Return the number of assignments of the discrete features near one point."""
        return math.prod(len(values) for _, values in self.values(x))

    def assignments(self, x, limit=None, rng=None):
        """Return points near one reference whose discrete features take all their values.

        Parameters
        ----------
        x : ndarray of shape (n_features,)
        limit : int, default=None
            Most points; where there are more, the first is the reference, and the others are
            drawn at random.
        rng : numpy.random.Generator, default=None
            Where there is a limit.

        Returns
        -------
        points : ndarray of shape (k, n_features)
            All other features are as those of the reference.
        is_all : bool
            Whether these are all.
        """
        choices = self.values(x)
        n_points = math.prod(len(values) for _, values in choices)
        is_all = limit is None or n_points <= limit
        if is_all:
            picks = np.array(list(itertools.product(*(range(len(v)) for _, v in choices))))
        else:
            picks = np.stack([rng.integers(len(v), size=limit) for _, v in choices], axis=1)
            picks[0] = 0
            picks = np.unique(picks, axis=0)
        points = np.repeat(x[None], len(picks), axis=0)
        for k, (places, values) in enumerate(choices):
            points[:, places] = values[picks[:, k]]
        return points, is_all

    def can_hold(self, points, x):
        """Return whether the constraints leave room around points with given discrete values.

        By the least value of each constraint over the box of the other features: a necessary
        condition, and a sufficient one where only discrete features are constrained.
        """
        if self.domain.rows is None:
            return np.ones(len(points), dtype=bool)
        A, b = self.domain.rows
        low, high = self._free_box(x)
        free, fixed = self._parts(A)
        least = np.minimum(free * low, free * high).sum(axis=1)
        # What rounding of the sums can do is far less: no point that is valid is left out.
        size = np.maximum(np.abs(low), np.abs(high)) + np.abs(points)
        slack = 1e-9 * (size @ np.abs(A).T + np.abs(b))
        return (points @ fixed.T + least <= np.maximum(b, A @ x) + slack).all(axis=1)

    def open_rows(self):
        """Return which constraints are about features that are not discrete and may move."""
        if self.domain.rows is None:
            return np.zeros(0, dtype=int)
        free, _ = self._parts(self.domain.rows[0])
        return np.flatnonzero((free[:, (self.down > 0) | (self.up > 0)] != 0).any(axis=1))

    def _parts(self, A):
        is_discrete = np.isin(np.arange(A.shape[1]), self.discrete)
        return np.where(is_discrete, 0.0, A), np.where(is_discrete, A, 0.0)

    def _free_box(self, x):
        low, high = (np.broadcast_to(side, len(x)) for side in self.domain.box)
        return np.maximum(x - self.down, np.minimum(low, x)), np.minimum(
            x + self.up, np.maximum(high, x)
        )

    def holds(self, points, x):
        """Return whether points are valid, and their discrete values within reach: (n,).

        Parameters
        ----------
        points, x : ndarray of shape (n, n_features)
            Points, and their references.
        """
        valid = self.domain.holds(points, widened_to=x)
        at = self.discrete
        moved = (points - x)[:, at]
        return valid & ((moved <= self.up[at]) & (-moved <= self.down[at])).all(axis=1)

    def repair(self, points, x, lower, upper, rounding=1e-15):
        """Return the closest valid points, as far as that is easily said; see `holds`.

        Whole numbers are rounded, and of a group the largest entry becomes the 1. Where
        constraints are broken, the point is put on their planes one after the other, and, where
        that does not end inside, taken back towards its reference.

        Parameters
        ----------
        points, x, lower, upper : ndarray of shape (n, n_features)
            Points, their references, and the ends of the balls.
        rounding : float, default=1e-15
            By how much points are put inside of constraints, relative to their terms.

        Returns
        -------
        ndarray of shape (n, n_features)
        """
        is_single = np.isin(np.arange(points.shape[1]), self.discrete)
        points = np.where(is_single, points, np.clip(points, lower, upper))
        for i, point in enumerate(points):
            for places, values in self.values(x[i]):
                nearest = np.abs(values - point[places]).sum(axis=1).argmin()
                point[places] = values[nearest]
        if self.domain.rows is not None and not self.holds(points, x).all():
            points = self._within_constraints(points, x, lower, upper, rounding)
        return points

    def _within_constraints(self, points, x, lower, upper, rounding):
        A, b = self.domain.rows
        free, _ = self._parts(A)
        length = (free**2).sum(axis=1)
        for _ in range(50):
            for row in np.flatnonzero(length):
                limit = np.maximum(b[row], x @ A[row])
                excess = points @ A[row] - limit
                # A little inwards, for the rounding of the point.
                inwards = rounding * (np.abs(points) @ np.abs(A[row]) + np.abs(b[row]))
                excess = np.where(excess > 0, excess + inwards, 0.0)
                step = excess[:, None] / length[row] * free[row]
                points = np.clip(
                    points - step, np.minimum(lower, points), np.maximum(upper, points)
                )
        broken = np.flatnonzero(~self.holds(points, x))
        same = (points[broken][:, self.discrete] == x[broken][:, self.discrete]).all(axis=1)
        for i in broken[same]:
            # The set of one assignment is convex, and holds the reference.
            for share in 0.5 ** np.arange(0, 30):
                tried = x[i] + share * (points[i] - x[i])
                if self.holds(tried[None], x[i][None])[0]:
                    points[i] = tried
                    break
        return points

    def sample(self, x, lower, upper, n_samples, rng):
        """Draw points uniformly: each value of a discrete feature is as likely as any other.

        All features are drawn on their own, and points that break a constraint are drawn anew.

        Parameters
        ----------
        x, lower, upper : ndarray of shape (n, n_features)
            References, and the ends of their balls.
        n_samples : int
        rng : numpy.random.Generator

        Returns
        -------
        ndarray of shape (n, n_samples, n_features)

        Raises
        ------
        ValueError
            If hardly any draw satisfies the constraints.
        """
        drawn = np.empty((len(x), n_samples, x.shape[1]))
        for i in range(len(x)):
            n_taken = n_tried = 0
            while n_taken < n_samples:
                tried = self._draw(x[i], lower[i], upper[i], n_samples, rng)
                fits = tried[self.holds(tried, np.repeat(x[i][None], len(tried), axis=0))]
                fits = fits[: n_samples - n_taken]
                drawn[i, n_taken : n_taken + len(fits)] = fits
                n_taken, n_tried = n_taken + len(fits), n_tried + len(tried)
                if n_tried >= _MOST_TRIES * n_samples and n_taken < n_samples:
                    raise ValueError(
                        f"Got constraints that {n_taken} of {n_tried} uniform points satisfy, but "
                        "expected more, since points are drawn by rejection. Use an attack or a "
                        "verifier, or a smaller epsilon."
                    )
        return drawn

    def _draw(self, x, lower, upper, n, rng):
        points = rng.uniform(lower, upper, size=(n, len(x)))
        points = np.clip(points, lower, upper)
        for places, values in self.values(x):
            points[:, places] = values[rng.integers(len(values), size=n)]
        return points
