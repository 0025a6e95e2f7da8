"""Small networks of each kind of unit, and properties of each kind of row."""

import numpy as np
import torch
from torch import nn

from skrobust import TorchClassifier
from skrobust.networks import LinfDistanceLayer
from skrobust.properties import (
    ClassificationRobustness,
    LipschitzRobustness,
    StandardRobustness,
    StrongClassificationRobustness,
)


def small(kind, n=6, scale=1.0):
    """Return a network whose weights are `scale` times as large as usual, and points."""
    torch.manual_seed(2)
    middle = {
        "relu": [nn.Linear(n, 10), nn.LeakyReLU(0.1), nn.Linear(10, 6), nn.ReLU()],
        "clamp": [nn.Linear(n, 10), nn.Hardtanh(-0.5, 0.5), nn.Linear(10, 6), nn.ReLU6()],
        "pool": [nn.Linear(n, 9), nn.Unflatten(1, (1, 3, 3)), nn.MaxPool2d(2, 1), nn.Flatten(),
                 nn.Linear(4, 6), nn.ReLU()],
        "tanh": [nn.Linear(n, 10), nn.Tanh(), nn.Linear(10, 6), nn.Tanh()],
        "linf distance": distances(n),
    }[kind]  # fmt: skip
    module = nn.Sequential(*middle, nn.Linear(6, 3))
    with torch.no_grad():
        for layer in module:
            if isinstance(layer, nn.Linear):
                layer.weight.mul_(scale)
        if kind == "linf distance":  # their outputs are as steep as the last layer
            module[-1].weight.div_(2)
    model = TorchClassifier(module, [0, 1, 2])
    return model, np.random.default_rng(0).random((4, n))


def distances(n):
    """Return layers of distances, and leave the random numbers of other layers as they are."""
    with torch.random.fork_rng():
        return [LinfDistanceLayer(n, 10), LinfDistanceLayer(10, 6)]


CR = ClassificationRobustness(0.15, reference="prediction")
PROPERTIES = {
    "distance": LipschitzRobustness(0.15, lipschitz=0.9),
    "distance, L2": LipschitzRobustness(0.15, lipschitz=1.5, norm="l2"),
    "concave": StrongClassificationRobustness(0.15, eta=0.3, reference="prediction"),
    "all": LipschitzRobustness(0.15, lipschitz=1.0) & StandardRobustness(0.15, delta=0.3)
    & StrongClassificationRobustness(0.15, eta=0.25, reference="prediction"),
    "mixtures": CR | StandardRobustness(0.15, delta=0.05),
}  # fmt: skip

# For weights of twice the size, these need trees, on some kinds of units at least.
HARD = {
    "distance": [LipschitzRobustness(0.15, lipschitz=v) for v in (2.0, 3.0, 4.0)],
    "distance, L2": [LipschitzRobustness(0.15, lipschitz=v, norm="l2") for v in (2.0, 3.0)],
    "concave": [
        StrongClassificationRobustness(v, eta=0.3, reference="prediction") for v in (0.1, 0.2)
    ],
    "sides": [
        ClassificationRobustness(sides, norm=norm, reference="prediction")
        for sides, norm in (((0.01, 0.03), "linf"), ((0.1, 0.05), "linf"), ((0.1, 0.3), "l2"))
    ],
    "mixtures": [
        ClassificationRobustness(v, reference="prediction") | StandardRobustness(v, delta=v + 0.1)
        for v in (0.1, 0.15, 0.25)
    ],
}
