"""Adversarial frequency and severity (Bastani et al.)."""

import math
import warnings
from abc import abstractmethod
from dataclasses import dataclass, replace

import numpy as np

from skrobust._parameters import DefaultParts
from skrobust._validation import (
    BY_LABEL,
    check_choice,
    check_epsilon,
    check_labels_given,
    check_real,
    epsilon_sides,
    sample_shape,
)
from skrobust.attacks import Ensemble
from skrobust.exceptions import UnresolvedWarning
from skrobust.networks import check_scale
from skrobust.pointwise import PointwiseStatus, pointwise_robustness
from skrobust.scorers._base import (
    ScoreResult,
    WeightedScorer,
    level_outside,
    share_of,
    weighted_mean,
    weights_of_rows,
)
from skrobust.statistics import Interval, hoeffding

__all__ = ["AdversarialFrequency", "AdversarialResult", "AdversarialSeverity"]

# Parameters of `pointwise_robustness`, by the same names.
_HANDED_ON = (
    *("method", "targets", "bounds", "solver", "margin", "max_rows", "attack"),
    *("chunk_size", "random_state", "n_jobs", "memory", "verbose"),
)
_UNRESOLVED = [status for status in PointwiseStatus if status.is_unresolved]


@dataclass(frozen=True, eq=False, repr=False)
class AdversarialResult(ScoreResult):
    """What `AdversarialFrequency.evaluate` and `AdversarialSeverity.evaluate` return.

    Parameters
    ----------
    score : float
        Minus the frequency, or the severity.
    interval : Interval
        Of the score. For the frequency Clopper-Pearson, with weights Hoeffding's; for the severity
        Hoeffding's, given which samples have adversarial examples.
    frequency : float
        Share of samples with an adversarial example within epsilon, or unresolved: an upper
        bound of the share that the method would find without its limits.
    severity : float
        Mean distance of the examples within epsilon; epsilon where there is none. An unresolved
        sample counts at its proven lower bound where that lowers the mean, and wherever it has
        an example: a lower bound of the mean that "lp" would find without its limits.
    radius : ndarray of shape (n_samples,)
        Distance of the adversarial example found; inf where there is none.
    status : ndarray of str, shape (n_samples,)
        How the search ended, as in `skrobust.pointwise.PointwiseStatus`.
    n_failed : int
        Unresolved samples: the method failed on them (numerically, or without a confirmed
        example), or came to its limit of rows, and so may have missed their closest example.
        They count against the classifier.
    adversarial_examples : ndarray of shape (n_samples, n_features)
        NaN where none was found.
    """

    frequency: float
    severity: float
    radius: np.ndarray
    status: np.ndarray
    n_failed: int
    adversarial_examples: np.ndarray


class _AdversarialScorer(DefaultParts, WeightedScorer):
    """Shared by frequency and severity: one computation, and two readings."""

    def __init__(
        self,
        epsilon,
        *,
        method="lp",
        reference="prediction",
        targets="runner-up",
        bounds=(0.0, 1.0),
        scale=None,
        solver="lazy",
        margin=0.0,
        max_rows=None,
        attack=None,
        confidence=0.95,
        chunk_size=64,
        random_state=None,
        n_jobs=None,
        memory=None,
        verbose=0,
    ):
        self.epsilon = epsilon
        self.method = method
        self.reference = reference
        self.targets = targets
        self.bounds = bounds
        self.scale = scale
        self.solver = solver
        self.margin = margin
        self.max_rows = max_rows
        self.attack = attack
        self.confidence = confidence
        self.chunk_size = chunk_size
        self.random_state = random_state
        self.n_jobs = n_jobs
        self.memory = memory
        self.verbose = verbose

    def evaluate(self, estimator, X, y=None, sample_weight=None):
        """Return an `AdversarialResult`.

        Parameters
        ----------
        estimator : object
            Fitted classifier.
        X : array-like of shape ``(n_samples, n_features)`` or ``(n_samples, *input_shape)``
            In the raw input space of the estimator.
        y : array-like of shape (n_samples,), default=None
            True labels, for ``reference="label"``.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the samples in the score, whose interval is Hoeffding's then. A search hands
            them on after ``scorer.set_score_request(sample_weight=True)``.
        """
        weights = weights_of_rows(sample_weight, X)
        limits = check_epsilon(self.epsilon)
        check_real("confidence", self.confidence, low=0, high=1, closed="neither")
        # The others prove or bracket, and so find no example to count.
        check_choice("method", self.method, ("lp", "polished", "attack", "lbfgs", "exact"))
        check_choice("reference", self.reference, ("prediction", "label"))
        epsilon, scale = limits, self.scale
        if not isinstance(limits, float):
            # Distances relative to epsilon, which is the unit; what cannot change has any.
            down, up = (np.asarray(side) for side in epsilon_sides(limits))
            unit = np.where(np.maximum(down, up) > 0, np.maximum(down, up), 1.0)
            limits, epsilon = (down / unit, up / unit), float((np.maximum(down, up) > 0).any())
            own = check_scale(scale, estimator, math.prod(sample_shape(X)))
            scale = unit if own is None else own * unit
        pointwise = pointwise_robustness(
            estimator,
            X,
            y=self._reference_labels(y),
            epsilon_max=limits,
            scale=scale,
            **{name: getattr(self, name) for name in _HANDED_ON},
        )
        within = pointwise.radius <= epsilon
        unresolved = np.isin(pointwise.status, _UNRESOLVED)
        if unresolved.any():
            warnings.warn(
                f"{type(self).__name__}: {unresolved.sum()} of {len(within)} samples are "
                "unresolved, and count against the classifier; the statuses in the result of "
                "`evaluate` say why.",
                UnresolvedWarning,
                stacklevel=level_outside(),
            )
        against = within | unresolved
        # Bounds are those of the sample's own region, and only "lp" stays there.
        radius, proven = pointwise.radius, pointwise.lower
        proven = pointwise.bound if self.method == "lp" else proven
        radius = np.where(unresolved, np.minimum(radius, proven), radius)
        counts = _counting(radius, within, unresolved & ~within, proven, epsilon, weights)
        distances = np.where(within, radius, proven)[counts]
        frequency = share_of(against, weights, self.confidence)
        parts = None if weights is None else weights[counts]
        severity = _mean_distance(distances, parts, epsilon, self.confidence)
        return AdversarialResult(
            *self._score(frequency, severity),
            frequency[0],
            severity[0],
            pointwise.radius,
            pointwise.status,
            int(unresolved.sum()),
            pointwise.adversarial_examples,
        )

    def _default_parts(self):
        return {"attack": Ensemble()}

    def metrics(self, estimator, X, y=None):
        """Return both scores as a dict, for ``GridSearchCV(scoring=scorer.metrics)``.

        They are read from one computation, where two scorers in a dict would make two.

        Parameters
        ----------
        estimator : object
            Fitted classifier.
        X : array-like of shape ``(n_samples, n_features)`` or ``(n_samples, *input_shape)``
        y : array-like of shape (n_samples,), default=None

        Returns
        -------
        dict of str to float
            "adversarial_frequency" (minus the frequency), "adversarial_severity" and
            "failed_count", the number of unresolved samples.
        """
        result = self.evaluate(estimator, X, y)
        return {
            "adversarial_frequency": -result.frequency,
            "adversarial_severity": result.severity,
            "failed_count": result.n_failed,
        }

    @abstractmethod
    def _score(self, frequency, severity):
        """Return the score and its interval, of frequency and severity with theirs."""

    def _reference_labels(self, y):
        if self.reference == "prediction":
            return None
        check_labels_given(y, BY_LABEL.format("scorer"))
        return y


def _counting(radius, within, is_open, bounds, epsilon, weights):
    """Return the index of the samples that take part in the severity.

    These are the ones `within` epsilon, and those of the open ones whose bounds lower the mean
    the most: an unresolved sample may have its example anywhere from its bound on, or none within
    epsilon, and then takes no part. Nor does a sample of weight 0.
    """
    weights = np.ones(len(radius)) if weights is None else weights
    kept = np.flatnonzero(within & (weights > 0))
    open_index = np.flatnonzero(is_open & (weights > 0))
    total, mass = radius[kept] @ weights[kept], weights[kept].sum()
    for i in open_index[np.argsort(bounds[open_index], kind="stable")]:
        mean = total / mass if mass else epsilon
        if bounds[i] >= mean:
            break
        kept = np.append(kept, i)
        total, mass = total + weights[i] * bounds[i], mass + weights[i]
    return kept


def _mean_distance(distances, weights, epsilon, confidence):
    """Return the mean of distances up to epsilon, which it is where there are none."""
    if len(distances) == 0:
        return float(epsilon), Interval(0.0, epsilon, confidence, "none found")
    mean = weighted_mean(distances, weights)
    if epsilon == 0:
        return mean, Interval(0.0, 0.0, confidence, "one value")
    return mean, hoeffding(distances, 0.0, epsilon, confidence, weights=weights)


class AdversarialFrequency(_AdversarialScorer):
    """Minus the share of samples that have an adversarial example within epsilon.

    Larger is better: 0 where none was found. A sample on which the method fails, or stops at
    `max_rows`, counts as one that has an example, and an `UnresolvedWarning` tells how many such
    there are; "not found" by a method that searches is no failure. A search that wants the
    severity as well takes `metrics` as its ``scoring``, which computes once for both; and with a
    `memory`, `AdversarialSeverity` of equal parameters finds what this scorer has kept.

    Parameters
    ----------
    epsilon : float or array-like of shape (n_features,), or tuple of two such
        L-infinity radius, in units of `scale`, which are those of the raw input by default. At 0,
        only samples that are misclassified, or at which labels tie, count. With one radius for
        each feature, 0 marks what cannot change, and a tuple (down, up) says how far features may
        fall and rise; distances are then relative to it: 1 is at the end of a radius.
    method : {"lp", "polished", "attack", "lbfgs", "exact"}, default="lp"
        How adversarial examples are found; see `skrobust.pointwise.pointwise_robustness`.
        "polished" finds the most, short of "exact", which finds all, and is the one for trees.
    reference : {"prediction", "label"}, default="prediction"
        The label that is to be kept: the network's own, as in the paper, or the true one
        (misclassified samples then have radius 0).
    targets : {"runner-up", "all"} or label, default="runner-up"
        Labels that are to win in "lp".
    bounds : pair of floats or of array-likes, or None, default=(0.0, 1.0)
        Valid domain of the inputs. The paper's program has none: None is its form.
    scale : None, "std", float or array-like of shape (n_features,), default=None
        Units of the features; see `skrobust.pointwise.pointwise_robustness`.
    solver : {"lazy", "cvxpy"}, default="lazy"
        Of the linear programs.
    margin : float, default=0.0
        By how much the target's score must at least exceed the others, in "lp".
    max_rows : int or None, default=None
        Half-spaces of one linear program from where on it is given up. None sets no limit in
        "lp"; the repeated programs of "polished" stop at 100 at the latest.
    attack : Attack or None, default=None
        For "attack" and "polished"; None is ``Ensemble()``, in "polished" with
        ``FastMinimumNorm(random_starts=1)``.
    confidence : float, default=0.95
        Of the interval.
    chunk_size : int, default=64
        Samples of one job.
    random_state : int, RandomState instance or None, default=None
        For attacks with random starts. With a `memory`, None means 0: a fresh seed would never
        find what is kept.
    n_jobs : int or None, default=None
        Chunks evaluated at a time, by joblib.
    memory : None, str or joblib.Memory, default=None
        Keeps the result of each chunk, under a key of all that it follows from: model, data,
        parameters, the code of users, and versions.
    verbose : int, default=0
        joblib's progress messages.

    Warns
    -----
    UnresolvedWarning
        If the method failed on samples, or came to `max_rows`.

    References
    ----------
    Bastani et al., "Measuring neural net robustness with constraints", NeurIPS 2016,
    section 2.

    Examples
    --------
    >>> from sklearn.linear_model import LogisticRegression
    >>> from skrobust.datasets import load_digits
    >>> from skrobust.scorers import AdversarialFrequency
    >>> X, y = load_digits(return_X_y=True)
    >>> model = LogisticRegression().fit(X[:1000], y[:1000])
    >>> result = AdversarialFrequency(epsilon=0.05).evaluate(model, X[1000:1100])
    >>> bool(result.score == -result.frequency == -(result.radius <= 0.05).mean())
    True
    """

    def _score(self, frequency, severity):
        share, interval = frequency
        return -share, replace(interval, low=-interval.high, high=-interval.low)


class AdversarialSeverity(_AdversarialScorer):
    """Mean distance of the adversarial examples within epsilon; epsilon where there is none.

    Larger is better. A sample on which the method fails, or stops at `max_rows`, counts at its
    proven lower bound (0 where `method` is not "lp") where that lowers the mean, and an
    `UnresolvedWarning` tells how many such there are. A search that wants the frequency as well
    takes `metrics` as its ``scoring``, which computes once for both; and with a `memory`,
    `AdversarialFrequency` of equal parameters finds what this scorer has kept.

    Parameters
    ----------
    epsilon : float or array-like of shape (n_features,), or tuple of two such
        L-infinity radius, in units of `scale`, which are those of the raw input by default. At 0,
        only samples that are misclassified, or at which labels tie, count. With one radius for
        each feature, 0 marks what cannot change, and a tuple (down, up) says how far features may
        fall and rise; distances are then relative to it: 1 is at the end of a radius.
    method : {"lp", "polished", "attack", "lbfgs", "exact"}, default="lp"
        How adversarial examples are found; see `skrobust.pointwise.pointwise_robustness`.
        "polished" finds the closest ones, short of "exact", which is the one for trees.
    reference : {"prediction", "label"}, default="prediction"
        The label that is to be kept: the network's own, as in the paper, or the true one
        (misclassified samples then have radius 0).
    targets : {"runner-up", "all"} or label, default="runner-up"
        Labels that are to win in "lp".
    bounds : pair of floats or of array-likes, or None, default=(0.0, 1.0)
        Valid domain of the inputs. The paper's program has none: None is its form.
    scale : None, "std", float or array-like of shape (n_features,), default=None
        Units of the features; see `skrobust.pointwise.pointwise_robustness`.
    solver : {"lazy", "cvxpy"}, default="lazy"
        Of the linear programs.
    margin : float, default=0.0
        By how much the target's score must at least exceed the others, in "lp".
    max_rows : int or None, default=None
        Half-spaces of one linear program from where on it is given up. None sets no limit in
        "lp"; the repeated programs of "polished" stop at 100 at the latest.
    attack : Attack or None, default=None
        For "attack" and "polished"; None is ``Ensemble()``, in "polished" with
        ``FastMinimumNorm(random_starts=1)``.
    confidence : float, default=0.95
        Of the interval.
    chunk_size : int, default=64
        Samples of one job.
    random_state : int, RandomState instance or None, default=None
        For attacks with random starts. With a `memory`, None means 0: a fresh seed would never
        find what is kept.
    n_jobs : int or None, default=None
        Chunks evaluated at a time, by joblib.
    memory : None, str or joblib.Memory, default=None
        Keeps the result of each chunk, under a key of all that it follows from: model, data,
        parameters, the code of users, and versions.
    verbose : int, default=0
        joblib's progress messages.

    Warns
    -----
    UnresolvedWarning
        If the method failed on samples, or came to `max_rows`.

    References
    ----------
    Bastani et al., "Measuring neural net robustness with constraints", NeurIPS 2016,
    section 2.

    Examples
    --------
    >>> from sklearn.linear_model import LogisticRegression
    >>> from skrobust.datasets import load_digits
    >>> from skrobust.scorers import AdversarialSeverity
    >>> X, y = load_digits(return_X_y=True)
    >>> model = LogisticRegression().fit(X[:1000], y[:1000])
    >>> 0 < AdversarialSeverity(epsilon=0.05)(model, X[1000:1100]) < 0.05
    True
    """

    def _score(self, frequency, severity):
        return severity
