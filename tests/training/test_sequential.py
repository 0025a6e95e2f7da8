"""Regimes in sequence: whose turn it is, what each is given, and how a search reaches them."""

import pickle
import re

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV

from skrobust import RobustClassifier
from skrobust.attacks import FGSM
from skrobust.properties import ClassificationRobustness as CR
from skrobust.training import (
    AdversarialTraining,
    CertifiedTraining,
    DataAugmentation,
    SequentialTraining,
    StandardTraining,
    TrainingRegime,
)
from tests.training._sequence import CoTraining, Rounds


def small(training, **params):
    defaults = {"hidden_layer_sizes": 4, "max_epochs": 4, "batch_size": 20, "random_state": 0}
    return RobustClassifier(training=training, property=CR(0.1), **(defaults | params))


def weights(model):
    return torch.cat([p.detach().flatten() for p in model.net_.module_.parameters()])


LOG = []


class Recorder(TrainingRegime):
    """Writes down what it is called with; adds samples and moves the weights, if it is told to."""

    def __init__(self, name="a", added=0, shift=0.0):
        self.name = name
        self.added = added
        self.shift = shift

    def start(self, fit):
        LOG.append((self.name, "start", fit.epoch, fit.n_epochs, fit.max_epochs, len(fit.X)))
        if self.added:
            fit.append(fit.X[: self.added], fit.y[: self.added])
        calls = 1 if fit.previous is None else fit.previous["calls"] + 1
        return {"fit": fit, "calls": calls}

    def loss(self, state, step):
        largest = max(p.detach().abs().max().item() for p in step.module.parameters())
        LOG.append((self.name, step.epoch, step.batch, step.max_epochs, len(state["fit"].X)))
        torch.testing.assert_close(step.x, state["fit"].X[step.index])
        LOG.append((self.name, "largest", largest))
        return step.task_loss(step.logits), step.logits

    def finish(self, state):
        LOG.append((self.name, "finish", state["calls"]))
        with torch.no_grad():
            for parameter in state["fit"].module.parameters():
                parameter.add_(self.shift)


@pytest.fixture
def log():
    LOG.clear()
    return LOG


def test_each_has_its_turn_and_its_own_epochs_and_data(blobs, log):
    first, second = Recorder("a", added=20), Recorder("b", added=10)
    model = small([(first, 3), (second, 2)], max_epochs=6).fit(*blobs)
    calls = [entry for entry in log if entry[1] != "largest"]
    steps = {
        "a": [("a", e, b, 3, 100) for e in range(3) for b in range(5)],
        # The last goes on; what the first has added is gone.
        "b": [("b", e, b, 3, 90) for e in range(3) for b in range(5)],
    }
    assert calls == [
        ("a", "start", 0, 3, 3, 80),
        *steps["a"],
        ("a", "finish", 1),
        ("b", "start", 0, 3, 3, 80),
        *steps["b"],
        ("b", "finish", 1),
    ]
    sizes = [sum(b["train_batch_size"] for b in e["batches"]) for e in model.history_]
    assert sizes == [100] * 3 + [90] * 3


def test_the_next_starts_where_the_one_before_has_finished(blobs, log):
    small([(Recorder("a", shift=100.0), 1), (Recorder("b"), 1)], max_epochs=2).fit(*blobs)
    largest = [(name, rest[0]) for name, kind, *rest in log if kind == "largest"]
    assert len(largest) == 8
    assert all(value < 10 for name, value in largest if name == "a")
    assert all(value > 90 for name, value in largest if name == "b")


def test_one_regime_in_sequence_is_that_regime(blobs):
    for regime in (StandardTraining(), AdversarialTraining(FGSM()), DataAugmentation()):
        alone = small(regime).fit(*blobs)
        for sequence in (SequentialTraining([regime]), [(regime, 4)], [(regime, None)]):
            assert torch.equal(weights(small(sequence).fit(*blobs)), weights(alone))
    # Two turns of the same are not two fits: the optimizer and the batches go on.
    twice = small([(StandardTraining(), 1), (StandardTraining(), 3)]).fit(*blobs)
    assert torch.equal(weights(twice), weights(small(None).fit(*blobs)))
    assert torch.equal(weights(small(SequentialTraining()).fit(*blobs)), weights(twice))


def test_ramps_rise_in_the_turn_of_the_regime(blobs):
    radii = []

    class Seen(CertifiedTraining):
        def loss(self, state, step):
            radii.append(step.ramp(self.ramp_epochs))
            return super().loss(state, step)

    small([(StandardTraining(), 2), (Seen(ramp_epochs=2), 2)]).fit(*blobs)
    assert radii == [0.5] * 4 + [1.0] * 4


@pytest.mark.parametrize(
    ("n_epochs", "max_epochs", "turns"),
    [(None, 7, [2, 2, 3]), ([1, 2, None], 7, [1, 2, 4]), ((3, 1, 1), 7, [3, 1, 3])],
)
def test_epochs_of_each(blobs, log, n_epochs, max_epochs, turns):
    regimes = [Recorder(name) for name in "abc"]
    small(SequentialTraining(regimes, n_epochs), max_epochs=max_epochs).fit(*blobs)
    found = [sum(e[0] == name and e[1] == "largest" for e in log) / 4 for name in "abc"]
    assert found == turns


def test_partial_fit_goes_on_with_the_state_of_the_same_turn(blobs, log):
    model = small([(Recorder("a"), 2), (Recorder("b"), 1)], max_epochs=3)
    for _ in range(5):
        model.partial_fit(*blobs)
    finished = [entry for entry in log if entry[1] == "finish"]
    assert finished == [("a", "finish", k) for k in (1, 2)] + [
        ("b", "finish", k) for k in (1, 2, 3)
    ]
    starts = [entry[2:5] for entry in log if entry[1] == "start"]
    assert starts == [(0, 1, 2), (1, 1, 2), (0, 1, 1), (1, 1, 1), (2, 1, 1)]
    pickle.loads(pickle.dumps(model)).partial_fit(*blobs)
    assert log[-1] == ("b", "finish", 1)  # a pickle holds no state


@pytest.mark.parametrize("n_first", [1, 2])
def test_regimes_with_states_learn_and_repeat(blobs, n_first):
    regimes = [CoTraining(), Rounds(), AdversarialTraining(FGSM())]
    training = SequentialTraining(regimes, [10 * n_first, 10, None])
    found = [
        small(training, hidden_layer_sizes=16, max_epochs=40, lr=0.02).fit(*blobs) for _ in "ab"
    ]
    assert torch.equal(weights(found[0]), weights(found[1]))
    assert found[0].score(*blobs) > 0.75


def test_draws_of_a_users_regime_in_a_later_turn_are_the_fits_own(blobs):
    class Noisy(TrainingRegime):
        def loss(self, state, step):
            logits = step.module(step.x + 0.1 * torch.randn_like(step.x))
            return step.task_loss(logits), logits

    state = torch.random.get_rng_state()
    found = [weights(small([(StandardTraining(), 1), (Noisy(), 3)]).fit(*blobs)) for _ in "ab"]
    assert torch.equal(*found)
    assert torch.equal(torch.random.get_rng_state(), state)


class Around(TrainingRegime):
    """A regime around another one, which knows of no epochs."""

    def __init__(self, inner):
        self.inner = inner

    def start(self, fit):
        return self.inner.start(fit)

    def loss(self, state, step):
        return self.inner.loss(state, step)

    def finish(self, state):
        self.inner.finish(state)


def test_a_regime_around_a_sequence(blobs, log):
    inner = SequentialTraining([Recorder("a"), Recorder("b")])
    around = small(Around(inner)).fit(*blobs)
    order = [name for name, kind, *_ in log if kind == "largest"]
    assert order == ["a"] * 8 + ["b"] * 8
    assert torch.equal(weights(around), weights(small(inner).fit(*blobs)))


def test_epochs_begin_once_each(blobs):
    begun = []

    class Counting(StandardTraining):
        def begin_epoch(self, state, epoch):
            begun.append(epoch)

    small([(StandardTraining(), 1), (Counting(), 3)]).fit(*blobs)
    small(Counting()).fit(*blobs)
    assert begun == [0, 1, 2, 0, 1, 2, 3]


class Leaving(Recorder):
    def finish(self, state):
        return self.name


def test_the_companion_is_the_last_that_one_leaves(blobs):
    parts = [(Leaving("a"), 1), (Leaving("b"), 1), (Recorder("c"), 2)]
    model = small(parts).fit(*blobs)
    assert model.companion_ == "b"
    # Also where a later call is another's turn alone.
    model = small(parts)
    found = [model.partial_fit(*blobs).companion_ for _ in range(4)]
    assert found == ["a", "b", "b", "b"]
    assert small([(Recorder("a"), 1), (Recorder("b"), 3)]).fit(*blobs).companion_ is None


def test_sequences_in_sequence(blobs, log):
    inner = SequentialTraining([Recorder("b"), Recorder("c")], [1, 1])
    small([(Recorder("a"), 2), (inner, 2)]).fit(*blobs)
    order = [name for name, kind, *_ in log if kind == "largest"]
    assert order == ["a"] * 8 + ["b"] * 4 + ["c"] * 4


def test_a_search_reaches_the_parts(blobs):
    parts = [("warm", StandardTraining()), AdversarialTraining()]
    model = small(SequentialTraining(parts, [1, None]), max_epochs=3)
    grid = {
        "training__adversarialtraining__attack__n_steps": [1, 2],
        "training__n_epochs": [[1, 2], [2, None]],
        "training__warm": [StandardTraining(), DataAugmentation()],
    }
    search = GridSearchCV(model, grid, cv=2, error_score="raise").fit(*blobs)
    assert len(search.cv_results_["params"]) == 8
    copied = clone(model).set_params(training__adversarialtraining__clean_weight=0.25)
    assert copied.training.named_parts["adversarialtraining"].clean_weight == 0.25
    assert parts[1].clean_weight != 0.25


@pytest.mark.parametrize(
    ("training", "error", "message"),
    [
        ([], TypeError, "Got training=[], but expected a regime, or a list of pairs"),
        ([StandardTraining()], TypeError, "but expected a regime, or a list of pairs (regime, nu"),
        ([("first", 3)], TypeError, "Got training='first', but expected a TrainingRegime"),
        ([(StandardTraining(), 0)], ValueError, "Got n_epochs[0]=0, but expected an integer of"),
        ([(StandardTraining(), None)] * 2, ValueError, "Got n_epochs[0]=None, but expected an"),
        ([(StandardTraining(), 3)] * 2, ValueError, "Got max_epochs=4, but expected at least 6"),
        ([(AdversarialTraining(attack=3), 4)], TypeError, "Got attack=3, but expected an Attack"),
        (SequentialTraining("ab"), TypeError, "Got regimes='ab', but expected None, or a list"),
        (SequentialTraining(n_epochs=[1, 2]), ValueError, "expected None, or a list of 1 integer"),
        (SequentialTraining(n_epochs=3), ValueError, "Got n_epochs=3, but expected None, or a"),
        (SequentialTraining([StandardTraining()] * 5), ValueError, "expected at least 5, so that"),
        (SequentialTraining([FGSM()]), TypeError, "Got regimes[0]=FGSM(), but expected a Trai"),
    ],
)
def test_bad_sequences(blobs, training, error, message):
    with pytest.raises(error, match=re.escape(message)):
        small(training).fit(*blobs)


def test_a_classifier_without_the_property_that_a_later_regime_needs(blobs):
    training = [(StandardTraining(), 1), (AdversarialTraining(), 1)]
    with pytest.raises(ValueError, match="Got property=None, but expected a robustness property"):
        RobustClassifier(training=training, max_epochs=2).fit(*blobs)
    assert np.isfinite(small(training).fit(*blobs).predict_proba(blobs[0])).all()
