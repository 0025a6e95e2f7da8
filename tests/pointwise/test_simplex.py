"""The batched dual simplex against scipy.optimize.linprog."""

import numpy as np
import pytest
from scipy.optimize import linprog

from skrobust.pointwise._simplex import INFEASIBLE, LIMIT, OPTIMAL, BoxPrograms


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


def one(low, high):
    return BoxPrograms.empty(np.array([low]), np.array([high]))


def add(program, A, b):
    return program.add(np.zeros(len(b), dtype=int), np.asarray(A, float), np.asarray(b, float))


@pytest.mark.parametrize("kind", ["plain", "degenerate", "fixed", "one-sided"])
@pytest.mark.parametrize(("n", "m"), [(1, 3), (4, 6), (11, 14), (60, 30)])
def test_all_programs_together_agree_with_linprog_whatever_the_order_of_rows(kind, n, m):
    instances = [instance(seed, n, m, kind) for seed in range(12)]
    low, high = (np.array([case[i] for case in instances]) for i in (2, 3))
    programs = BoxPrograms.empty(low, high)
    for start in range(0, m, 4):
        for k, (A, b, _, _) in enumerate(instances):
            part = A[start : start + 4]
            programs.add(np.full(len(part), k), part, b[start : start + 4])
        programs.solve()
    bounds = programs.bound()
    for k, (A, b, low, high) in enumerate(instances):
        expected = reference(A, b, low, high)
        if expected.status == 2:
            assert programs.status[k] == INFEASIBLE
            assert bounds[k] == np.inf
            continue
        assert programs.status[k] == OPTIMAL
        radius, point = programs.radius[k], programs.point[k]
        assert radius == pytest.approx(expected.fun, abs=1e-9)
        assert bounds[k] == pytest.approx(radius, abs=1e-9)
        assert np.abs(point).max() <= radius + 1e-9
        assert (A @ point >= b - 1e-8).all()
        assert (point >= low - 1e-9).all() and (point <= high + 1e-9).all()


def test_hand_worked():
    # x + y >= 1 alone: (1/2, 1/2). With x - y >= 1/2 as well: (3/4, 1/4).
    program = one([-1.0, -1.0], [1.0, 1.0])
    add(program, [[1.0, 1.0]], [1.0])
    program.solve()
    assert program.status[0] == OPTIMAL
    assert program.radius[0] == 0.5
    add(program, [[1.0, -1.0]], [0.5])
    program.solve()
    np.testing.assert_allclose(program.point[0], [0.75, 0.25])
    assert program.radius[0] == pytest.approx(0.75)
    program.change(np.array([0]), np.array([0]), np.array([1.25]))
    program.solve()
    np.testing.assert_allclose(program.point[0], [0.875, 0.375])
    # -x >= -1/4 contradicts them.
    add(program, [[-1.0, 0.0]], [-0.25])
    program.solve()
    assert program.status[0] == INFEASIBLE


def test_stops_at_the_limit():
    program = one(-np.ones(3), np.ones(3))
    add(program, np.ones((1, 3)), [1.5])
    program.solve(limit=0.4)
    assert program.status[0] == LIMIT
    assert 0.4 < program.radius[0] <= 0.5 + 1e-12


def test_nothing_to_do_where_the_center_satisfies_all_rows():
    program = one(-np.ones(2), np.ones(2))
    add(program, np.ones((1, 2)), [-0.1])
    program.solve()
    assert program.status[0] == OPTIMAL
    assert program.radius[0] == program.bound()[0] == 0.0


def test_parts_can_be_taken_out_and_put_back():
    cases = [instance(seed, 9, 8, "plain") for seed in range(4)]
    programs = BoxPrograms.empty(np.array([c[2] for c in cases]), np.array([c[3] for c in cases]))
    for k, (A, b, _, _) in enumerate(cases):
        programs.add(np.full(8, k), A, b)
    part = programs[np.array([1, 3])]
    programs.solve()
    part.solve()
    np.testing.assert_array_equal(part.radius, programs.radius[[1, 3]])
    A, b, _, _ = cases[1]
    part.add(np.zeros(20, dtype=int), np.tile(A, (3, 1))[:20], np.full(20, -5.0))
    programs.put(np.array([1, 3]), part, slice(None))
    programs.solve()
    assert programs.n_rows.tolist() == [8, 28, 8, 8]
    np.testing.assert_allclose(programs.radius[[1, 3]], part.radius, atol=1e-12)
