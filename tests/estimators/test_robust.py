"""RobustClassifier: repeatable, searchable, and open to modules of one's own."""

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skrobust import RobustClassifier
from skrobust.attacks import FGSM, PGD
from skrobust.properties import StandardRobustness
from skrobust.training import (
    AdversarialTraining,
    ConstraintTraining,
    StandardTraining,
)
from tests.estimators._models import CR, REGIMES, convolutional, same, small, weights

# ---- repeatable --------------------


@pytest.mark.parametrize("regime", REGIMES, ids=lambda r: type(r).__name__)
def test_fits_repeat(blobs, regime):
    models = [
        small(property=CR(0.1), training=regime, random_state=seed).fit(*blobs)
        for seed in (0, 0, 1)
    ]
    assert same(weights(models[0]), weights(models[1]))
    assert not same(weights(models[0]), weights(models[2]))


def test_a_second_fit_starts_anew(blobs):
    model = small().fit(*blobs)
    first = weights(model)
    assert same(weights(model.fit(*blobs)), first)


@pytest.mark.parametrize("regime", REGIMES, ids=lambda r: type(r).__name__)
def test_the_state_of_torch_and_numpy_is_left_alone(blobs, regime):
    model = small(property=CR(0.1), training=regime)
    before = torch.random.get_rng_state(), np.random.get_state()[1].copy()
    model.fit(*blobs).partial_fit(*blobs).predict(blobs[0])
    assert torch.equal(torch.random.get_rng_state(), before[0])
    np.testing.assert_array_equal(np.random.get_state()[1], before[1])


def test_without_random_state_fits_differ(blobs):
    first, second = (small(random_state=None).fit(*blobs) for _ in range(2))
    assert not same(weights(first), weights(second))


def test_fit_changes_no_parameter(blobs):
    property, regime = CR(0.1), ConstraintTraining(attack=FGSM())
    model = small(property=property, training=regime)
    before = repr(model)
    model.fit(*blobs)
    assert repr(model) == before
    assert model.property is property
    assert model.training is regime
    assert property == CR(0.1)


# ---- it learns --------------------


def test_digits(digits, digits_model):
    _, X, _, y = digits
    assert digits_model.score(X, y) > 0.85
    proba = digits_model.predict_proba(X)
    assert proba.shape == (300, 10)
    np.testing.assert_allclose(proba.sum(axis=1), 1, rtol=1e-5)
    logits = digits_model.decision_function(X)
    np.testing.assert_array_equal(logits.argmax(axis=1), digits_model.predict(X))
    np.testing.assert_array_equal(proba.argmax(axis=1), digits_model.predict(X))


def test_two_classes_have_one_decision_value(blobs):
    X, y = blobs
    model = small(max_epochs=30).fit(X, y)
    assert model.score(X, y) > 0.8
    value = model.decision_function(X)
    assert value.shape == (80,)
    np.testing.assert_array_equal(value > 0, model.predict(X) == 1)
    p = model.predict_proba(X)
    np.testing.assert_allclose(np.log(p[:, 1] / p[:, 0]), value, rtol=1e-3, atol=1e-4)


def test_string_labels_and_column_names(blobs):
    X, y = blobs
    frame = pd.DataFrame(X, columns=["a", "b", "c", "d"])
    labels = np.array(["yes", "no"])[y]
    model = small().fit(frame, labels)
    assert model.classes_.tolist() == ["no", "yes"]
    assert model.feature_names_in_.tolist() == ["a", "b", "c", "d"]
    assert model.n_features_in_ == 4
    assert set(model.predict(frame)) <= {"no", "yes"}
    same_model = small().fit(X, labels == "yes")
    np.testing.assert_array_equal(model.predict(frame) == "yes", same_model.predict(X))
    with pytest.raises(ValueError, match="feature names"):
        model.predict(frame[["b", "a", "c", "d"]])
    with pytest.warns(UserWarning, match="does not have valid feature names"):
        model.predict(X)


@pytest.mark.parametrize(
    ("sizes", "shapes"),
    [
        ((), [(2, 4)]),
        (5, [(5, 4), (2, 5)]),
        ((5, 3), [(5, 4), (3, 5), (2, 3)]),
        (np.array([6]), [(6, 4), (2, 6)]),
    ],
)
def test_hidden_layers(blobs, sizes, shapes):
    model = small(hidden_layer_sizes=sizes).fit(*blobs)
    assert [tuple(w.shape) for w in weights(model) if w.ndim == 2] == shapes


def test_clamp_cuts_the_logits(blobs):
    X, y = blobs
    free = small(max_epochs=30, lr=0.1).fit(X, y)
    assert np.abs(free._logits(X)).max() > 2
    cut = small(max_epochs=30, lr=0.1, clamp=(-2, 0.5)).fit(X, y)
    logits = cut._logits(100 * X)
    assert (logits.min(), logits.max()) == (-2, 0.5)


# ---- modules of your own --------------------


def test_a_module_is_copied(blobs):
    module = torch.nn.Linear(4, 2)
    before = [p.detach().clone() for p in module.parameters()]
    model = small(module=module).fit(*blobs)
    assert model.module is module
    assert same([p.detach() for p in module.parameters()], before)
    assert not same(weights(model), before)
    # Its weights are where training starts.
    still = small(module=module, lr=1e-12, max_epochs=1).fit(*blobs)
    for trained, start in zip(weights(still), before, strict=True):
        torch.testing.assert_close(trained, start, rtol=0, atol=1e-6)


def test_a_callable_with_parameters(blobs):
    X, y = blobs
    model = small(module=convolutional, input_shape=(1, 2, 2))
    model.set_params(module__width=5, optimizer__weight_decay=0.1, module__n_classes=2)
    assert model.module_params == {"width": 5, "n_classes": 2}
    assert model.optimizer_params == {"weight_decay": 0.1}
    model.fit(X, y)
    assert weights(model)[0].shape == (5, 1, 2, 2)
    assert model.net_.optimizer_.param_groups[0]["weight_decay"] == 0.1
    # Again, beside what is set already; clones keep them.
    model.set_params(module__width=3)
    assert clone(model).module_params == {"width": 3, "n_classes": 2}


def test_module_parameters_in_a_search(blobs):
    search = GridSearchCV(
        small(module=convolutional, input_shape=(1, 2, 2)),
        {"module__width": [1, 4], "optimizer__weight_decay": [0.0, 0.1]},
        cv=2,
        error_score="raise",
    ).fit(*blobs)
    best = search.best_estimator_
    assert best.module_params == {"width": search.best_params_["module__width"]}
    assert weights(best)[0].shape[0] == search.best_params_["module__width"]


@pytest.mark.parametrize("regime", REGIMES, ids=lambda r: type(r).__name__)
def test_images_stay_rows(digits, regime):
    X, X_test, y, y_test = digits
    module = torch.nn.Sequential(
        torch.nn.Conv2d(1, 4, 3, stride=2),
        torch.nn.ReLU(),
        torch.nn.Flatten(),
        torch.nn.Linear(36, 10),
    )
    model = RobustClassifier(
        module,
        input_shape=(1, 8, 8),
        property=CR(0.05),
        training=regime,
        max_epochs=6,
        lr=0.01,
        random_state=0,
    )
    assert model.fit(X, y).score(X_test, y_test) > 0.6
    assert model.n_features_in_ == 64


def test_other_optimizers_and_losses(blobs):
    model = small(
        optimizer=torch.optim.SGD,
        optimizer_params={"momentum": 0.9},
        criterion=torch.nn.MultiMarginLoss,
        max_epochs=40,
        lr=0.1,
    ).fit(*blobs)
    assert isinstance(model.net_.optimizer_, torch.optim.SGD)
    assert model.score(*blobs) > 0.8


# ---- searches --------------------


def test_property_and_regime_in_a_search(blobs):
    search = GridSearchCV(
        small(property=CR(0.1) & StandardRobustness(0.1)),
        {
            "training": [StandardTraining(), AdversarialTraining(FGSM("cross-entropy"))],
            "property__epsilon": [0.0, 0.05],
        },
        cv=2,
        error_score="raise",
    ).fit(*blobs)
    assert len(search.cv_results_["params"]) == 4
    best = search.best_estimator_
    assert best.property.left.epsilon == best.property.right.epsilon
    assert best.property.epsilon == search.best_params_["property__epsilon"]


def test_parameters_inside_the_regime_in_a_search(blobs):
    search = GridSearchCV(
        small(property=CR(0.05), training=ConstraintTraining(attack=FGSM())),
        {"training__beta": [0.1, 1.0], "training__attack__objective": ["margin", "cross-entropy"]},
        cv=2,
        error_score="raise",
    ).fit(*blobs)
    assert search.best_estimator_.training.beta in (0.1, 1.0)


def test_in_a_pipeline_the_property_lives_after_the_steps(blobs):
    X, y = blobs
    inside = small(property=CR(0.1), training=AdversarialTraining())
    with pytest.raises(ValueError, match="rows of X lie outside"):
        make_pipeline(StandardScaler(), inside).fit(X, y)
    pipeline = make_pipeline(StandardScaler(), inside.set_params(property__bounds=None))
    assert cross_val_score(pipeline, X, y, cv=2, error_score="raise").mean() > 0.4


def test_regimes_that_are_none_inside_can_be_searched():
    model = RobustClassifier(training=AdversarialTraining())
    model.set_params(training__attack__n_steps=3)
    attack = model.training.attack
    assert attack.get_params() == PGD(3, objective="cross-entropy").get_params()
    model = RobustClassifier(training=ConstraintTraining())
    model.set_params(training__logic__tie_penalty=0.5)
    assert model.training.logic.tie_penalty == 0.5


@pytest.mark.parametrize("classes", [[None, "a"], [[0], [0, 1]]])
def test_classes_of_partial_fit_that_are_none_are_refused(classes):
    X, y = np.full((4, 2), 0.5), [0, 1, 0, 1]
    with pytest.raises(ValueError, match=r"Got classes=.*, but expected labels of one kind"):
        RobustClassifier(max_epochs=1).partial_fit(X, y, classes=classes)
