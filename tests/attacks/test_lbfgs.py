"""L-BFGS-B finds the optimum where its own problem is convex, and never leaves the ball."""

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar
from sklearn.base import clone

from skrobust.attacks import LBFGS, LinearBoundary, Target
from skrobust.attacks._lbfgs import _in_float64
from skrobust.exceptions import AttackWarning
from skrobust.properties import (
    ClassificationRobustness,
    StandardRobustness,
    StrongClassificationRobustness,
)


def _perceptron(seed=0, n_features=6, n_classes=3):
    torch.manual_seed(seed)
    return torch.nn.Sequential(
        torch.nn.Linear(n_features, 20), torch.nn.ReLU(), torch.nn.Linear(20, n_classes)
    ).requires_grad_(False)


def _rows(n, seed=0, n_features=6):
    return torch.rand((n, n_features), generator=torch.Generator().manual_seed(seed))


def _linear(weight, bias):
    layer = torch.nn.Linear(*np.shape(weight)[::-1]).requires_grad_(False)
    layer.weight.copy_(torch.as_tensor(weight))
    layer.bias.copy_(torch.as_tensor(bias))
    return layer


@pytest.mark.parametrize("loss", ["cross-entropy", "margin"])
def test_linear_network_in_l2_is_solved(loss):
    """Two classes: the minimizer moves along the gradient, so that the pull is exact."""
    network = _linear([[0.0, 0.0], [3.0, 4.0]], [0.0, -5.0])
    x = torch.tensor([[0.5, 0.5], [0.6, 0.2]])
    property = ClassificationRobustness(1.0, norm="l2", bounds=None, reference="prediction")
    found = LBFGS(objective=loss).closest(Target(network, property, x))
    expected = (3 * x[:, 0] + 4 * x[:, 1] - 5).abs() / 5
    torch.testing.assert_close(
        property.ball(x).distance(found.points), expected, rtol=1e-4, atol=0
    )


def test_active_bound_by_hand():
    # s = x1 + x2 - 1.8 has to rise by 0.4; x1 has room for 0.1 only: the point is (1, 0.8).
    network = _linear([[0.0, 0.0], [1.0, 1.0]], [0.0, -1.8])
    x, labels = torch.tensor([[0.9, 0.5]]), torch.tensor([0])
    property = ClassificationRobustness(0.5, norm="l2")
    found = LBFGS(20).closest(Target(network, property, x, labels))
    torch.testing.assert_close(found.points, torch.tensor([[1.0, 0.8]]), rtol=0, atol=2e-3)


def test_minimizer_against_one_dimensional_search():
    network = _linear([[0.0], [1.0]], [0.0, -0.5])
    x = torch.tensor([[0.1]])
    target = Target(network, ClassificationRobustness(0.8, norm="l2"), x, torch.tensor([0]))
    attack = LBFGS()
    (aim,) = attack._aims(target)
    found = attack._minimizer(target, _in_float64(network, x), aim, 0.5)
    start = x.item()

    def objective(point):
        return 0.5 * ((point - start) / 0.8) ** 2 + np.log1p(np.exp(-(point - 0.5)))

    best = minimize_scalar(objective, bounds=(0, 0.9), options={"xatol": 1e-10}).x
    assert found.item() == pytest.approx(best, abs=1e-5)


def test_line_search_ends_at_the_largest_weight():
    tried = []

    class Recorded(LBFGS):
        def _minimizer(self, target, network, loss, c):
            tried.append(c)
            return torch.full_like(target.x, 0.9 if c < 20 else 0.1)

    network = _linear([[0.0], [1.0]], [0.0, -0.5])
    property, x = ClassificationRobustness(0.8), torch.tensor([[0.1]])
    Recorded(20).search(Target(network, property, x, torch.tensor([0])))
    assert tried[:4] == pytest.approx([1.0, 10.0, 100.0, 10**1.5])
    assert tried[-1] == pytest.approx(20, rel=1e-2)


def test_line_search_goes_down_after_failures():
    tried = []

    class Recorded(LBFGS):
        def _minimizer(self, target, network, loss, c):
            tried.append(c)
            return target.x

    network = _linear([[0.0], [1.0]], [0.0, -0.5])
    property, x = ClassificationRobustness(0.8), torch.tensor([[0.1]])
    found = Recorded(4).search(Target(network, property, x, torch.tensor([0])))
    assert tried == pytest.approx([1.0, 0.1, 0.01, 0.001])
    assert not found.broken.any()


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_points_are_inside_and_broken(norm):
    network, x = _perceptron(), _rows(12)
    epsilon = np.array([0.0, 0.5, 0.5, 0.2, 0.7, 0.7])
    property = ClassificationRobustness(epsilon, norm=norm, reference="prediction")
    found = LBFGS(6).closest(Target(network, property, x))
    ball = property.ball(x)
    assert ((found.points >= ball.lower) & (found.points <= ball.upper)).all()
    assert torch.equal(found.points[:, 0], x[:, 0])
    assert found.broken.any()
    target = Target(network, property, x)
    assert torch.equal(target.assess(found.points, network(found.points)).broken, found.broken)
    if norm == "l2":
        scaled = (found.points - x)[:, 1:] / torch.tensor(epsilon[1:]).float()
        assert (scaled.norm(dim=1) <= 1 + 1e-5).all()


def test_all_targets_are_never_farther_than_the_runner_up():
    network, x = _perceptron(2), _rows(5, 2)
    property = ClassificationRobustness(0.9, norm="l2", reference="prediction")
    ball = property.ball(x)
    # Without the pull, after which the order may be another one.
    one = LBFGS(4, max_iter=20).search(Target(network, property, x))
    every = LBFGS(4, max_iter=20, targets="all").search(Target(network, property, x))
    assert one.broken.any()
    assert (every.broken | ~one.broken).all()
    near, far = ball.distance(every.points), ball.distance(one.points)
    assert (near <= far)[one.broken].all()
    assert (near < far)[one.broken].any()


def test_runner_up_is_the_second_class():
    network = _linear([[0.0], [0.0], [0.0]], [1.0, 3.0, 2.0])
    target = Target(network, ClassificationRobustness(), torch.tensor([[0.5]]), torch.tensor([1]))
    assert LBFGS()._aims(target) == [torch.tensor([2])]
    # A wrong prediction is the runner-up of its label.
    target = Target(network, ClassificationRobustness(), torch.tensor([[0.5]]), torch.tensor([0]))
    assert LBFGS()._aims(target) == [torch.tensor([1])]
    assert LBFGS(targets="all")._aims(target) == [torch.tensor([1]), torch.tensor([2])]
    assert LBFGS(objective="margin")._aims(target) == [None]


@pytest.mark.parametrize(
    "property",
    [
        StandardRobustness(0.5, delta=0.1),
        StrongClassificationRobustness(0.5, eta=0.33, reference="prediction"),
    ],
    ids=["SR", "SCR"],
)
def test_other_properties_by_their_margin(property):
    network, x = _perceptron(), _rows(6)
    found = LBFGS(6, objective="margin").closest(Target(network, property, x))
    assert found.broken.any()
    linear = LinearBoundary().closest(Target(network, property, x))
    assert (linear.broken >= found.broken).all()


class _Float32Only(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("weight", torch.tensor([[0.0, 1.0]]))

    def forward(self, x):
        return x.float() @ self.weight.float() + torch.tensor([0.0, -0.5])


def test_precision_is_raised_where_it_can_be():
    network = _perceptron()
    x = _rows(2)
    raised = _in_float64(network, x)
    assert raised(x.double()).dtype == torch.float64
    assert next(network.parameters()).dtype == torch.float32
    # Modules that insist, and plain functions, are used as they are.
    for network in (_Float32Only(), lambda x: torch.cat([0 * x, x - 0.5], dim=1)):
        x = torch.tensor([[0.2]])
        assert _in_float64(network, x)(x.double()).dtype == torch.float64
        found = LBFGS().closest(
            Target(network, ClassificationRobustness(0.5), x, torch.tensor([0]))
        )
        assert found.points.item() == pytest.approx(0.5, abs=1e-4)


def test_gradient_that_is_not_finite_is_a_failed_step():
    def network(x):
        return torch.cat([x.sqrt() - x.sqrt() + 1, x], dim=1)  # inf - inf at 0

    x = torch.tensor([[0.0]])
    with pytest.warns(AttackWarning, match="not finite at 1 of 1 points"):
        found = LBFGS(2).search(
            Target(network, ClassificationRobustness(0.5), x, torch.tensor([0]))
        )
    assert torch.equal(found.points, x)
    assert not found.broken.any()


@pytest.mark.parametrize("unit", [1e-9, 1e-3, 1e6, 1e9])
def test_units_of_the_inputs_change_nothing(unit):
    network, x = _perceptron().double(), _rows(6).double()
    property = ClassificationRobustness(0.7, bounds=None, reference="prediction")
    scaled = ClassificationRobustness(0.7 * unit, bounds=None, reference="prediction")
    expected = LBFGS(6).search(Target(network, property, x))
    found = LBFGS(6).search(Target(lambda rows: network(rows / unit), scaled, x * unit))
    assert expected.broken.any()
    assert torch.equal(found.broken, expected.broken)
    torch.testing.assert_close(found.points / unit, expected.points, rtol=0, atol=1e-3)


def test_zero_epsilon_changes_nothing():
    network, x = _perceptron(), _rows(3)
    found = LBFGS().search(
        Target(network, ClassificationRobustness(0.0, reference="prediction"), x)
    )
    assert torch.equal(found.points, x)


def test_largest_change_as_the_penalty_by_hand():
    # The minimum of log(1 + exp(-s)) + c t over t = |r| (in units of epsilon), where the two
    # features together raise s = 3 x1 + 4 x2 - 5 by 7 t / 2: as t moves both of them alike.
    network = _linear([[0.0, 0.0], [3.0, 4.0]], [0.0, -5.0])
    x, labels = torch.tensor([[0.5, 0.6]]), torch.tensor([0])
    target = Target(network, ClassificationRobustness(0.5, bounds=None), x, labels)
    attack = LBFGS(penalty="linf")
    (aim,) = attack._aims(target)
    found = attack._minimizer(target, _in_float64(network, x), aim, 1.0)

    def objective(t):
        return t + np.log1p(np.exp(1.1 - 3.5 * t))

    best = minimize_scalar(objective, bounds=(0, 1), options={"xatol": 1e-10}).x
    assert 0.1 < best < 0.9
    torch.testing.assert_close(found, x + 0.5 * best, rtol=0, atol=1e-4)


@pytest.mark.parametrize("seed", range(3))
def test_linear_network_in_linf_is_solved_with_its_own_penalty(seed):
    weight = torch.randn((2, 8), generator=torch.Generator().manual_seed(seed))
    network, x = _linear(weight, [0.0, 0.0]), _rows(4, seed, 8)
    property = ClassificationRobustness(2.0, bounds=None, reference="prediction")
    slope = weight[0] - weight[1]
    expected = (x @ slope).abs() / slope.abs().sum()
    distances = {
        penalty: property.ball(x).distance(
            LBFGS(penalty=penalty).closest(Target(network, property, x)).points
        )
        for penalty in ("linf", "squared-l2")
    }
    torch.testing.assert_close(distances["linf"], expected, rtol=1e-4, atol=0)
    assert (distances["squared-l2"] > 1.05 * expected).all()


def test_penalty_of_the_largest_change_stays_in_the_box():
    # s = x1 + x2 - 1.8 has to rise by 0.4; x1 has room for 0.1 only: the point is (1, 0.8).
    network = _linear([[0.0, 0.0], [1.0, 1.0]], [0.0, -1.8])
    x, labels = torch.tensor([[0.9, 0.5]]), torch.tensor([0])
    target = Target(network, ClassificationRobustness(0.5), x, labels)
    found = LBFGS(20, penalty="linf").closest(target)
    torch.testing.assert_close(found.points, torch.tensor([[1.0, 0.8]]), rtol=0, atol=2e-3)


@pytest.mark.parametrize("method", ["search", "closest"])
@pytest.mark.parametrize("penalty", ["squared-l2", "linf"])
def test_margin_is_kept(method, penalty):
    network, x = _perceptron(1), _rows(10, 1)
    property = ClassificationRobustness(0.9, reference="prediction")
    target = Target(network, property, x)
    found = getattr(LBFGS(12, margin=0.15, penalty=penalty), method)(target)
    plain = getattr(LBFGS(12, penalty=penalty), method)(target)
    assert found.broken.any()
    logits = network(found.points)
    best = logits.topk(2, dim=1)
    runner_up = target.reference_logits.topk(2, dim=1).indices[:, 1]
    # The target class leads all others by the margin, not only the class of the sample.
    assert (best.values[:, 0] - best.values[:, 1])[found.broken].min() >= 0.15
    assert torch.equal(best.indices[found.broken, 0], runner_up[found.broken])
    near, far = (target.ball.distance(outcome.points) for outcome in (plain, found))
    if method == "closest":
        assert (near < far)[found.broken].all()


def test_margin_out_of_reach_is_never_found():
    network = _linear([[0.0], [1.0]], [0.0, -0.5])
    property = ClassificationRobustness(0.8)
    target = Target(network, property, torch.tensor([[0.2]]), torch.tensor([0]))
    assert LBFGS(margin=0.45).closest(target).broken.all()
    assert not LBFGS(margin=0.55).closest(target).broken.any()
    assert not LBFGS(margin=0.55, objective="margin").closest(target).broken.any()


def test_parameters():
    attack = clone(LBFGS(3, max_iter=5, initial_c=2.0, objective="margin", targets="all"))
    assert attack.check().get_params() == {
        "n_weights": 3,
        "max_iter": 5,
        "initial_c": 2.0,
        "objective": "margin",
        "targets": "all",
        "penalty": "squared-l2",
        "margin": 0.0,
    }
    for bad, message in (
        (LBFGS(0), "Got n_weights=0, but expected an integer of at least 1"),
        (LBFGS(max_iter=0), "Got max_iter=0"),
        (LBFGS(initial_c=0.0), r"Got initial_c=0.0, but expected a finite number in \(0"),
        (
            LBFGS(objective="hinge"),
            "Got objective='hinge', but expected one of 'cross-entropy', 'margin'",
        ),
        (LBFGS(targets="second"), "Got targets='second', but expected one of 'runner-up', 'all'"),
        (LBFGS(penalty="l1"), "Got penalty='l1', but expected one of 'squared-l2', 'linf'"),
        (LBFGS(margin=-0.1), r"Got margin=-0.1, but expected a finite number in \[0"),
        (LBFGS(margin=float("nan")), "Got margin=nan, but expected a finite number"),
    ):
        with pytest.raises(ValueError, match=message):
            bad.check()
