"""Sample sizes, confidence intervals and stopping rules."""

from skrobust.statistics._intervals import (
    Interval,
    beta_mixture,
    clopper_pearson,
    empirical_bernstein,
    hoeffding,
)
from skrobust.statistics._intervals import check_weights as check_weights
from skrobust.statistics._sequential import (
    AnytimeRule,
    SequentialRule,
    anytime_rule,
    sequential_rule,
)
from skrobust.statistics._sizes import attainable_tolerance, sample_size

__all__ = [
    "AnytimeRule",
    "Interval",
    "SequentialRule",
    "anytime_rule",
    "attainable_tolerance",
    "beta_mixture",
    "clopper_pearson",
    "empirical_bernstein",
    "hoeffding",
    "sample_size",
    "sequential_rule",
]
