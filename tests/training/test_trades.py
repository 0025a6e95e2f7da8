"""TRADES: its loss and gradient against the formula, by hand."""

from dataclasses import replace

import pytest
import torch

from skrobust.attacks import PGD
from skrobust.properties import ClassificationRobustness as CR
from skrobust.training import TradesTraining
from tests.training._steps import WEIGHT, Watched, linear, step


def formula(module, x, moved, labels, beta):
    """Return the loss of each sample, in probabilities."""
    p, q = torch.softmax(module(x), dim=1), torch.softmax(module(moved), dim=1)
    own = -p[range(len(x)), labels].log()
    return own + beta * (p * (p.log() - q.log())).sum(dim=1)


def gradient(module, loss):
    parts = torch.autograd.grad(loss, list(module.parameters()))
    return torch.cat([part.flatten() for part in parts])


@pytest.mark.parametrize("beta", [0.0, 1.0, 6.0])
def test_loss_and_gradient_are_those_of_the_formula(beta):
    module = Watched(linear(WEIGHT))
    given = step(module, CR(0.1))
    loss, logits = TradesTraining(beta).loss(None, given)
    moved = module.training_inputs[0][5:]
    by_hand = formula(module, given.x, moved, given.labels, beta).mean()
    torch.testing.assert_close(loss, by_hand)
    # Also through the probabilities at the inputs themselves.
    torch.testing.assert_close(gradient(module, loss), gradient(module, by_hand))
    torch.testing.assert_close(logits, module(given.x))


def test_the_points_are_the_worst_for_the_divergence_and_not_for_the_label():
    # The gap of the logits is 4 x_1, so that points move along the first axis alone. Where the
    # network is right the worst corner comes closer to the boundary, with labels or without.
    module = Watched(linear([[2.0, 0.0], [-2.0, 0.0]], (-1.0, 1.0)))
    given = step(module, CR(0.1))
    TradesTraining(attack=PGD(20, n_restarts=9)).loss(None, given)
    moved = module.training_inputs[0][5:]
    torch.testing.assert_close((moved - given.x)[:, 0].abs(), torch.full((5,), 0.1))
    other = replace(given, labels=1 - given.labels)
    TradesTraining(attack=PGD(20, n_restarts=9)).loss(None, other)
    again = module.training_inputs[1][5:]
    # To the boundary at x_1 = 1/2, where the outputs are farthest from confident.
    toward = torch.sign(0.5 - given.x[:, 0])
    far = (given.x[:, 0] - 0.5).abs() > 0.05
    for points in (moved, again):
        assert torch.equal(torch.sign(points - given.x)[far, 0], toward[far])


def test_weights_of_samples():
    module = Watched(linear(WEIGHT))
    weight = torch.tensor([0.5, 2.0, 1.0, 0.0, 1.5])
    each = torch.nn.CrossEntropyLoss(reduction="none")
    given = replace(step(module, CR(0.1)), sample_weight=weight, criterion=each)
    loss, _ = TradesTraining(2.0).loss(None, given)
    moved = module.training_inputs[0][5:]
    by_hand = weight * formula(module, given.x, moved, given.labels, 2.0)
    torch.testing.assert_close(loss, by_hand.mean())


def test_parameters_are_checked_and_searched():
    with pytest.raises(ValueError, match="Got beta=-1, but expected a finite number in"):
        TradesTraining(-1).check(CR(0.1), torch.zeros(2, 2).numpy())
    with pytest.raises(TypeError, match="Got attack='PGD', but expected an Attack"):
        TradesTraining(attack="PGD").check(CR(0.1), torch.zeros(2, 2).numpy())
    assert TradesTraining().set_params(attack__n_steps=3).attack.n_steps == 3
