"""Sample weights and class weights, as one weight for each sample."""

from numbers import Real

import numpy as np
from sklearn.utils.class_weight import compute_class_weight
from sklearn.utils.validation import _check_sample_weight

from skrobust._validation import expected

__all__ = []


def check_class_weight(class_weight):
    """Raise a ValueError if `class_weight` is not None, "balanced" or a dict of weights."""
    if class_weight is None or (isinstance(class_weight, str) and class_weight == "balanced"):
        return
    if isinstance(class_weight, dict) and all(map(_is_weight, class_weight.values())):
        return
    expectation = 'None, "balanced", or a dict of labels to finite weights of at least 0'
    raise ValueError(expected("class_weight", class_weight, expectation))


def _is_weight(value):
    is_number = isinstance(value, Real) and not isinstance(value, bool)
    return is_number and bool(np.isfinite(value)) and value >= 0


def checked_sample_weight(sample_weight, X):
    """Return the weights as a float64 array of shape (n_samples,); or None, as given."""
    if sample_weight is None:
        return None
    if isinstance(sample_weight, Real) and not np.isfinite(float(sample_weight)):
        # As a single number, scikit-learn takes it.
        raise ValueError(expected("sample_weight", sample_weight, "finite weights of at least 0"))
    return _check_sample_weight(sample_weight, X, dtype=np.float64, ensure_non_negative=True)


def joint_weight(y, sample_weight, class_weight, classes):
    """Return the product of the weights of each sample and of its class, or None for all equal.

    Scaled to a mean of 1, so that a loss does not depend on the unit of the weights.
    """
    if class_weight is not None:
        present = np.unique(y)
        _check_known(class_weight, classes)
        weights = compute_class_weight(
            class_weight, classes=present, y=y, sample_weight=sample_weight
        )
        of_class = weights[np.searchsorted(present, y)]
        sample_weight = of_class if sample_weight is None else sample_weight * of_class
    if sample_weight is None:
        return None
    if not sample_weight.any():
        raise ValueError("Got sample weights times class weights that are all zero.")
    if np.ptp(sample_weight) == 0:
        return None
    return sample_weight * (len(sample_weight) / sample_weight.sum())


def _check_known(class_weight, classes):
    if not isinstance(class_weight, dict):
        return
    unknown = [label for label in class_weight if not np.isin(label, classes)]
    if unknown:
        expectation = f"labels among the classes {classes.tolist()}, not {unknown}"
        raise ValueError(expected("class_weight", class_weight, expectation))
