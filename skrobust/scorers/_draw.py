"""How many samples are drawn: a fixed number, or until a rule stops."""

from dataclasses import dataclass, replace

import numpy as np

from skrobust._validation import expected
from skrobust.statistics import (
    AnytimeRule,
    SequentialRule,
    anytime_rule,
    attainable_tolerance,
    clopper_pearson,
    empirical_bernstein,
    hoeffding,
    sample_size,
    sequential_rule,
)

__all__ = ["hull", "side_of", "stopping_rule"]


def side_of(arrays, sequences):
    """Return which sides of the global robustness are estimated; see the results' `side`."""
    if "lower" not in sequences:
        return "upper"
    if "verdicts" not in arrays:
        return "both"
    if not (arrays["verdicts"] == "unknown").any():
        return "exact"
    return "both" if (arrays["verdicts"] == "falsified").any() else "lower"


def hull(lower, upper):
    """Return the interval from the low end of one to the high end of another."""
    confidence = lower.confidence
    if lower.method in ("sequential", "anytime"):
        # These share out the probability of a miss between the sides as it comes.
        confidence = max(2 * confidence - 1, 0.0)
    return replace(lower, high=upper.high, confidence=confidence)


def stopping_rule(bound, tolerance, confidence, n_available):
    """Return what says how many samples are drawn, and their intervals."""
    if bound == "sequential":
        return _Stopping(sequential_rule(tolerance, confidence, n_available=n_available))
    if bound == "anytime":
        return _Stopping(anytime_rule(tolerance, confidence, n_available=n_available))
    if bound == "bernstein" and n_available < 2:
        raise ValueError(expected("X", "1 sample", "at least 2, for the interval of 'bernstein'"))
    needed = sample_size(tolerance, confidence, bound=bound)
    return _FixedSize(bound, confidence, min(needed, n_available))


@dataclass(frozen=True)
class _FixedSize:
    """So many samples, known in advance."""

    bound: str
    confidence: float
    n_max: int

    def earliest_stop(self, values):
        return self.n_max

    def first_stop(self, values):
        return self.n_max if len(values) >= self.n_max else None

    def tolerance(self, values):
        if self.bound == "hoeffding":  # whose interval is as wide for all values, but for the cut
            return attainable_tolerance(self.n_max, self.confidence)
        interval = self.interval(values)
        return (interval.high - interval.low) / 2

    def interval(self, values):
        values = np.asarray(values, dtype=np.float64)
        if self.bound == "hoeffding":
            return hoeffding(values, confidence=self.confidence)
        if self.bound == "bernstein":
            return empirical_bernstein(values, confidence=self.confidence)
        return clopper_pearson(int(values.sum()), len(values), self.confidence)


@dataclass(frozen=True)
class _Stopping:
    """Stops when the interval is narrow enough, by a rule of `skrobust.statistics`."""

    rule: SequentialRule | AnytimeRule

    @property
    def n_max(self):
        return self.rule.n_max

    def earliest_stop(self, values):
        return self.rule.earliest_stop(int(np.sum(values)), len(values))

    def first_stop(self, values):
        return self.rule.first_stop(values)

    def tolerance(self, values):
        return self.rule.half_width(int(np.sum(values)), len(values))

    def interval(self, values):
        return self.rule.interval(int(np.sum(values)), len(values))
