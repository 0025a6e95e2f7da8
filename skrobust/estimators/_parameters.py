"""Checks of the parameters of classifiers that train a network, and what they stand for."""

import numpy as np
import torch
from sklearn.utils.multiclass import check_classification_targets
from skorch.callbacks import Callback

from skrobust._validation import check_device, check_instance, check_integer, check_real, expected
from skrobust.estimators._modules import check_input_shape, made, perceptron
from skrobust.estimators._weights import check_class_weight
from skrobust.networks import copied
from skrobust.properties import check_property
from skrobust.training import TrainingRegime

__all__ = []


def check_net_parameters(model):
    """Raise an error that names the first parameter, of those that all nets have, not valid."""
    check_integer("max_epochs", model.max_epochs, low=1)
    check_integer("batch_size", model.batch_size, low=1)
    # Torch multiplies by it in the float32 of the module.
    check_real("lr", model.lr, low=0, high=float(np.finfo(np.float32).max), closed="right")
    check_device(model.device)
    _check_callable("optimizer", model.optimizer, optional=False)
    _check_arguments("optimizer_params", model.optimizer_params)
    _check_callbacks(model.callbacks)


def check_parameters(model):
    """Raise a ValueError or TypeError that names the first parameter that is not valid."""
    check_net_parameters(model)
    check_class_weight(model.class_weight)
    if model.clamp is not None and not _is_range(model.clamp):
        expectation = "None, or a pair (low, high) of finite floats with low < high"
        raise ValueError(expected("clamp", model.clamp, expectation))
    for name in ("criterion", "train_split"):
        _check_callable(name, getattr(model, name), optional=name != "criterion")
    _check_arguments("criterion_params", model.criterion_params)
    check_module_parameters(model)


def check_module_parameters(model):
    """Raise if `module`, `module_params` and `input_shape` do not go together."""
    _check_callable("module", model.module, optional=True)
    _check_arguments("module_params", model.module_params)
    takes_none = model.module is None or isinstance(model.module, torch.nn.Module)
    if model.module_params and takes_none:
        expectation = "None, unless module is a callable that takes them"
        raise ValueError(expected("module_params", model.module_params, expectation))
    if model.input_shape is not None and model.module is None:
        expectation = "None, since the perceptron of module=None takes rows"
        raise ValueError(expected("input_shape", model.input_shape, expectation))


def _check_callbacks(callbacks):
    if callbacks is None or (isinstance(callbacks, str) and callbacks == "disable"):
        return
    if not (isinstance(callbacks, list) and all(map(_is_callback, callbacks))):
        raise TypeError(expected("callbacks", callbacks, "None or a list of callbacks"))


def _is_callback(item):
    """Return whether skorch takes an item: a callback, its class, or a pair (name, either)."""
    item = item[1] if isinstance(item, tuple) and len(item) == 2 else item
    return isinstance(item, Callback) or (isinstance(item, type) and issubclass(item, Callback))


def module_of(model, n_features, n_classes, activation=torch.nn.ReLU):
    """Return the module that the parameters of a classifier describe, from rows to outputs."""
    if model.module is None:
        sizes = hidden_sizes(model.hidden_layer_sizes)
        module = perceptron(n_features, sizes, n_classes, activation)
    elif isinstance(model.module, torch.nn.Module):
        module = copied(model.module)
    else:
        module = made(model.module, model.module_params or {})
    if model.input_shape is None:
        return torch.nn.Sequential(module)
    shape = row_shape(model.input_shape, n_features)
    return torch.nn.Sequential(torch.nn.Unflatten(1, shape), module)


def _check_arguments(name, value):
    if not (value is None or isinstance(value, dict)):
        raise TypeError(expected(name, value, "None or a dict"))


def _check_callable(name, value, optional):
    if not (callable(value) or (optional and value is None)):
        expectation = "None or a callable" if optional else "a class"
        raise TypeError(expected(name, value, expectation))


def check_data(X, y, property, regime):
    """Raise if the labels are no classes, or the data not those of the property."""
    check_classification_targets(y)
    if property is not None:
        check_property(property, X)
    check_instance("training", regime, TrainingRegime, "AdversarialTraining()")


def _is_range(pair):
    try:
        low, high = pair
        return bool(np.isscalar(low) and np.isscalar(high) and -np.inf < low < high < np.inf)
    except (TypeError, ValueError):
        return False


def hidden_sizes(sizes):
    """Return the sizes of the hidden layers as a list of ints."""
    try:
        array = np.atleast_1d(sizes)
        are_sizes = all(isinstance(size, np.integer) and size > 0 for size in array)
    except ValueError:  # ragged
        are_sizes = False
    if not are_sizes:
        expectation = "a positive integer or a sequence of positive integers"
        raise ValueError(expected("hidden_layer_sizes", sizes, expectation))
    return array.tolist()


def row_shape(input_shape, n_features):
    """Return the shape of one sample as a tuple of ints, if it holds a row."""
    shape = check_input_shape(input_shape)
    if np.prod(shape) != n_features:
        expectation = f"a shape of {n_features} entries, the number of features of X"
        raise ValueError(expected("input_shape", input_shape, expectation))
    return shape


def weight_tensor(name, value):
    """Return the argument `weight` of torch's losses as a tensor, which an array may stand for."""
    if name in ("weight", "pos_weight") and isinstance(value, np.ndarray | list | tuple):
        return torch.as_tensor(np.asarray(value, dtype=np.float32))
    return value
