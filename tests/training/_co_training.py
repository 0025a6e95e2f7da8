"""Small classifiers and generators for the tests of co-training."""

import numpy as np
import torch

from skrobust import RobustClassifier
from tests.training._steps import linear

FREE = {"bounds": None, "generator_optimizer": torch.optim.SGD}


def small(training, **params):
    defaults = {"hidden_layer_sizes": 8, "max_epochs": 3, "batch_size": 20, "random_state": 0}
    return RobustClassifier(training=training, **(defaults | params))


def weights(module):
    return torch.cat([p.detach().flatten() for p in module.parameters()])


def shift(*moves):
    """Return a generator that moves each input by as much."""
    return linear(np.eye(len(moves), dtype=np.float32).tolist(), moves)
