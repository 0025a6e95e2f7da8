"""Bad parameters and bad data are refused by name, before training."""

import re

import numpy as np
import pytest
import torch
from scipy.sparse import csr_array
from sklearn.model_selection import GridSearchCV

from skrobust import RobustClassifier
from skrobust.attacks import FGSM
from skrobust.training import (
    AdversarialTraining,
    TrainingRegime,
)
from tests.estimators._models import CR, small


class NoTraining(TrainingRegime):
    """Fails at the first step: nothing may be trained before the input is checked."""

    def loss(self, state, step):
        raise AssertionError("training began")


def bad(X, y, message, error=ValueError, **params):
    return pytest.param(X, y, params, error, message, id=re.sub(r"\W+", "-", message)[:40])


GOOD = np.random.default_rng(0).random((20, 3))
LABELS = np.arange(20) % 2


def changed(value):
    X = GOOD.copy()
    X[2:5, 0] = value
    return X


@pytest.mark.parametrize(
    ("X", "y", "params", "error", "message"),
    [
        bad(GOOD, LABELS, "Got epsilon=-0.1, but expected a non-negative", property=CR(-0.1)),
        bad(GOOD, LABELS, "Got epsilon=nan, but expected", property=CR(np.nan)),
        bad(GOOD, LABELS, r"shape \(2,\).*of shape \(3,\)", property=CR([0.1, 0.1])),
        bad(
            GOOD,
            LABELS,
            r"Got bounds=\(1, 0\), but expected low <= high",
            property=CR(bounds=(1, 0)),
        ),
        bad(changed(1.5), LABELS, "3 of 20 rows of X lie outside, by up to 0.5", property=CR()),
        bad(changed(np.nan), LABELS, "Input X contains NaN"),
        bad(changed(np.inf), LABELS, "Input X contains infinity"),
        bad(csr_array(GOOD), LABELS, "Sparse data was passed", TypeError),
        bad(GOOD, np.zeros(20), r"the one class \[0.0\], but expected at least two classes"),
        bad(GOOD[:0], LABELS[:0], r"Found array with 0 sample\(s\)"),
        bad(GOOD, LABELS[:19], "inconsistent numbers of samples"),
        bad(GOOD, GOOD[:, 0], "Unknown label type"),
        bad(
            GOOD,
            LABELS,
            r"outputs of shape \(2, 5\) for 2 rows, but expected \(2, 2\): one logit",
            module=torch.nn.Linear(3, 5),
        ),
        bad(
            GOOD,
            LABELS,
            "Got input_shape=.*expected a shape of 3 entries",
            module=torch.nn.Linear(3, 2),
            input_shape=(2, 2),
        ),
        bad(GOOD, LABELS, "Got device='tpu', but expected", device="tpu"),
        bad(GOOD, LABELS, "Got max_epochs=0, but expected an integer of at least 1", max_epochs=0),
        bad(GOOD, LABELS, "Got batch_size=2.5, but expected an integer", batch_size=2.5),
        bad(GOOD, LABELS, "Got lr=0, but expected a finite number", lr=0),
        bad(GOOD, LABELS, "Got hidden_layer_sizes=.*positive integer", hidden_layer_sizes=(5, 0)),
        bad(GOOD, LABELS, r"Got clamp=\(1, -1\), but expected None, or a pair", clamp=(1, -1)),
        bad(GOOD, LABELS, r"Got clamp=100, but expected None, or a pair", clamp=100),
        bad(
            GOOD, LABELS, "Got optimizer='adam', but expected a class", TypeError, optimizer="adam"
        ),
        bad(GOOD, LABELS, r"Got input_shape=\(1, 4\), but expected None", input_shape=(1, 4)),
        bad(
            GOOD,
            LABELS,
            "Got a module that fails on rows of shape .* with input_shape=None, but expected",
            TypeError,
            module=torch.nn.Linear(99, 2),
        ),
        bad(GOOD, LABELS, "Got property=0.1, but expected a Rob", TypeError, property=0.1),
    ],
)
def test_bad_input(X, y, params, error, message):
    with pytest.raises(error, match=message):
        RobustClassifier(**({"training": NoTraining()} | params)).fit(X, y)


def test_training_that_is_no_regime():
    with pytest.raises(TypeError, match="Got training='pgd', but expected a TrainingRegime"):
        RobustClassifier(training="pgd").fit(GOOD, LABELS)


def test_cuda_where_there_is_none(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(
        ValueError, match="Got device='cuda', but expected 'cpu', since torch finds"
    ):
        RobustClassifier(device="cuda", training=NoTraining()).fit(GOOD, LABELS)


def test_bounds_of_the_data_hold_for_the_data():
    # X becomes float32 in fit; by that rounding, nothing leaves its own bounds.
    property = CR(0.1, bounds=(GOOD.min(axis=0), GOOD.max(axis=0)))
    small(property=property, training=AdversarialTraining(FGSM())).fit(GOOD, LABELS)


def test_another_number_of_features(blobs):
    model = small().fit(*blobs)
    for method in (model.predict, model.predict_proba, model.decision_function):
        with pytest.raises(
            ValueError, match="X has 3 features, but RobustClassifier is expecting 4"
        ):
            method(blobs[0][:, :3])
    with pytest.raises(ValueError, match="X has 3 features"):
        model.partial_fit(blobs[0][:, :3], blobs[1])


@pytest.mark.parametrize(
    ("params", "error", "message"),
    [
        ({"criterion_params": {"wat": 1}}, ValueError, "criterion_params={'wat': 1}"),
        ({"criterion_params": {"weight": [1, 2, 3]}}, ValueError, "criterion_params=.*all 2"),
        ({"criterion_params": {"reduction": "none"}}, ValueError, "returns a scalar tensor"),
        ({"criterion_params": 3}, TypeError, "Got criterion_params=3, but expected None or a d"),
        (
            {"optimizer_params": {"wat": 1}},
            ValueError,
            "with optimizer_params={'wat': 1}, but exp",
        ),
        ({"optimizer": len}, ValueError, "Got optimizer=<built-in function len> with .* It says"),
        ({"optimizer": lambda parameters, lr: 3}, TypeError, "what returns a torch.optim.Optim"),
        ({"callbacks": 3}, TypeError, "Got callbacks=3, but expected None or a list"),
        ({"callbacks": [0.1]}, TypeError, r"Got callbacks=\[0\.1\], but expected None or a list"),
        ({"callbacks": ("a", "b")}, TypeError, "Got callbacks=.*but expected None or a list"),
        ({"callbacks": np.zeros(2)}, TypeError, "Got callbacks=ndarray of shape"),
        ({"module": torch.nn.Linear(3, 2), "input_shape": "a"}, ValueError, "Got input_shape='a'"),
        ({"module": torch.nn.Linear(3, 2), "input_shape": 3.0}, ValueError, "Got input_shape=3.0"),
    ],
)
def test_parameters_that_are_handed_on(params, error, message):
    with pytest.raises(error, match=message):
        RobustClassifier(training=NoTraining(), **params).fit(GOOD, LABELS)


def test_numbers_of_numpy_in_a_search():
    grid = {
        "batch_size": np.array([8, 16]),
        "max_epochs": np.array([1, 2], dtype=np.int8),
        "lr": np.array([0.01, 0.1], dtype=np.float32),
        "optimizer__weight_decay": np.array([0.0, 0.1]),
        "training__clean_weight": np.array([0.0, 0.5], dtype=np.float32),
        "property__epsilon": np.array([0.01], dtype=np.float32),
    }
    model = small(property=CR(0.1), training=AdversarialTraining(FGSM()))
    search = GridSearchCV(model, grid, cv=2, error_score="raise").fit(GOOD, LABELS)
    assert len(search.cv_results_["params"]) == 32


def odd(X):
    return {
        "reversed": X[::-1][::-1],
        "big-endian": X.astype(">f8"),
        "long double": X.astype(np.longdouble),
        "with a gradient": torch.tensor(X, requires_grad=True),
        "read-only": np.broadcast_to(X.astype(np.float32), (1, *X.shape))[0],
        "by columns": np.asfortranarray(X),
        "lists": X.tolist(),
    }


@pytest.mark.parametrize("kind", odd(GOOD))
def test_odd_arrays_are_accepted(kind):
    X = odd(GOOD)[kind]
    model, plain = small().fit(X, torch.tensor(LABELS)), small().fit(GOOD, LABELS)
    np.testing.assert_array_equal(model.predict_proba(X), plain.predict_proba(GOOD))
    model.partial_fit(X, LABELS[::-1][::-1])
