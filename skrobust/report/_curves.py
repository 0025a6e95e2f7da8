"""What is measured at each epsilon: which scorer, and what its results are read as."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from sklearn.base import clone

from skrobust.attacks import Attack
from skrobust.exceptions import ToleranceWarning, UnsupportedModelError, UnsupportedPropertyError
from skrobust.properties import RobustnessProperty
from skrobust.scorers import (
    AdversarialFrequency,
    AdversarialSeverity,
    ConstraintAccuracy,
    ConstraintSatisfaction,
    ConstraintSecurity,
    GlobalRobustness,
)
from skrobust.verification import Verifier

__all__ = ["Measurement", "RobustnessCurve", "Setting", "measured"]

_TOLERANCE = 0.05  # of global robustness, where no other is asked for


@dataclass(frozen=True, eq=False, repr=False)
class RobustnessCurve:
    """One score at each epsilon of a report.

    Parameters
    ----------
    name : str
        Such as "security".
    title : str
        The same for readers.
    meaning : str
        What the score says, and what it does not.
    side : {"above", "below", "itself"}
        From which side the score estimates what it is about: an attack misses violations, so
        that a share that withstands it is an estimate from above.
    unit : {"share", "distance"}
        A share is in [0, 1]; a distance is in units of the input, or of the scale.
    larger_is_better : bool
    scores : ndarray of shape (n_epsilons,)
    low, high : ndarray of shape (n_epsilons,)
        Ends of the confidence interval of each score.
    method : str
        Of the intervals.
    confidence : float
        Of each interval by itself.
    scorer : str
        What measured it.
    """

    name: str
    title: str
    meaning: str
    side: str
    unit: str
    larger_is_better: bool
    scores: np.ndarray
    low: np.ndarray
    high: np.ndarray
    method: str
    confidence: float
    scorer: str

    def __repr__(self):
        scores = ", ".join(f"{score:.3f}" for score in self.scores)
        return f"RobustnessCurve({self.name!r}, scores=[{scores}])"


@dataclass(frozen=True, eq=False)
class Setting:
    """What the scorers of a report have in common.

    Parameters
    ----------
    property : RobustnessProperty
    epsilons : ndarray of shape (n_epsilons,)
    attack : Attack
    verifier : Verifier
    scale : ndarray of shape (n_features,) or None
        Units of the features.
    tolerance : float or None
    confidence : float
    timeout : float or None
    evidence : path-like or None
    options : dict
        `random_state`, `n_jobs`, `memory` and `verbose`, by name.
    """

    property: RobustnessProperty
    epsilons: np.ndarray
    attack: Attack
    verifier: Verifier
    scale: object
    tolerance: float | None
    confidence: float
    timeout: float | None
    evidence: object
    options: dict

    def common(self):
        """Return the parameters that all scorers share."""
        return {"confidence": self.confidence} | self.options

    def properties(self):
        """Return the property at each epsilon."""
        if self.scale is None:
            return [self.property.with_epsilon(float(epsilon)) for epsilon in self.epsilons]
        return [self.property.with_epsilon(epsilon * self.scale) for epsilon in self.epsilons]

    def unscaled(self, property):
        """Return which of the epsilons a property has."""
        epsilon = property.epsilon
        if self.scale is not None:
            # The division may miss it by rounding.
            distances = np.abs(self.epsilons - np.max(epsilon / self.scale))
            epsilon = self.epsilons[distances.argmin()]
        return float(epsilon)


@dataclass(frozen=True)
class Reading:
    """One number of a result, with its interval.

    Parameters
    ----------
    name, title, meaning, unit, larger_is_better
        Of the curve.
    read : callable
        ``read(result) -> (score, interval)``
    side : callable
        ``side(result) -> str``, of the curve at one epsilon.
    """

    name: str
    title: str
    meaning: str
    read: Callable
    side: Callable
    unit: str = "share"
    larger_is_better: bool = True

    def curve(self, results, scorer):
        """Return the `RobustnessCurve` of one result an epsilon."""
        scores, intervals = zip(*map(self.read, results), strict=True)
        sides = {self.side(result) for result in results} - {"itself"} or {"itself"}
        given = {name: value for name, value in vars(self).items() if name not in _FUNCTIONS}
        return RobustnessCurve(
            **given,
            side=sides.pop() if len(sides) == 1 else "both",
            scores=np.array(scores, dtype=np.float64),
            low=np.array([interval.low for interval in intervals]),
            high=np.array([interval.high for interval in intervals]),
            method=" or ".join(dict.fromkeys(interval.method for interval in intervals)),
            confidence=min(interval.confidence for interval in intervals),
            scorer=scorer,
        )


_FUNCTIONS = ("read", "side")


def _above(result):
    return "above"


def _score(result):
    return result.score, result.interval


def _surviving(result):
    return result.surviving_share, result.surviving_interval


def _frequency(result):
    # The scorer's is minus the share, for searches.
    turned = replace(result.interval, low=-result.interval.high, high=-result.interval.low)
    return result.frequency, turned


def _side_of_proofs(result):
    return "below" if result.n_unknown else "itself"


def _side_of_survivors(result):
    return "above" if result.n_unknown else "itself"


def _side_of_global(result):
    return {"exact": "itself", "upper": "above"}.get(result.side, "below")


# ---- scorers -----------------------------------------------------------------------------


def _accuracy(setting, property):
    return ConstraintAccuracy(property, **setting.common())


def _security(setting, property):
    return ConstraintSecurity(property, setting.attack, **setting.common())


def _satisfaction(setting, property):
    evidence = setting.evidence
    if evidence is not None and evidence != "required":
        evidence = Path(evidence) / f"epsilon-{setting.unscaled(property):.6g}"
    return _without_evidence(setting, property).set_params(evidence=evidence)


def _without_evidence(setting, property):
    return ConstraintSatisfaction(
        property, setting.verifier, timeout=setting.timeout, **setting.common()
    )


def _unrecorded(setting, property):
    if setting.evidence == "required":
        raise UnsupportedModelError(
            "Got evidence='required', but the checker of evidence knows no estimator of this "
            "kind, so that no proof counts."
        )
    return _without_evidence(setting, property)


def _adversarial(kind, setting, property):
    refusal = "but the distance to the closest adversarial example is measured"
    if property.norm != "linf":
        raise UnsupportedPropertyError(f"Got {property}, {refusal} in the L-infinity norm.")
    if property.ball_parameters != RobustnessProperty.ball_parameters:
        raise UnsupportedPropertyError(
            f"Got {type(property).__name__}, {refusal} over all features alike."
        )
    _check_box(property)
    given = {"bounds": property.box(), "scale": setting.scale}
    return kind(setting.unscaled(property), **given, **setting.common())


def _check_box(property):
    """Refuse a property of which only some points of a box are valid."""
    if not getattr(property.bounds, "is_box", True):
        raise UnsupportedPropertyError(
            f"Got bounds={property.bounds!r}, but this is measured in boxes and balls alone."
        )


def _global(local, setting, property):
    _check_box(property)
    tolerance = _TOLERANCE if setting.tolerance is None else setting.tolerance
    given = {"tolerance": tolerance, "bound": "clopper-pearson"}
    if local == "verifier":
        given |= {"timeout": setting.timeout}
    return GlobalRobustness(
        _of_predictions(property), local=getattr(setting, local), **given, **setting.common()
    )


def _of_predictions(property):
    """Return a copy of a property that compares with the prediction, where it can."""
    copy = clone(property)
    references = [n for n in copy.get_params() if n.rpartition("__")[2] == "reference"]
    return copy.set_params(**dict.fromkeys(references, "prediction"))


@dataclass(frozen=True)
class Measure:
    """What one scorer measures.

    Parameters
    ----------
    title : str
    scorers : dict of str to callable
        ``scorer(setting, property)``; the first that treats the estimator counts. The text says
        what is done without by a later one.
    readings : tuple of Reading
    """

    title: str
    scorers: dict
    readings: tuple


_MEASURES = {
    "constraint_accuracy": Measure(
        "Constraint accuracy",
        {"": _accuracy},
        (
            Reading(
                "constraint_accuracy",
                "Constraint accuracy",
                "Share of random points of the balls at which the property holds. Random points "
                "are the weakest test.",
                _score,
                _above,
            ),
        ),
    ),
    "security": Measure(
        "Constraint security",
        {"": _security},
        (
            Reading(
                "security",
                "Constraint security",
                "Share of samples around which the attack finds no violation. An attack proves "
                "nothing: a stronger one may find more.",
                _score,
                _above,
            ),
        ),
    ),
    "satisfaction": Measure(
        "Constraint satisfaction",
        {"": _satisfaction, "no evidence files, since": _unrecorded},
        (
            Reading(
                "satisfaction",
                "Constraint satisfaction",
                "Share of samples around which the property is proved for every point of the "
                "ball. What is undecided does not count.",
                _score,
                _side_of_proofs,
            ),
            Reading(
                "surviving",
                "Not falsified",
                "Share of samples around which the verifier finds no counterexample: those "
                "that are proved, and those that are undecided.",
                _surviving,
                _side_of_survivors,
            ),
        ),
    ),
    "frequency": Measure(
        "Adversarial frequency",
        {"": partial(_adversarial, AdversarialFrequency)},
        (
            Reading(
                "frequency",
                "Adversarial frequency",
                "Share of samples whose prediction changes at a point that is found within "
                "epsilon. The search proves nothing: there may be more.",
                _frequency,
                lambda result: "below",
                larger_is_better=False,
            ),
        ),
    ),
    "severity": Measure(
        "Adversarial severity",
        {"": partial(_adversarial, AdversarialSeverity)},
        (
            Reading(
                "severity",
                "Adversarial severity",
                "Mean distance of the closest adversarial examples that are found within "
                "epsilon; epsilon where there is none.",
                _score,
                _above,
                unit="distance",
            ),
        ),
    ),
    "global_robustness": Measure(
        "Global robustness",
        {
            "": partial(_global, "verifier"),
            "by the attack, since": partial(_global, "attack"),
        },
        (
            Reading(
                "global_robustness",
                "Global robustness",
                "Probability that an input drawn as the samples were keeps its prediction in "
                "its ball, right or wrong.",
                _score,
                _side_of_global,
            ),
        ),
    ),
}


# ---- measuring ---------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Measurement:
    """What measuring came to.

    Parameters
    ----------
    curves : dict of str to RobustnessCurve
    results : dict of str to tuple of ScoreResult
        For each measure, one an epsilon.
    not_measured : dict of str to str
        Titles of measures, and the reason.
    messages : tuple of str
        Warnings, and what else there is to say.
    """

    curves: dict
    results: dict
    not_measured: dict
    messages: tuple


def measured(setting, estimator, X, y):
    """Return the `Measurement` of an estimator.

    Parameters
    ----------
    setting : Setting
    estimator, X, y
        As for scorers.
    """
    properties = setting.properties()
    curves, all_results, not_measured, messages = {}, {}, {}, []
    for name, measure in _MEASURES.items():
        refusal = ""
        for without, make in measure.scorers.items():
            try:
                scorers = [make(setting, property) for property in properties]
                results, said = _evaluated(scorers, setting, estimator, X, y)
            except (UnsupportedModelError, UnsupportedPropertyError) as error:
                refusal = str(error)
                continue
            if without:
                messages.append(f"{measure.title}: {without}: {refusal}")
            messages += [f"{measure.title} {text}" for text in said]
            all_results[name] = results
            scorer = " ".join(repr(scorers[-1]).split())
            for reading in measure.readings:
                curves[reading.name] = reading.curve(results, scorer)
            break
        else:
            not_measured[measure.title] = refusal
    return Measurement(curves, all_results, not_measured, tuple(messages))


def _evaluated(scorers, setting, estimator, X, y):
    """Return the results of scorers, and what warnings say, each once."""
    results, said = [], []
    for scorer, epsilon in zip(scorers, setting.epsilons, strict=True):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            results.append(scorer.evaluate(estimator, X, y))
        # The intervals say what a tolerance that nobody asked for has come to.
        expected = ToleranceWarning if setting.tolerance is None else ()
        texts = [w.message for w in caught if not issubclass(w.category, expected)]
        said += [f"at epsilon {epsilon:g}: {text}" for text in texts]
    return tuple(results), list(dict.fromkeys(said))
