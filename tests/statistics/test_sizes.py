"""Sample sizes, against closed forms and the intervals themselves."""

import numpy as np
import pytest

from skrobust.statistics import (
    attainable_tolerance,
    beta_mixture,
    clopper_pearson,
    empirical_bernstein,
    sample_size,
)


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


def test_least_sample_is_taken_though_a_larger_one_does_not_do():
    # 26.6 and 28.5 of 28 and 30 are 27 and 28 whole successes: the width is not monotone in n.
    n = sample_size(0.08, 0.9, bound="clopper-pearson", share=0.95)
    intervals = {m: clopper_pearson(round(0.95 * m), m, 0.9) for m in range(1, 41)}
    fits = [m for m, interval in intervals.items() if interval.high - interval.low <= 0.16]
    assert n == fits[0] == 28
    assert fits == [28, 29, *range(35, 41)]


# ---- refusals --------------------


@pytest.mark.parametrize("tolerance", [0, 1, -0.1, np.nan, "0.1"])
def test_tolerance_refused(tolerance):
    with pytest.raises(ValueError, match=r"Got tolerance=.*in \(0, 1"):
        sample_size(tolerance)


@pytest.mark.parametrize("bound", ["hoeffding", "clopper-pearson", "bernstein", "anytime"])
def test_tolerance_too_fine_for_any_sample_refused(bound):
    with pytest.raises(ValueError, match=r"Got tolerance=1e-300, but expected at least 1e-07"):
        sample_size(1e-300, bound=bound)


@pytest.mark.parametrize("confidence", [0, 1, 2.0, None])
@pytest.mark.parametrize("function", [sample_size, attainable_tolerance])
def test_confidence_refused(function, confidence):
    with pytest.raises(ValueError, match=r"Got confidence=.*in \(0, 1\)"):
        function(1 if function is attainable_tolerance else 0.1, confidence)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"bound": "exact"}, "Got bound='exact', but expected one of"),
        ({"bound": "anytime", "high": 2.0}, r"Got bound='anytime', but expected .*\[low, high\]"),
        ({"bound": "clopper-pearson", "share": 2}, "Got share=2, but expected"),
        ({"low": 1.0, "high": 0.0}, r"Got high=0\.0, but expected"),
    ],
)
def test_bad_parameters_refused(params, message):
    with pytest.raises(ValueError, match=message):
        sample_size(0.1, **params)


@pytest.mark.parametrize("n", [0, None, 1.5])
def test_no_samples_refused(n):
    with pytest.raises(ValueError, match=r"Got n=.* but expected an integer of at least 1"):
        attainable_tolerance(n)
