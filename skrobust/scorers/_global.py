"""Global robustness: the share of the data distribution that is locally robust."""

import math
import warnings
from dataclasses import dataclass
from functools import partial

import numpy as np

from skrobust._parameters import DefaultParts
from skrobust._validation import check_choice, check_real, check_seed, expected
from skrobust.attacks import FGSM, PGD, Attack, NearMissPGD
from skrobust.exceptions import ReferenceWarning, ToleranceWarning
from skrobust.properties import StandardRobustness
from skrobust.scorers._base import PropertyScorer, ScoreResult, level_outside
from skrobust.scorers._draw import hull, side_of, stopping_rule
from skrobust.scorers._local import attack_in_chunks, decide_by_verifier
from skrobust.scorers._quantitative import (
    QuantitativeRobustnessResult,
    bounded_change,
    change,
    change_scores,
    mean_change,
    same_label,
)
from skrobust.statistics import Interval
from skrobust.trees import check_tree_property
from skrobust.verification import Bounds, Verifier

__all__ = ["GlobalRobustness", "GlobalRobustnessResult"]

_BOUNDS = ("hoeffding", "clopper-pearson", "bernstein", "sequential", "anytime")
_FEWEST = 16  # samples looked at together by the rules that stop early


@dataclass(frozen=True, eq=False, repr=False)
class GlobalRobustnessResult(ScoreResult):
    """What `GlobalRobustness.evaluate` returns.

    Parameters
    ----------
    score : float
        Share of the samples used that count as robust; with "sequential" and "anytime" of those
        up to the stop of the side that is counted (see `lower`).
    interval : Interval
        Of the score; where `side` is "both", from the low end of `lower_interval` to the high
        end of `upper_interval`.
    side : {"upper", "lower", "exact", "both"}
        Which side of the global robustness the score estimates. An attack misses violations,
        so that its score is an estimate from above; a verifier that leaves some samples
        unknown gives both sides, of which the score is the lower one, or the lower one alone
        where it falsifies none.
    lower, upper : float
        Shares verified, and not falsified; 0 and 1 where that side is not known. With "sequential"
        and "anytime" each side stops at its own time, and its share counts the samples up to that
        stop. `n_used` is the later one, so a share may differ from that of all `verdicts`.
    lower_interval, upper_interval : Interval or None
        Of these shares.
    tolerance : float
        Largest half-width of the intervals; with "hoeffding" and "sequential" before they are
        cut to [0, 1].
    n_used : int
        Samples looked at.
    index : ndarray of int, shape (n_used,)
        Their rows in `X`, in the order of the draw.
    verdicts : ndarray of str, shape (n_used,)
        "verified", "falsified" or "unknown". An attack verifies nothing.
    holds : ndarray of bool, shape (n_used,)
        What the score counts.
    margins : ndarray of shape (n_used,)
        Of attacks, the smallest row of the property at the worst point found; of verifiers, its
        proved lower bound.
    counterexamples : ndarray of shape (n_used, n_features)
        Points that break the property, as the estimator itself computes; NaN where none.
    """

    side: str
    lower: float
    upper: float
    lower_interval: Interval | None
    upper_interval: Interval | None
    tolerance: float
    n_used: int
    index: np.ndarray
    verdicts: np.ndarray
    holds: np.ndarray
    margins: np.ndarray
    counterexamples: np.ndarray


class GlobalRobustness(DefaultParts, PropertyScorer):
    """Probability that an input drawn as the data were is locally robust.

    A tolerance and a confidence are fixed in advance; as many samples as these need are drawn
    from `X`, without replacement, and local robustness is decided for each.

    Parameters
    ----------
    property : RobustnessProperty
        What local robustness is, in the raw input space of the estimator that is scored. With
        ``ClassificationRobustness(reference="prediction")`` it is that of the paper: no other
        label in the ball, and a largest output that is the only one. With
        ``reference="label"`` accuracy is mixed in, and a warning says so.
    tolerance : float, default=0.05
        Half-width of the interval, in (0, 1); 0.005 at least for "sequential".
    confidence : float, default=0.95
        Of the interval, in (0, 1).
    bound : {"hoeffding", "clopper-pearson", "bernstein", "sequential", "anytime"}, \
            default="hoeffding"
        Where the interval, and the number of samples, come from. "hoeffding": 738 samples for
        the default tolerance and confidence. "clopper-pearson": exact, 402. "sequential": stops
        when the interval is narrow enough, after 428 at most, and 120 on average where the
        share is 0.95 (see `skrobust.statistics.sequential_rule`). "bernstein": 1253, with an
        interval that is narrower than the tolerance where the values vary little. "anytime":
        stops when the interval of a confidence sequence is narrow enough, which is also valid
        for those who look at results as they come and stop when they like, and may need more
        samples than "hoeffding".
    local : Attack, Verifier, "fgsm" or None, default=None
        How local robustness is decided. Attacks give an upper estimate; None is
        ``NearMissPGD()``, as in `ConstraintSecurity`, and "fgsm" is
        ``FGSM("cross-entropy")``, a step along the gradient of the loss, with which the paper
        approximates. Of verifiers, ``Bounds()`` verifies or leaves unknown, and gives a lower
        estimate; ``Cascade()``, ``Exact()``, and ``TreeVerifier()`` for trees, also falsify, and
        give the share itself. Where they leave samples unknown, at a time limit, the result
        gives both sides.
    quantitative : None or "linf-probabilities", default=None
        If given, what is measured is the largest change of a class probability in the ball (of
        `property`, which serves for nothing else), and the score is one minus its mean, the D
        of the paper, which `mean_change` of the result holds. `local`
        is then an attack, which finds changes, or ``Bounds()``, which also proves that none is
        larger.
    threshold : float or None, default=None
        With `quantitative`: the score is the share of samples that change by at most this, in
        [0, 1]. The paper's is 0.5.
    timeout : float or None, default=None
        Seconds a sample, handed on to the verifier; no limit beside the verifier's own if None.
        Attacks, and the bounds of `quantitative`, run to their end, and take None only.
    chunk_size : int, default=256
        Most samples of one job. Complete verifiers get them one by one.
    random_state : int, RandomState instance or None, default=None
        For the draw, and for attacks with random starts.
    n_jobs : int or None, default=None
        Chunks evaluated at a time, by joblib.
    memory : None, str or joblib.Memory, default=None
        Keeps the result of each chunk (with an int as `random_state`).
    verbose : int, default=0
        joblib's progress messages.

    Warns
    -----
    ReferenceWarning
        If the property compares with the true label.
    ToleranceWarning
        If `X` has fewer samples than needed, and the interval is therefore wider than promised.

    Notes
    -----
    The promise is about the distribution that the rows of `X` are independent draws of.

    References
    ----------
    "Global Adversarial Robustness Guarantees for Neural Networks": Definitions 1 to 4, equation
    3, Theorems 1 and 2, and section 4 for FGSM.

    Hoeffding, Journal of the American Statistical Association 58, 1963; Frey, The American
    Statistician 64, 2010; Maurer and Pontil, COLT 2009.

    Examples
    --------
    >>> from sklearn.linear_model import LogisticRegression
    >>> from skrobust.datasets import load_digits
    >>> from skrobust.properties import ClassificationRobustness
    >>> from skrobust.scorers import GlobalRobustness
    >>> X, y = load_digits(return_X_y=True)
    >>> model = LogisticRegression().fit(X[:800], y[:800])
    >>> property = ClassificationRobustness(0.02, reference="prediction")
    >>> result = GlobalRobustness(property, random_state=0).evaluate(model, X[800:])
    >>> result.n_used, result.side
    (738, 'upper')
    >>> result = GlobalRobustness(property, bound="sequential", random_state=0).evaluate(
    ...     model, X[800:]
    ... )
    >>> result.n_used < 300
    True
    """

    def __init__(
        self,
        property,
        *,
        tolerance=0.05,
        confidence=0.95,
        bound="hoeffding",
        local=None,
        quantitative=None,
        threshold=None,
        timeout=None,
        chunk_size=256,
        random_state=None,
        n_jobs=None,
        memory=None,
        verbose=0,
    ):
        self.property = property
        self.tolerance = tolerance
        self.confidence = confidence
        self.bound = bound
        self.local = local
        self.quantitative = quantitative
        self.threshold = threshold
        self.timeout = timeout
        self.chunk_size = chunk_size
        self.random_state = random_state
        self.n_jobs = n_jobs
        self.memory = memory
        self.verbose = verbose

    def _default_parts(self):
        return {"local": NearMissPGD()}

    def _local(self):
        """Return the attack or verifier that decides local robustness."""
        return FGSM("cross-entropy") if self._is_fgsm() else self._part("local")

    def _is_fgsm(self):
        return isinstance(self.local, str) and self.local == "fgsm"

    def check(self):
        """Validate the parameters; return self."""
        check_real("tolerance", self.tolerance, low=0, high=1, closed="neither")
        check_choice("bound", self.bound, _BOUNDS)
        self._check_common()
        local = self._local()
        if not (isinstance(local, Attack | Verifier)):
            expectation = "an Attack, such as PGD(), a verifier, such as Cascade(), or 'fgsm'"
            raise TypeError(expected("local", local, expectation))
        local.check()
        if self.timeout is not None:
            check_real("timeout", self.timeout, low=0, closed="neither")
            if isinstance(local, Attack) or self.quantitative is not None:
                expectation = (
                    "None, unless local is a verifier and quantitative is None: attacks, and "
                    "bounds of changes, run to their end"
                )
                raise ValueError(expected("timeout", self.timeout, expectation))
        self._check_quantity()
        return self

    def _check_quantity(self):
        if self.quantitative is None:
            if self.threshold is not None:
                expectation = "None, or quantitative='linf-probabilities' beside it"
                raise ValueError(expected("threshold", self.threshold, expectation))
            return
        check_choice("quantitative", self.quantitative, ("linf-probabilities",))
        local = self._local()
        if not isinstance(local, Attack | Bounds):
            expectation = "an Attack, or Bounds(), with quantitative='linf-probabilities'"
            raise TypeError(expected("local", local, expectation))
        if self.threshold is not None:
            check_real("threshold", self.threshold, low=0, high=1)
        elif self.bound not in ("hoeffding", "bernstein"):
            expectation = "'hoeffding' or 'bernstein' for a mean, or a threshold"
            raise ValueError(expected("bound", self.bound, expectation))

    def evaluate(self, estimator, X, y=None):
        """Return a `GlobalRobustnessResult`, or a `QuantitativeRobustnessResult`.

        Parameters
        ----------
        estimator : object
            Fitted classifier.
        X : array-like of shape ``(n_samples, n_features)`` or ``(n_samples, *input_shape)``
            Independent draws from the data distribution, in the raw input space.
        y : array-like of shape (n_samples,), default=None
            True labels, where the property needs them; checked in any case.
        """
        self.check()
        local = self._local()
        needs_gradient = isinstance(local, Attack) and local.needs_gradient
        property = self._measured_property()
        if property.needs_labels:
            warnings.warn(
                "Got a property with reference='label', but global robustness compares with the "
                "classifier's own prediction, and knows no true labels: what is measured is "
                "robust accuracy. Set reference='prediction' for the score of the paper.",
                ReferenceWarning,
                stacklevel=level_outside(),
            )
        if isinstance(local, Verifier):
            check_tree_property(estimator, property)
        sample = self._prepare(estimator, X, y, needs_gradient, property)
        return self._result(*self._draw(sample, self._measurement(local, property, sample)))

    def metrics(self, estimator, X, y=None):
        """Return three numbers as a dict, for ``GridSearchCV(scoring=scorer.metrics)``.

        Parameters
        ----------
        estimator : object
            Fitted classifier.
        X : array-like of shape ``(n_samples, n_features)`` or ``(n_samples, *input_shape)``
        y : array-like of shape (n_samples,), default=None

        Returns
        -------
        dict of str to float
            "lower_share" and "upper_share", as `lower` and `upper` of the result, and
            "sample_count".
        """
        result = self.evaluate(estimator, X, y)
        return {
            "lower_share": result.lower,
            "upper_share": result.upper,
            "sample_count": result.n_used,
        }

    def _measured_property(self):
        """Return the property whose smallest row is measured around each sample."""
        if self.quantitative is None:
            return self.property
        # No change of a probability is above delta=1, so that this property never fails; its
        # smallest row is 1 minus the largest change.
        ball = {name: getattr(self.property, name) for name in ("epsilon", "norm", "bounds")}
        return StandardRobustness(
            delta=1.0, output="probabilities", reference="prediction", **ball
        )

    def _measurement(self, local, property, sample):
        """Return a function of a part of the sample and a seed: arrays with an entry a row."""
        model, n_features = sample.model, sample.rows.shape[1]
        if self.quantitative is None:
            if isinstance(local, Attack):
                return partial(_by_attack, self, local)
            return partial(_by_verifier, self, local, local.encode(model, property, n_features))
        if isinstance(local, Attack):
            measure = partial(change, property=property, attack=local)
            return partial(_by_chunks, self, measure, model)
        encoding = local.encode(model, same_label(property), n_features)
        measure = partial(bounded_change, property=property, attack=PGD(), bounds=local)
        return partial(_by_chunks, self, measure, encoding)

    def _draw(self, sample, measure):
        """Draw and measure samples until the rule stops for every sequence of values.

        Returns the rule, the measured arrays, the places drawn, and the sequences, each cut at
        its own stop.
        """
        n_available = len(sample)
        random = check_seed(self.random_state)
        promise = float(self.tolerance), float(self.confidence)
        rule = stopping_rule(self.bound, *promise, n_available)
        order = random.permutation(n_available)[: rule.n_max]
        arrays, n = None, 0
        stop = rule.earliest_stop([])
        while True:
            # A floor, since a batch of one sample takes about as long as one of several.
            stop = min(max(stop, n + _FEWEST), rule.n_max)
            part = measure(sample[order[n:stop]], int(random.randint(2**31 - 1)))
            arrays = part if arrays is None else _joined(arrays, part)
            n = stop
            sequences = self._values(arrays)
            stops = {side: rule.first_stop(values) for side, values in sequences.items()}
            if None not in stops.values():
                break
            waiting = (sequences[side] for side, at in stops.items() if at is None)
            stop = max(rule.earliest_stop(values) for values in waiting)
        n_used = max(stops.values())
        arrays = {name: values[:n_used] for name, values in arrays.items()}
        sequences = {side: values[: stops[side]] for side, values in sequences.items()}
        self._warn(rule, sequences, n_available)
        return rule, arrays, order[:n_used], sequences

    def _values(self, arrays):
        """Return, for each side, the sequence of values whose mean is the score."""
        proves = not isinstance(self._local(), Attack)
        if self.quantitative is None:
            return _shares(arrays, proves)
        return change_scores(arrays, self.threshold, proves)

    def _warn(self, rule, sequences, n_available):
        reached = max(rule.tolerance(values) for values in sequences.values())
        if reached <= self.tolerance + 1e-9:
            return
        warnings.warn(
            f"Got {n_available} samples, fewer than a tolerance of {self.tolerance} at "
            f"confidence {self.confidence} needs with bound={self.bound!r}: they allow a "
            f"tolerance of {math.ceil(reached * 1e4) / 1e4:.4f}. Give more samples, or ask for "
            "that.",
            ToleranceWarning,
            stacklevel=level_outside(),
        )

    def _result(self, rule, arrays, index, sequences):
        intervals = {side: rule.interval(values) for side, values in sequences.items()}
        scores = {side: float(np.mean(values)) for side, values in sequences.items()}
        side = side_of(arrays, sequences)
        counted = "upper" if side == "upper" else "lower"
        interval = intervals[counted]
        if side == "both":
            interval = hull(intervals["lower"], intervals["upper"])
        result = QuantitativeRobustnessResult if self.quantitative else GlobalRobustnessResult
        if self.quantitative:
            arrays |= mean_change(scores[counted], interval)
        else:
            arrays["holds"] = self._values(arrays)[counted]
        return result(
            score=scores[counted],
            interval=interval,
            side=side,
            lower=scores.get("lower", 0.0),
            upper=scores["upper"],
            lower_interval=intervals.get("lower"),
            upper_interval=intervals["upper"],
            tolerance=max(rule.tolerance(values) for values in sequences.values()),
            n_used=len(index),
            index=index,
            **arrays,
        )


def _joined(first, second):
    return {name: np.concatenate([first[name], second[name]]) for name in first}


def _by_attack(scorer, attack, sample, seed):
    return attack_in_chunks(scorer, attack, sample, random_state=seed)


def _by_verifier(scorer, verifier, encoding, sample, seed):
    result = decide_by_verifier(scorer, verifier, encoding, sample, random_state=seed)
    return {
        "verdicts": result.verdicts,
        "margins": result.lower,
        "counterexamples": result.counterexamples,
    }


def _by_chunks(scorer, measure, state, sample, seed):
    return scorer._in_chunks(measure, sample, state=state, random_state=seed)


def _shares(arrays, proves):
    """Return, for each side, whether each sample counts as robust."""
    sides = {"lower": arrays["verdicts"] == "verified"} if proves else {}
    return sides | {"upper": arrays["verdicts"] != "falsified"}
