"""Small networks, rows and closed forms that the tests of attacks share."""

import numpy as np
import torch


class Counting(torch.nn.Module):
    """Keeps the number of rows of each call."""

    def __init__(self, module):
        super().__init__()
        self.module, self.rows = module, []

    def forward(self, x):
        self.rows.append(len(x))
        return self.module(x)


def small_net(n_classes=3, seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        layers = torch.nn.Linear(4, 16), torch.nn.Tanh(), torch.nn.Linear(16, n_classes)
        return torch.nn.Sequential(*layers).requires_grad_(False)


def rows(n=30, seed=0):
    x = torch.rand((n, 4), generator=torch.Generator().manual_seed(seed))
    return 0.05 + 0.9 * x


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def linear_net(n_classes=2, seed=0):
    net = torch.nn.Linear(4, n_classes, dtype=torch.float64).requires_grad_(False)
    net.weight.copy_(torch.tensor(np.random.default_rng(seed).normal(size=(n_classes, 4))))
    # A bias under which no label is broken within reach.
    net.bias.zero_()[0] = 20.0
    return net


def worst_margin(net, x, epsilon, norm, bounds=None):
    """Closed form: the lowest logit difference in the ball, for each other class."""
    weight = (net.weight[0] - net.weight[1:]).numpy()
    bias = (net.bias[0] - net.bias[1:]).numpy()
    x, epsilon = x.numpy(), np.broadcast_to(epsilon, 4)
    margins = []
    for w, b in zip(weight, bias, strict=True):
        if norm == "l2":
            margins.append(x @ w + b - np.linalg.norm(w * epsilon))
            continue
        low, high = x - epsilon, x + epsilon
        if bounds is not None:
            low, high = low.clip(*bounds), high.clip(*bounds)
        margins.append(np.where(w > 0, low, high) @ w + b)
    return np.min(margins, axis=0)
