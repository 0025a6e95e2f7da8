"""The skorch net inside: callbacks, splits, partial fits, files."""

import pickle

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from skorch.callbacks import Callback, Checkpoint, EarlyStopping
from skorch.dataset import Dataset, ValidSplit
from skorch.helper import predefined_split

from skrobust import RobustClassifier
from skrobust.exceptions import DivergedTrainingError
from skrobust.properties import ClassificationRobustness
from skrobust.training import (
    AdversarialTraining,
    ConstraintTraining,
)
from tests.estimators._models import CR, REGIMES, small


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


def test_what_ended_a_training_early(blobs):
    class Stop(Callback):
        def __init__(self, where):
            self.where = where

        def stop(self, where):
            if where == self.where:
                raise KeyboardInterrupt

        def on_epoch_end(self, net, **kwargs):
            self.stop("epoch")

        def on_batch_end(self, net, **kwargs):
            self.stop("batch")

    for where, midway, n_epochs in (
        ("nowhere", False, 3),
        ("epoch", False, 1),
        ("batch", True, 1),
    ):
        model = small(callbacks=[Stop(where)]).fit(*blobs)
        assert model.net_.stopped_midway is midway
        assert len(model.history_) == n_epochs


def test_a_split_must_say_where_rows_went_that_others_were_made_of(blobs):
    X, y = blobs

    def copies(dataset, y=None):
        return Dataset(dataset.X[:60], dataset.y[:60]), Dataset(dataset.X[60:], dataset.y[60:])

    model = small(train_split=copies).fit(X, y)
    rows, labels, origin = np.r_[X, X[:5]], np.r_[y, y[:5]], np.arange(5)
    with pytest.raises(ValueError, match=r"Got train_split=.*, but expected a func"):
        model._continue(rows, labels, None, 1, origin)
    # Without a split all take part, and with another validation set, too.
    for split in (None, predefined_split(Dataset(X.astype(np.float32), y))):
        model = small(train_split=split).fit(X, y)
        assert model._continue(rows, labels, None, 1, origin)
        batches = model.history_[-1]["batches"]
        assert sum(batch.get("train_batch_size", 0) for batch in batches) == 85
