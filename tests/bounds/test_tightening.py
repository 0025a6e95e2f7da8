"""Tightened intervals: the bounds of rows +z and -z, entry by entry, and contradictions."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from skrobust.bounds import crown, relax, tighten
from skrobust.graphs import read_graph
from skrobust.properties import ClassificationRobustness
from tests.bounds._cases import BALLS, build, centers, corners_and_samples, perceptron


def loose(property=BALLS[1].values[0]):
    """Return intervals that are only propagated, and what the second ReLU reads."""
    graph = read_graph(build(perceptron), 16)
    ball = property.outer_ball(centers())
    return relax(graph, ball, refine=False), graph.nodes[graph.piecewise[1]].inputs[0]


SAMPLE, UNIT = torch.tensor([0, 2, 2]), torch.tensor([1, 0, 5])


def test_domains_may_share_a_ball():
    """Branch and bound keeps one ball, and what no split has changed, for all of its domains."""
    whole, j = loose()
    shared, apart = whole[:1], whole[torch.tensor([0, 0, 0])]
    shared = replace(
        shared, lows=[*shared.lows], highs=[*shared.highs], empty=torch.zeros(3, dtype=torch.bool)
    )
    shared.lows[j] = apart.lows[j] = shared.lows[j].repeat(3, 1)
    shared.highs[j] = apart.highs[j] = shared.highs[j].repeat(3, 1)
    assert len(shared[1:].empty) == 2 and len(shared[1:].ball.center) == 1
    tighten(shared, j, SAMPLE, UNIT)
    tighten(apart, j, SAMPLE, UNIT)
    torch.testing.assert_close(shared.lows[j], apart.lows[j])
    torch.testing.assert_close(shared.highs[j], apart.highs[j])
    assert (shared.lows[j] > whole.lows[j][:1])[SAMPLE, UNIT].any()


@pytest.mark.parametrize("at_once", [1, 2**21])
def test_entries_become_the_bounds_of_their_rows(at_once, monkeypatch):
    monkeypatch.setattr("skrobust.bounds._tightening._BYTES", at_once)
    built, j = loose()
    low, high = built.lows[j].clone(), built.highs[j].clone()
    rows = torch.zeros(3, 2, 8, dtype=torch.float64)
    rows[range(3), 0, UNIT], rows[range(3), 1, UNIT] = 1.0, -1.0
    bound = crown(built, rows, j, sample=SAMPLE)
    tighten(built, j, SAMPLE, UNIT)
    torch.testing.assert_close(built.lows[j][SAMPLE, UNIT], bound[:, 0].fmax(low[SAMPLE, UNIT]))
    torch.testing.assert_close(
        built.highs[j][SAMPLE, UNIT], (-bound[:, 1]).fmin(high[SAMPLE, UNIT])
    )
    assert (built.highs[j] - built.lows[j] < high - low)[SAMPLE, UNIT].any()
    others = torch.ones(3, 8, dtype=torch.bool)
    others[SAMPLE, UNIT] = False
    assert torch.equal(built.lows[j][others], low[others])
    assert torch.equal(built.highs[j][others], high[others])
    assert not built.empty.any()


@pytest.mark.parametrize("n_steps", [0, 5])
def test_tightened_intervals_hold_and_gradients_only_help(n_steps):
    built, j = loose()
    plain, _ = loose()
    sample, unit = torch.ones(3, 8).nonzero(as_tuple=True)
    tighten(plain, j, sample, unit)
    tighten(built, j, sample, unit, n_steps)
    points = corners_and_samples(built.ball, 2_000)
    for k in range(3):
        values = built.graph.values(points[k])[j]
        assert (built.lows[j][k] <= values).all() and (values <= built.highs[j][k]).all()
    assert (built.lows[j] >= plain.lows[j] - 1e-12).all()
    if n_steps:
        assert (built.lows[j] > plain.lows[j] + 1e-6).any()


def test_nothing_is_tightened_when_time_is_up():
    built, j = loose()
    low = built.lows[j].clone()
    tighten(built, j, SAMPLE, UNIT, watch=SimpleNamespace(left=0))
    assert torch.equal(built.lows[j], low)


def test_what_contradicts_the_ball_is_marked_as_empty():
    built, j = loose()
    # Someone has claimed that this entry is larger than it can be in the second ball.
    built.lows[j][1, 3] = built.highs[j][1, 3] = 100.0
    tighten(built, j, torch.tensor([1]), torch.tensor([3]))
    assert built.empty.tolist() == [False, True, False]
    assert (built.lows[j] <= built.highs[j]).all()


def test_behind_affine_nodes_l2_balls_are_exact():
    # center -+ epsilon |w|, where the box around the ball would give epsilon |w|_1.
    layer = build(lambda: nn.Linear(16, 4)).double()
    graph = read_graph(nn.Sequential(layer, nn.ReLU(), nn.Linear(4, 2).double()), 16)
    x = centers().double()
    ball = ClassificationRobustness(0.2, norm="l2", bounds=None).outer_ball(x)
    relaxation = relax(graph, ball)
    reach = 0.2 * layer.weight.norm(dim=1)
    torch.testing.assert_close(relaxation.lows[1], layer(x) - reach, rtol=0, atol=1e-9)
    torch.testing.assert_close(relaxation.highs[1], layer(x) + reach, rtol=0, atol=1e-9)
    assert (relaxation.lows[1] <= layer(x) - reach).all()
