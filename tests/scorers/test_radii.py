"""The integral over radii: weights, transforms, and the interval of the mean."""

import numpy as np
import pytest
from scipy.stats import norm

from skrobust.scorers._radii import (
    TRANSFORMS,
    WEIGHTS,
    check_radii,
    diameter,
    even_radii,
    mean_interval,
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
    assert WEIGHTS["radii"](epsilons) == pytest.approx([0, 1 / 3, 1 / 3, 1 / 3])
    for name in ("density", "constant"):
        # The trapezoidal rule is exact for a constant and for a line, from 0 to 0.7.
        weights = WEIGHTS[name](epsilons)
        assert weights.sum() == pytest.approx(0.7)
        assert weights @ np.r_[0, epsilons] == pytest.approx(0.7**2 / 2)
    # Equation 9: the plain mean of 1 / epsilon, such as (1 + 1/2 + 1/4) / 3.
    assert WEIGHTS["inverse"](np.array([1.0, 2.0, 4.0])).sum() == pytest.approx(0.58333, abs=1e-5)


def test_the_diameter_is_that_of_the_bounds():
    assert diameter("epsilons", None, (0.0, 1.0), "l2", 9) == 3
    assert diameter("epsilons", None, (0.0, 2.0), "linf", 9) == 2
    ends = np.zeros(2), np.array([3.0, 4.0])
    assert diameter("epsilons", None, ends, "l2", 2) == 5
    for bounds in (None, (0.0, np.inf), (np.zeros(2), np.zeros(2))):
        with pytest.raises(ValueError, match="Got epsilons=None, but expected a number, since bo"):
            diameter("epsilons", None, bounds, "l2", 2)


def test_even_radii_rise_to_the_largest():
    assert even_radii(3.0, 4) == pytest.approx([0.75, 1.5, 2.25, 3.0])
    assert check_radii("epsilons", even_radii(28.0)).shape == (20,)


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


def test_interval_of_the_mean():
    totals = np.full(4, 2.0)
    values = np.array([0.5, 2.0, 0.0, 1.0])
    assert mean_interval(values, totals, 0.9) == hoeffding(values, 0.0, 2.0, 0.9)
    totals = np.array([1.0, 2.0, 3.0, 4.0])
    interval = mean_interval(values, totals, 0.9)
    half = norm.ppf(0.95) * values.std() / 2
    assert interval.method == "normal, approximate"
    assert (interval.low, interval.high) == pytest.approx((0.875 - half, 0.875 + half))
