"""Frames of pandas and polars: rows as what they came from, and pandas where it is needed."""

import numpy as np

from skrobust._validation import expected

__all__ = ["frame_like", "import_pandas"]


def import_pandas(what):
    """Return the module pandas.

    Parameters
    ----------
    what : str
        Which needs it, for the error.

    Raises
    ------
    ImportError
        If it is not installed.
    """
    try:
        import pandas as pd
    except ImportError:
        raise ImportError(
            f'Got no pandas, but {what} needs it. Install it with pip install "skrobust[plots]".'
        ) from None
    return pd


def frame_like(points, X):
    """Return points, one around each row of a frame, with its columns, types and index.

    Parameters
    ----------
    points : ndarray of shape (n_samples, n_features)
        Rows of NaN are left out.
    X : DataFrame of shape (n_samples, n_features)
        Of pandas or polars.

    Returns
    -------
    DataFrame
        Of the same kind. A column has the type that it has in `X` where that holds its values,
        as it does those of the integers of a `~skrobust.properties.Domain`; else that of the
        points.

    Raises
    ------
    TypeError
        If `X` is no such frame.
    ValueError
        If it has another shape.
    """
    kind = type(X).__module__.partition(".")[0]
    if kind not in ("pandas", "polars") or not hasattr(X, "columns"):
        name = f"{type(X).__module__}.{type(X).__name__}"
        raise TypeError(f"Got X of type {name}, but expected a DataFrame of pandas or polars.")
    if tuple(X.shape) != points.shape:
        raise ValueError(expected("X", X, f"the {len(points)} rows that were evaluated"))
    there = np.flatnonzero(np.isfinite(points).all(axis=1))
    columns = dict(zip(X.columns, points[there].T, strict=True))
    if kind == "polars":
        import polars as pl

        series = [_cast(pl.Series(name, column), X[name]) for name, column in columns.items()]
        return pl.DataFrame(series)
    frame = X.iloc[there].copy()
    for place, column in enumerate(columns.values()):
        like = X.iloc[:, place]
        own = type(like)(column, index=frame.index, name=like.name)
        frame.isetitem(place, _cast(own, like))
    return frame


def _cast(series, like):
    """Return a series in the type of another one where that holds its values."""
    try:
        cast = series.astype(like.dtype) if hasattr(series, "astype") else series.cast(like.dtype)
        held = np.asarray(cast, dtype=np.float64)
    except Exception:  # the libraries raise errors of their own
        return series
    return cast if np.array_equal(held, np.asarray(series, dtype=np.float64)) else series
