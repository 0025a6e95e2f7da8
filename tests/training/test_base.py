"""What all regimes share: whose property, refusals, and losses that diverge."""

import re

import numpy as np
import pytest
import torch
from sklearn.base import clone

from skrobust import RobustClassifier
from skrobust.attacks import PGD, UniformSampling
from skrobust.exceptions import DivergedTrainingError
from skrobust.properties import ClassificationRobustness as CR
from skrobust.training import (
    AdversarialTraining,
    ConstraintTraining,
    DataAugmentation,
    TrainingRegime,
)
from tests.training._steps import WEIGHT, Watched, linear, step

PROPERTY_REGIMES = [DataAugmentation(), AdversarialTraining(), ConstraintTraining()]


@pytest.mark.parametrize("regime", PROPERTY_REGIMES, ids=lambda r: type(r).__name__)
def test_the_regime_takes_its_own_property_first(regime):
    module = Watched(linear(WEIGHT))
    own = clone(regime).set_params(property=CR(0.0))
    assert own.property == CR(0.0)
    own.loss(None, step(module, CR(0.3)))
    # epsilon is 0 there: the network sees the inputs themselves.
    given = step(module).x
    assert all((row == given).all(dim=1).any() for row in module.training_inputs[0])


@pytest.mark.parametrize("regime", PROPERTY_REGIMES, ids=lambda r: type(r).__name__)
def test_a_regime_without_a_property_says_so_before_training(regime, monkeypatch):
    monkeypatch.setattr(type(regime), "loss", lambda *a: pytest.fail("training began"))
    X, y = np.random.default_rng(0).random((20, 3)), np.arange(20) % 2
    name = type(regime).__name__
    shown = rf"Got property=None, but expected a robustness property: {name} trains for one"
    with pytest.raises(ValueError, match=shown):
        RobustClassifier(training=regime).fit(X, y)


@pytest.mark.parametrize("regime", PROPERTY_REGIMES, ids=lambda r: type(r).__name__)
def test_attacks_leave_no_gradient_on_the_weights(regime):
    module = Watched(linear(WEIGHT))
    loss, _ = regime.loss(None, step(module, CR(0.1)))
    assert all(p.grad is None for p in module.parameters())
    loss.backward()
    assert all(torch.isfinite(p.grad).all() for p in module.parameters())


@pytest.mark.parametrize("regime", [AdversarialTraining(clean_weight=0.5), ConstraintTraining()])
def test_batch_statistics_are_shared_in_one_pass(regime):
    module = Watched(torch.nn.BatchNorm1d(2), linear(WEIGHT))
    regime.loss(None, step(module, CR(0.1)))
    assert [len(x) for x in module.training_inputs] == [10]


# ---- refusals --------------------


@pytest.mark.parametrize(
    ("regime", "message"),
    [
        (DataAugmentation(0), "Got n_extra=0, but expected an integer of at least 1"),
        (DataAugmentation(sampling="pgd"), "Got sampling='pgd', but expected one of 'uniform'"),
        (AdversarialTraining(clean_weight=2), "Got clean_weight=2, but expected a finite number"),
        (AdversarialTraining(PGD(0)), "Got n_steps=0, but expected"),
        (AdversarialTraining("pgd"), "Got attack='pgd', but expected an Attack, such as PGD"),
        (ConstraintTraining(-1), "Got alpha=-1, but expected a finite number in [0, inf)"),
        (ConstraintTraining(beta=np.nan), "Got beta=nan, but expected a finite number"),
        (ConstraintTraining(ramp_epochs=-1), "Got ramp_epochs=-1, but expected an integer"),
        (ConstraintTraining(balance="auto"), "Got balance='auto', but expected one of 'fixed'"),
        (ConstraintTraining(logic="DL2"), "Got logic='DL2', but expected a Logic, such as DL2()"),
        (ConstraintTraining(attack=UniformSampling(0)), "Got n_samples=0"),
        (ConstraintTraining(0, balance="gradient-norm"), "Got alpha=0, but expected"),
        (ConstraintTraining(property=CR(-1)), "Got epsilon=-1, but expected"),
        (ConstraintTraining(property=0.1), "Got property=0.1, but expected a RobustnessProperty"),
    ],
)
def test_bad_parameters(regime, message):
    with pytest.raises((ValueError, TypeError), match=re.escape(message)):
        regime.check(CR(0.1), np.full((3, 2), 0.5))


def test_data_outside_the_bounds_of_the_regimes_own_property():
    with pytest.raises(ValueError, match="3 of 3 rows of X lie outside"):
        AdversarialTraining(property=CR()).check(None, np.full((3, 2), 1.5))


# ---- a regime of your own, and losses that diverge --------------------


class NanAfter(TrainingRegime):
    """A loss that becomes NaN (or infinite) at one step."""

    def __init__(self, n_steps, value=float("nan")):
        self.n_steps = n_steps
        self.value = value

    def loss(self, state, step):
        loss, logits = step.task_loss(step.logits), step.logits
        self.seen_ = getattr(self, "seen_", 0) + 1
        return (loss * self.value if self.seen_ == self.n_steps else loss), logits


@pytest.mark.parametrize(
    ("n_steps", "epoch", "batch"), [(1, 1, 1), (3, 1, 3), (4, 2, 1), (8, 3, 2)]
)
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_stops_training(n_steps, epoch, batch, value):
    X, y = np.random.default_rng(0).random((30, 3)), np.arange(30) % 2
    model = RobustClassifier(training=NanAfter(n_steps, value), batch_size=10, max_epochs=5)
    message = rf"The training loss became (nan|inf) in epoch {epoch}, batch {batch}\."
    with pytest.raises(DivergedTrainingError, match=message):
        model.fit(X, y)


def test_a_learning_rate_that_explodes():
    X, y = 1e3 * np.random.default_rng(0).random((30, 3)), np.arange(30) % 2
    model = RobustClassifier(lr=1e30, optimizer=torch.optim.SGD, max_epochs=5)
    with pytest.raises(DivergedTrainingError, match=r"in epoch \d+, batch \d+\. Try a smaller lr"):
        model.fit(X, y)
