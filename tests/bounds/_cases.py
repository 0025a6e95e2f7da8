"""Networks, balls and rows that the tests of bounds share."""

import numpy as np
import pytest
import torch
from torch import nn

from skrobust.properties import ClassificationRobustness, LinearRows


class Everything(nn.Module):
    """Convolution, batch norm, residual sum, max-pool, leaky ReLU, clamp, abs, average pool."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 3, padding=1)
        self.norm = nn.BatchNorm2d(2)
        self.skip = nn.Conv2d(1, 2, 1)
        self.last = nn.Linear(8, 3)
        self.norm.running_mean.uniform_(-0.5, 0.5)
        self.norm.running_var.uniform_(0.5, 2)

    def forward(self, x):
        x = x.view(len(x), 1, 4, 4)
        x = torch.relu(self.norm(self.conv(x))) + self.skip(x)
        x = nn.functional.leaky_relu(nn.functional.max_pool2d(x, 2), 0.2)
        x = (x.flatten(1) - 0.1).abs().clamp(0.05, 0.7)
        return self.last(x)


def perceptron():
    return nn.Sequential(nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3))


def steep():
    """Leaky ReLU with a slope above 1, which is concave, and a smoothing pool."""
    return nn.Sequential(
        nn.Linear(16, 8),
        nn.LeakyReLU(1.7),
        nn.Unflatten(1, (1, 8)),
        nn.AvgPool1d(2),
        nn.Flatten(),
        nn.Hardtanh(-0.2, 0.3),
        nn.Linear(4, 3),
    )


def build(factory, seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return factory().eval().requires_grad_(False)


def centers(n=3, seed=1):
    x = torch.rand(n, 16, generator=torch.Generator().manual_seed(seed))
    x[0, :8] = 0  # at the border of the domain
    return x


def all_rows(n, n_classes=3, seed=2):
    """Each output from both sides, and some rows of no special kind."""
    eye = torch.eye(n_classes).double().expand(n, -1, -1)
    generator = torch.Generator().manual_seed(seed)
    A = torch.cat([eye, -eye, torch.randn(n, 2, n_classes, generator=generator).double()], dim=1)
    zeros = torch.zeros(A.shape[:2], dtype=torch.float64)
    return LinearRows(A, zeros, zeros, False, uses_distance=False)


BALLS = [
    pytest.param(ClassificationRobustness(0.05), id="linf"),
    pytest.param(ClassificationRobustness(0.3, bounds=None), id="linf-wide"),
    pytest.param(ClassificationRobustness(np.linspace(0, 0.2, 16)), id="linf-features"),
    pytest.param(ClassificationRobustness(0.2, norm="l2"), id="l2"),
    pytest.param(ClassificationRobustness(1.0, norm="l2"), id="l2-wide"),
    pytest.param(ClassificationRobustness(np.linspace(0, 0.5, 16), norm="l2"), id="l2-features"),
]


def corners_and_samples(ball, n_samples, seed=0):
    """Points of each ball: uniform ones, and for boxes their corners."""
    generator = torch.Generator().manual_seed(seed)
    points = ball.sample(n_samples, generator)
    if ball.norm == "linf":
        picks = torch.rand(points.shape, generator=generator) < 0.5
        corners = torch.where(picks, ball.lower.unsqueeze(1), ball.upper.unsqueeze(1))
        points = torch.cat([points, corners], dim=1)
    return points
