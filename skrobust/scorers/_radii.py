"""The integral over radii: what a share is worth, and how much a radius counts.

H and G in the framework of Tibo et al.
"""

import numpy as np
from scipy.stats import norm as normal

from skrobust._validation import call_of_user, expected
from skrobust.statistics import Interval, hoeffding

__all__ = ["TRANSFORMS", "WEIGHTS", "check_radii", "score_interval", "transformed", "weights_of"]

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
    density = _as_floats("weight", call_of_user("weight", weight, rows, epsilons))
    if density.shape not in ((len(epsilons),), (len(rows), len(epsilons))):
        shapes = f"({len(epsilons)},) or ({len(rows)}, {len(epsilons)})"
        raise ValueError(
            f"Got weight with values of shape {density.shape}, but expected {shapes}."
        )
    weights = _trapezoids(epsilons, np.broadcast_to(density, (len(rows), len(epsilons))))
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


def _trapezoids(epsilons, density):
    """Return the weight of each radius in the integral of a density by the trapezoidal rule.

    One radius alone is a point mass: there is no width to integrate over.
    """
    if len(epsilons) == 1:
        return density
    gaps = np.diff(epsilons)
    return density * (np.r_[gaps, 0.0] + np.r_[0.0, gaps]) / 2


# From the radii to the weights of radius 0 and of the radii, by name.
WEIGHTS = {
    "radii": lambda e: np.r_[0.0, np.ones(len(e))],
    "uniform": lambda e: _trapezoids(np.r_[0.0, e], np.ones(len(e) + 1)),
    "inverse": lambda e: np.r_[0.0, _trapezoids(e, 1 / e)],
}


def score_interval(integrals, totals, score, confidence):
    """Return the interval of a score that is a ratio of sums over the samples.

    With the same total weight for all samples the score is a mean of values in [0, 1], for which
    Hoeffding's interval holds. Else it is that of a ratio, by the delta method.
    """
    values = integrals / totals
    if np.ptp(totals) <= 1e-12 * totals.max() and 0 <= values.min() <= values.max() <= 1 + 1e-9:
        return hoeffding(values, confidence=confidence)
    spread = (integrals - score * totals).std() / (totals.mean() * np.sqrt(len(totals)))
    half = float(normal.ppf((1 + confidence) / 2) * spread)
    return Interval(score - half, score + half, confidence, "normal, approximate")
