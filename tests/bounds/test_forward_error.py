"""Outputs that are computed in floating point never lie farther off than is said."""

import itertools

import numpy as np
import pytest
import torch
from torch import nn

from skrobust.balls import Ball
from skrobust.bounds import bound_rows, carried_error, forward_error, roundings
from skrobust.exceptions import UnsupportedModelError
from skrobust.graphs import Linear, Node, Relu, Scale, read_graph
from skrobust.properties import ClassificationRobustness

FLOATS = [torch.float32, torch.float64]


def box(x, epsilon):
    x = torch.as_tensor(x, dtype=torch.float64)
    return Ball(x, torch.full_like(x[0], epsilon), "linf", x - epsilon, x + epsilon)


def summed(terms, rng):
    """Add numbers of an array along its last axis, in a random order and grouping, in its type."""
    parts = [terms[..., i] for i in rng.permutation(terms.shape[-1])]
    while len(parts) > 1:
        first, second = sorted(rng.choice(len(parts), 2, replace=False))
        parts.append(parts.pop(second) + parts.pop(first))
    return parts[0]


def computed(layers, x, rng):
    """Return the outputs of a perceptron in the type of x, in random orders of summation."""
    for k, (W, b) in enumerate(layers):
        terms = W.astype(x.dtype) * x[:, None]
        bias = np.broadcast_to(b.astype(x.dtype)[:, None], (*terms.shape[:2], 1))
        x = summed(np.concatenate([terms, bias], axis=2), rng)
        x = x if k == len(layers) - 1 else np.maximum(x, 0)
    return x


def perceptron(sizes, seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        layers = [nn.Linear(a, b) for a, b in itertools.pairwise(sizes)]
    parts = [part for layer in layers for part in (layer, nn.ReLU())][:-1]
    pairs = [(p.weight.detach().numpy(), p.bias.detach().numpy()) for p in layers]
    return nn.Sequential(*parts).requires_grad_(False), pairs


@pytest.mark.parametrize("sizes", [[5, 3], [6, 12, 12, 4], [40, 20, 2]])
@pytest.mark.parametrize("epsilon", [0.0, 0.3])
def test_no_order_of_sums_is_off_by_more(sizes, epsilon):
    module, layers = perceptron(sizes)
    graph, rng = read_graph(module, sizes[0]), np.random.default_rng(1)
    center = rng.random((1, sizes[0])).astype(np.float32)
    error = forward_error(graph, box(center, epsilon)).numpy()
    largest = 0.0
    for _ in range(30):
        x = center + rng.uniform(-0.99, 0.99, (50, sizes[0])).astype(np.float32) * epsilon
        x = x.astype(np.float32)
        # In float64 the reference is off by a 5e8th of what is measured.
        off = np.abs(computed(layers, x, rng) - graph(torch.as_tensor(x)).numpy())
        assert (off <= error).all()
        largest = max(largest, (off / error).max())
    assert largest > 0.001  # worst cases of sums are not met, but nor is it absurdly loose


def test_float64_is_as_precise_as_it_is():
    module, _ = perceptron([6, 12, 12, 4])
    graph, ball = read_graph(module, 6), box(np.full((1, 6), 0.5), 0.1)
    single, double = (forward_error(graph, ball, dtype=dtype) for dtype in FLOATS)
    np.testing.assert_allclose(single / double, 2.0**29, rtol=1e-3)
    assert torch.isinf(forward_error(read_graph(nn.Linear(300, 1), 300), box(np.ones((1, 300)), 0),
                                     dtype=torch.bfloat16)).all()  # fmt: skip


NETS = {
    "conv": lambda: nn.Sequential(
        nn.Unflatten(1, (1, 6, 6)), nn.Conv2d(1, 3, 3, padding=1), nn.LeakyReLU(0.1),
        nn.MaxPool2d(2), nn.AvgPool2d(2, 1), nn.Flatten(), nn.Linear(12, 3),
    ),
    "batch norm": lambda: nn.Sequential(
        nn.Linear(36, 8), nn.BatchNorm1d(8), nn.Hardtanh(), nn.Linear(8, 3)
    ),
    "tanh": lambda: nn.Sequential(nn.Linear(36, 8), nn.Tanh(), nn.Linear(8, 3)),
    "smooth": lambda: nn.Sequential(
        nn.Linear(36, 8), nn.GELU(), nn.Linear(8, 8), nn.SiLU(), nn.Linear(8, 8), nn.Softplus(),
        nn.Linear(8, 8), nn.Sigmoid(), nn.Linear(8, 3), nn.ELU(),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", NETS)
def test_what_torch_computes_is_within(name):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module, noise = NETS[name](), torch.rand(200, 36)
        for part in module:
            if isinstance(part, nn.BatchNorm1d):
                # The shift cancels: what is rounded is a hundred times the output.
                part.running_mean.uniform_(50, 100)
                part.bias.data = part.running_mean + 0.1
    module = module.eval().requires_grad_(False)
    graph, center = read_graph(module, 36), np.full((1, 36), 0.5)
    error = forward_error(graph, box(center, 0.1))
    x = 0.401 + 0.198 * noise
    exact = graph(x.double())
    for computed_now in (module(x), torch.cat([module(row) for row in x.split(1)])):
        off = (computed_now.double() - exact).abs()
        assert (off <= error).all()
    assert (error < 1e-2).all() and (off.amax(dim=0) > error / 3000).any()


def test_large_numbers_that_detect_rounding_are_seen():
    """In exact arithmetic the output is x; float32 loses it between the two large numbers."""
    first, second = nn.Linear(1, 1), nn.Linear(1, 1)
    module = nn.Sequential(first, nn.ReLU(), second).requires_grad_(False)
    for layer, bias in ((first, 2.0**26), (second, -(2.0**26))):
        layer.weight.fill_(1.0)
        layer.bias.fill_(bias)
    graph, x = read_graph(module, 1), torch.tensor([[0.75]])
    assert graph(x).item() == 0.75 and module(x).item() == 0.0
    ball = box(x, 0.0)
    error = forward_error(graph, ball)
    assert 0.75 <= error.item() < 100
    assert forward_error(graph, ball, dtype=torch.float64) < 1e-6


def test_numbers_that_overflow_have_no_bound():
    layer = nn.Linear(2, 1).requires_grad_(False)
    layer.weight.fill_(1e38)
    graph = read_graph(layer, 2)
    assert torch.isinf(forward_error(graph, box(np.full((1, 2), 2.0), 0.0))).all()
    assert torch.isfinite(forward_error(graph, box(np.full((1, 2), 0.1), 0.0))).all()
    assert torch.isfinite(
        forward_error(graph, box(np.full((1, 2), 2.0), 0.0), dtype=torch.float64)
    ).all()


def test_numbers_that_vanish_are_counted():
    layer = nn.Linear(1, 1, bias=False).requires_grad_(False)
    layer.weight.fill_(2.0**-80)
    graph = read_graph(layer, 1)
    x = torch.tensor([[2.0**-80]])
    assert layer(x).item() == 0.0 and graph(x).item() == 2.0**-160
    assert forward_error(graph, box(x, 0.0)).item() >= 2.0**-160


def test_a_margin_above_the_error_holds_in_float32():
    module, layers = perceptron([4, 10, 3])
    rng, graph = np.random.default_rng(0), read_graph(module, 4)
    X = torch.as_tensor(rng.random((20, 4)).astype(np.float32))
    labels = module(X).argmax(dim=1)
    property = ClassificationRobustness(0.01)
    ball = property.outer_ball(X.double())
    rows = property.conclusion(graph(X.double()), labels).sufficient()
    lower = bound_rows(graph, ball, rows).amin(dim=1)
    error = (rows.A.abs() @ forward_error(graph, ball).unsqueeze(2)).amax(dim=(1, 2))
    holds = lower > error
    assert holds.any()
    for _ in range(20):
        x = X.numpy() + rng.uniform(-0.0099, 0.0099, X.shape).astype(np.float32)
        x = x.clip(0, 1)
        assert (computed(layers, x, rng).argmax(axis=1) == labels.numpy())[holds.numpy()].all()


def test_batch_norm_knows_what_canceled():
    module = nn.Sequential(nn.BatchNorm1d(2)).eval().requires_grad_(False)
    module[0].running_mean.fill_(100.0)
    module[0].bias.fill_(100.0)
    (node,) = (node for node in read_graph(module, 2).nodes if isinstance(node, Scale))
    assert node.bias.abs().max() < 0.01 and node.canceled.min() > 199


def test_bad_input_is_named():
    graph, ball = read_graph(nn.Linear(2, 1), 2), box(np.zeros((1, 2)), 0.1)
    with pytest.raises(ValueError, match=r"Got dtype=torch.int32, but expected a type of float"):
        forward_error(graph, ball, dtype=torch.int32)
    with pytest.raises(ValueError, match="Got dtype='float32'"):
        forward_error(graph, ball, dtype="float32")
    single = Ball(*(part.float() for part in (ball.center, ball.epsilon)), "linf",
                  ball.lower.float(), ball.upper.float())  # fmt: skip
    with pytest.raises(ValueError, match=r"Got ball in torch.float32, but expected torch.float64"):
        forward_error(graph, single)


def test_other_kinds_are_refused_by_name():
    class Odd(Node):
        pass

    for rule, arguments in ((roundings, ()), (carried_error, (None, None, None, None))):
        with pytest.raises(UnsupportedModelError, match=f"{rule.__name__} has no rule for Odd"):
            rule(Odd(), *arguments)
    weight = torch.ones(1, 3, dtype=torch.float64)
    assert roundings(Linear(weight=weight, bias=None)) == 5
    slope, one = torch.tensor(-1.0).double(), torch.ones(1, 1).double()
    facts = torch.finfo(torch.float32)
    assert carried_error(Relu(slope=slope), -one, one, one * 0.5, facts).item() == 0.5
