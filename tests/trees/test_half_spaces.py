"""Points of boxes under linear constraints: found, or proved not to be there."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skrobust.trees import HalfSpaces


def test_one_constraint_in_closed_form():
    sums = HalfSpaces(np.array([[1.0, 1.0]]), np.array([1.0]))
    point, is_empty = sums.point_in(np.array([0.2, 0.3]), np.array([1.0, 1.0]))
    assert not is_empty and sums.hold(point[None])[0]
    assert (point >= [0.2, 0.3]).all()
    assert sums.point_in(np.array([0.6, 0.6]), np.array([1.0, 1.0])) == (None, True)


def test_constraints_that_exclude_each_other_inside_of_a_box():
    both = HalfSpaces(np.array([[1.0, 1.0], [1.0, -1.0]]), np.array([0.8, 0.1]))
    low, high = np.array([0.5, 0.0]), np.array([1.0, 1.0])
    for row in range(2):
        assert HalfSpaces(both.A[[row]], both.b[[row]]).point_in(low, high)[0] is not None
    assert both.point_in(low, high) == (None, True)


def test_what_rounding_may_hide_is_neither_found_empty_nor_proved():
    sums = HalfSpaces(np.array([[1.0, 1.0]]), np.array([1.0]))
    point, is_empty = sums.point_in(np.array([0.5, 0.5 + 1e-10]), np.ones(2))
    assert point is None and not is_empty


def test_equations_have_points():
    sums = HalfSpaces(np.array([[1.0, 2.0], [-1.0, -2.0]]), np.array([1.0, -1.0]))
    point, is_empty = sums.point_in(np.zeros(2), np.array([0.3, 1.0]))
    assert not is_empty
    assert point @ [1, 2] == pytest.approx(1.0)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_as_by_a_dense_grid(seed):
    rng = np.random.default_rng(seed)
    spaces = HalfSpaces(rng.normal(size=(3, 2)), rng.normal(scale=0.3, size=3))
    low, high = np.sort(rng.uniform(size=(2, 2)), axis=0)
    grid = np.stack(np.meshgrid(*np.linspace(low, high, 60).T), axis=-1).reshape(-1, 2)
    point, is_empty = spaces.point_in(low, high)
    assert (point is None) or (
        spaces.hold(point[None])[0] and (np.clip(point, low, high) == point).all()
    )
    assert not (is_empty and spaces.hold(grid).any())
    assert is_empty != (point is not None)  # one of them, where nothing touches
