"""FGSM, PGD and AutoPGD against closed forms of linear models; who leaves the batch."""

import numpy as np
import pytest
import torch

from skrobust.attacks import FGSM, PGD, AutoPGD
from skrobust.attacks._auto_pgd import _checkpoints
from skrobust.properties import ClassificationRobustness
from tests._asserts import assert_inside_ball
from tests.attacks.test_base import Counting, generator, rows, small_net

STRONG = [
    PGD(20, schedule="constant"),
    PGD(30, schedule="linear", random_start=False),
    PGD(30, schedule="cosine", random_start=False),
    AutoPGD(30),
]
IDS = ["pgd", "linear", "cosine", "auto"]


def linear_net(n_classes=2, seed=0):
    net = torch.nn.Linear(4, n_classes, dtype=torch.float64).requires_grad_(False)
    net.weight.copy_(torch.tensor(np.random.default_rng(seed).normal(size=(n_classes, 4))))
    # A bias under which no label is broken within reach.
    net.bias.zero_()[0] = 20.0
    return net


def worst_margin(net, x, epsilon, norm, bounds=None):
    """Closed form: the lowest logit difference in the ball, for each other class."""
    weight = (net.weight[0] - net.weight[1:]).numpy()
    bias = (net.bias[0] - net.bias[1:]).numpy()
    x, epsilon = x.numpy(), np.broadcast_to(epsilon, 4)
    margins = []
    for w, b in zip(weight, bias, strict=True):
        if norm == "l2":
            margins.append(x @ w + b - np.linalg.norm(w * epsilon))
            continue
        low, high = x - epsilon, x + epsilon
        if bounds is not None:
            low, high = low.clip(*bounds), high.clip(*bounds)
        margins.append(np.where(w > 0, low, high) @ w + b)
    return np.min(margins, axis=0)


@pytest.mark.parametrize("bounds", [None, (0.0, 1.0)])
@pytest.mark.parametrize("epsilon", [0.1, [0.2, 0.0, 0.3, 0.05]], ids=["scalar", "features"])
@pytest.mark.parametrize("attack", [FGSM(), *STRONG], ids=["fgsm", *IDS])
def test_linf_reaches_the_worst_corner(attack, epsilon, bounds):
    net, x = linear_net(), rows().double()
    property = ClassificationRobustness(epsilon, bounds=bounds)
    labels = torch.zeros(len(x), dtype=torch.int64)
    for stop in (True, False):
        outcome = attack.run(
            net, property, x, labels, stop_when_broken=stop, generator=generator()
        )
        expected = worst_margin(net, x, epsilon, "linf", bounds)
        np.testing.assert_allclose(outcome.margins, expected, rtol=1e-9)
        assert_inside_ball(outcome.points, x, property)


@pytest.mark.parametrize("epsilon", [0.1, [0.2, 0.0, 0.3, 0.05]], ids=["scalar", "features"])
@pytest.mark.parametrize("attack", [FGSM(), *STRONG], ids=["fgsm", *IDS])
def test_l2_reaches_the_worst_point(attack, epsilon):
    net, x = linear_net(), rows().double()
    property = ClassificationRobustness(epsilon, norm="l2", bounds=None)
    labels = torch.zeros(len(x), dtype=torch.int64)
    outcome = attack.run(net, property, x, labels, generator=generator())
    expected = worst_margin(net, x, epsilon, "l2")
    clean = worst_margin(net, x, 0.0, "l2")
    # No lower than the closed form, and nearly the whole way there.
    assert (outcome.margins.numpy() >= expected - 1e-9).all()
    gone = (clean - outcome.margins.numpy()) / (clean - expected)
    assert gone.min() > (0.999 if isinstance(attack, FGSM) else 0.95)


@pytest.mark.parametrize("attack", STRONG, ids=IDS)
def test_several_classes(attack):
    net, x = linear_net(5), rows().double()
    property = ClassificationRobustness(0.1, bounds=None)
    labels = torch.zeros(len(x), dtype=torch.int64)
    outcome = attack.run(net, property, x, labels, generator=generator())
    expected = worst_margin(net, x, 0.1, "linf")
    assert (outcome.margins.numpy() >= expected - 1e-9).all()
    # A greedy descent of a minimum of linear functions may end at the second worst class.
    assert np.mean(outcome.margins.numpy() <= expected + 1e-6) > 0.9


@pytest.mark.parametrize("attack", STRONG, ids=IDS)
def test_exactly_the_samples_that_can_be_broken_are(attack):
    net, x = linear_net(), rows(100).double()
    net.bias.zero_()
    difference = net.weight[0] - net.weight[1]
    net.bias[0] = -(x @ difference).median()
    labels = net(x).argmax(dim=1)
    distance = (net(x)[:, 0] - net(x)[:, 1]).abs()
    for norm, order in (("linf", 1), ("l2", 2)):
        property = ClassificationRobustness(0.05, norm=norm, bounds=None)
        outcome = attack.run(net, property, x, labels, generator=generator())
        reach = 0.05 * torch.linalg.vector_norm(difference, ord=order)
        clear = (distance / reach - 1).abs() > 0.03
        assert torch.equal(outcome.broken[clear], (distance <= reach)[clear])
        assert 5 < outcome.broken.sum() < 95


@pytest.mark.parametrize(
    "attack", [PGD(8), PGD(8, n_restarts=3), AutoPGD(8), AutoPGD(8, n_restarts=3)], ids=repr
)
def test_broken_samples_leave_the_batch(attack):
    net, x = Counting(small_net()), rows(300)
    labels = net.module(x).argmax(dim=1)
    outcome = attack.run(net, ClassificationRobustness(0.1), x, labels, generator=generator())
    n_left = 300 - int(outcome.broken.sum())
    assert 0 < n_left < 300
    # The batch only shrinks, also from one restart to the next, to about what is left.
    assert net.rows[0] == 300
    assert net.rows == sorted(net.rows, reverse=True)
    assert n_left <= net.rows[-1] <= 1.3 * n_left
    n_calls = len(net.rows)
    assert n_calls >= 1 + 9 * attack.n_restarts
    assert sum(net.rows) < 0.9 * 300 * n_calls


@pytest.mark.parametrize("attack", [PGD(6), AutoPGD(6)], ids=repr)
def test_without_stopping_every_sample_takes_all_steps(attack):
    net, x = Counting(small_net()), rows(50)
    labels = net.module(x).argmax(dim=1)
    property = ClassificationRobustness(0.2)
    outcome = attack.run(net, property, x, labels, stop_when_broken=False, generator=generator())
    assert set(net.rows) == {50}
    assert 6 <= len(net.rows) <= 9
    stopped = attack.run(net, property, x, labels, generator=generator())
    # Those that stop do so early, at a higher margin.
    assert outcome.margins[stopped.broken].mean() < stopped.margins[stopped.broken].mean()


def test_nothing_left_ends_the_run():
    net, x = Counting(small_net()), rows(20)
    labels = net.module(x).argmax(dim=1)
    # Every point outside the reference is broken.
    broken_everywhere = ClassificationRobustness(0.9, bounds=None, norm="linf")
    for attack in (PGD(50, n_restarts=9), AutoPGD(50, n_restarts=9)):
        net.rows.clear()
        outcome = attack.run(net, broken_everywhere, x, labels, generator=generator())
        if outcome.broken.all():
            assert len(net.rows) < 100


@pytest.mark.parametrize("objective", ["margin", "cross-entropy"])
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_the_longer_attacks_are_the_stronger(objective, norm):
    net, x = small_net(10, seed=3), rows(300)
    labels = net(x).argmax(dim=1)
    property = ClassificationRobustness(0.06 if norm == "linf" else 0.1, norm=norm)
    attacks = [
        FGSM(objective),
        PGD(40, objective=objective),
        AutoPGD(40, n_restarts=2, objective=objective),
    ]
    broken = [
        a.run(net, property, x, labels, generator=generator()).broken.sum().item() for a in attacks
    ]
    assert broken[0] <= broken[1] + 2
    assert broken[1] <= broken[2] + 2
    assert broken[2] > 10


@pytest.mark.parametrize("n_steps", [1, 2, 10, 100])
def test_checkpoints_follow_the_paper(n_steps):
    # p = 0, 0.22, then gaps that shrink by 0.03 down to 0.06.
    shares = [0.22, 0.41, 0.57, 0.70, 0.80, 0.87, 0.93, 0.99]
    expected = [int(np.ceil(round(n_steps * share, 9))) for share in shares]
    assert _checkpoints(n_steps) == expected


def test_auto_pgd_halves_its_step_where_it_oscillates():
    # A valley of width far below the first step: only shrinking steps reach its floor.
    class Valley(torch.nn.Module):
        def forward(self, x):
            depth = (x - 0.537).abs().sum(dim=1, keepdim=True)
            return torch.cat([1 + depth, torch.zeros_like(depth)], dim=1)

    x = torch.full((20, 2), 0.5, dtype=torch.float64)
    labels = torch.zeros(20, dtype=torch.int64)
    property = ClassificationRobustness(0.4)
    outcome = AutoPGD(100).run(
        Valley(), property, x, labels, stop_when_broken=False, generator=generator()
    )
    assert (outcome.margins - 1).max() < 0.02
    fixed = PGD(100, step_size=0.4, schedule="constant").run(
        Valley(), property, x, labels, stop_when_broken=False, generator=generator()
    )
    assert (fixed.margins - 1).mean() > 0.1


def test_auto_pgd_returns_the_best_point_also_when_nothing_breaks():
    class Valley(torch.nn.Module):
        def forward(self, x):
            depth = (x - 0.537).abs().sum(dim=1, keepdim=True)
            return torch.cat([1 + depth, torch.zeros_like(depth)], dim=1)

    x = torch.full((20, 2), 0.5, dtype=torch.float64)
    labels = torch.zeros(20, dtype=torch.int64)
    property = ClassificationRobustness(0.4)
    for n_steps in (3, 7, 12):
        margins = [
            AutoPGD(n_steps)
            .run(Valley(), property, x, labels, stop_when_broken=stop, generator=generator())
            .margins
            for stop in (True, False)
        ]
        assert (margins[0] <= margins[1] + 1e-12).all()


def test_step_sizes_are_in_units_of_the_input():
    net, x = linear_net(), rows().double()
    labels = torch.zeros(len(x), dtype=torch.int64)
    for norm, order in (("linf", torch.inf), ("l2", 2)):
        property = ClassificationRobustness(0.5, norm=norm, bounds=None)
        attack = PGD(3, step_size=0.01, random_start=False, schedule="constant")
        moved = attack.run(net, property, x, labels).points - x
        length = torch.linalg.vector_norm(moved, ord=order, dim=1)
        torch.testing.assert_close(length, torch.full_like(length, 0.03))
        # The linear schedule takes 3/3, 2/3 and 1/3 of the step.
        attack.set_params(schedule="linear")
        moved = attack.run(net, property, x, labels).points - x
        length = torch.linalg.vector_norm(moved, ord=order, dim=1)
        torch.testing.assert_close(length, torch.full_like(length, 0.02))
