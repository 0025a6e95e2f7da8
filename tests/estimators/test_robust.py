"""RobustClassifier and TorchClassifier: repeatable, searchable, and clear about bad input."""

import pickle
import re

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.sparse import csr_array
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from skorch.callbacks import Callback, Checkpoint, EarlyStopping
from skorch.dataset import ValidSplit

from skrobust import RobustClassifier, TorchClassifier
from skrobust.attacks import FGSM, PGD
from skrobust.exceptions import DivergedTrainingError
from skrobust.properties import ClassificationRobustness, StandardRobustness
from skrobust.training import (
    AdversarialTraining,
    ConstraintTraining,
    DataAugmentation,
    StandardTraining,
    TrainingRegime,
)

CR = ClassificationRobustness
REGIMES = [
    StandardTraining(),
    DataAugmentation(),
    AdversarialTraining(),
    ConstraintTraining(),
]


def small(**params):
    defaults = {"hidden_layer_sizes": 8, "max_epochs": 3, "random_state": 0, "batch_size": 20}
    return RobustClassifier(**(defaults | params))


def weights(model):
    return [p.detach().clone() for p in model.net_.module_.parameters()]


def same(first, second):
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def convolutional(width=2, n_classes=2):
    return torch.nn.Sequential(
        torch.nn.Conv2d(1, width, 2),
        torch.nn.ReLU(),
        torch.nn.Flatten(),
        torch.nn.Linear(width, n_classes),
    )


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


def test_other_optimisers_and_losses(blobs):
    model = small(
        optimizer=torch.optim.SGD,
        optimizer_params={"momentum": 0.9},
        criterion=torch.nn.MultiMarginLoss,
        max_epochs=40,
        lr=0.1,
    ).fit(*blobs)
    assert isinstance(model.net_.optimizer_, torch.optim.SGD)
    assert model.score(*blobs) > 0.8


# ---- skorch: callbacks, splits, partial fits, files --------------------


class Epochs(Callback):
    """Counts epochs and batches."""

    def __init__(self):
        self.epochs = self.batches = 0

    def on_epoch_end(self, net, **kwargs):
        self.epochs += 1

    def on_batch_end(self, net, batch=None, training=False, **kwargs):
        self.batches += training


def test_callbacks(blobs):
    counter = Epochs()
    model = small(callbacks=[counter]).fit(*blobs)
    assert (counter.epochs, counter.batches) == (3, 12)
    assert len(model.history_) == 3
    assert len(model.history_[0]["batches"]) == 4
    assert model.history_[-1]["train_loss"] > 0


def test_early_stopping_on_a_split(blobs):
    model = small(
        max_epochs=500,
        lr=0.1,
        train_split=ValidSplit(4, stratified=True),
        callbacks=[EarlyStopping(patience=3)],
    ).fit(*blobs)
    assert len(model.history_) < 500
    assert model.history_[-1]["valid_loss"] > 0
    sizes = [batch.get("train_batch_size") for batch in model.history_[0]["batches"]]
    assert sizes == [20, 20, 20, None]  # 60 rows to train with, 20 to validate


def test_verbose_prints_epochs(blobs, capsys):
    small(verbose=1).fit(*blobs)
    assert "train_loss" in capsys.readouterr().out
    small().fit(*blobs)
    assert capsys.readouterr().out == ""


def test_partial_fits_are_a_fit(blobs):
    X, y = blobs
    model = small()
    for _ in range(3):
        assert model.partial_fit(X, y) is model
    assert len(model.history_) == 3
    first = model.score(X, y)
    for _ in range(30):
        model.partial_fit(X, y)
    assert model.score(X, y) >= first
    assert len(model.history_) == 33
    assert len(model.fit(X, y).history_) == 3


def test_partial_fit_classes(blobs):
    X, y = blobs
    model = small().partial_fit(X[y == 0], y[y == 0], classes=[0, 1, 2])
    assert model.classes_.tolist() == [0, 1, 2]
    assert model.partial_fit(X, y).predict_proba(X).shape == (80, 3)
    with pytest.raises(ValueError, match=r"Got classes=\[0, 1\], but expected \[0, 1, 2\]"):
        model.partial_fit(X, y, classes=[0, 1])
    with pytest.raises(ValueError, match=r"Got y with labels \[7\], but expected labels among"):
        model.partial_fit(X, y + 6 * (np.arange(80) == 3))


def test_saved_parameters(blobs, tmp_path):
    X, y = blobs
    model, other = small().fit(X, y), small(random_state=1).fit(X, y)
    file = str(tmp_path / "model.pt")
    model.save_params(f_params=file)
    assert other.load_params(f_params=file) is other
    np.testing.assert_array_equal(other.decision_function(X), model.decision_function(X))


@pytest.mark.parametrize("regime", REGIMES, ids=lambda r: type(r).__name__)
def test_pickles(blobs, regime):
    X, y = blobs
    model = small(property=CR(0.1), training=regime).fit(X, y)
    copied = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(copied.decision_function(X), model.decision_function(X))
    assert copied.property == model.property
    copied.partial_fit(X, y)
    assert len(copied.history_) == 4


def test_clone_is_not_fitted(blobs):
    model = small(property=CR(0.1), training=ConstraintTraining(beta=3.0)).fit(*blobs)
    copied = clone(model)
    assert copied.property == CR(0.1)
    assert copied.training.beta == 3.0
    with pytest.raises(NotFittedError):
        copied.predict(blobs[0])
    for method in ("save_params", "load_params"):
        with pytest.raises(NotFittedError):
            getattr(copied, method)(f_params="file")


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


# ---- bad input --------------------


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
            "Got a module that cannot take rows of",
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


# ---- TorchClassifier --------------------


@pytest.fixture
def given():
    module = torch.nn.Linear(4, 2)
    with torch.no_grad():
        module.weight.copy_(torch.tensor([[1.0, 0, 0, 0], [0, 1.0, 0, 0]]))
        module.bias.zero_()
    return module


def test_torch_classifier_is_fitted(given):
    model = TorchClassifier(given, ["left", "right"])
    X = [[1.0, 0.0, 0.0, 0.0], [0.0, 2.0, 0.0, 0.0]]
    assert model.predict(X).tolist() == ["left", "right"]
    np.testing.assert_allclose(model.decision_function(X), [-1.0, 2.0])
    np.testing.assert_allclose(model.predict_proba(X)[0, 0], 1 / (1 + np.exp(-1)), rtol=1e-6)
    assert model.score(X, ["left", "left"]) == 0.5
    assert model.fit(X, ["left", "left"]).predict(X).tolist() == ["left", "right"]


def test_torch_classifier_clone_predicts_the_same(given):
    model = clone(TorchClassifier(given, 2))
    assert model.module is not given
    assert model.predict([[0.0, 1.0, 0.0, 0.0]]).tolist() == [1]


def test_torch_classifier_takes_images_as_images_or_rows(given):
    module = torch.nn.Sequential(torch.nn.Flatten(), given)
    X = np.random.default_rng(0).random((5, 1, 2, 2))
    as_images = TorchClassifier(module, 2)
    as_rows = TorchClassifier(module, 2, input_shape=(1, 2, 2))
    np.testing.assert_array_equal(as_images._logits(X), as_rows._logits(X.reshape(5, 4)))
    np.testing.assert_array_equal(as_images._logits(X), as_rows._logits(X))


def test_torch_classifier_refuses(given):
    X = np.full((3, 4), 0.5)
    with pytest.raises(ValueError, match=r"3 of 3 rows of X lie outside, by up to 0\.25"):
        TorchClassifier(given, 2, bounds=(0, 0.25)).predict(X)
    with pytest.raises(
        ValueError, match=r"outputs of shape \(3, 2\) for 3 rows, but expected \(3, 3\)"
    ):
        TorchClassifier(given, 3).predict(X)
    with pytest.raises(TypeError, match="Got module='linear', but expected a Module"):
        TorchClassifier("linear", 2).predict(X)
    with pytest.raises(ValueError, match="NaN"):
        TorchClassifier(given, 2).predict(X * np.nan)


def test_weights_that_diverge_in_the_last_step_are_an_error(digits):
    X, _, y, _ = digits
    model = RobustClassifier(max_epochs=1, lr=1e38, batch_size=2000, optimizer=torch.optim.SGD)
    with pytest.raises(DivergedTrainingError, match="by the end of epoch 1, batch 1"):
        model.fit(X, y)


def test_partial_fit_follows_a_changed_regime(blobs):
    X, y = blobs
    model = RobustClassifier(random_state=0, property=ClassificationRobustness(0.05))
    model.partial_fit(X, y)
    regime = AdversarialTraining()
    model.set_params(training=regime).partial_fit(X, y)
    assert model.net_.regime is regime


def test_batch_norm_meets_no_batch_of_one(digits):
    X, _, y, _ = digits
    module = torch.nn.Sequential(
        torch.nn.Linear(64, 8), torch.nn.BatchNorm1d(8), torch.nn.Linear(8, 10)
    )
    model = RobustClassifier(module, batch_size=64, max_epochs=1).fit(X[:129], y[:129])
    assert [batch["train_batch_size"] for batch in model.history_[0]["batches"]] == [64, 65]


def test_a_checkpoint_made_in_training_holds_no_data(digits, tmp_path):
    X, _, y, _ = digits
    file = tmp_path / "net.pkl"
    callback = Checkpoint(
        f_pickle=file,
        f_params=None,
        f_optimizer=None,
        f_criterion=None,
        f_history=None,
        monitor=None,
    )
    RobustClassifier(max_epochs=1, hidden_layer_sizes=2, callbacks=[callback]).fit(X, y)
    assert file.stat().st_size < X.nbytes / 4
    assert pickle.loads(file.read_bytes()).predict_proba(X).shape == (len(X), 10)


def test_regimes_that_are_none_inside_can_be_searched():
    model = RobustClassifier(training=AdversarialTraining())
    model.set_params(training__attack__n_steps=3)
    attack = model.training.attack
    assert attack.get_params() == PGD(3, objective="cross-entropy").get_params()
    model = RobustClassifier(training=ConstraintTraining())
    model.set_params(training__logic__tie_penalty=0.5)
    assert model.training.logic.tie_penalty == 0.5
