"""Intervals, against closed forms and exact coverage."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import betaln, xlog1py, xlogy
from scipy.stats import beta, binom

from skrobust.statistics import (
    Interval,
    beta_mixture,
    clopper_pearson,
    empirical_bernstein,
    hoeffding,
)


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


# ---- refusals --------------------


@pytest.mark.parametrize("make", [clopper_pearson, beta_mixture])
@pytest.mark.parametrize(
    ("n_successes", "n", "message"),
    [
        (None, 3, "Got n_successes=None, but expected an integer of at least 0"),
        (1.5, 3, r"Got n_successes=1\.5, but expected an integer"),
        (-1, 3, "Got n_successes=-1, but expected an integer of at least 0"),
        (4, 3, "Got n_successes=4, but expected at most n=3"),
        (1, None, "Got n=None, but expected an integer of at least 1"),
    ],
)
def test_bad_counts_refused(make, n_successes, n, message):
    with pytest.raises(ValueError, match=message):
        make(n_successes, n)
    assert make(np.int8(2), np.int64(3)) == make(2, 3)


@pytest.mark.parametrize("make", [hoeffding, empirical_bernstein])
@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([0, 2], r"Got values from 0 to 2, but expected .*\[0.0, 1.0\]"),
        ([], r"Got values of shape \(0,\)"),
        ([[0.5, 0.5]], r"Got values of shape \(1, 2\)"),
        (None, r"Got values of shape \(\)"),
        ([np.nan, 0.5], "Got values from nan"),
        (["a", "b"], r"Got values=\['a', 'b'\], but expected numbers"),
        ([0.5, 10**400], "Got values=.* but expected numbers"),
        ([0.5, 1j], "Got values=.* but expected numbers"),
        ([[0.5], [0.5, 0.5]], "Got values=.* but expected numbers"),
    ],
)
def test_bad_values_refused(make, values, message):
    with pytest.raises(ValueError, match=message):
        make(values)


def test_bernstein_needs_two_values():
    with pytest.raises(ValueError, match=r"Got values of shape \(1,\).*n >= 2"):
        empirical_bernstein([0.5])


@pytest.mark.parametrize(
    ("low", "high", "message"),
    [
        (1.0, 0.0, r"Got high=0\.0, but expected"),
        (0.0, np.inf, "Got high=inf, but expected a finite number"),
        (None, 1.0, "Got low=None, but expected a finite number"),
        (-1.7e308, 1.7e308, r"Got high=1\.7e\+308, but expected a number at a finite distance"),
    ],
)
def test_bad_range_refused(low, high, message):
    with pytest.raises(ValueError, match=message):
        hoeffding([0.5], low, high)


# ---- weights ---------------------------------------------------------------------------------


def test_equal_weights_change_nothing():
    values = np.linspace(0, 1, 30)
    plain, weighted = hoeffding(values), hoeffding(values, weights=np.full(30, 7.0))
    assert weighted.low == pytest.approx(plain.low) and weighted.high == pytest.approx(plain.high)
    assert (plain.method, weighted.method) == ("hoeffding", "weighted hoeffding")


def test_weighted_interval_by_hand():
    """Weights 3 and 1: effective number 16 / 10."""
    interval = hoeffding([0.0, 4.0], 0.0, 100.0, weights=[3, 1], confidence=0.9)
    assert interval.high == pytest.approx(1 + 100 * np.sqrt(np.log(20) / (2 * 1.6)))
    assert interval.low == 0.0


def test_weighted_interval_covers_as_often_as_it_says():
    rng = np.random.default_rng(0)
    weights = rng.exponential(size=40) ** 2
    draws = rng.random((500, 40)) < 0.5
    intervals = [hoeffding(each, confidence=0.8, weights=weights) for each in draws]
    assert np.mean([i.low <= 0.5 <= i.high for i in intervals]) >= 0.8


@pytest.mark.parametrize("weights", [[1.0], [1, -1], [0, 0], [np.inf, 1], "ab", None])
def test_odd_weights_are_refused_but_none(weights):
    if weights is None:
        assert hoeffding([0.0, 1.0], weights=None) == hoeffding([0.0, 1.0])
        return
    with pytest.raises(ValueError, match="Got weights"):
        hoeffding([0.0, 1.0], weights=weights)
