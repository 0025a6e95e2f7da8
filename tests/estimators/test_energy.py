"""The density of weights given data: by hand, by autograd, and in parts."""

import math

import pytest
import torch

from skrobust.estimators import _energy
from skrobust.estimators._energy import (
    PosteriorEnergy,
    floats_per_row,
    prior_std,
    sampled_parameters,
)


def network():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 2))


def data(n=7):
    torch.manual_seed(1)
    return torch.rand(n, 3), torch.arange(n) % 2


def test_energy_by_hand():
    module = torch.nn.Linear(1, 2)
    energy = PosteriorEnergy(
        module, torch.tensor([[2.0]]), torch.tensor([1]), torch.full((4,), 0.5)
    )
    weights = torch.tensor([0.0, 1.0, 0.0, 0.0])  # logits (0, 2)
    value, gradient = energy(weights)
    assert value.dtype == torch.float64
    assert float(value) == pytest.approx(math.log(1 + math.exp(-2)) + 1 / (2 * 0.25))
    p = 1 / (1 + math.exp(2))  # of the other class
    torch.testing.assert_close(gradient, torch.tensor([2 * p, -2 * p + 4, p, -p]))


def test_gradient_is_that_of_autograd():
    X, y = data()
    module = network()
    std = torch.linspace(0.5, 2.0, 26)
    weights = torch.randn(26, requires_grad=True)
    value, gradient = PosteriorEnergy(module, X, y, std)(weights)
    first, bias, second, last = weights.split([12, 4, 8, 2])
    hidden = torch.tanh(X @ first.view(4, 3).T + bias)
    log_likelihood = -torch.nn.functional.cross_entropy(
        hidden @ second.view(2, 4).T + last, y, reduction="sum"
    )
    log_prior = torch.distributions.Normal(0.0, std).log_prob(weights).sum()
    constant = torch.distributions.Normal(0.0, std).log_prob(torch.zeros(26)).sum()
    expected = -(log_likelihood + log_prior - constant)
    assert float(value) == pytest.approx(expected.item(), rel=1e-6)
    torch.testing.assert_close(gradient, torch.autograd.grad(expected, weights)[0])


def test_parts_add_up(monkeypatch):
    X, y = data(9)
    weights, std = torch.randn(26), torch.ones(26)
    value, gradient = PosteriorEnergy(network(), X, y, std)(weights)
    monkeypatch.setattr(_energy, "_BUDGET", 25)
    in_parts = PosteriorEnergy(network(), X, y, std)
    assert len(in_parts.parts) > 3
    value_in_parts, gradient_in_parts = in_parts(weights)
    assert float(value_in_parts) == pytest.approx(float(value))
    torch.testing.assert_close(gradient_in_parts, gradient)


def test_frozen_parameters_are_not_sampled():
    module = network()
    module[0].requires_grad_(False)
    kept = module[0].weight.clone()
    assert sum(p.numel() for p in sampled_parameters(module)) == 10
    energy = PosteriorEnergy(module, *data(), torch.ones(10))
    assert energy(torch.randn(10))[1].shape == (10,)
    assert torch.equal(module[0].weight, kept)


def test_parameters_without_effect_have_the_prior_alone():
    class Idle(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.idle = torch.nn.Linear(3, 2), torch.nn.Linear(2, 2)

        def forward(self, x):
            return self.used(x)

    weights = torch.randn(14)
    _, gradient = PosteriorEnergy(Idle(), *data(), torch.ones(14))(weights)
    torch.testing.assert_close(gradient[8:], weights[8:])


def test_prior_by_hand():
    module = torch.nn.Sequential(torch.nn.Conv2d(2, 1, 3), torch.nn.Linear(4, 2))
    assert (prior_std(module, 3.0, "isotropic") == 3.0).all()
    std = prior_std(module, 3.0, "fan-in")
    kernel, bias, matrix, last = std.split([18, 1, 8, 2])
    torch.testing.assert_close(kernel, torch.full((18,), 3 / math.sqrt(18)))
    torch.testing.assert_close(matrix, torch.full((8,), 1.5))
    assert (bias == 3.0).all() and (last == 3.0).all()
    # A unit of a transposed convolution has inputs of its group, as many as the kernel has places.
    module = torch.nn.ConvTranspose2d(4, 6, 3, groups=2)
    kernel = prior_std(module, 3.0, "fan-in")[: module.weight.numel()]
    torch.testing.assert_close(kernel, torch.full_like(kernel, 3 / math.sqrt(2 * 9)))


def test_floats_of_a_row_by_hand():
    # 4 + 4 + 2 of the layers, 2 of the whole.
    assert floats_per_row(network(), torch.rand(2, 3)) == 12
    assert floats_per_row(network(), torch.rand(5, 3)) == 12
