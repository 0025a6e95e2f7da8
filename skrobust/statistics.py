"""Intervals for what is estimated from a finite number of samples."""

from dataclasses import dataclass

from scipy.stats import binomtest

from skrobust._validation import check_integer, check_real

__all__ = ["Interval", "clopper_pearson"]


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
    confidence : float, default=0.95

    References
    ----------
    Clopper and Pearson, Biometrika 26, 1934; computed by `scipy.stats.binomtest`.

    Examples
    --------
    >>> print(clopper_pearson(8, 10))
    [0.4439, 0.9748] (clopper-pearson, 95%)
    """
    check_integer("n", n, low=1)
    check_real("confidence", confidence, low=0, high=1, closed="neither")
    ci = binomtest(int(n_successes), int(n)).proportion_ci(confidence, method="exact")
    return Interval(float(ci.low), float(ci.high), confidence, "clopper-pearson")
