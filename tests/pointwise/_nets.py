"""Small networks with known radii, and what all results of them obey."""

import copy
import itertools

import numpy as np
import torch
from scipy.optimize import linprog
from torch import nn

from skrobust import TorchClassifier


def seeded(factory, seed=0):
    """A random net, made steep, and such that no class wins everywhere."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        module = factory().eval()
        last = module[-1]
        for part in module:
            if hasattr(part, "weight"):
                part.weight.data *= 2
        n_features = 64 if isinstance(module[0], nn.Unflatten) else module[0].in_features
        logits = module(torch.rand(500, n_features)).detach()
        last.bias.data -= logits.mean(dim=0)
        return module


def perceptron(n=5, hidden=8, classes=3):
    return nn.Sequential(
        nn.Linear(n, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(),
        nn.Linear(hidden, classes),
    )  # fmt: skip


def convolutional():
    return nn.Sequential(
        nn.Unflatten(1, (1, 8, 8)), nn.Conv2d(1, 4, 3), nn.LeakyReLU(0.1), nn.MaxPool2d(2),
        nn.Conv2d(4, 6, 2), nn.BatchNorm2d(6), nn.Hardtanh(-0.4, 0.4), nn.AvgPool2d(2),
        nn.Flatten(), nn.Linear(6, 3),
    )  # fmt: skip


def points(n, n_features, seed=0):
    rng = np.random.default_rng(seed)
    return (rng.integers(0, 17, (n, n_features)) / 16).astype(np.float32)


def assert_confirmed(model, X, result, labels, bounds=(0.0, 1.0)):
    """Every finite radius belongs to a point of the domain, that far, with another label."""
    found = np.isfinite(result.radius)
    assert np.isnan(result.adversarial_examples[~found]).all()
    points = result.adversarial_examples[found]
    assert (points >= bounds[0]).all() and (points <= bounds[1]).all()
    distance = np.abs(points.astype(float) - X[found].astype(float)).max(axis=1)
    np.testing.assert_allclose(distance, result.radius[found], rtol=0, atol=1e-12)
    assert found.any()
    assert (model.predict(points) != labels[found]).all()
    return found


def diagonal():
    """Class 1 where x1 + x2 > 1."""
    module = nn.Linear(2, 2)
    module.weight.data = torch.tensor([[0.0, 0.0], [1.0, 1.0]])
    module.bias.data = torch.tensor([0.0, -1.0])
    return TorchClassifier(module, 2)


def tent():
    """Scores 0 and relu(x1 - 1/2) + relu(1/2 - x1) - 1/4: class 1 where |x1 - 1/2| > 1/4."""
    module = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2))
    module[0].weight.data = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
    module[0].bias.data = torch.tensor([-0.5, 0.5])
    module[2].weight.data = torch.tensor([[0.0, 0.0], [1.0, 1.0]])
    module[2].bias.data = torch.tensor([0.0, -0.25])
    return TorchClassifier(module, 2)


def global_radius(module, x, n_hidden):
    """The true radius of a net with one hidden layer: brute force over activation patterns."""
    first, last = (module[i] for i in (0, 2))
    W, b = first.weight.detach().double().numpy(), first.bias.detach().double().numpy()
    V, c = last.weight.detach().double().numpy(), last.bias.detach().double().numpy()
    logits = V @ np.maximum(W @ x + b, 0) + c
    label, n = logits.argmax(), len(x)
    best = np.inf
    cost = np.append(np.zeros(n), 1.0)
    ball = np.block([[np.eye(n), -np.ones((n, 1))], [-np.eye(n), -np.ones((n, 1))]])
    for pattern in itertools.product([0.0, 1.0], repeat=n_hidden):
        on = np.array(pattern)
        sign = 2 * on - 1
        region = np.hstack([-sign[:, None] * W, np.zeros((n_hidden, 1))])
        U, d = (V * on) @ W, (V * on) @ b + c
        for target in set(range(len(V))) - {label}:
            row = np.append(U[label] - U[target], 0.0)
            A = np.vstack([region, row, ball])
            right = np.concatenate([sign * b, [d[target] - d[label]], x, -x])
            found = linprog(cost, A_ub=A, b_ub=right, bounds=[(0, 1)] * n + [(0, None)])
            if found.status == 0:
                best = min(best, found.fun)
    return best


def plateau():
    """The scores are relu(1/2 - x) and 0: class 1 never wins, but ties from 1/2 on."""
    module = nn.Sequential(nn.Linear(1, 1), nn.ReLU(), nn.Linear(1, 2))
    module[0].weight.data, module[0].bias.data = torch.tensor([[-1.0]]), torch.tensor([0.5])
    module[2].weight.data, module[2].bias.data = torch.tensor([[1.0], [0.0]]), torch.zeros(2)
    return TorchClassifier(module, 2)


class Scaled(nn.Module):
    """A net whose inputs and outputs are in other units."""

    def __init__(self, net, inputs, outputs):
        super().__init__()
        self.net, self.outputs = copy.deepcopy(net).double(), outputs
        self.net[0].weight.data /= inputs

    def forward(self, x):
        return self.net(x) * self.outputs
