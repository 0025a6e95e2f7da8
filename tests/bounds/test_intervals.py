"""Tests of intervals: of each node, and of rows joined with the last affine nodes."""

import pytest
import torch
from torch import nn

from skrobust.bounds import interval_rows, relax
from skrobust.exceptions import UnsupportedModelError
from skrobust.graphs import Graph, Input, Node, read_graph, read_live
from tests.bounds._cases import BALLS, Everything, build, centers, corners_and_samples, steep


@pytest.mark.parametrize("property", BALLS)
@pytest.mark.parametrize("factory", [Everything, steep])
@pytest.mark.parametrize("refine", [False, True])
def test_intervals_contain_sampled_values_of_every_node(factory, property, refine):
    graph = read_graph(build(factory), 16)
    ball = property.outer_ball(centers())
    relaxation = relax(graph, ball, refine=refine)
    points = corners_and_samples(ball, 500)
    for k in range(len(ball.center)):
        values = graph.values(points[k])
        for value, low, high in zip(values, relaxation.lows, relaxation.highs, strict=True):
            assert (low[k] <= value).all() and (value <= high[k]).all()


def test_what_outputs_have_in_common_cancels():
    # z = (h, h) for h = x_0 + x_1: the difference is 0, although each interval is wide.
    module = nn.Sequential(nn.Linear(2, 1, bias=False), nn.Linear(1, 2, bias=False))
    for layer in module:
        nn.init.ones_(layer.weight)
    ball = BALLS[0].values[0].outer_ball(torch.full((1, 2), 0.5).double())
    relaxation = relax(read_graph(module, 2), ball, lines=False)
    rows = torch.tensor([[[1.0, -1.0], [1.0, 0.0]]]).double()
    lower = interval_rows(relaxation, rows, shift=torch.tensor([[0.5, 0.0]]).double())
    expected = torch.tensor([[0.5, 0.9]], dtype=torch.float64)
    torch.testing.assert_close(lower, expected, rtol=0, atol=1e-12)
    assert (lower <= expected).all()


def test_rounding_of_float32_is_not_known_in_euclidean_balls():
    x = centers()
    graph, _ = read_live(build(steep), x)
    with pytest.raises(ValueError, match=r"Got a graph of torch\.float32 with rounding=True"):
        relax(graph, BALLS[3].values[0].ball(x))


def test_no_input_of_a_bent_node_is_left_out():
    # Rules for bounds see the interval of the first input: a maximum of two would be "proved".
    class Larger(Node):
        is_affine = False

        def apply(self, *values):
            return values[0] if len(values) == 1 else torch.maximum(*values)

    node = {"device": torch.device("cpu"), "shape": (2,)}
    graph = Graph((Input(**node), Larger(inputs=(0, 0), shape=(2,))))
    ball = BALLS[0].values[0].outer_ball(torch.full((1, 2), 0.5).double())
    with pytest.raises(UnsupportedModelError, match="Got Larger with 2 inputs, but expected one"):
        relax(graph, ball)
