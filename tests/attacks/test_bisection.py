"""An attack that takes the whole ball comes close by attacking in smaller ones."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from skrobust.attacks import FGSM, PGD, AutoPGD, Target
from skrobust.attacks._bisection import bisect_radius
from skrobust.attacks._boundary import pull_to_boundary
from skrobust.properties import ClassificationRobustness, LipschitzRobustness
from tests.attacks._nets import generator, linear_net, rows, small_net


@pytest.mark.parametrize("attack", [FGSM(), PGD(), AutoPGD(20)], ids=lambda a: type(a).__name__)
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_linear_networks_are_solved(attack, norm):
    network, x = linear_net(), rows(6).double()
    property = ClassificationRobustness(50.0, norm=norm, bounds=None)
    target = Target(network, property, x, torch.zeros(6, dtype=torch.int64))
    found = attack.closest(target, generator=generator())
    slope = network.weight[0] - network.weight[1:]
    values = x @ slope.T + network.bias[0] - network.bias[1:]
    lengths = values / torch.linalg.vector_norm(slope, ord=1 if norm == "linf" else 2, dim=1)
    assert found.broken.all()
    distance = property.ball(x).distance(found.points)
    torch.testing.assert_close(distance, lengths.amin(dim=1), rtol=1e-2, atol=0)


def test_a_curved_boundary_is_missed_by_the_segment_alone():
    # The gradient of the second feature grows with the distance, and leads away from (0.5, 0.2).
    def network(x):
        return torch.cat([torch.ones_like(x[:, :1]), 2 * x[:, :1] + (x[:, 1:] - 0.2) ** 2], dim=1)

    x, labels = torch.tensor([[0.3, 0.2]]), torch.tensor([0])
    target = Target(network, ClassificationRobustness(0.7, norm="l2"), x, labels)
    once = pull_to_boundary(target, PGD().search(target, generator=generator()))
    again = PGD().closest(target, generator=generator())
    near, far = target.ball.distance(again.points), target.ball.distance(once.points)
    assert near.item() == pytest.approx(0.2, abs=5e-3)
    assert near < far


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 1000), norm=st.sampled_from(["linf", "l2"]))
def test_never_farther_than_before_and_inside(seed, norm):
    network, x = small_net(seed=seed), rows(8, seed)
    property = ClassificationRobustness([0.0, 0.5, 0.3, 0.4], norm=norm, reference="prediction")
    target, attack = Target(network, property, x), PGD(5)
    once = pull_to_boundary(target, attack.search(target, generator=generator(seed)))
    again = bisect_radius(attack, target, once, generator(seed))
    assert torch.equal(again.broken, once.broken)
    assert (target.ball.distance(again.points) <= target.ball.distance(once.points)).all()
    assert torch.equal(target.outcome_at(again.points).broken, again.broken)
    torch.testing.assert_close(target.ball.project(again.points), again.points)


def test_what_is_not_broken_is_left_alone():
    network, x = linear_net(), rows(3).double()
    target = Target(network, ClassificationRobustness(0.01), x, torch.zeros(3, dtype=torch.int64))
    outcome = PGD(3).search(target, generator=generator())
    assert not outcome.broken.any()
    assert bisect_radius(PGD(3), target, outcome) is outcome


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("attack", [FGSM(), PGD(5, n_restarts=3)], ids=lambda a: type(a).__name__)
def test_violations_of_lipschitz_robustness_outlast_another_batch(attack, dtype):
    # All rows hold with equality at the reference: radii could be halved down to rounding.
    network, x = small_net().to(dtype), 4 * rows(40).to(dtype)
    network[0].weight.mul_(3)
    network[2].weight.mul_(3)
    target = Target(network, LipschitzRobustness(0.2, lipschitz=2.0, bounds=None), x)
    found = attack.closest(target, generator=generator())
    assert found.broken.sum() > 5
    index = found.broken.nonzero().squeeze(1)
    alone = [target[[i]].outcome_at(found.points[[i]]).broken.item() for i in index.tolist()]
    assert all(alone)
