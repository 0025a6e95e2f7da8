"""Checks of arguments: each error names the argument, its value and what was expected."""

import re
from numbers import Integral, Real

import numpy as np
import torch
from sklearn.utils import check_random_state

from skrobust.exceptions import UnsupportedPropertyError

__all__ = [
    "call_of_user",
    "check_bounds",
    "check_choice",
    "check_columns",
    "check_device",
    "check_epsilon",
    "check_finite_rows",
    "check_flag",
    "check_instance",
    "check_integer",
    "check_length",
    "check_real",
    "check_seed",
    "check_within_bounds",
    "epsilon_sides",
    "expected",
    "kind_of",
    "sample_shape",
    "shown",
]

_LONGEST = 200  # characters of a value that an error shows
_TOLERANCE = 1e-6  # of the width of the domain, by which rounding may take data out of it


def expected(name, value, expectation):
    """Build the message that every refusal of an argument uses."""
    return f"Got {name}={shown(value)}, but expected {expectation}."


def shown(value):
    """Return how an error shows a value: its repr, but of an array no more than the shape."""
    shape = getattr(value, "shape", None)
    if isinstance(shape, tuple) and len(shape) > 0:
        return f"{type(value).__name__} of shape {tuple(shape)}"
    text = re.sub(r"\s*\n\s*", " ", repr(value))
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


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
    expectation = f"a finite number in {left}{low}, {high}{right}"
    if isinstance(value, Real) and not isinstance(value, bool | np.bool_):
        if not _fits_64_bits(value):
            expectation += ", as a float, or an int of 64 bits"
        elif np.isfinite(value):
            above = value >= low if left == "[" else value > low
            below = value <= high if right == "]" else value < high
            if above and below:
                return float(value)
    raise ValueError(expected(name, value, expectation))


def _fits_64_bits(value):
    """Return whether a real number is of a type, and a size, that NumPy and torch compute with.

    Fractions and longer integers are numbers too, but estimators store parameters as they are
    given, and fail on these later.
    """
    if isinstance(value, Integral):
        return -(2**63) <= value < 2**63
    return isinstance(value, float | np.floating)


def check_integer(name, value, *, low=0):
    """Return `value` as an int if it is an integer of at least `low`, else raise."""
    is_integer = isinstance(value, Integral) and not isinstance(value, bool | np.bool_)
    if is_integer and low <= value < 2**63:
        return int(value)
    limit = " and below 2**63" if is_integer and value >= low else ""
    raise ValueError(expected(name, value, f"an integer of at least {low}{limit}"))


def check_flag(name, value):
    """Return `value` if it is True or False, else raise: "no" and arrays are truthy, too."""
    if not isinstance(value, bool | np.bool_):
        raise ValueError(expected(name, value, "True or False"))
    return bool(value)


def check_seed(random_state):
    """Return the RandomState that a `random_state` stands for, else raise a ValueError."""
    try:
        return check_random_state(random_state)
    except ValueError:  # NumPy's own, of an integer out of range, names no argument
        expectation = "None, an integer from 0 to 2**32 - 1, or a RandomState"
        raise ValueError(expected("random_state", random_state, expectation)) from None


def check_instance(name, value, kind, example):
    """Return `value` if it is an instance of `kind`, or of one in a tuple, else raise."""
    if not isinstance(value, kind):
        listed = " or ".join(map(_with_article, kind if isinstance(kind, tuple) else (kind,)))
        raise TypeError(expected(name, value, f"{listed}, such as {example}"))
    return value


def kind_of(thing):
    """Return the name of the kind of a thing with its article: "an ExtraTreesClassifier"."""
    return _with_article(type(thing))


def _with_article(kind):
    return f"{'an' if kind.__name__[0] in 'AEIOUaeiou' else 'a'} {kind.__name__}"


def check_epsilon(epsilon, n_features=None, name="epsilon"):
    """Return `epsilon` as a float, or as a float64 array of shape (n_features,).

    A tuple of two is a pair (down, up), how far a feature may fall and rise; each of the two is
    returned as such a float or array. A list of two is one radius for each of two features.
    """
    if not isinstance(epsilon, tuple):
        return _check_radius(name, epsilon, n_features)
    if len(epsilon) != 2:
        expectation = (
            "a float or an array, or a pair (down, up) of such as a tuple; of radii that "
            "are one for each feature, give a list or an array"
        )
        raise ValueError(expected(name, epsilon, expectation))
    names = (f"{name}[0] (down)", f"{name}[1] (up)")
    pair = tuple(
        _check_radius(name, side, n_features) for name, side in zip(names, epsilon, strict=True)
    )
    sizes = {side.size for side in pair if np.ndim(side) > 0}
    if len(sizes) > 1:
        shapes = " and ".join(str(side.shape) for side in pair)
        raise ValueError(f"Got {name} with arrays of shapes {shapes}, but expected one shape.")
    return pair


def epsilon_sides(epsilon):
    """Return how far features may fall and rise, by what `check_epsilon` returned."""
    return epsilon if isinstance(epsilon, tuple) else (epsilon, epsilon)


def _check_radius(name, epsilon, n_features):
    shape = "(n_features,)" if n_features is None else f"({n_features},)"
    expectation = f"a non-negative finite float or an array of such floats of shape {shape}"
    try:
        # A copy: arrays of pandas are read-only, of which torch warns.
        array = np.array(epsilon, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(expected(name, epsilon, expectation)) from None
    wrong_shape = array.ndim > 1 or array.size == 0
    if array.ndim == 1 and n_features is not None:
        wrong_shape = array.shape != (n_features,)
    # Bools, strings, fractions and decimals would become floats here, but not elsewhere.
    wrong_kind = np.asarray(epsilon).dtype.kind not in "iuf" and array.size > 0
    if wrong_shape or wrong_kind or not (np.isfinite(array).all() and (array >= 0).all()):
        if array.ndim == 1 and not (wrong_shape or wrong_kind):
            worst = array[~(np.isfinite(array) & (array >= 0))][0]
            raise ValueError(
                f"Got {name}=array with the entry {worst}, but expected {expectation}."
            )
        found = epsilon if array.ndim == 0 else array
        raise ValueError(expected(name, found, expectation))
    return float(array) if array.ndim == 0 else array


def check_bounds(bounds, n_features=None, name="bounds"):
    """Return `bounds` as a pair (low, high) of floats or float64 arrays, or None."""
    if bounds is None:
        return None
    shape = "(n_features,)" if n_features is None else f"({n_features},)"
    expectation = f"None, or a pair (low, high) of floats or of arrays of shape {shape}"
    if hasattr(bounds, "is_box"):  # a Domain
        remedy = (
            "What lies in a Domain is known to a property with these bounds, and to "
            "ConstraintAccuracy, ConstraintSecurity and ConstraintSatisfaction"
        )
        raise UnsupportedPropertyError(expected(name, bounds, f"{expectation}. {remedy}"))
    try:
        low, high = (np.array(bound, dtype=np.float64) for bound in bounds)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(expected(name, bounds, expectation)) from None
    sizes = {bound.size for bound in (low, high) if bound.ndim > 0}
    for bound in (low, high):
        fits = bound.ndim == 0 or (bound.ndim == 1 and n_features in (None, bound.size))
        if not fits or len(sizes) > 1 or np.isnan(bound).any():
            arrays = f"arrays of shapes {low.shape} and {high.shape}"
            found = shown(bounds) if bound.ndim == 0 else arrays
            raise ValueError(f"Got {name}={found}, but expected {expectation}.")
    if not (low <= high).all():
        raise ValueError(expected(name, bounds, "low <= high in every feature"))
    return tuple(float(b) if b.ndim == 0 else b for b in (low, high))


def call_of_user(name, function, *arguments):
    """Return what a user's function returns, or raise a ValueError that names it if it fails."""
    try:
        return function(*arguments)
    except Exception as error:  # users' code may raise anything
        if str(error).startswith("Got "):
            raise  # a refusal, which says already what was wrong
        raise ValueError(
            f"Got {name}={shown(function)}, which fails, but expected a function of "
            f"{len(arguments)} arguments that does not. It says: {error}"
        ) from error


def sample_shape(X):
    """Return the shape of one sample of the array-like `X`, or raise a ValueError."""
    try:
        return np.shape(X)[1:]
    except ValueError:
        raise ValueError("Got a ragged X, but expected rows of the same length.") from None


def check_length(name, values, n_samples):
    """Raise a ValueError if `values` has not one entry for each row of X."""
    try:
        length = len(values)
    except TypeError:
        raise ValueError(
            expected(name, values, f"an array of {n_samples} entries, one for each row of X")
        ) from None
    if length != n_samples:
        raise ValueError(
            f"Got {name} of length {length}, but expected {n_samples}, one for each row of X."
        )


BY_LABEL = "the {} has reference='label'. Give y, or set reference='prediction'"


def check_labels_given(y, needed_by):
    """Raise a ValueError if y is None; `needed_by` says what needs it, such as `BY_LABEL`."""
    if y is None and needed_by:
        raise ValueError(f"Got y=None, but expected the true labels: {needed_by}.")


def check_columns(estimator, X):
    """Raise a ValueError if `X` has named columns other than those at fit."""
    names = getattr(estimator, "feature_names_in_", None)
    given = getattr(X, "columns", None)
    if names is not None and given is not None and list(given) != list(names):
        raise ValueError(
            f"Got X with columns {list(given)}, but expected {list(names)}, as at fit."
        )


def check_finite_rows(X):
    """Raise a ValueError that counts the rows of `X` with NaN or infinity, if there are any."""
    n_bad = int((~np.isfinite(X)).any(axis=1).sum())
    if n_bad:
        raise ValueError(
            f"Got X with NaN or infinity in {n_bad} of {len(X)} rows, once in {X.dtype}, but "
            "expected finite values. Scale the data to numbers that this type holds."
        )


def check_within_bounds(X, bounds):
    """Raise a ValueError that counts the rows of `X` outside `bounds`, if there are any.

    Data that leave the domain by rounding, up to a millionth of its width, are inside: they were
    computed as the ends of it, or stored in another precision.
    """
    if bounds is None:
        return
    low, high = bounds
    if np.issubdtype(X.dtype, np.floating):
        # Rounding keeps the order, so data inside the bounds stay inside if both are rounded.
        low, high = (np.asarray(bound, dtype=X.dtype) for bound in bounds)
    if (X.min(axis=0) >= low).all() and (X.max(axis=0) <= high).all():
        return
    excess = np.maximum(low - X.astype(np.float64), X - np.asarray(high, dtype=np.float64))
    width = np.asarray(bounds[1], dtype=np.float64) - bounds[0]
    tolerance = np.where(np.isfinite(width), _TOLERANCE * width, 0.0)
    excess = np.where(excess > tolerance, excess, 0.0).max(axis=1)
    if not excess.any():
        return
    found = shown(bounds) if np.ndim(low) == np.ndim(high) == 0 else "arrays"
    raise ValueError(
        f"Got bounds={found}, but {(excess > 0).sum()} of {len(X)} rows of X lie outside, "
        f"by up to {excess.max():.6g}. Give bounds that hold for the data in the input "
        "space of the estimator that is scored or fitted, or bounds=None."
    )


def check_device(device):
    """Return the torch device, or raise a ValueError where it is not available."""
    try:
        device = torch.device(device)
    except (RuntimeError, TypeError, ValueError):
        raise ValueError(expected("device", device, "a torch device such as 'cpu'")) from None
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError):
        expectation = f"'cpu', since torch finds no {device.type} device here"
        raise ValueError(expected("device", str(device), expectation)) from None
    return device
