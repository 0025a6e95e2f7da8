"""Rows of many programs in one array: room is made without touching what is there; and sums."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import brentq

from skrobust.pointwise._simplex_rows import Rows, dots, ranks, roots


def test_places_without_a_row_say_nothing():
    rows = Rows(3, 2)
    assert rows.A.shape[0] == 3 and rows.A.shape[2] == 2
    # 0 >= -1 holds everywhere.
    assert (rows.A == 0).all() and (rows.b == -1).all() and (rows.scale == 1).all()
    assert [used.shape for used in rows.used] == [(0, 2)] * 3


def test_wider_rows_keep_what_is_stored():
    rows, rng = Rows(2, 3), np.random.default_rng(0)
    for k, n in enumerate((4, 1)):
        rows.used[k] = rows.A[k, :n]
        rows.used[k][:] = rng.normal(size=(n, 3))
        rows.b[k, :n], rows.scale[k, :n] = rng.normal(size=n), rng.random(n)
    before = [rows.A.copy(), rows.b.copy(), rows.scale.copy()]
    old = rows.A.shape[1]
    rows.widen(2 * old)
    for name, values in zip(("A", "b", "scale"), before, strict=True):
        stored = getattr(rows, name)
        assert stored.shape[:2] == (2, 2 * old)
        np.testing.assert_array_equal(stored[:, :old], values)
    assert (rows.A[:, old:] == 0).all() and (rows.b[:, old:] == -1).all()
    assert (rows.scale[:, old:] == 1).all()
    # The used parts are views of the new array, not of the old one.
    for k, n in enumerate((4, 1)):
        assert np.shares_memory(rows.used[k], rows.A) and rows.used[k].shape == (n, 3)
        rows.used[k][0, 0] = 7.0
        assert rows.A[k, 0, 0] == 7.0


@given(st.lists(st.integers(0, 5), max_size=40))
def test_ranks_count_the_entries_before_of_the_same_group(groups):
    groups = sorted(groups)
    expected = [groups[:i].count(group) for i, group in enumerate(groups)]
    assert ranks(np.array(groups, dtype=int), 6).tolist() == expected


def test_dots_are_inner_products_of_rows():
    a, b = np.random.default_rng(0).normal(size=(2, 5, 3))
    np.testing.assert_allclose(dots(a, b), np.einsum("ij,ij->i", a, b), rtol=1e-14)


@pytest.mark.parametrize("seed", range(5))
def test_roots_are_those_of_bisection(seed):
    rng = np.random.default_rng(seed)
    size, reach = rng.random((6, 8)), rng.random((6, 8))
    wanted = 0.7 * dots(size, reach)

    def gap(e, k):
        return size[k] @ np.minimum(e, reach[k]) - wanted[k]

    radius, sizes = roots(size, reach, wanted, np.zeros(6))
    expected = [brentq(gap, 0, 1, args=(k,), xtol=1e-14) for k in range(6)]
    np.testing.assert_allclose(radius, expected, rtol=1e-9)
    np.testing.assert_allclose(sizes, np.minimum(radius[:, None], reach))


def test_roots_by_hand():
    size, reach = np.ones((4, 2)), np.array([[1.0, 3.0]] * 4)
    # min(e, 1) + min(e, 3): 1 at 1/2, 3 at 2; it never passes 4; and it starts behind 1 / 2.
    start, is_open = np.array([0.0, 0.0, 0.0, 2.5]), np.array([True, True, True, True])
    radius, _ = roots(size, reach, np.array([1.0, 3.0, 5.0, 1.0]), start, is_open)
    np.testing.assert_allclose(radius, [0.5, 2.0, np.inf, 2.5])
    stays, _ = roots(size, reach, np.full(4, 3.0), np.zeros(4), np.array([True, False] * 2))
    np.testing.assert_allclose(stays, [2.0, 0.0, 2.0, 0.0])
