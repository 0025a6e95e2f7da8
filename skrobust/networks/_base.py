"""What a network is to the rest of the library, and how an estimator becomes one."""

from abc import ABC, abstractmethod
from functools import singledispatch
from types import MappingProxyType

import numpy as np
import torch

from skrobust._validation import kind_of
from skrobust.exceptions import UnsupportedModelError, UnsupportedPropertyError
from skrobust.networks._modules import (
    check_logits,
    check_precision,
    dtype_and_device,
    outputs_of,
    uncompiled,
)
from skrobust.networks._rows import check_rows

_PLAIN = (bool, int, float, complex, str, bytes, tuple, type(None))

__all__ = [
    "Model",
    "Network",
    "as_network",
]


class Model(ABC):
    """Base class of what a fitted classifier is to the library: rows in, outputs out.

    A `Network` has gradients and can be read; a `BlackBox` can be asked only. A subclass writes
    ``__call__`` and `fingerprint`, and `replay` and `replay_rows` where the estimator computes
    in other steps than ``__call__``.

    Parameters
    ----------
    classes : array-like of shape (n_classes,)
        Label of each output.
    n_features : int or None
        Number of features of a row; None if not known before the first row comes.
    probabilistic : bool
        Whether the softmax of the logits is what the estimator's `predict_proba` returns.
    dtype : torch.dtype
        Of the rows.
    device : torch.device
        Of the rows.

    Attributes
    ----------
    has_gradient : bool
        Whether the outputs can be differentiated in the rows.
    """

    has_gradient = False
    categories = MappingProxyType({})

    def __init__(self, classes, n_features, *, probabilistic, dtype, device):
        self.classes = np.asarray(classes)
        self.n_features = n_features
        self.probabilistic = probabilistic
        self.dtype = dtype
        self.device = device

    @abstractmethod
    def __call__(self, x):
        """Return the logits of a tensor of rows, of shape (n, n_classes)."""

    @abstractmethod
    def fingerprint(self):
        """Return what tells this model from others, as arrays and plain values."""

    def rows(self, X):
        """Return samples, of shape ``(n, n_features)`` or ``(n, *shape)``, as a tensor of rows.

        Raises
        ------
        TypeError
            If `X` is sparse, or holds what are no real numbers.
        ValueError
            If `X` holds NaN or infinity, also after the conversion to the dtype of the rows, or
            has another number of features.
        """
        return self._tensor(self.check_rows(X))

    def _tensor(self, rows):
        # Read-only arrays make torch warn; one with negative strides it cannot take.
        rows = np.require(rows, requirements=["C", "W"])
        return torch.as_tensor(rows, dtype=self.dtype).to(self.device)

    def check_rows(self, X):
        """Return `X` as an array of rows, in a precision that holds them; raise as `rows`."""
        rows = check_rows(X, self.n_features)
        largest = max(abs(float(rows.max())), abs(float(rows.min())))
        if largest > torch.finfo(self.dtype).max:
            name = str(self.dtype).removeprefix("torch.")
            raise ValueError(
                f"Got X with values up to {largest:.3g}, but expected values that are finite in "
                f"{name}, in which the estimator computes."
            )
        return rows

    def check_property(self, property):
        """Refuse a property about inputs that the model has no outputs for.

        Parameters
        ----------
        property : RobustnessProperty

        Raises
        ------
        UnsupportedPropertyError
        """
        if not self.categories:
            return
        n_features = 1 + max(self.categories) if self.n_features is None else self.n_features
        # What the property lets move, whatever its epsilon says: protected features, too.
        sides = [np.broadcast_to(side, n_features) for side in property.sides(n_features)]
        moved = {column for column in self.categories if any(s[column] > 0 for s in sides)}
        if moved:
            raise UnsupportedPropertyError(
                f"Got an epsilon above 0 for the columns {sorted(moved)}, which the pipeline "
                "encodes as categories, but expected 0 there: between two categories it has no "
                "outputs. Give one epsilon for each column, and 0 for these; and of these no "
                "protected or monotone feature. Categories that may change are encoded in X, and "
                "are one_hot groups of a Domain."
            )

    def check_logits(self, logits, n_samples):
        """Return the logits, if there is one for each of the classes; raise if not."""
        return check_logits(logits, n_samples, len(self.classes))

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
        try:
            position = np.searchsorted(self.classes, y, sorter=order).clip(max=len(order) - 1)
        except TypeError:  # None, or a mixture of kinds, has no order
            unseen = sorted({repr(label) for label in y.tolist()})
        else:
            index = order[position]
            unseen = np.unique(y[self.classes[index] != y]).tolist()
        if unseen:
            raise ValueError(
                f"Got y with labels {unseen}, but expected labels among the "
                f"estimator's classes {self.classes.tolist()}."
            )
        return torch.as_tensor(index, device=self.device)

    def replay(self, x):
        """Return the logits at a tensor of rows as the estimator itself computes them."""
        with torch.no_grad():
            return self(x).to(x)

    def replay_rows(self, X):
        """Return the logits at an array of rows, whose own precision counts, as `replay` does."""
        with torch.no_grad():
            return self(self.rows(X))


class Network(Model):
    """A fitted classifier as a torch network in evaluation mode.

    It has what scikit-learn asks of a fitted classifier, so that scorers, attacks and verifiers
    take it for one.

    Parameters
    ----------
    module : torch.nn.Module
        From raw input rows, of shape (n, n_features), to logits of shape (n, n_classes). One
        that was compiled is taken as what it was before.
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
    categories : dict of int to ndarray, default=None
        The values, rising, that some columns may have alone, since the estimator encodes them as
        categories. They cannot be perturbed.

    Attributes
    ----------
    device : torch.device
    has_gradient : bool
        Whether the outputs can be differentiated in the rows; it shows with the first rows.

    Raises
    ------
    UnsupportedModelError
        If the module computes in neither float32 nor float64.
    """

    has_gradient = True
    _width = None  # of the rows that the module was tried with

    def __init__(
        self,
        module,
        classes,
        n_features=None,
        replay=None,
        *,
        probabilistic=True,
        dtype=None,
        categories=None,
    ):
        own, device = dtype_and_device(module)
        check_precision(own)
        super().__init__(
            classes,
            n_features,
            probabilistic=probabilistic,
            dtype=own if dtype is None else dtype,
            device=device,
        )
        self.module = uncompiled(module).eval()
        self.categories = categories or {}
        self._replay = replay

    def __call__(self, x):
        return self.module(x)

    @property
    def classes_(self):
        """Label of each output, of shape (n_classes,)."""
        return self.classes

    def decision_function(self, X):
        """Return the logits of samples, of shape (n_samples, n_classes)."""
        return self.replay_rows(self.check_rows(X)).cpu().numpy()

    def predict(self, X):
        """Return the label of the largest output of each sample, of shape (n_samples,)."""
        return self.classes[self.decision_function(X).argmax(axis=1)]

    def check_rows(self, X):
        """Return `X` as an array of rows; raise as `rows` does, or where the module fails.

        Raises
        ------
        UnsupportedModelError
            If the module does not take such rows, or does not return a tensor.
        ValueError
            If a column of categories holds another value.
        """
        rows = super().check_rows(X)
        for column, known in self.categories.items():
            unseen = np.setdiff1d(rows[:, column], known)
            if len(unseen):
                raise ValueError(
                    f"Got X with the values {unseen[:5].tolist()} in column {column}, but "
                    f"expected one of the categories {known.tolist()}, as at fit."
                )
        if self._width != rows.shape[1]:
            self._try(self._tensor(rows[:2]))  # one can lose its axis in squeeze()
            self._width = rows.shape[1]
        return rows

    def _try(self, x):
        """Compute the outputs once, so that a module that cannot is refused by name."""
        try:
            with torch.enable_grad():
                logits = self(x.requires_grad_())
        except Exception:  # users' code may raise anything, also for want of a gradient only
            logits = outputs_of(self, x.detach())
        self.check_logits(logits, len(x))
        self.has_gradient = logits.requires_grad

    def fingerprint(self):
        weights = {n: v.double().cpu().numpy() for n, v in self.module.state_dict().items()}
        # Numbers that a module keeps beside its weights, and may not show.
        plain = [
            {name: v for name, v in vars(module).items() if isinstance(v, _PLAIN)}
            for module in self.module.modules()
        ]
        return repr(self.module), weights, plain, self.classes

    def replay(self, x):
        with torch.no_grad():
            return (self(x) if self._replay is None else self._replay(x.cpu().numpy())).to(x)

    def replay_rows(self, X):
        with torch.no_grad():
            return self(self.rows(X)) if self._replay is None else self._replay(X)


@singledispatch
def as_network(estimator, *, input_shape=None):
    """Return a fitted estimator as a `Network` in its raw input space.

    Supported are RobustClassifier, skorch classifiers, scikit-learn's linear classifiers and
    MLPClassifier, searches over these, averages of these by VotingClassifier and
    BaggingClassifier, OneVsRestClassifier of these, pipelines of these
    behind steps that are affine or encode categories, also within a ColumnTransformer or a
    FeatureUnion, and a `Network` itself. For more, register a function with
    ``as_network.register(YourClassifier)``.

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
        f"Got {kind_of(estimator)}, but expected a classifier that can be read as a "
        "network: RobustClassifier, a skorch classifier, a linear classifier or MLPClassifier "
        "of scikit-learn, or a Pipeline of affine steps that ends in one of these. Sampling "
        "(ConstraintAccuracy) works with any classifier."
    )


@as_network.register(Network)
def _read_itself(network, *, input_shape=None):
    return network
