"""Checks of arguments: each error names the argument, its value and what was expected."""

from numbers import Integral, Real

import numpy as np
import torch

__all__ = [
    "check_bounds",
    "check_choice",
    "check_columns",
    "check_device",
    "check_epsilon",
    "check_instance",
    "check_integer",
    "check_real",
    "check_within_bounds",
    "expected",
]


def expected(name, value, expectation):
    """Build the message that every refusal of an argument uses."""
    return f"Got {name}={value!r}, but expected {expectation}."


def check_choice(name, value, choices):
    """Return `value` if it is one of the strings `choices`, else raise a ValueError."""
    if not (isinstance(value, str) and value in choices):
        listed = ", ".join(repr(choice) for choice in choices)
        raise ValueError(expected(name, value, f"one of {listed}"))
    return value


def check_real(name, value, *, low=-np.inf, high=np.inf, closed="both"):
    """Return `value` as a float if it is a real number in the interval, else raise.

    `closed` is "both", "left", "right" or "neither", as in scikit-learn's intervals.
    """
    left = "[" if closed in ("both", "left") and np.isfinite(low) else "("
    right = "]" if closed in ("both", "right") and np.isfinite(high) else ")"
    is_number = isinstance(value, Real) and not isinstance(value, bool | np.bool_)
    if is_number and np.isfinite(value):
        above = value >= low if left == "[" else value > low
        below = value <= high if right == "]" else value < high
        if above and below:
            return float(value)
    raise ValueError(expected(name, value, f"a finite number in {left}{low}, {high}{right}"))


def check_integer(name, value, *, low=0):
    """Return `value` as an int if it is an integer of at least `low`, else raise."""
    is_integer = isinstance(value, Integral) and not isinstance(value, bool | np.bool_)
    if is_integer and value >= low:
        return int(value)
    raise ValueError(expected(name, value, f"an integer of at least {low}"))


def check_instance(name, value, kind, example):
    """Return `value` if it is an instance of `kind`, else raise a TypeError."""
    if not isinstance(value, kind):
        noun = kind.__name__
        article = "an" if noun[0] in "AEIOU" else "a"
        raise TypeError(expected(name, value, f"{article} {noun}, such as {example}"))
    return value


def check_epsilon(epsilon, n_features=None):
    """Return `epsilon` as a float, or as a float64 array of shape (n_features,)."""
    shape = "(n_features,)" if n_features is None else f"({n_features},)"
    expectation = f"a non-negative finite float or an array of such floats of shape {shape}"
    try:
        array = np.asarray(epsilon, dtype=np.float64)
    except (TypeError, ValueError):
        raise ValueError(expected("epsilon", epsilon, expectation)) from None
    wrong_shape = array.ndim > 1 or array.size == 0
    if array.ndim == 1 and n_features is not None:
        wrong_shape = array.shape != (n_features,)
    wrong_kind = isinstance(epsilon, bool | str)
    if wrong_shape or wrong_kind or not (np.isfinite(array).all() and (array >= 0).all()):
        shown = epsilon if array.ndim == 0 else f"array of shape {array.shape}"
        if array.ndim > 0 and not wrong_shape:
            shown = f"array with minimum {array.min()}"
        raise ValueError(expected("epsilon", shown, expectation))
    return float(array) if array.ndim == 0 else array


def check_bounds(bounds, n_features=None):
    """Return `bounds` as a pair (low, high) of floats or float64 arrays, or None."""
    if bounds is None:
        return None
    shape = "(n_features,)" if n_features is None else f"({n_features},)"
    expectation = f"None, or a pair (low, high) of floats or of arrays of shape {shape}"
    try:
        low, high = (np.asarray(bound, dtype=np.float64) for bound in bounds)
    except (TypeError, ValueError):
        raise ValueError(expected("bounds", bounds, expectation)) from None
    sizes = {bound.size for bound in (low, high) if bound.ndim > 0}
    for bound in (low, high):
        fits = bound.ndim == 0 or (bound.ndim == 1 and n_features in (None, bound.size))
        if not fits or len(sizes) > 1 or np.isnan(bound).any():
            shown = bounds if bound.ndim == 0 else f"arrays of shapes {low.shape}, {high.shape}"
            raise ValueError(expected("bounds", shown, expectation))
    if not (low <= high).all():
        raise ValueError(expected("bounds", bounds, "low <= high in every feature"))
    return tuple(float(b) if b.ndim == 0 else b for b in (low, high))


def check_columns(estimator, X):
    """Raise a ValueError if `X` has named columns other than those at fit."""
    names = getattr(estimator, "feature_names_in_", None)
    given = getattr(X, "columns", None)
    if names is not None and given is not None and list(given) != list(names):
        raise ValueError(
            f"Got X with columns {list(given)}, but expected {list(names)}, as at fit."
        )


def check_within_bounds(X, bounds):
    """Raise a ValueError that counts the rows of `X` outside `bounds`, if there are any."""
    if bounds is None:
        return
    low, high = bounds
    if np.issubdtype(X.dtype, np.floating):
        # Rounding keeps the order, so data inside the bounds stay inside if both are rounded.
        low, high = (np.asarray(bound, dtype=X.dtype) for bound in bounds)
    if (X.min(axis=0) >= low).all() and (X.max(axis=0) <= high).all():
        return
    excess = np.maximum(np.max(low - X, axis=1), np.max(X - high, axis=1))
    shown = bounds if np.ndim(low) == 0 else "arrays"
    raise ValueError(
        f"Got bounds={shown!r}, but {(excess > 0).sum()} of {len(X)} rows of X lie outside, "
        f"by up to {excess.max():.6g}. Give bounds that hold for the data in the input "
        "space of the estimator that is scored or fitted, or bounds=None."
    )


def check_device(device):
    """Return the torch device, or raise a ValueError where it is not available."""
    try:
        device = torch.device(device)
    except (RuntimeError, TypeError):
        raise ValueError(expected("device", device, "a torch device such as 'cpu'")) from None
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError):
        expectation = f"'cpu', since torch finds no {device.type} device here"
        raise ValueError(expected("device", str(device), expectation)) from None
    return device
