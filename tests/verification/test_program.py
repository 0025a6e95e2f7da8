"""What solvers are told of a network: affine parts, and the rules for each kind of node."""

import pickle
from dataclasses import dataclass

import numpy as np
import pytest

from skrobust.exceptions import UnsupportedModelError
from skrobust.graphs import Graph, PiecewiseNode, read_graph
from skrobust.verification._highs import add_node
from skrobust.verification._marabou_query import image
from skrobust.verification._program import AffineMaps, check_rules
from tests.verification._nets import network


@dataclass(frozen=True, eq=False, kw_only=True)
class Steep(PiecewiseNode):
    """A node that no rule knows."""

    def apply(self, z):
        return 3 * z


@pytest.mark.parametrize(("rule", "name"), [(add_node, "program"), (image, "marabou")])
def test_unknown_nodes_are_refused_by_name(rule, name):
    graph = read_graph(network(), 2)
    check_rules(graph, rule)  # knows all of these
    i = graph.piecewise[0]
    nodes = list(graph.nodes)
    nodes[i] = Steep(inputs=nodes[i].inputs, shape=nodes[i].shape, path=nodes[i].path)
    with pytest.raises(UnsupportedModelError, match=f"verification.{name} has no rule for Steep"):
        check_rules(Graph(tuple(nodes)), rule)


def test_affine_parts_are_those_of_the_layers():
    module = network()
    graph = read_graph(module, 2)
    maps = AffineMaps(graph)
    before, after = graph.nodes[graph.piecewise[0]].inputs[0], graph.piecewise[0]
    matrices, constant = maps[before]
    np.testing.assert_allclose(matrices[0].toarray(), module[0].weight, rtol=1e-6)
    np.testing.assert_allclose(constant, module[0].bias, rtol=1e-6)
    matrices, constant = maps[len(graph.nodes) - 1]
    np.testing.assert_allclose(matrices[after].toarray(), module[2].weight, rtol=1e-6)
    assert maps[before] is maps[before]
    again = pickle.loads(pickle.dumps(maps))
    np.testing.assert_array_equal(again[before][1], maps[before][1])
