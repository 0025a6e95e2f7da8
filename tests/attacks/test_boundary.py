"""Pulled points are broken, as close as the segment allows, and inside the ball."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import one_hot

from skrobust.attacks import FGSM, PGD, AutoPGD, LinearBoundary, Outcome, Target, UniformSampling
from skrobust.attacks._boundary import closer, pull_to_boundary
from skrobust.properties import (
    ClassificationRobustness,
    LipschitzRobustness,
    StandardRobustness,
    StrongClassificationRobustness,
)


def _network(seed=0, n_features=6, n_classes=3):
    torch.manual_seed(seed)
    return torch.nn.Sequential(
        torch.nn.Linear(n_features, 20), torch.nn.ReLU(), torch.nn.Linear(20, n_classes)
    ).requires_grad_(False)


def _threshold(x):
    """Class 0 up to 0.5, class 1 above."""
    return torch.cat([torch.zeros_like(x), x - 0.5], dim=1)


def _everywhere(target, points):
    with torch.no_grad():
        return target.assess(points, target.network(points))


def test_pull_by_hand():
    target = Target(
        _threshold,
        ClassificationRobustness(0.5),
        torch.tensor([[0.2], [0.2], [0.7]]),
        torch.tensor([0, 0, 0]),
    )
    found = _everywhere(target, torch.tensor([[0.7], [0.3], [0.9]]))
    pulled = pull_to_boundary(target, found)
    # Pulled to the threshold; not broken and left alone; broken at the reference already.
    torch.testing.assert_close(pulled.points, torch.tensor([[0.5], [0.3], [0.7]]))
    assert pulled.broken.tolist() == [True, False, True]
    assert pulled.points[1].item() == found.points[1].item()
    assert pulled.points[2].item() == target.x[2].item()
    assert pulled.margins[0] <= 0
    assert pulled.margins[1] == found.margins[1]


def test_pull_stops_between_neighboring_numbers():
    calls = []

    def network(x):
        calls.append(len(x))
        return _threshold(x)

    target = Target(
        network, ClassificationRobustness(0.5), torch.tensor([[0.2]]), torch.tensor([0])
    )
    pulled = pull_to_boundary(target, _everywhere(target, torch.tensor([[0.7]])), n_steps=1000)
    assert len(calls) < 40
    assert pulled.points.item() == pytest.approx(0.5, abs=1e-6)


def test_no_step_leaves_the_point_and_fewer_steps_are_farther():
    target = Target(
        _threshold, ClassificationRobustness(0.5), torch.tensor([[0.2]]), torch.tensor([0])
    )
    found = _everywhere(target, torch.tensor([[0.7]]))
    assert pull_to_boundary(target, found, n_steps=0).points.item() == found.points.item()
    # Fractions 1/2 (at 0.45, holds), 3/4 (at 0.575, broken).
    assert pull_to_boundary(target, found, n_steps=2).points.item() == pytest.approx(0.575)


@pytest.mark.parametrize("n_steps", [-1, 2.5, "many"])
def test_refuses_steps(n_steps):
    target = Target(
        _threshold, ClassificationRobustness(0.5), torch.tensor([[0.2]]), torch.tensor([0])
    )
    found = _everywhere(target, torch.tensor([[0.7]]))
    with pytest.raises(ValueError, match=r"Got n_steps=.*, but expected an integer"):
        pull_to_boundary(target, found, n_steps=n_steps)


def test_only_broken_samples_reach_the_network():
    calls = []

    def network(x):
        calls.append(len(x))
        return _threshold(x)

    x = torch.tensor([[0.2], [0.1], [0.0]])
    target = Target(network, ClassificationRobustness(0.5), x, torch.zeros(3, dtype=torch.int64))
    found = _everywhere(target, torch.tensor([[0.4], [0.6], [0.4]]))
    target.conclusion  # noqa: B018, so that only the pull is counted
    calls.clear()
    pull_to_boundary(target, found)
    assert set(calls) == {1}


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    norm=st.sampled_from(["linf", "l2"]),
    kind=st.sampled_from(["CR", "SR", "SCR"]),
)
def test_pulled_points_are_on_the_boundary(seed, norm, kind):
    network = _network(seed).double()
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand((20, 6), generator=generator, dtype=torch.float64)
    property = {
        "CR": ClassificationRobustness(0.6, norm=norm, reference="prediction"),
        "SR": StandardRobustness(0.6, delta=0.05, norm=norm),
        "SCR": StrongClassificationRobustness(0.6, eta=0.3, norm=norm, reference="prediction"),
    }[kind]
    target = Target(network, property, x)
    found = FGSM().attempt(target)
    pulled = pull_to_boundary(target, found)
    assert torch.equal(pulled.broken, found.broken)
    ball, index = target.ball, pulled.broken.nonzero().squeeze(1)
    assert ((pulled.points >= ball.lower) & (pulled.points <= ball.upper)).all()
    assert (ball.distance(pulled.points) <= ball.distance(found.points)).all()
    seen = _everywhere(target[index], pulled.points[index])
    assert seen.broken.all()
    # Back towards the reference by what 30 halvings of the way cannot tell, the property holds.
    part = target[index]
    at_reference = part.assess(part.x, part.reference_logits).broken
    share = 2.0**-29 * ball.distance(found.points) / ball.distance(pulled.points)
    back = torch.lerp(pulled.points[index], part.x, share[index].clamp(1e-6, 1.0)[:, None])
    assert not _everywhere(part, back).broken[~at_reference].any()
    assert torch.equal(pulled.points[index][at_reference], part.x[at_reference])


def test_closer_prefers_broken_then_near_then_low_margin():
    ball = ClassificationRobustness(1.0, bounds=None).ball(torch.zeros((5, 1)))

    def outcome(points, margins, broken):
        return Outcome(*(torch.tensor(v) for v in (points, margins, broken)))

    first = outcome(
        [[0.5], [0.5], [0.5], [0.5], [0.5]],
        [-1.0, -1.0, 1.0, 1.0, -1.0],
        [True, True, False, False, True],
    )
    second = outcome(
        [[0.9], [0.1], [0.9], [0.9], [0.1]],
        [-9.0, -0.1, -1.0, 0.5, 0.5],
        [True, True, True, False, False],
    )
    best, taken = closer(ball, first, second)
    assert taken.tolist() == [False, True, True, True, False]
    assert best.points.flatten().tolist() == pytest.approx([0.5, 0.1, 0.9, 0.9, 0.5])
    assert best.margins.tolist() == pytest.approx([-1.0, -0.1, -1.0, 0.5, -1.0])
    assert best.broken.tolist() == [True, True, True, False, True]


@pytest.mark.parametrize(
    "attack",
    [FGSM(), PGD(10), AutoPGD(10), UniformSampling(200), LinearBoundary()],
    ids=lambda attack: type(attack).__name__,
)
def test_every_attack_finds_the_threshold(attack):
    x = torch.tensor([[0.2], [0.45], [0.1], [0.8]])
    labels = torch.tensor([0, 0, 0, 0])
    generator = torch.Generator().manual_seed(0)
    found = attack.closest(
        Target(_threshold, ClassificationRobustness(0.35), x, labels), generator=generator
    )
    assert found.broken.tolist() == [True, True, False, True]
    torch.testing.assert_close(found.points[[0, 1, 3]], torch.tensor([[0.5], [0.5], [0.8]]))
    assert 0.1 <= found.points[2].item() <= 0.45 + 1e-6


def test_reference_is_returned_where_nothing_can_move():
    x = torch.tensor([[0.7], [0.2]])
    found = PGD().closest(
        Target(_threshold, ClassificationRobustness(0.0), x, torch.tensor([0, 0]))
    )
    assert torch.equal(found.points, x)
    assert found.broken.tolist() == [True, False]


def test_more_restarts_come_closer():
    network, x = _network(3), torch.rand((40, 6), generator=torch.Generator().manual_seed(3))
    property = ClassificationRobustness(0.8, reference="prediction")

    def distance(n_restarts):
        generator = torch.Generator().manual_seed(0)
        attack = PGD(20, n_restarts=n_restarts)
        found = attack.closest(Target(network, property, x), generator=generator)
        gaps = property.ball(x).distance(found.points)
        return torch.where(found.broken, gaps, torch.inf)

    one, five = distance(1), distance(5)
    # Bisections with other random starts go other ways, some of them to a farther end.
    assert (five <= one * 1.2).all()
    assert five.mean() < one.mean()
    assert (five < one).any()


def test_one_class_margin_property_that_depends_on_distance():
    # |slope| = 2 everywhere: broken for L = 1 at any distance, for L = 3 nowhere.
    def network(x):
        return torch.cat([2 * x, torch.zeros_like(x)], dim=1)

    x = torch.tensor([[0.5]])
    found = FGSM().closest(Target(network, LipschitzRobustness(0.2, lipschitz=1.0), x))
    assert found.broken.all()
    assert 0 < (found.points - x).abs().item() < 1e-3
    found = FGSM().closest(Target(network, LipschitzRobustness(0.2, lipschitz=3.0), x))
    assert not found.broken.any()


def test_labels_are_enough():
    """A network that shows labels only has no margin near zero, but a boundary all the same."""

    def network(x):
        return one_hot((x[:, 0] > 0.5).long(), 2).to(x.dtype)

    x, labels = torch.tensor([[0.2]]), torch.tensor([0])
    generator = torch.Generator().manual_seed(0)
    property = ClassificationRobustness(0.5)
    found = UniformSampling().closest(Target(network, property, x, labels), generator=generator)
    assert found.points.item() == pytest.approx(0.5, abs=1e-6)
    assert found.points.item() > 0.5
