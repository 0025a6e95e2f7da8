"""The hypervolume is the volume of a union of boxes."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skrobust.model_selection._hypervolume import hypervolume


def by_inclusion_and_exclusion(points, reference):
    """Sum over subsets of the volume that all of their boxes have in common."""
    total = 0.0
    for size in range(1, len(points) + 1):
        for subset in combinations(points, size):
            corner = np.min(subset, axis=0)
            total -= (-1) ** size * np.prod(np.maximum(corner - reference, 0.0))
    return total


def test_two_boxes_by_hand():
    points = np.array([[0.9, 0.3], [0.8, 0.5]])
    assert hypervolume(points, np.zeros(2)) == pytest.approx(0.9 * 0.3 + 0.8 * 0.2)
    assert hypervolume(points, np.array([0.8, 0.1])) == pytest.approx(0.1 * 0.2)
    assert hypervolume(points, np.array([0.9, 0.0])) == 0
    assert hypervolume(points[:0], np.zeros(2)) == 0
    assert hypervolume(np.array([[3.0], [2.0]]), np.array([1.0])) == 2


def test_three_boxes_that_cross_by_hand():
    """Each is 2 x 2 x 1; any two share 2 x 1 x 1, and all three the unit cube."""
    points = np.array([[2.0, 2, 1], [2, 1, 2], [1, 2, 2]])
    assert hypervolume(points, np.zeros(3)) == pytest.approx(3 * 4 - 3 * 2 + 1)


grids = st.integers(1, 4).flatmap(
    lambda d: st.tuples(
        st.lists(st.tuples(*[st.integers(-2, 5)] * d), max_size=6),
        st.tuples(*[st.integers(-3, 2)] * d),
    )
)


@given(grids)
@settings(max_examples=80, deadline=None)
def test_agrees_with_inclusion_and_exclusion(given):
    points, reference = given
    reference = np.array(reference, dtype=float)
    points = np.array(points, dtype=float).reshape(-1, len(reference))
    volume = hypervolume(points, reference)
    assert volume == pytest.approx(by_inclusion_and_exclusion(points, reference))
    shuffled = np.random.default_rng(0).permutation(points)
    assert hypervolume(shuffled, reference) == pytest.approx(volume)
