"""The unit to split next, by numbers worked out by hand."""

import pytest
import torch
from torch import nn

from skrobust.balls import Ball
from skrobust.bounds import crown, relax
from skrobust.graphs import read_graph
from skrobust.verification._choice import costliest, is_decided


def chosen(module, center, reach, row=(1.0,)):
    """Return what is chosen over one box for one row of the outputs."""
    center, reach = (torch.tensor([v], dtype=torch.float64) for v in (center, reach))
    graph = read_graph(module.double(), center.shape[1])
    ball = Ball(center, reach[0], "linf", center - reach, center + reach)
    relaxation, trace = relax(graph, ball), {}
    crown(relaxation, torch.tensor([[row]], dtype=torch.float64), trace=trace)
    place, cut = costliest(relaxation, trace, {})
    return graph, place[0].tolist(), cut.item()


def layers(weights, activation):
    """Return one unit for each input, and their sum with weights."""
    first, last = nn.Linear(len(weights), len(weights)), nn.Linear(len(weights), 1)
    with torch.no_grad():
        first.weight.copy_(torch.eye(len(weights)))
        first.bias.zero_()
        last.weight.copy_(torch.tensor([weights]))
    return nn.Sequential(first, activation, last)


def test_the_unit_that_costs_most_is_chosen():
    # On [-1, 1] the chord above costs its height 1/2 at the kink, times the weight; below, the
    # slope 1/2 costs as much.
    graph, place, cut = chosen(layers([-1.0, -3.0, 2.0], nn.ReLU()), [0.0] * 3, [1.0] * 3)
    assert place == [graph.nodes[graph.piecewise[0]].inputs[0], 1]
    assert cut == 0.0


def test_wide_intervals_cost_more_than_narrow_ones():
    _, place, _ = chosen(layers([-1.0, -1.0], nn.ReLU()), [0.0] * 2, [0.5, 0.6])
    assert place[1] == 1


def test_closed_units_are_not_chosen():
    _, place, _ = chosen(layers([-9.0, -1.0], nn.ReLU()), [2.0, 0.0], [1.0, 1.0])
    assert place[1] == 1
    _, place, _ = chosen(layers([-9.0, -1.0], nn.ReLU()), [2.0, -2.0], [1.0, 1.0])
    assert place == [-1, -1]


def test_smooth_units_are_cut_inside_of_their_intervals():
    _, place, cut = chosen(layers([-1.0, -2.0], nn.Tanh()), [0.5, 0.5], [1.0, 1.0])
    assert place[1] == 1
    assert -0.5 < cut < 1.5


@pytest.mark.parametrize(
    ("activation", "expected"), [(nn.ReLU(), True), (nn.Tanh(), True), (nn.Hardtanh(), False)]
)
def test_units_that_branching_decides(activation, expected):
    graph = read_graph(layers([1.0], activation).double(), 1)
    assert is_decided(graph.nodes[graph.piecewise[0]]) is expected
