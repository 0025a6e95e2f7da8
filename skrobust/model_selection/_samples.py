"""What a score is the mean of: one value for each sample."""

from functools import singledispatch

import numpy as np
from sklearn.utils import column_or_1d

from skrobust._validation import check_length, expected, kind_of
from skrobust.pointwise import PointwiseStatus
from skrobust.scorers import (
    AdversarialFrequency,
    ConstraintAccuracy,
    ConstraintSatisfaction,
    ConstraintSecurity,
    RobustnessScorer,
)
from skrobust.verification import Verdict

__all__ = ["range_of", "sample_values"]

_WHAT = (
    "None or 'accuracy', a scorer of skrobust whose score is a mean over samples "
    "(ConstraintSecurity, ConstraintAccuracy, ConstraintSatisfaction, AdversarialFrequency), or a "
    "function (estimator, X, y) that returns one number for each sample"
)


@singledispatch
def sample_values(scoring, estimator, X, y):
    """Return one value for each sample, whose mean is the score.

    Parameters
    ----------
    scoring : None, str, scorer or callable
    estimator : object
        Fitted.
    X : array-like of shape ``(n_samples, n_features)`` or ``(n_samples, *input_shape)``
    y : array-like of shape (n_samples,) or None

    Returns
    -------
    ndarray of float, shape (n_samples,)

    Raises
    ------
    TypeError
        If the scoring has no such values.
    """
    if not callable(scoring):
        raise TypeError(expected("scoring", scoring, _WHAT))
    values = scoring(estimator, X, y)
    if np.ndim(values) != 1:
        raise TypeError(
            f"Got scoring={scoring!r}, which returns {kind_of(values)} of {np.ndim(values)} "
            f"dimensions, but expected {_WHAT}."
        )
    check_length("values of `scoring`", values, len(y) if y is not None else len(X))
    return np.asarray(values, dtype=np.float64)


@sample_values.register(type(None))
def _(scoring, estimator, X, y):
    return (estimator.predict(X) == column_or_1d(y)).astype(np.float64)


@sample_values.register(str)
def _(scoring, estimator, X, y):
    if scoring != "accuracy":
        raise TypeError(expected("scoring", scoring, _WHAT))
    return sample_values(None, estimator, X, y)


@sample_values.register(RobustnessScorer)
def _(scoring, estimator, X, y):
    raise TypeError(expected("scoring", scoring, _WHAT))


@sample_values.register(ConstraintSecurity)
def _(scoring, estimator, X, y):
    return scoring.evaluate(estimator, X, y).holds.astype(np.float64)


@sample_values.register(ConstraintAccuracy)
def _(scoring, estimator, X, y):
    return scoring.evaluate(estimator, X, y).shares


@sample_values.register(ConstraintSatisfaction)
def _(scoring, estimator, X, y):
    verdicts = scoring.evaluate(estimator, X, y).verdicts
    return (verdicts == Verdict.VERIFIED).astype(np.float64)


@sample_values.register(AdversarialFrequency)
def _(scoring, estimator, X, y):
    result = scoring.evaluate(estimator, X, y)
    unresolved = [status for status in PointwiseStatus if status.is_unresolved]
    against = (result.radius <= scoring.epsilon) | np.isin(result.status, unresolved)
    return -against.astype(np.float64)


def range_of(scoring, value_range):
    """Return the least and the largest value that a sample can have."""
    if isinstance(scoring, AdversarialFrequency):
        return -1.0, 0.0
    if scoring is None or isinstance(scoring, str | RobustnessScorer):
        return 0.0, 1.0
    return value_range
