"""Intervals against the quantiles that define them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import beta, binom

from skrobust.statistics import Interval, clopper_pearson


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
