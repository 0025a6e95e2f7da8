"""What a network is to the rest of the library, and how an estimator becomes one."""

import warnings
from contextlib import contextmanager
from functools import singledispatch

import numpy as np
import torch

from skrobust.exceptions import UnsupportedModelError

_PLAIN = (bool, int, float, complex, str, bytes, tuple, type(None))

__all__ = [
    "Network",
    "as_network",
    "check_rows",
    "dtype_and_device",
    "evaluation_mode",
    "linear_layer",
    "without_names",
]


class Network:
    """A fitted classifier as a torch network in evaluation mode.

    Parameters
    ----------
    module : torch.nn.Module
        From raw input rows, of shape (n, n_features), to logits of shape (n, n_classes).
    classes : array-like of shape (n_classes,)
        Label of each output.
    n_features : int or None
        Number of features of a row; None if not known before the first row comes.
    replay : callable or None, default=None
        ``replay(X) -> logits`` computes the outputs as the estimator itself does, step by
        step, where that differs from `module`. Counterexamples are confirmed by it.
    probabilistic : bool, default=True
        Whether the softmax of the logits is what the estimator's `predict_proba` returns.
    dtype : torch.dtype or None, default=None
        Of the rows; that of the module's parameters if None.

    Attributes
    ----------
    device : torch.device
    """

    def __init__(
        self, module, classes, n_features=None, replay=None, *, probabilistic=True, dtype=None
    ):
        self.module = module.eval()
        self.classes = np.asarray(classes)
        self.n_features = n_features
        own, self.device = dtype_and_device(module)
        self.dtype = own if dtype is None else dtype
        self.probabilistic = probabilistic
        self._replay = replay

    def __call__(self, x):
        """Return the logits of a tensor of rows, of shape (n, n_classes)."""
        return self.module(x)

    def rows(self, X):
        """Return samples, of shape ``(n, n_features)`` or ``(n, *shape)``, as a tensor of rows.

        Raises
        ------
        ValueError
            If `X` holds NaN or infinity, or has another number of features.
        """
        rows = np.require(self.check_rows(X), requirements="W")  # torch warns of read-only arrays
        return torch.as_tensor(rows, dtype=self.dtype).to(self.device)

    def check_rows(self, X):
        """Return `X` as an array of rows, as it is; raise as `rows` does."""
        return check_rows(X, self.n_features)

    def check_logits(self, logits, n_samples):
        """Return the logits; raise a ValueError if there is not one for each of the classes."""
        expected = n_samples, len(self.classes)
        if logits.shape != expected:
            raise ValueError(
                f"Got a module with outputs of shape {tuple(logits.shape)}, but expected "
                f"{expected}: one logit for each of classes."
            )
        return logits

    def fingerprint(self):
        """Return what tells this network from others, as arrays and plain values."""
        weights = {n: v.double().cpu().numpy() for n, v in self.module.state_dict().items()}
        # Numbers that a module keeps beside its weights, and may not show.
        plain = [
            {name: v for name, v in vars(module).items() if isinstance(v, _PLAIN)}
            for module in self.module.modules()
        ]
        return repr(self.module), weights, plain, self.classes

    def encode(self, y):
        """Return the class index of each label in `y`, as a tensor.

        Raises
        ------
        ValueError
            If `y` holds labels that are not among `classes`.
        """
        y = np.asarray(y)
        if y.ndim != 1:
            raise ValueError(f"Got y of shape {y.shape}, but expected (n_samples,).")
        order = np.argsort(self.classes)
        position = np.searchsorted(self.classes, y, sorter=order).clip(max=len(order) - 1)
        index = order[position]
        unseen = np.unique(y[self.classes[index] != y])
        if len(unseen):
            raise ValueError(
                f"Got y with labels {unseen.tolist()}, but expected labels among the "
                f"estimator's classes {self.classes.tolist()}."
            )
        return torch.as_tensor(index, device=self.device)

    def replay(self, x):
        """Return the logits at a tensor of rows as the estimator itself computes them."""
        with torch.no_grad():
            return (self(x) if self._replay is None else self._replay(x.cpu().numpy())).to(x)

    def replay_rows(self, X):
        """Return the logits at an array of rows, whose own precision counts, as `replay` does."""
        with torch.no_grad():
            return self(self.rows(X)) if self._replay is None else self._replay(X)


def dtype_and_device(module):
    """Return those of the first parameter of a module that is no integer."""
    floats = (part for part in module.parameters() if part.is_floating_point())
    first = next(floats, torch.empty(0))
    return first.dtype, first.device


def check_rows(X, n_features=None):
    """Return `X` as a finite array of rows, of shape (n_samples, n_features)."""
    if hasattr(X, "toarray"):
        raise TypeError("Got a sparse X, but expected a dense array. Use X.toarray().")
    X = np.asarray(X)
    if X.ndim < 2 or len(X) == 0:
        raise ValueError(
            f"Got X of shape {X.shape}, but expected (n_samples, n_features) or "
            "(n_samples, *input_shape) with at least one sample."
        )
    X = X.reshape(len(X), -1)
    if n_features is not None and X.shape[1] != n_features:
        raise ValueError(
            f"Got X with {X.shape[1]} features, but expected {n_features}, as at fit."
        )
    if X.dtype.kind in "bO":
        try:
            X = X.astype(np.float64)
        except (TypeError, ValueError):
            raise TypeError(f"Got X of dtype {X.dtype}, but expected numbers.") from None
    if not np.issubdtype(X.dtype, np.number):
        raise TypeError(f"Got X of dtype {X.dtype}, but expected numbers.")
    n_bad = int((~np.isfinite(X)).any(axis=1).sum())
    if n_bad:
        raise ValueError(
            f"Got X with NaN or infinity in {n_bad} rows, but expected finite values."
        )
    return X


@contextmanager
def evaluation_mode(module):
    """Put a torch module in evaluation mode for a while."""
    was_training = module.training
    module.eval()
    try:
        yield module
    finally:
        module.train(was_training)


@contextmanager
def without_names():
    """Let estimators that were fitted on named columns take rows."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "X does not have valid feature names", UserWarning)
        yield


def linear_layer(weight, bias):
    """Return a frozen layer of the arrays weight (outputs, inputs) and bias, in their dtype."""
    weight = torch.tensor(np.array(weight))
    bias = torch.tensor(np.broadcast_to(bias, len(weight)).copy(), dtype=weight.dtype)
    layer = torch.nn.Linear(*weight.shape[::-1], dtype=weight.dtype)
    layer.weight = torch.nn.Parameter(weight, requires_grad=False)
    layer.bias = torch.nn.Parameter(bias, requires_grad=False)
    return layer


@singledispatch
def as_network(estimator, *, input_shape=None):
    """Return a fitted estimator as a `Network` in its raw input space.

    Supported are RobustClassifier, skorch classifiers, scikit-learn's linear classifiers and
    MLPClassifier, searches over these, and pipelines whose other steps are affine. For more,
    register a function with ``as_network.register(YourClassifier)``.

    Parameters
    ----------
    estimator : object
        Fitted classifier.
    input_shape : tuple of int, default=None
        Shape of one sample, where samples are not plain rows (skorch's convolutional nets).

    Returns
    -------
    Network

    Raises
    ------
    UnsupportedModelError
        If the estimator, or a step of a pipeline, is of another kind.
    """
    if hasattr(estimator, "best_estimator_"):  # any of scikit-learn's searches
        return as_network(estimator.best_estimator_, input_shape=input_shape)
    raise UnsupportedModelError(
        f"Got a {type(estimator).__name__}, but expected a classifier that can be read as a "
        "network: RobustClassifier, a skorch classifier, a linear classifier or MLPClassifier "
        "of scikit-learn, or a Pipeline of affine steps that ends in one of these. Sampling "
        "(ConstraintAccuracy) works with any classifier."
    )
