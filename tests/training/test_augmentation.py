"""Data augmentation: where the samples lie, and what they weigh."""

import pytest
import torch

from skrobust.properties import ClassificationRobustness as CR
from skrobust.training import DataAugmentation
from tests._asserts import assert_inside_ball
from tests.training._steps import WEIGHT, Watched, linear, step, task_loss, worst_points


@pytest.mark.parametrize("sampling", ["uniform", "fgsm"])
@pytest.mark.parametrize("n_extra", [1, 2, 3])
def test_augmentation_adds_samples_of_the_ball(sampling, n_extra):
    module = Watched(linear(WEIGHT))
    given = step(module, CR(0.1))
    loss, logits = DataAugmentation(n_extra, sampling).loss(None, given)
    (seen,) = module.training_inputs
    assert seen.shape == (5 * (1 + n_extra), 2)
    assert torch.equal(seen[:5], given.x)
    extra = seen[5:].reshape(5, n_extra, 2)
    for k in range(n_extra):
        assert_inside_ball(extra[:, k], given.x, CR(0.1), factor=1 + 1e-6)
    assert (extra != given.x.unsqueeze(1)).any()
    # Each with the label of its own input, all with the same weight.
    labels = torch.cat([given.labels, given.labels.repeat_interleave(n_extra)])
    torch.testing.assert_close(loss, task_loss(module, seen, labels))
    torch.testing.assert_close(logits, module(given.x))


def test_fgsm_samples_stand_at_shares_of_epsilon():
    module = Watched(linear(WEIGHT))
    given = step(module, CR(0.1))
    DataAugmentation(2, "fgsm").loss(None, given)
    extra = module.training_inputs[0][5:].reshape(5, 2, 2)
    for k, epsilon in enumerate((0.05, 0.1)):
        expected = worst_points(WEIGHT, given.x, given.labels, epsilon)
        torch.testing.assert_close(extra[:, k], expected)


def test_uniform_samples_are_drawn_anew():
    module = Watched(linear(WEIGHT))
    given = step(module, CR(0.1))
    for _ in range(2):
        DataAugmentation().loss(None, given)
    first, second = module.training_inputs
    assert not torch.equal(first, second)
