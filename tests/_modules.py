"""Piecewise linear modules that together use every operation that can be read."""

import pytest
import torch
from torch import nn
from torch.nn import functional


class Residual(nn.Module):
    """Arbitrary forward code: a loop over sizes, a residual sum, functional forms."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 3, 3, padding="same")
        self.norm = nn.BatchNorm2d(3)
        self.skip = nn.Conv2d(1, 3, 1)
        self.last = nn.Linear(3 * 16, 4)
        self.norm.running_mean.uniform_(-1, 1)
        self.norm.running_var.uniform_(0.5, 2)

    def forward(self, x):
        x = x.view(x.size(0), 1, 8, 8)
        x = functional.relu(self.norm(self.conv(x))) + self.skip(x)
        x = functional.max_pool2d(x, 2)
        count = 1
        for size in x.shape[1:]:
            count *= size
        return self.last(x.reshape(-1, count))


class Branches(nn.Module):
    """Nearly every reader once."""

    def __init__(self):
        super().__init__()
        self.relu = nn.ReLU(inplace=True)
        self.prelu = nn.PReLU(2)
        self.conv = nn.Conv1d(2, 3, 3, stride=2, padding=1, dilation=2)
        self.norm = nn.BatchNorm1d(3)
        self.pool = nn.MaxPool2d(3, 2, 1, ceil_mode=True)
        self.average = nn.AvgPool2d(2, padding=1, count_include_pad=False)
        self.adaptive = nn.AdaptiveAvgPool2d((3, 2))
        self.dropout = nn.Dropout2d()
        self.matrix = nn.Parameter(torch.randn(5, 4))
        self.register_buffer("one", torch.ones(2, 1, 1))

    def forward(self, x):
        x = nn.Unflatten(1, (2, 4, 6))(x)
        x = self.prelu(self.dropout(x - 0.4)) * 2 + self.one
        parts = [self.pool(x), self.average(x), self.adaptive(x), functional.pad(x, (1, 0, 2, 0))]
        parts += [part.neg() / 3 for part in x.chunk(2, dim=1)]
        parts += [self.norm(self.conv(x.flatten(2))), x.transpose(1, 2)[:, 1:, :, ::2]]
        parts += [x.mean(dim=(2, 3)), x.sum(1, keepdim=True).clamp(max=2.0), (1 - x).abs()]
        x = torch.cat([part.flatten(1) for part in parts], dim=1)
        x = functional.hardtanh(self.relu(x[:, 1::7][:, :20]), 0.2, 1.5)
        x = x.view(len(x), 4, 5) @ self.matrix
        x = functional.leaky_relu(x.clone(), 0.2).permute(0, 2, 1).squeeze(1)
        x = functional.max_pool1d(x, 2)
        return torch.cat([torch.zeros_like(x[..., 0]), x[..., 1]], dim=1)


def lenet():
    return nn.Sequential(
        nn.Unflatten(1, (1, 12, 12)),
        nn.Conv2d(1, 3, 3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(3, 4, 2),
        nn.MaxPool2d(2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(16, 5),
    )


def perceptron():
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3))


MODULES = [
    pytest.param(perceptron, 6, id="perceptron"),
    pytest.param(lenet, 144, id="lenet"),
    pytest.param(Residual, 64, id="residual"),
    pytest.param(Branches, 48, id="branches"),
]


def build(factory, seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return factory().eval().double()


def sample(n, n_features, seed=1):
    return torch.rand(n, n_features, generator=torch.Generator().manual_seed(seed)).double()
