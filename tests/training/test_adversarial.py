"""Adversarial training: the loss at the worst points, by hand."""

import pytest
import torch

from skrobust.attacks import FGSM, PGD
from skrobust.properties import ClassificationRobustness as CR
from skrobust.training import AdversarialTraining
from tests.training._steps import WEIGHT, Watched, linear, step, task_loss, worst_points


@pytest.mark.parametrize("objective", ["margin", "cross-entropy"])
def test_adversarial_training_is_the_loss_at_the_worst_points(objective):
    module = Watched(linear(WEIGHT))
    given = step(module, CR(0.1))
    loss, _ = AdversarialTraining(PGD(10, objective=objective)).loss(None, given)
    worst = worst_points(WEIGHT, given.x, given.labels, 0.1)
    torch.testing.assert_close(loss, task_loss(module, worst, given.labels))
    torch.testing.assert_close(module.training_inputs[0], worst)
    # The attack saw the network in evaluation mode, and left it training.
    assert module.evaluation_calls >= 10
    assert module.training


def test_clean_weight_mixes():
    module = Watched(linear(WEIGHT))
    given = step(module, CR(0.1))
    loss, logits = AdversarialTraining(FGSM(), clean_weight=0.25).loss(None, given)
    worst = worst_points(WEIGHT, given.x, given.labels, 0.1)
    clean, attacked = (task_loss(module, x, given.labels) for x in (given.x, worst))
    torch.testing.assert_close(loss, 0.25 * clean + 0.75 * attacked)
    torch.testing.assert_close(logits, module(given.x))


def test_the_default_attack_is_pgd_on_the_cross_entropy():
    module = Watched(linear(WEIGHT))
    given = step(module, CR(0.1))
    loss, _ = AdversarialTraining().loss(None, given)
    worst = worst_points(WEIGHT, given.x, given.labels, 0.1)
    torch.testing.assert_close(loss, task_loss(module, worst, given.labels))


def test_attacked_points_do_not_stop_at_the_first_violation():
    # All are broken from the start; training still takes the worst points.
    module = Watched(linear([[-9.0, 0.0], [9.0, 0.0]], (0.0, 0.0)))
    given = step(module, CR(0.1))
    AdversarialTraining(FGSM("margin")).loss(None, given)
    moved = (module.training_inputs[0] - given.x)[:, 0].abs()
    torch.testing.assert_close(moved, torch.full_like(moved, 0.1))
