"""Trees behind steps that change each column by itself: thresholds move to the raw columns."""

from dataclasses import replace

import numpy as np

from skrobust.networks import ColumnwiseSteps

__all__ = ["behind_steps"]

_FARTHEST = 1e300  # beyond, scalers overflow


def behind_steps(steps, trees):
    """Return trees on the raw columns, given those on what the steps return.

    A threshold becomes the largest raw number that goes to the same side as all smaller ones,
    found by bisection on floating-point numbers: the steps themselves are asked, so that their
    rounding counts.

    Parameters
    ----------
    steps : list of (str, object)
        Names and fitted transformers.
    trees : TreeEnsemble

    Returns
    -------
    TreeEnsemble

    Raises
    ------
    UnsupportedModelError
        If the steps mix columns, encode categories, or are not known.
    """
    steps = [(name, step) for name, step in steps if step is not None and step != "passthrough"]
    inner = np.flatnonzero(trees.feature >= 0)
    if not steps or len(inner) == 0:
        return trees
    scaled = ColumnwiseSteps(steps)
    pairs = np.stack([trees.feature[inner].astype(np.float64), trees.last[inner]])
    pairs, place = np.unique(pairs, axis=1, return_inverse=True)
    output, place = pairs[0].astype(int), place.ravel()
    last = _last_of_low_side(scaled, output, pairs[1])
    feature, moved = trees.feature.copy(), trees.last.copy()
    feature[inner], moved[inner] = scaled.column[output][place], last[place]
    left, right = trees.left.copy(), trees.right.copy()
    falls = inner[scaled.slope[output][place] < 0]
    left[falls], right[falls] = trees.right[falls], trees.left[falls]
    return replace(trees, feature=feature, last=moved, left=left, right=right)


def _last_of_low_side(scaled, output, threshold):
    """Return the largest raw numbers that go where -infinity goes, infinity where all do so."""
    slope, bias = scaled.slope[output], scaled.bias[output]
    falls = slope < 0

    def is_low(x):
        return (scaled(output, x) <= threshold) != falls

    with np.errstate(all="ignore"):
        guess, shift = np.nan_to_num(((threshold - bias) / slope, bias / slope))
    guess = guess.clip(-_FARTHEST, _FARTHEST)
    reach = 1e-6 * (np.abs(guess) + np.abs(shift).clip(max=_FARTHEST)) + 1e-9
    low, high = guess, guess
    while True:
        low = np.where(is_low(low), low, (guess - reach).clip(-_FARTHEST))
        high = np.where(is_low(high), (guess + reach).clip(max=_FARTHEST), high)
        low_side, high_side = is_low(low), ~is_low(high)
        if (low_side | (low == -_FARTHEST)).all() and (high_side | (high == _FARTHEST)).all():
            break
        reach = np.minimum(reach * 1e3, 2 * _FARTHEST)
    a, b = _as_integer(low), _as_integer(high)
    while (a + 1 < b).any():
        middle = a // 2 + b // 2 + (a & b & 1)
        goes = is_low(_as_float(middle))
        a, b = np.where(goes, middle, a), np.where(goes, b, middle)
    return np.select([~high_side, ~low_side], [np.inf, -np.inf], _as_float(a))


def _as_integer(x):
    """Return int64 numbers in the order of float64 numbers, neighbors for neighbors."""
    bits = (x + 0.0).view(np.int64)  # no -0.0, which is 0.0
    return np.where(bits < 0, np.iinfo(np.int64).min - bits, bits)


def _as_float(n):
    return np.where(n < 0, np.iinfo(np.int64).min - n, n).view(np.float64)
