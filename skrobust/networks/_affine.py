"""Transformers that are affine maps: what each of them multiplies by and adds."""

from dataclasses import dataclass
from functools import partial, singledispatch
from numbers import Real

import numpy as np
from scipy.sparse import issparse
from sklearn.decomposition import PCA, FastICA, IncrementalPCA, TruncatedSVD
from sklearn.feature_selection import SelectorMixin
from sklearn.impute import SimpleImputer
from sklearn.preprocessing import (
    FunctionTransformer,
    MaxAbsScaler,
    MinMaxScaler,
    RobustScaler,
    StandardScaler,
)
from sklearn.random_projection import GaussianRandomProjection, SparseRandomProjection

from skrobust._validation import expected, kind_of
from skrobust.exceptions import UnsupportedModelError

__all__ = ["AffineMap", "affine", "affine_map", "read_affine"]


@dataclass(frozen=True, eq=False)
class AffineMap:
    """The map from x to weight x + bias, in float64.

    Parameters
    ----------
    weight : ndarray of shape (n_outputs, n_inputs), or (n_inputs,) for a scale of each input
    bias : ndarray of shape (n_outputs,)
    """

    weight: np.ndarray
    bias: np.ndarray

    @classmethod
    def identity(cls, n):
        return cls(np.ones(n), np.zeros(n))

    @property
    def matrix(self):
        return self.weight if self.weight.ndim == 2 else np.diag(self.weight)

    def after(self, other):
        """Return the map that applies `other` first."""
        if self.weight.ndim == 1:
            weight = self.weight.reshape(-1, *[1] * (other.weight.ndim - 1)) * other.weight
            return AffineMap(weight, self.weight * other.bias + self.bias)
        weight = (
            self.weight @ other.weight if other.weight.ndim == 2 else self.weight * other.weight
        )
        return AffineMap(weight, self.weight @ other.bias + self.bias)

    def __getitem__(self, outputs):
        """Return the map to some of the outputs."""
        if self.weight.ndim == 1 and np.array_equal(outputs, np.arange(len(self.bias))):
            return self
        return AffineMap(self.matrix[outputs], self.bias[outputs])

    def __mul__(self, factor):
        return AffineMap(factor * self.weight, factor * self.bias)


def affine(function):
    """Declare that a function of rows is affine, for a `FunctionTransformer` in a pipeline.

    What it multiplies by and adds is then found by calling it, and tried on other rows: one that
    is not affine is refused.

    Parameters
    ----------
    function : callable
        From an array of shape (n, n_features) to one of shape (n, n_outputs).

    Returns
    -------
    callable
        The function itself, which bears the attribute `is_affine` from then on.

    Raises
    ------
    TypeError
        If it takes no attributes, as the functions of NumPy; wrap such a one.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.preprocessing import FunctionTransformer
    >>> from skrobust.networks import affine, as_network
    >>> @affine
    ... def differences(X):
    ...     return np.diff(np.asarray(X), axis=1)
    >>> X, y = np.array([[0.0, 1.0, 1.0], [1.0, 0.0, 1.0]]), ["rises", "falls"]
    >>> model = make_pipeline(FunctionTransformer(differences), LogisticRegression()).fit(X, y)
    >>> as_network(model).n_features
    3
    """
    if isinstance(function, np.ufunc) or not hasattr(function, "__dict__"):
        raise TypeError(expected("function", function, "a function of Python"))
    function.is_affine = True
    return function


@singledispatch
def affine_map(step):
    """Return what a fitted transformer multiplies by and adds, or None where it is not affine.

    For transformers of your own, register a function by ``affine_map.register(YourTransformer)``.

    Parameters
    ----------
    step : object
        Fitted transformer.

    Returns
    -------
    (weight, bias) or None
        The transformer returns ``X @ weight.T + bias`` for a weight of shape (n_outputs,
        n_inputs), ``X * weight + bias`` for one of shape (n_inputs,) or ().

    Examples
    --------
    >>> from sklearn.preprocessing import MinMaxScaler
    >>> from skrobust.networks import affine_map
    >>> weight, bias = affine_map(MinMaxScaler().fit([[0.0], [4.0]]))
    >>> weight.tolist(), bias.tolist()
    ([0.25], [0.0])
    """
    return None


def read_affine(step, n_inputs):
    """Return the `AffineMap` of a fitted transformer, or None where it is not known to be one.

    Parameters
    ----------
    step : object
    n_inputs : int
        Features that it is given.

    Raises
    ------
    ValueError
        If what is registered for it has other shapes.
    UnsupportedModelError
        If it was declared affine, but is not.
    """
    if isinstance(step, FunctionTransformer) and getattr(step.func, "is_affine", False):
        return _probed(step, n_inputs)
    pair = affine_map(step)
    if pair is None:
        return None
    weight, bias = (np.asarray(v, dtype=np.float64) for v in pair)
    if weight.ndim < 2:
        weight = np.broadcast_to(weight, max(weight.shape, bias.shape, (n_inputs,))).copy()
    if weight.ndim > 2 or weight.shape[-1] != n_inputs or bias.shape not in ((), weight.shape[:1]):
        raise ValueError(
            f"Got the affine map of {kind_of(step)} with a weight of shape {weight.shape} and a "
            f"bias of shape {bias.shape}, but expected (n_outputs, {n_inputs}) and (n_outputs,)."
        )
    return AffineMap(weight, np.broadcast_to(bias, weight.shape[:1]).copy())


@affine_map.register
def _(step: StandardScaler):
    mean = step.mean_ if step.with_mean else 0.0
    scale = step.scale_ if step.with_std else np.ones(step.n_features_in_)
    return 1 / scale, -mean / scale


@affine_map.register
def _(step: MinMaxScaler):
    return None if step.clip else (step.scale_, step.min_)


@affine_map.register
def _(step: MaxAbsScaler):
    return None if getattr(step, "clip", False) else (1 / step.scale_, 0.0)


@affine_map.register
def _(step: RobustScaler):
    center = step.center_ if step.with_centering else 0.0
    scale = step.scale_ if step.with_scaling else np.ones(step.n_features_in_)
    return 1 / scale, -center / scale


@affine_map.register(PCA)
@affine_map.register(IncrementalPCA)
def _(step):
    weight = step.components_
    if step.whiten:
        # As PCA.transform does, so that a component without variance cannot divide by zero.
        deviation = np.sqrt(step.explained_variance_)
        deviation = np.maximum(deviation, np.finfo(deviation.dtype).eps)
        weight = weight / deviation[:, np.newaxis]
    return weight, -weight @ step.mean_


@affine_map.register
def _(step: FastICA):
    weight = step.components_
    return weight, -weight @ step.mean_ if step.whiten else 0.0


@affine_map.register(TruncatedSVD)
@affine_map.register(GaussianRandomProjection)
@affine_map.register(SparseRandomProjection)
def _(step):
    weight = step.components_
    return weight.toarray() if issparse(weight) else weight, 0.0


@affine_map.register
def _(step: SelectorMixin):
    return np.eye(step.n_features_in_)[step.get_support()], 0.0


@affine_map.register
def _(step: SimpleImputer):
    """The identity on complete data, less the columns that were empty at fit."""
    missing = step.missing_values
    if isinstance(missing, Real) and not np.isnan(missing):
        raise UnsupportedModelError(
            f"Got a SimpleImputer with missing_values={missing!r}, but expected NaN: it replaces "
            "a number, which a perturbation may reach, so that it is not affine."
        )
    kept = np.ones(step.n_features_in_, dtype=bool)
    if step.strategy != "constant" and not step.keep_empty_features:
        kept = np.array([value == value for value in step.statistics_])
    weight = np.eye(len(kept))[kept]
    if step.add_indicator:  # nothing is missing in complete data
        weight = np.vstack([weight, np.zeros((len(step.indicator_.features_), len(kept)))])
    return weight, 0.0


@affine_map.register
def _(step: FunctionTransformer):
    """Affine are: no function, np.negative, and partial(np.multiply | np.add, constant)."""
    func = step.func
    if step.kw_args:
        return None
    if func is None or func is np.positive:
        return 1.0, 0.0
    if func is np.negative:
        return -1.0, 0.0
    if isinstance(func, partial) and len(func.args) == 1 and not func.keywords:
        constant = func.args[0]
        if func.func is np.multiply:
            return constant, 0.0
        if func.func is np.add:
            return 1.0, constant
    return None


_FAR = 2.0**40  # from 0: what a function adds then leaves the digits of what it multiplies by
_TOLERANCE = 1e-9


def _probed(step, n_inputs):
    """Return the map of a function that was declared affine, found by calling it."""

    def outputs(rows):
        return np.asarray(step.transform(rows), dtype=np.float64).reshape(len(rows), -1)

    bias = outputs(np.zeros((1, n_inputs)))[0]
    weight = (outputs(_FAR * np.eye(n_inputs)) - bias).T / _FAR
    rng = np.random.default_rng(0)
    for size in (1.0, 1e3):
        rows = size * rng.standard_normal((8, n_inputs))
        error = np.abs(outputs(rows) - (rows @ weight.T + bias))
        room = _TOLERANCE * (np.abs(rows) @ np.abs(weight.T) + np.abs(bias))
        if not (error <= room).all():
            raise UnsupportedModelError(
                f"Got a FunctionTransformer with func={step.func!r}, which was declared affine, "
                "but expected one that is: what it adds and multiplies by at 0 is not what it "
                "does elsewhere."
            )
    return AffineMap(weight, bias)
