"""What all scorers share: call for a float, evaluate for everything."""

import sys
from abc import ABC, abstractmethod
from dataclasses import dataclass, fields
from functools import partial

import numpy as np
import torch
from sklearn.base import BaseEstimator
from sklearn.utils.metadata_routing import UNUSED

from skrobust._evaluation import evaluate_in_chunks, model_key
from skrobust._validation import (
    BY_LABEL,
    check_columns,
    check_integer,
    check_labels_given,
    check_length,
    check_real,
    expected,
    kind_of,
    sample_shape,
)
from skrobust.attacks import Target, attack_and_confirm
from skrobust.exceptions import UnsupportedPropertyError
from skrobust.networks import as_model, frame_like, import_pandas
from skrobust.properties import check_property
from skrobust.statistics import Interval, check_weights, clopper_pearson, hoeffding

__all__ = [
    "PropertyScorer",
    "RobustnessScorer",
    "Sample",
    "ScoreResult",
    "WeightedScorer",
    "as_arrays",
    "as_target",
    "as_tensors",
    "attack_chunk",
    "level_outside",
    "share_of",
    "weighted_mean",
    "weights_of_rows",
]


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
        """Return the per-sample arrays of one axis as a pandas DataFrame.

        Raises
        ------
        ImportError
            If pandas is not installed.
        """
        pd = import_pandas("to_frame")
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return pd.DataFrame(
            {name: v for name, v in values.items() if isinstance(v, np.ndarray) and v.ndim == 1}
        )

    def counterexamples_frame(self, X):
        """Return the counterexamples, or adversarial examples, as a frame like `X`.

        Parameters
        ----------
        X : DataFrame of shape (n_samples, n_features)
            What was evaluated, of pandas or polars.

        Returns
        -------
        DataFrame
            Of the same kind, with its columns: a row for each sample that has one, under the
            index of that sample in pandas. Columns have the types of `X` where these hold the
            values.

        Raises
        ------
        TypeError
            If `X` is no frame, or the result has no such examples.
        """
        for name in ("counterexamples", "adversarial_examples"):
            if hasattr(self, name):
                return frame_like(getattr(self, name), X)
        raise TypeError(f"Got {kind_of(self)}, but expected a result with counterexamples.")

    def __repr__(self):
        return f"{type(self).__name__}(score={self.score:.4f}, interval={self.interval})"


@dataclass(frozen=True, eq=False)
class Sample:
    """What a scorer measures: a classifier, and data in its raw input space.

    Parameters
    ----------
    model : Model
    rows : ndarray of shape (n_samples, n_features)
    labels : ndarray of shape (n_samples,) or None
        True class indices, where there are any.
    """

    model: object
    rows: np.ndarray
    labels: np.ndarray | None

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, index):
        labels = None if self.labels is None else self.labels[index]
        return Sample(self.model, self.rows[index], labels)


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

    def __call__(self, estimator, X, y=None, **metadata):
        """Return the score alone, as scikit-learn's searches ask for it."""
        return self.evaluate(estimator, X, y, **metadata).score

    def _check_common(self):
        """Validate the parameters that all scorers have."""
        check_real("confidence", self.confidence, low=0, high=1, closed="neither")
        check_integer("chunk_size", self.chunk_size, low=1)

    def _sample(self, estimator, X, y, outputs=("labels",), *, needs_gradient=False, needed_by=""):
        """Validate the data, and return the `Sample`.

        Parameters
        ----------
        outputs, needs_gradient
            As in `as_model`.
        needed_by : str, default=""
            What asks for labels, such as "the scorer has reference='label'"; y may be None if
            empty.
        """
        check_columns(estimator, X)
        model = as_model(
            estimator, outputs, needs_gradient=needs_gradient, input_shape=sample_shape(X)
        )
        rows = model.check_rows(X)
        check_labels_given(y, needed_by)
        if y is None:
            return Sample(model, rows, None)
        check_length("y", y, len(rows))
        return Sample(model, rows, model.encode(y).cpu().numpy())

    def _in_chunks(self, measure, sample, *, state=None, whole=None, **options):
        """Apply `measure` to chunks of a sample, as `evaluate_in_chunks` does.

        Parameters
        ----------
        measure : callable
            ``measure(state, rows, labels, seed)``.
        sample : Sample
        state : object, default=None
            Handed to `measure`; the model if None. All that `measure` returns must follow from
            the model and its other arguments, which make up the key in the memory.
        whole : Sample, default=None
            What `sample` is a part of, if the key is to be the same for all its parts.
        **options
            Of `evaluate_in_chunks`, in place of the scorer's own.
        """
        names = ("chunk_size", "random_state", "n_jobs", "memory", "verbose")
        own = {name: getattr(self, name) for name in names}
        keyed = sample if whole is None else whole
        return evaluate_in_chunks(
            measure,
            sample.model if state is None else state,
            sample.rows,
            sample.labels,
            fingerprint=partial(model_key, keyed.model, keyed.rows),
            **own | options,
        )


class PropertyScorer(RobustnessScorer):
    """Base class of scorers of one property, measured on chunks of samples."""

    _treats_domains = False

    def _check_common(self):
        super()._check_common()
        check_property(self.property)
        bounds = self.property.bounds
        if not (self._treats_domains or getattr(bounds, "is_box", True)):
            expectation = (
                f"a box, since {type(self).__name__} draws from boxes and balls alone. "
                "Use ConstraintAccuracy, ConstraintSecurity or ConstraintSatisfaction"
            )
            raise UnsupportedPropertyError(expected("bounds", bounds, expectation))

    def _prepare(self, estimator, X, y, needs_gradient, property=None):
        """Return the `Sample` that a property is asked of; the scorer's own if None."""
        property = self.property if property is None else property
        needs_labels = property.needs_labels
        sample = self._sample(
            estimator,
            X,
            y if needs_labels else None,
            property.needed_outputs,
            needs_gradient=needs_gradient,
            needed_by=BY_LABEL.format("property") if needs_labels else "",
        )
        property.check(sample.rows)
        # Labels that nobody needs may be of classes that the estimator has never seen.
        if y is not None:
            check_length("y", y, len(sample))
        return sample

    def _evaluate_in_chunks(self, measure, estimator, X, y, needs_gradient):
        """Validate everything, then measure chunk by chunk.

        Parameters
        ----------
        measure : callable
            ``measure(model, rows, labels, seed)``, as in `evaluate_in_chunks`.
        needs_gradient : bool
            Whether the estimator must be a network; otherwise it may be a black box.
        """
        self._check_common()
        return self._in_chunks(measure, self._prepare(estimator, X, y, needs_gradient))


class WeightedScorer(RobustnessScorer):
    """Base class of scorers whose score is a mean, of samples that may have weights."""

    # scikit-learn reads off `score` what can be asked for; the estimator is no metadata.
    __metadata_request__score = {"estimator": UNUSED}  # noqa: RUF012

    def score(self, estimator, X, y=None, sample_weight=None):
        """Return the score alone, as a call of the scorer does.

        Parameters
        ----------
        estimator : object
            Fitted classifier.
        X : array-like of shape ``(n_samples, n_features)`` or ``(n_samples, *input_shape)``
        y : array-like of shape (n_samples,), default=None
        sample_weight : array-like of shape (n_samples,), default=None

        Returns
        -------
        float
        """
        return self(estimator, X, y, sample_weight=sample_weight)


# ---- weights -----------------------------------------------------------------------------


def weights_of_rows(sample_weight, X):
    """Return the weights of the rows of X as an array, or None; raise where they do not fit."""
    if sample_weight is None:
        return None
    weights = check_weights("sample_weight", sample_weight, len(X))
    return weights / weights.max()  # sums of the largest numbers there are would be infinite


def weighted_mean(values, weights):
    """Return the mean of values with weights, or None where all weigh the same, as a float."""
    return float(values.mean()) if weights is None else float(np.average(values, weights=weights))


def share_of(holds, weights, confidence):
    """Return a share, or its weighted form, and its interval.

    An exact binomial interval is for equal weights alone; others take Hoeffding's.
    """
    if weights is None:
        return float(holds.mean()), clopper_pearson(holds.sum(), len(holds), confidence)
    interval = hoeffding(holds, confidence=confidence, weights=weights)
    return weighted_mean(holds, weights), interval


# ---- one chunk ---------------------------------------------------------------------------


def as_tensors(model, rows, labels, seed):
    """Return the rows, the labels (or None) and a generator, on the device of a model."""
    generator = torch.Generator(model.device).manual_seed(seed)
    labels = None if labels is None else torch.as_tensor(labels, device=model.device)
    return model.rows(rows), labels, generator


def as_target(model, rows, labels, seed, property):
    """Return the `Target` of a chunk and a generator, on the device of the model."""
    x, labels, generator = as_tensors(model, rows, labels, seed)
    return Target(model, property, x, labels), generator


def as_arrays(outcome):
    """Return a confirmed `Outcome` as what results hold; NaN where nothing is broken."""
    points = torch.where(outcome.broken.unsqueeze(1), outcome.points, torch.nan)
    return {
        "holds": ~outcome.broken.cpu().numpy(),
        "margins": outcome.margins.cpu().numpy(),
        "counterexamples": points.cpu().numpy(),
    }


def attack_chunk(model, rows, labels, seed, *, property, attack):
    """Attack a chunk; return what `as_arrays` does, and what rounding left open."""
    target, generator = as_target(model, rows, labels, seed, property)
    outcome = attack_and_confirm(attack, target, generator)
    return as_arrays(outcome) | {"unconfirmed": outcome.unconfirmed.cpu().numpy()}


def level_outside():
    """Return the `stacklevel` at which a warning of the caller points outside of this package."""
    package = __name__.partition(".")[0]
    level, frame = 1, sys._getframe(1)
    while frame.f_back and frame.f_globals.get("__name__", "").partition(".")[0] == package:
        level, frame = level + 1, frame.f_back
    return level
