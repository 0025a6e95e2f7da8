"""Confidence intervals for means of bounded values."""

import math
from dataclasses import dataclass

import numpy as np
from scipy.special import betaln, xlog1py, xlogy
from scipy.stats import binomtest

from skrobust._validation import check_integer, check_real, expected

__all__ = ["Interval", "beta_mixture", "clopper_pearson", "empirical_bernstein", "hoeffding"]


@dataclass(frozen=True)
class Interval:
    """A confidence interval.

    Parameters
    ----------
    low, high : float
    confidence : float
        Probability, in (0, 1), with which such an interval covers the true value.
    method : str
    """

    low: float
    high: float
    confidence: float
    method: str

    def __str__(self):
        return f"[{self.low:.4f}, {self.high:.4f}] ({self.method}, {self.confidence:.0%})"


def clopper_pearson(n_successes, n, confidence=0.95):
    """Return the exact binomial `Interval` for a share, from `n` independent trials.

    Parameters
    ----------
    n_successes, n : int
        Of n >= 1 trials so many were successes.
    confidence : float, default=0.95

    References
    ----------
    Clopper and Pearson, Biometrika 26, 1934; computed by `scipy.stats.binomtest`.

    Examples
    --------
    >>> print(clopper_pearson(8, 10))
    [0.4439, 0.9748] (clopper-pearson, 95%)
    """
    n_successes, n = check_counts(n_successes, n)
    check_confidence(confidence)
    ci = binomtest(n_successes, n).proportion_ci(confidence, method="exact")
    return Interval(float(ci.low), float(ci.high), confidence, "clopper-pearson")


def hoeffding(values, low=0.0, high=1.0, confidence=0.95, *, weights=None):
    """Return Hoeffding's `Interval` for a mean, cut to [`low`, `high`].

    With weights that do not depend on the values, it holds for the weighted mean, with the number
    of values replaced by the effective number of Kish, the square of the sum of the weights
    divided by the sum of their squares.

    Parameters
    ----------
    values : array-like of shape (n,)
        Independent draws, or draws without replacement.
    low, high : float, default=0.0, 1.0
        Between which all values lie.
    confidence : float, default=0.95
    weights : array-like of shape (n,), default=None
        Non-negative, some above 0; for independent draws, not those without replacement.

    References
    ----------
    Hoeffding, "Probability inequalities for sums of bounded random variables", Journal of the
    American Statistical Association 58, 1963, Theorem 2 (whose variables may have different
    ranges, as weighted ones have) and section 6.

    Kish, "Survey Sampling", 1965, section 11.7.

    Examples
    --------
    >>> print(hoeffding([0, 1] * 369))
    [0.4500, 0.5500] (hoeffding, 95%)
    """
    low, high = check_range(low, high)
    values = _check_values(values, low, high)
    if weights is None:
        mean, n, method = values.mean(), len(values), "hoeffding"
    else:
        # Divided by the largest one, whose square is finite then.
        weights = check_weights("weights", weights, len(values))
        weights = weights / weights.max()
        n = weights.sum() ** 2 / (weights**2).sum()
        mean, method = np.average(values, weights=weights), "weighted hoeffding"
    half = hoeffding_half_width(n, confidence, high - low)
    return interval_around(mean, half, low, high, confidence, method)


def empirical_bernstein(values, low=0.0, high=1.0, confidence=0.95):
    """Return the empirical Bernstein `Interval` for a mean, cut to [`low`, `high`].

    Narrower than Hoeffding's where the values vary little, wider where they vary much.

    Parameters
    ----------
    values : array-like of shape (n,)
        Independent draws; at least two.
    low, high : float, default=0.0, 1.0
        Between which all values lie.
    confidence : float, default=0.95

    References
    ----------
    Maurer and Pontil, "Empirical Bernstein bounds and sample variance penalization", COLT 2009,
    Theorem 4, once for each side.

    Examples
    --------
    >>> print(empirical_bernstein([0.5] * 1000))
    [0.4898, 0.5102] (bernstein, 95%)
    """
    low, high = check_range(low, high)
    values = _check_values(values, low, high)
    if len(values) < 2:
        raise ValueError("Got values of shape (1,), but expected (n,) with n >= 2.")
    deviation = values.std(ddof=1)
    half = bernstein_half_width(len(values), confidence, high - low, deviation)
    return interval_around(values.mean(), half, low, high, confidence, "bernstein")


def beta_mixture(n_successes, n, confidence=0.95):
    """Return the `Interval` of a confidence sequence for a share: valid at all times at once.

    With probability `confidence` the true share lies in the intervals of all n = 1, 2, ...
    together, so one may look after every draw, and stop when one likes.

    Parameters
    ----------
    n_successes, n : int
        Of n >= 1 trials so many were successes.
    confidence : float, default=0.95

    References
    ----------
    Robbins, "Statistical methods related to the law of the iterated logarithm", Annals of
    Mathematical Statistics 41, 1970: Ville's inequality for the likelihood ratio of a uniform
    mixture of shares against one share.

    Examples
    --------
    >>> print(beta_mixture(45, 50))
    [0.7123, 0.9843] (anytime, 95%)
    """
    n_successes, n = check_counts(n_successes, n)
    check_confidence(confidence)
    low, high = mixture_limits(np.array([n_successes]), np.array([n]), confidence)
    return Interval(float(low[0]), float(high[0]), confidence, "anytime")


def interval_around(mean, half, low, high, confidence, method):
    bounds = max(low, float(mean - half)), min(high, float(mean + half))
    return Interval(*bounds, confidence, method)


def hoeffding_half_width(n, confidence, width=1.0):
    check_confidence(confidence)
    return width * math.sqrt(math.log(2 / (1 - confidence)) / (2 * n))


def bernstein_half_width(n, confidence, width, deviation):
    check_confidence(confidence)
    log_term = math.log(4 / (1 - confidence))
    return deviation * math.sqrt(2 * log_term / n) + 7 * width * log_term / (3 * (n - 1))


def mixture_limits(k, n, confidence):
    """Return where the mixture's likelihood ratio reaches 1 / (1 - confidence), by bisection."""
    k, n = np.asarray(k, dtype=float), np.asarray(n, dtype=float)
    # Of the uniform mixture against the share p: beta(k + 1, n - k + 1) / p^k (1 - p)^(n - k).
    level = betaln(k + 1, n - k + 1) + math.log(1 - confidence)

    def inside(p):
        return xlogy(k, p) + xlog1py(n - k, -p) > level

    limits = []
    for outside in (0.0, 1.0):
        # The end of the domain itself belongs to the interval where all trials were alike.
        far, near = np.full_like(n, outside), k / n
        for _ in range(60):
            middle = (far + near) / 2
            is_in = inside(middle)
            near, far = np.where(is_in, middle, near), np.where(is_in, far, middle)
        limits.append(np.where(k / n == outside, outside, far))
    return limits


def check_confidence(confidence):
    check_real("confidence", confidence, low=0, high=1, closed="neither")


def check_counts(n_successes, n):
    """Return the numbers of successes and of trials as ints, or raise a ValueError."""
    n = check_integer("n", n, low=1)
    n_successes = check_integer("n_successes", n_successes)
    if n_successes > n:
        raise ValueError(expected("n_successes", n_successes, f"at most n={n}"))
    return n_successes, n


def check_weights(name, weights, n):
    """Return the weights of `n` values as float64 array, or raise a ValueError."""
    expectation = f"non-negative finite numbers of shape ({n},), one above 0 at least"
    try:
        array = np.asarray(weights, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(expected(name, weights, expectation)) from None
    if array.shape != (n,):
        raise ValueError(f"Got {name} of shape {array.shape}, but expected {expectation}.")
    wrong = array[~(np.isfinite(array) & (array >= 0))]
    if len(wrong) or not array.any():
        found = f"the entry {wrong[0]}" if len(wrong) else "zeros alone"
        raise ValueError(f"Got {name} with {found}, but expected {expectation}.")
    return array


def _check_values(values, low, high):
    try:
        values = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(expected("values", values, "numbers, of shape (n,)")) from None
    if values.ndim != 1 or len(values) == 0:
        raise ValueError(f"Got values of shape {values.shape}, but expected (n,) with n >= 1.")
    slack = 1e-6 * (high - low)  # of values that were computed in float32
    if not ((values >= low - slack) & (values <= high + slack)).all():
        shown = f"values from {values.min():.6g} to {values.max():.6g}"
        raise ValueError(f"Got {shown}, but expected values in [{low}, {high}], from low to high.")
    return values


def check_range(low, high):
    """Return the ends of the interval in which values lie as floats, or raise a ValueError."""
    low = check_real("low", low)
    high = check_real("high", high)
    if not 0 < high - low < math.inf:
        raise ValueError(expected("high", high, f"a number at a finite distance above low={low}"))
    return low, high
