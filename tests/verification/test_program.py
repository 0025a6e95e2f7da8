"""What solvers are told of a network: affine parts, and the rules for each kind of node."""

import pickle
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import nn

from skrobust.bounds import relax
from skrobust.exceptions import UnsupportedModelError
from skrobust.graphs import Graph, PiecewiseNode, read_graph
from skrobust.properties import ClassificationRobustness
from skrobust.verification._highs import Program, add_node
from skrobust.verification._marabou_query import MarabouProgram, image
from skrobust.verification._program import AffineMaps, check_rules
from skrobust.verification._result import Reason


def network():
    module = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 2)).requires_grad_(False)
    generator = torch.Generator().manual_seed(0)
    for layer in module[::2]:
        layer.weight.copy_(torch.randn(layer.weight.shape, generator=generator))
        layer.bias.copy_(torch.randn(layer.bias.shape, generator=generator))
    return module


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


def box(epsilon=0.3):
    x = torch.tensor([[0.4, 0.6]], dtype=torch.float64)
    graph = read_graph(network(), 2)
    return graph, relax(graph, ClassificationRobustness(epsilon, bounds=None).outer_ball(x))


def test_the_minimum_of_a_row_is_that_of_a_grid():
    graph, relaxation = box()
    line = torch.linspace(-0.3, 0.3, 201, dtype=torch.float64)
    grid = relaxation.ball.center + torch.cartesian_prod(line, line)
    row = np.array([1.0, -1.0])
    values = graph(grid).numpy() @ row
    program = Program(AffineMaps(graph), relaxation)
    # Shifted by a little more than the least value no point is below 0, by less some are.
    for shift, reason in ((0.02, Reason.PROVED), (-0.02, Reason.COUNTEREXAMPLE)):
        minimum = program.minimise(row, 0.0, -values.min() + shift)
        assert minimum.reason is reason
    assert minimum.point is not None
    at = graph(torch.as_tensor(minimum.point)[None]).numpy() @ row
    assert at[0] - values.min() + -0.02 < 0


def test_marabous_expressions_are_the_nodes():
    # Any point gives values of all variables; the equations must hold there.
    graph, relaxation = box()
    program = MarabouProgram(AffineMaps(graph), relaxation)
    generator = np.random.default_rng(0)
    for _ in range(5):
        known = dict(enumerate(generator.uniform(-1, 1, program.n_inputs)))
        point = program.point([known[k] for k in range(program.n_inputs)])
        relus = dict(program.relus)
        for variables, weights, constant in program.equations:
            value = constant - sum(
                w * known[v] for v, w in zip(variables[:-1], weights[:-1], strict=True)
            )
            known[variables[-1]] = value
            if variables[-1] in relus:
                known[relus[variables[-1]]] = max(value, 0.0)
        matrix, shift = program.expression(program.last)
        values = np.array([known[k] for k in range(program.n_columns)])
        np.testing.assert_allclose(matrix @ values + shift, graph(point[None])[0], atol=1e-9)
