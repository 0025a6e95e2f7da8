"""Tests of nodes, one by one."""

import pickle

import pytest
import torch

from skrobust.graphs import Graph, read_graph
from tests._modules import MODULES, Branches, build, sample


@pytest.mark.parametrize(("factory", "n_features"), MODULES)
def test_affine_nodes_have_their_adjoint_and_magnitude(factory, n_features):
    graph = read_graph(build(factory), n_features)
    generator = torch.Generator().manual_seed(2)
    for node in graph.nodes[1:]:
        if not node.is_affine:
            continue
        shapes = [graph.nodes[i].shape for i in node.inputs]
        u, v = ([torch.randn(2, *s, generator=generator).double() for s in shapes] for _ in "ab")
        w = torch.randn(2, *node.shape, generator=generator).double()
        difference = node.apply(*u) - node.apply(*v)
        pulled = node.adjoint(w)
        right = sum(
            ((a - b) * p).sum() for a, b, p in zip(u, v, pulled, strict=True) if p is not None
        )
        torch.testing.assert_close((difference * w).sum(), torch.as_tensor(right).double())
        radii = [(a - b).abs() for a, b in zip(u, v, strict=True)]
        assert (node.magnitude(*radii) >= difference.abs() - 1e-12).all()
        # The bound is reached: by the sign of each weight, which the adjoint of one output is.
        one = torch.zeros(1, *node.shape, dtype=torch.float64)
        one.view(-1)[0] = 1.0
        weights = node.adjoint(one)
        reached = sum(p.abs().sum() for p in weights if p is not None)
        ones = node.magnitude(*(torch.ones(1, *s, dtype=torch.float64) for s in shapes))
        torch.testing.assert_close(ones.reshape(-1)[0], torch.as_tensor(reached).double())


def test_graph_is_picklable():
    graph = read_graph(build(Branches), 48)
    x = sample(2, 48)
    graph(x)
    copied = pickle.loads(pickle.dumps(graph))
    assert isinstance(copied, Graph)
    torch.testing.assert_close(copied(x), graph(x))
