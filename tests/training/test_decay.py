"""How learning rates fall over a training."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from skorch.callbacks import Callback, LRScheduler
from torch import nn

from skrobust import RobustClassifier
from skrobust.properties import ClassificationRobustness
from skrobust.training import CertifiedTraining, TrainingFit
from skrobust.training._decay import RateDecay, check_decay
from tests.training._steps import step


def made(rates=(0.1,), **call):
    """Return a fit of 8 epochs of 4 steps, and its optimizer."""
    layers = [nn.Linear(2, 2) for _ in rates]
    groups = [
        {"params": layer.parameters(), "lr": r} for layer, r in zip(layers, rates, strict=True)
    ]
    optimizer = torch.optim.SGD(groups)
    X, y = torch.zeros(16, 2), torch.zeros(16, dtype=torch.long)
    call = {"max_epochs": 8, "n_epochs": 8, "batch_size": 4} | call
    fit = TrainingFit(nn.Sequential(*layers), X, y, np.arange(2), None, None, optimizer, **call)
    return fit, optimizer


def at(epoch, batch=0):
    return replace(step(nn.Linear(2, 2), epoch=epoch), batch=batch, n_steps=4, max_epochs=8)


def rates(optimizer):
    return [group["lr"] for group in optimizer.param_groups]


def test_half_a_cosine_from_the_rate_to_zero_in_each_group():
    fit, optimizer = made(rates=(0.1, 1.0))
    decay = RateDecay("cosine", fit)
    for (epoch, batch), share in {
        (0, 0): 1.0,
        (2, 0): (1 + math.sqrt(0.5)) / 2,
        (4, 0): 0.5,
        (5, 2): (1 + math.cos(math.pi * 5.5 / 8)) / 2,
        (7, 3): (1 + math.cos(math.pi * 7.75 / 8)) / 2,
        (9, 0): 0.0,
    }.items():
        decay.apply(at(epoch, batch))
        assert rates(optimizer) == pytest.approx([0.1 * share, 1.0 * share])
    decay.finish()
    assert rates(optimizer) == [0.1, 1.0]


def test_rates_are_held_at_first():
    fit, optimizer = made()
    decay = RateDecay("cosine", fit, hold=4)
    for epoch, share in {0: 1.0, 3: 1.0, 4: 1.0, 6: 0.5}.items():
        decay.apply(at(epoch))
        assert rates(optimizer) == pytest.approx([0.1 * share])
    decay = RateDecay("cosine", fit, hold=8)  # to the end
    decay.apply(at(7))
    decay.finish()
    assert rates(optimizer) == pytest.approx([0.05])  # as the one before left it


def test_without_decay_rates_stay():
    fit, optimizer = made()
    RateDecay("none", fit).apply(at(6))
    RateDecay().apply(at(6))
    assert rates(optimizer) == [0.1]


def test_rates_that_a_scheduler_holds_are_left_to_it():
    fit, optimizer = made()
    torch.optim.lr_scheduler.StepLR(optimizer, 1)
    RateDecay("cosine", fit).apply(at(6))
    assert rates(optimizer) == [0.1]


def test_a_rate_that_is_set_on_the_way_stays():
    fit, optimizer = made(rates=(0.1, 1.0))
    decay = RateDecay("cosine", fit)
    decay.apply(at(4))
    optimizer.param_groups[0]["lr"] = 0.02
    decay.apply(at(6))
    assert rates(optimizer) == pytest.approx([0.02, (1 - math.sqrt(0.5)) / 2])
    decay.finish()
    assert rates(optimizer) == [0.02, 1.0]


@pytest.mark.parametrize(
    ("call", "epoch", "share"),
    [
        ({"epoch": 8, "n_epochs": 2}, 8, 1.0),  # after the training: one of its own
        ({"epoch": 8, "n_epochs": 2}, 9, 0.5),
        ({"epoch": 4, "n_epochs": 1}, 4, 0.5),  # on the way, as by partial_fit
        ({"epoch": 4, "n_epochs": 12}, 8, 0.5),  # on the way and beyond: all of 16
    ],
)
def test_calls_go_on_or_start_anew(call, epoch, share):
    fit, optimizer = made(**call)
    RateDecay("cosine", fit).apply(at(epoch))
    assert rates(optimizer) == pytest.approx([0.1 * share])


def test_other_ways_are_refused():
    with pytest.raises(ValueError, match="decay='steps'"):
        check_decay("steps")


class Rates(Callback):
    def on_train_begin(self, net, **kwargs):
        self.seen = []

    def on_batch_end(self, net, **kwargs):
        self.seen += rates(net.optimizer_)


@pytest.fixture
def data():
    X = np.random.default_rng(0).random((64, 2)).astype(np.float32)
    return X, (X[:, 0] > 0.5).astype(int)


def classifier(callbacks, max_epochs=2, **settings):
    return RobustClassifier(
        hidden_layer_sizes=(4,),
        property=ClassificationRobustness(0.01),
        training=CertifiedTraining(ramp_epochs=1, **settings),
        max_epochs=max_epochs,
        batch_size=16,
        lr=0.1,
        callbacks=callbacks,
        random_state=0,
    )


def test_certified_training_decays_to_the_last_step_of_a_fit(data):
    watch = Rates()
    model = classifier([watch]).fit(*data)
    # The first epoch is the ramp.
    expected = [0.1] * 4 + [0.05 * (1 + math.cos(math.pi * k / 4)) for k in range(4)]
    assert watch.seen == pytest.approx(expected)
    # What follows learns at the full rate again.
    before = [w.detach().clone() for w in model.net_.module_.parameters()]
    model.partial_fit(*data)
    assert watch.seen[0] == pytest.approx(0.1)
    after = model.net_.module_.parameters()
    assert any((a - b).abs().max() > 1e-3 for a, b in zip(after, before, strict=True))


class Fails(Callback):
    def on_epoch_end(self, net, **kwargs):
        raise ZeroDivisionError


def test_calls_after_an_error_learn_at_the_full_rate(data):
    watch = Rates()
    model = classifier([watch]).fit(*data)
    model.net_.callbacks_.append(("fails", Fails().initialize()))
    with pytest.raises(ZeroDivisionError):
        model.partial_fit(*data)
    assert watch.seen[-1] < 0.1
    assert rates(model.net_.optimizer_) == [0.1]


def test_a_schedule_of_the_user_has_the_word(data):
    watch = Rates()
    schedule = LRScheduler("StepLR", step_size=1, gamma=0.1)
    classifier([watch, schedule]).fit(*data)
    assert watch.seen == pytest.approx([0.1] * 4 + [0.01] * 4)
    plateau = LRScheduler("ReduceLROnPlateau", monitor="train_loss", threshold=9, patience=0)
    classifier([watch, plateau], max_epochs=4).fit(*data)
    # Its second epoch is no better.
    assert watch.seen[8:] == pytest.approx([watch.seen[7] * 0.1] * 4 + [watch.seen[7] * 0.01] * 4)
    plain = Rates()
    classifier([plain], decay="none").fit(*data)
    assert plain.seen == [0.1] * 8
