"""Uniform sampling: shares, the worst point, and batches that bound the memory."""

import numpy as np
import pytest
import torch

from skrobust.attacks import Target, UniformSampling
from skrobust.properties import ClassificationRobustness, LipschitzRobustness
from tests._asserts import assert_inside_ball
from tests.attacks._nets import Counting, generator, rows, small_net


def threshold_net(threshold):
    """Class 0 where the first feature is below the threshold."""
    net = torch.nn.Linear(4, 2).requires_grad_(False)
    net.weight.zero_()[1, 0] = 1.0
    net.bias.zero_()[0] = threshold
    return net


def test_shares_are_volumes():
    # The first feature is uniform in [x - 0.1, x + 0.1]: the share below 0.5 is known.
    x = torch.full((5, 4), 0.5)
    x[:, 0] = torch.tensor([0.35, 0.42, 0.5, 0.58, 0.7])
    target = Target(
        threshold_net(0.5), ClassificationRobustness(0.1), x, torch.zeros(5, dtype=torch.int64)
    )
    found = UniformSampling(4000).summary(target, generator())
    np.testing.assert_allclose(found.n_holding / 4000, [1.0, 0.9, 0.5, 0.1, 0.0], atol=0.03)
    assert found.worst.broken.tolist() == [False, True, True, True, True]
    assert found.first_holds[0] and not found.first_holds[4]
    # The worst point is the one with the largest first feature.
    np.testing.assert_allclose(found.worst.points[:, 0], x[:, 0] + 0.1, atol=1e-3)
    torch.testing.assert_close(found.worst.margins, 0.5 - found.worst.points[:, 0])


def test_the_first_sample_is_one_draw_for_each_reference():
    x = torch.full((4000, 4), 0.5)
    labels = torch.zeros(4000, dtype=torch.int64)
    target = Target(threshold_net(0.45), ClassificationRobustness(0.1), x, labels)
    found = UniformSampling(2).summary(target, generator())
    assert found.first_holds.float().mean() == pytest.approx(0.25, abs=0.03)


@pytest.mark.parametrize("batch_size", [1, 7, 40, 10_000])
def test_batches_bound_what_the_network_sees(batch_size):
    net, x = Counting(small_net()), rows(13)
    labels = net.module(x).argmax(dim=1)
    target = Target(net, ClassificationRobustness(0.2), x, labels)
    found = UniformSampling(20, batch_size=batch_size).summary(target, generator())
    assert max(net.rows) <= batch_size
    # Beside the points, the reference outputs, at most once for each batch of points.
    assert 13 * 20 <= sum(net.rows) <= 13 * 20 + 13 * -(-20 // batch_size)
    assert (found.n_holding <= 20).all()
    assert torch.equal(found.worst.broken, found.n_holding < 20)
    assert_inside_ball(found.worst.points, x, target.property)
    torch.testing.assert_close(
        found.worst.margins,
        torch.as_tensor(target.property.margin(net(found.worst.points), labels=labels)).float(),
    )


def test_blocks_cover_every_point_once():
    x = rows(5)
    target = Target(small_net(), LipschitzRobustness(0.2), x)
    seen = torch.zeros(5, dtype=torch.int64)
    for index, outcome in UniformSampling(10, batch_size=4).sample(target, generator()):
        k, r = outcome.broken.shape
        assert outcome.points.shape == (k, r, 4)
        assert outcome.margins.shape == (k, r)
        seen[index] += r
    assert seen.tolist() == [10] * 5


def test_more_samples_find_lower_margins():
    net, x = small_net(), rows(50)
    labels = net(x).argmax(dim=1)
    property = ClassificationRobustness(0.05)
    means = [
        UniformSampling(n)
        .search(Target(net, property, x, labels), generator=generator())
        .margins.mean()
        for n in (1, 10, 1000)
    ]
    assert means[0] > means[1] > means[2]


def test_small_integers_of_numpy():
    net, x = small_net(), rows(3)
    target = Target(net, ClassificationRobustness(0.2), x, net(x).argmax(dim=1))
    small, plain = (
        UniformSampling(kind(3), batch_size=kind(100)).summary(target, generator())
        for kind in (np.int8, int)
    )
    assert torch.equal(small.worst.points, plain.worst.points)
    assert torch.equal(small.n_holding, plain.n_holding)
