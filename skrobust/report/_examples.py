"""The counterexamples that are closest to their samples."""

from dataclasses import dataclass

import numpy as np

__all__ = ["WorstExamples", "closest_examples"]


@dataclass(frozen=True, eq=False, repr=False)
class WorstExamples:
    """Samples that the smallest changes break, the smallest first.

    Parameters
    ----------
    index : ndarray of int, shape (n_examples,)
        Rows of `X`.
    distance : ndarray of shape (n_examples,)
        In the norm of the property, in units of the scale where there is one.
    originals, perturbed : ndarray of shape (n_examples, n_features)
        The sample, and a point that breaks the property, as the estimator itself confirms.
    labels : ndarray of shape (n_examples,)
        True labels.
    before, after : ndarray of shape (n_examples,)
        What the estimator predicts at both.
    """

    index: np.ndarray
    distance: np.ndarray
    originals: np.ndarray
    perturbed: np.ndarray
    labels: np.ndarray
    before: np.ndarray
    after: np.ndarray

    def __len__(self):
        return len(self.index)

    def __repr__(self):
        distances = ", ".join(f"{distance:.4g}" for distance in self.distance)
        return f"WorstExamples(distance=[{distances}])"


def closest_examples(rows, results, is_candidate, property, scale, epsilon_max, n_examples):
    """Return rows of X, distances and points of the closest counterexamples in results.

    Parameters
    ----------
    rows : ndarray of shape (n_samples, n_features)
    results : iterable of ScoreResult
        Those without counterexamples say nothing here.
    is_candidate : ndarray of bool, shape (n_samples,)
        Samples that may be shown.
    property : RobustnessProperty
        Has the norm.
    scale : ndarray of shape (n_features,) or None
    epsilon_max : float
        Largest distance, up to the rounding of float32.
    n_examples : int

    Returns
    -------
    index, distance, points
    """
    order = 2 if property.norm == "l2" else np.inf
    # Points are computed in the precision of the estimator.
    slack = 1e-6 * max(1.0, epsilon_max)
    closest = np.full(len(rows), np.inf)
    points = np.full(rows.shape, np.nan)
    for result in results:
        found = _points(result)
        if found is None or found.shape != rows.shape:
            continue
        change = (found.astype(np.float64) - rows) / (1.0 if scale is None else scale)
        distance = np.linalg.norm(change, ord=order, axis=1)
        # NaN where there is none; a sample that is its own counterexample is a plain error.
        is_closer = (distance > 0) & (distance <= epsilon_max + slack) & (distance < closest)
        closest[is_closer], points[is_closer] = distance[is_closer], found[is_closer]
    index = np.flatnonzero(np.isfinite(closest) & is_candidate)
    index = index[np.argsort(closest[index], kind="stable")][:n_examples]
    return index, closest[index], points[index]


def _points(result):
    for name in ("counterexamples", "adversarial_examples"):
        if hasattr(result, name):
            return getattr(result, name)
    return None
