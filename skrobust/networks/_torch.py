"""skorch classifiers as networks."""

import math

import numpy as np
import torch
from sklearn.utils.validation import check_is_fitted
from skorch import NeuralNetBinaryClassifier, NeuralNetClassifier

from skrobust.networks._base import Network, as_network

__all__ = []


class _LogProbabilities(torch.nn.Module):
    """Logits of a module that returns probabilities: softmax(log p) is p again."""

    def __init__(self, module):
        super().__init__()
        self.module = module

    def forward(self, x):
        p = self.module(x)
        return p.clamp(min=torch.finfo(p.dtype).tiny).log()


class _BinaryLogits(torch.nn.Module):
    """The two logits (0, s - threshold) of a module with one output s."""

    def __init__(self, module, threshold):
        super().__init__()
        self.module = module
        self.shift = math.log(threshold / (1 - threshold))

    def forward(self, x):
        score = self.module(x).reshape(-1, 1) - self.shift
        return torch.cat([torch.zeros_like(score), score], dim=1)


def _without_softmax(module):
    """Return the logits of a module that ends in probabilities, piecewise linear if it can be."""
    if isinstance(module, torch.nn.Sequential) and isinstance(module[-1], torch.nn.Softmax):
        return module[:-1]
    return _LogProbabilities(module)


def _shaped(module, input_shape):
    if input_shape is None or len(input_shape) == 1:
        return module
    return torch.nn.Sequential(torch.nn.Unflatten(1, tuple(input_shape)), module)


@as_network.register
def _(net: NeuralNetClassifier, *, input_shape=None):
    check_is_fitted(net)
    module = net.module_
    if isinstance(net.criterion_, torch.nn.NLLLoss):
        module = _without_softmax(module)
    # With another criterion, skorch's predict_proba returns the outputs as they are.
    probabilistic = isinstance(net.criterion_, torch.nn.NLLLoss | torch.nn.CrossEntropyLoss)
    # skorch predicts the index of the largest output, whatever the labels were.
    # A class that was not seen leaves a gap.
    classes = np.arange(int(np.max(net.classes_)) + 1)
    n_features = None if input_shape is None else math.prod(input_shape)
    module = _shaped(module, input_shape)
    return Network(module, classes, n_features, probabilistic=probabilistic)


@as_network.register
def _(net: NeuralNetBinaryClassifier, *, input_shape=None):
    check_is_fitted(net)
    module = _BinaryLogits(net.module_, net.threshold)
    n_features = None if input_shape is None else math.prod(input_shape)
    return Network(_shaped(module, input_shape), np.arange(2), n_features)
