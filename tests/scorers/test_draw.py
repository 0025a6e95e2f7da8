"""How many samples are drawn: rules that stop, fixed sizes, and the intervals they end with."""

import numpy as np
import pytest

from skrobust.scorers._draw import hull, side_of, stopping_rule
from skrobust.statistics import (
    anytime_rule,
    attainable_tolerance,
    clopper_pearson,
    empirical_bernstein,
    hoeffding,
    sample_size,
    sequential_rule,
)

FIXED = {
    "hoeffding": lambda values: hoeffding(values, confidence=0.9),
    "bernstein": lambda values: empirical_bernstein(values, confidence=0.9),
    "clopper-pearson": lambda values: clopper_pearson(int(values.sum()), len(values), 0.9),
}


@pytest.mark.parametrize("bound", FIXED)
def test_fixed_sizes_are_known_in_advance(bound):
    rule = stopping_rule(bound, 0.2, 0.9, 10_000)
    assert rule.n_max == sample_size(0.2, 0.9, bound=bound)
    values = np.arange(rule.n_max) % 3 == 0
    assert rule.earliest_stop(values[:5]) == rule.n_max
    assert rule.first_stop(values[:-1]) is None
    assert rule.first_stop(values) == rule.n_max
    interval = rule.interval(values)
    assert interval == FIXED[bound](values.astype(float))
    half = (interval.high - interval.low) / 2
    assert rule.tolerance(values) == pytest.approx(
        attainable_tolerance(rule.n_max, 0.9) if bound == "hoeffding" else half
    )
    assert rule.tolerance(values) <= 0.2


@pytest.mark.parametrize("bound", [*FIXED, "sequential", "anytime"])
def test_no_more_samples_are_drawn_than_there_are(bound):
    rule = stopping_rule(bound, 0.1, 0.9, 30)
    assert rule.n_max == 30
    values = np.arange(30) % 2
    assert rule.first_stop(values) in (30, None)


@pytest.mark.parametrize(
    ("bound", "make"), [("sequential", sequential_rule), ("anytime", anytime_rule)]
)
def test_rules_that_stop_are_those_of_statistics(bound, make):
    rule, expected = stopping_rule(bound, 0.1, 0.9, 2_000), make(0.1, 0.9, n_available=2_000)
    assert rule.n_max == expected.n_max
    always = np.ones(rule.n_max, dtype=bool)
    stop = rule.first_stop(always)
    assert stop == expected.first_stop(always) and stop < rule.n_max
    at = always[:stop]
    assert rule.interval(at) == expected.interval(stop, stop)
    assert rule.tolerance(at) == expected.half_width(stop, stop) <= 0.1
    assert rule.earliest_stop(always[:3]) == expected.earliest_stop(3, 3) <= stop
    # What varies most takes longest.
    assert (rule.first_stop(np.arange(rule.n_max) % 2) or rule.n_max) > stop


def test_one_sample_is_too_few_for_bernstein():
    with pytest.raises(ValueError, match=r"1 sample.*, but expected at least 2"):
        stopping_rule("bernstein", 0.1, 0.9, 1)
    assert stopping_rule("bernstein", 0.1, 0.9, 2).n_max == 2


@pytest.mark.parametrize(
    ("verdicts", "side"),
    [
        (["verified", "falsified"], "exact"),
        (["verified", "unknown"], "lower"),
        (["verified", "falsified", "unknown"], "both"),
    ],
)
def test_unknown_verdicts_make_two_sides(verdicts, side):
    arrays = {"verdicts": np.array(verdicts)}
    assert side_of(arrays, {"lower": None, "upper": None}) == side
    assert side_of(arrays, {"upper": None}) == "upper"


def test_quantities_have_both_sides_where_there_are_proofs():
    assert side_of({"changes": np.zeros(3)}, {"lower": None, "upper": None}) == "both"


def test_a_hull_reaches_from_one_interval_to_the_other():
    lower, upper = (hoeffding(np.full(50, mean), confidence=0.9) for mean in (0.3, 0.6))
    joined = hull(lower, upper)
    assert (joined.low, joined.high, joined.confidence) == (lower.low, upper.high, 0.9)
    # Rules that stop miss either side with the whole probability of a miss.
    lower, upper = (anytime_rule(0.1, 0.9).interval(k, 50) for k in (15, 30))
    joined = hull(lower, upper)
    assert (joined.low, joined.high) == (lower.low, upper.high)
    assert joined.confidence == pytest.approx(0.8)
