"""Balls of the checker: sides that differ, and which points are valid."""

from fractions import Fraction

import numpy as np
import pytest

from skrobust.evidence._ball_rules import Ball, Valid, sides_of
from skrobust.evidence._rules import Rejected
from tests.evidence._examples import claim, network, ramp
from tests.evidence.test_checker import BOTH, why

PLANE = network(([[1.0, 0.0], [0.0, 1.0]], [0.0, 0.0]))
WIDE = {"domain_low": np.full(2, -np.inf), "domain_high": np.full(2, np.inf)}


def uneven(norm="linf", down=(1.0, 0.0), up=(0.5, 2.0), **entries):
    """Return a claim x_1 + 1.01 >= 0 around 0, where features may fall and rise differently."""
    sides = np.array([down, up])
    ends = {"lower": -sides[0] * (1 + 1e-9), "upper": sides[1] * (1 + 1e-9)}
    arrays = claim([[1.0, 0.0]], [1.01], n=2, norm=norm, **entries)
    return arrays | ends | {"epsilon": sides}


@BOTH
def test_sides_that_differ(exact):
    assert why(uneven(), PLANE, exact) is None
    narrow = uneven() | {"lower": np.array([-0.5, 0.0])}
    assert "leaves out" in why(narrow, PLANE, exact)
    # At most 0.5 upwards, and at least 0 in the second feature.
    assert why(uneven() | {"A": np.array([[-1.0, 0.0]]), "b": np.array([0.51])}, PLANE) is None
    assert why(uneven() | {"A": np.array([[-1.0, 0.0]]), "b": np.array([0.49])}, PLANE)
    assert why(uneven() | {"A": np.array([[0.0, 1.0]]), "b": np.array([1e-9])}, PLANE) is None


@BOTH
@pytest.mark.parametrize(
    ("point", "is_in"),
    [((-1.0, 0.0), True), ((-1.5, 0.0), False), ((0.5, 2.0), True), ((0.75, 0.0), False),
     ((0.0, -0.5), False)],
)  # fmt: skip
def test_points_keep_to_their_sides(point, is_in, exact):
    arrays = uneven(verdict="falsified", point=point) | {"b": np.array([-5.0])}
    assert (why(arrays, PLANE, exact) is None) == is_in


def test_ellipsoids_have_the_larger_side():
    ball = Ball(uneven("l2", up=(0.5, 2.0)) | WIDE, "l2", 2)
    assert ball.epsilon.tolist() == [1.0, 2.0]
    assert ball.holds(np.array([-0.5, 1.6]))
    assert not ball.holds(np.array([-0.6, 1.7]))
    assert not ball.holds(np.array([0.6, 0.0]))  # within the ellipsoid, beyond the side
    assert ball.holds(np.array([0.5, 0.5]))


def test_sides_are_given_for_all_features():
    for epsilon in ([[1.0, 2.0]], [1.0], [[1.0], [2.0]], [[1.0, 2.0], [1.0, -2.0]], 1.0):
        with pytest.raises(Rejected, match="epsilon"):
            sides_of({"epsilon": np.array(epsilon)}, 2)
    assert sides_of({"epsilon": np.array([1.0, 2.0])}, 2).tolist() == [[1.0, 2.0]] * 2
    assert "epsilon" in why({k: v for k, v in uneven().items() if k != "epsilon"}, PLANE)


# -- valid points --

DOMAIN = {
    "integers": np.array([0]),
    "group": np.array([0, 1, 1, 0]),
    "domain_A": np.array([[1.0, 0.0, 0.0, 3.0]]),
    "domain_b": np.array([2.0]),
}


@pytest.mark.parametrize(
    ("point", "is_valid"),
    [
        ([1.0, 0.0, 1.0, 1 / 3], True),
        ([1.0, 0.0, 1.0, np.nextafter(1 / 3, 1)], False),  # 3 / 3 + 2^-53: exact sums tell
        ([1.5, 0.0, 1.0, 0.0], False),
        ([1.0, 1.0, 1.0, 0.0], False),
        ([1.0, 0.5, 0.5, 0.0], False),
        ([1.0, 0.0, 0.0, 0.0], False),
        ([-7.0, 1.0, 0.0, 3.0], True),
    ],
)
def test_valid_points(point, is_valid):
    center = np.array([0.0, 1.0, 0.0, 0.0])
    assert Valid(DOMAIN, center).holds(np.array(point)) == is_valid
    assert Valid({}, center).holds(np.array(point))


def test_a_center_beyond_a_constraint_widens_it():
    center = np.array([1.0, 1.0, 0.0, 0.5])  # 2.5
    valid = Valid(DOMAIN, center)
    assert valid.holds(center)
    assert valid.holds(np.array([-1.0, 1.0, 0.0, 1.0]))
    assert not valid.holds(np.array([0.0, 1.0, 0.0, 0.875]))
    assert Fraction(3) * Fraction(0.875) > Fraction(2.5)


@BOTH
def test_counterexamples_are_valid_points(exact):
    arrays = claim([[1.0]], [-0.5], verdict="falsified", point=[0.25])
    assert why(arrays, ramp(), exact) is None
    whole = arrays | {"integers": np.array([0])}
    assert "outside" in why(whole, ramp(), exact)
    assert why(whole | {"point": np.array([0.0])}, ramp(), exact) is None
    # A proof over the box is one for the valid points in it.
    assert why(claim([[1.0]], [0.1]) | {"integers": np.array([0])}, ramp(), exact) is None


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"integers": [4]}, "integers"),
        ({"integers": [0.5]}, "integers"),
        ({"group": [0, 1]}, "group"),
        ({"group": [0, -1, 0, 0]}, "group"),
        ({"domain_A": [[1.0]]}, "domain_A"),
        ({"domain_b": [[1.0]]}, "domain_b"),
        ({"domain_b": [np.nan]}, "domain_b"),
    ],
)
def test_malformed_domains(change, word):
    arrays = DOMAIN | {name: np.array(part) for name, part in change.items()}
    with pytest.raises(Rejected, match=word):
        Valid(arrays, np.zeros(4))
