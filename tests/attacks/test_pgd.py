"""Projected gradient descent: its steps and schedules."""

import pytest
import torch

from skrobust.attacks import PGD, Target
from skrobust.properties import ClassificationRobustness
from tests.attacks._nets import generator, linear_net, rows, small_net


def test_step_sizes_are_in_units_of_the_input():
    net, x = linear_net(), rows().double()
    labels = torch.zeros(len(x), dtype=torch.int64)
    for norm, order in (("linf", torch.inf), ("l2", 2)):
        property = ClassificationRobustness(0.5, norm=norm, bounds=None)
        attack = PGD(3, step_size=0.01, random_start=False, schedule="constant")
        moved = attack.search(Target(net, property, x, labels)).points - x
        length = torch.linalg.vector_norm(moved, ord=order, dim=1)
        torch.testing.assert_close(length, torch.full_like(length, 0.03))
        # The linear schedule takes 3/3, 2/3 and 1/3 of the step.
        attack.set_params(schedule="linear")
        moved = attack.search(Target(net, property, x, labels)).points - x
        length = torch.linalg.vector_norm(moved, ord=order, dim=1)
        torch.testing.assert_close(length, torch.full_like(length, 0.02))


def test_default_steps_reach_across_the_ball():
    # The first step is epsilon / 2, or 2.5 epsilon / n_steps where that is more.
    net, x = linear_net(), rows(5).double()
    property = ClassificationRobustness(0.02, bounds=None)
    target = Target(net, property, x, torch.zeros(5, dtype=torch.int64))
    for n_steps in (1, 2, 3, 40):
        moved = PGD(n_steps, random_start=False).points(target) - x
        torch.testing.assert_close(moved.abs(), torch.full_like(x, 0.02))


@pytest.mark.parametrize("schedule", ["linear", "cosine", "constant"])
def test_the_last_steps_are_the_shortest(schedule):
    attack = PGD(10, schedule=schedule)
    factors = [attack._shrunk(step) for step in range(10)]
    assert factors[0] == 1 and factors == sorted(factors, reverse=True)
    assert (factors[-1] < 0.2) is (schedule != "constant")


def test_starts_are_random_unless_refused():
    net, x = small_net(), rows(5)
    target = Target(net, ClassificationRobustness(0.1), x, net(x).argmax(dim=1))
    attack = PGD(1, step_size=1e-9)
    first, second = (attack.points(target, generator=generator(seed)) for seed in (1, 2))
    assert (first - second).abs().max() > 0.01
    attack.set_params(random_start=False)
    assert (attack.points(target) - x).abs().max() < 1e-6


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_points_can_stop_at_the_violation(norm):
    net, x = linear_net(), rows(20).double()
    net.bias.zero_()
    property = ClassificationRobustness(0.2, norm=norm, bounds=None)
    target = Target(net, property, x, net(x).argmax(dim=1))
    options = {"step_size": 0.01, "schedule": "constant", "random_start": False}
    margins = {
        stop: target.outcome_at(PGD(20, stop_at_violation=stop, **options).points(target)).margins
        for stop in (False, True)
    }
    broken = margins[False] <= 0
    assert 0 < broken.sum() < 20
    # The same samples are broken; those that stop are within one step of the boundary.
    assert torch.equal(margins[True] <= 0, broken)
    before = PGD(1, **options).points(target)
    change = (target.outcome_at(before).margins - target.outcome_at(x).margins).abs()
    assert (margins[True] >= -1.01 * change)[broken].all()
    assert (margins[False] < margins[True])[broken].any()
    torch.testing.assert_close(margins[False][~broken], margins[True][~broken])


def test_stop_at_violation_is_a_flag():
    with pytest.raises(ValueError, match="Got stop_at_violation=1, but expected True or False"):
        PGD(stop_at_violation=1).check()
