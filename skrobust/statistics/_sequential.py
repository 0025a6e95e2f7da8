"""Rules that stop sampling early, with the coverage of a fixed sample."""

import math
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
from scipy.special import xlog1py, xlogy
from scipy.stats import norm

from skrobust._validation import check_integer, check_real, expected
from skrobust.statistics._calibrations import CALIBRATIONS
from skrobust.statistics._intervals import (
    beta_mixture,
    check_confidence,
    check_counts,
    interval_around,
    mixture_limits,
)
from skrobust.statistics._sizes import sample_size

__all__ = ["AnytimeRule", "SequentialRule", "anytime_rule", "sequential_rule"]

_FINEST = 0.005  # tolerance of a sequential rule
# Beyond these the quantile of the normal distribution is lost to rounding.
_LEAST_CONFIDENCE, _MOST_CONFIDENCE = 1e-6, 1 - 1e-9


class _StoppingRule:
    """Shared by the rules, which define `half_width`, and how it must be for a stop."""

    def stops(self, n_successes, n):
        """Return whether sampling stops at so many successes of n; arrays or numbers."""
        n_successes, n = _check_count_arrays(n_successes, n)
        return self._is_precise(n_successes, n) | (np.asarray(n) >= self.n_max)

    def first_stop(self, outcomes):
        """Return after how many of the `outcomes` sampling stops; None if it goes on.

        Parameters
        ----------
        outcomes : array-like of bool, shape (n,)
        """
        outcomes = _check_outcomes(outcomes)
        n = np.arange(1, len(outcomes) + 1)
        stops = np.flatnonzero(self.stops(np.cumsum(outcomes), n))
        return int(n[stops[0]]) if len(stops) else None

    def earliest_stop(self, n_successes=0, n=0):
        """Return the least number of samples at which sampling can stop from here on.

        Parameters
        ----------
        n_successes, n : int, default=0
            Successes among so many samples up to here, fewer than `n_max`.
        """
        n = check_integer("n", n)
        n_successes = check_integer("n_successes", n_successes)
        if n_successes > n:
            raise ValueError(expected("n_successes", n_successes, f"at most n={n}"))
        if n >= self.n_max:
            raise ValueError(expected("n", n, f"fewer than n_max={self.n_max} samples"))
        later = np.arange(n + 1, self.n_max + 1)
        alike = self.stops(n_successes + later - n, later) | self.stops(n_successes, later)
        return int(later[alike][0])

    def half_width(self, n_successes, n):
        """Return the half-width of the interval, before it is cut to [0, 1]."""
        n_successes, n = check_counts(n_successes, n)
        return float(self._half_widths(np.array([n_successes]), np.array([n]))[0])


@dataclass(frozen=True, eq=False)
class SequentialRule(_StoppingRule):
    """A stopping rule for a share, whose interval has a width fixed in advance.

    Sampling stops at the first n with q (1 - q) / n <= (tolerance / z)^2, where
    q = (k + a) / (n + 2 a) for k successes, and at `n_max` at the latest; the interval is
    k / n plus and minus the tolerance, cut to [0, 1]. Make one by `sequential_rule`, which
    chooses z such that the interval covers every share often enough.

    Parameters
    ----------
    tolerance : float
        Half-width of the interval.
    confidence : float
    z, pseudo_count : float
        As in the formula above (a is `pseudo_count`).
    n_max : int
        Samples after which the rule stops in any case.
    last_tolerance : float
        Half-width of the interval where the rule stops only since `n_max` is reached: above
        `tolerance` if fewer samples were at hand than the rule may need.
    """

    tolerance: float
    confidence: float
    z: float
    pseudo_count: float
    n_max: int
    last_tolerance: float
    _stops: np.ndarray = field(repr=False)  # columns n, k, log of the number of paths

    def _is_precise(self, k, n):
        return _is_precise(k, n, self.tolerance / self.z, self.pseudo_count)

    def interval(self, n_successes, n):
        """Return the `Interval` after a stop with so many successes of n."""
        half = self.half_width(n_successes, n)
        return interval_around(n_successes / n, half, 0.0, 1.0, self.confidence, "sequential")

    def _half_widths(self, k, n):
        return np.where(self._is_precise(k, n), self.tolerance, self.last_tolerance)

    def coverage(self, share):
        """Return the probability that the interval covers, for an array of true shares."""
        share = _check_shares(share)
        n, k, _ = self._stops.T
        half = self._half_widths(k, n) + 1e-12
        covers = np.abs(k / n - share[:, None]) <= half
        return (self._probabilities(share) * covers).sum(axis=1)

    def mean_samples(self, share):
        """Return the expected number of samples, for an array of true shares."""
        share = _check_shares(share)
        return self._probabilities(share) @ self._stops[:, 0]

    def _probabilities(self, share):
        return _stop_probabilities(self._stops, share)


@dataclass(frozen=True)
class AnytimeRule(_StoppingRule):
    """A stopping rule for a share: once the interval of `beta_mixture` is narrow enough.

    Parameters
    ----------
    tolerance : float
        Half-width of the interval.
    confidence : float
    n_max : int
        Samples after which the rule stops in any case.
    """

    tolerance: float
    confidence: float
    n_max: int

    def _is_precise(self, k, n):
        return self._half_widths(k, n) <= self.tolerance

    def _half_widths(self, k, n):
        k, n = np.broadcast_arrays(k, n)
        low, high = mixture_limits(k, n, self.confidence)
        return (high - low) / 2

    def interval(self, n_successes, n):
        """Return the `Interval` with so many successes of n."""
        return beta_mixture(n_successes, n, self.confidence)


def anytime_rule(tolerance, confidence=0.95, *, n_available=None):
    """Return the `AnytimeRule` of a tolerance and confidence.

    Parameters
    ----------
    tolerance : float
        Half-width of the interval, in (0, 1).
    confidence : float, default=0.95
    n_available : int, default=None
        Samples at hand; the rule stops with the last one.

    Examples
    --------
    >>> anytime_rule(0.05).n_max  # in the worst case more than Hoeffding's inequality needs
    1262
    """
    n_max = sample_size(tolerance, confidence, bound="anytime")
    if n_available is not None:
        n_max = min(n_max, check_integer("n_available", n_available, low=1))
    return AnytimeRule(float(tolerance), float(confidence), n_max)


def sequential_rule(tolerance, confidence=0.95, *, n_available=None):
    """Return the `SequentialRule` of a tolerance and confidence, calibrated exactly.

    The probability to stop at each point (n, k) is known for every true share, by counting
    paths; z is the least one found with which the interval covers every share with at least
    the `confidence`. The rule never needs more samples than Hoeffding's inequality, and far
    fewer where the share is near 0 or 1.

    Parameters
    ----------
    tolerance : float
        Half-width of the interval, in [0.005, 1). The rules for 0.1, 0.05, 0.04, 0.03, 0.025,
        0.02, 0.015 and 0.01 at confidence 0.9, 0.95 and 0.99 are calibrated already; the time
        for another one grows with the inverse of its tolerance to about the third power, from
        a fraction of a second at 0.05 to a minute at 0.01. A process does it once.
    confidence : float, default=0.95
        In [1e-6, 1 - 1e-9].
    n_available : int, default=None
        Samples at hand. If they are fewer than the rule may need, it stops with the last one,
        with an interval as wide as it must then be.

    Returns
    -------
    SequentialRule

    Raises
    ------
    ValueError
        If the tolerance is below 0.005, for which there are the intervals of fixed size, or an
        argument is outside of its range.

    Notes
    -----
    The least coverage is bounded from below, not only evaluated on a grid. The larger the share,
    the later along the boundary (from few successes to many) the samples stop, in distribution.
    So while the points that miss a share are the same, the probability to miss it from below
    falls with the share, and that to miss it from above rises: between two shares, each is
    bounded by its value at one of them.

    References
    ----------
    Frey, "Fixed-width sequential confidence intervals for a proportion", The American
    Statistician 64, 2010, is the design that this one follows.

    Examples
    --------
    >>> rule = sequential_rule(0.05, 0.95)
    >>> rule.n_max < sample_size(0.05, 0.95)
    True
    >>> bool(rule.mean_samples(0.95)[0] < sample_size(0.05, 0.95) / 3)
    True
    """
    tolerance = check_real("tolerance", tolerance, low=0, high=1, closed="neither")
    check_confidence(confidence)
    confidence = check_real("confidence", confidence, low=_LEAST_CONFIDENCE, high=_MOST_CONFIDENCE)
    if tolerance < _FINEST:
        expectation = (
            f"at least {_FINEST}, since a finer sequential rule takes too long to calibrate; "
            "use bound='clopper-pearson' instead"
        )
        raise ValueError(expected("tolerance", tolerance, expectation))
    if n_available is None:
        return _calibrated(tolerance, confidence)
    n_available = check_integer("n_available", n_available, low=1)
    if _can_stop_early(tolerance, confidence, n_available):
        rule = _calibrated(tolerance, confidence)
        if n_available >= rule.n_max:
            return rule
    return _shortened(tolerance, confidence, n_available)


def _can_stop_early(tolerance, confidence, n_available):
    """Return whether a calibrated rule, which has a z of the quantile at least, can."""
    quantile = _quantile(confidence)
    return bool(_is_precise(0, n_available, tolerance / quantile, quantile**2))


@lru_cache(maxsize=64)
def _calibrated(tolerance, confidence):
    z = CALIBRATIONS.get((tolerance, confidence))
    return _rule(tolerance, confidence, calibrated_z(tolerance, confidence) if z is None else z)


def _rule(tolerance, confidence, z):
    """Return the rule of some z, which never asks for more samples than Hoeffding's number."""
    # As many pseudo-counts on each side as keep the first stop from coming too early: with few
    # of them z must grow, with many the stop at shares near 1 comes late.
    pseudo_count = _quantile(confidence) ** 2
    stops = _stopping_points(tolerance / z, pseudo_count, sample_size(tolerance, confidence))
    last = int(stops[:, 0].max())
    return SequentialRule(tolerance, confidence, z, pseudo_count, last, tolerance, stops)


def calibrated_z(tolerance, confidence):
    """Return the least z found, by bisection, whose rule covers every share often enough."""

    def covers(z):
        return _least_coverage(_rule(tolerance, confidence, z)) >= confidence

    # Up to the z at which Hoeffding's number of samples is reached; mostly a little will do.
    low, highest = _quantile(confidence), math.sqrt(2 * math.log(2 / (1 - confidence)))
    for high in (min(1.1 * low, highest), highest):
        if covers(high):
            break
        low = high
    else:
        return math.inf  # a single stop, at Hoeffding's number of samples
    for _ in range(8):
        middle = (low + high) / 2
        low, high = (low, middle) if covers(middle) else (middle, high)
    return high


@lru_cache(maxsize=64)
def _shortened(tolerance, confidence, n_available):
    z, pseudo_count = math.inf, _quantile(confidence) ** 2  # a single stop, with the last sample
    if _can_stop_early(tolerance, confidence, n_available):
        z = _calibrated(tolerance, confidence).z
    stops = _stopping_points(tolerance / z, pseudo_count, n_available)

    def rule(last_tolerance):
        return SequentialRule(
            tolerance, confidence, z, pseudo_count, n_available, last_tolerance, stops
        )

    # The whole rule covers, and with an interval as wide as 1 nothing is missed at the end.
    low, high = tolerance, 1.0
    for _ in range(14):
        middle = (low + high) / 2
        low, high = (
            (low, middle) if _least_coverage(rule(middle)) >= confidence else (middle, high)
        )
    return rule(high)


def _check_count_arrays(n_successes, n):
    k, m = _plain(n_successes), _plain(n)
    whole = k.dtype.kind in "ui" and m.dtype.kind in "ui"
    if not whole or not _broadcast(k, m) or not ((m >= 1) & (k >= 0) & (k <= m)).all():
        expectation = "whole numbers, or arrays of them that go together, of 0 <= n_successes <= n"
        raise ValueError(expected("(n_successes, n)", (n_successes, n), f"{expectation}, n >= 1"))
    return k, m


def _plain(values):
    """Return an array; of objects, which is no array of numbers, where rows differ in length."""
    try:
        return np.asarray(values)
    except ValueError:
        return np.array(None, dtype=object)


def _broadcast(first, second):
    try:
        np.broadcast_shapes(first.shape, second.shape)
    except ValueError:
        return False
    return True


def _check_outcomes(outcomes):
    array = _plain(outcomes)
    is_binary = array.size == 0 or (array.dtype.kind in "bui" and np.isin(array, (0, 1)).all())
    if array.ndim != 1 or not is_binary:
        raise ValueError(expected("outcomes", outcomes, "an array of True and False, shape (n,)"))
    return array.astype(int)


def _check_shares(share):
    try:
        array = np.atleast_1d(np.asarray(share, dtype=float))
    except (TypeError, ValueError, OverflowError):
        array = np.array([np.nan])
    if array.ndim != 1 or not ((array >= 0) & (array <= 1)).all():
        raise ValueError(expected("share", share, "numbers in [0, 1], one or an array (n,)"))
    return array


def _quantile(confidence):
    return float(norm.ppf((1 + confidence) / 2))


def _is_precise(k, n, deviation, pseudo_count):
    q = (np.asarray(k) + pseudo_count) / (np.asarray(n) + 2 * pseudo_count)
    return q * (1 - q) <= deviation**2 * np.asarray(n)


def _stopping_points(deviation, pseudo_count, n_max):
    """Return the points where sampling stops, in order along the boundary.

    Columns are n, k, and the logarithm of the number of paths that reach the point without a
    stop before it. First come the points with few successes, last those with many.
    """
    paths = np.full(n_max + 2, -np.inf)
    paths[0] = 0.0
    points = []
    first, last = 0, 0  # successes of the paths that go on
    for n in range(1, n_max + 1):
        span = slice(first, last + 2)
        shifted = np.r_[-np.inf, paths[first : last + 1]]
        paths[span] = np.logaddexp(paths[span], shifted)
        k = np.arange(first, last + 2)
        stop = _is_precise(k, n, deviation, pseudo_count) | (n == n_max)
        stopped = k[stop]
        points.append(np.c_[np.full(len(stopped), n), stopped, paths[stopped]])
        paths[stopped] = -np.inf
        if stop.all():
            break
        first, last = k[~stop][0], k[~stop][-1]
    points = np.concatenate(points)
    n, k, _ = points.T
    many = 2 * k >= n
    return points[np.lexsort((k, np.where(many, -n, n), many))]


def _stop_probabilities(stops, share):
    n, k, log_paths = stops.T
    share = share[:, None]
    return np.exp(log_paths + xlogy(k, share) + xlog1py(n - k, -share))


_MOST_CELLS = 2000


def _least_coverage(rule):
    """Return a lower bound of the coverage over all shares (see `sequential_rule`)."""
    n, k, _ = rule._stops.T
    half = rule._half_widths(k, n)
    low, high = k / n - half, k / n + half
    # The rule treats successes and failures alike, so shares up to one half are enough.
    edges = np.concatenate([low, high])
    edges = np.unique(np.r_[0.0, edges[(edges > 0) & (edges < 0.5)], 0.5])
    if len(edges) > _MOST_CELLS:
        edges = np.linspace(0, 0.5, _MOST_CELLS)
    left, right = edges[:-1], edges[1:]
    # Points that may miss from below are the first ones along the boundary, up to the last one
    # of them; those that may miss from above are the last ones.
    n_below = np.searchsorted(np.minimum.accumulate(high[::-1])[::-1], right, side="left")
    n_not_above = np.searchsorted(np.maximum.accumulate(low), left, side="right")
    misses = []
    for start in range(0, len(left), 256):
        block = slice(start, start + 256)
        below = _cumulated(rule, left[block])
        above = _cumulated(rule, right[block])
        rows = np.arange(len(below))
        misses.append(
            below[rows, n_below[block]] + above[rows, -1] - above[rows, n_not_above[block]]
        )
    return 1 - max(miss.max() for miss in misses)


def _cumulated(rule, share):
    """Probability to stop before each point along the boundary; in the last column, at all."""
    cumulated = np.cumsum(rule._probabilities(share), axis=1)
    return np.c_[np.zeros(len(share)), cumulated]
