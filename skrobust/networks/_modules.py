"""What is done with torch modules, whatever they compute."""

from contextlib import contextmanager
from copy import copy

import numpy as np
import torch

from skrobust.exceptions import UnsupportedModelError

__all__ = ["dtype_and_device", "evaluation_mode", "linear_layer", "outputs_of", "uncompiled"]


def dtype_and_device(module):
    """Return those of the first parameter of a module that is no integer.

    Parameters
    ----------
    module : torch.nn.Module

    Returns
    -------
    dtype : torch.dtype
        float32 where there is none.
    device : torch.device
    """
    floats = (part for part in module.parameters() if part.is_floating_point())
    first = next(floats, torch.empty(0))
    return first.dtype, first.device


@contextmanager
def evaluation_mode(module):
    """Put a torch module in evaluation mode for a while; parts that were in it stay so.

    Parameters
    ----------
    module : torch.nn.Module

    Yields
    ------
    torch.nn.Module
        The same one.
    """
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield module
    finally:
        for part, was_training in modes:
            part.training = was_training


def outputs_of(module, x):
    """Return what a module computes of rows, without gradient.

    Parameters
    ----------
    module : callable
    x : Tensor of shape (n, n_features)

    Returns
    -------
    object
        Of a module for classification: logits of shape (n, n_classes).

    Raises
    ------
    UnsupportedModelError
        If the module fails; the message holds its own.
    """
    try:
        with torch.no_grad():
            return module(x)
    except Exception as error:  # users' code may raise anything
        raise UnsupportedModelError(
            f"Got a module that fails on rows of shape (n, {x.shape[1]}), but expected one that "
            f"returns logits there. It says: {error}"
        ) from error


def uncompiled(module):
    """Return a module without the wrappers of `torch.compile`, the given one unchanged.

    Parameters
    ----------
    module : torch.nn.Module

    Returns
    -------
    torch.nn.Module
        The given one, where it has no wrappers.
    """
    if hasattr(module, "_orig_mod"):
        return uncompiled(module._orig_mod)
    if not any(hasattr(part, "_orig_mod") for part in module.modules()):
        return module
    children = {name: uncompiled(child) for name, child in module.named_children()}
    module = copy(module)
    module._modules = module._modules | children
    return module


def linear_layer(weight, bias):
    """Return a frozen layer of the arrays weight (outputs, inputs) and bias, in their dtype."""
    weight = torch.tensor(np.array(weight))
    bias = torch.tensor(np.broadcast_to(bias, len(weight)).copy(), dtype=weight.dtype)
    layer = torch.nn.Linear(*weight.shape[::-1], dtype=weight.dtype)
    layer.weight = torch.nn.Parameter(weight, requires_grad=False)
    layer.bias = torch.nn.Parameter(bias, requires_grad=False)
    return layer
