"""Tests of skrobust.pointwise._program against scipy.optimize.linprog."""

import numpy as np
import pytest
from scipy.optimize import linprog

from skrobust.pointwise._program import BoxProgram


def reference(A, b, low, high):
    m, n = A.shape
    rows = np.block(
        [[-A, np.zeros((m, 1))], [np.eye(n), -np.ones((n, 1))], [-np.eye(n), -np.ones((n, 1))]]
    )
    right = np.concatenate([-b, np.zeros(2 * n)])
    cost = np.append(np.zeros(n), 1.0)
    return linprog(cost, A_ub=rows, b_ub=right, bounds=[*zip(low, high, strict=True), (0, None)])


def instance(seed, n, m, kind):
    rng = np.random.default_rng(seed)
    A = rng.normal(size=(m, n))
    b = -0.3 * rng.exponential(size=m)
    b[0] = rng.exponential()
    low, high = -rng.random(n), rng.random(n)
    if kind == "degenerate":
        A, b = np.round(A), np.round(2 * b) / 2
    if kind == "fixed":
        low[::3] = high[::3] = 0.0
    if kind == "one-sided":
        low[::2] = 0.0
    return A, b, low, high


@pytest.mark.parametrize("kind", ["plain", "degenerate", "fixed", "one-sided"])
@pytest.mark.parametrize(("n", "m"), [(1, 3), (4, 6), (11, 14), (60, 30)])
def test_agrees_with_linprog_whatever_the_order_of_rows(kind, n, m):
    for seed in range(12):
        A, b, low, high = instance(seed, n, m, kind)
        program = BoxProgram(low, high)
        for start in range(0, m, 4):
            program.add(A[start : start + 4], b[start : start + 4])
            status = program.solve()
            if status != "optimal":
                break
        expected = reference(A, b, low, high)
        if expected.status == 2:
            assert status == "infeasible"
            assert program.bound() == np.inf
            continue
        assert status == "optimal"
        assert program.radius == pytest.approx(expected.fun, abs=1e-9)
        assert program.bound() == pytest.approx(program.radius, abs=1e-9)
        assert np.abs(program.point).max() <= program.radius + 1e-9
        assert (A @ program.point >= b - 1e-8).all()
        assert (program.point >= low - 1e-9).all() and (program.point <= high + 1e-9).all()


def test_hand_worked():
    # x + y >= 1 alone: (1/2, 1/2). With x - y >= 1/2 as well: (3/4, 1/4).
    program = BoxProgram([-1.0, -1.0], [1.0, 1.0])
    program.add(np.array([[1.0, 1.0]]), np.array([1.0]))
    assert program.solve() == "optimal"
    assert program.radius == 0.5
    program.add(np.array([[1.0, -1.0]]), np.array([0.5]))
    assert program.solve() == "optimal"
    np.testing.assert_allclose(program.point, [0.75, 0.25])
    assert program.radius == pytest.approx(0.75)
    program.change(0, 1.25)
    assert program.solve() == "optimal"
    np.testing.assert_allclose(program.point, [0.875, 0.375])
    # -x >= -1/4 contradicts them.
    program.add(np.array([[-1.0, 0.0]]), np.array([-0.25]))
    assert program.solve() == "infeasible"


def test_stops_at_the_limit():
    program = BoxProgram(-np.ones(3), np.ones(3))
    program.add(np.ones((1, 3)), np.array([1.5]))
    assert program.solve(limit=0.4) == "limit"
    assert 0.4 < program.radius <= 0.5 + 1e-12


def test_nothing_to_do_where_the_centre_satisfies_all_rows():
    program = BoxProgram(-np.ones(2), np.ones(2))
    program.add(np.ones((1, 2)), np.array([-0.1]))
    assert program.solve() == "optimal"
    assert program.radius == program.bound() == 0.0
