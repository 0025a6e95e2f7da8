"""The fast minimum-norm attack reaches closed forms, and radii that a complete verifier proves."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import clone

from skrobust import TorchClassifier
from skrobust.attacks import FastMinimumNorm, LinearBoundary, Target
from skrobust.attacks._minimum_norm import _nearest_rows, _reach
from skrobust.pointwise import pointwise_robustness
from skrobust.properties import (
    ClassificationRobustness,
    LipschitzRobustness,
    StandardRobustness,
)
from tests.attacks._nets import Counting, generator, linear_net, rows, small_net


def _linear(weight, bias):
    layer = torch.nn.Linear(*np.shape(weight)[::-1]).requires_grad_(False)
    layer.weight.copy_(torch.as_tensor(weight))
    layer.bias.copy_(torch.as_tensor(bias))
    return layer


def _relu_net(seed=0, n_features=3, n_classes=3):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        layers = torch.nn.Linear(n_features, 8), torch.nn.ReLU(), torch.nn.Linear(8, n_classes)
        return torch.nn.Sequential(*layers).requires_grad_(False)


@pytest.mark.parametrize(("norm", "expected"), [("linf", 0.1), ("l2", 0.14)])
def test_two_features_by_hand(norm, expected):
    # 3 x1 + 4 x2 has to rise by 0.7: by 0.7 / (3 + 4) in both, or by 0.7 / 5 along (3, 4).
    network = _linear([[0.0, 0.0], [3.0, 4.0]], [0.0, -5.0])
    x = torch.tensor([[0.5, 0.7]])
    property = ClassificationRobustness(0.5, norm=norm, bounds=None)
    found = FastMinimumNorm().closest(Target(network, property, x, torch.tensor([0])))
    assert found.broken.all()
    assert property.ball(x).distance(found.points).item() == pytest.approx(expected, rel=1e-4)


def test_box_takes_its_share_by_hand():
    # s = x1 + x2 - 1.8 has to rise by 0.4; x1 has room for 0.1 only: the point is (1, 0.8).
    network = _linear([[0.0, 0.0], [1.0, 1.0]], [0.0, -1.8])
    x, labels = torch.tensor([[0.9, 0.5]]), torch.tensor([0])
    for norm in ("linf", "l2"):
        target = Target(network, ClassificationRobustness(0.6, norm=norm), x, labels)
        found = FastMinimumNorm().closest(target)
        torch.testing.assert_close(found.points[:, 1], torch.tensor([0.8]), rtol=0, atol=2e-3)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), norm=st.sampled_from(["linf", "l2"]))
def test_linear_networks_are_solved(seed, norm):
    network, x = linear_net(4, seed), rows(5, seed).double()
    property = ClassificationRobustness(100.0, norm=norm, bounds=None)
    labels = torch.zeros(5, dtype=torch.int64)
    found = FastMinimumNorm().closest(Target(network, property, x, labels))
    slope = network.weight[0] - network.weight[1:]
    values = x @ slope.T + network.bias[0] - network.bias[1:]
    lengths = values / torch.linalg.vector_norm(slope, ord=1 if norm == "linf" else 2, dim=1)
    distance = property.ball(x).distance(found.points)
    torch.testing.assert_close(distance, lengths.amin(dim=1), rtol=1e-6, atol=0)


def test_as_close_as_a_complete_verifier_proves():
    network = _relu_net()
    X = np.random.default_rng(0).uniform(0.1, 0.9, (3, 3)).astype(np.float32)
    exact = pointwise_robustness(
        TorchClassifier(network, 3), X, method="exact", precision=1e-4, random_state=0
    )
    property, x = ClassificationRobustness(1.0, reference="prediction"), torch.as_tensor(X)
    found = FastMinimumNorm(100).closest(Target(network, property, x))
    distance = property.ball(x).distance(found.points).numpy()
    is_near = found.broken.numpy()
    assert (distance >= exact.lower - 1e-6)[is_near].all()
    assert np.isfinite(exact.radius).any()
    ratio = distance[is_near] / exact.radius[is_near]
    assert np.median(ratio) == pytest.approx(1.0, abs=1e-3)


@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 1000),
    norm=st.sampled_from(["linf", "l2"]),
    epsilon=st.sampled_from([0.3, 0.0, (0.0, 0.5, 0.2, 0.4)]),
    kind=st.sampled_from([ClassificationRobustness, StandardRobustness, LipschitzRobustness]),
)
def test_points_stay_inside_and_are_broken(seed, norm, epsilon, kind):
    network, x = small_net(seed=seed), rows(8, seed)
    epsilon = np.array(epsilon) if isinstance(epsilon, tuple) else epsilon
    property = kind(epsilon, norm=norm)
    target = Target(network, property, x, network(x).argmax(dim=1))
    for outcome in (FastMinimumNorm(8).closest(target), FastMinimumNorm(8).search(target)):
        ball = property.ball(x)
        assert ((outcome.points >= ball.lower) & (outcome.points <= ball.upper)).all()
        torch.testing.assert_close(ball.project(outcome.points), outcome.points)
        assert torch.equal(target.outcome_at(outcome.points).broken, outcome.broken)
        assert (ball.distance(outcome.points) <= _reach(ball) * (1 + 1e-6)).all()


def test_rows_in_turn_by_hand():
    # Rows fall by 1, 4 and 0.5 on the way up; they are 1, 2 and 1 away from zero.
    network = _linear([[0.0], [1.0], [4.0], [0.5]], [0.0, -1.0, -2.0, -1.0])
    property = ClassificationRobustness(3.0, bounds=None)
    target = Target(network, property, torch.zeros(1, 1), torch.tensor([0]))
    assert _nearest_rows(target).tolist() == [[1, 0, 2]]


def test_targets_say_how_many_rows_are_followed():
    network, x = Counting(small_net(5)), rows(6)
    property = ClassificationRobustness(0.5, reference="prediction")

    def calls(targets):
        network.rows.clear()
        FastMinimumNorm(3, targets=targets).attempt(Target(network, property, x))
        return len(network.rows)

    each = calls(2) - calls(1)
    assert each == 4  # three steps, and the last point
    assert calls("all") == calls(4) == calls(1000) == calls(1) + 3 * each


def test_more_rows_are_never_farther():
    network, x = small_net(6, seed=2), rows(20, 2)
    property = ClassificationRobustness(0.9, norm="l2", reference="prediction")
    target = Target(network, property, x)
    one, every = (FastMinimumNorm(10, targets=k).search(target) for k in (1, "all"))
    near, far = target.ball.distance(every.points), target.ball.distance(one.points)
    assert (every.broken | ~one.broken).all()
    assert (near <= far)[one.broken].all()


def test_steps_bend_around_what_the_linearization_does_not_show():
    """A boundary that curves: the closest point in L2 is not where the gradient points to."""

    def network(x):
        return torch.cat([1 - (x[:, :1] - 0.2) * x[:, 1:] * 4, torch.zeros_like(x[:, :1])], dim=1)

    x, labels = torch.tensor([[0.5, 0.3]]), torch.tensor([0])
    target = Target(network, ClassificationRobustness(1.0, norm="l2"), x, labels)
    first = LinearBoundary(1).closest(target)
    found = FastMinimumNorm(100).closest(target)
    # Lagrange: (u, v) = (x1 - 0.2, x2) with u v = 1/4, closest to (0.3, 0.3): u = v = 1/2.
    torch.testing.assert_close(found.points, torch.tensor([[0.7, 0.5]]), rtol=0, atol=5e-3)
    assert target.ball.distance(found.points) <= target.ball.distance(first.points) + 1e-6


def test_random_starts_are_never_farther():
    network, x = small_net(5, seed=3), rows(20, 3)
    property = ClassificationRobustness(0.9, reference="prediction")
    target = Target(network, property, x)
    once = FastMinimumNorm(4).search(target)
    more = FastMinimumNorm(4, random_starts=2).search(target, generator=generator())
    again = FastMinimumNorm(4, random_starts=2).search(target, generator=generator())
    assert torch.equal(more.points, again.points)
    assert (more.broken | ~once.broken).all()
    near, far = target.ball.distance(more.points), target.ball.distance(once.points)
    assert (near <= far)[once.broken].all()
    assert (near < far)[once.broken].any()


def test_no_randomness():
    network, x = small_net(), rows(5)
    target = Target(network, ClassificationRobustness(0.5, reference="prediction"), x)
    first, second = (FastMinimumNorm(5).points(target, generator=generator(k)) for k in (0, 1))
    assert torch.equal(first, second)


def test_parameters():
    attack = clone(FastMinimumNorm(5, targets="all", step_size=0.5, rate=0.1)).check()
    assert attack.get_params() == {
        "n_steps": 5,
        "targets": "all",
        "step_size": 0.5,
        "rate": 0.1,
        "random_starts": 0,
    }
    for bad, message in (
        (FastMinimumNorm(random_starts=-1), "Got random_starts=-1, but expected an integer"),
        (FastMinimumNorm(0), "Got n_steps=0, but expected an integer of at least 1"),
        (FastMinimumNorm(targets=0), "Got targets=0, but expected an integer of at least 1"),
        (FastMinimumNorm(targets=1.5), "Got targets=1.5, but expected an integer"),
        (
            FastMinimumNorm(targets="runner-up"),
            "Got targets='runner-up', but expected one of",
        ),
        (
            FastMinimumNorm(step_size=0.0),
            "Got step_size=0.0, but expected a finite number",
        ),
        (FastMinimumNorm(rate=1.0), r"Got rate=1.0, but expected a finite number in \(0, 1\)"),
    ):
        with pytest.raises(ValueError, match=message):
            bad.check()
