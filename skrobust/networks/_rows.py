"""Samples as arrays of rows: which are taken, and which are refused."""

import warnings
from contextlib import contextmanager

import numpy as np
import torch

__all__ = ["check_rows", "named_rows", "without_names"]


def check_rows(X, n_features=None):
    """Return `X` as a finite array of rows.

    Parameters
    ----------
    X : array-like of shape ``(n_samples, n_features)`` or ``(n_samples, *shape)``
        Of any kind of real numbers.
    n_features : int, default=None
        Features that a row must have; any number if None.

    Returns
    -------
    ndarray of shape (n_samples, n_features)
        In the byte order of the machine; in the precision of `X` where torch has it.

    Raises
    ------
    TypeError
        If `X` is sparse, or holds what are no real numbers.
    ValueError
        If `X` is empty or ragged, holds NaN or infinity, or has another number of features.
    """
    X = _as_numbers(X)
    if X.ndim < 2 or X.size == 0:
        raise ValueError(
            f"Got X of shape {X.shape}, but expected (n_samples, n_features) or "
            "(n_samples, *input_shape) with at least one sample."
        )
    X = X.reshape(len(X), -1)
    if n_features is not None and X.shape[1] != n_features:
        raise ValueError(
            f"Got X with {X.shape[1]} features, but expected {n_features}, as at fit."
        )
    n_bad = int((~np.isfinite(X)).any(axis=1).sum())
    if n_bad:
        raise ValueError(
            f"Got X with NaN or infinity in {n_bad} rows, but expected finite values. What is "
            "missing has no neighborhood: fill it in before, as by SimpleImputer."
        )
    return X


def _as_numbers(X):
    """Return an array of real numbers that torch can take."""
    if hasattr(X, "toarray"):
        raise TypeError("Got a sparse X, but expected a dense array. Use X.toarray().")
    if isinstance(X, torch.Tensor):
        X = X.detach().cpu()
        X = X.float() if X.dtype == torch.bfloat16 else X  # NumPy has no such kind
    try:
        X = np.asarray(X)
    except ValueError:
        raise ValueError("Got a ragged X, but expected rows of the same length.") from None
    if X.dtype.kind in "bO":
        try:
            return X.astype(np.float64)
        except (TypeError, ValueError, OverflowError):
            raise TypeError(f"Got X of dtype {X.dtype}, but expected numbers.") from None
    if X.dtype.kind not in "iuf":
        kind = "real numbers" if X.dtype.kind == "c" else "numbers"
        raise TypeError(f"Got X of dtype {X.dtype}, but expected {kind}.")
    if X.dtype.kind == "f":
        # Half precision would overflow in sums; torch knows no longer ones than float64.
        width = min(max(X.dtype.itemsize, 4), 8)
        with np.errstate(over="ignore"):  # infinity is refused afterwards
            return X.astype(f"f{width}", copy=False)
    return X.astype(X.dtype.newbyteorder("="), copy=False)


@contextmanager
def without_names():
    """Let estimators that were fitted on named columns take rows."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "X does not have valid feature names", UserWarning)
        yield


def named_rows(estimator, X):
    """Return rows as a frame where the estimator was fitted on one, and pandas or polars is here.

    Parameters
    ----------
    estimator : object
        Fitted.
    X : ndarray of shape (n, n_features)

    Returns
    -------
    ndarray, or DataFrame of pandas or polars
    """
    names = getattr(estimator, "feature_names_in_", None)
    if names is None:
        return X
    try:
        import pandas as pd
    except ImportError:
        return _polars_frame(X, names)
    return pd.DataFrame(X, columns=names)


def _polars_frame(X, names):
    try:
        import polars as pl
    except ImportError:
        return X  # most estimators take plain rows as well; the others say what they miss
    return pl.DataFrame(X, schema=list(names))
