"""Weights of samples, of classes and of the criterion reach the loss."""

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn import config_context
from sklearn.model_selection import GridSearchCV, cross_validate
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler
from skorch.dataset import ValidSplit

from skrobust import RobustClassifier
from skrobust.attacks import FGSM
from skrobust.estimators._weights import joint_weight
from skrobust.properties import ClassificationRobustness as CR
from skrobust.training import (
    AdversarialTraining,
    CertifiedTraining,
    ConstraintTraining,
    DataAugmentation,
    StandardTraining,
)

REGIMES = [
    StandardTraining(),
    AdversarialTraining(FGSM("cross-entropy"), clean_weight=0.5),
    ConstraintTraining(attack=FGSM()),
    DataAugmentation(1, "fgsm"),
    CertifiedTraining(ramp_epochs=2),
]


def model(training=None, **params):
    # One batch, and plain gradient descent: what is equal in exact arithmetic stays close.
    defaults = {
        "hidden_layer_sizes": 8, "property": CR(0.05), "max_epochs": 8, "batch_size": 500,
        "optimizer": torch.optim.SGD, "lr": 0.5, "random_state": 0,
    }  # fmt: skip
    return RobustClassifier(training=training, **(defaults | params))


def logits(fitted, X):
    return fitted.decision_function(X)


@pytest.mark.parametrize("regime", REGIMES, ids=lambda r: type(r).__name__)
def test_weights_are_repetitions(blobs, regime):
    X, y = blobs
    weight = np.random.default_rng(0).integers(0, 4, len(X))
    weighted = model(regime).fit(X, y, sample_weight=weight)
    repeated = model(regime).fit(X.repeat(weight, axis=0), y.repeat(weight))
    np.testing.assert_allclose(logits(weighted, X), logits(repeated, X), rtol=1e-3, atol=1e-4)
    assert np.abs(logits(model(regime).fit(X, y), X) - logits(weighted, X)).max() > 1e-3


def test_equal_weights_are_no_weights(blobs):
    X, y = blobs
    plain = logits(model().fit(X, y), X)
    for weight in (np.ones(80), np.full(80, 0.3), [3] * 80, pd.Series(np.ones(80))):
        np.testing.assert_array_equal(logits(model().fit(X, y, sample_weight=weight), X), plain)


def test_the_unit_of_the_weights_does_not_count(blobs):
    X, y = blobs
    weight = 1 + np.arange(80.0)
    first, second = (model().fit(X, y, w) for w in (weight, 1024 * weight))
    np.testing.assert_array_equal(logits(first, X), logits(second, X))


def test_samples_of_weight_zero_are_left_out(blobs):
    X, y = blobs
    kept = np.arange(80) % 3 > 0
    without = model(batch_size=7).fit(X[kept], y[kept])
    weighted = model(batch_size=7).fit(X, y, sample_weight=kept.astype(float))
    np.testing.assert_array_equal(logits(without, X), logits(weighted, X))
    with pytest.raises(ValueError, match=r"the one class \[1\], but expected at least two"):
        model().fit(X, y, sample_weight=y)


@pytest.mark.parametrize(
    ("weight", "message"),
    [
        (np.zeros(80), "Sample weights must contain at least one non-zero number"),
        (np.ones(79), "sample_weight.shape"),
        (np.ones((80, 2)), "Sample weights must be 1D"),
        (-np.ones(80), "Negative values in data passed to `sample_weight`"),
        (np.full(80, np.nan), "sample_weight contains NaN"),
    ],
)
def test_weights_that_are_refused(blobs, weight, message):
    for method in ("fit", "partial_fit"):
        with pytest.raises(ValueError, match=message):
            getattr(model(), method)(*blobs, sample_weight=weight)


def test_class_weights_are_sample_weights(blobs):
    X, y = blobs[0][:60], blobs[1][:60].copy()
    y[:20] = 1
    by_class = model(class_weight={0: 3.0, 1: 0.5}).fit(X, y)
    by_sample = model().fit(X, y, sample_weight=np.where(y == 0, 3.0, 0.5))
    np.testing.assert_array_equal(logits(by_class, X), logits(by_sample, X))
    balanced = model(class_weight="balanced").fit(X, y)
    by_sample = model().fit(X, y, sample_weight=1 / np.bincount(y)[y])
    np.testing.assert_allclose(logits(balanced, X), logits(by_sample, X), rtol=1e-5, atol=1e-6)


def test_class_and_sample_weights_multiply():
    y, classes = np.array([0, 0, 1, 1]), np.arange(2)
    weight = joint_weight(y, np.array([1.0, 3.0, 1.0, 1.0]), {0: 2.0, 1: 1.0}, classes)
    np.testing.assert_allclose(weight, np.array([2, 6, 1, 1]) / 2.5)
    # Balanced: both classes have the same total.
    weight = joint_weight(y, np.array([1.0, 3.0, 1.0, 1.0]), "balanced", classes)
    np.testing.assert_allclose([weight[:2].sum(), weight[2:].sum()], 2)
    assert joint_weight(y, None, None, classes) is None
    assert joint_weight(y, None, "balanced", classes) is None


def test_a_class_of_great_weight_wins(blobs):
    X, y = blobs
    labels = np.array(["no", "yes"])[y]
    fitted = model(class_weight={"no": 1e4, "yes": 1.0}, max_epochs=30).fit(X, labels)
    assert (fitted.predict(X) == "no").all()


@pytest.mark.parametrize(
    ("class_weight", "message"),
    [
        ("even", "Got class_weight='even', but expected None, \"balanced\", or a dict"),
        ({0: -1.0}, 'expected None, "balanced", or a dict of labels to finite weights'),
        ({0: "1"}, "expected None"),
        ([1.0, 2.0], "expected None"),
        ({7: 1.0}, r"expected labels among the classes \[0, 1\], not \[7\]"),
        ({0: 0.0, 1: 0.0}, "all zero"),
    ],
)
def test_class_weights_that_are_refused(blobs, class_weight, message):
    with pytest.raises(ValueError, match=message):
        model(class_weight=class_weight).fit(*blobs)


def test_balanced_needs_all_data(blobs):
    with pytest.raises(ValueError, match="the frequencies of one call are not those of all"):
        model(class_weight="balanced").partial_fit(*blobs)
    model(class_weight={0: 2.0}).partial_fit(*blobs).partial_fit(*blobs, sample_weight=[2] * 80)


def test_validation_is_weighted(blobs):
    X, y = blobs
    weight = np.where(np.arange(80) % 2, 1.0, 3.0)
    params = {"train_split": ValidSplit(4), "lr": 1e-12, "max_epochs": 1}
    weighted = model(**params).fit(X, y, sample_weight=weight)
    X, y, weight = X[:20], y[:20], weight[:20] / weight.mean()  # the first fold validates
    p = weighted.predict_proba(X)[np.arange(20), y]
    assert weighted.history_[-1]["valid_loss"] == pytest.approx(-(weight * np.log(p)).mean(), 1e-4)


def test_criterion_parameters_reach_the_loss(blobs):
    X, y = blobs
    given = model()
    given.set_params(criterion__weight=np.array([1000.0, 0.001]), criterion__label_smoothing=0.1)
    assert set(given.criterion_params) == {"weight", "label_smoothing"}
    fitted = given.fit(X, y)
    assert fitted.net_.criterion_.label_smoothing == 0.1
    assert fitted.net_.criterion_.weight.tolist() == pytest.approx([1000.0, 0.001])
    assert (fitted.predict(X) == 0).all()


def test_criterion_parameters_in_a_search(blobs):
    search = GridSearchCV(
        model(), {"criterion__label_smoothing": [0.0, 0.5]}, cv=2, error_score="raise"
    ).fit(*blobs)
    best = search.best_estimator_
    assert best.net_.criterion_.label_smoothing == best.criterion_params["label_smoothing"]


class Plain:
    """A criterion without reductions."""

    def __call__(self, logits, labels):
        return torch.nn.functional.cross_entropy(logits, labels)


def test_a_criterion_that_cannot_be_weighted_says_so(blobs):
    model(criterion=Plain).fit(*blobs)
    with pytest.raises(ValueError, match="expected a criterion with an attribute `reduction`"):
        model(criterion=Plain, class_weight={0: 2.0}).fit(*blobs)


def test_weights_are_routed(blobs):
    X, y = blobs
    weight = 1 + np.arange(80.0) % 5
    with config_context(enable_metadata_routing=True):
        routed = make_pipeline(MinMaxScaler(), model(property=None).set_fit_request(
            sample_weight=True).set_score_request(sample_weight=True))  # fmt: skip
        routed.fit(X, y, sample_weight=weight)
        scaled = MinMaxScaler().fit(X).transform(X)
        direct = model(property=None).fit(scaled, y, sample_weight=weight)
        np.testing.assert_allclose(routed.decision_function(X), logits(direct, scaled), rtol=1e-5)
        cross_validate(routed, X, y, params={"sample_weight": weight}, error_score="raise")


@pytest.mark.parametrize("weight", [float("nan"), float("inf")])
def test_one_weight_that_is_not_finite_is_refused(weight):
    X, y = np.linspace(0, 1, 8)[:, None], np.arange(8) % 2
    with pytest.raises(ValueError, match=rf"^Got sample_weight={weight}, but expected finite"):
        RobustClassifier(max_epochs=1).fit(X, y, sample_weight=weight)
