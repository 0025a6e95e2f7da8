"""Networks of smooth units: what is verified holds on a fine grid, what is falsified does not."""

import warnings

import numpy as np
import pytest
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier
from torch import nn

from skrobust import TorchClassifier, pointwise_robustness
from skrobust.attacks import Target, confirm
from skrobust.exceptions import UnsupportedModelError
from skrobust.networks import Network, as_network
from skrobust.properties import (
    ClassificationRobustness,
    LipschitzRobustness,
    StandardRobustness,
    StrongClassificationRobustness,
)
from skrobust.verification import Bounds, Cascade
from tests.bounds._cases import build
from tests.verification._tensors import decided

METHODS = ("ibp", "crown", "alpha-crown")
PROPERTIES = [
    ClassificationRobustness(0.08),
    ClassificationRobustness(0.3, norm="l2"),
    StandardRobustness(0.05, delta=0.08),
    LipschitzRobustness(0.1, 1.0),
    StrongClassificationRobustness(0.05, eta=0.4),
    ClassificationRobustness(0.02) & StandardRobustness(0.02, delta=0.1),
]
# One of each shape: what is convex where is tested with the bounds.
SHAPES = [nn.Tanh(), nn.GELU(), nn.Softplus(3.0, 2.0), nn.SELU()]
each_module = pytest.mark.parametrize("module", SHAPES, ids=repr)


def tiny(module, seed=0):
    """Return a network of two inputs and three outputs, spread so that labels change often."""

    def make():
        layers = nn.Sequential(nn.Linear(2, 4), module, nn.Linear(4, 4), module, nn.Linear(4, 3))
        layers[0].weight.data *= 4
        layers[2].weight.data *= 2
        # Each class wins somewhere.
        layers[4].bias.data -= layers(torch.rand(500, 2)).mean(dim=0).detach()
        return layers.double()

    return Network(build(make, seed), np.arange(3), 2)


def is_broken_on_a_grid(network, property, x, labels, n=20):
    """Return whether any point of a grid over each ball breaks the property: bools, (len(x),)."""
    target = Target(network, property, x, labels)
    ball, steps = target.ball, torch.linspace(0, 1, n, dtype=x.dtype)
    shares = torch.cartesian_prod(steps, steps).repeat(len(x), 1)
    index = torch.arange(len(x)).repeat_interleave(n * n)
    points = ball.lower[index] + shares * (ball.upper - ball.lower)[index]
    return confirm(target[index], points).broken.view(len(x), -1).any(dim=1).numpy()


def samples(network, n=12):
    x = torch.rand(n, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return x, network.module(x).argmax(dim=1)


@each_module
@pytest.mark.parametrize("property", PROPERTIES, ids=repr)
def test_verified_holds_on_a_grid_and_each_method_proves_more(module, property):
    network = tiny(module)
    x, labels = samples(network)
    is_broken = is_broken_on_a_grid(network, property, x, labels)
    before = np.zeros(len(x), dtype=bool)
    for method in METHODS:
        is_verified = decided(Bounds(method), network, property, x, labels).verdicts == "verified"
        assert not (is_verified & is_broken).any()
        assert (is_verified | ~before).all()
        before = is_verified


@pytest.mark.parametrize("activation", ["tanh", "logistic"])
def test_perceptrons_of_scikit_learn_get_proofs(activation):
    X = np.random.default_rng(0).random((60, 2))
    y = (X[:, 0] > X[:, 1]).astype(int) + (X[:, 0] + X[:, 1] > 1)
    model = MLPClassifier(8, activation=activation, solver="lbfgs", random_state=0, max_iter=300)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(X, y)
    network = as_network(model)
    for property in PROPERTIES:
        by_method = {}
        for method in METHODS:
            result = Bounds(method).verify(model, X[:30], y[:30], property=property)
            by_method[method] = result.verdicts == "verified"
            x, labels = torch.as_tensor(X[:30]), torch.as_tensor(network.encode(y[:30]))
            is_broken = is_broken_on_a_grid(network, property, x, labels)
            assert not (by_method[method] & is_broken).any()
        if property == ClassificationRobustness(0.08):
            assert by_method["crown"].sum() > 8
    result = Cascade(timeout=1.0).verify(
        model, X[:30], y[:30], property=ClassificationRobustness(0.05)
    )
    assert (result.verdicts == "verified").sum() > 10 and (result.verdicts == "falsified").any()
    broken = result.counterexamples[result.verdicts == "falsified"]
    assert (model.predict(broken) != y[:30][result.verdicts == "falsified"]).all()


def test_slopes_of_a_tanh_by_hand():
    # z = (tanh x, 0) changes by at most tanh' = 1, and by less away from 0.
    layers = nn.Sequential(nn.Linear(1, 1, bias=False), nn.Tanh(), nn.Linear(1, 2, bias=False))
    layers[0].weight.data.fill_(1.0)
    layers[2].weight.data = torch.tensor([[1.0], [0.0]])
    network = Network(layers.double().requires_grad_(False), np.arange(2), 1)
    x = torch.tensor([[0.0], [1.0]], dtype=torch.float64)
    for lipschitz, expected in (
        (1.001, ["verified", "verified"]),
        (0.6, ["unknown", "verified"]),
        (0.3, ["unknown", "unknown"]),
    ):
        property = LipschitzRobustness(0.25, lipschitz, bounds=None)
        verdicts = decided(Bounds(), network, property, x).verdicts
        assert verdicts.tolist() == expected, lipschitz


def test_what_has_no_rule_for_them_refuses_by_name():
    model = TorchClassifier(tiny(nn.Tanh()).module.float(), [0, 1, 2])
    X = np.full((1, 2), 0.5, dtype=np.float32)
    with pytest.raises(UnsupportedModelError, match="Tanh"):
        pointwise_robustness(model, X)
    found = pointwise_robustness(model, X, method="certified")
    assert found.radius[0] > 0
