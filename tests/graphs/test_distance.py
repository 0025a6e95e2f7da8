"""Tests of how distances are read."""

import pytest
import torch
from torch import nn

from skrobust.exceptions import UnsupportedModelError
from skrobust.graphs import LinfDistance, read_graph
from skrobust.networks import LinfDistanceNetwork


class Measured(nn.Module):
    def __init__(self, p, swap=False):
        super().__init__()
        self.weight, self.p, self.swap = nn.Parameter(torch.rand(3, 4)), p, swap

    def forward(self, x):
        args = (self.weight, x) if self.swap else (x, self.weight)
        return torch.cdist(*args, p=self.p)


def test_a_network_of_distances_is_read():
    module = LinfDistanceNetwork(4, 3, (5, 6), random_state=0).eval()
    graph = read_graph(module, 4)
    assert sum(isinstance(node, LinfDistance) for node in graph.nodes) == 3
    x = torch.rand(7, 4, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(graph(x), module(x), rtol=0, atol=1e-12)


def test_other_distances_are_refused():
    for module in (Measured(2.0), Measured(float("inf"), swap=True)):
        with pytest.raises(UnsupportedModelError, match="p=inf"):
            read_graph(module.eval(), 4)
    # Batches of matrices are none of rows either.
    assert read_graph(Measured(float("inf")), 4).n_classes == 3
