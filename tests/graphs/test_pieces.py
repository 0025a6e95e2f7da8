"""Piecewise linear nodes: where a decision is right, the node is the affine map that it names."""

import itertools

import pytest
import torch
from torch import nn

from skrobust.exceptions import UnsupportedModelError
from skrobust.graphs import Clamp, MaxPool, PiecewiseNode, Relu, read_graph

INF = float("inf")


def relu(slope):
    return Relu(inputs=(0,), shape=(2, 3), slope=torch.tensor(slope, dtype=torch.float64))


def clamp(low, high):
    return Clamp(inputs=(0,), shape=(2, 3), low=low, high=high)


def pool(input_shape, shape, kernel, stride, padding, dilation=None):
    return MaxPool(
        inputs=(0,), shape=shape, input_shape=input_shape, kernel=kernel, stride=stride,
        padding=padding, dilation=dilation or (1,) * len(kernel), ceil_mode=False,
        device=torch.device("cpu"),
    )  # fmt: skip


NODES = {
    "relu": relu(0.0),
    "leaky": relu([[0.2], [1.7]]),
    "abs": relu(-1.0),
    "clamp": clamp(-0.5, 0.4),
    "floor": clamp(0.0, INF),
    "pool": pool((1, 6), (1, 3), (2,), (2,), (0,)),
    "overlapping": pool((2, 3, 3), (2, 2, 2), (2, 2), (2, 2), (1, 1)),
    "dilated": pool((1, 6), (1, 4), (2,), (1,), (0,), (2,)),
}


def shape_of(node):
    return node.input_shape if isinstance(node, MaxPool) else node.shape


def inputs(node, n=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, *shape_of(node), generator=generator, dtype=torch.float64)


each_node = pytest.mark.parametrize("node", NODES.values(), ids=NODES)


@each_node
def test_a_decision_names_the_piece_at_the_point(node):
    z = inputs(node)
    decision, slacks = node.decide(z), node.slacks(node.decide(z), z)
    torch.testing.assert_close(node.frozen(decision, z), node.apply(z))
    assert slacks.shape == (5, node.n_rows)
    assert (slacks >= 0).all()
    assert not node.is_tied(z).any()


@each_node
def test_a_piece_is_the_node_inside_of_its_half_spaces(node):
    z = inputs(node, n=1)
    decision = tuple(part[:1] for part in node.decide(z))
    others = z + torch.linspace(0, 1, 200).double().view(-1, *[1] * (z.ndim - 1)) * inputs(
        node, 200
    )
    inside = (node.slacks(decision, others) >= 0).all(dim=1)
    assert inside.any() and not inside.all()
    right = node.frozen(decision, others)
    torch.testing.assert_close(right[inside], node.apply(others)[inside])
    # And outside of some half-space it is not.
    wrong = (right - node.apply(others)).abs().flatten(1).amax(dim=1) > 1e-9
    assert (wrong == ~inside).all()


@each_node
def test_the_adjoint_is_that_of_the_linear_part(node):
    z, moves = inputs(node, seed=1), inputs(node, seed=2)
    decision = node.decide(z)
    weights = torch.randn(5, *node.shape, dtype=torch.float64)
    linear = node.frozen(decision, z + moves, linear=True) - node.frozen(decision, z, linear=True)
    whole = node.frozen(decision, z + moves) - node.frozen(decision, z)
    torch.testing.assert_close(linear, whole)
    pulled = node.frozen_adjoint(decision, weights)
    torch.testing.assert_close((linear * weights).sum(), (moves * pulled).sum())


@each_node
def test_seeds_are_the_gradients_of_half_spaces(node):
    z = inputs(node).requires_grad_()
    decision = node.decide(z.detach())
    slacks = node.slacks(decision, z)
    place, row = slacks.isfinite().nonzero(as_tuple=True)
    weight = torch.randn(len(place), dtype=torch.float64)
    (expected,) = torch.autograd.grad((slacks[place, row] * weight).sum(), z)
    torch.testing.assert_close(node.seeds(decision, place, row, weight), expected)


@pytest.mark.parametrize("name", ["relu", "clamp", "pool"])
def test_ties_are_seen_and_broken_by_the_direction(name):
    node = NODES[name]
    z = {
        "relu": torch.zeros(2, 3),
        "clamp": torch.full((2, 3), 0.4, dtype=torch.float64),
        "pool": torch.ones(1, 6),
    }[name][None].double()
    assert node.is_tied(z).all()
    for tangent in inputs(node, 4):
        decision = node.decide(z, tangent[None])
        ahead = z + 1e-3 * tangent
        torch.testing.assert_close(node.frozen(decision, ahead), node.apply(ahead))
        assert (node.slacks(decision, ahead) >= 0).all()


def test_windows_are_those_of_brute_force():
    node = NODES["overlapping"]
    z = inputs(node)
    for sample, channel, i, k in itertools.product(range(5), range(2), range(2), range(2)):
        rows, columns = (slice(max(0, 2 * place - 1), 2 * place + 1) for place in (i, k))
        expected = z[sample, channel, rows, columns].max()
        unit = (channel * 2 + i) * 2 + k
        assert node.windows(z)[sample, unit].max() == expected
        assert node.apply(z)[sample, channel, i, k] == expected


def test_what_a_kind_does_not_define_is_refused_by_name():
    class Steep(PiecewiseNode):
        pass

    node, z = Steep(), torch.ones(1, 2)
    calls = {
        "n_rows": lambda: node.n_rows,
        "decide": lambda: node.decide(z),
        "is_tied": lambda: node.is_tied(z),
        "frozen": lambda: node.frozen((), z),
        "frozen_adjoint": lambda: node.frozen_adjoint((), z),
        "slacks": lambda: node.slacks((), z),
        "seeds": lambda: node.seeds((), 0, 0, 1.0),
    }
    assert not node.is_affine
    for name, call in calls.items():
        with pytest.raises(UnsupportedModelError, match=rf"PiecewiseNode\.{name} .* for Steep"):
            call()


def test_padded_windows_hold_only_real_entries():
    graph = read_graph(
        nn.Sequential(nn.Unflatten(1, (1, 5)), nn.MaxPool1d(3, 2, 1), nn.Flatten()), 5
    )
    pool = next(node for node in graph.nodes if isinstance(node, MaxPool))
    assert pool.members.tolist() == [[0, 0, 1], [1, 2, 3], [3, 4, 3]]
    x = -torch.ones(1, 5)
    assert graph(x).tolist() == [[-1.0, -1.0, -1.0]]


def test_zeros_behind_relu_are_no_ties():
    graph = read_graph(
        nn.Sequential(nn.Unflatten(1, (1, 4)), nn.ReLU(), nn.MaxPool1d(2), nn.Flatten()), 4
    )
    pool = next(node for node in graph.nodes if isinstance(node, MaxPool))
    z = torch.tensor([[[0.0, 0.0, 0.3, 0.1]]])
    assert not pool.is_tied(z, behind_relu=True)
    assert pool.is_tied(z)
    assert pool.is_tied(torch.tensor([[[0.0, 0.0, 0.3, 0.3]]]), behind_relu=True)
