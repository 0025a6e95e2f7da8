"""The hook of training regimes: what they are given, what they may return, what they may keep."""

import doctest
import math
import pickle
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from skorch.callbacks import Checkpoint
from skorch.dataset import ValidSplit

from skrobust import RobustClassifier
from skrobust.properties import ClassificationRobustness as CR
from skrobust.properties import LinearRobustness
from skrobust.training import CertifiedTraining, TrainingFit, TrainingRegime, TrainingStep
from tests.training import _sequence
from tests.training._steps import WEIGHT, linear, step

GUIDE = Path(__file__).parents[2] / "docs" / "extending_regime.rst"


def small(training, **params):
    defaults = {"hidden_layer_sizes": 4, "max_epochs": 4, "batch_size": 20, "random_state": 0}
    return RobustClassifier(training=training, property=CR(0.1), **(defaults | params))


def weights(model):
    return torch.cat([p.detach().flatten() for p in model.net_.module_.parameters()])


class Recorder(TrainingRegime):
    """Keeps what it is given, outside of itself: a clone starts with nothing."""

    def __init__(self, log=None):
        self.log = log

    def start(self, fit):
        self.log.append(("start", fit))
        return {"n_steps": 0}

    def loss(self, state, step):
        state["n_steps"] += 1
        self.log.append(("step", step))
        return step.task_loss(step.logits), step.logits

    def finish(self, state):
        self.log.append(("finish", state))


# ---- what a regime is given --------------------


def test_the_order_of_calls_and_what_they_hold(blobs):
    X, y = blobs
    log = []
    model = small(Recorder(log)).fit(X, np.array(["no", "yes"])[y])
    names = [name for name, _ in log]
    assert names == ["start", *["step"] * 16, "finish"]
    fit, last = log[0][1], log[-1][1]
    assert last == {"n_steps": 16}
    assert fit.module is model.net_.module_ and fit.optimizer is model.net_.optimizer_
    torch.testing.assert_close(fit.X, torch.tensor(X, dtype=torch.float32))
    assert fit.y.tolist() == y.tolist() and fit.classes.tolist() == ["no", "yes"]
    assert (fit.n_steps, fit.max_epochs, fit.n_epochs, fit.epoch) == (4, 4, 4, 0)
    assert (fit.device, fit.dtype) == (torch.device("cpu"), torch.float32)
    assert fit.property == CR(0.1) and fit.sample_weight is None and fit.previous is None
    assert fit.input_shape is None
    assert isinstance(fit.random_state, np.random.RandomState)
    steps = [given for name, given in log if name == "step"]
    assert [(s.epoch, s.batch) for s in steps] == [(e, b) for e in range(4) for b in range(4)]
    np.testing.assert_allclose([s.progress for s in steps], np.arange(16) / 16)
    for given in steps:
        assert given.generator is fit.generator
        torch.testing.assert_close(given.x, fit.X[given.index])
        assert given.labels.tolist() == fit.y[given.index].tolist()
    for epoch in range(4):
        index = torch.cat([s.index for s in steps if s.epoch == epoch])
        assert sorted(index.tolist()) == list(range(80))


def test_the_shape_of_an_input(blobs):
    log, layers = [], (torch.nn.Flatten(), torch.nn.Linear(4, 2))
    module = torch.nn.Sequential(*layers)
    small(Recorder(log), module=module, input_shape=np.array([1, 2, 2]), max_epochs=1).fit(*blobs)
    assert log[0][1].input_shape == (1, 2, 2)


def test_logits_are_computed_when_asked_for():
    given = step(linear(WEIGHT))
    assert "logits" not in vars(given)
    assert given.logits is given.logits


@pytest.mark.parametrize(
    ("epoch", "batch", "progress"), [(0, 0, 0.0), (1, 2, 0.3), (4, 4, 0.98), (9, 0, 1.0)]
)
def test_progress(epoch, batch, progress):
    given = TrainingStep(None, None, None, None, None, epoch, batch, 5, 5)
    expected = (epoch + batch / 5) / 5
    assert given.progress == pytest.approx(min(expected, 1.0)) and given.progress < 1
    if progress == 1.0:
        assert given.progress == math.nextafter(1.0, 0.0)


@pytest.mark.parametrize(
    ("n", "batch_size", "n_steps"), [(1, 5, 1), (5, 5, 1), (6, 5, 1), (7, 5, 2)]
)
def test_steps_of_an_epoch(n, batch_size, n_steps):
    X, y = torch.zeros(n, 2), torch.zeros(n, dtype=torch.long)
    fit = TrainingFit(linear(WEIGHT), X, y, np.arange(2), None, batch_size=batch_size)
    assert fit.n_steps == n_steps


def test_weighted_means():
    x, labels = torch.rand(3, 2), torch.tensor([0, 1, 0])
    losses = torch.tensor([1.0, 2.0, 4.0])
    plain = TrainingStep(None, None, x, labels, None, 0)
    assert plain.mean(losses) == losses.mean()
    weighted = TrainingStep(
        None, None, x, labels, None, 0, sample_weight=torch.tensor([0.5, 2, 0])
    )
    torch.testing.assert_close(weighted.mean(losses).item(), (0.5 + 4) / 3)
    assert weighted.mean(losses[:1], torch.tensor([3.0])) == 3.0


# ---- data that a regime adds --------------------


class Appending(TrainingRegime):
    def __init__(self, X, y, weight=None):
        self.X, self.y, self.weight = X, y, weight

    def start(self, fit):
        fit.append(self.X, self.y, self.weight)
        return []

    def loss(self, state, step):
        state.append((step.x, step.labels, step.sample_weight))
        return step.task_loss(step.logits), step.logits


@pytest.mark.parametrize("weight", [None, [3.0, 0.5]])
def test_added_samples_take_part(blobs, weight):
    regime = Appending([[7.0] * 4, [8.0] * 4], [0, 1], weight)
    model = small(regime, max_epochs=1).fit(*blobs)
    x, labels, weights = zip(*model.net_.kept[1], strict=True)
    x, labels = torch.cat(x), torch.cat(labels)
    assert len(x) == 82 and len(model.history_[0]["batches"]) == 5
    assert [labels[x[:, 0] == value].tolist() for value in (7.0, 8.0)] == [[0], [1]]
    if weight is not None:
        weights = torch.cat(weights)
        assert [weights[x[:, 0] == value].item() for value in (7.0, 8.0)] == weight
        assert (weights[x[:, 0] < 7] == 1).all()


def test_added_samples_do_not_validate(blobs):
    regime = Appending([[7.0] * 4], [0])
    model = small(regime, max_epochs=1, train_split=ValidSplit(4)).fit(*blobs)
    sizes = [b.get("valid_batch_size", 0) for b in model.history_[0]["batches"]]
    assert sum(sizes) == 20
    assert sum(len(x) for x, *_ in model.net_.kept[1]) == 61


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (([[1.0] * 3], [0]), "expected finite rows of shape (k, 4) to append"),
        (([[float("nan")] * 4], [0]), "expected finite rows of shape (k, 4)"),
        (([[1.0] * 4], [2]), "expected 1 indices of classes, from 0 to 1"),
        (([[1.0] * 4], [0, 1]), "expected 1 indices of classes"),
        (([[1.0] * 4], [0.5]), "expected 1 indices of classes"),
        (([[1.0] * 4], [0], [-1.0]), "expected 1 finite weights of at least 0"),
    ],
)
def test_samples_that_cannot_be_added(blobs, args, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        small(Appending(*args)).fit(*blobs)


# ---- what a regime returns --------------------


class Returning(TrainingRegime):
    def __init__(self, make):
        self.make = make

    def loss(self, state, step):
        return self.make(step)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda s: s.task_loss(s.logits), TypeError, "expected a pair: the loss"),
        (lambda s: None, TypeError, "Got Returning.loss(...) = None, but expected a pair"),
        (lambda s: (None, s.logits), TypeError, "expected a tensor of shape ()"),
        (lambda s: (0.5, s.logits), TypeError, "Got Returning.loss(...)[0] = 0.5"),
        (lambda s: (s.logits.sum(dim=1), s.logits), TypeError, "shape (20,), but expected"),
        (lambda s: (s.task_loss(s.logits).detach(), s.logits), ValueError, "with a gradient"),
        (lambda s: (s.task_loss(s.logits), None), TypeError, "Got Returning.loss(...)[1] = None"),
        (lambda s: (s.task_loss(s.logits), s.x), TypeError, "tensor of shape (20, 2)"),
    ],
)
def test_what_is_no_loss_is_refused_by_name(blobs, make, error, message):
    with pytest.raises(error, match=re.escape(message)):
        small(Returning(make)).fit(*blobs)


def test_the_number_of_classes_is_the_real_one():
    # Rows for ten classes, of which the data have all.
    A = -np.eye(10)[None, :1]
    X, y = np.random.default_rng(0).random((40, 3)), np.arange(40) % 10
    property = LinearRobustness((A[0], np.full(1, 5.0)), epsilon=0.01)
    training = CertifiedTraining(ramp_epochs=1)
    model = RobustClassifier(property=property, training=training, max_epochs=1)
    assert model.fit(X, y).classes_.tolist() == list(range(10))


# ---- the state --------------------


def test_the_state_goes_on_in_partial_fit(blobs):
    model = small(_sequence.CoTraining())
    for calls in (1, 2, 3):
        model.partial_fit(*blobs)
        assert model.net_.kept[1]["updates"] == 4 * calls
    # A new start for another regime, and where the classifier was pickled.
    model.set_params(training=_sequence.CoTraining()).partial_fit(*blobs)
    assert model.net_.kept[1]["updates"] == 4
    copied = pickle.loads(pickle.dumps(model))
    assert copied.partial_fit(*blobs).net_.kept[1]["updates"] == 4
    assert model.fit(*blobs).net_.kept[1]["updates"] == 16


class Heavy(TrainingRegime):
    """A state of a megabyte, with the data in it."""

    def start(self, fit):
        return fit, np.zeros(2**17)

    def loss(self, state, step):
        return step.task_loss(step.logits), step.logits


def test_pickles_hold_no_state(blobs, tmp_path):
    file = tmp_path / "net.pkl"
    files = {f"f_{part}": None for part in ("params", "optimizer", "criterion", "history")}
    during = Checkpoint(f_pickle=file, monitor=None, **files)
    model = small(Heavy(), callbacks=[during], max_epochs=1).fit(*blobs)
    assert len(pickle.dumps(model)) < 2**18
    assert file.stat().st_size < 2**18
    assert pickle.loads(file.read_bytes()).call is None


class Counted(Recorder):
    """Leaves the number of its steps beside the classifier."""

    def finish(self, state):
        return {"n_steps": state["n_steps"]}


def test_what_finish_returns_stays_with_the_classifier(blobs):
    model = small(Counted([])).fit(*blobs)
    assert model.companion_ == {"n_steps": 16}
    assert pickle.loads(pickle.dumps(model.set_params(training=None))).companion_["n_steps"] == 16
    assert model.partial_fit(*blobs).companion_ is None
    model.set_params(training=Counted([])).partial_fit(*blobs)
    assert model.companion_ == {"n_steps": 4}


def test_an_interrupt_before_the_start_has_ended(blobs):
    log = []

    class Interrupted(Recorder):
        def start(self, fit):
            raise KeyboardInterrupt

    model = small(Interrupted(log)).fit(*blobs)
    assert log == [] and model.net_.stopped_midway and model.companion_ is None
    assert np.isfinite(model.predict_proba(blobs[0])).all()
    assert model.net_.kept == (None, None)


def test_an_interrupt_before_the_next_start_leaves_what_was_left(blobs):
    class Once(Counted):
        starts = 0

        def start(self, fit):
            self.starts += 1
            if self.starts > 1:
                raise KeyboardInterrupt
            return super().start(fit)

    model = small(Once([])).fit(*blobs)
    left = model.companion_
    assert model.partial_fit(*blobs).companion_ is left and left is not None
    assert model.net_.kept[0] is model.net_.regime


def test_a_failed_fit_does_not_finish(blobs):
    log = []

    class Failing(Recorder):
        def loss(self, state, step):
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        small(Failing(log)).fit(*blobs)
    assert [name for name, _ in log] == ["start"]


# ---- regimes of the kinds that it is made for --------------------


@pytest.mark.parametrize("regime", _sequence.REGIMES, ids=lambda r: type(r).__name__)
def test_stateful_regimes_learn_and_repeat(blobs, regime):
    state = torch.random.get_rng_state()
    models = [
        small(regime, hidden_layer_sizes=16, max_epochs=30, lr=0.02).fit(*blobs) for _ in range(2)
    ]
    assert torch.equal(weights(models[0]), weights(models[1]))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert models[0].score(*blobs) > 0.75


def test_static_augmentation_trebles_the_data(blobs):
    model = small(_sequence.StaticAugmentation(), max_epochs=1).fit(*blobs)
    assert sum(b["train_batch_size"] for b in model.history_[0]["batches"]) == 240


# ---- the worked example of the guide --------------------


def test_the_worked_example():
    results = doctest.testfile(str(GUIDE), module_relative=False)
    assert results.attempted > 8 and results.failed == 0


def guide_regime():
    parser, names = doctest.DocTestParser(), {}
    for example in parser.get_examples(GUIDE.read_text(encoding="utf-8"))[:3]:
        exec(example.source, names)
    return names["WeightAveraging"]


def test_the_example_averages_the_weights(blobs):
    regime = guide_regime()
    seen = []

    class Seen(Recorder):
        def loss(self, state, step):
            seen.append(torch.cat([p.detach().flatten() for p in step.module.parameters()]))
            return super().loss(state, step)

    plain = small(Seen([]), max_epochs=2).fit(*blobs)
    seen.append(weights(plain))
    average = seen[0]
    for later in seen[1:]:
        average = 0.5 * average + 0.5 * later
    averaged = small(regime(decay=0.5), max_epochs=2).fit(*blobs)
    torch.testing.assert_close(weights(averaged), average, rtol=1e-4, atol=1e-6)
    assert not torch.equal(weights(averaged), weights(plain))
    with pytest.raises(ValueError, match="Got decay=2"):
        small(regime(decay=2)).fit(*blobs)
