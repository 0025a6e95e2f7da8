"""Entries of nodes as rows of their inputs are what a pass back makes of them."""

import pytest
import torch
from torch import nn

from skrobust.bounds._backward import adjoint
from skrobust.bounds._entries import entry_rows
from skrobust.graphs import read_graph

NETS = [
    nn.Linear(16, 5),
    nn.Sequential(nn.Unflatten(1, (4, 4)), nn.Linear(4, 3)),
    nn.Sequential(nn.Unflatten(1, (1, 4, 4)), nn.Conv2d(1, 3, 3, padding=1)),
    nn.Sequential(nn.Unflatten(1, (2, 2, 4)), nn.Conv2d(2, 3, (2, 3), (1, 2), (1, 2))),
    nn.Sequential(nn.Unflatten(1, (1, 4, 4)), nn.Conv2d(1, 2, 2, stride=2, dilation=2)),
    nn.Sequential(nn.Unflatten(1, (2, 4, 2)), nn.Conv2d(2, 4, 2, groups=2)),
    nn.Sequential(nn.Unflatten(1, (2, 8)), nn.Conv1d(2, 3, 3)),
]


def read(module):
    """Return the graph and the position of its one layer with weights."""
    graph = read_graph(nn.Sequential(module, nn.Flatten()).requires_grad_(False), 16)
    return graph, next(i for i, node in enumerate(graph.nodes) if hasattr(node, "weight"))


@pytest.mark.parametrize("module", NETS, ids=str)
def test_entries_are_rows_without_rounding(module):
    graph, j = read(module)
    units = torch.arange(graph.nodes[j].size).flip(0)
    start, rows, shift = entry_rows(graph, j, units)
    one_hot = torch.eye(graph.nodes[j].size).double()[units]
    if start == j:
        assert torch.equal(rows.flatten(1), one_hot) and not shift.any()
        return
    one_hot = one_hot.view(len(units), 1, *graph.nodes[j].shape)
    (back,) = adjoint(graph.nodes[j], one_hot)
    assert torch.equal(rows, back.squeeze(1))
    assert torch.equal(shift, graph.constants[j].flatten()[units])


def test_dense_and_ordinary_convolutional_layers_need_no_pass():
    graphs = [read(module) for module in NETS]
    steps = [j - entry_rows(graph, j, torch.tensor([0]))[0] for graph, j in graphs]
    assert steps == [1, 0, 1, 1, 1, 0, 0]
