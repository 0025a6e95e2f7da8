"""The integral over radii: what a share is worth, and how much a radius counts.

H and G in the framework of Tibo et al.
"""

import numpy as np
from scipy.stats import norm as normal

from skrobust._validation import call_of_user, expected
from skrobust.statistics import Interval, hoeffding

__all__ = [
    "TRANSFORMS",
    "WEIGHTS",
    "check_radii",
    "diameter",
    "even_radii",
    "mean_interval",
    "transformed",
    "weights_of",
]

# What the probability p is worth, by name.
TRANSFORMS = {
    "identity": lambda p: p,
    "all": lambda p: (p == 1).astype(np.float64),
    "majority": lambda p: (p > 0.5).astype(np.float64),
}


def check_radii(name, radii):
    """Return rising positive numbers as a float64 array of shape (n,), else raise a ValueError."""
    expectation = "a positive number, or an array of rising positive numbers"
    try:
        values = np.atleast_1d(np.asarray(radii))
        is_real = values.dtype.kind in "fiu" and not isinstance(radii, bool)
        values = values.astype(np.float64) if is_real else None
    except (TypeError, ValueError):
        values = None
    if values is None or values.ndim != 1 or len(values) == 0:
        raise ValueError(expected(name, radii, expectation))
    # The weight 1 / radius of a subnormal one would be infinite.
    smallest = np.finfo(np.float64).tiny
    if not (np.isfinite(values).all() and values[0] >= smallest and (np.diff(values) > 0).all()):
        raise ValueError(expected(name, radii, expectation))
    return values


def diameter(name, value, bounds, norm, n_features):
    """Return the largest distance between two points of `bounds`, else raise a ValueError.

    `name` and `value` are of the parameter that leaves it to the bounds to say it.
    """
    across = np.inf
    if bounds is not None:
        sides = np.broadcast_to(np.subtract(bounds[1], bounds[0]), n_features)
        across = float(np.linalg.norm(sides, np.inf if norm == "linf" else 2))
    if not (np.isfinite(across) and across > 0):
        expectation = "a number, since bounds do not say how far to search"
        raise ValueError(expected(name, value, expectation))
    return across


def even_radii(largest, n_radii=20):
    """Return rising radii with even gaps, from the first gap to `largest`."""
    return largest * np.arange(1, n_radii + 1) / n_radii


def transformed(transform, shares):
    """Return what shares are worth, of the same shape, by a name or by the user's function."""
    function = transform if callable(transform) else TRANSFORMS[transform]
    worth = _as_floats("transform", call_of_user("transform", function, shares))
    if worth.shape != shares.shape:
        raise ValueError(
            f"Got transform with values of shape {worth.shape}, but expected that of its "
            f"argument, {shares.shape}."
        )
    if not np.isfinite(worth).all():
        raise ValueError("Got transform with values NaN or infinity, but expected finite ones.")
    return worth


def weights_of(weight, rows, epsilons):
    """Return the weights of radius 0 and of each of `epsilons`: (n_rows, n_epsilons + 1)."""
    if not callable(weight):
        return np.tile(WEIGHTS[weight](epsilons), (len(rows), 1))
    given = _as_floats("weight", call_of_user("weight", weight, rows, epsilons))
    if given.shape not in ((len(epsilons),), (len(rows), len(epsilons))):
        shapes = f"({len(epsilons)},) or ({len(rows)}, {len(epsilons)})"
        raise ValueError(f"Got weight with values of shape {given.shape}, but expected {shapes}.")
    weights = np.broadcast_to(given, (len(rows), len(epsilons))) / len(epsilons)
    is_weight = np.isfinite(weights).all() and (weights >= 0).all()
    if not (is_weight and (weights.sum(axis=1) > 0).all()):
        expectation = "finite weights of at least 0, some above 0 for each sample"
        raise ValueError(expected("weight", weight, expectation))
    return np.c_[np.zeros(len(rows)), weights]


def _as_floats(name, values):
    """Return what a user's function returned as a float64 array, else raise a TypeError."""
    try:
        array = np.asarray(values)
    except ValueError:  # ragged
        array = np.empty(0, dtype=object)
    if array.dtype.kind not in "fiub":
        raise TypeError(f"Got {name} with values {values!r}, but expected real numbers.")
    return array.astype(np.float64)


def _trapezoids(epsilons):
    """Return the weights of 0 and of each radius in an integral by the trapezoidal rule."""
    gaps = np.diff(np.r_[0.0, epsilons])
    return (np.r_[gaps, 0.0] + np.r_[0.0, gaps]) / 2


# From the radii to the weights of radius 0 and of the radii, by name.
WEIGHTS = {
    "radii": lambda e: np.r_[0.0, np.full(len(e), 1 / len(e))],
    "inverse": lambda e: np.r_[0.0, 1 / (e * len(e))],
    "density": _trapezoids,
    "constant": _trapezoids,
}


def mean_interval(values, totals, confidence):
    """Return the interval of the mean of `values`, each from 0 to its entry of `totals`.

    With the same total for all samples Hoeffding's holds, else it is that of a normal mean.
    """
    total = float(np.max(totals))
    is_inside = 0 <= values.min() <= values.max() <= total * (1 + 1e-9)
    if np.ptp(totals) <= 1e-12 * total and is_inside:
        return hoeffding(np.minimum(values, total), 0.0, total, confidence)
    half = float(normal.ppf((1 + confidence) / 2) * values.std() / np.sqrt(len(values)))
    mean = float(values.mean())
    return Interval(mean - half, mean + half, confidence, "normal, approximate")
