"""Tests of what rounding can do: bounds hold for numbers whose sums cancel."""

import pytest
import torch
from torch import nn

from skrobust.bounds import check_finite, crown, points_at_once, relax
from skrobust.exceptions import UnsupportedModelError
from skrobust.graphs import read_graph
from skrobust.properties import ClassificationRobustness
from tests.bounds._cases import build, perceptron


def test_bounds_hold_where_large_numbers_cancel():
    # 1e16 (x + 1) - 1e16 (x + 1) + x is x, but float64 loses all of its digits on the way.
    class Cancels(nn.Module):
        def forward(self, x):
            large = (x + 1) * 1e16
            return large - large * 1.0 + x

    graph = read_graph(Cancels(), 1)
    ball = ClassificationRobustness(0.1).outer_ball(torch.full((1, 1), 0.5).double())
    lower = crown(relax(graph, ball), torch.ones(1, 1, 1).double())
    assert lower.item() <= 0.4
    plain = crown(relax(graph, ball, rounding=False), torch.ones(1, 1, 1).double())
    assert lower.item() < plain.item()


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_refused_by_layer(bad):
    module = build(perceptron)
    graph = read_graph(module, 16)
    assert check_finite(graph) is graph
    graph.nodes[3].weight[0, 0] = bad
    with pytest.raises(UnsupportedModelError, match=r"in layer 2 \(Linear\)"):
        check_finite(graph)


def test_large_networks_are_bounded_in_small_chunks():
    assert points_at_once(read_graph(build(perceptron), 16)) == 2**20 // (16 * 2 * 3)
