"""Tests of networks of L-infinity distances: by hand, 1-Lipschitz, and the L_p kernels."""

import math
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from skrobust import TorchClassifier
from skrobust.networks import LinfDistanceLayer, LinfDistanceNetwork
from skrobust.networks._linf_distance import _distance
from skrobust.properties import LipschitzRobustness
from skrobust.scorers import ConstraintSatisfaction, ConstraintSecurity


def network(seed=0, hidden=(8, 6), **options):
    """A network whose running means and bias are not 0."""
    module = LinfDistanceNetwork(4, 3, hidden, random_state=seed, **options)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        module(torch.rand(50, 4, generator=generator))
        module.layers[-1].bias.normal_(0, 0.3, generator=generator)
    return module.eval()


def test_a_layer_by_hand():
    layer = LinfDistanceLayer(2, 2, bias=True).eval()
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[0.0, 0.0], [1.0, -1.0]]))
        layer.bias.copy_(torch.tensor([0.0, 0.5]))
        layer.running_mean.copy_(torch.tensor([0.25, 0.0]))
    # |0.5|, |-2| and |0.5 - 1|, |-2 + 1|.
    torch.testing.assert_close(layer(torch.tensor([[0.5, -2.0]])), torch.tensor([[1.75, 1.5]]))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.floats(1e-6, 3.0))
def test_no_output_moves_by_more_than_the_input(seed, reach):
    module = network(seed)
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(20, 4, generator=generator)
    moved = x + reach * (2 * torch.rand(20, 4, generator=generator) - 1)
    # Corners, where the largest entry moves as far as it can.
    moved[::2] = x[::2] + reach * torch.randn(10, 4, generator=generator).sign()
    distance = (moved.double() - x.double()).abs().amax(dim=1)
    with torch.no_grad():
        change = (module(moved) - module(x)).abs().amax(dim=1)
    assert (change <= distance).all()
    # It is not shorter by more than it says.
    assert change.max() > 0


def test_a_pickled_network_is_the_same():
    module, x = network(), torch.rand(5, 4)
    again = pickle.loads(pickle.dumps(module))
    torch.testing.assert_close(again(x), module(x), rtol=0, atol=0)


def test_lipschitz_robustness_holds_everywhere_with_a_constant_of_1():
    model = TorchClassifier(network(), [0, 1, 2])
    X = np.random.default_rng(0).random((30, 4))
    y = model.predict(X)
    for epsilon in (0.01, 0.3):
        property = LipschitzRobustness(epsilon, lipschitz=1.0)
        assert ConstraintSatisfaction(property, random_state=0)(model, X, y) == 1
        assert ConstraintSecurity(property, random_state=0)(model, X, y) == 1
    # And with no constant that is much smaller, which an attack finds.
    tight = LipschitzRobustness(0.3, lipschitz=0.5)
    assert ConstraintSecurity(tight, random_state=0)(model, X, y) < 0.5


@pytest.mark.parametrize("p", [2, 8, 64, 1024])
def test_distances_of_a_finite_norm_are_those_of_cdist(p):
    generator = torch.Generator().manual_seed(0)
    # Around 1, so that the powers of cdist stay within float64.
    x = 0.8 + 0.4 * torch.rand(7, 5, generator=generator)
    weight = 0.2 * torch.rand(6, 5, generator=generator)
    x.requires_grad_()
    weight.requires_grad_()
    rows = torch.randn(7, 6, generator=generator)
    gradients = torch.autograd.grad((_distance(x, weight, p) * rows).sum(), (x, weight))
    exact = torch.cdist(x.double(), weight.double(), p=p)
    known = torch.autograd.grad((exact * rows).sum(), (x, weight))
    torch.testing.assert_close(_distance(x, weight, p).double(), exact, rtol=1e-5, atol=1e-6)
    for found, expected in zip(gradients, known, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_powers_neither_overflow_nor_vanish():
    x = torch.tensor([[0.0, 0.0], [1e-3, 0.0], [1e4, 3.0]], requires_grad=True)
    weight = torch.zeros(1, 2, requires_grad=True)
    distance = _distance(x, weight, 1024)
    torch.testing.assert_close(distance.flatten(), torch.tensor([0.0, 1e-3, 1e4]))
    gradients = torch.autograd.grad(distance.sum(), (x, weight))
    assert all(torch.isfinite(gradient).all() for gradient in gradients)


def test_a_norm_is_rounded_to_a_power_of_two():
    x, weight = torch.rand(3, 4), torch.rand(2, 4)
    torch.testing.assert_close(_distance(x, weight, 9.5), _distance(x, weight, 8))
    torch.testing.assert_close(_distance(x, weight, 1), _distance(x, weight, 2))


def test_many_neurons_are_computed_in_parts():
    x, weight = torch.rand(300, 40), torch.rand(70, 40)  # 840,000 differences
    torch.testing.assert_close(
        _distance(x, weight, 8), torch.cdist(x, weight, p=8), rtol=1e-5, atol=1e-6
    )


def test_training_mode_takes_the_means_of_the_batch():
    module = LinfDistanceNetwork(4, 3, 8, random_state=0)
    module.set_p(math.inf)
    x = torch.rand(50, 4)
    first = torch.cdist(x, module.layers[0].weight, p=math.inf)
    hidden = module.layers[0](x)
    torch.testing.assert_close(hidden, first - first.mean(dim=0))
    torch.testing.assert_close(module.layers[0].running_mean, 0.1 * first.mean(dim=0))


def test_wide_layers_start_as_an_identity():
    module = LinfDistanceNetwork(4, 3, 8, random_state=0).eval()
    x = torch.rand(5, 4)
    hidden = module.layers[0](x.double())
    # Each neuron measures one feature from 10 spreads below the center.
    expected = (x.double() - (0.5 - 3.0)).repeat(1, 2)
    torch.testing.assert_close(hidden, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    "name, value",
    [
        ("n_features", 0),
        ("n_classes", 1),
        ("hidden_layer_sizes", (4, 0)),
        ("hidden_layer_sizes", "many"),
        ("spread", 0.0),
        ("center", math.nan),
    ],
)
def test_bad_input_is_named(name, value):
    options = {"n_features": 4, "n_classes": 3} | {name: value}
    with pytest.raises((ValueError, TypeError), match=f"Got {name}="):
        LinfDistanceNetwork(**options)


def test_a_hidden_layer_may_be_left_out():
    assert len(LinfDistanceNetwork(4, 3, ()).layers) == 1
