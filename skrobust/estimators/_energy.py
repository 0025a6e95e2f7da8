"""Minus the log density of the weights of a network, given data."""

import math

import torch
from torch.nn.utils import parameters_to_vector, vector_to_parameters

__all__ = []

_TRANSPOSED = torch.nn.ConvTranspose1d, torch.nn.ConvTranspose2d, torch.nn.ConvTranspose3d

_BUDGET = 2**24  # floats that the layers of a network may hold at one time, 64 MiB


class PosteriorEnergy:
    """Minus the log of prior times likelihood, up to a constant, and its gradient.

    The likelihood is the product, over all rows, of the softmax of the module's outputs at the
    label; the prior of each weight is normal around 0. Rows go through the module in parts, so
    that memory does not grow with their number.

    Parameters
    ----------
    module : torch.nn.Module
        From rows to logits, in evaluation mode. Its weights are those of the last call.
    X : Tensor of shape (n_samples, n_features)
    labels : Tensor of shape (n_samples,)
        Class indices.
    prior_std : Tensor of shape (n_weights,)
        Standard deviation of the prior.

    Attributes
    ----------
    parameters : list of Parameter
        Those that are sampled, which together are the vector of weights.
    """

    def __init__(self, module, X, labels, prior_std):
        self.module = module
        self.parameters = sampled_parameters(module)
        self.precision = prior_std.double().square().reciprocal().to(prior_std)
        n_rows = max(1, _BUDGET // floats_per_row(module, X[:2]))
        self.parts = list(zip(X.split(n_rows), labels.split(n_rows), strict=True))

    def __call__(self, weights):
        """Return the energy, a float64 scalar, and its gradient, of shape (n_weights,)."""
        weights = weights.detach()
        vector_to_parameters(weights, self.parameters)
        pull = self.precision * weights
        value = 0.5 * torch.sum(pull * weights, dtype=torch.float64)
        gradient = pull
        for x, labels in self.parts:
            with torch.enable_grad():
                losses = torch.nn.functional.cross_entropy(
                    self.module(x), labels, reduction="none"
                )
                loss = losses.sum(dtype=torch.float64)
                parts = torch.autograd.grad(loss, self.parameters, materialize_grads=True)
            value = value + loss.detach()
            gradient += torch.cat([part.reshape(-1) for part in parts])
        return value, gradient


def sampled_parameters(module):
    """Return the parameters that are sampled, in order: those that ask for a gradient."""
    return [parameter for parameter in module.parameters() if parameter.requires_grad]


def prior_std(module, scale, prior):
    """Return the standard deviation of the prior of each sampled weight, as one vector.

    Parameters
    ----------
    module : torch.nn.Module
    scale : float
    prior : {"isotropic", "fan-in"}
        Whether matrices and kernels have `scale` too, or `scale` over the root of the number of
        inputs of a unit.
    """
    stds = []
    transposed = {
        id(part.weight): part.groups for part in module.modules() if isinstance(part, _TRANSPOSED)
    }
    for parameter in sampled_parameters(module):
        fan_in = 1
        if prior == "fan-in" and parameter.ndim > 1:
            fan_in = parameter[0].numel()
        if prior == "fan-in" and id(parameter) in transposed:  # inputs come first in its shape
            fan_in = parameter[:, 0].numel() // transposed[id(parameter)]
        stds.append(torch.full_like(parameter, scale / math.sqrt(fan_in)))
    return parameters_to_vector(stds).detach()


def floats_per_row(module, x):
    """Return how many floats the layers of a module make of each row."""
    total = 0

    def count(layer, args, output):
        nonlocal total
        if isinstance(output, torch.Tensor):
            total += output.numel()

    hooks = [part.register_forward_hook(count) for part in module.modules()]
    try:
        with torch.no_grad():
            module(x)
    finally:
        for hook in hooks:
            hook.remove()
    return max(1, total // len(x))
