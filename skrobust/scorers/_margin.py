"""The distance to the closest adversarial example, on average (R2 of Tibo et al.)."""

from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch

from skrobust._parameters import DefaultParts
from skrobust._validation import (
    BY_LABEL,
    check_bounds,
    check_choice,
    check_epsilon,
    check_instance,
    check_within_bounds,
    epsilon_sides,
    expected,
)
from skrobust.attacks import Attack, Ensemble, EnsembleOutcome, confirm_beyond
from skrobust.networks import Units, check_scale
from skrobust.properties import ClassificationRobustness
from skrobust.scorers._base import (
    ScoreResult,
    WeightedScorer,
    as_target,
    weighted_mean,
    weights_of_rows,
)
from skrobust.scorers._radii import diameter
from skrobust.statistics import empirical_bernstein, hoeffding

__all__ = ["MarginRobustness", "MarginRobustnessResult", "closest_changes"]


@dataclass(frozen=True, eq=False, repr=False)
class MarginRobustnessResult(ScoreResult):
    """What `MarginRobustness.evaluate` returns.

    Parameters
    ----------
    score : float
        Mean of `distances`, in units of the input.
    interval : Interval
        Empirical Bernstein, with weights Hoeffding's, of the mean distance of what the attacks
        find, cut at `epsilon_max`.
    area : float
        The score divided by `epsilon_max`, in [0, 1]: the area under the margin curve, which
        is the share of samples with ``radius > epsilon`` against epsilon from 0 to
        `epsilon_max`, divided by that width.
    area_interval : Interval
        Of the area.
    epsilon_max : float
        Largest distance that counts.
    radius : ndarray of shape (n_samples,)
        Distance to the closest adversarial example found: 0 where the sample itself is one, inf
        where none was found within `epsilon_max`. `RobustnessCurveDisplay.from_radius` draws
        the margin curve of the result.
    distances : ndarray of shape (n_samples,)
        The radius, or `epsilon_max` where none was found.
    adversarial_examples : ndarray of shape (n_samples, n_features)
        At that distance, as the estimator itself confirms; NaN where none was found.
    found_by : ndarray of str, shape (n_samples,)
        Name of the attack that came closest, the first of equals; "" where none found anything,
        or the sample itself is an adversarial example.
    wins : dict of str to float
        For each attack, the share of samples at which it came closest, of those at which any
        found an adversarial example (Table 2 of the paper); NaN where there are none.
    """

    area: float
    area_interval: object
    epsilon_max: float
    radius: np.ndarray
    distances: np.ndarray
    adversarial_examples: np.ndarray
    found_by: np.ndarray
    wins: dict


class MarginRobustness(DefaultParts, WeightedScorer):
    r"""Mean distance to the closest adversarial example that several attacks find.

    The score R2: :math:`R_{Q,H,G}` of the framework (see `RobustnessScore`) with Q uniform in
    the ball, :math:`H(p) = 1[p = 1]` and :math:`G = p(x)`; type 2. That is the mean, over the
    data, of the distance from which on some point has another label, which is the area under the
    margin curve. Each attack's best point is pulled
    to the boundary by bisection on the segment to the sample, and the closest one is kept. As
    attacks may miss closer ones, it is an estimate from above.

    Parameters
    ----------
    norm : {"linf", "l2"}, default="linf"
        Of the distances. The paper's figures are in L2, which is larger by orders of magnitude
        on images: a score in one norm says nothing about one in the other.
    epsilon_max : float, array-like of shape (n_features,), pair of these or None, default=None
        Largest distance that counts, in units of `scale`: attacks search within it, and a
        sample around which they find nothing counts with it. None is the largest distance
        between two points of `bounds`. With one limit for each feature (0 for what cannot
        change), or a tuple (down, up) of how far features may fall and rise, only points within
        these limits count, and the largest limit is the largest distance.
    bounds : pair of floats or of array-likes, or None, default=(0.0, 1.0)
        Valid domain of the inputs.
    scale : None, "std", float or array-like of shape (n_features,), default=None
        Units of the features, above 0: distances and `epsilon_max` are those of the inputs
        divided by it. "std" takes the standard deviations of the training data from the
        StandardScaler that a pipeline starts with. `X`, `bounds` and the adversarial examples
        stay in raw units.
    reference : {"prediction", "label"}, default="prediction"
        The label that is to be kept: that which the classifier gives the sample, as in the
        paper, whose scores are independent of accuracy; or the true one, where misclassified
        samples have distance 0.
    attack : Attack or None, default=None
        None is ``Ensemble()``: LinearBoundary ("linear", called BG in the paper) and
        FastMinimumNorm ("fmn"). For `wins` as in the paper's Table 2, give ``Ensemble([("fgsm",
        FGSM()), ("pgd", PGD()), ("bg", LinearBoundary())])``.
    confidence : float, default=0.95
        Of the interval.
    chunk_size : int, default=256
        Samples of one job.
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
    A tie of the two largest outputs is no robust prediction: a sample with one has distance 0.

    References
    ----------
    Tibo, Jaeger, Larsen, "A general framework for defining and optimizing robustness",
    arXiv:2006.11122, Example 2 (R2), equations 5, 6 and 14, and Table 2.

    Examples
    --------
    The boundary of this classifier is x1 + x2 = 1:

    >>> import torch
    >>> from skrobust import TorchClassifier
    >>> from skrobust.scorers import MarginRobustness
    >>> module = torch.nn.Linear(2, 2)
    >>> module.weight.data = torch.tensor([[0.0, 0.0], [1.0, 1.0]])
    >>> module.bias.data = torch.tensor([0.0, -1.0])
    >>> model = TorchClassifier(module, 2)
    >>> result = MarginRobustness().evaluate(model, [[0.2, 0.2], [0.8, 0.9]])
    >>> result.radius.round(4)
    array([0.3 , 0.35])
    >>> print(f"{result.score:.3f} {result.area:.3f}")
    0.325 0.325
    >>> MarginRobustness("l2").evaluate(model, [[0.2, 0.2], [0.8, 0.9]]).radius.round(4)
    array([0.4243, 0.495 ])
    """

    def __init__(
        self,
        norm="linf",
        *,
        epsilon_max=None,
        bounds=(0.0, 1.0),
        scale=None,
        reference="prediction",
        attack=None,
        confidence=0.95,
        chunk_size=256,
        random_state=None,
        n_jobs=None,
        memory=None,
        verbose=0,
    ):
        self.norm = norm
        self.epsilon_max = epsilon_max
        self.bounds = bounds
        self.scale = scale
        self.reference = reference
        self.attack = attack
        self.confidence = confidence
        self.chunk_size = chunk_size
        self.random_state = random_state
        self.n_jobs = n_jobs
        self.memory = memory
        self.verbose = verbose

    def _default_parts(self):
        return {"attack": Ensemble()}

    def check(self):
        """Validate the parameters; return self."""
        check_choice("norm", self.norm, ("linf", "l2"))
        if self.epsilon_max is not None:
            sides = epsilon_sides(check_epsilon(self.epsilon_max, name="epsilon_max"))
            if not any(np.max(side) > 0 for side in sides):
                expectation = "None, or a limit above 0 in some feature"
                raise ValueError(expected("epsilon_max", self.epsilon_max, expectation))
        check_bounds(self.bounds)
        check_choice("reference", self.reference, ("prediction", "label"))
        check_instance("attack", self._part("attack"), Attack, "Ensemble()").check()
        self._check_common()
        return self

    def evaluate(self, estimator, X, y=None, sample_weight=None):
        """Return a `MarginRobustnessResult`.

        Parameters
        ----------
        estimator : object
            Fitted classifier, of a kind that `skrobust.networks.as_network` supports where the
            attack needs gradients.
        X : array-like of shape ``(n_samples, n_features)`` or ``(n_samples, *input_shape)``
            In the raw input space of the estimator; two samples at least.
        y : array-like of shape (n_samples,), default=None
            True labels, for ``reference="label"``; checked in any case.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the samples in the score, whose interval is Hoeffding's then. A search hands
            them on after ``scorer.set_score_request(sample_weight=True)``.
        """
        weights = weights_of_rows(sample_weight, X)
        self.check()
        attack, by_label = self._part("attack"), self.reference == "label"
        sample = self._sample(
            estimator,
            X,
            y,
            needs_gradient=attack.needs_gradient,
            needed_by=BY_LABEL.format("scorer") if by_label else "",
        )
        if not by_label:
            sample = replace(sample, labels=None)
        if len(sample) < 2:
            raise ValueError(expected("X", "1 sample", "at least 2, for the interval"))
        bounds = check_bounds(self.bounds, sample.rows.shape[1])
        check_within_bounds(sample.rows, bounds)
        n_features = sample.rows.shape[1]
        scale, units = check_scale(self.scale, estimator, n_features), None
        if scale is not None:
            units = Units.of(sample.model, scale, bounds)
            raw, model, rows = sample, units.model(sample.model), units.rows(sample.rows)
            sample, bounds = replace(sample, model=model, rows=rows), units.scaled_bounds
        limits = self._epsilon_max(bounds, n_features)
        # The L2 ball of unequal radii is an ellipsoid: its longest half-axis counts.
        epsilon_max = float(max(np.max(side) for side in epsilon_sides(limits)))
        property = ClassificationRobustness(
            limits, norm=self.norm, bounds=bounds, reference=self.reference
        )
        arrays = self._in_chunks(
            partial(closest_changes, property=property, attack=attack), sample
        )
        if units is not None:
            points = arrays["adversarial_examples"]
            arrays["adversarial_examples"] = units.examples(raw.model, points, raw.rows)
        return self._result(epsilon_max, _names(attack), weights, **arrays)

    def _epsilon_max(self, bounds, n_features):
        if self.epsilon_max is not None:
            return check_epsilon(self.epsilon_max, n_features, name="epsilon_max")
        return diameter("epsilon_max", None, bounds, self.norm, n_features)

    def _result(self, epsilon_max, names, weights, radius, adversarial_examples, winners):
        distances = np.minimum(radius, epsilon_max)
        score = weighted_mean(distances, weights)
        interval = partial(empirical_bernstein, confidence=self.confidence)
        if weights is not None:
            interval = partial(hoeffding, confidence=self.confidence, weights=weights)
        won = winners[winners >= 0]
        counts = np.bincount(won, minlength=len(names))
        wins = counts / len(won) if len(won) else np.full(len(names), np.nan)
        return MarginRobustnessResult(
            score=score,
            interval=interval(distances, 0.0, epsilon_max),
            area=score / epsilon_max,
            area_interval=interval(distances / epsilon_max),
            epsilon_max=epsilon_max,
            radius=radius,
            distances=distances,
            adversarial_examples=adversarial_examples,
            found_by=np.array([*names, ""])[winners],
            wins=dict(zip(names, wins.tolist(), strict=True)),
        )


def _names(attack):
    if isinstance(attack, Ensemble):
        return [name for name, _ in attack.members]
    return [type(attack).__name__.lower()]


def closest_changes(model, rows, labels, seed, *, property, attack):
    """Return the distance, the closest point, and the place of the attack that found it."""
    target, generator = as_target(model, rows, labels, seed, property)
    outcome = attack.closest(target, generator=generator)
    confirmed, x = confirm_beyond(target, outcome), target.x
    points, broken = confirmed.points, confirmed.broken
    is_own = broken & (outcome.points == x).all(dim=1)
    distance = torch.linalg.vector_norm(
        points.double() - x.double(), ord=2 if property.norm == "l2" else torch.inf, dim=1
    )
    winners = torch.zeros(len(x), dtype=torch.int64, device=x.device)
    if isinstance(outcome, EnsembleOutcome):
        winners = outcome.winners
    return {
        "radius": torch.where(broken, distance, torch.inf).cpu().numpy(),
        "adversarial_examples": torch.where(broken[:, None], points, torch.nan).cpu().numpy(),
        "winners": torch.where(broken & ~is_own, winners, -1).cpu().numpy(),
    }
