"""The general framework of robustness scores of Tibo et al., by sampling."""

from dataclasses import dataclass
from functools import partial

import numpy as np
import torch

from skrobust._validation import (
    BY_LABEL,
    check_bounds,
    check_choice,
    check_integer,
    check_within_bounds,
)
from skrobust.scorers._base import RobustnessScorer, ScoreResult
from skrobust.scorers._radii import (
    TRANSFORMS,
    WEIGHTS,
    check_radii,
    score_interval,
    transformed,
    weights_of,
)
from skrobust.scorers._sources import (
    GeneratedSource,
    NeighborSource,
    References,
    UniformSource,
    predicted_classes,
)

__all__ = ["RobustnessScore", "RobustnessScoreResult"]

# The type that the paper gives a score with such a neighborhood.
_TYPES = {"uniform": 1, "data": 2, "class-data": 3}
_PRESETS = {
    "R1": {"neighborhood": "uniform", "transform": "all", "weight": "radii"},
    "R2": {"neighborhood": "uniform", "transform": "all", "weight": "uniform"},
    "R3": {"neighborhood": "uniform", "transform": "identity", "weight": "radii"},
    "R4": {"neighborhood": "data", "transform": "identity", "weight": "inverse"},
    "R5": {"neighborhood": "class-data", "transform": "identity", "weight": "inverse"},
}


@dataclass(frozen=True, eq=False, repr=False)
class RobustnessScoreResult(ScoreResult):
    """What `RobustnessScore.evaluate` returns.

    Parameters
    ----------
    score : float
        The integral, divided by its value for a constant classifier.
    interval : Interval
        Of the score. Hoeffding's where the weight of the radii is the same for all samples; else
        approximate, from the spread of a ratio.
    integral : float
        The integral over the radii, and mean over the samples. With ``transform="all"`` and
        ``weight="uniform"``, the mean distance at which the label changes, in units of the
        input, where distances beyond the largest radius count as that.
    values : ndarray of shape (n_samples,)
        The score of each sample alone, in [0, 1] where the transform is.
    shares : ndarray of shape (n_samples, n_epsilons)
        Share of the points in each ball that have the label of the sample; 1 where there was
        none.
    n_points : ndarray of int, shape (n_samples, n_epsilons)
        Points that were looked at in each ball.
    epsilons : tuple of float
        The radii.
    curve : tuple of float
        Mean of the transformed shares at each radius.
    """

    integral: float
    values: np.ndarray
    shares: np.ndarray
    n_points: np.ndarray
    epsilons: tuple
    curve: tuple


class RobustnessScore(RobustnessScorer):
    r"""Robustness as an integral over inputs and radii.

    .. math:: R_{Q,H,G} = \int\!\!\int H\bigl(Q(f(X) = f(x) \mid B_\epsilon(x))\bigr)
              \, G(x, \epsilon) \, d\epsilon \, dx

    for any classifier with `predict`. Q says which points near an input count (`neighborhood`),
    H what the probability is worth that they keep its label (`transform`), and G how much a
    radius counts (`weight`). The probability is estimated by points of the ball around each
    sample, the integral over inputs by the mean over the samples, and that over radii by the
    trapezoidal rule. The score is the integral divided by that of G alone, so that a constant
    classifier scores 1.

    Parameters
    ----------
    neighborhood : {"uniform", "data", "class-data"} or callable, default="uniform"
        Distribution of the points in the ball; Q in the paper.

        - "uniform": uniform in the ball, cut to `bounds` (for "l2", clipped to them).
        - "data": the data distribution, by the other rows of `X` that lie in the ball.
        - "class-data": likewise by those of the same true label; `y` is needed.
        - ``neighborhood(X, labels, epsilon, n_samples, generator)`` returns an array of shape
          (k, n_samples, n_features) for the k rows of `X`, such as by a generative model;
          points outside the ball do not count, which conditions on it. `labels` are those of
          the rows, None where `y` is not given; `generator` is a `numpy.random.Generator`.
    transform : {"identity", "all", "majority"} or callable, default="identity"
        What the probability p is worth: p, 1[p = 1], 1[p > 1/2], or any function of arrays
        that does not fall, from [0, 1] to [0, 1]; H in the paper.
    weight : {"radii", "uniform", "inverse"} or callable, default="radii"
        Weight of a radius, G in the paper: "radii", a unit of mass at each of the `epsilons`;
        "uniform", the same density from 0 to the largest of them; "inverse", a density of
        1 / epsilon from the smallest to the largest; ``weight(X, epsilons)`` returns the
        density, of shape (n_epsilons,) or (n_samples, n_epsilons), from the smallest to the
        largest.
    epsilons : float or array-like of shape (n_epsilons,), default=0.1
        Radii in units of the input, positive and rising.
    norm : {"linf", "l2"} or None, default="linf"
        Norm of the balls. None, for a callable `neighborhood` alone: all of its points count,
        whose scale the radius then is.
    bounds : pair of floats or of array-likes, or None, default=(0.0, 1.0)
        Valid domain of the inputs.
    reference : {"prediction", "label"}, default="prediction"
        The label that points must have to count: the classifier's own label of the sample, as in
        the paper, where robustness does not depend on accuracy; or the true label.
    n_samples : int, default=100
        Points drawn in each ball, by "uniform" and callables.
    batch_size : int, default=1024
        Points that the estimator sees at a time; bounds the memory.
    confidence : float, default=0.95
        Of the interval.
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

    Raises
    ------
    ValueError
        By `evaluate`, for parameters or data that do not fit, or what a callable returns.
    TypeError
        By `evaluate`, for callables that return no real numbers.

    Notes
    -----
    With ``transform="all"``, random points miss small regions of another label, so that the
    score is an estimate from above, the more so in many dimensions. Attacks are the better
    method there: `ConstraintSecurity` is R1 by an attack, `MarginRobustness` is R2.

    With 64 features or more, the points around some 64 samples at a time share random numbers,
    each with its own signs, since fresh ones would cost as much as a small network. Each share
    is that of independent points; points of different samples are uncorrelated, but not
    independent.

    References
    ----------
    Tibo, Jaeger, Larsen, "A general framework for defining and optimizing robustness",
    arXiv:2006.11122, Definitions 1 to 3 and equations 8 and 9.

    Examples
    --------
    >>> from sklearn.ensemble import RandomForestClassifier
    >>> from skrobust.datasets import load_digits
    >>> from skrobust.scorers import RobustnessScore
    >>> X, y = load_digits(return_X_y=True)
    >>> model = RandomForestClassifier(10, random_state=0).fit(X[:1000], y[:1000])
    >>> scorer = RobustnessScore("uniform", "identity", "radii", 0.2, random_state=0)
    >>> 0.5 < scorer(model, X[1000:1100]) < 1
    True
    >>> distance = RobustnessScore.preset("R2", [0.1, 0.2, 0.3], random_state=0)
    >>> 0 < distance.evaluate(model, X[1000:1100]).integral < 0.3
    True
    """

    def __init__(
        self,
        neighborhood="uniform",
        transform="identity",
        weight="radii",
        epsilons=0.1,
        *,
        norm="linf",
        bounds=(0.0, 1.0),
        reference="prediction",
        n_samples=100,
        batch_size=1024,
        confidence=0.95,
        chunk_size=1024,
        random_state=None,
        n_jobs=None,
        memory=None,
        verbose=0,
    ):
        self.neighborhood = neighborhood
        self.transform = transform
        self.weight = weight
        self.epsilons = epsilons
        self.norm = norm
        self.bounds = bounds
        self.reference = reference
        self.n_samples = n_samples
        self.batch_size = batch_size
        self.confidence = confidence
        self.chunk_size = chunk_size
        self.random_state = random_state
        self.n_jobs = n_jobs
        self.memory = memory
        self.verbose = verbose

    @classmethod
    def preset(cls, name, epsilons=None, **params):
        """Return one of the five scores R1 to R5.

        Parameters
        ----------
        name : {"R1", "R2", "R3", "R4", "R5"}
            The score, and its type:

            - R1, type 1: share of samples whose label no point of the ball changes.
            - R2, type 1: mean distance to the closest change of the label (H = 1[p = 1],
              G = p(x)), up to the largest radius, and divided by it.
            - R3, type 1: share of uniform points of the ball that have the label.
            - R4, type 2: such a share of points of the data distribution (H(p) = p,
              G = p(x) / epsilon); `ManifoldRobustness` draws them by an autoencoder.
            - R5, type 3: as R4, of points of the same class.

            H and G of R2 and R4 are those of the paper. The other three are this library's
            reading of its examples, as is what tells the types apart: Q is uniform (1), the
            data distribution (2), or conditioned on the label (3).
        epsilons : float or array-like of shape (n_epsilons,), default=None
            Radii in units of the input; if None, the default of the class.
        **params
            Further parameters of the class; `neighborhood` too may be given, such as a
            generative model.

        Returns
        -------
        RobustnessScore

        Raises
        ------
        ValueError
            If there is no preset of that name.
        """
        check_choice("name", name, tuple(_PRESETS))
        radii = {} if epsilons is None else {"epsilons": epsilons}
        return cls(**(_PRESETS[name] | radii | params))

    @property
    def type(self):
        """The type of the score, 1 to 3 (see `preset`); 2 where `neighborhood` is a callable."""
        return _TYPES.get(self.neighborhood, 2) if isinstance(self.neighborhood, str) else 2

    def check(self):
        """Validate the parameters; return self."""
        names = {"neighborhood": _TYPES, "transform": TRANSFORMS, "weight": WEIGHTS}
        for name, choices in names.items():
            value = getattr(self, name)
            if not callable(value):
                check_choice(name, value, tuple(choices))
        check_radii("epsilons", self.epsilons)
        if not (self.norm is None and callable(self.neighborhood)):
            check_choice("norm", self.norm, ("linf", "l2"))
        check_bounds(self.bounds)
        check_choice("reference", self.reference, ("prediction", "label"))
        check_integer("n_samples", self.n_samples, low=1)
        check_integer("batch_size", self.batch_size, low=1)
        self._check_common()
        return self

    def evaluate(self, estimator, X, y=None):
        """Return a `RobustnessScoreResult`.

        Parameters
        ----------
        estimator : object
            Fitted classifier with `predict`.
        X : array-like of shape ``(n_samples, n_features)`` or ``(n_samples, *input_shape)``
            In the raw input space of the estimator.
        y : array-like of shape (n_samples,), default=None
            True labels, for ``reference="label"`` and ``neighborhood="class-data"``.

        Returns
        -------
        RobustnessScoreResult
        """
        self.check()
        sample = self._sample(estimator, X, y, needed_by=self._needs_labels())
        check_within_bounds(sample.rows, check_bounds(self.bounds, sample.rows.shape[1]))
        epsilons = check_radii("epsilons", self.epsilons)
        batch_size = int(self.batch_size)  # a small NumPy integer from a grid would overflow
        measure = partial(
            _shares,
            source=self._source(sample, batch_size),
            epsilons=tuple(epsilons.tolist()),
            norm=self.norm,
            reference=self.reference,
            batch_size=batch_size,
        )
        return self._result(sample.rows, epsilons, **self._in_chunks(measure, sample))

    def _needs_labels(self):
        """Say what needs true labels; nothing if nothing does."""
        if self.reference == "label":
            return BY_LABEL.format("scorer")
        if isinstance(self.neighborhood, str) and self.neighborhood == "class-data":
            return "the scorer has neighborhood='class-data'"
        return ""

    def _source(self, sample, batch_size):
        """Return where the points come from, a `PointSource`."""
        n_samples = int(self.n_samples)
        if callable(self.neighborhood):
            classes = sample.model.classes
            return GeneratedSource(self.neighborhood, classes, n_samples, batch_size)
        if self.neighborhood == "uniform":
            return UniformSource(n_samples, batch_size, self.bounds)
        predicted = predicted_classes(sample.model, sample.rows, batch_size)
        labels = sample.labels if self.neighborhood == "class-data" else None
        return NeighborSource(sample.rows, predicted, labels)

    def _result(self, rows, epsilons, at_zero, shares, n_points):
        """Assemble the result from the shares at radius 0 and at each of `epsilons`."""
        worth = transformed(self.transform, np.c_[at_zero, shares])
        weights = weights_of(self.weight, rows, epsilons)
        totals = weights.sum(axis=1)
        integrals = (worth * weights).sum(axis=1)
        score = float(integrals.sum() / totals.sum())
        return RobustnessScoreResult(
            score=score,
            interval=score_interval(integrals, totals, score, self.confidence),
            integral=float(integrals.mean()),
            values=integrals / totals,
            shares=shares,
            n_points=n_points,
            epsilons=tuple(epsilons.tolist()),
            curve=tuple(worth[:, 1:].mean(axis=0).tolist()),
        )


def _shares(model, rows, labels, seed, *, source, epsilons, norm, reference, batch_size):
    """Return for each row and radius the share of points in the ball that have its label."""
    predicted = torch.as_tensor(predicted_classes(model, rows, batch_size), device=model.device)
    wanted = predicted
    if reference == "label":
        wanted = torch.as_tensor(labels, device=model.device)
    references = References(rows, labels, wanted, agree=predicted == wanted)
    n_kept, n_points = source.count(model, references, epsilons, norm, seed)
    return {
        "at_zero": references.agree.double().cpu().numpy(),
        "shares": np.where(n_points > 0, n_kept / np.maximum(n_points, 1), 1.0),
        "n_points": n_points,
    }
