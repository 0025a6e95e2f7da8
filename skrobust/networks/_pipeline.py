"""Pipelines as networks: the affine steps become layers in front of the classifier."""

from functools import partial, singledispatch

import numpy as np
import torch
from sklearn.decomposition import PCA, TruncatedSVD
from sklearn.feature_selection import SelectorMixin
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    MaxAbsScaler,
    MinMaxScaler,
    RobustScaler,
    StandardScaler,
)
from sklearn.utils.validation import check_is_fitted

from skrobust._validation import kind_of
from skrobust.exceptions import UnsupportedModelError
from skrobust.networks._base import Network, as_network, without_names
from skrobust.networks._modules import linear_layer

__all__ = ["Scale"]


class Scale(torch.nn.Module):
    """The map x * weight + bias of each feature.

    Parameters
    ----------
    weight, bias : Tensor of shape (n_features,) or ()
    """

    def __init__(self, weight, bias):
        super().__init__()
        self.register_buffer("weight", weight)
        self.register_buffer("bias", bias)

    def forward(self, x):
        return torch.addcmul(self.bias, x, self.weight)


class _Cast(torch.nn.Module):
    """The identity, in another precision."""

    def __init__(self, dtype):
        super().__init__()
        self.dtype = dtype

    def forward(self, x):
        return x.to(self.dtype)


def _scale(weight, bias):
    weight, bias = (np.asarray(v, dtype=np.float64) for v in (weight, bias))
    return Scale(torch.tensor(weight), torch.tensor(bias))


@singledispatch
def _affine_layer(step):
    """Return the layer of an affine step, or None where the step is not known to be affine."""
    return None


@_affine_layer.register
def _(step: StandardScaler):
    mean = step.mean_ if step.with_mean else np.zeros(step.n_features_in_)
    scale = step.scale_ if step.with_std else np.ones(step.n_features_in_)
    return _scale(1 / scale, -mean / scale)


@_affine_layer.register
def _(step: MinMaxScaler):
    return None if step.clip else _scale(step.scale_, step.min_)


@_affine_layer.register
def _(step: MaxAbsScaler):
    if getattr(step, "clip", False):
        return None
    return _scale(1 / step.scale_, np.zeros_like(step.scale_))


@_affine_layer.register
def _(step: RobustScaler):
    center = step.center_ if step.with_centering else np.zeros(step.n_features_in_)
    scale = step.scale_ if step.with_scaling else np.ones(step.n_features_in_)
    return _scale(1 / scale, -center / scale)


@_affine_layer.register
def _(step: PCA):
    weight = step.components_
    if step.whiten:
        # As PCA.transform does, so that a component without variance cannot divide by zero.
        deviation = np.sqrt(step.explained_variance_)
        deviation = np.maximum(deviation, np.finfo(deviation.dtype).eps)
        weight = weight / deviation[:, np.newaxis]
    return linear_layer(weight, -weight @ step.mean_)


@_affine_layer.register
def _(step: TruncatedSVD):
    return linear_layer(step.components_, 0.0)


@_affine_layer.register
def _(step: SelectorMixin):
    return linear_layer(np.eye(step.n_features_in_)[step.get_support()], 0.0)


@_affine_layer.register
def _(step: FunctionTransformer):
    """Affine are: no function, np.negative, and partial(np.multiply | np.add, constant)."""
    func = step.func
    if step.kw_args:
        return None
    if func is None or func is np.positive:
        return torch.nn.Identity()
    if func is np.negative:
        return _scale(-1.0, 0.0)
    if isinstance(func, partial) and len(func.args) == 1 and not func.keywords:
        constant = func.args[0]
        if func.func is np.multiply:
            return _scale(constant, np.zeros_like(constant, dtype=float))
        if func.func is np.add:
            return _scale(np.ones_like(constant, dtype=float), constant)
    return None


@as_network.register
def _(pipeline: Pipeline, *, input_shape=None):
    check_is_fitted(pipeline)
    steps = [(name, s) for name, s in pipeline.steps[:-1] if s is not None and s != "passthrough"]
    layers = []
    for name, step in steps:
        layer = _affine_layer(step)
        if layer is None:
            raise UnsupportedModelError(
                f"The step {name!r} of the pipeline, {kind_of(step)}, is not known to be "
                "affine, so the pipeline cannot be read as one network. Sampling "
                "(ConstraintAccuracy) works with any pipeline."
            )
        layers.append(layer)
    final = as_network(pipeline.steps[-1][1], input_shape=None if steps else input_shape)
    if not steps:
        return final
    # Raw units can be large: scale in float64, as the steps themselves do.
    front = torch.nn.Sequential(*layers).to(final.device, torch.float64)
    module = torch.nn.Sequential(*front, _Cast(final.dtype), final.module, _Cast(torch.float64))

    def replay(X):
        for _, step in steps:
            with without_names():
                X = step.transform(X)
        return final.replay_rows(X)

    return Network(
        module,
        final.classes,
        steps[0][1].n_features_in_,
        replay,
        probabilistic=final.probabilistic,
        dtype=torch.float64,
    )
