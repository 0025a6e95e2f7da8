"""Constraint training: the loss of the property, by hand."""

import numpy as np
import pytest
import torch
from sklearn.base import clone

from skrobust.attacks import FGSM, PGD
from skrobust.logics import DL2, Goedel
from skrobust.properties import ClassificationRobustness as CR
from skrobust.properties import (
    LipschitzRobustness,
    StandardRobustness,
    StrongClassificationRobustness,
)
from skrobust.training import ConstraintTraining
from tests.training._steps import WEIGHT, Watched, linear, step, task_loss, worst_points


def test_constraint_training_by_hand():
    module = Watched(linear(WEIGHT))
    given = step(module, CR(0.1))
    loss, logits = ConstraintTraining(alpha=2.0, beta=0.5, attack=FGSM()).loss(None, given)
    worst = worst_points(WEIGHT, given.x, given.labels, 0.1)
    z = module(worst)
    gaps = z[range(5), given.labels] - z[range(5), 1 - given.labels]
    constraint = torch.relu(-gaps).mean()
    assert constraint > 0
    expected = 2.0 * task_loss(module, given.x, given.labels) + 0.5 * constraint
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(logits, module(given.x))


def test_constraint_training_reads_the_logic():
    module = Watched(linear(WEIGHT))
    given = step(module, CR(0.1))
    loss, _ = ConstraintTraining(0.0, 1.0, attack=FGSM(), logic=Goedel(scale=0.5)).loss(
        None, given
    )
    z = module(worst_points(WEIGHT, given.x, given.labels, 0.1))
    gaps = z[range(5), given.labels] - z[range(5), 1 - given.labels]
    torch.testing.assert_close(loss, (1 - 1 / (1 + torch.relu(-gaps) / 0.5)).mean())


def test_constraint_training_with_reference_outputs():
    # z1 - z0 grows by 6 (0.6 at the corner), and each output is allowed a change of 0.1.
    module = Watched(linear([[3.0, 0.0], [-3.0, 0.0]]))
    given = step(module, StandardRobustness(0.1, delta=0.1))
    loss, _ = ConstraintTraining(0.0, 1.0).loss(None, given)
    torch.testing.assert_close(loss, torch.tensor(0.4), rtol=1e-4, atol=1e-4)
    # The reference outputs are part of the gradient: only weights count, not biases.
    loss.backward()
    assert module.layers[0].bias.grad.abs().max() < 1e-6
    assert module.layers[0].weight.grad.abs().max() > 0.05


def test_constraint_training_with_distances():
    module = Watched(linear([[3.0, 0.0], [-3.0, 0.0]]))
    given = step(module, LipschitzRobustness(0.1, lipschitz=2.0))
    loss, _ = ConstraintTraining(0.0, 1.0, attack=PGD(20)).loss(None, given)
    # Slope 3 against 2: both rows are short by (3 - 2) times the distance 0.1.
    torch.testing.assert_close(loss, torch.tensor(0.2), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("reference", ["label", "prediction"])
def test_constraint_training_refers_to_label_or_prediction(reference):
    # A network that is confidently wrong everywhere.
    module = Watched(linear([[0.0, 0.0], [0.0, 0.0]], (9.0, 0.0)))
    property = StrongClassificationRobustness(0.1, eta=0.6, reference=reference)
    given = step(module, property)
    given.labels.fill_(1)
    loss, _ = ConstraintTraining(0.0, 1.0, logic=DL2()).loss(None, given)
    if reference == "prediction":
        assert loss == 0
    else:
        torch.testing.assert_close(
            loss.item(), 9 + np.log1p(np.exp(-9)) + np.log(0.6), rtol=1e-5, atol=1e-5
        )


@pytest.mark.parametrize(
    ("epoch", "share"), [(0, 0.25), (1, 0.5), (2, 0.75), (3, 1.0), (4, 1.0), (50, 1.0)]
)
def test_a_ramp_raises_beta_in_equal_steps(epoch, share):
    module = Watched(linear(WEIGHT))
    regime = ConstraintTraining(0.0, 1.0, attack=FGSM(), ramp_epochs=4)
    full, _ = clone(regime).set_params(ramp_epochs=0).loss(None, step(module, CR(0.1)))
    loss, _ = regime.loss(None, step(module, CR(0.1), epoch=epoch))
    torch.testing.assert_close(loss, share * full)


def gradient(module, loss):
    parts = torch.autograd.grad(loss, list(module.parameters()), retain_graph=True)
    return torch.cat([part.flatten() for part in parts])


@pytest.mark.parametrize(("alpha", "beta"), [(1.0, 1.0), (2.0, 0.3)])
def test_balance_by_gradient_norms(alpha, beta):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = Watched(torch.nn.Linear(2, 8), torch.nn.Tanh(), torch.nn.Linear(8, 2))
    regime = ConstraintTraining(alpha, beta, attack=FGSM(), balance="gradient-norm")
    given = step(module, CR(0.3))
    fixed = clone(regime).set_params(balance="fixed", alpha=0.0, beta=1.0)
    constraint = gradient(module, fixed.loss(None, given)[0])
    task = gradient(module, task_loss(module, given.x, given.labels))
    balanced = gradient(module, regime.loss(None, given)[0])
    # The part of the property is as long as beta times the part of the task.
    expected = alpha * task + beta * constraint * task.norm() / constraint.norm()
    torch.testing.assert_close(balanced, expected, rtol=1e-4, atol=1e-6)


def test_balance_where_the_property_holds_everywhere():
    module = Watched(linear([[50.0, 0.0], [-50.0, 0.0]], (0.0, 0.0)))
    given = step(module, CR(0.01))
    given.labels.zero_()
    loss, _ = ConstraintTraining(attack=FGSM(), balance="gradient-norm").loss(None, given)
    torch.testing.assert_close(loss, task_loss(module, given.x, given.labels))
