"""What meta-estimators share that go on in rounds: when they stop, and what they refuse."""

import pytest
import torch
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skrobust.estimators._rounds import RoundsClassifier, last_step, scale_lr, train_on
from skrobust.networks import as_network
from tests.estimators._models import same, small, weights


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

    def _check(self, X, y):
        self._check_estimator()

    def _finish_round(self, X, y, sample_weight):
        lap = len(self._finished) + 1
        if lap == self.interrupt:
            raise KeyboardInterrupt
        if lap == self.stop:
            return False
        self._finished.append(lap)
        return train_on(self.estimator_, X, y, sample_weight, 1)


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
    with pytest.raises(ValueError, match=r"Got y with labels .2., but expected labels among"):
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


def test_learning_rates_are_scaled_also_where_schedules_start_from(blobs):
    model = small().fit(*blobs)
    group = model.net_.optimizer_.param_groups[0]
    group["initial_lr"] = 2.0
    scale_lr(model, 0.1)
    assert group["lr"] == pytest.approx(0.0005) and group["initial_lr"] == pytest.approx(0.2)
