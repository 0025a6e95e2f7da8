"""How many samples an interval of a given width needs."""

import math
from functools import lru_cache

from skrobust._validation import check_choice, check_integer, check_real, expected
from skrobust.statistics._intervals import (
    bernstein_half_width,
    beta_mixture,
    check_confidence,
    check_range,
    clopper_pearson,
    hoeffding_half_width,
)

__all__ = ["attainable_tolerance", "sample_size"]

FIXED = ("hoeffding", "clopper-pearson", "bernstein", "anytime")
_FINEST = 1e-7  # tolerance, as a share of the range: beyond it numbers of samples lose digits
# The width is not monotone in n, since the successes are whole: look back this far.
_LOOK_BACK = 50


def sample_size(tolerance, confidence=0.95, *, bound="hoeffding", low=0.0, high=1.0, share=None):
    """Return the least number of samples whose interval is within `tolerance` of its middle.

    Parameters
    ----------
    tolerance : float
        Largest half-width of the interval, in (0, high - low).
    confidence : float, default=0.95
    bound : {"hoeffding", "clopper-pearson", "bernstein", "anytime"}, default="hoeffding"
        Kind of interval. "clopper-pearson" and "anytime" are for shares.
    low, high : float, default=0.0, 1.0
        Between which all values lie.
    share : float, default=None
        The share that will be seen, for "clopper-pearson" and "anytime"; the worst case, one
        half, if None.

    Returns
    -------
    int

    References
    ----------
    For Hoeffding's inequality: N = (high - low)^2 ln(2 / (1 - confidence)) / (2 tolerance^2).

    Examples
    --------
    >>> sample_size(0.05, 0.95)
    738
    >>> sample_size(0.05, 0.95, bound="clopper-pearson", share=0.9)
    155
    """
    check_confidence(confidence)
    check_choice("bound", bound, FIXED)
    low, high = check_range(low, high)
    width = high - low
    ends = f"low={low} to high={high}"
    try:
        tolerance = check_real("tolerance", tolerance, low=0, high=width, closed="neither")
    except ValueError as error:
        raise ValueError(f"{error} Values lie from {ends}.") from None
    if tolerance < _FINEST * width:
        expectation = f"at least {_FINEST * width:g} from {ends}, which takes some 1e14 samples"
        raise ValueError(expected("tolerance", tolerance, expectation))
    if bound in ("clopper-pearson", "anytime") and width != 1:
        raise ValueError(expected("bound", bound, "'hoeffding' or 'bernstein' for [low, high]"))
    share = 0.5 if share is None else check_real("share", share, low=0, high=1)
    return _sample_size(tolerance, confidence, bound, width, share)


@lru_cache(maxsize=256)
def _sample_size(tolerance, confidence, bound, width, share):
    if bound == "hoeffding":
        n = math.log(2 / (1 - confidence)) / 2 * (width / tolerance) ** 2
        return max(1, math.ceil(n - 1e-9))

    def fits(n):
        return _half_width(n, confidence, bound, width, share) <= tolerance

    high = 2
    while not fits(high):
        high *= 2
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if fits(middle) else (middle, high)
    return next(n for n in range(max(2, high - _LOOK_BACK), high + 1) if fits(n))


def attainable_tolerance(n, confidence=0.95, *, bound="hoeffding", low=0.0, high=1.0):
    """Return the half-width that the interval from `n` samples has at most.

    Parameters
    ----------
    n : int
    confidence : float, default=0.95
    bound : {"hoeffding", "clopper-pearson", "bernstein", "anytime"}, default="hoeffding"
    low, high : float, default=0.0, 1.0
        Between which all values lie.

    Returns
    -------
    float

    Examples
    --------
    >>> round(attainable_tolerance(200), 4)
    0.096
    """
    check_integer("n", n, low=1)
    check_confidence(confidence)
    check_choice("bound", bound, FIXED)
    low, high = check_range(low, high)
    return _half_width(n, confidence, bound, high - low, 0.5)


def _half_width(n, confidence, bound, width, share):
    """Half the width of an interval from n samples; for means, in the worst case."""
    if bound == "hoeffding":
        return hoeffding_half_width(n, confidence, width)
    if bound == "bernstein":
        if n < 2:
            return math.inf
        # The largest sample deviation of values in an interval: half at each end.
        deviation = width / 2 * math.sqrt(n / (n - 1))
        return bernstein_half_width(n, confidence, width, deviation)
    k = round(share * n)
    interval = (clopper_pearson if bound == "clopper-pearson" else beta_mixture)(k, n, confidence)
    return (interval.high - interval.low) / 2
