"""What is done with torch modules, whatever they compute."""

from contextlib import contextmanager
from copy import copy, deepcopy

import numpy as np
import torch

from skrobust._validation import kind_of
from skrobust.exceptions import UnsupportedModelError

__all__ = [
    "check_logits",
    "check_precision",
    "copied",
    "dtype_and_device",
    "evaluation_mode",
    "linear_layer",
    "outputs_of",
    "uncompiled",
]


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


def check_precision(dtype):
    """Refuse a type that is too coarse for bounds and gradients.

    Parameters
    ----------
    dtype : torch.dtype
        Of the parameters of a module.

    Raises
    ------
    UnsupportedModelError
        If it is neither float32 nor float64.
    """
    if dtype not in (torch.float32, torch.float64):
        name = str(dtype).removeprefix("torch.")
        raise UnsupportedModelError(
            f"Got a module in {name}, but expected float32 or float64. Convert a copy of it "
            "with module.float()."
        )


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


def outputs_of(module, x, given=""):
    """Return what a module computes of rows, without gradient.

    Parameters
    ----------
    module : callable
    x : Tensor of shape (n, n_features)
    given : str, default=""
        What else the message is to tell of the rows, such as "with input_shape=None".

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
            f"Got a module that fails on rows of shape (n, {x.shape[1]}){given and ' ' + given}, "
            f"but expected one that returns logits there. It says: {error}"
        ) from error


def check_logits(outputs, n_rows, n_classes=None, when=""):
    """Return what a module returned, if it is one logit for each row and class.

    Parameters
    ----------
    outputs : object
    n_rows : int
    n_classes : int, default=None
        Any number if None.
    when : str, default=""
        What the message is to tell of the module, such as "in training mode".

    Returns
    -------
    Tensor of shape (n_rows, n_classes)

    Raises
    ------
    UnsupportedModelError
        If it is no tensor.
    ValueError
        If it has another shape.
    """
    when = when and " " + when
    if not isinstance(outputs, torch.Tensor):
        raise UnsupportedModelError(
            f"Got a module that returns {kind_of(outputs)}{when}, but expected one tensor: logits "
            "of shape (n, n_classes). Wrap a module that returns more than that, as recurrent "
            "layers do, in one that returns the logits alone."
        )
    shape = tuple(outputs.shape)
    if len(shape) != 2 or shape[0] != n_rows or n_classes not in (None, shape[1]):
        wanted = f"({n_rows}, {'n_classes' if n_classes is None else n_classes})"
        raise ValueError(
            f"Got a module with outputs of shape {shape} for {n_rows} rows{when}, but expected "
            f"{wanted}: one logit for each class."
        )
    return outputs


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


def copied(module, name="module"):
    """Return a copy of a module that can be trained, read and pickled.

    Parameters
    ----------
    module : torch.nn.Module
        Of one that was compiled, the original is copied.
    name : str, default="module"
        Of the argument, for the message.

    Returns
    -------
    torch.nn.Module

    Raises
    ------
    UnsupportedModelError
        If the module was scripted.
    """
    if isinstance(module, torch.jit.ScriptModule):
        raise UnsupportedModelError(
            f"Got {name}={type(module).__name__}, but expected a module that is not scripted: "
            "what torch.jit.script returns cannot be copied. Give the module that it was made of."
        )
    return deepcopy(uncompiled(module))


def linear_layer(weight, bias):
    """Return a frozen layer of the arrays weight (outputs, inputs) and bias, in their dtype."""
    weight = torch.tensor(np.array(weight))
    bias = torch.tensor(np.broadcast_to(bias, len(weight)).copy(), dtype=weight.dtype)
    layer = torch.nn.Linear(*weight.shape[::-1], dtype=weight.dtype)
    layer.weight = torch.nn.Parameter(weight, requires_grad=False)
    layer.bias = torch.nn.Parameter(bias, requires_grad=False)
    return layer
