"""The integral over radii: weights, transforms, and the interval of a ratio."""

import numpy as np
import pytest
from scipy.stats import norm

from skrobust.scorers._radii import (
    TRANSFORMS,
    WEIGHTS,
    check_radii,
    score_interval,
    transformed,
    weights_of,
)
from skrobust.statistics import hoeffding

ROWS = np.zeros((3, 2))


@pytest.mark.parametrize("radii", [0.1, np.float32(0.1), [0.1, 0.2], np.array([1, 2]), (3,)])
def test_radii_become_float64(radii):
    checked = check_radii("epsilons", radii)
    assert checked.dtype == np.float64
    assert checked.tolist() == np.atleast_1d(radii).tolist()


NOT_RADII = [
    *[0, -1.0, np.nan, np.inf, [], [0.1, 0.1], [0.2, 0.1], [[0.1]], [[0.1], [0.1, 0.2]]],
    *["0.1", None, [None], True, 1j, {"a": 1}, object()],
]


@pytest.mark.parametrize("radii", NOT_RADII)
def test_radii_that_are_none(radii):
    with pytest.raises(ValueError, match=r"Got sigma=.*but expected a positive number, or an arr"):
        check_radii("sigma", radii)


def test_weights_integrate_constants_and_lines():
    epsilons = np.array([0.1, 0.3, 0.7])
    assert WEIGHTS["radii"](epsilons).tolist() == [0, 1, 1, 1]
    # The trapezoidal rule is exact for a constant and for a line, from 0 to 0.7.
    uniform = WEIGHTS["uniform"](epsilons)
    assert uniform.sum() == pytest.approx(0.7)
    assert uniform @ np.r_[0, epsilons] == pytest.approx(0.7**2 / 2)
    # The integral of epsilon * (1 / epsilon) from 0.1 to 0.7.
    inverse = WEIGHTS["inverse"](epsilons)
    assert inverse[0] == 0 and inverse[1:] @ epsilons == pytest.approx(0.6)
    assert WEIGHTS["inverse"](np.array([0.5])).tolist() == [0, 2]


def test_a_density_for_all_samples_is_one_for_each():
    epsilons = np.array([0.1, 0.2])
    same = weights_of(lambda X, e: 1 / e, ROWS, epsilons)
    np.testing.assert_allclose(same, weights_of("inverse", ROWS, epsilons))
    each = weights_of(lambda X, e: np.outer([1.0, 2.0, 3.0], 1 / e), ROWS, epsilons)
    np.testing.assert_allclose(each, same * [[1], [2], [3]])


def test_transforms_do_not_fall():
    p = np.linspace(0, 1, 101)
    for name in TRANSFORMS:
        worth = transformed(name, p)
        assert (np.diff(worth) >= 0).all() and worth[-1] == 1
    assert transformed(np.square, p).tolist() == (p**2).tolist()


def test_interval_of_a_ratio():
    totals = np.array([1.0, 1.0, 1.0, 1.0])
    integrals = np.array([0.5, 1.0, 0.0, 1.0])
    assert score_interval(integrals, totals, 0.625, 0.9) == hoeffding(integrals, confidence=0.9)
    totals = np.array([1.0, 2.0, 3.0, 4.0])
    integrals = np.array([1.0, 0.0, 3.0, 2.0])
    # By hand: residuals 0.4, -1.2, 1.2, -0.4 around the ratio 0.6, and a mean weight of 2.5.
    half = norm.ppf(0.95) * np.sqrt(0.8) / (2.5 * 2)
    interval = score_interval(integrals, totals, 0.6, 0.9)
    assert interval.method == "normal, approximate"
    assert (interval.low, interval.high) == pytest.approx((0.6 - half, 0.6 + half))
