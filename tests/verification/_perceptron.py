"""A random ReLU perceptron, as a network."""

import itertools
import math

import numpy as np
import torch
from torch import nn

from skrobust.networks import Network


def perceptron(seed, sizes=(3, 4, 2, 3), scale=1.5, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    layers = []
    for before, after in itertools.pairwise(sizes):
        layer = nn.Linear(before, after)
        weight = scale * torch.randn(after, before, generator=generator) / math.sqrt(before)
        layer.weight = nn.Parameter(weight, requires_grad=False)
        bias = 0.3 * torch.randn(after, generator=generator)
        layer.bias = nn.Parameter(bias, requires_grad=False)
        layers += [layer, nn.ReLU()]
    module = nn.Sequential(*layers[:-1]).to(dtype)
    return Network(module, np.arange(sizes[-1]), sizes[0])
