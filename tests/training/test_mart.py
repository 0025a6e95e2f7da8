"""MART: its loss and gradient against the formula, by hand."""

import math
from dataclasses import replace

import pytest
import torch

from skrobust.attacks import FGSM, PGD
from skrobust.properties import ClassificationRobustness as CR
from skrobust.training import MartTraining
from skrobust.training._mart import log_of_others
from tests.training._steps import WEIGHT, Watched, linear, step, worst_points

THREE = [[2.0, -1.0], [0.0, 3.0], [1.0, 1.0]]


def formula(module, x, moved, labels, beta):
    """Return the loss of each sample, in probabilities."""
    rows = range(len(x))
    p, q = torch.softmax(module(x), dim=1), torch.softmax(module(moved), dim=1)
    others = q.clone()
    others[rows, labels] = 0.0
    boosted = -q[rows, labels].log() - (1 - others.max(dim=1).values).log()
    moved_by = (p * (p.log() - q.log())).sum(dim=1)
    return boosted + beta * moved_by * (1 - p[rows, labels])


def gradient(module, loss):
    parts = torch.autograd.grad(loss, list(module.parameters()))
    return torch.cat([part.flatten() for part in parts])


@pytest.mark.parametrize("beta", [0.0, 1.0, 5.0])
@pytest.mark.parametrize("weight", [WEIGHT, THREE], ids=["two classes", "three"])
def test_loss_and_gradient_are_those_of_the_formula(weight, beta):
    module = Watched(linear(weight, (0.0,) * len(weight)))
    given = step(module, CR(0.1))
    loss, logits = MartTraining(beta, attack=FGSM("cross-entropy")).loss(None, given)
    moved = module.training_inputs[0][5:]
    if len(weight) == 2:
        expected = worst_points(weight, given.x, given.labels, 0.1)
        torch.testing.assert_close(moved, expected)
    by_hand = formula(module, given.x, moved, given.labels, beta).mean()
    torch.testing.assert_close(loss, by_hand)
    torch.testing.assert_close(gradient(module, loss), gradient(module, by_hand))
    torch.testing.assert_close(logits, module(given.x))


def test_weights_of_samples():
    module = Watched(linear(WEIGHT))
    weight = torch.tensor([0.5, 2.0, 1.0, 0.0, 1.5])
    each = torch.nn.CrossEntropyLoss(reduction="none")
    given = replace(step(module, CR(0.1)), sample_weight=weight, criterion=each)
    loss, _ = MartTraining(2.0).loss(None, given)
    moved = module.training_inputs[0][5:]
    by_hand = weight * formula(module, given.x, moved, given.labels, 2.0)
    torch.testing.assert_close(loss, by_hand.mean())


def test_a_rival_that_is_certain_has_a_finite_loss_and_gradient():
    # The probability of the rival rounds to 1, and log(1 - 1) would be minus infinity.
    logits = torch.tensor([[0.0, 200.0, 3.0]], requires_grad=True)
    value = log_of_others(logits, torch.tensor([[0]]))
    assert value.item() == pytest.approx(math.log(1 + math.exp(3.0)) - 200, rel=1e-6)
    assert torch.isfinite(torch.autograd.grad(value.sum(), logits)[0]).all()


def test_parameters_are_checked_and_searched():
    with pytest.raises(ValueError, match="Got beta=-1, but expected a finite number in"):
        MartTraining(-1).check(CR(0.1), torch.zeros(2, 2).numpy())
    regime = MartTraining().set_params(attack__n_steps=3)
    assert regime.attack.get_params() == PGD(3, objective="cross-entropy").get_params()
