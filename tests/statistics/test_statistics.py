"""Intervals, sample sizes and stopping rules, against closed forms and exact coverage."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import betaln, xlog1py, xlogy
from scipy.stats import beta, binom

from skrobust.statistics import (
    Interval,
    anytime_rule,
    attainable_tolerance,
    beta_mixture,
    clopper_pearson,
    empirical_bernstein,
    hoeffding,
    sample_size,
    sequential_rule,
)
from skrobust.statistics._sequential import _stopping_points


@given(n=st.integers(1, 500), share=st.floats(0, 1), confidence=st.floats(0.5, 0.999))
def test_clopper_pearson_is_the_pair_of_beta_quantiles(n, share, confidence):
    k = round(share * n)
    tail = (1 - confidence) / 2
    interval = clopper_pearson(k, n, confidence)
    low = beta.ppf(tail, k, n - k + 1) if k else 0.0
    high = beta.ppf(1 - tail, k + 1, n - k) if k < n else 1.0
    assert interval.low == pytest.approx(low, abs=1e-9)
    assert interval.high == pytest.approx(high, abs=1e-9)
    assert (interval.confidence, interval.method) == (confidence, "clopper-pearson")


@pytest.mark.parametrize("n", [1, 7, 40])
@pytest.mark.parametrize("p", [0.0, 0.03, 0.5, 0.9, 1.0])
def test_clopper_pearson_covers_at_least_as_often_as_it_says(n, p):
    intervals = [clopper_pearson(k, n, 0.9) for k in range(n + 1)]
    covers = np.array([i.low <= p <= i.high for i in intervals])
    assert binom.pmf(np.arange(n + 1), n, p)[covers].sum() >= 0.9


def test_interval_reads_well():
    assert str(Interval(0.25, 0.5, 0.95, "hoeffding")) == "[0.2500, 0.5000] (hoeffding, 95%)"


@pytest.mark.parametrize("confidence", [0, 1, -0.5, np.nan])
def test_confidence_refused(confidence):
    with pytest.raises(ValueError, match=r"Got confidence=.*in \(0, 1\)"):
        clopper_pearson(1, 2, confidence)


def test_no_trials_refused():
    with pytest.raises(ValueError, match=r"Got n=0, but expected an integer of at least 1"):
        clopper_pearson(0, 0)


# ---- intervals of means --------------------


def test_hoeffding_is_its_formula():
    values = np.linspace(2, 4, 50)
    interval = hoeffding(values, 1.0, 6.0, 0.9)
    half = 5 * np.sqrt(np.log(2 / 0.1) / 100)
    assert interval.low == pytest.approx(3 - half)
    assert interval.high == pytest.approx(3 + half)
    assert (interval.confidence, interval.method) == (0.9, "hoeffding")
    assert hoeffding([1.0], 0.0, 1.0).high == 1.0


def test_bernstein_is_its_formula():
    # Maurer and Pontil, Theorem 4, with half of the error for each side.
    values = np.array([0.0, 0.5, 0.5, 1.0] * 100)
    log_term = np.log(2 / 0.025)
    half = np.sqrt(2 * values.var(ddof=1) * log_term / 400) + 7 * log_term / (3 * 399)
    interval = empirical_bernstein(values)
    assert interval.high - 0.5 == pytest.approx(half)
    assert 0.5 - interval.low == pytest.approx(half)
    # In another range, the same up to the scale.
    wide = empirical_bernstein(10 * values - 3, -3, 7)
    assert wide.high - wide.low == pytest.approx(10 * (interval.high - interval.low))


def test_bernstein_gains_where_little_varies():
    calm, wild = np.tile([0.49, 0.51], 500), np.tile([0.0, 1.0], 500)
    for values, gains in ((calm, True), (wild, False)):
        bernstein, plain = empirical_bernstein(values), hoeffding(values)
        assert (bernstein.high - bernstein.low < plain.high - plain.low) is gains


@given(n=st.integers(1, 400), share=st.floats(0, 1), confidence=st.floats(0.5, 0.999))
def test_mixture_ends_where_the_likelihood_ratio_says(n, share, confidence):
    k = round(share * n)
    interval = beta_mixture(k, n, confidence)

    def log_ratio(p):
        return betaln(k + 1, n - k + 1) - xlogy(k, p) - xlog1py(n - k, -p)

    level = np.log(1 / (1 - confidence))
    assert 0 <= interval.low <= k / n <= interval.high <= 1
    assert (interval.low == 0) == (k == 0)
    assert (interval.high == 1) == (k == n)
    for end in (interval.low, interval.high):
        if 0 < end < 1:
            assert log_ratio(end) == pytest.approx(level, abs=1e-5)


@pytest.mark.parametrize("p", [0.03, 0.3, 0.5, 0.95])
def test_mixture_covers_at_all_times_together(p):
    # Exactly, over the lattice: the probability that the true share is ever left out.
    n_last, alpha = 300, 0.05
    alive, missed = np.zeros(n_last + 2), 0.0
    alive[0] = 1.0
    for n in range(1, n_last + 1):
        alive[1:] = alive[1:] * (1 - p) + alive[:-1] * p
        alive[0] *= 1 - p
        k = np.arange(n + 1)
        ratio = betaln(k + 1, n - k + 1) - xlogy(k, p) - xlog1py(n - k, -p)
        out = np.flatnonzero(ratio >= np.log(1 / alpha))
        missed += alive[out].sum()
        alive[out] = 0.0
    assert 0 < missed <= alpha


# ---- sample sizes --------------------


@pytest.mark.parametrize(
    ("tolerance", "confidence", "n"), [(0.05, 0.95, 738), (0.1, 0.95, 185), (0.01, 0.99, 26492)]
)
def test_sample_size_of_hoeffding(tolerance, confidence, n):
    # Checked by hand: ln(2 / (1 - confidence)) / (2 tolerance^2), rounded up.
    assert sample_size(tolerance, confidence) == n
    assert attainable_tolerance(n, confidence) <= tolerance
    assert attainable_tolerance(n - 1, confidence) > tolerance
    assert sample_size(10 * tolerance, confidence, low=-5, high=5) == n


@pytest.mark.parametrize(("share", "n"), [(0.9, 155), (0.95, 88), (None, 402)])
def test_sample_size_of_clopper_pearson(share, n):
    assert sample_size(0.05, bound="clopper-pearson", share=share) == n


def test_sample_sizes_are_enough_in_the_worst_case():
    for bound, interval in (("clopper-pearson", clopper_pearson), ("anytime", beta_mixture)):
        n = sample_size(0.1, 0.9, bound=bound)
        widths = [interval(k, n, 0.9) for k in range(n + 1)]
        assert max((i.high - i.low) / 2 for i in widths) <= 0.1
        assert attainable_tolerance(n, 0.9, bound=bound) <= 0.1
    n = sample_size(0.1, 0.9, bound="bernstein")
    worst = empirical_bernstein(np.arange(n) % 2, confidence=0.9)
    assert 0.095 < (worst.high - worst.low) / 2 <= 0.1


# ---- rules that stop early --------------------

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
@pytest.mark.parametrize("function", [sample_size, sequential_rule, anytime_rule])
def test_tolerance_refused(function, tolerance):
    with pytest.raises(ValueError, match=r"Got tolerance=.*in \(0, 1"):
        function(tolerance)


@pytest.mark.parametrize("n_available", [None, 1, 10_000])
def test_tolerances_too_fine_to_calibrate_refused(n_available):
    with pytest.raises(ValueError, match=r"Got tolerance=0\.001, .* 0\.005.*clopper-pearson"):
        sequential_rule(0.001, n_available=n_available)


@pytest.mark.parametrize("confidence", [0, 1, 2.0])
@pytest.mark.parametrize("function", [sample_size, sequential_rule, anytime_rule])
def test_confidence_of_sizes_refused(function, confidence):
    with pytest.raises(ValueError, match=r"Got confidence=.*in \(0, 1\)"):
        function(0.1, confidence)


def test_bad_values_refused():
    with pytest.raises(ValueError, match=r"Got values from 0 to 2, but expected .*\[0.0, 1.0\]"):
        hoeffding([0, 2])
    with pytest.raises(ValueError, match=r"Got values of shape \(0,\)"):
        empirical_bernstein([])
    with pytest.raises(ValueError, match="Got values from nan"):
        hoeffding([np.nan])
    with pytest.raises(ValueError, match="Got n=1, but expected an integer of at least 2"):
        empirical_bernstein([0.5])
    with pytest.raises(ValueError, match=r"Got high=0\.0, but expected"):
        hoeffding([0.5], 1.0, 0.0)
    with pytest.raises(ValueError, match="Got bound='exact', but expected one of"):
        sample_size(0.1, bound="exact")
    with pytest.raises(ValueError, match=r"Got bound='anytime', but expected .*\[low, high\]"):
        sample_size(0.1, bound="anytime", high=2.0)
    with pytest.raises(ValueError, match="Got share=2, but expected"):
        sample_size(0.1, bound="clopper-pearson", share=2)
    with pytest.raises(ValueError, match="Got n_available=0, but expected"):
        sequential_rule(0.1, n_available=0)
