"""scikit-learn's linear classifiers, perceptrons and searches as networks."""

from copy import deepcopy
from functools import partial

import numpy as np
import torch
from scipy.sparse import issparse
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import (
    LogisticRegression,
    LogisticRegressionCV,
    Perceptron,
    RidgeClassifier,
    RidgeClassifierCV,
    SGDClassifier,
)
from sklearn.model_selection import GridSearchCV, RandomizedSearchCV
from sklearn.neural_network import MLPClassifier
from sklearn.svm import LinearSVC
from sklearn.utils.validation import check_is_fitted

from skrobust.exceptions import UnsupportedModelError
from skrobust.networks._base import Network, as_network
from skrobust.networks._modules import linear_layer
from skrobust.networks._rows import without_names

__all__ = []

_ACTIVATIONS = {
    "identity": torch.nn.Identity,
    "relu": torch.nn.ReLU,
    "tanh": torch.nn.Tanh,
    "logistic": torch.nn.Sigmoid,
}


def _two_logits(weight, bias):
    """Read one score s of a binary classifier as the logits (0, s)."""
    weight, bias = np.atleast_2d(weight), np.atleast_1d(bias)
    if len(weight) == 1:
        weight = np.vstack([np.zeros_like(weight), weight])
        bias = np.concatenate([np.zeros_like(bias), bias])
    return weight, bias


@as_network.register(LogisticRegression)
@as_network.register(LogisticRegressionCV)
@as_network.register(SGDClassifier)
@as_network.register(Perceptron)
@as_network.register(RidgeClassifier)
@as_network.register(RidgeClassifierCV)
@as_network.register(LinearSVC)
@as_network.register(LinearDiscriminantAnalysis)
def _(model, *, input_shape=None):
    check_is_fitted(model)
    weight = (
        model.coef_.toarray() if issparse(model.coef_) else model.coef_
    )  # `sparsify` was called
    layer = linear_layer(*_two_logits(weight, model.intercept_))
    return Network(
        torch.nn.Sequential(layer),
        model.classes_,
        model.n_features_in_,
        partial(_scores, model),
        probabilistic=_is_softmax(model),
    )


def _scores(model, X):
    """Return the logits at rows as the model computes them, in the precision of the rows."""
    with without_names():
        scores = torch.as_tensor(model.decision_function(X))
    return torch.stack([torch.zeros_like(scores), scores], dim=1) if scores.ndim == 1 else scores


def _is_softmax(model):
    """Whether `predict_proba` is the softmax; one-versus-rest probabilities are not."""
    if isinstance(model, SGDClassifier):
        return model.loss == "log_loss" and len(model.classes_) == 2
    kinds = (LogisticRegression, LogisticRegressionCV, LinearDiscriminantAnalysis)
    return isinstance(model, kinds)


@as_network.register
def _(model: MLPClassifier, *, input_shape=None):
    check_is_fitted(model)
    if model.out_activation_ == "logistic" and model.n_outputs_ > 1:
        raise UnsupportedModelError(
            "Got an MLPClassifier fitted on several labels a sample, but expected one class."
        )
    weights = [weight.T for weight in model.coefs_]
    biases = list(model.intercepts_)
    weights[-1], biases[-1] = _two_logits(weights[-1], biases[-1])
    layers = []
    for weight, bias in zip(weights, biases, strict=True):
        layers += [linear_layer(weight, bias), _ACTIVATIONS[model.activation]()]
    module = torch.nn.Sequential(*layers[:-1])
    replay = partial(_outputs, module)
    return Network(module, model.classes_, model.n_features_in_, replay)


def _outputs(module, X):
    """Return the logits at rows; like NumPy, in float64 where the rows or the weights are."""
    x = torch.as_tensor(np.asarray(X))
    weight = next(module.parameters())
    if x.dtype != weight.dtype:
        module, x = deepcopy(module).double(), x.double()
    return module(x)


@as_network.register(GridSearchCV)
@as_network.register(RandomizedSearchCV)
def _(search, *, input_shape=None):
    check_is_fitted(search, "best_estimator_")
    return as_network(search.best_estimator_, input_shape=input_shape)


@as_network.register
def _(model: FrozenEstimator, *, input_shape=None):
    return as_network(model.estimator, input_shape=input_shape)
