"""Pruning: as much as asked for, which weights, and that they stay away."""

import copy
import pickle

import numpy as np
import pytest
import torch
from joblib import Parallel, delayed
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from skorch.callbacks import Checkpoint

from skrobust import RobustClassifier, pointwise_robustness
from skrobust.attacks import LinearBoundary
from skrobust.estimators import AdversarialFineTuning, MagnitudePruning
from skrobust.networks import as_network
from skrobust.properties import ClassificationRobustness as CR
from skrobust.scorers import AdversarialFrequency, ConstraintAccuracy, ConstraintSatisfaction
from skrobust.training import StandardTraining, TrainingRegime
from tests.estimators._models import convolutional, same, small, weights


def pruning(estimator=None, amount=0.5, iterations=1, **params):
    estimator = small(lr=0.05) if estimator is None else estimator
    return MagnitudePruning(estimator, amount, iterations, **({"n_epochs": 2} | params))


def zeros(model):
    """Count the weights that are zero, of a RobustClassifier, in its matrices and kernels."""
    return [int((w == 0).sum()) for w in weights(model) if w.ndim > 1]


# ---- how much, and which --------------------


@pytest.mark.parametrize("amount", [0.01, 1 / 3, 0.5, 0.77, 0.95])
@pytest.mark.parametrize("iterations", [1, 2, 5])
@pytest.mark.parametrize("scope", ["global", "layer"])
def test_sparsity_is_as_asked_to_one_weight(blobs, amount, iterations, scope):
    # 4 * 8 + 8 * 2 weights.
    model = pruning(small(max_epochs=1), amount, iterations, scope=scope, n_epochs=1).fit(*blobs)
    if scope == "global":
        assert sum(zeros(model.estimator_)) == round(amount * 48)
        path = [round((1 - (1 - amount) ** (k / iterations)) * 48) for k in range(1, iterations)]
        assert model.n_removed_.tolist() == [*path, round(amount * 48)]
    else:
        assert zeros(model.estimator_) == [round(amount * 32), round(amount * 16)]
    assert model.sparsity_ == sum(zeros(model.estimator_)) / 48
    assert model.n_iterations_ == iterations
    for name, mask in model.masks_.items():
        parameter = dict(model.estimator_.net_.module_.named_parameters())[name]
        np.testing.assert_array_equal(parameter.detach().numpy() == 0, ~mask)


def test_the_smallest_of_the_trained_weights_go(blobs):
    base = small(lr=0.05).fit(*blobs)
    model = pruning(FrozenEstimator(base)).fit(*blobs)
    size = torch.cat([w.abs().flatten() for w in weights(base) if w.ndim > 1])
    kept = torch.cat([w.flatten() != 0 for w in weights(model.estimator_) if w.ndim > 1])
    assert size[kept].min() > size[~kept].max()
    assert sum(zeros(base)) == 0  # what was given stays as it was
    # One whose weights are gone already goes on from there.
    further = pruning(FrozenEstimator(model.estimator_), 0.75).fit(*blobs)
    assert further.sparsity_ == 0.75
    assert all((further.masks_[name] <= model.masks_[name]).all() for name in model.masks_)
    with pytest.raises(ValueError, match=r"Got amount=0.25, but expected at least 0.5, the share"):
        pruning(FrozenEstimator(model.estimator_), 0.25).fit(*blobs)


def test_an_iteration_trains_within_the_mask_at_the_rate_asked_for(blobs, monkeypatch):
    seen = []
    step = RobustClassifier._continue

    def watched(self, X, y, sample_weight, n_epochs):
        before = weights(self)
        done = step(self, X, y, sample_weight, n_epochs)
        seen.append((n_epochs, self.net_.optimizer_.param_groups[0]["lr"], sample_weight))
        assert all(
            ((b == 0) <= (a == 0)).all() for a, b in zip(weights(self), before, strict=True)
        )
        assert any((a != b).any() for a, b in zip(weights(self), before, strict=True))
        return done

    monkeypatch.setattr(RobustClassifier, "_continue", watched)
    weight = np.linspace(0.5, 1.5, 80)
    pruning(iterations=2, lr_factor=0.1).fit(*blobs, sample_weight=weight)
    assert [(n, pytest.approx(lr)) for n, lr, _ in seen] == [(2, 0.005), (2, 0.005)]
    assert all((used == weight).all() for *_, used in seen)
    seen.clear()
    pruning(n_epochs=None).fit(*blobs)
    assert seen[0][:2] == (3, 0.05)


def test_training_mends_what_pruning_breaks(digits):
    X, X_test, y, y_test = digits
    base = RobustClassifier(hidden_layer_sizes=50, max_epochs=15, random_state=0).fit(X, y)
    model = pruning(FrozenEstimator(base), 0.9, n_epochs=10).fit(X, y)
    assert model.accuracy_before_[0] < 0.9 < model.accuracy_[0]
    assert model.accuracy_[0] == model.score(X, y)
    assert model.score(X_test, y_test) > base.score(X_test, y_test) - 0.05
    assert model.seconds_[0] > 0


# ---- rewinding --------------------


def test_rewinding_starts_from_the_first_weights(blobs):
    # A rate of almost nothing: after training, weights are where training began.
    base = small(lr=0.05, hidden_layer_sizes=16)
    model = pruning(base, 0.5, 2, rewind=True, lr_factor=1e-12).fit(*blobs)
    untrained = clone(base)
    untrained._initialized(*blobs, None)
    for found, first in zip(weights(model.estimator_), weights(untrained), strict=True):
        torch.testing.assert_close(found, torch.where(found == 0, found, first))
    assert model.sparsity_ == 0.5
    # The magnitudes that decide are the trained ones.
    trained = pruning(base, 1 - 0.5**0.5).fit(*blobs)
    first = pruning(base, 0.5, 2, rewind=True)
    first._finish_round, finish = None, first._finish_round
    first._finish_round = lambda *data: not first._finished and finish(*data)
    first.fit(*blobs)
    assert {n: m.tolist() for n, m in first.masks_.items()} == {
        n: m.tolist() for n, m in trained.masks_.items()
    }


@pytest.mark.parametrize("weighted", [False, True])
def test_the_first_training_is_that_of_the_estimator_itself(blobs, weighted):
    X, y = blobs
    weight = np.linspace(0.5, 1.5, 80) if weighted else None
    inside = make_pipeline(StandardScaler(), small())
    rewound = pruning(inside, rewind=True)
    fitted = rewound._fitted(X, y, weight)
    alone = pruning(inside)._fitted(X, y, weight)
    assert same(weights(fitted[-1]), weights(alone[-1]))
    np.testing.assert_array_equal(fitted.predict_proba(X), alone.predict_proba(X))


# ---- it stays --------------------


class Restless(TrainingRegime):
    """Puts large weights everywhere in the end, as averages of earlier weights would."""

    def start(self, fit):
        return fit.module

    def loss(self, state, step):
        return step.task_loss(step.logits), step.logits

    def finish(self, state):
        with torch.no_grad():
            for parameter in state.parameters():
                parameter.add_(1.0)


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"optimizer": torch.optim.SGD, "optimizer_params": {"momentum": 0.9}},
        {"optimizer_params": {"weight_decay": 0.1, "amsgrad": True}},
        {"training": Restless()},
        {"module": convolutional(4), "input_shape": (1, 2, 2)},
    ],
    ids=["adam", "momentum", "decay", "regime", "convolution"],
)
def test_pruned_weights_stay_away(blobs, params):
    X, y = blobs
    model = pruning(small(**({"lr": 0.05} | params)), 0.6, 2).fit(X, y)
    asked = round(0.6 * sum(m.size for m in model.masks_.values()))
    inner = pickle.loads(pickle.dumps(model)).estimator_
    for _ in range(2):
        before = weights(inner)
        inner.partial_fit(X, y)
        assert sum(zeros(inner)) == asked
        assert not same(weights(inner), before)
        inner = copy.deepcopy(inner)
    # In the hands of others, too.
    tuned = AdversarialFineTuning(FrozenEstimator(inner), LinearBoundary(), margin=0.0, n_epochs=1)
    assert sum(zeros(tuned.fit(X, y).estimator_)) == asked
    # A fit is one from the start.
    assert sum(zeros(inner.fit(X, y))) == 0


def test_callbacks_that_bring_old_weights_back(blobs, tmp_path):
    keeper = Checkpoint(monitor="train_loss_best", load_best=True, dirname=tmp_path)
    model = pruning(small(callbacks=[keeper]), 0.5, 2).fit(*blobs)
    assert sum(zeros(model.estimator_)) == 24


def test_gradients_of_pruned_weights_are_zero_for_callbacks(blobs):
    norms = []

    class Watch(Checkpoint):
        def __init__(self):
            pass

        def initialize(self):
            return self

        def on_train_begin(self, net, **kwargs):
            pass

        on_train_end = on_epoch_end = on_train_begin

        def on_grad_computed(self, net, **kwargs):
            for name, parameter in net.module_.named_parameters():
                if net.masks is not None and name in net.masks:
                    norms.append(float(parameter.grad[~net.masks[name]].norm()))

    pruning(small(callbacks=[Watch()])).fit(*blobs)
    assert len(norms) == 2 * 4 * 2 and set(norms) == {0.0}


# ---- iterations go on --------------------


@pytest.mark.parametrize("rewind", [False, True])
def test_iterations_one_by_one_are_those_at_once(blobs, monkeypatch, rewind):
    whole = pruning(amount=0.7, iterations=3, rewind=rewind).fit(*blobs)
    parts = pruning(amount=0.7, iterations=3, rewind=rewind, warm_start=True)
    finish = MagnitudePruning._finish_round
    calls = []

    def one_a_call(self, *data):
        calls.append(len(self._finished))
        if calls.count(len(self._finished)) == 1 and len(self._finished):
            raise KeyboardInterrupt
        return finish(self, *data)

    monkeypatch.setattr(MagnitudePruning, "_finish_round", one_a_call)
    for iteration in (1, 2, 3):
        parts.fit(*blobs)
        assert parts.n_iterations_ == iteration == len(parts.accuracy_)
        parts = pickle.loads(pickle.dumps(parts))
    assert same(weights(whole.estimator_), weights(parts.estimator_))
    np.testing.assert_array_equal(whole.n_removed_, parts.n_removed_)
    monkeypatch.undo()
    before = weights(parts.estimator_)
    assert same(weights(parts.fit(*blobs).estimator_), before)
    with pytest.raises(ValueError, match="Got iterations=2, but expected at least 3, the iterati"):
        parts.set_params(iterations=2).fit(*blobs)
    with pytest.raises(ValueError, match="Got iterations=3, but expected more than those that"):
        parts.set_params(iterations=3, amount=0.9).fit(*blobs)
    assert parts.set_params(iterations=4).fit(*blobs).sparsity_ == 43 / 48


def test_what_cannot_go_on_is_refused_and_changes_nothing(blobs):
    X, y = blobs
    model = pruning(amount=0.5, warm_start=True).fit(X, y)
    before = weights(model.estimator_)
    with pytest.raises(ValueError, match="Got warm_start=True and another X than in the last"):
        model.set_params(iterations=2).fit(X[::-1], y)
    with pytest.raises(ValueError, match=r"Got amount=0.25, but expected at least 0.5, the share"):
        model.set_params(amount=0.25).fit(X, y)
    with pytest.raises(ValueError, match=r"Got amount=0.999, but expected a share that leaves"):
        model.set_params(amount=0.999, warm_start=False).fit(X[:, :2], y)
    assert model.n_iterations_ == 1 and model.n_features_in_ == 4
    assert same(weights(model.estimator_), before)


def test_an_interrupt_in_training_changes_nothing(blobs, monkeypatch):
    one = pruning(amount=0.3, warm_start=True).fit(*blobs)
    before = weights(one.estimator_)

    def stop(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("skrobust.estimators._skorch.RegimeNet.train_step", stop)
    one.set_params(iterations=2, amount=0.6).fit(*blobs)
    assert one.n_iterations_ == 1 and one.sparsity_ == round(0.3 * 48) / 48
    assert same(weights(one.estimator_), before)
    first = pruning(small()).fit(*blobs)
    assert first.n_iterations_ == 0 == first.sparsity_
    assert first.n_removed_.tolist() == [] and all(m.all() for m in first.masks_.values())


# ---- scikit-learn's habits --------------------


def test_parameters_are_nested_and_cloned():
    model = pruning().set_params(estimator__max_epochs=7, iterations=4)
    copied = clone(model)
    assert copied.estimator.max_epochs == 7 and copied.iterations == 4
    assert copied.estimator is not model.estimator


def test_scorers_read_the_pruned_classifier(blobs):
    X, y = blobs
    labels = np.array(["no", "yes"])[y]
    model = pruning().fit(X, labels)
    inner = model.estimator_
    assert model.classes_.tolist() == ["no", "yes"] and model.n_features_in_ == 4
    np.testing.assert_array_equal(model.predict(X), inner.predict(X))
    np.testing.assert_array_equal(model.predict_proba(X), inner.predict_proba(X))
    for scorer in (
        ConstraintAccuracy(CR(0.05), random_state=0),
        ConstraintSatisfaction(CR(0.05)),
        AdversarialFrequency(0.1),
    ):
        assert scorer(model, X, labels) == scorer(inner, X, labels)
    assert np.isfinite(pointwise_robustness(model, X[:5], method="lp").radius).all()


def test_around_and_inside_of_a_pipeline(blobs):
    X, y = blobs
    outside = make_pipeline(FunctionTransformer(), pruning()).fit(X, y)
    assert as_network(outside)(torch.as_tensor(X, dtype=torch.float32)).shape == (80, 2)
    for rewind in (False, True):
        scaled = make_pipeline(StandardScaler(), small(lr=0.05), memory=None)
        model = pruning(scaled, rewind=rewind).fit(X, y, np.linspace(0.5, 1.5, 80))
        assert sum(zeros(model.estimator_[-1])) == 24
        assert model.predict(X).shape == (80,)


def test_a_pipeline_with_a_memory(blobs, tmp_path):
    X, y = blobs
    scaled = make_pipeline(StandardScaler(), small(), memory=str(tmp_path))
    plain = make_pipeline(StandardScaler(), small())
    found = [pruning(each, rewind=True).fit(X, y).predict_proba(X) for each in (scaled, plain)]
    np.testing.assert_array_equal(*found)


def test_in_a_search(blobs):
    grid = {"amount": [0.3, 0.6], "iterations": [1, 2], "estimator__lr": [0.05]}
    search = GridSearchCV(pruning(n_epochs=1), grid, cv=2, error_score="raise").fit(*blobs)
    assert len(search.cv_results_["params"]) == 4
    assert as_network(search).classes.tolist() == [0, 1]


def test_fits_in_threads_are_the_serial_fit(blobs):
    def outputs():
        return pruning(iterations=2, n_epochs=1).fit(*blobs).predict_proba(blobs[0])

    serial = outputs()
    for threaded in Parallel(3, backend="threading")(delayed(outputs)() for _ in range(3)):
        np.testing.assert_array_equal(threaded, serial)


def test_not_fitted():
    for name in ("n_iterations_", "sparsity_", "masks_", "n_removed_", "seconds_"):
        with pytest.raises(NotFittedError):
            getattr(pruning(), name)


# ---- bad input --------------------


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"amount": 0}, r"Got amount=0, but expected a finite number in \(0, 1\)"),
        ({"amount": 1.0}, r"Got amount=1.0, but expected a finite number in \(0, 1\)"),
        ({"amount": 24}, r"Got amount=24, but expected a finite number in \(0, 1\)"),
        ({"amount": "half"}, "Got amount='half', but expected a finite number"),
        ({"iterations": 0}, "Got iterations=0, but expected an integer of at least 1"),
        ({"scope": "module"}, "Got scope='module', but expected one of 'global', 'layer'"),
        ({"n_epochs": 0}, "Got n_epochs=0, but expected an integer of at least 1"),
        ({"lr_factor": 0}, r"Got lr_factor=0, but expected a finite number in \(0, inf\)"),
        ({"rewind": 1}, "Got rewind=1, but expected True or False"),
        ({"warm_start": "no"}, "Got warm_start='no', but expected True or False"),
    ],
)
def test_bad_parameters_are_refused_before_training(blobs, monkeypatch, params, message):
    monkeypatch.setattr(RobustClassifier, "_train", None)
    with pytest.raises(ValueError, match=message):
        pruning().set_params(**params).fit(*blobs)


def test_what_cannot_be_pruned_or_rewound(blobs):
    with pytest.raises(TypeError, match=r"Got estimator=.*, but expected a RobustClassifier"):
        pruning(LogisticRegression()).fit(*blobs)
    with pytest.raises(
        ValueError, match=r"Got amount=0.999, but expected a share that leaves one"
    ):
        pruning(amount=0.999).fit(*blobs)
    base = FrozenEstimator(small(training=StandardTraining()).fit(*blobs))
    with pytest.raises(ValueError, match="Got rewind=True, but expected False for a FrozenEsti"):
        pruning(base, rewind=True).fit(*blobs)
    going_on = pruning(warm_start=True).fit(*blobs).set_params(rewind=True, iterations=2)
    with pytest.raises(ValueError, match="Got rewind=True, but expected False where warm_start"):
        going_on.fit(*blobs)
