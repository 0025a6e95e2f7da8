"""What meta-estimators share that go on in rounds: when they stop, and what they go on from."""

import pickle

import numpy as np
import pytest
import torch
from sklearn import config_context
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from skorch.callbacks import Callback, LRScheduler
from skorch.dataset import ValidSplit
from torch.optim.lr_scheduler import LambdaLR

from skrobust.estimators import MagnitudePruning
from skrobust.estimators._rounds import (
    RoundsClassifier,
    before_last_step,
    fit_before_last_step,
    last_step,
    scale_lr,
)
from skrobust.exceptions import DivergedTrainingError
from skrobust.networks import as_network
from skrobust.training import StandardTraining
from tests.estimators._models import same, small, tuning, weights


class Counting(RoundsClassifier):
    """Trains on for one epoch a round; says in which round it stops, and how."""

    _rounds_name = "laps"

    def __init__(self, estimator, laps=3, *, stop=None, interrupt=None, warm_start=False):
        self.estimator = estimator
        self.laps = laps
        self.stop = stop
        self.interrupt = interrupt
        self.warm_start = warm_start

    def fit(self, X, y, sample_weight=None):
        return self._fit_in_rounds(X, y, sample_weight)

    def _check(self, X, y, goes_on):
        pass

    def _finish_round(self, X, y, sample_weight):
        lap = len(self._finished) + 1
        if lap == self.interrupt:
            raise KeyboardInterrupt
        if lap == self.stop:
            return False
        self._finished = [*self._finished, lap]
        classifier = last_step(self.estimator_)
        return classifier._continue(before_last_step(self.estimator_, X), y, sample_weight, 1)


def test_rounds_until_all_are_done_or_one_says_stop(blobs):
    assert Counting(small()).fit(*blobs)._finished == [1, 2, 3]
    assert Counting(small(), stop=2).fit(*blobs)._finished == [1]
    assert Counting(small(), interrupt=3).fit(*blobs)._finished == [1, 2]


def test_going_on(blobs):
    model = Counting(small(), 1, warm_start=True).fit(*blobs)
    model.set_params(laps=3).fit(*blobs)
    whole = Counting(small()).fit(*blobs)
    assert same(weights(model.estimator_), weights(whole.estimator_))
    assert len(model.estimator_.history_) == 3 + 3
    with pytest.raises(ValueError, match="Got laps=2, but expected at least 3, the laps that are"):
        model.set_params(laps=2).fit(*blobs)
    with pytest.raises(ValueError, match="Got warm_start=True and another y than in the last"):
        model.set_params(laps=4).fit(blobs[0], blobs[1] + 1)


def test_a_fitted_one_is_copied_and_left_alone(blobs):
    base = small().fit(*blobs)
    before = weights(base)
    model = Counting(FrozenEstimator(base), 1).fit(*blobs)
    assert same(weights(base), before) and not same(weights(model.estimator_), before)
    with pytest.raises(NotFittedError):
        Counting(FrozenEstimator(small())).fit(*blobs)
    with pytest.raises(TypeError, match=r"Got estimator=StandardScaler.*, but expected a Robust"):
        Counting(StandardScaler()).fit(*blobs)


def test_prediction_and_network_are_those_of_the_last_step(blobs):
    X, y = blobs
    model = Counting(make_pipeline(StandardScaler(), small()), 1).fit(X, y, abs(X[:, 0]))
    assert last_step(model.estimator_) is model.estimator_[-1]
    assert last_step(model.estimator_[-1]) is model.estimator_[-1]
    logits = as_network(model)(torch.as_tensor(X, dtype=torch.float32))
    # Scaled in float32 in the one, and in float64 in the other.
    gap = torch.as_tensor(model.decision_function(X))
    torch.testing.assert_close(logits[:, 1] - logits[:, 0], gap.to(logits), atol=1e-4, rtol=1e-4)
    assert (model.predict(X) == model.predict_proba(X).argmax(axis=1)).all()
    with pytest.raises(NotFittedError):
        as_network(Counting(small()))


# ---- learning rates --------------------


def test_learning_rates_are_scaled_also_where_schedules_start_from(blobs):
    model = small().fit(*blobs)
    group = model.net_.optimizer_.param_groups[0]
    group["initial_lr"] = 2.0
    scale_lr(model.net_, 0.1)
    assert group["lr"] == pytest.approx(0.0005) and group["initial_lr"] == pytest.approx(0.2)


@pytest.mark.parametrize("every", ["batch", "epoch"])
def test_the_learning_rate_of_the_rounds_is_constant(blobs, every):
    schedule = LRScheduler(LambdaLR, lr_lambda=_halved, step_every=every)
    callbacks = [("schedule", schedule), ("rates", _Rates())]
    base = small(max_epochs=4, lr=0.05, callbacks=callbacks).fit(*blobs)
    ended = base.net_.optimizer_.param_groups[0]["lr"]
    assert ended < 0.01
    del _SEEN[:]
    model = tuning(FrozenEstimator(base), rounds=2, lr_factor=0.5, warm_start=True).fit(*blobs)
    pickle.loads(pickle.dumps(model)).set_params(rounds=3).fit(*blobs)
    assert len(_SEEN) > 12
    np.testing.assert_allclose(_SEEN, 0.5 * ended, rtol=1e-12)


def _halved(step):
    return 0.5**step


_SEEN = []  # learning rates, by all copies of the callback


class _Rates(Callback):
    def on_batch_end(self, net, training, **kwargs):
        _SEEN.append(net.optimizer_.param_groups[0]["lr"])


@pytest.mark.parametrize("weight", [None, np.linspace(0.5, 1.5, 80)], ids=["equal", "weights"])
def test_no_example_trains_whose_original_validates(blobs, monkeypatch, weight):
    X, y = blobs
    seen = []
    of_regime = StandardTraining.start

    def start(self, fit):
        seen.append(fit)
        return of_regime(self, fit)

    monkeypatch.setattr(StandardTraining, "start", start)
    base = small(max_epochs=20, lr=0.05, train_split=ValidSplit(4, stratified=True))
    model = tuning(base, rounds=2, warm_start=True).fit(X, y, weight)
    first = seen[0].X.numpy()
    trains = (X.astype(np.float32)[:, None] == first).all(axis=2).any(axis=1)
    assert trains.sum() == 60
    for number, fit in enumerate(seen[1:], 1):
        rounds = model._finished[:number]
        added = np.concatenate([each.points[trains[each.origin]] for each in rounds])
        assert 0 < len(added) < model.n_examples_[:number].sum()
        np.testing.assert_array_equal(fit.X, np.concatenate([first, added.astype(np.float32)]))
        labels = np.concatenate([y[each.origin[trains[each.origin]]] for each in rounds])
        np.testing.assert_array_equal(fit.y[60:], labels)
        if weight is not None:
            of = np.concatenate([each.origin[trains[each.origin]] for each in rounds])
            share = fit.sample_weight[60:].numpy() / weight[of]
            np.testing.assert_allclose(share, share[0], rtol=1e-5)


# ---- to go on --------------------


def test_to_go_on_with_other_data_is_refused(blobs):
    X, y = blobs
    weight = np.linspace(0.5, 1.5, 80)
    labels = np.array(["no", "yes"], dtype=object)[y]
    model = tuning(warm_start=True).fit(X, labels, weight)
    before = weights(model.estimator_)
    model.set_params(rounds=2)
    back = slice(None, None, -1)
    for data, names in (
        ((X[back], labels[back], weight[back]), "X and another y and another sample_weight"),
        ((X[back], labels, weight), "X"),
        ((X[:-2], labels[:-2], weight[:-2]), "X and another y and another sample_weight"),
        ((X, labels[back], weight), "y"),
        ((X, labels), "sample_weight"),
        ((X, labels, weight * 2), "sample_weight"),
        ((X, np.array(["yes", "maybe"])[y], weight), "y"),
    ):
        with pytest.raises(ValueError, match=f"Got warm_start=True and another {names} than in"):
            model.fit(*data)
        assert model.n_rounds_ == 1 and same(weights(model.estimator_), before)
    assert model.fit(X.tolist(), labels.tolist(), weight.tolist()).n_rounds_ == 2


def test_examples_are_kept_only_where_further_rounds_need_them(blobs):
    sizes = {}
    for warm_start in (False, True):
        for keep_examples in (False, True):
            model = tuning(rounds=2, warm_start=warm_start, keep_examples=keep_examples)
            model.fit(*blobs)
            has_data = [each.points is not None for each in model._finished]
            assert has_data == [warm_start and keep_examples] * 2
            assert model.n_examples_.min() > 0 and np.isfinite(model.distance_).all()
            sizes[warm_start, keep_examples] = len(pickle.dumps(model))
            model.set_params(rounds=3, warm_start=True)
            if keep_examples and not warm_start:
                with pytest.raises(ValueError, match="Got warm_start=True, but expected False, o"):
                    model.fit(*blobs)
            else:
                assert model.fit(*blobs).n_rounds_ == 3
    assert sizes[True, True] > sizes[False, True] + 2 * 80 * 4 * 4


def pruning(estimator=None, **params):
    estimator = small(max_epochs=20, lr=0.05) if estimator is None else estimator
    return MagnitudePruning(estimator, n_epochs=1, **params)


@pytest.mark.parametrize("make", [tuning, pruning])
def test_a_failed_refit_leaves_what_was_fitted(blobs, make):
    X, y = blobs
    model = make().fit(X, y)
    before = weights(model.estimator_)
    model.set_params(estimator__lr=1e30)
    with pytest.raises(DivergedTrainingError):
        model.fit(X[:, :2], 1 - y)
    assert len(model._finished) == 1 and model.n_features_in_ == 4
    assert same(weights(model.estimator_), before)
    assert model.predict(X).shape == (80,)


@pytest.mark.parametrize("make", [tuning, pruning])
def test_an_interrupt_before_the_first_round(blobs, monkeypatch, make):
    X, y = blobs

    def stop(*args, **kwargs):
        raise KeyboardInterrupt

    model = make(warm_start=True)
    with monkeypatch.context() as patch:
        patch.setattr("skrobust.estimators._skorch.RegimeNet.train_step", stop)
        model.fit(X, y)
    assert model._finished == [] and model.predict(X).shape == (80,)
    assert same(weights(model.fit(X, y).estimator_), weights(make().fit(X, y).estimator_))


def test_a_net_that_its_owner_interrupted_is_a_starting_point(blobs):
    base = small(max_epochs=20, lr=0.05).fit(*blobs)
    base.net_.stopped_midway = True
    for make in (tuning, pruning):
        assert len(make(FrozenEstimator(base)).fit(*blobs)._finished) == 1


# ---- pipelines --------------------


def test_pipelines_are_fitted_in_two_parts(blobs, tmp_path):
    X, y = blobs
    rows = StandardScaler().fit_transform(X)
    for memory in (None, str(tmp_path)):
        model = Pipeline([("scale", StandardScaler()), ("net", small())], memory=memory)
        np.testing.assert_array_equal(fit_before_last_step(model, X, y), rows)
        np.testing.assert_array_equal(before_last_step(model, X), rows)
        assert last_step(model) is model["net"]
    for model in (small(), make_pipeline(small())):
        assert fit_before_last_step(model, X, y) is X
        assert before_last_step(model, X) is X
    assert tuning(make_pipeline(small(max_epochs=20, lr=0.05))).fit(X, y).n_rounds_ == 1


@pytest.mark.parametrize("routing", [False, True])
def test_weights_reach_the_end_of_a_pipeline(blobs, routing):
    X, y = blobs
    weight = np.linspace(0.1, 2, 80)
    pipeline = make_pipeline(StandardScaler(), small(max_epochs=20, lr=0.05))
    with config_context(enable_metadata_routing=routing):
        model = tuning(pipeline, n_epochs=1, lr_factor=1e-30).fit(X, y, weight)
        pruned = pruning(pipeline, amount=0.1, lr_factor=1e-30).fit(X, y, weight)
    by_hand = small(max_epochs=20, lr=0.05).fit(StandardScaler().fit_transform(X), y, weight)
    assert same(weights(model.estimator_[-1]), weights(by_hand))
    for found, full in zip(weights(pruned.estimator_[-1]), weights(by_hand), strict=True):
        assert torch.equal(found, torch.where(found == 0, found, full))
