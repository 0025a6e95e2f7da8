"""Graphs as arrays: what is stored computes what the graph computes, in both directions."""

import numpy as np
import pytest
import torch
from torch import nn

from skrobust.balls import Ball
from skrobust.bounds import crown, relax
from skrobust.evidence import _checker, network_arrays, stored_node
from skrobust.exceptions import UnsupportedModelError
from skrobust.graphs import Node, read_graph


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner, self.outer = nn.Linear(6, 6), nn.Linear(12, 3)

    def forward(self, x):
        z = torch.relu(self.inner(x)) - 0.5 * x
        return self.outer(torch.cat([z, x], dim=1))


MODULES = {
    "dense": lambda: nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)),
    "leaky": lambda: nn.Sequential(nn.Linear(6, 8), nn.LeakyReLU(0.2), nn.Linear(8, 3)),
    "clamp": lambda: nn.Sequential(
        nn.Linear(6, 8), nn.ReLU6(), nn.Linear(8, 8), nn.Hardtanh(-0.2, 0.3), nn.Linear(8, 3)
    ),
    "deep": lambda: nn.Sequential(
        nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3)
    ),
    "convolution": lambda: nn.Sequential(
        nn.Unflatten(1, (1, 2, 3)), nn.Conv2d(1, 4, 2, padding=1), nn.BatchNorm2d(4).eval(),
        nn.ReLU(), nn.MaxPool2d(2, stride=1), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(4, 3),
    ),
    "residual": Residual,
}  # fmt: skip


@pytest.mark.parametrize("name", MODULES)
@pytest.mark.parametrize("exact", [False, True], ids=["floats", "exact"])
def test_bounds_are_those_of_the_library(name, exact):
    torch.manual_seed(0)
    graph = read_graph(MODULES[name]().eval(), n_features=6)
    network = _checker.Network(network_arrays(graph), exact)
    x = torch.rand(2, 6, dtype=torch.float64)
    ball, A = Ball.outside(x, 0.2, "linf", None), torch.randn(2, 4, 3, dtype=torch.float64)
    with torch.no_grad():
        expected = crown(relax(graph, ball), A).numpy()
    network.ball = _checker.Ball(
        {
            "center": x[0].numpy(), "epsilon": np.full(6, 0.2),
            "lower": ball.lower[0].numpy(), "upper": ball.upper[0].numpy(),
            "domain_low": np.full(6, -np.inf), "domain_high": np.full(6, np.inf),
        }, "linf", 6,
    )  # fmt: skip
    region = network.relax(ball.lower.numpy(), ball.upper.numpy())
    for k in range(2):
        at = np.full(4, k)
        lower, _ = network.bound(region, len(network.nodes) - 1, A[k].numpy(), at)
        assert lower == pytest.approx(expected[k], abs=1e-10)


def test_numbers_are_stored_as_they_are():
    graph = read_graph(nn.Linear(4, 2), n_features=4)
    arrays = network_arrays(graph)
    assert arrays["1.weight"].dtype == np.float32
    assert (arrays["1.weight"].astype(np.float64) == graph.nodes[1].weight.numpy()).all()
    graph.nodes[1].weight[0, 0] = 1 / 3
    assert network_arrays(graph)["1.weight"].dtype == np.float64


def test_unknown_nodes_are_refused_by_name():
    class Bend(Node):
        is_affine = False

    graph = read_graph(MODULES["dense"](), n_features=6)
    with pytest.raises(UnsupportedModelError, match="stored_node has no rule for Bend"):
        stored_node(Bend(inputs=(1,), shape=(8,), path="1"), graph, 2)
