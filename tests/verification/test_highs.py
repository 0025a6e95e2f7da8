"""Programs for HiGHS: their minima are those of a grid, for every kind of unit, in every part."""

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from torch import nn

from skrobust.bounds import relax
from skrobust.graphs import read_graph
from skrobust.properties import ClassificationRobustness
from skrobust.verification._base import Stopwatch
from skrobust.verification._highs import Program
from skrobust.verification._program import AffineMaps
from skrobust.verification._result import Reason
from tests._modules import build
from tests.verification._nets import KINDS, box, grid_of

ROW = np.array([1.0, -1.0])


def case(name, seed=0, **options):
    """Return a program, the least value of the row on a grid, and where it is computed."""
    graph, relaxation = box(activation=KINDS[name], seed=seed, epsilon=1.0, **options)
    grid = grid_of(relaxation.ball)
    values = graph(grid).numpy() @ ROW
    return graph, relaxation, grid, values


each_kind = pytest.mark.parametrize("name", ["relu", "steep", "abs", "clamp"])


@each_kind
@pytest.mark.parametrize("seed", range(4))
def test_the_sign_of_a_row_is_that_of_its_minimum(name, seed):
    graph, relaxation, _, values = case(name, seed)
    program = Program(AffineMaps(graph), relaxation)
    # Shifted by a little more than the least value no point is below 0, by less some are.
    for shift, reason in ((0.05, Reason.PROVED), (-0.05, Reason.COUNTEREXAMPLE)):
        minimum = program.minimize(ROW, 0.0, -values.min() + shift)
        assert minimum.reason is reason
    at = graph(torch.as_tensor(minimum.point)[None]).numpy() @ ROW
    assert at[0] - values.min() - 0.05 < 0
    ball = relaxation.ball
    assert (ball.lower[0].numpy() - 1e-9 <= minimum.point).all()
    assert (minimum.point <= ball.upper[0].numpy() + 1e-9).all()


@each_kind
@pytest.mark.parametrize("seed", range(4))
def test_without_a_decision_the_point_is_where_the_row_is_least(name, seed):
    graph, relaxation, grid, values = case(name, seed)
    minimum = Program(AffineMaps(graph), relaxation).minimize(ROW, 0.0, 0.0, decide=False)
    at = graph(torch.as_tensor(minimum.point)[None]).numpy() @ ROW
    assert at[0] <= values.min() + 1e-6
    # No descent from the grid's best point comes lower.
    ends = (relaxation.ball.lower[0].tolist(), relaxation.ball.upper[0].tolist())
    best = minimize(
        lambda x: float((graph(torch.as_tensor(x)[None]).numpy() @ ROW)[0]),
        grid[values.argmin()].numpy(),
        method="Nelder-Mead",
        bounds=list(zip(*ends, strict=True)),
    )
    assert at[0] == pytest.approx(best.fun, abs=1e-4)


@each_kind
def test_triangles_give_a_bound_that_is_below(name):
    graph, relaxation, _, values = case(name)
    loose = Program(AffineMaps(graph), relaxation, integer=False)
    minimum = loose.minimize(ROW, 0.0, 0.0, decide=False)
    assert np.isfinite(minimum.lower) and minimum.lower <= values.min()
    whole = Program(AffineMaps(graph), relaxation)
    has_units = any(lines.open.any() for lines in relaxation.lines.values())
    assert has_units and np.concatenate(whole.kinds).any()
    assert not np.concatenate(loose.kinds).any()


def test_restricted_units_leave_the_rest_of_the_box():
    graph, relaxation, grid, values = case("relu")
    j = graph.nodes[graph.piecewise[0]].inputs[0]
    reached = set()
    for unit in range(3):
        before = graph.values(grid)[j][:, unit].numpy()
        for sign in (1.0, -1.0):
            part = values[sign * before >= 0]
            program = Program(AffineMaps(graph), relaxation)
            program.restrict(j, np.array([unit]), np.array([sign]))
            minimum = program.minimize(ROW, 0.0, 0.0, decide=False)
            if len(part) == 0:
                assert minimum.reason is Reason.PROVED  # no point at all
                continue
            at = torch.as_tensor(minimum.point)[None]
            assert sign * graph.values(at)[j][0, unit] >= -1e-7
            value = (graph(at).numpy() @ ROW)[0]
            assert part.min() - 0.05 <= value <= part.min() + 1e-6
            reached.add(sign)
    assert reached == {1.0, -1.0}


def test_halves_of_the_outputs_share_the_minimum():
    graph, relaxation, _, values = case("relu")
    program = Program(AffineMaps(graph), relaxation)
    n_rows = len(program.rows)
    limit = float(np.median(values))
    below, above = program.cut(ROW, 0.25, limit + 0.25)
    assert len(program.rows) == n_rows  # its own rows stay
    low, high = (half.minimize(ROW, 0.0, 0.0, decide=False).point for half in (below, above))
    value = [(graph(torch.as_tensor(p)[None]).numpy() @ ROW)[0] for p in (low, high)]
    assert value[0] == pytest.approx(values.min(), abs=0.05)
    assert value[1] == pytest.approx(limit, abs=1e-6)


def test_the_distance_is_at_least_the_inner_radius():
    # L d - change: with d >= nearest, the least value is that of the grid outside of the ball.
    graph, relaxation, grid, values = case("relu")
    distance = (grid - relaxation.ball.center).abs().amax(dim=1).numpy()
    lipschitz, nearest = 1.5, 0.5
    expected = (values + lipschitz * np.maximum(distance, nearest)).min()
    program = Program(AffineMaps(graph), relaxation, nearest=nearest)
    for shift, reason in ((0.05, Reason.PROVED), (-0.05, Reason.COUNTEREXAMPLE)):
        assert program.minimize(ROW, lipschitz, shift - expected).reason is reason


def test_no_time_is_no_answer():
    graph, relaxation, _, values = case("relu", hidden=40)
    minimum = Program(AffineMaps(graph), relaxation).minimize(
        ROW, 0.0, -values.min() + 1e-4, watch=Stopwatch(0.0)
    )
    assert minimum.reason in (Reason.TIME_OUT, Reason.SOLVER_ERROR)
    assert minimum.point is None and minimum.lower == -np.inf


def test_pools_are_programs_too():
    pool = [nn.Unflatten(1, (1, 6)), nn.MaxPool1d(3, 2, 1), nn.Flatten()]
    module = build(lambda: nn.Sequential(nn.Linear(2, 6), *pool, nn.Linear(3, 2))).double()
    graph, x = read_graph(module, 2), torch.tensor([[0.4, 0.6]]).double()
    relaxation = relax(graph, ClassificationRobustness(1.0, bounds=None).outer_ball(x))
    values = graph(grid_of(relaxation.ball)).numpy() @ ROW
    program = Program(AffineMaps(graph), relaxation)
    for shift, reason in ((0.02, Reason.PROVED), (-0.02, Reason.COUNTEREXAMPLE)):
        assert program.minimize(ROW, 0.0, -values.min() + shift).reason is reason
