"""LinearBoundary is exact for linear networks, and honest for others."""

import cvxpy as cp
import numpy as np
import pytest
import torch
from scipy.optimize import linprog
from sklearn.base import clone

from skrobust.attacks import FGSM, LinearBoundary, Target
from skrobust.attacks._linear import _closest_move
from skrobust.exceptions import AttackWarning
from skrobust.properties import (
    ClassificationRobustness,
    LinearRobustness,
    LipschitzRobustness,
    StandardRobustness,
    StrongClassificationRobustness,
)


def _linear(weight, bias, dtype=torch.float64):
    layer = torch.nn.Linear(*np.shape(weight)[::-1], dtype=dtype).requires_grad_(False)
    layer.weight.copy_(torch.as_tensor(weight))
    layer.bias.copy_(torch.as_tensor(bias))
    return layer


def _random_linear(seed, n_features=5, n_classes=3, n=8):
    rng = np.random.default_rng(seed)
    weight, bias = rng.normal(size=(n_classes, n_features)), rng.normal(size=n_classes) / 3
    # Many features close to a bound, so that the box is active.
    x = rng.beta(0.4, 0.4, size=(n, n_features))
    return _linear(weight, bias), weight, bias, torch.tensor(x)


def _radius(found, ball):
    return torch.where(found.broken, ball.distance(found.points), torch.inf).numpy()


def _linf_optimum(g, need, low, high):
    """min e such that g d <= -need, |d| <= e, low <= d <= high, by linear programming."""
    k = len(g)
    identity = np.eye(k)
    ones = np.ones((k, 1))
    rows = np.block([[g[None], np.zeros((1, 1))], [identity, -ones], [-identity, -ones]])
    solved = linprog(
        np.r_[np.zeros(k), 1.0],
        A_ub=rows,
        b_ub=np.r_[-need, np.zeros(2 * k)],
        bounds=[*zip(low, high, strict=True), (0, None)],
    )
    return solved.fun if solved.status == 0 else np.inf


def _l2_optimum(g, need, low, high, epsilon):
    free = epsilon > 0
    d = cp.Variable(len(g))
    scaled = cp.multiply(np.where(free, 1 / np.where(free, epsilon, 1), 0), d)
    constraints = [g @ d <= -need, d >= low, d <= high, cp.norm(scaled) <= 1]
    problem = cp.Problem(cp.Minimize(cp.norm(d)), constraints)
    problem.solve(solver=cp.CLARABEL)
    return problem.value if problem.status == cp.OPTIMAL else np.inf


def _optimum(x, weight, bias, property):
    """Closest violation of classification robustness of a linear network, one x."""
    logits = weight @ x + bias
    y = logits.argmax()
    epsilon = np.broadcast_to(property.epsilon, x.shape)
    low, high = np.maximum(-epsilon, 0 - x), np.minimum(epsilon, 1 - x)
    best = np.inf
    for j in set(range(len(bias))) - {y}:
        g, need = weight[y] - weight[j], logits[y] - logits[j]
        if property.norm == "linf":
            value = _linf_optimum(g, need, low, high)
        else:
            value = _l2_optimum(g, need, low, high, epsilon)
        best = min(best, value)
    return best


_EPSILONS = {
    "one": 0.6,
    "some fixed": [0.6, 0.0, 0.6, 0.0, 0.6],
    "unequal": [0.2, 0.9, 0.05, 0.6, 0.0],
}


@pytest.mark.parametrize("epsilon", _EPSILONS.values(), ids=_EPSILONS)
@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("seed", [0, 1])
def test_exact_for_linear_networks(seed, norm, epsilon):
    network, weight, bias, x = _random_linear(seed)
    property = ClassificationRobustness(epsilon, norm=norm, reference="prediction")
    best = np.array([_optimum(row, weight, bias, property) for row in x.numpy()])
    assert np.isfinite(best).any()
    attack = LinearBoundary(1, overshoot=0.0)
    found = _radius(attack.closest(Target(network, property, x)), property.ball(x))
    np.testing.assert_allclose(found, best, rtol=1e-5, atol=1e-7)
    # The default overshoot costs next to nothing.
    found = _radius(LinearBoundary().closest(Target(network, property, x)), property.ball(x))
    reachable = best < 0.99 * np.max(epsilon)
    assert (found >= best - 1e-7).all()
    np.testing.assert_allclose(found[reachable], best[reachable], rtol=1e-3)


def test_ellipsoid_is_active_somewhere():
    """The case of unequal epsilons above is not the plain one in disguise."""
    network, _, _, x = _random_linear(0)
    property = ClassificationRobustness(
        [0.2, 0.9, 0.05, 0.6, 0.0], norm="l2", reference="prediction"
    )
    box_only = property.with_epsilon(10.0).set_params(
        bounds=(0.0, 1.0), epsilon=[10.0, 10.0, 10.0, 10.0, 0.0]
    )
    attack = LinearBoundary(1, overshoot=0.0)
    inside = _radius(attack.closest(Target(network, property, x)), property.ball(x))
    free = _radius(attack.closest(Target(network, box_only, x)), box_only.ball(x))
    both = np.isfinite(inside)
    assert (inside[both] > free[both] * 1.01).any()


@pytest.mark.parametrize("norm, radius", [("linf", 0.3), ("l2", 0.1**0.5)])
def test_by_hand_with_an_active_bound(norm, radius):
    # s = x1 + x2 - 1.8 has to rise by 0.4; x1 has room for 0.1 only.
    network = _linear([[0.0, 0.0], [1.0, 1.0]], [0.0, -1.8])
    x, labels = torch.tensor([[0.9, 0.5]], dtype=torch.float64), torch.tensor([0])
    property = ClassificationRobustness(0.5, norm=norm)
    found = LinearBoundary().closest(Target(network, property, x, labels))
    torch.testing.assert_close(
        found.points, torch.tensor([[1.0, 0.8]], dtype=torch.float64), rtol=0, atol=1e-4
    )
    assert property.ball(x).distance(found.points).item() == pytest.approx(radius, rel=1e-3)


def test_closed_form_without_bounds():
    network, weight, bias, x = _random_linear(5, n_features=50, n_classes=2)
    gap = np.abs((weight[0] - weight[1]) @ x.numpy().T + bias[0] - bias[1])
    for norm, dual in (("linf", 1), ("l2", 2)):
        property = ClassificationRobustness(9.0, norm=norm, bounds=None, reference="prediction")
        found = LinearBoundary().closest(Target(network, property, x))
        expected = gap / np.linalg.norm(weight[0] - weight[1], ord=dual)
        np.testing.assert_allclose(_radius(found, property.ball(x)), expected, rtol=1e-6)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_float32_confirms(norm):
    network, *_, x = _random_linear(2, n_features=200, n=64)
    exact = ClassificationRobustness(0.8, norm=norm, reference="prediction")
    wide = LinearBoundary().closest(Target(network, exact, x))
    narrow = LinearBoundary().closest(Target(network.float(), exact, x.float()))
    assert torch.equal(wide.broken, narrow.broken)
    assert wide.broken.any()
    first, second = (_radius(f, exact.ball(x)) for f in (wide, narrow))
    np.testing.assert_allclose(second, first, rtol=1e-3)
    # One at a time, where rounding differs, the points are still violations.
    for i in narrow.broken.nonzero().squeeze(1):
        point = narrow.points[i][None]
        target = Target(network, exact, x.float()[i][None])
        assert target.assess(point, network(point)).broken.all()


def test_move_does_not_touch_features_without_gradient():
    ball = ClassificationRobustness(1.0, bounds=None).ball(torch.zeros((1, 3)))
    gradient = torch.tensor([[1.0, 0.0, -1.0]], dtype=torch.float64)
    move, length, reached = _closest_move(ball, gradient, torch.tensor([1.0]).double())
    assert move.tolist() == [[-0.5, 0.0, 0.5]]
    assert length.item() == 0.5
    assert reached.all()


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_unreachable_row_is_said_to_be(norm):
    ball = ClassificationRobustness(0.1, norm=norm, bounds=None).ball(torch.zeros((2, 2)))
    gradient = torch.tensor([[1.0, 1.0], [0.0, 0.0]], dtype=torch.float64)
    _, _, reached = _closest_move(ball, gradient, torch.tensor([1.0, 1.0]).double())
    assert not reached.any()


def _perceptron(seed=0, n_features=8, n_classes=4):
    torch.manual_seed(seed)
    return torch.nn.Sequential(
        torch.nn.Linear(n_features, 30), torch.nn.ReLU(), torch.nn.Linear(30, n_classes)
    ).requires_grad_(False)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_never_farther_than_the_first_step_and_inside_the_ball(norm):
    network, x = _perceptron(), torch.rand((60, 8), generator=torch.Generator().manual_seed(1))
    epsilon = np.linspace(0.0, 0.7, 8)
    property = ClassificationRobustness(epsilon, norm=norm, reference="prediction")
    ball = property.ball(x)
    one, ten = (LinearBoundary(k).closest(Target(network, property, x)) for k in (1, 10))
    assert (_radius(ten, ball) <= _radius(one, ball) + 1e-6).all()
    assert ten.broken.sum() > one.broken.sum()
    points = ten.points
    assert ((points >= ball.lower) & (points <= ball.upper)).all()
    assert torch.equal(points[:, 0], x[:, 0])
    if norm == "l2":
        scaled = ((points - x) / torch.tensor(epsilon).float().clamp(min=1e-9)).norm(dim=1)
        assert (scaled <= 1 + 1e-5).all()
    target = Target(network, property, x)
    assert torch.equal(target.assess(points, network(points)).broken, ten.broken)


@pytest.mark.parametrize(
    "property",
    [
        StandardRobustness(0.5, delta=0.1),
        StandardRobustness(0.5, delta=0.05, output="probabilities"),
        StrongClassificationRobustness(0.5, eta=0.3, reference="prediction"),
        ClassificationRobustness(0.5, reference="prediction") & StandardRobustness(0.5, delta=0.1),
    ],
    ids=["SR", "SR of probabilities", "SCR", "CR & SR"],
)
def test_other_properties_are_at_least_as_close_as_fgsm_on_average(property):
    network, x = _perceptron(2), torch.rand((60, 8), generator=torch.Generator().manual_seed(2))
    ball = property.ball(x)
    linear = LinearBoundary().closest(Target(network, property, x))
    sign = FGSM().closest(Target(network, property, x))
    assert linear.broken.sum() >= sign.broken.sum()
    both = (linear.broken & sign.broken).numpy()
    assert both.any()
    assert _radius(linear, ball)[both].mean() <= _radius(sign, ball)[both].mean()


def test_standard_robustness_of_a_linear_network_is_exact():
    network = _linear([[1.0, 2.0], [0.5, -1.0]], [0.0, 0.0])
    x = torch.tensor([[0.5, 0.5]], dtype=torch.float64)
    property = StandardRobustness(0.4, delta=0.6)
    found = LinearBoundary().closest(Target(network, property, x))
    # The first output changes by 3 e in the L-infinity ball of radius e.
    assert property.ball(x).distance(found.points).item() == pytest.approx(0.2, rel=1e-6)


@pytest.mark.parametrize("lipschitz, broken", [(2.5, True), (3.5, False)])
def test_lipschitz_robustness_is_decided_though_it_has_no_closest_violation(lipschitz, broken):
    network = _linear([[1.0, 2.0], [0.5, -1.0]], [0.0, 0.0], torch.float32)
    x = torch.tensor([[0.5, 0.5]])
    property = LipschitzRobustness(0.4, lipschitz=lipschitz)
    outcome = LinearBoundary().search(Target(network, property, x))
    assert outcome.broken.item() is broken


def test_property_without_any_change_allowed():
    network = _linear([[1.0], [0.0]], [0.0, 0.0], torch.float32)
    x = torch.tensor([[0.5]])
    found = LinearBoundary().closest(Target(network, StandardRobustness(0.4, delta=0.0), x))
    assert found.broken.all()
    assert 0 < (found.points - x).abs().item() < 1e-3


def test_property_of_your_own_rows():
    # z_0 <= 0.8
    property = LinearRobustness(([[-1.0, 0.0]], [0.8]), epsilon=0.5)
    network = _linear([[1.0], [0.0]], [0.0, 0.0], torch.float32)
    found = LinearBoundary().closest(Target(network, property, torch.tensor([[0.5]])))
    assert found.points.item() == pytest.approx(0.8, abs=1e-5)


def test_gradient_that_is_not_finite_is_a_failed_step():
    def network(x):
        return torch.cat([x.sqrt() - x.sqrt() + 1, x], dim=1)  # inf - inf at 0

    x, labels = torch.tensor([[0.0], [0.5]]), torch.tensor([0, 0])
    property = ClassificationRobustness(0.5)
    with pytest.warns(AttackWarning, match="not finite at 1 of 2 points"):
        found = LinearBoundary(2).search(Target(network, property, x, labels))
    assert torch.isfinite(found.points).all()
    assert not found.broken[0]


def test_zero_epsilon_changes_nothing():
    network, x = _perceptron(), torch.rand((5, 8), generator=torch.Generator().manual_seed(1))
    property = ClassificationRobustness(0.0, reference="prediction")
    found = LinearBoundary().search(Target(network, property, x))
    assert torch.equal(found.points, x)
    assert not found.broken.any()


def test_parameters():
    attack = clone(LinearBoundary(3, overshoot=0.1))
    assert attack.get_params() == {"n_steps": 3, "overshoot": 0.1}
    for bad, message in (
        (LinearBoundary(0), "Got n_steps=0, but expected an integer of at least 1"),
        (LinearBoundary(overshoot=-0.1), "Got overshoot=-0.1, but expected a finite number"),
        (LinearBoundary(overshoot=np.nan), "Got overshoot=nan"),
    ):
        with pytest.raises(ValueError, match=message):
            bad.check()


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("epsilon", [0.8, [0.1, 0.8, 0.0, 0.4, 0.2], [0.3, 0.3, 0.0, 0.3, 0.3]])
def test_balls_of_their_own_radii_are_solved_as_if_alone(norm, epsilon):
    network, _, _, x = _random_linear(3)
    property = ClassificationRobustness(epsilon, norm=norm, reference="prediction")
    target = Target(network, property, x)
    distance = torch.linspace(0.05, 0.9, len(x), dtype=torch.float64)
    found = LinearBoundary().search(target.within(distance))
    ones = [target[[i]].within(distance[i].item()) for i in range(len(x))]
    alone = torch.cat([LinearBoundary().search(one).broken for one in ones])
    assert torch.equal(found.broken, alone)
    points = torch.cat([LinearBoundary().search(one).points for one in ones])
    torch.testing.assert_close(found.points, points)
    assert found.broken.any() and not found.broken.all()
