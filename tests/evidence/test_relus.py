"""Max-pools and clamps as ReLUs: the same function, with the same nodes as the verifiers make."""

import numpy as np
import pytest
import torch
from torch import nn

from skrobust.evidence import _checker, network_arrays
from skrobust.evidence._relus import Relus, pairs, terms_of
from skrobust.evidence._rules import Relu
from skrobust.graphs import read_graph
from skrobust.verification._relus import as_relus

MODULES = {
    "windows": [nn.Linear(5, 16), nn.Unflatten(1, (1, 4, 4)), nn.MaxPool2d(3, 2, 1), nn.Flatten()],
    "pairs": [nn.Linear(5, 8), nn.Unflatten(1, (2, 4)), nn.MaxPool1d(2), nn.Flatten()],
    "single": [nn.Linear(5, 4), nn.Unflatten(1, (1, 4)), nn.MaxPool1d(1), nn.Flatten()],
    "clamps": [nn.Linear(5, 4), nn.Hardtanh(-0.25, 0.5), nn.Linear(4, 3), nn.ReLU6()],
}


@pytest.mark.parametrize("name", MODULES)
def test_it_is_the_same_function_with_the_same_nodes(name):
    torch.manual_seed(0)
    graph = read_graph(nn.Sequential(*MODULES[name]).double(), n_features=5)
    relus = as_relus(graph)
    x = torch.randn(50, 5, dtype=torch.float64)
    torch.testing.assert_close(relus(x), graph(x))
    net = _checker.Network(network_arrays(graph), False)
    made = net.of_nodes(Relus(net.nodes, 5, net.lift).nodes, None)
    assert [int(node.size) for node in made.nodes[1:]] == [node.size for node in relus.nodes[1:]]
    assert tuple(made.piecewise) == relus.piecewise
    assert all(isinstance(made.nodes[i], Relu) for i in made.piecewise)
    assert [made.nodes[i].inputs for i in range(1, len(made.nodes))] == [
        list(node.inputs) for node in relus.nodes[1:]
    ]
    # At single points its intervals are the values.
    values = relus.values(x[:5])
    made.ball = type("Point", (), {"norm": "linf", "minimum": None})()
    region = made.relax(x[:5].numpy(), x[:5].numpy(), tightens=False)
    for low, high, value in zip(region.lows[1:], region.highs[1:], values[1:], strict=True):
        value = value.flatten(1).numpy()
        assert (low <= value).all() and (value <= high).all()
        assert (high - low < 1e-9).all()


def test_entries_are_compared_in_pairs():
    assert pairs(2).tolist() == [[0, 1]]
    assert pairs(5).tolist() == [[0, 1], [2, 3], [3, 4]]


@pytest.mark.parametrize("limits", [(-1.0, 2.0), (-np.inf, 0.5), (0.5, np.inf), (-np.inf, np.inf)])
def test_clamps_are_sums(limits):
    base, terms = terms_of(*limits)
    z = np.linspace(-3, 3, 61)
    total = base + sum(w * np.maximum(0, s * z + c) for w, s, c in terms) if terms else z
    np.testing.assert_allclose(total, np.clip(z, *limits), atol=1e-15)
