"""How probable it is that a random perturbation breaks a property, however rare that is."""

import math
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from skrobust._validation import check_integer, expected, kind_of
from skrobust.exceptions import UnsupportedModelError
from skrobust.networks import BlackBox
from skrobust.scorers._base import PropertyScorer, ScoreResult
from skrobust.scorers._splitting import Splitting, split_chunk
from skrobust.statistics import Interval

__all__ = ["ViolationProbability", "ViolationProbabilityResult"]


@dataclass(frozen=True, eq=False, repr=False)
class ViolationProbabilityResult(ScoreResult):
    """What `ViolationProbability.evaluate` returns.

    Parameters
    ----------
    score : float
        Minus the decimal logarithm of `probability`.
    interval : Interval
        Of the score, for these very samples; from `probability_interval`.
    probability : float
        Mean of `probabilities`.
    probability_interval : Interval
        For the mean over these very samples: from the mean of the lower ends to the mean of the
        upper ends of intervals whose chances of a miss add up to ``1 - confidence`` (a union
        bound). It says nothing of other samples: of a mean that a few rare ones may carry, these
        tell little.
    n_unfinished : int
        Samples of which no more than an upper bound is known.
    probabilities : ndarray of shape (n_samples,)
        Probability that a uniform point of the ball breaks the property. Where `finished` is
        False, an upper bound: `high`.
    low, high : ndarray of shape (n_samples,)
        Ends of the interval of each.
    finished : ndarray of bool, shape (n_samples,)
        Whether any point that breaks the property was reached.
    evaluations : ndarray of int, shape (n_samples,)
        Points at which the estimator was asked, the reference included.
    acceptance : ndarray of shape (n_samples,)
        Share of the moves that were taken on the way to the last level; NaN where there was none.
        Far below 0.3, the particles hardly moved, and the interval is too narrow.
    margins : ndarray of shape (n_samples,)
        Smallest row of the property at the worst of the last particles.
    counterexamples : ndarray of shape (n_samples, n_features)
        That point where it breaks the property, as the estimator itself computes; NaN where not.
    """

    probability: float
    probability_interval: Interval
    n_unfinished: int
    probabilities: np.ndarray
    low: np.ndarray
    high: np.ndarray
    finished: np.ndarray
    evaluations: np.ndarray
    acceptance: np.ndarray
    margins: np.ndarray
    counterexamples: np.ndarray


class ViolationProbability(PropertyScorer):
    """How rarely a random perturbation breaks a property, by multilevel splitting.

    The score is minus the decimal logarithm of the probability that a uniform point of the ball
    (cut to the property's `bounds`) breaks it, averaged over samples: 9 is one in a billion. It is
    at most 308, where the mean is 0 to the precision of floats.

    First come `n_samples` plain draws. If at least `n_particles` of them break the property, their
    share is the estimate. Otherwise the `n_particles` draws at which the property holds least go
    on: again and again the better `n_replaced` of them are replaced by copies of the others, which
    walk at random below the level that the others have reached, until enough break the property
    or `max_evaluations` are used up.

    Parameters
    ----------
    property : RobustnessProperty
        In the raw input space of the estimator that is scored.
    n_samples : int, default=2048
        Plain draws around each sample, at least `n_particles`.
    n_particles : int, default=256
        Points that go on; the relative standard deviation of a probability p is about
        ``sqrt(-log(p) / n_particles)``.
    n_replaced : int or None, default=None
        How many of them one level replaces; half of them if None. With 1 it is the last-particle
        algorithm, of about the same precision in many more and smaller steps.
    n_steps : int, default=20
        Moves of each copy. With too few, copies stay alike, and intervals are too narrow.
    max_evaluations : int, default=100000
        Points at which the estimator is asked, for each sample. The defaults reach 1e-11.
    batch_size : int, default=2048
        Points that the estimator sees at a time.
    confidence : float, default=0.95
        Of the intervals.
    chunk_size : int, default=16
        Samples that are measured side by side, in one job; bounds the memory.
    random_state : int, RandomState instance or None, default=None
        For the draws.
    n_jobs : int or None, default=None
        Chunks evaluated at a time, by joblib.
    memory : None, str or joblib.Memory, default=None
        Keeps the result of each chunk (with an int as `random_state`).
    verbose : int, default=0
        joblib's progress messages.

    Notes
    -----
    The levels are those of the property's smallest row, so the estimator must be one that gives
    more than labels: a network, or a black box with `predict_proba`, whose label is taken to be
    the one of the highest probability. What breaks the property is decided by the network.

    Intervals need no large number of particles. They are those of the ideal algorithm, whose
    copies have forgotten where they came from: Clopper and Pearson's for the plain draws; with
    ``n_replaced=1`` those of a Poisson distribution, as in Tit et al.; in general those of the
    process that Poisson's becomes if its rate falls from `n_particles` to
    ``n_particles - n_replaced`` within each level. Real walks do not forget all; a region of
    violations that none of the particles is on the way to is missed, with any splitting. More
    `n_steps` and `n_particles` help against both.

    In float32 the points of an interval lie so far apart that a probability which hangs on a
    single feature is that of the rounded points, below about 1e-6. For sums over many features
    this does not matter.

    References
    ----------
    Webb, Rainforth, Teh and Kumar, "A statistical approach to assessing neural network
    robustness", ICLR 2019, section 4 and Algorithm 1: the probability, the margin as level. Tit,
    Furon and Rousset, "Efficient statistical assessment of neural network corruption robustness",
    NeurIPS 2021, section 3: the last particle, and the interval. Guyader, Hengartner and
    Matzner-Løber, "Simulation and estimation of extreme quantiles and extreme probabilities",
    Applied Mathematics and Optimization 64, 2011: the Poisson process.

    Examples
    --------
    >>> from sklearn.linear_model import LogisticRegression
    >>> from skrobust.datasets import load_digits
    >>> from skrobust.properties import ClassificationRobustness
    >>> from skrobust.scorers import ViolationProbability
    >>> X, y = load_digits(return_X_y=True)
    >>> model = LogisticRegression().fit(X[:1000], y[:1000])
    >>> right = model.predict(X) == y
    >>> scorer = ViolationProbability(ClassificationRobustness(0.1), random_state=0)
    >>> result = scorer.evaluate(model, X[right][1000:1003], y[right][1000:1003])
    >>> bool((result.low <= result.probabilities).all())
    True
    >>> result.score > 3
    True
    """

    def __init__(
        self,
        property,
        n_samples=2048,
        *,
        n_particles=256,
        n_replaced=None,
        n_steps=20,
        max_evaluations=100_000,
        batch_size=2048,
        confidence=0.95,
        chunk_size=16,
        random_state=None,
        n_jobs=None,
        memory=None,
        verbose=0,
    ):
        self.property = property
        self.n_samples = n_samples
        self.n_particles = n_particles
        self.n_replaced = n_replaced
        self.n_steps = n_steps
        self.max_evaluations = max_evaluations
        self.batch_size = batch_size
        self.confidence = confidence
        self.chunk_size = chunk_size
        self.random_state = random_state
        self.n_jobs = n_jobs
        self.memory = memory
        self.verbose = verbose

    def evaluate(self, estimator, X, y=None):
        self._check_common()
        splitting = self._splitting()
        sample = _with_margins(self._prepare(estimator, X, y, needs_gradient=False))
        measure = partial(split_chunk, property=self.property, splitting=splitting)
        return _result(self._in_chunks(measure, sample), splitting, self.confidence)

    def _splitting(self):
        """Return the validated parameters."""
        n_particles = check_integer("n_particles", self.n_particles, low=2)
        n_samples = _check_at_least("n_samples", self.n_samples, "n_particles", n_particles)
        n_replaced = n_particles // 2
        if self.n_replaced is not None:
            n_replaced = check_integer("n_replaced", self.n_replaced, low=1)
            if n_replaced >= n_particles:
                below = f"an integer below n_particles={n_particles}"
                raise ValueError(expected("n_replaced", self.n_replaced, below))
        return Splitting(
            n_samples,
            n_particles,
            n_replaced,
            check_integer("n_steps", self.n_steps, low=1),
            _check_at_least("max_evaluations", self.max_evaluations, "n_samples", n_samples),
            check_integer("batch_size", self.batch_size, low=1),
        )


def _check_at_least(name, value, of, least):
    number = check_integer(name, value, low=1)
    if number < least:
        raise ValueError(expected(name, value, f"an integer of at least {of}={least}"))
    return number


def _with_margins(sample):
    """Return the sample with a model that tells how far a label is from another one."""
    model = sample.model
    if not isinstance(model, BlackBox) or model.output != "labels":
        return sample
    if not hasattr(model.estimator, "predict_proba"):
        raise UnsupportedModelError(
            f"Got {kind_of(model.estimator)} without predict_proba, but levels of a margin need "
            "more than labels. Sampling (ConstraintAccuracy) works with labels alone."
        )
    return replace(sample, model=BlackBox(model.estimator, "probabilities"))


def _result(arrays, splitting, confidence):
    """Return the result from what the runs counted."""
    n_levels, n_holding, is_exact = (
        arrays.pop(name) for name in ("n_levels", "n_holding", "is_exact")
    )
    runs = list(zip(n_levels.tolist(), n_holding.tolist(), strict=True))

    def ends(confidence):
        of_run = {run: splitting.interval(*run, confidence) for run in set(runs)}
        pairs = np.array([of_run[run] for run in runs])
        # A ball of one point leaves no doubt.
        return np.where(is_exact, 1.0 - n_holding, pairs.T)

    low, high = ends(confidence)
    n_uncertain = max(1, int((~is_exact).sum()))
    total_low, total_high = ends(1 - (1 - confidence) / n_uncertain)
    finished = is_exact | (n_holding < [splitting.size(n) for n in n_levels])
    estimates = np.array([splitting.estimate(*run) for run in runs])
    probabilities = np.where(is_exact, 1.0 - n_holding, np.where(finished, estimates, high))
    mean = float(probabilities.mean())
    method = "splitting"
    mean_interval = Interval(float(total_low.mean()), float(total_high.mean()), confidence, method)
    score_interval = Interval(
        _rarity(mean_interval.high), _rarity(mean_interval.low), confidence, method
    )
    return ViolationProbabilityResult(
        _rarity(mean),
        score_interval,
        mean,
        mean_interval,
        int((~finished).sum()),
        probabilities,
        low,
        high,
        finished,
        **arrays,
    )


def _rarity(probability):
    """Return minus the decimal logarithm, which stays finite."""
    return abs(math.log10(max(probability, np.finfo(float).tiny)))  # abs: no -0.0 of 1
