"""Modules to train: made, copied, and looked at before they are trusted."""

from itertools import pairwise

import numpy as np
import torch

from skrobust._validation import expected, shown
from skrobust.exceptions import UnsupportedModelError
from skrobust.networks import copied

__all__ = []


def perceptron(n_inputs, hidden_layer_sizes, n_outputs, activation=torch.nn.ReLU):
    """Return a network of linear layers with an activation between them."""
    sizes = [n_inputs, *hidden_layer_sizes]
    layers = []
    for before, after in pairwise(sizes):
        layers += [torch.nn.Linear(before, after), activation()]
    return torch.nn.Sequential(*layers, torch.nn.Linear(sizes[-1], n_outputs))


def n_features_of(module):
    """Return how many features a module takes, where its first layer tells."""
    while isinstance(module, torch.nn.Sequential) and len(module):
        module = module[0]
    return module.in_features if isinstance(module, torch.nn.Linear) else None


def made(factory, arguments):
    """Return the module that a class or function makes; raise where it is none."""
    try:
        module = factory(**arguments)
    except TypeError as error:
        raise TypeError(
            f"Got module={shown(factory)} with module_params={shown(arguments)}, but expected a "
            f"callable that takes these. It says: {error}"
        ) from error
    if not isinstance(module, torch.nn.Module):
        raise TypeError(expected("module", factory, "a callable that returns a torch.nn.Module"))
    return copied(module)


def check_float32(module):
    """Raise an UnsupportedModelError if a module computes in another type than the data."""
    tensors = (*module.parameters(), *module.buffers())
    others = {t.dtype for t in tensors if t.is_floating_point()} - {torch.float32}
    if others:
        shown = ", ".join(sorted(map(str, others)))
        raise UnsupportedModelError(
            f"Got a module with parameters of {shown}, but expected torch.float32, in which the "
            "data are. Use module.float()."
        )


def check_input_shape(input_shape):
    """Return the shape of one sample as a tuple of ints, or None."""
    if input_shape is None:
        return None
    try:
        shape = np.atleast_1d(np.asarray(input_shape))
    except ValueError:  # ragged
        shape = np.empty(0)
    if shape.ndim > 1 or shape.dtype.kind not in "iu" or not len(shape) or (shape < 1).any():
        expectation = "None, or a tuple of positive integers, such as (1, 28, 28)"
        raise ValueError(expected("input_shape", input_shape, expectation))
    return tuple(shape.tolist())


def check_criterion(criterion, arguments, logits):
    """Raise a ValueError if a criterion does not make a loss, a scalar, of logits and labels."""
    labels = torch.arange(len(logits), device=logits.device) % logits.shape[1]
    try:
        loss = criterion(**arguments)
        loss = loss.to(logits.device) if isinstance(loss, torch.nn.Module) else loss
        value = loss(logits, labels)
    except Exception as error:  # whatever a user's code raises
        expectation = f"what takes logits and labels. It says: {error}"
        raise ValueError(_criterion_refusal(criterion, arguments, expectation)) from error
    if not isinstance(value, torch.Tensor) or value.ndim:
        expectation = "what returns a scalar tensor."
        raise ValueError(_criterion_refusal(criterion, arguments, expectation))


def _criterion_refusal(criterion, arguments, expectation):
    given = f"criterion={shown(criterion)} with criterion_params={shown(arguments)}"
    return f"Got {given}, but expected {expectation}"
