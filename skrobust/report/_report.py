"""Every score of a classifier at several radii, in one call."""

from dataclasses import dataclass
from itertools import chain

import numpy as np

from skrobust._validation import (
    check_choice,
    check_columns,
    check_instance,
    check_integer,
    check_labels_given,
    check_length,
    check_real,
    check_seed,
    expected,
    sample_shape,
)
from skrobust.attacks import Attack, NearMissPGD, UniformSampling
from skrobust.displays import check_image_shape
from skrobust.networks import Model, as_model, check_scale
from skrobust.properties import ClassificationRobustness, RobustnessProperty
from skrobust.report._card import DETAILS
from skrobust.report._curves import Setting, measured
from skrobust.report._examples import WorstExamples, closest_examples
from skrobust.report._result import RobustnessReport
from skrobust.statistics import clopper_pearson
from skrobust.verification import Cascade, Verifier, check_evidence

__all__ = ["robustness_report"]


def robustness_report(
    estimator,
    X,
    y,
    *,
    epsilons,
    scale=None,
    property=None,
    attack=None,
    verifier=None,
    timeout=None,
    evidence=None,
    tolerance=None,
    confidence=0.95,
    n_examples=8,
    image_shape=None,
    details=None,
    random_state=None,
    n_jobs=None,
    memory=None,
    verbose=0,
):
    """Measure all that can be measured of a classifier's robustness, and say what was not.

    Accuracy, and at each epsilon constraint accuracy, security and satisfaction, adversarial
    frequency and severity, and global robustness, each with its confidence interval; the samples
    that the smallest changes break; what is assumed, and what is not checked. A score that an
    estimator of this kind cannot have is listed with the reason.

    Parameters
    ----------
    estimator : object
        Fitted classifier, of any kind.
    X : array-like of shape ``(n_samples, n_features)`` or ``(n_samples, *input_shape)``
        Data that the estimator was not fitted on, in its raw input space.
    y : array-like of shape (n_samples,)
        True labels.
    epsilons : array-like of shape (n_epsilons,)
        Radii, each at least 0, in units of the input, or of `scale`. They are put in order.
    scale : None, "std", float or array-like of shape (n_features,), default=None
        Units of the features, above 0: the radius in feature i is epsilon times ``scale[i]``,
        and distances are measured in them. "std" takes the standard deviations of the training
        data from the StandardScaler that a pipeline starts with.
    property : RobustnessProperty, default=None
        What shall hold in the balls; its epsilon is replaced by each one of `epsilons`. None is
        ``ClassificationRobustness()``, whose inputs are between 0 and 1; data in other units
        take ``ClassificationRobustness(bounds=None)``.
    attack : Attack, default=None
        For security. None is ``NearMissPGD()``, and for an estimator without gradients
        ``UniformSampling(1000)``, a weak test.
    verifier : Verifier, default=None
        For satisfaction and global robustness. None is ``Cascade()``, which knows networks and
        trees.
    timeout : float, default=None
        Seconds a sample, handed on to the verifier; no limit beside the verifier's own if None.
    evidence : str or path-like, default=None
        A folder for evidence files, with a folder inside for each epsilon; see
        `~skrobust.scorers.ConstraintSatisfaction`. "required" stores nothing, but counts as
        verified only what the checker accepts.
    tolerance : float, default=None
        Of global robustness: as many samples are drawn as it needs. None is 0.05, or where there
        are too few samples for that, what all of them allow.
    confidence : float, default=0.95
        Of each interval by itself.
    n_examples : int, default=8
        Worst examples, at most so many.
    image_shape : tuple of int, default=None
        Of a sample that is an image, for the page: (height, width), (channels, height, width)
        or (height, width, channels).
    details : dict of str to str, default=None
        What only people know, for the page and the model card: "model_details", "intended_use",
        "factors", "evaluation_data", "training_data", "ethical_considerations" or
        "caveats_and_recommendations".
    random_state : int, RandomState instance or None, default=None
        For draws, and attacks with random starts.
    n_jobs : int or None, default=None
        Chunks evaluated at a time, by joblib.
    memory : None, str or joblib.Memory, default=None
        Keeps what each scorer keeps, so that a report that was killed goes on.
    verbose : int, default=0
        Progress messages, as of the scorers.

    Returns
    -------
    RobustnessReport
        With `to_html`, `to_dict`, `to_json`, `to_frame` and `to_card`. Warnings of the scorers
        are in its `messages`.

    Raises
    ------
    NotFittedError
        If the estimator is not fitted.
    UnsupportedModelError
        If it is no classifier.
    ValueError
        If an argument is not valid.

    References
    ----------
    Mitchell et al., "Model cards for model reporting", FAT* 2019, section 4, for the form of
    `to_dict`. Each score names its own source.

    Examples
    --------
    >>> from sklearn.linear_model import LogisticRegression
    >>> from skrobust import robustness_report
    >>> from skrobust.datasets import load_digits
    >>> X, y = load_digits(return_X_y=True)
    >>> model = LogisticRegression().fit(X[:1000], y[:1000])
    >>> report = robustness_report(
    ...     model, X[1000:1050], y[1000:1050], epsilons=[0.02, 0.05], random_state=0
    ... )
    >>> list(report.curves)  # doctest: +NORMALIZE_WHITESPACE
    ['constraint_accuracy', 'security', 'satisfaction', 'surviving', 'frequency', 'severity',
     'global_robustness']
    >>> bool((report.curves["satisfaction"].scores <= report.curves["security"].scores).all())
    True
    """
    epsilons = _checked_epsilons(epsilons)
    property = _checked_property(property)
    check_real("confidence", confidence, low=0, high=1, closed="neither")
    if tolerance is not None:
        check_real("tolerance", tolerance, low=0, high=1, closed="neither")
    if timeout is not None:
        check_real("timeout", timeout, low=0, closed="neither")
    check_integer("n_examples", n_examples)
    check_seed(random_state)
    check_evidence(evidence)
    details = _checked_details(details)
    sample = _Sample.of(estimator, X, y)
    scale = check_scale(scale, estimator, sample.rows.shape[1])
    if image_shape is not None:
        check_image_shape(image_shape, sample.rows.shape[1])
    setting = Setting(
        property=property,
        epsilons=epsilons,
        attack=_checked_attack(attack, sample.model),
        verifier=check_instance(
            "verifier", Cascade() if verifier is None else verifier, Verifier, "Cascade()"
        ).check(),
        scale=scale,
        tolerance=tolerance,
        confidence=confidence,
        timeout=timeout,
        evidence=evidence,
        options={
            "random_state": random_state,
            "n_jobs": n_jobs,
            "memory": memory,
            "verbose": verbose,
        },
    )
    setting.properties()[-1].check(sample.rows)
    measurement = measured(setting, estimator, X, y)
    n_right = int(sample.is_right.sum())
    return RobustnessReport(
        estimator=estimator,
        property=property,
        epsilons=epsilons,
        scale=scale,
        accuracy=n_right / len(sample.rows),
        accuracy_interval=clopper_pearson(n_right, len(sample.rows), confidence),
        labels=sample.model.classes[sample.labels],
        predictions=sample.model.classes[sample.predicted],
        examples=sample.examples(measurement.results, setting, int(n_examples)),
        feature_names=_feature_names(estimator, X, sample.rows.shape[1]),
        image_shape=image_shape,
        attack=setting.attack,
        verifier=setting.verifier,
        evidence=evidence if _has_files(measurement.results) else None,
        details=details,
        **vars(measurement),
    )


@dataclass(frozen=True, eq=False)
class _Sample:
    """Checked data, and what the estimator says of them."""

    model: Model
    rows: np.ndarray
    labels: np.ndarray
    predicted: np.ndarray

    @classmethod
    def of(cls, estimator, X, y):
        check_columns(estimator, X)
        shape = sample_shape(X)
        model = as_model(estimator, {"labels"}, needs_gradient=False, input_shape=shape)
        rows = model.check_rows(X)
        check_labels_given(y, "a report starts from accuracy")
        check_length("y", y, len(rows))
        return cls(model, rows, model.encode(y).cpu().numpy(), _predicted(model, rows))

    @property
    def is_right(self):
        return self.predicted == self.labels

    def examples(self, results, setting, n_examples):
        """Return the `WorstExamples` among the counterexamples of results."""
        index, distance, points = closest_examples(
            self.rows,
            chain(*results.values()),
            self.is_right,
            setting.property,
            setting.scale,
            setting.epsilons[-1],
            n_examples,
        )
        classes = self.model.classes
        after = _predicted(self.model, points) if len(points) else index
        return WorstExamples(
            index,
            distance,
            self.rows[index],
            points,
            classes[self.labels[index]],
            classes[self.predicted[index]],
            classes[after],
        )


def _predicted(model, rows):
    """Return the class indices that a model gives rows."""
    return model.replay_rows(rows).argmax(dim=1).cpu().numpy()


def _has_files(results):
    """Return whether there is evidence in files."""
    stored = [each for r in results.get("satisfaction", ()) for each in set(r.evidence)]
    return bool(set(stored) - {"", "checked"})


def _checked_epsilons(epsilons):
    """Return radii as an array in rising order, or raise a ValueError."""
    expectation = "one finite radius of at least 0, or more of them, each once"
    try:
        array = np.array(epsilons, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(expected("epsilons", epsilons, expectation)) from None
    is_right = array.ndim == 1 and array.size > 0 and np.isfinite(array).all()
    if not (is_right and (array >= 0).all() and len(np.unique(array)) == len(array)):
        raise ValueError(expected("epsilons", epsilons, expectation))
    return np.sort(array)


def _checked_property(property):
    """Return the property, the default if None, or raise."""
    if property is None:
        return ClassificationRobustness()
    check_instance("property", property, RobustnessProperty, "ClassificationRobustness()")
    if np.ndim(property.epsilon) > 0:
        one = "one with a single epsilon, which the report replaces; features have their scale"
        raise ValueError(expected("property", property, one))
    return property


def _checked_attack(attack, model):
    """Return the attack, the default for the model if None, or raise."""
    if attack is None:
        attack = NearMissPGD() if model.has_gradient else UniformSampling(1000)
    return check_instance("attack", attack, Attack, "PGD()").check()


def _checked_details(details):
    """Return the texts of a model card by their names, or raise."""
    details = {} if details is None else details
    check_instance("details", details, dict, '{"intended_use": "..."}')
    for name, text in details.items():
        check_choice("a name in details", name, DETAILS)
        check_instance(f"details[{name!r}]", text, str, "'Screening of images'")
    return details


def _feature_names(estimator, X, n_features):
    """Return the names of the columns, where there are any, or numbers."""
    for names in (getattr(X, "columns", None), getattr(estimator, "feature_names_in_", None)):
        if names is not None and len(names) == n_features:
            return tuple(str(name) for name in names)
    return tuple(f"feature {i}" for i in range(n_features))
