"""Tests of CROWN: worked by hand, and with gradients by the weights."""

import numpy as np
import pytest
import torch
from torch import nn

from skrobust.bounds import crown, relax
from skrobust.bounds._backward import optimized
from skrobust.graphs import read_graph, read_live
from skrobust.properties import ClassificationRobustness
from tests.bounds._cases import all_rows, centers, steep


def test_lines_of_one_relu_worked_by_hand():
    # z in [-1, 3]: chord (3 / 4)(z + 1) above; below z itself, since 3 > 1.
    graph = read_graph(nn.Sequential(identity(1), nn.ReLU(), identity(1)), 1)
    ball = ClassificationRobustness(2.0, bounds=None).outer_ball(torch.ones(1, 1).double())
    relaxation = relax(graph, ball)
    (lines,) = relaxation.lines.values()
    values = [lines.low, lines.low_shift, lines.high, lines.high_shift]
    np.testing.assert_allclose([v.item() for v in values], [1, 0, 0.75, 0.75], atol=1e-12)
    up = torch.ones(1, 1, 1, dtype=torch.float64)
    assert crown(relaxation, up).item() == pytest.approx(-1, abs=1e-12)
    assert crown(relaxation, -up).item() == pytest.approx(-3, abs=1e-12)
    # The best slope below is 0, and gives the truth.
    assert optimized(relaxation, up).item() == pytest.approx(0, abs=1e-6)


def identity(n):
    layer = nn.Linear(n, n, bias=False)
    nn.init.eye_(layer.weight)
    return layer.requires_grad_(False)


def test_bounds_have_gradients_by_the_weights():
    torch.manual_seed(0)
    module, x = steep().double(), centers().double()
    ball, rows = ClassificationRobustness(0.05).outer_ball(x), all_rows(3).A

    def lower():
        return crown(relax(read_live(module, x)[0], ball, rounding=False), rows).sum()

    gradients = torch.autograd.grad(lower(), list(module.parameters()))
    for weight, gradient in zip(module.parameters(), gradients, strict=True):
        direction = torch.randn_like(weight)
        ends = []
        for step in (1e-6, -1e-6):
            with torch.no_grad():
                weight += step * direction
                ends.append(lower().item())
                weight -= step * direction
        slope = (gradient * direction).sum().item()
        assert slope == pytest.approx((ends[0] - ends[1]) / 2e-6, rel=1e-4, abs=1e-6)
        assert abs(slope) > 1e-3


def test_without_rounding_bounds_differ_by_rounding_alone():
    torch.manual_seed(0)
    module, x = steep().double().requires_grad_(False), centers().double()
    ball, rows = ClassificationRobustness(0.05).outer_ball(x), all_rows(3).A
    graph = read_graph(module, 16)
    proved, plain = (crown(relax(graph, ball, rounding=flag), rows) for flag in (True, False))
    assert (proved < plain).all()
    torch.testing.assert_close(proved, plain, rtol=0, atol=1e-10)


def test_rows_of_a_node_before_all_free_slopes():
    """The first units are linear over the ball, and only later ones have slopes to choose."""
    module = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2))
    with torch.no_grad():
        for layer in module[::2]:
            layer.weight.copy_(torch.eye(2))
            layer.bias.zero_()
        module[0].bias.fill_(5.0)
        module[2].bias.fill_(-5.0)
    graph = read_graph(module.double(), 2)
    x = torch.zeros(1, 2, dtype=torch.float64)
    relaxation = relax(graph, ClassificationRobustness(0.5, bounds=None).outer_ball(x))
    second = graph.nodes[graph.piecewise[1]].inputs[0]
    rows = torch.eye(2, dtype=torch.float64).unsqueeze(0)
    lower = optimized(relaxation, rows, second)
    assert torch.allclose(lower, torch.full_like(lower, -0.5), atol=1e-9)
