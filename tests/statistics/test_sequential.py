"""Rules that stop early, against exact coverage, simulation and each other."""

import numpy as np
import pytest

from skrobust.statistics import (
    anytime_rule,
    attainable_tolerance,
    sample_size,
    sequential_rule,
)
from skrobust.statistics._sequential import _stopping_points

RULES = [(0.05, 0.95), (0.1, 0.9), (0.08, 0.99), (0.3, 0.95), (0.45, 0.8)]


@pytest.mark.parametrize(("tolerance", "confidence"), RULES)
def test_sequential_rule_covers_and_needs_no_more_than_hoeffding(tolerance, confidence):
    rule = sequential_rule(tolerance, confidence)
    assert rule.n_max <= sample_size(tolerance, confidence)
    share = np.linspace(0, 1, 1001)
    edges = np.concatenate([share, share + 1e-9, share - 1e-9]).clip(0, 1)
    assert rule.coverage(edges).min() >= confidence
    # It stops with certainty, and treats both outcomes alike.
    np.testing.assert_allclose(rule._probabilities(share).sum(axis=1), 1)
    np.testing.assert_allclose(rule.coverage(share), rule.coverage(1 - share), atol=1e-9)


def test_sequential_rule_needs_a_third_of_hoeffding():
    rule, plain = sequential_rule(0.05, 0.95), sample_size(0.05, 0.95)
    assert (rule.mean_samples([0.9, 0.95, 0.99, 1.0]) <= plain / 3).all()
    assert (rule.mean_samples(np.linspace(0, 1, 101)) < plain).all()
    # And is not wasteful: coverage close to what was asked for somewhere.
    assert rule.coverage(np.linspace(0.05, 0.95, 901)).min() < 0.955


@pytest.mark.parametrize("p", [0.1, 0.5, 0.85, 0.97])
def test_sequential_rule_on_the_lattice_against_simulation(p):
    rule = sequential_rule(0.1, 0.9)
    outcomes = np.random.default_rng(0).random((10_000, rule.n_max)) < p
    n = np.arange(1, rule.n_max + 1)
    k = outcomes.cumsum(axis=1)
    stop = rule.stops(k, n).argmax(axis=1)
    share = k[np.arange(len(k)), stop] / n[stop]
    covered = (np.abs(share - p) <= 0.1 + 1e-12).mean()
    assert covered == pytest.approx(rule.coverage(p)[0], abs=4 * np.sqrt(0.25 / 10_000))
    assert covered >= 0.9 - 4 * np.sqrt(0.09 / 10_000)
    assert n[stop].mean() == pytest.approx(rule.mean_samples(p)[0], rel=0.02)


@pytest.mark.parametrize("n_available", [1, 20, 100, 300])
def test_shortened_rule_says_what_the_data_allow(n_available):
    rule = sequential_rule(0.05, 0.95, n_available=n_available)
    assert rule.n_max == n_available
    assert 0.05 < rule.last_tolerance <= 1
    assert rule.coverage(np.linspace(0, 1, 2001)).min() >= 0.95
    half = rule.half_width(n_available // 2, n_available)
    assert half == rule.last_tolerance
    # Better than what Hoeffding's inequality allows.
    assert half <= attainable_tolerance(n_available) + 1e-3 or n_available == 1
    assert sequential_rule(0.05, 0.95, n_available=10_000).n_max < 738


def test_few_samples_need_no_calibration(monkeypatch):
    full = sequential_rule(0.1, 0.95)
    earliest = full.earliest_stop()
    # With the calibrated z no path stops before these either, so that the rules are the same.
    for n_available in (1, 10, earliest - 1, earliest):
        rule = sequential_rule(0.1, 0.95, n_available=n_available)
        z, a = full.z, full.pseudo_count
        calibrated = _stopping_points(0.1 / z, a, n_available)
        np.testing.assert_array_equal(rule._stops, calibrated)

    def refuse(*args):
        raise AssertionError("calibrated")

    monkeypatch.setattr("skrobust.statistics._sequential._calibrated", refuse)
    rule = sequential_rule(0.005, 0.95, n_available=200)  # minutes otherwise
    assert rule.n_max == 200 == rule.earliest_stop()
    assert rule.coverage(np.linspace(0, 1, 2001)).min() >= 0.95
    assert rule.last_tolerance < attainable_tolerance(200)
    with pytest.raises(AssertionError, match="calibrated"):
        sequential_rule(0.1, 0.97, n_available=100)


@pytest.mark.parametrize("make", [sequential_rule, anytime_rule])
def test_rules_stop_where_they_say(make):
    rule = make(0.1, 0.9)
    first = rule.earliest_stop()
    assert rule.first_stop(np.ones(first, dtype=bool)) == first
    assert rule.first_stop(np.ones(first - 1, dtype=bool)) is None
    outcomes = np.arange(rule.n_max) % 2 == 0
    n = rule.first_stop(outcomes)
    assert n is not None
    assert rule.earliest_stop(int(outcomes[: n - 1].sum()), n - 1) == n
    assert not rule.stops(int(outcomes[: n - 1].sum()), n - 1)
    interval = rule.interval(first, first)
    assert interval.high == 1.0
    assert rule.half_width(first, first) <= 0.1
    assert interval.confidence == 0.9


@pytest.mark.parametrize("p", [0.5, 0.9])
def test_anytime_rule_covers_where_it_stops(p):
    rule = anytime_rule(0.1, 0.9)
    outcomes = np.random.default_rng(1).random((300, rule.n_max)) < p
    covered = []
    for row in outcomes:
        n = rule.first_stop(row)
        interval = rule.interval(int(row[:n].sum()), n)
        assert (interval.high - interval.low) / 2 <= 0.1 + 1e-9
        covered.append(interval.low <= p <= interval.high)
    assert np.mean(covered) >= 0.9


def test_calibration_is_remembered():
    assert sequential_rule(0.05, 0.95) is sequential_rule(0.05, 0.95)
    assert sequential_rule(0.1, n_available=30) is sequential_rule(0.1, n_available=30)


# ---- refusals --------------------


@pytest.mark.parametrize("tolerance", [0, 1, -0.1, np.nan, "0.1"])
@pytest.mark.parametrize("make", [sequential_rule, anytime_rule])
def test_tolerance_refused(make, tolerance):
    with pytest.raises(ValueError, match=r"Got tolerance=.*in \(0, 1"):
        make(tolerance)


@pytest.mark.parametrize("n_available", [None, 1, 10_000])
def test_tolerances_too_fine_to_calibrate_refused(n_available):
    with pytest.raises(ValueError, match=r"Got tolerance=0\.001, .* 0\.005.*clopper-pearson"):
        sequential_rule(0.001, n_available=n_available)


@pytest.mark.parametrize("confidence", [0, 1, 2.0, None])
@pytest.mark.parametrize("make", [sequential_rule, anytime_rule])
def test_confidence_refused(make, confidence):
    with pytest.raises(ValueError, match=r"Got confidence=.*in \(0, 1\)"):
        make(0.1, confidence)


@pytest.mark.parametrize("confidence", [1e-45, 1 - 1e-16])
def test_confidence_without_a_quantile_refused(confidence):
    with pytest.raises(ValueError, match=r"Got confidence=.*in \[1e-06, 0\.999999999\]"):
        sequential_rule(0.1, confidence)


@pytest.mark.parametrize("make", [sequential_rule, anytime_rule])
def test_bad_number_of_samples_refused(make):
    with pytest.raises(ValueError, match="Got n_available=0, but expected"):
        make(0.1, n_available=0)


@pytest.mark.parametrize("make", [sequential_rule, anytime_rule])
@pytest.mark.parametrize(
    ("method", "arguments", "message"),
    [
        ("stops", (2, 1), r"Got \(n_successes, n\)=\(2, 1\), but expected whole numbers"),
        ("stops", ([1, 2, 3], [4, 5]), "but expected whole numbers, or arrays of them that go"),
        ("stops", (None, 1), "but expected whole numbers"),
        ("stops", (0, 0), "but expected whole numbers"),
        ("first_stop", (None,), "Got outcomes=None, but expected an array of True and False"),
        ("first_stop", ([[1], [1, 0]],), "Got outcomes=.*but expected an array of True and False"),
        ("first_stop", ([0.5, 1],), "Got outcomes=.*but expected an array of True and False"),
        ("earliest_stop", (2, 1), "Got n_successes=2, but expected at most n=1"),
        ("earliest_stop", (0, 10_000), "Got n=10000, but expected fewer than n_max="),
        ("half_width", (3, 2), "Got n_successes=3, but expected at most n=2"),
        ("interval", (0, 0), "Got n=0, but expected an integer of at least 1"),
        ("interval", (None, 3), "Got n_successes=None, but expected"),
    ],
)
def test_bad_counts_refused(make, method, arguments, message):
    with pytest.raises(ValueError, match=message):
        getattr(make(0.1, 0.9), method)(*arguments)


@pytest.mark.parametrize("share", [None, -0.1, [0.5, 1.5], "a", [[0.5]], np.nan, 10**400])
@pytest.mark.parametrize("method", ["coverage", "mean_samples"])
def test_bad_shares_refused(method, share):
    with pytest.raises(ValueError, match=r"Got share=.* but expected numbers in \[0, 1\]"):
        getattr(sequential_rule(0.1, 0.9), method)(share)


def test_no_outcomes_do_not_stop():
    assert sequential_rule(0.1).first_stop([]) is None
