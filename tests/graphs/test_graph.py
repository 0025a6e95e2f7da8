"""Tests of the reverse sweep through a graph."""

import torch
from torch import nn

from skrobust.graphs import pull_back, read_graph
from tests._modules import Residual, build, sample


def test_rows_of_an_affine_graph_come_back_as_its_gradient():
    class Diamond(nn.Module):
        def __init__(self):
            super().__init__()
            self.left, self.right = nn.Linear(3, 2), nn.Linear(3, 2)

        def forward(self, x):
            return self.left(x) - 2 * self.right(x) + x[:, 1:]

    module = build(Diamond)
    graph, rows, order, pulled = read_graph(module, 3), sample(4, 2), [], []
    last = len(graph.nodes) - 1

    def visit(i, node, here):
        order.append(i)
        if i == 0:
            pulled.append(here)
            return ()
        return node.adjoint(here)

    pull_back(graph, last, {last: rows}.get, visit)
    x = torch.zeros(4, 3, dtype=torch.float64, requires_grad=True)
    (expected,) = torch.autograd.grad(module(x), x, rows)
    torch.testing.assert_close(pulled[0], expected)
    # Each node once, with all that comes back to it, and the last one first.
    assert order == sorted(range(len(graph.nodes)), reverse=True)


def test_rows_may_begin_anywhere_and_end_anywhere():
    graph = read_graph(build(Residual), 64)
    first = graph.piecewise[0]
    visited = []

    def visit(i, node, here):
        visited.append(i)
        return () if node.is_affine else (here,)

    pull_back(graph, first, {first: torch.ones(1, *graph.nodes[first].shape)}.get, visit)
    assert visited == [first, graph.nodes[first].inputs[0]]
    pull_back(graph, first, lambda i: None, visit)
    assert len(visited) == 2


def test_a_graph_knows_its_sizes_and_where_it_lives():
    graph = read_graph(build(Residual).float(), 64)
    assert (graph.n_features, graph.n_classes) == (64, 4)
    assert graph.dtype == torch.float64 and graph.device == torch.device("cpu")
    for node, constant in zip(graph.nodes, graph.constants, strict=True):
        assert (constant is None) == (node.inputs == () or not node.is_affine)
