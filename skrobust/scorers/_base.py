"""What all scorers share: call for a float, evaluate for everything."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, fields
from functools import partial

import numpy as np
from sklearn.base import BaseEstimator

from skrobust._evaluation import evaluate_in_chunks
from skrobust._validation import check_columns, check_instance, check_integer, check_real
from skrobust.networks import as_model
from skrobust.properties import RobustnessProperty
from skrobust.statistics import Interval

__all__ = ["PropertyScorer", "RobustnessScorer", "ScoreResult"]


@dataclass(frozen=True, eq=False, repr=False)
class ScoreResult:
    """Base class of results: arrays with one entry for each sample, and the score.

    Parameters
    ----------
    score : float
        Larger is better.
    interval : Interval
        Confidence interval of the score, for samples drawn as those of `X` were.
    """

    score: float
    interval: Interval

    def to_frame(self):
        """Return the per-sample arrays of one axis as a pandas DataFrame."""
        import pandas as pd

        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return pd.DataFrame(
            {name: v for name, v in values.items() if isinstance(v, np.ndarray) and v.ndim == 1}
        )

    def __repr__(self):
        return f"{type(self).__name__}(score={self.score:.4f}, interval={self.interval})"


class RobustnessScorer(BaseEstimator, ABC):
    """Base class: ``scorer(estimator, X, y)`` is a float, `evaluate` returns a full result."""

    @abstractmethod
    def evaluate(self, estimator, X, y=None):
        """Return a `ScoreResult` for a fitted classifier.

        Parameters
        ----------
        estimator : object
            Fitted classifier.
        X : array-like of shape ``(n_samples, n_features)`` or ``(n_samples, *input_shape)``
            In the raw input space of the estimator.
        y : array-like of shape (n_samples,), default=None
            True labels, where the property needs them.
        """

    def __call__(self, estimator, X, y=None):
        """Return the score alone, as scikit-learn's searches ask for it."""
        return self.evaluate(estimator, X, y).score


class PropertyScorer(RobustnessScorer):
    """Base class of scorers of one property, measured on chunks of samples."""

    def _evaluate_in_chunks(self, measure, estimator, X, y, needs_gradient):
        """Validate everything, then measure chunk by chunk.

        Parameters
        ----------
        measure : callable
            ``measure(model, rows, labels, seed)``, as in `evaluate_in_chunks`.
        needs_gradient : bool
            Whether the estimator must be a network; otherwise it may be a black box.
        """
        example = "ClassificationRobustness(epsilon=0.1)"
        check_instance("property", self.property, RobustnessProperty, example).check()
        check_real("confidence", self.confidence, low=0, high=1, closed="neither")
        check_integer("chunk_size", self.chunk_size, low=1)
        check_columns(estimator, X)
        model = as_model(
            estimator,
            self.property.needed_outputs,
            needs_gradient=needs_gradient,
            input_shape=np.shape(X)[1:],
        )
        rows = model.check_rows(X)
        self.property.check(rows)
        labels = None
        if self.property.needs_labels:
            if y is None:
                raise ValueError(
                    "Got y=None, but expected the true labels: the property has "
                    "reference='label'. Give y, or set reference='prediction'."
                )
            labels = model.encode(y)
            if len(labels) != len(rows):
                raise ValueError(f"Got y of length {len(labels)}, but expected {len(rows)}.")
            labels = labels.cpu().numpy()
        return evaluate_in_chunks(
            measure,
            model,
            rows,
            labels,
            fingerprint=partial(_key, model, rows),
            chunk_size=self.chunk_size,
            random_state=self.random_state,
            n_jobs=self.n_jobs,
            memory=self.memory,
            verbose=self.verbose,
        )


def _key(model, rows):
    """Return what tells a model from others: what it is made of, and what it does."""
    few = model.replay(model.rows(rows[:64])).double().cpu().numpy()
    return model.fingerprint(), few
