r"""How networks start, and what steadies them, where intervals are trained.

Intervals widen with each layer where weights are those of usual training, and units end up
inactive. Both is met at the start: by the variance of the weights, and by a loss of the first
epochs.

References
----------
Shi et al., "Fast certified robust training with short warmup", NeurIPS 2021, sections 3.2
(initialization) and 3.4 (regularization). The averages are those of its public code.
"""

import math

import torch
from torch import nn

from skrobust.graphs import Relu

__all__ = ["imbalance", "initialize"]

_TOLERANCE = 0.5  # below which a ratio is penalized
_LEAST = 1e-12
_AFFINE = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


def initialize(module, generator=None):
    r"""Draw the weights of all affine layers but the last anew, of mean 0, in place.

    Of n inputs of a unit, the sum of their absolute weights times their half-widths has the mean
    :math:`n \sigma \sqrt{2 / \pi}` times the half-width; ReLU leaves half of it. With
    :math:`\sigma = \sqrt{2 \pi} / n` that is as wide as the input.

    Parameters
    ----------
    module : torch.nn.Module
    generator : torch.Generator, default=None
        On the device of the module.
    """
    layers = [layer for layer in module.modules() if isinstance(layer, _AFFINE)]
    with torch.no_grad():
        for layer in layers[:-1]:
            n_inputs = layer.weight[0].numel()
            layer.weight.normal_(0.0, math.sqrt(2 * math.pi) / n_inputs, generator=generator)


def imbalance(relaxation):
    """Return how much intervals widen, and how unequal active and inactive units are.

    Parameters
    ----------
    relaxation : Relaxation
        With intervals of all nodes.

    Returns
    -------
    Tensor of shape ()
        The mean over layers of rectifiers; 0 where there is none.
    """
    lows, highs = relaxation.lows, relaxation.highs
    width = (highs[0] - lows[0]).mean()
    parts = []
    for node in relaxation.graph.nodes:
        if isinstance(node, Relu):
            (j,) = node.inputs
            widening = width / (highs[j] - lows[j]).mean().clamp(min=_LEAST)
            parts.append(_shortfall(widening) + _imbalance_of_units(lows[j], highs[j]))
    return torch.stack(parts).mean() if parts else lows[0].new_zeros(())


def _imbalance_of_units(low, high):
    """Compare the centers of units that are active with those that are not, over a batch."""
    center = (low + high) / 2
    is_active, is_inactive = low > 0, high < 0
    if not (is_active.any() and is_inactive.any()):
        return low.new_zeros(())  # no ratio: the paper's code leaves such layers out
    deviation = (center - center.mean()) ** 2
    means = (center * is_active).sum(), -(center * is_inactive).sum()
    variances = (deviation * is_active).sum(), (deviation * is_inactive).sum()
    return _shortfall(_ratio(*means)) + _shortfall(_ratio(*variances))


def _ratio(first, second):
    """Return the smaller over the larger one."""
    return torch.minimum(first, second) / torch.maximum(first, second).clamp(min=_LEAST)


def _shortfall(ratio):
    return torch.relu(_TOLERANCE - ratio) / _TOLERANCE
