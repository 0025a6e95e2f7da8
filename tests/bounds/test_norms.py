"""Tests of products of norms, worked by hand."""

import pytest
import torch
from torch import nn

from skrobust.bounds import norm_product, steepest
from skrobust.graphs import read_graph


def read(*layers, n_features):
    return read_graph(nn.Sequential(*layers).eval(), n_features)


def test_norms_of_layers_are_multiplied():
    first, last = nn.Linear(2, 2, bias=False), nn.Linear(2, 1, bias=False)
    first.weight = nn.Parameter(torch.tensor([[3.0, 4.0], [0.0, 0.0]]))
    last.weight = nn.Parameter(torch.tensor([[1.0, 1.0]]))
    graph = read(first, nn.LeakyReLU(-2.0), last, n_features=2)
    assert norm_product(graph, "linf") == pytest.approx(7 * 2 * 2, rel=1e-9)
    assert norm_product(graph, "l2") == pytest.approx(5 * 2 * 2**0.5, rel=1e-6)


def test_entries_in_several_windows_count_once_for_each():
    graph = read(nn.Unflatten(1, (1, 4)), nn.MaxPool1d(3, 1), nn.Flatten(), n_features=4)
    (pool,) = (graph.nodes[i] for i in graph.piecewise)
    assert steepest(pool, "linf") == 1.0
    assert steepest(pool, "l2") == 2**0.5


def test_moving_entries_does_not_stretch():
    class Moved(nn.Module):
        def forward(self, x):
            return x.view(-1, 2, 3).transpose(1, 2).flatten(1)

    assert norm_product(read(Moved(), n_features=6), "l2") == 1.0
