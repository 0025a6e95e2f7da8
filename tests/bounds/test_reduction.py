"""Networks without their dead units: the same bounds, up to rounding, for fewer numbers."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from skrobust.bounds import crown, initial_slopes, reduce, relax, restricted
from skrobust.graphs import MaxPool, Relu, read_graph
from skrobust.properties import ClassificationRobustness


class _Skip(nn.Module):
    """Two hidden layers, the second of which reads the input too."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(4, 12), nn.Linear(12, 12)
        self.over, self.last = nn.Linear(4, 12), nn.Linear(12, 3)

    def forward(self, x):
        hidden = torch.relu(self.first(x))
        return self.last(torch.relu(self.second(hidden) + self.over(x)))


def dense(slope=0.0):
    layers = [nn.Linear(4, 12), nn.LeakyReLU(slope), nn.Linear(12, 10), nn.LeakyReLU(slope)]
    return nn.Sequential(*layers, nn.Linear(10, 3))


def convolutional():
    return nn.Sequential(
        nn.Unflatten(1, (1, 2, 2)), nn.Conv2d(1, 6, 2, padding=1), nn.ReLU(), nn.Flatten(),
        nn.Linear(54, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3),
    )  # fmt: skip


MODULES = {
    "dense": dense,
    "leaky": lambda: dense(0.3),
    "clamped": lambda: nn.Sequential(nn.Hardtanh(0.0, 1.0), dense()),
    "convolutional": convolutional,
    "skip": _Skip,
}


def relaxed(kind, seed, epsilon, norm="linf", bias=0.15):
    """Return the relaxation of a net, most of whose units are dead, over one ball."""
    torch.manual_seed(seed)
    module = MODULES[kind]().double().eval().requires_grad_(False)
    for layer in module.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d) and layer.weight.shape[0] > 3:
            layer.bias -= bias
    graph = read_graph(module, 4)
    property = ClassificationRobustness(epsilon, norm=norm, bounds=None)
    ball = property.outer_ball(torch.rand(1, 4, dtype=torch.float64))
    return relax(graph, ball)


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("kind", MODULES)
@settings(max_examples=8, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**16), epsilon=st.floats(0.001, 0.5))
def test_bounds_are_those_of_the_whole_network_up_to_rounding(kind, norm, seed, epsilon):
    whole = relaxed(kind, seed, epsilon, norm)
    small = reduce(whole).relaxation
    rows = torch.randn(1, 5, 3, dtype=torch.float64)
    expected, bound = crown(whole, rows), crown(small, rows)
    assert torch.allclose(bound, expected, rtol=1e-11, atol=1e-11)
    # Rounding is accounted for: free slopes, too, stay below values at points of the ball.
    alphas = initial_slopes(small, (1, 5))
    alphas = {i: torch.rand_like(part) for i, part in alphas.items()}
    lower = torch.maximum(bound, crown(small, rows, alphas=alphas))
    ball = whole.ball
    points = ball.lower + torch.rand(200, 4, dtype=torch.float64) * (ball.upper - ball.lower)
    points = ball.project(points) if norm == "l2" else points
    values = whole.graph(points)
    assert torch.allclose(small.graph(points), values, rtol=1e-12, atol=1e-12)
    assert (values @ rows[0].T >= lower[0]).all()


@pytest.mark.parametrize("kind", ["dense", "skip", "clamped"])
def test_dead_units_are_gone_and_the_others_keep_their_intervals(kind):
    whole = relaxed(kind, seed=0, epsilon=0.05)
    reduction = reduce(whole)
    small = reduction.relaxation
    n_dead = 0
    for new, (old, units) in reduction.places.items():
        (i,) = whole.sources[old]
        output = whole.highs[i].flatten(1)[0]
        left = torch.zeros(len(output), dtype=torch.bool)
        left[units] = True
        assert (output[~left] == 0).all() and (whole.lows[i].flatten(1)[0][~left] == 0).all()
        n_dead += int((~left).sum())
        for side, part in ((whole.lows, small.lows), (whole.highs, small.highs)):
            assert torch.equal(part[new][0], side[old].flatten(1)[0, units])
    assert n_dead > 5
    assert sum(node.size for node in small.graph.nodes) < sum(n.size for n in whole.graph.nodes)


def test_weights_of_dense_layers_are_parts_of_the_whole_ones_bit_by_bit():
    whole = relaxed("dense", seed=1, epsilon=0.05)
    reduction = reduce(whole)
    columns = torch.arange(4)
    for new, (old, units) in reduction.places.items():
        node, part = whole.graph.nodes[old], reduction.relaxation.graph.nodes[new]
        assert torch.equal(part.weight, node.weight[units][:, columns])
        assert torch.equal(part.bias, node.bias[units])
        columns = units


def test_a_network_that_gains_nothing_is_kept():
    module = dense().double().requires_grad_(False)
    for layer in module[::2]:
        layer.weight.abs_()
        layer.bias.abs_()  # so that all units are alive
    x = torch.rand(1, 4, dtype=torch.float64)
    whole = relax(read_graph(module, 4), ClassificationRobustness(0.1).outer_ball(x))
    reduction = reduce(whole)
    assert reduction.relaxation is whole
    assert [len(units) for _, units in reduction.places.values()] == [12, 10]
    assert [old for old, _ in reduction.places.values()] == list(whole.sources)


def test_a_layer_without_a_live_unit_keeps_the_network():
    whole = relaxed("dense", seed=0, epsilon=0.01, bias=50.0)
    assert reduce(whole).relaxation is whole


def test_kinds_that_do_not_work_entry_by_entry_are_not_restricted():
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Unflatten(1, (1, 2, 2)), nn.Conv2d(1, 4, 2, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(4, 3),
    ).double()  # fmt: skip
    graph = read_graph(module.requires_grad_(False), 4)
    kinds = {type(graph.nodes[i]): graph.nodes[i] for i in graph.piecewise}
    assert restricted(kinds[MaxPool], torch.tensor([0]), (0,)) is None
    part = restricted(kinds[Relu], torch.tensor([2, 5]), (7,))
    assert part.inputs == (7,) and part.shape == (2,)
    ball = ClassificationRobustness(0.1).outer_ball(torch.full((1, 4), 0.5, dtype=torch.float64))
    whole = relax(graph, ball)
    assert reduce(whole).relaxation is whole
