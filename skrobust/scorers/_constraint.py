"""Constraint accuracy and constraint security (Casadio et al.)."""

from dataclasses import dataclass
from functools import partial

import numpy as np

from skrobust._parameters import DefaultParts
from skrobust._validation import check_instance
from skrobust.attacks import Attack, NearMissPGD, UniformSampling, confirm_outcome
from skrobust.scorers._base import (
    PropertyScorer,
    ScoreResult,
    WeightedScorer,
    as_arrays,
    as_target,
    attack_chunk,
    share_of,
    weighted_mean,
    weights_of_rows,
)
from skrobust.statistics import Interval, clopper_pearson, hoeffding

__all__ = [
    "ConstraintAccuracy",
    "ConstraintAccuracyResult",
    "ConstraintSecurity",
    "ConstraintSecurityResult",
]


@dataclass(frozen=True, eq=False, repr=False)
class ConstraintSecurityResult(ScoreResult):
    """What `ConstraintSecurity.evaluate` returns.

    Parameters
    ----------
    score : float
        Share of samples where the attack found no violation.
    interval : Interval
        Clopper-Pearson interval of the score; with weights Hoeffding's.
    holds : ndarray of bool, shape (n_samples,)
        Whether the property withstood the attack.
    margins : ndarray of shape (n_samples,)
        Smallest row of the property at the point that the attack ended at.
    counterexamples : ndarray of shape (n_samples, n_features)
        Points that break the property, as the estimator itself computes; NaN where none.
    unconfirmed : ndarray of bool, shape (n_samples,)
        Samples that count as holding although the network has a violation, which the estimator
        itself does not show, also after a second attack: a matter of rounding.
    """

    holds: np.ndarray
    margins: np.ndarray
    counterexamples: np.ndarray
    unconfirmed: np.ndarray


class ConstraintSecurity(DefaultParts, WeightedScorer, PropertyScorer):
    """Share of samples around which an attack finds no violation of a property.

    An upper estimate of the share for which the property truly holds.

    Parameters
    ----------
    property : RobustnessProperty
        In the raw input space of the estimator that is scored.
    attack : Attack or None, default=None
        Any attack of `skrobust.attacks`; None is ``NearMissPGD()``: short runs, each against the
        next row of the property (for Lipschitz robustness, in the next of three balls a row), and
        long ones where a row was nearly broken.
    confidence : float, default=0.95
        Of the interval.
    chunk_size : int, default=1024
        Samples attacked at a time.
    random_state : int, RandomState instance or None, default=None
        For attacks with random starts.
    n_jobs : int or None, default=None
        Chunks evaluated at a time, by joblib.
    memory : None, str or joblib.Memory, default=None
        Keeps the result of each chunk (with an int as `random_state`).
    verbose : int, default=0
        joblib's progress messages.

    Notes
    -----
    Many short runs, each against another row, find more than one long run does, in less time. The
    attack of the papers is ``PGD(objective="cross-entropy")`` for classification robustness; that
    of Casadio et al. on other properties follows ``objective="smallest-row"``.

    References
    ----------
    Casadio et al., CAV 2022, section 3, Definition 6.

    Examples
    --------
    >>> from sklearn.linear_model import LogisticRegression
    >>> from skrobust.datasets import load_digits
    >>> from skrobust.properties import ClassificationRobustness
    >>> from skrobust.scorers import ConstraintSecurity
    >>> X, y = load_digits(return_X_y=True)
    >>> model = LogisticRegression().fit(X[:1000], y[:1000])
    >>> scorer = ConstraintSecurity(ClassificationRobustness(0.05), random_state=0)
    >>> scorer(model, X[1000:], y[1000:]) < model.score(X[1000:], y[1000:])
    True
    """

    _treats_domains = True

    def __init__(
        self,
        property,
        attack=None,
        *,
        confidence=0.95,
        chunk_size=1024,
        random_state=None,
        n_jobs=None,
        memory=None,
        verbose=0,
    ):
        self.property = property
        self.attack = attack
        self.confidence = confidence
        self.chunk_size = chunk_size
        self.random_state = random_state
        self.n_jobs = n_jobs
        self.memory = memory
        self.verbose = verbose

    def _default_parts(self):
        return {"attack": NearMissPGD()}

    def evaluate(self, estimator, X, y=None, sample_weight=None):
        """Return a `ConstraintSecurityResult`.

        Parameters
        ----------
        estimator : object
            Fitted classifier.
        X : array-like of shape ``(n_samples, n_features)`` or ``(n_samples, *input_shape)``
            In the raw input space of the estimator.
        y : array-like of shape (n_samples,), default=None
            True labels, where the property needs them.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the samples in the score, whose interval is Hoeffding's then. A search hands
            them on after ``scorer.set_score_request(sample_weight=True)``.
        """
        weights = weights_of_rows(sample_weight, X)
        attack = self._part("attack")
        check_instance("attack", attack, Attack, "PGD()").check()
        measure = partial(attack_chunk, property=self.property, attack=attack)
        arrays = self._evaluate_in_chunks(measure, estimator, X, y, attack.needs_gradient)
        share = share_of(arrays["holds"], weights, self.confidence)
        return ConstraintSecurityResult(*share, **arrays)


@dataclass(frozen=True, eq=False, repr=False)
class ConstraintAccuracyResult(ScoreResult):
    """What `ConstraintAccuracy.evaluate` returns.

    Parameters
    ----------
    score : float
        Mean of `shares`.
    interval : Interval
        Exact for the share of the whole distribution: Clopper-Pearson from one sampled point
        around each input, since points around the same input are not independent trials. With
        weights Hoeffding's, as the other one.
    sampling_interval : Interval
        Clopper-Pearson from all sampled points: how far the score is known for these very
        inputs. Approximate: points of different inputs share noise, so that they are
        independent in pairs only, which gives the spread of the binomial, not its exact
        coverage.
    shares : ndarray of shape (n_samples,)
        Share of the sampled points at which the property holds.
    margins : ndarray of shape (n_samples,)
        Smallest row of the property at the worst sampled point.
    counterexamples : ndarray of shape (n_samples, n_features)
        The worst sampled point where it breaks the property, else NaN.
    """

    sampling_interval: Interval
    shares: np.ndarray
    margins: np.ndarray
    counterexamples: np.ndarray


class ConstraintAccuracy(WeightedScorer, PropertyScorer):
    """Share of random points of the ball at which a property holds, averaged over samples.

    Works with any classifier that has `predict` (properties of probabilities need
    `predict_proba`).

    The points are uniform in the ball, cut to the property's `bounds`: the valid inputs, pixels in
    [0, 1] by default. Definition 7 of the paper has the whole ball, which is that of a property
    with ``bounds=None``; near the border of the domain the two shares differ.

    Parameters
    ----------
    property : RobustnessProperty
        In the raw input space of the estimator that is scored.
    n_samples : int, default=100
        Points drawn around each sample.
    batch_size : int, default=2048
        Points that the estimator sees at a time; bounds the memory.
    confidence : float, default=0.95
        Of the intervals.
    chunk_size : int, default=1024
        Samples of one job.
    random_state : int, RandomState instance or None, default=None
        For the draws.
    n_jobs : int or None, default=None
        Chunks evaluated at a time, by joblib.
    memory : None, str or joblib.Memory, default=None
        Keeps the result of each chunk (with an int as `random_state`).
    verbose : int, default=0
        joblib's progress messages.

    References
    ----------
    Casadio et al., CAV 2022, section 3, Definition 7.

    Examples
    --------
    >>> from sklearn.ensemble import RandomForestClassifier
    >>> from skrobust.datasets import load_digits
    >>> from skrobust.properties import ClassificationRobustness
    >>> from skrobust.scorers import ConstraintAccuracy
    >>> X, y = load_digits(return_X_y=True)
    >>> model = RandomForestClassifier(20, random_state=0).fit(X[:1000], y[:1000])
    >>> scorer = ConstraintAccuracy(ClassificationRobustness(0.2), 20, random_state=0)
    >>> result = scorer.evaluate(model, X[1000:1100], y[1000:1100])
    >>> 0.5 < result.score <= 1
    True
    """

    _treats_domains = True

    def __init__(
        self,
        property,
        n_samples=100,
        *,
        batch_size=2048,
        confidence=0.95,
        chunk_size=1024,
        random_state=None,
        n_jobs=None,
        memory=None,
        verbose=0,
    ):
        self.property = property
        self.n_samples = n_samples
        self.batch_size = batch_size
        self.confidence = confidence
        self.chunk_size = chunk_size
        self.random_state = random_state
        self.n_jobs = n_jobs
        self.memory = memory
        self.verbose = verbose

    def evaluate(self, estimator, X, y=None, sample_weight=None):
        """Return a `ConstraintAccuracyResult`.

        Parameters
        ----------
        estimator : object
            Fitted classifier.
        X : array-like of shape ``(n_samples, n_features)`` or ``(n_samples, *input_shape)``
            In the raw input space of the estimator.
        y : array-like of shape (n_samples,), default=None
            True labels, where the property needs them.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the samples in the score, whose interval is Hoeffding's then. A search hands
            them on after ``scorer.set_score_request(sample_weight=True)``.
        """
        weights = weights_of_rows(sample_weight, X)
        sampling = UniformSampling(self.n_samples, batch_size=self.batch_size).check()
        measure = partial(_sample, property=self.property, sampling=sampling)
        arrays = self._evaluate_in_chunks(measure, estimator, X, y, needs_gradient=False)
        counts, first_holds = arrays.pop("counts"), arrays.pop("first_holds")
        n_points, shares = int(self.n_samples) * len(counts), counts / self.n_samples
        _, interval = share_of(first_holds, weights, self.confidence)
        if weights is None:
            score = float(counts.sum() / n_points)
            sampling_interval = clopper_pearson(counts.sum(), n_points, self.confidence)
        else:
            score = weighted_mean(shares, weights)
            each = np.repeat(weights, int(self.n_samples))
            points = np.arange(int(self.n_samples)) < counts[:, None]
            sampling_interval = hoeffding(points.ravel(), confidence=self.confidence, weights=each)
        return ConstraintAccuracyResult(
            score,
            interval,
            sampling_interval,
            shares,
            **arrays,
        )


def _sample(model, rows, labels, seed, *, property, sampling):
    target, generator = as_target(model, rows, labels, seed, property)
    summary = sampling.summary(target, generator)
    worst = as_arrays(confirm_outcome(target, summary.worst))
    return {
        "counts": summary.n_holding.cpu().numpy(),
        "first_holds": summary.first_holds.cpu().numpy(),
        "margins": worst["margins"],
        "counterexamples": worst["counterexamples"],
    }
