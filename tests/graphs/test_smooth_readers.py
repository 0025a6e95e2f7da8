"""How calls of torch become smooth units, and which products stand for one."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional

from skrobust.exceptions import UnsupportedModelError
from skrobust.graphs import read_graph, read_live
from tests._modules import sample


class Calls(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.first, self.last = nn.Linear(4, 3).double(), nn.Linear(3, 2).double()
        self.function = function
        self.requires_grad_(False)

    def forward(self, x):
        return self.last(self.function(self.first(x)))


def kinds(graph):
    return [type(node).__name__ for node in graph.nodes[2:-1]]


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (torch.tanh, ["Tanh"]),
        (lambda x: x.tanh_(), ["Tanh"]),
        (lambda x: x.sigmoid(), ["Sigmoid"]),
        (torch.erf, ["Erf"]),
        (functional.silu, ["Silu"]),
        (lambda x: functional.silu(x, inplace=True), ["Silu"]),
        (functional.gelu, ["Gelu"]),
        (lambda x: functional.gelu(x, approximate="tanh"), ["Gelu"]),
        (lambda x: functional.softplus(x, 2, 15), ["Softplus"]),
        (lambda x: functional.softplus(input=x, beta=2.0), ["Softplus"]),
        (lambda x: functional.elu(x, 0.7), ["Elu"]),
        (lambda x: functional.elu(x, alpha=0.7, inplace=True), ["Elu"]),
        (functional.selu, ["Elu"]),
        (lambda x: functional.celu(x, 3.0), ["Elu"]),
    ],
)
def test_calls_become_nodes(function, expected):
    module, x = Calls(function), 3 * sample(20, 4) - 1
    graph = read_graph(module, 4)
    assert kinds(graph) == expected
    torch.testing.assert_close(graph(x), module(x))
    torch.testing.assert_close(read_live(module, x)[0](x), module(x))


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (lambda x: x * torch.sigmoid(x), ["Silu"]),
        (lambda x: torch.sigmoid(x).mul_(x), ["Silu"]),
        (lambda x: 2 * x * torch.sigmoid(x), ["Silu", "Scale"]),
        (lambda x: x * torch.sigmoid(1.702 * x), ["Scale", "Silu", "Scale"]),
        (lambda x: x * torch.sigmoid(-1.5 * x), ["Scale", "Silu", "Scale"]),
        (lambda x: 0.5 * x * (1 + torch.erf(x / math.sqrt(2))), ["Scale", "Gelu", "Scale"]),
        (lambda x: x * 0.5 * (torch.erf(x * 0.75) + 1.0), ["Scale", "Gelu", "Scale"]),
        (lambda x: x * (0.5 + 0.5 * torch.erf(x / 1.4142)), ["Scale", "Gelu", "Scale"]),
    ],
)
def test_gates_become_nodes(function, expected):
    module, x = Calls(function), 6 * sample(20, 4) - 3
    graph = read_graph(module, 4)
    assert [kind for kind in kinds(graph) if kind != "Scale"] == [
        kind for kind in expected if kind != "Scale"
    ]
    torch.testing.assert_close(graph(x), module(x), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x * torch.sigmoid(x + 1),
        lambda x: x * (torch.sigmoid(x) + 1),
        lambda x: x * (2 + torch.erf(x)),
        lambda x: x * torch.tanh(x),
        lambda x: x * torch.sigmoid(x.flip(1)),
        lambda x: x * torch.sigmoid(x * torch.tensor([1.0, 2.0, 3.0])),
        lambda x: x * x,
    ],
)
def test_other_products_are_refused(function):
    with pytest.raises(UnsupportedModelError, match="activations by each other"):
        read_graph(Calls(function), 4)


def test_a_trained_factor_is_not_taken_for_a_number():
    weight = nn.Parameter(torch.tensor(2.0).double())
    module = Calls(lambda x: x * torch.sigmoid(weight * x))
    module.weight = weight
    with pytest.raises(UnsupportedModelError, match="activations by each other"):
        read_live(module, sample(4, 4))
    assert "Silu" in repr(read_graph(module, 4))


def test_parameters_that_depend_on_the_sample_are_refused():
    module = Calls(lambda x: functional.softplus(x, x.mean().item()))
    with pytest.raises(UnsupportedModelError, match=r"'mean' in layer|'item' in layer"):
        read_graph(module, 4)
