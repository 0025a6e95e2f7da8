"""Standard training: the loss of the task, by hand."""

import torch

from skrobust.training import StandardTraining
from tests.training._steps import WEIGHT, Watched, linear, step, task_loss


def test_standard_training_is_the_loss_of_the_task():
    module = Watched(linear(WEIGHT))
    given = step(module)
    loss, logits = StandardTraining().loss(None, given)
    torch.testing.assert_close(loss, task_loss(module, given.x, given.labels))
    torch.testing.assert_close(logits, module(given.x))
    assert torch.equal(module.training_inputs[0], given.x)
