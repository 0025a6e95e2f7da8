"""Tests of skrobust.pointwise: exact radii, confirmed points, sound bounds, named errors."""

import copy
import itertools

import joblib
import numpy as np
import pytest
import torch
from scipy.optimize import linprog
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from torch import nn

from skrobust import TorchClassifier
from skrobust.attacks import PGD
from skrobust.exceptions import UnsupportedModelError
from skrobust.graphs import read_graph
from skrobust.networks import as_network
from skrobust.pointwise import (
    PointwiseStatus,
    _methods,
    _programs,
    _records,
    pointwise_robustness,
)
from skrobust.pointwise._certified import lowest_margin
from skrobust.pointwise._linear_region import linear_region
from skrobust.pointwise._programs import LazyPrograms, closest_by_half_spaces
from skrobust.pointwise._stated import StatedPrograms


def seeded(factory, seed=0):
    """A random net, made steep, and such that no class wins everywhere."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        module = factory().eval()
        last = module[-1]
        for part in module:
            if hasattr(part, "weight"):
                part.weight.data *= 2
        n_features = 64 if isinstance(module[0], nn.Unflatten) else module[0].in_features
        logits = module(torch.rand(500, n_features)).detach()
        last.bias.data -= logits.mean(dim=0)
        return module


def perceptron(n=5, hidden=8, classes=3):
    return nn.Sequential(
        nn.Linear(n, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(),
        nn.Linear(hidden, classes),
    )  # fmt: skip


def convolutional():
    return nn.Sequential(
        nn.Unflatten(1, (1, 8, 8)), nn.Conv2d(1, 4, 3), nn.LeakyReLU(0.1), nn.MaxPool2d(2),
        nn.Conv2d(4, 6, 2), nn.BatchNorm2d(6), nn.Hardtanh(-0.4, 0.4), nn.AvgPool2d(2),
        nn.Flatten(), nn.Linear(6, 3),
    )  # fmt: skip


def points(n, n_features, seed=0):
    rng = np.random.default_rng(seed)
    return (rng.integers(0, 17, (n, n_features)) / 16).astype(np.float32)


def assert_confirmed(model, X, result, labels, bounds=(0.0, 1.0)):
    """Every finite radius belongs to a point of the domain, that far, with another label."""
    found = np.isfinite(result.radius)
    assert np.isnan(result.adversarial_examples[~found]).all()
    points = result.adversarial_examples[found]
    assert (points >= bounds[0]).all() and (points <= bounds[1]).all()
    distance = np.abs(points.astype(float) - X[found].astype(float)).max(axis=1)
    np.testing.assert_allclose(distance, result.radius[found], rtol=0, atol=1e-12)
    assert found.any()
    assert (model.predict(points) != labels[found]).all()
    return found


def diagonal():
    """Class 1 where x1 + x2 > 1."""
    module = nn.Linear(2, 2)
    module.weight.data = torch.tensor([[0.0, 0.0], [1.0, 1.0]])
    module.bias.data = torch.tensor([0.0, -1.0])
    return TorchClassifier(module, 2)


def tent():
    """Scores 0 and relu(x1 - 1/2) + relu(1/2 - x1) - 1/4: class 1 where |x1 - 1/2| > 1/4."""
    module = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2))
    module[0].weight.data = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
    module[0].bias.data = torch.tensor([-0.5, 0.5])
    module[2].weight.data = torch.tensor([[0.0, 0.0], [1.0, 1.0]])
    module[2].bias.data = torch.tensor([0.0, -0.25])
    return TorchClassifier(module, 2)


@pytest.mark.parametrize("method", ["lp", "polished", "attack", "certified", "exact"])
def test_hand_worked_affine(method):
    X = np.array([[0.25, 0.25], [1.0, 0.5], [0.0, 0.9375]])
    result = pointwise_robustness(diagonal(), X, method=method, random_state=0)
    atol = 1e-3 if method == "exact" else 2e-4
    np.testing.assert_allclose(result.radius, [0.25, 0.25, 0.03125], atol=atol)
    if method == "lp":
        np.testing.assert_allclose(result.optimum, [0.25, 0.25, 0.03125], atol=1e-12)
        assert set(result.status) == {"optimal"}


@pytest.mark.parametrize("solver", ["lazy", "cvxpy"])
def test_hand_worked_regions(solver):
    # From 0.625 the boundary 0.75 lies in the region; from 0.875 the way back is to 0.75.
    X = np.array([[0.625, 0.0], [0.875, 0.5], [0.4375, 1.0]])
    result = pointwise_robustness(tent(), X, solver=solver)
    np.testing.assert_allclose(result.optimum, [0.125, 0.125, 0.1875], atol=1e-7)


def test_tie_at_zero_pre_activation():
    # At x1 = 1/2 both units are tied; either side's boundary is 1/4 away.
    result = pointwise_robustness(tent(), [[0.5, 0.5]])
    assert result.optimum[0] == pytest.approx(0.25)
    assert_confirmed(tent(), np.array([[0.5, 0.5]]), result, np.array([0]))


def test_infeasible_region():
    # f = relu(x1 - 0.5): left of 0.5 the second score is constant, and never wins.
    module = nn.Sequential(nn.Linear(1, 1), nn.ReLU(), nn.Linear(1, 2))
    module[0].weight.data, module[0].bias.data = torch.ones(1, 1), torch.tensor([-0.5])
    module[2].weight.data = torch.tensor([[0.0], [1.0]])
    module[2].bias.data = torch.tensor([0.25, 0.0])
    model = TorchClassifier(module, 2)
    for solver in ("lazy", "cvxpy"):
        result = pointwise_robustness(model, [[0.25]], solver=solver)
        assert result.status[0] == PointwiseStatus.INFEASIBLE
        assert result.radius[0] == np.inf
    # The true radius is 0.5, which the attack and the polish find in another region.
    attack = PGD(n_restarts=10)
    found = pointwise_robustness(model, [[0.25]], method="bracket", attack=attack, random_state=0)
    assert found.upper[0] == pytest.approx(0.5, abs=1e-5)
    assert 0.25 <= found.lower[0] <= 0.5


@pytest.mark.parametrize(
    ("factory", "n_features"), [(perceptron, 5), (convolutional, 64)], ids=["dense", "conv"]
)
def test_lazy_agrees_with_cvxpy_and_with_all_half_spaces(factory, n_features):
    graph = read_graph(seeded(factory), n_features)
    x = torch.as_tensor(points(6, n_features)).double()
    region = linear_region(graph, x)
    labels, targets = graph(x).argsort(dim=1, descending=True)[:, :2].numpy().T
    low, high = np.zeros(x.shape), np.ones(x.shape)
    statuses = set()
    for margin in (0.0, 0.02):
        arguments = (region, x.numpy(), targets, low, high, margin, labels)
        lazy, stated = LazyPrograms(*arguments).solve(), StatedPrograms(*arguments).solve()
        full = closest_by_half_spaces(*arguments)
        assert lazy.status.tolist() == stated.status.tolist() == full.status.tolist()
        statuses.update(lazy.status.tolist())
        solved = lazy.status == "optimal"
        np.testing.assert_allclose(lazy.radius[solved], stated.radius[solved], atol=1e-6)
        np.testing.assert_allclose(lazy.radius[solved], full.radius[solved], atol=1e-6)
        found = torch.as_tensor(lazy.points[solved])
        assert region[np.flatnonzero(solved)].contains(found, tolerance=1e-7).all()
        outputs = graph(found).numpy()
        wins = np.take_along_axis(outputs, targets[solved][:, None], axis=1)
        np.put_along_axis(outputs, targets[solved][:, None], -np.inf, axis=1)
        assert (wins[:, 0] - outputs.max(axis=1) >= margin - 1e-7).all()
        assert (lazy.seconds > 0).all()
    assert "optimal" in statuses


@pytest.mark.parametrize(("name", "value"), [("_FEW_ROWS", 3), ("_ROWS_AT_A_TIME", 1)])
def test_how_rows_are_added_and_by_whom_they_are_solved_changes_nothing(monkeypatch, name, value):
    # Beyond a few rows HiGHS takes over; many rows at once begin with a sum of them.
    graph = read_graph(seeded(convolutional), 64)
    x = torch.as_tensor(points(6, 64)).double()
    region = linear_region(graph, x)
    labels, targets = graph(x).argsort(dim=1, descending=True)[:, :2].numpy().T
    arguments = (region, x.numpy(), targets, np.zeros(x.shape), np.ones(x.shape), 0.0, labels)
    expected = LazyPrograms(*arguments).solve()
    monkeypatch.setattr(_programs, name, value)
    found = LazyPrograms(*arguments).solve()
    assert found.status.tolist() == expected.status.tolist()
    np.testing.assert_allclose(found.radius, expected.radius, atol=1e-7)


@pytest.mark.parametrize("method", ["lp", "polished", "attack", "lbfgs", "bracket"])
@pytest.mark.parametrize(
    ("factory", "n_features"), [(perceptron, 5), (convolutional, 64)], ids=["dense", "conv"]
)
def test_points_are_confirmed(method, factory, n_features):
    model = TorchClassifier(seeded(factory), 3)
    X = points(6, n_features)
    labels = model.predict(X)
    result = pointwise_robustness(model, X, method=method, targets="all", random_state=0)
    assert_confirmed(model, X, result, labels)
    assert (result.lower <= result.upper).all()


def test_polished_is_never_larger_than_attack_or_lp_and_certified_never_above():
    model = TorchClassifier(seeded(perceptron, 3), 3)
    X = points(20, 5)
    radius = {
        method: pointwise_robustness(model, X, method=method, random_state=0).radius
        for method in ("lp", "attack", "polished", "certified")
    }
    assert np.isfinite(radius["polished"]).any()
    assert (radius["polished"] <= radius["attack"]).all()
    assert (radius["polished"] <= radius["lp"]).all()
    assert (radius["certified"] <= radius["polished"]).all()
    assert (radius["certified"] > 0).all()


def global_radius(module, x, n_hidden):
    """The true radius of a net with one hidden layer: brute force over activation patterns."""
    first, last = (module[i] for i in (0, 2))
    W, b = first.weight.detach().double().numpy(), first.bias.detach().double().numpy()
    V, c = last.weight.detach().double().numpy(), last.bias.detach().double().numpy()
    logits = V @ np.maximum(W @ x + b, 0) + c
    label, n = logits.argmax(), len(x)
    best = np.inf
    cost = np.append(np.zeros(n), 1.0)
    ball = np.block([[np.eye(n), -np.ones((n, 1))], [-np.eye(n), -np.ones((n, 1))]])
    for pattern in itertools.product([0.0, 1.0], repeat=n_hidden):
        on = np.array(pattern)
        sign = 2 * on - 1
        region = np.hstack([-sign[:, None] * W, np.zeros((n_hidden, 1))])
        U, d = (V * on) @ W, (V * on) @ b + c
        for target in set(range(len(V))) - {label}:
            row = np.append(U[label] - U[target], 0.0)
            A = np.vstack([region, row, ball])
            right = np.concatenate([sign * b, [d[target] - d[label]], x, -x])
            found = linprog(cost, A_ub=A, b_ub=right, bounds=[(0, 1)] * n + [(0, None)])
            if found.status == 0:
                best = min(best, found.fun)
    return best


def test_brackets_enclose_the_true_radius():
    module = seeded(lambda: nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 3)), 1)
    model = TorchClassifier(module, 3)
    X = points(6, 3)
    true = np.array([global_radius(module, x.astype(float), 5) for x in X])
    assert np.isfinite(true).any()
    bracket = pointwise_robustness(model, X, method="bracket", random_state=0)
    assert (bracket.lower <= true + 1e-9).all()
    assert (bracket.upper >= true - 1e-7).all()
    found = np.isfinite(true)
    # Polishing ends at the true radius for nearly all points of so small a net.
    assert (bracket.upper[found] <= true[found] + 1e-5).mean() >= 0.8
    lp = pointwise_robustness(model, X, targets="all")
    assert (lp.radius >= true - 1e-7).all()


def test_exact_is_the_true_radius_within_the_precision():
    module = seeded(lambda: nn.Sequential(nn.Linear(3, 5), nn.ReLU(), nn.Linear(5, 3)), 1)
    model = TorchClassifier(module, 3)
    X = points(6, 3)
    true = np.array([global_radius(module, x.astype(float), 5) for x in X])
    found = pointwise_robustness(model, X, method="exact", precision=1e-4, random_state=0)
    assert set(found.status) == {"optimal"}
    np.testing.assert_allclose(found.radius, true, atol=2e-4)
    assert (found.lower <= true + 1e-9).all()
    assert (found.upper - found.lower).max() <= 1.1e-4
    np.testing.assert_array_equal(found.bound, found.lower)
    assert_confirmed(model, X, found, model.predict(X))


def test_exact_proves_that_nothing_is_to_be_found():
    # Up to 0.375, x1 + x2 stays below 1.
    found = pointwise_robustness(diagonal(), [[0.25, 0.25]], method="exact", bounds=(0, 0.375))
    assert found.status.tolist() == ["no adversarial example"]
    assert found.radius[0] == np.inf and found.lower[0] >= 0.25


def test_exact_finds_what_the_region_of_the_sample_does_not_hold():
    # In the middle of the tent both sides are 1/4 away; from 0.4375 the left one is 3/16 away.
    found = pointwise_robustness(tent(), [[0.5, 0.5], [0.4375, 1.0]], method="exact")
    np.testing.assert_allclose(found.radius, [0.25, 0.1875], atol=1e-3)
    assert set(found.status) == {"optimal"}


def test_exact_stops_at_epsilon_max_and_says_so():
    X = [[0.25, 0.25], [0.4375, 0.5]]
    found = pointwise_robustness(diagonal(), X, method="exact", epsilon_max=0.1)
    assert found.status.tolist() == ["above epsilon_max", "optimal"]
    assert found.lower[0] == 0.1 and found.radius[0] == np.inf
    assert found.radius[1] == pytest.approx(0.03125, abs=1e-3)


def test_exact_says_why_a_bracket_stays_open():
    model = TorchClassifier(seeded(convolutional), 3)
    X = points(3, 64)
    bracket = pointwise_robustness(model, X, method="bracket", random_state=0)
    options = {"timeout": 1e-9, "precision": 1e-9, "random_state": 0}
    found = pointwise_robustness(model, X, method="exact", **options)
    assert set(found.status) == {"time limit"}
    np.testing.assert_array_equal(found.lower, bracket.lower)
    np.testing.assert_array_equal(found.radius, bracket.radius)


def test_polished_has_an_example_wherever_lbfgs_has_one():
    # Where the attack and the program find nothing, polishing starts from what lbfgs finds.
    model = TorchClassifier(seeded(perceptron, 3), 3)
    X = points(10, 5)
    lbfgs = pointwise_robustness(model, X, method="lbfgs", random_state=0)
    nothing = PGD(n_steps=1, step_size=1e-9, random_start=False)
    found = pointwise_robustness(
        model, X, method="polished", attack=nothing, max_rows=1, random_state=0
    )
    assert np.isfinite(lbfgs.radius).sum() > 5
    assert np.isfinite(found.radius[np.isfinite(lbfgs.radius)]).all()
    by_lbfgs = np.isinf(
        pointwise_robustness(model, X, method="lp", max_rows=1, random_state=0).radius
    )
    assert by_lbfgs.any()
    assert (found.radius[by_lbfgs] <= lbfgs.radius[by_lbfgs] * (1 + 1e-6)).all()


@pytest.mark.parametrize(
    ("factory", "n_features"), [(perceptron, 5), (convolutional, 64)], ids=["dense", "conv"]
)
def test_certified_margins_are_below_all_samples(factory, n_features):
    module = seeded(factory).double()
    graph = read_graph(module, n_features)
    generator = torch.Generator().manual_seed(0)
    x = torch.as_tensor(points(5, n_features)).double()
    labels = graph(x).argmax(dim=1)
    for radius in (0.0, 0.01, 0.1, 0.5):
        lower, upper = x - radius, x + radius
        bound = lowest_margin(graph, x, lower, upper, labels)
        refined = lowest_margin(graph, x, lower, upper, labels, refine=True)
        assert (refined >= bound - 1e-9).all()
        for k in range(len(x)):
            noise = torch.rand(400, n_features, generator=generator).double()
            noise = torch.where(noise > 0.5, 1.0, 0.0) if radius > 0.05 else noise
            logits = graph(lower[k] + noise * (upper[k] - lower[k]))
            others = logits.index_fill(1, labels[k], -torch.inf).amax(dim=1)
            margins = logits[:, labels[k]] - others
            assert max(bound[k], refined[k]) <= margins.min()
            if radius == 0:
                assert bound[k] == pytest.approx(margins.min().item(), abs=1e-7)


def test_epsilon_max_stops_the_search():
    X = np.array([[0.25, 0.25], [0.4375, 0.5]])
    for method in ("lp", "polished"):
        result = pointwise_robustness(
            diagonal(), X, method=method, epsilon_max=0.1, random_state=0
        )
        assert result.radius[0] == np.inf
        assert result.radius[1] == pytest.approx(0.03125, abs=1e-5)
    result = pointwise_robustness(diagonal(), X, epsilon_max=0.1)
    assert result.status.tolist() == ["above epsilon_max", "optimal"]


@pytest.mark.parametrize("options", [{"targets": "all"}, {"margin": 1e-9}, {"max_rows": 3}])
def test_polished_is_never_larger_than_lp_with_the_same_parameters(options):
    model = TorchClassifier(seeded(perceptron, 5), 3)
    X = points(15, 5)
    radius = {
        method: pointwise_robustness(model, X, method=method, random_state=0, **options).radius
        for method in ("lp", "polished")
    }
    assert np.isfinite(radius["lp"]).any()
    assert (radius["polished"] <= radius["lp"]).all()


def test_row_limit_ends_a_search_with_its_proven_bound():
    model = TorchClassifier(seeded(convolutional), 3)
    X = points(6, 64)
    full = pointwise_robustness(model, X, max_rows=None)
    cut = pointwise_robustness(model, X, max_rows=1)
    stopped = cut.status == PointwiseStatus.ROWS
    solved = np.isfinite(full.optimum)
    assert (stopped & solved).any()
    assert np.isnan(cut.optimum[stopped]).all() and np.isinf(cut.radius[stopped]).all()
    assert (cut.bound[stopped] > 0).all()
    np.testing.assert_array_less(cut.bound[stopped & solved], full.optimum[stopped & solved])
    np.testing.assert_allclose(full.bound[solved], full.optimum[solved])
    # What the attack has found stays where a program gives up.
    attack, polished = (
        pointwise_robustness(model, X, method=method, max_rows=1, random_state=0).radius
        for method in ("attack", "polished")
    )
    assert (polished <= attack).all() and np.isfinite(polished).any()


def test_margin_asks_for_more():
    result = pointwise_robustness(diagonal(), [[0.25, 0.25]], margin=0.5)
    assert result.optimum[0] == pytest.approx(0.5)


def test_targets():
    # Scores 0, x1 - 0.5, 2 x1 - 0.75 at x1 = 0: runner-up is 1 (0.5 away), 2 needs 0.375.
    module = nn.Linear(1, 3)
    module.weight.data = torch.tensor([[0.0], [1.0], [2.0]])
    module.bias.data = torch.tensor([0.0, -0.5, -0.75])
    model = TorchClassifier(module, ["a", "b", "c"])
    radius = {
        targets: pointwise_robustness(model, [[0.0]], targets=targets).radius[0]
        for targets in ("runner-up", "all", "c")
    }
    # Where the runner-up must also beat "c", it never can in [0, 1]: 2 x1 - 0.75 > x1 - 0.5
    # for x1 > 0.25.
    assert radius["runner-up"] == np.inf
    assert radius["all"] == radius["c"] == pytest.approx(0.375, abs=1e-5)


def test_constant_inputs_and_equal_pool_entries():
    module = seeded(convolutional)
    model = TorchClassifier(module, 3)
    X = np.stack([np.zeros(64), np.full(64, 0.5), np.ones(64)]).astype(np.float32)
    labels = model.predict(X)
    result = pointwise_robustness(model, X, method="polished", random_state=0)
    assert_confirmed(model, X, result, labels)
    assert PointwiseStatus.FAILURE not in result.status


def test_bounds_that_fix_pixels():
    low, high = np.array([0.0, 0.25]), np.array([1.0, 0.25])
    result = pointwise_robustness(diagonal(), [[0.25, 0.25]], bounds=(low, high))
    assert result.optimum[0] == pytest.approx(0.5)
    assert result.adversarial_examples[0, 1] == 0.25
    fixed = np.array([0.25, 0.25])
    result = pointwise_robustness(diagonal(), [[0.25, 0.25]], bounds=(fixed, fixed))
    assert result.status[0] == "infeasible region"


def test_misclassified_samples_have_radius_zero():
    X = np.array([[0.25, 0.25], [0.25, 0.25]])
    result = pointwise_robustness(diagonal(), X, y=[1, 0])
    assert result.radius[0] == 0.0
    assert result.status.tolist() == ["already misclassified", "optimal"]
    assert (result.adversarial_examples[0] == X[0]).all()


def test_failure_on_one_point_leaves_the_others_whole(monkeypatch):
    X = np.array([[0.25, 0.25], [0.375, 0.5], [0.0, 0.5]])
    expected = pointwise_robustness(diagonal(), X)
    solve = LazyPrograms.solve

    def failing(self, *args):
        if (self.centers[:, 0] == 0.375).any():
            raise RuntimeError("injected")
        return solve(self, *args)

    monkeypatch.setattr(_methods.LazyPrograms, "solve", failing)
    result = pointwise_robustness(diagonal(), X)
    assert result.status.tolist() == ["optimal", "numerical failure", "optimal"]
    assert result.radius[1] == np.inf
    np.testing.assert_array_equal(result.radius[[0, 2]], expected.radius[[0, 2]])


def test_failure_to_certify_one_point_leaves_the_others_whole(monkeypatch):
    X = np.array([[0.25, 0.25], [0.375, 0.5], [0.0, 0.5]])
    certify = _methods.certified_radius

    def failing(graph, x, *args):
        if (x[:, 0] == 0.375).any():
            raise RuntimeError("injected")
        return certify(graph, x, *args)

    monkeypatch.setattr(_methods, "certified_radius", failing)
    found = pointwise_robustness(diagonal(), X, method="certified")
    assert found.status.tolist() == ["certified", "numerical failure", "certified"]
    assert found.radius[1] == found.lower[1] == 0.0
    assert (found.radius[[0, 2]] > 0.2).all()
    found = pointwise_robustness(diagonal(), X, method="bracket", random_state=0)
    assert found.lower[1] == 0.0 and found.upper[1] == pytest.approx(0.0625, abs=1e-5)


def test_mistakes_in_the_search_are_not_hidden(monkeypatch):
    def failing(self, *args):
        raise ValueError("injected")

    monkeypatch.setattr(_methods.LazyPrograms, "solve", failing)
    with pytest.raises(ValueError, match="injected"):
        pointwise_robustness(diagonal(), [[0.25, 0.25]])


def test_what_ends_before_any_point_is_found_keeps_its_reason_in_sklearn_models():
    X, y = load_digits(return_X_y=True)
    X = X / 16
    model = LogisticRegression(max_iter=300).fit(X[:600], y[:600])
    found = pointwise_robustness(model, X[600:604], margin=1e3)
    assert set(found.status) == {"infeasible region"}
    assert (found.bound == np.inf).all()
    full = pointwise_robustness(model, X[600:604])
    assert set(full.status) == {"optimal"}
    for i, factor in enumerate((1 - 1e-9, 1 + 1e-9)):
        limit = full.optimum[i] * factor
        found = pointwise_robustness(model, X[600 + i : 601 + i], epsilon_max=limit)
        assert found.status[0] in ("above epsilon_max", "optimal")
        assert found.bound[0] == pytest.approx(full.optimum[i], rel=1e-6)
        assert found.radius[0] == np.inf or found.radius[0] <= limit


@pytest.mark.parametrize("solver", ["lazy", "cvxpy"])
@pytest.mark.parametrize(
    "method", ["lp", "attack", "lbfgs", "polished", "certified", "bracket", "exact"]
)
def test_sample_at_which_labels_tie_has_radius_zero(method, solver):
    X = np.array([[0.5, 0.5], [0.25, 0.25]])
    model = diagonal()
    found = pointwise_robustness(model, X, method=method, solver=solver, random_state=0)
    assert found.radius[0] == found.lower[0] == found.upper[0] == found.bound[0] == 0.0
    np.testing.assert_array_equal(found.adversarial_examples[0], X[0])
    assert found.status[0] in ("optimal", "found", "certified")
    assert found.radius[1] > 0.2


def plateau():
    """The scores are relu(1/2 - x) and 0: class 1 never wins, but ties from 1/2 on."""
    module = nn.Sequential(nn.Linear(1, 1), nn.ReLU(), nn.Linear(1, 2))
    module[0].weight.data, module[0].bias.data = torch.tensor([[-1.0]]), torch.tensor([0.5])
    module[2].weight.data, module[2].bias.data = torch.tensor([[1.0], [0.0]]), torch.zeros(2)
    return TorchClassifier(module, 2)


@pytest.mark.parametrize("attack", [None, PGD()], ids=["default", "far"])
@pytest.mark.parametrize("method", ["lp", "polished", "attack", "bracket", "exact"])
def test_tie_beside_which_no_other_label_wins_is_an_example(method, attack):
    # PGD alone stops somewhere on the plateau; it is pulled to its edge.
    found = pointwise_robustness(plateau(), [[0.25]], method=method, attack=attack, random_state=0)
    assert found.radius[0] == pytest.approx(0.25, abs=1e-5)
    assert found.status[0] == ("optimal" if method in ("lp", "exact") else "found")


def test_nearer_tie_is_better_than_a_farther_win():
    chunk = _records.Chunk(
        as_network(plateau(), input_shape=(1,)), np.array([[0.25]]), None, None, np.inf
    )
    records, index = _records.Records(1, 1, np.float32), np.array([0])
    records.keep(index, np.array([[0.9]]), np.array([0.65]), PointwiseStatus.FOUND)
    assert _records.keep_near(chunk, records, index, np.array([[0.5]])).all()
    assert records.radius[0] == 0.25


@pytest.mark.parametrize("offset", [0.0, 1e3, 1e5])
def test_logits_with_a_common_offset_tie_in_float32_and_no_radius_is_missed(offset):
    module = copy.deepcopy(seeded(lambda: nn.Sequential(nn.Linear(4, 6), nn.ReLU(),
                                                        nn.Linear(6, 3)), 1))  # fmt: skip
    module[2].bias.data += offset
    model, X = TorchClassifier(module, 3), points(8, 4)
    found = {
        method: pointwise_robustness(model, X, method=method, random_state=0)
        for method in ("lp", "attack", "polished", "exact")
    }
    radius = {method: result.radius for method, result in found.items()}
    assert (radius["polished"] <= np.minimum(radius["lp"], radius["attack"])).all()
    exact = found["exact"]
    closed = exact.status == "optimal"
    assert closed.any()
    assert (exact.radius - exact.lower)[closed].max() <= 1e-3 * (1 + 1e-9)


def test_tie_of_other_labels_or_with_a_margin_is_not_the_answer_of_the_program():
    # Scores x1, x2 and 1 - x1 - x2 + 1/4: at (1/2, 1/2) the first two tie.
    module = nn.Linear(2, 3)
    module.weight.data = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, -1.0]])
    module.bias.data = torch.tensor([0.0, 0.0, 1.25])
    model, X = TorchClassifier(module, ["a", "b", "c"]), [[0.5, 0.5]]
    for targets, margin, expected in (
        ("runner-up", 0.0, 0.0), ("b", 0.0, 0.0), ("all", 0.0, 0.0),
        ("c", 0.0, 0.25 / 3), ("b", 0.5, 0.25), ("runner-up", 0.5, 0.25),
    ):  # fmt: skip
        found = pointwise_robustness(model, X, targets=targets, margin=margin)
        assert found.optimum[0] == pytest.approx(expected, abs=1e-9), (targets, margin)
        assert found.bound[0] == pytest.approx(expected, abs=1e-9)


def test_bounds_that_float32_rounds_outwards_hold_the_sample():
    module = nn.Linear(2, 2)
    module.weight.data = torch.tensor([[0.0, 0.0], [1.0, 1.0]])
    module.bias.data = torch.tensor([0.0, -0.5])
    assert float(np.float32(0.3)) > 0.3
    found = pointwise_robustness(TorchClassifier(module, 2), [[0.3, 0.3]], bounds=(0.0, 0.3))
    assert found.status[0] == "optimal"
    assert found.radius[0] == pytest.approx(0.05, abs=1e-5)


def test_of_several_targets_the_closest_counts_and_the_weightiest_reason():
    # From 1/4, label 1 wins from 1/2 on and label 2 nowhere.
    module = nn.Linear(1, 3)
    module.weight.data = torch.tensor([[0.0], [1.0], [0.0]])
    module.bias.data = torch.tensor([0.5, 0.0, -5.0])
    model = TorchClassifier(module, 3)
    found = pointwise_robustness(model, [[0.25]], targets="all")
    assert found.status[0] == "optimal"
    assert found.bound[0] == found.optimum[0] == pytest.approx(0.25)
    found = pointwise_robustness(model, [[0.25]], targets="all", epsilon_max=0.125)
    assert found.status[0] == "above epsilon_max"
    found = pointwise_robustness(model, [[0.25]], targets=2)
    assert found.status[0] == "infeasible region"


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e7])
def test_certified_finds_small_radii_in_large_domains(scale):
    module = nn.Linear(2, 2).double()
    module.weight.data = torch.tensor([[0.0, 0.0], [1.0, 0.0]]).double()
    module.bias.data = torch.tensor([0.0, -0.5]).double()
    model = TorchClassifier(module, 2)
    bounds = ([0.0, 0.0], [1.0, scale])
    found = pointwise_robustness(model, [[0.25, 0.0]], method="certified", bounds=bounds)
    assert 0.25 * (1 - 1e-3) <= found.radius[0] <= 0.25


def test_certified_does_not_depend_on_the_other_samples_and_says_what_is_proven():
    # No feature can move; up to 0.375 the sum stays below 1; up to 1/16 nothing was asked.
    model, X = diagonal(), np.array([[0.25, 0.25], [0.375, 0.0]])
    for bounds, options, status in (
        ((X[0], X[0]), {}, "no adversarial example"),
        ((0.0, 0.375), {}, "no adversarial example"),
        ((0.0, 1.0), {"epsilon_max": 0.0625}, "above epsilon_max"),
    ):
        for method in ("certified", "bracket"):
            options = {"method": method, "bounds": bounds, "random_state": 0, **options}
            found = pointwise_robustness(model, X[:1], **options)
            assert found.status.tolist() == [status], (bounds, method)
    both = pointwise_robustness(model, X, method="certified")
    one = pointwise_robustness(model, X[1:], method="certified")
    assert both.radius[1] == one.radius[0]


def test_threads_may_share_a_model():
    model, X = TorchClassifier(seeded(perceptron), 3), points(24, 5)
    expected = pointwise_robustness(model, X, epsilon_max=0.2, chunk_size=2)
    for _ in range(3):
        with joblib.parallel_config(backend="threading"):
            found = pointwise_robustness(model, X, epsilon_max=0.2, chunk_size=2, n_jobs=4)
        np.testing.assert_array_equal(found.radius, expected.radius)


class Scaled(nn.Module):
    """A net whose inputs and outputs are in other units."""

    def __init__(self, net, inputs, outputs):
        super().__init__()
        self.net, self.outputs = copy.deepcopy(net).double(), outputs
        self.net[0].weight.data /= inputs

    def forward(self, x):
        return self.net(x) * self.outputs


@pytest.mark.parametrize("solver", ["lazy", "cvxpy", "highs"])
@pytest.mark.parametrize(
    ("inputs", "outputs"),
    [(1e-9, 1), (1e-3, 1), (1e6, 1), (1e9, 1), (1, 1e-6), (1, 1e7), (1e-6, 1e-6)],
)
def test_units_change_nothing(monkeypatch, solver, inputs, outputs):
    if solver == "highs":
        monkeypatch.setattr(_programs, "_FEW_ROWS", 2)
        solver = "lazy"
    net, X = seeded(perceptron, 3), points(6, 5).astype(float)

    def measure(inputs, outputs):
        model = TorchClassifier(Scaled(net, inputs, outputs), 3)
        return pointwise_robustness(
            model,
            X * inputs,
            bounds=(0.0, inputs),
            epsilon_max=0.4 * inputs,
            targets="all",
            solver=solver,
        )

    expected, found = measure(1.0, 1.0), measure(inputs, outputs)
    assert np.isfinite(expected.radius).sum() > 2
    assert found.status.tolist() == expected.status.tolist()
    for name in ("radius", "optimum"):
        value = getattr(found, name) / inputs
        np.testing.assert_allclose(value, getattr(expected, name), rtol=1e-6, atol=1e-9)


def test_units_are_taken_from_the_data_where_the_domain_has_no_end():
    for inputs in (1e-6, 1e6):
        module = nn.Linear(2, 2).double()
        module.weight.data = torch.tensor([[0.0, 0.0], [1.0, 1.0]]).double() / inputs
        module.bias.data = torch.tensor([0.0, -1.0]).double()
        model = TorchClassifier(module, 2)
        found = pointwise_robustness(model, np.full((1, 2), 0.25 * inputs), bounds=None)
        assert found.radius[0] / inputs == pytest.approx(0.25, rel=1e-4)


def test_examples_beyond_epsilon_max_are_not_reported():
    # The program ends below the limit, but what rounding asks for on top passes it.
    X = np.array([[0.25, 0.25]])
    network = as_network(diagonal(), input_shape=(2,))
    chunk = _records.Chunk(network, network.check_rows(X), None, None, 0.3)
    records = _records.Records(1, 2, np.float32)
    index = np.array([0])
    for far, expected in ((0.4, False), (0.29, True)):
        kept = _records.keep_confirmed(chunk, records, index, X + far, PointwiseStatus.FOUND)
        assert kept.tolist() == [expected]
        assert np.isfinite(records.radius[0]) == expected


def test_own_label_as_the_target():
    found = pointwise_robustness(diagonal(), [[0.25, 0.25], [0.75, 0.75]], targets=1)
    assert found.status.tolist() == ["optimal", "own label is the target"]
    assert "another one" in PointwiseStatus(found.status[1]).advice


def test_jobs_and_chunks_make_no_difference(tmp_path):
    model = TorchClassifier(seeded(perceptron), 3)
    X = points(7, 5)
    options = {"method": "polished", "random_state": 0, "chunk_size": 3}
    one = pointwise_robustness(model, X, **options)
    two = pointwise_robustness(model, X, n_jobs=2, memory=str(tmp_path), **options)
    kept = pointwise_robustness(model, X, memory=str(tmp_path), **options)
    for other in (two, kept):
        np.testing.assert_array_equal(one.radius, other.radius)
        np.testing.assert_array_equal(one.adversarial_examples, other.adversarial_examples)


def test_result_is_readable():
    result = pointwise_robustness(diagonal(), [[0.25, 0.25], [0.5, 0.25]])
    assert "2 optimal" in repr(result)
    frame = result.to_frame()
    assert list(frame["radius"].round(3)) == [0.25, 0.125]
    assert all(PointwiseStatus(status).advice for status in result.status)
    assert all(status.advice for status in PointwiseStatus)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "magic"}, "Got method='magic', but expected one of 'lp'"),
        ({"solver": "abacus"}, "Got solver='abacus', but expected one of 'lazy', 'cvxpy'"),
        ({"margin": -1.0}, r"Got margin=-1.0, but expected a finite number in \[0"),
        ({"epsilon_max": 0.0}, r"Got epsilon_max=0.0, but expected a finite number in \(0"),
        ({"targets": 7}, r"Got targets=7, but expected .*one of the classes \[0, 1\]"),
        ({"targets": "runner"}, "Got targets='runner', but expected 'runner-up', 'all'"),
        ({"bounds": (0.0, 0.3)}, "1 of 2 rows of X lie outside"),
        ({"y": [0]}, "Got y of length 1, but expected 2"),
        ({"y": [0, 5]}, "expected labels among the estimator's classes"),
        ({"bounds": None, "method": "attack"}, "Got bounds=None and epsilon_max=None"),
        ({"bounds": (0, np.inf), "method": "certified"}, "Got infinite bounds and epsilon_max"),
        ({"bounds": (-np.inf, 1), "method": "exact"}, "expected finite bounds or an epsilon_max"),
        ({"chunk_size": 0}, "Got chunk_size=0"),
        ({"max_rows": 0}, "Got max_rows=0"),
        ({"precision": 0.0}, r"Got precision=0.0, but expected a finite number in \(0"),
        ({"timeout": 0.0}, r"Got timeout=0.0, but expected a finite number in \(0"),
    ],
)
def test_bad_input(options, message):
    with pytest.raises(ValueError, match=message):
        pointwise_robustness(diagonal(), [[0.25, 0.25], [0.5, 0.25]], **options)


def test_samples_and_modules_that_do_not_fit_are_refused_by_name():
    for method in ("lp", "attack"):
        with pytest.raises(ValueError, match="Got X with 3 features, but expected 2"):
            pointwise_robustness(diagonal(), [[0.25, 0.25, 0.5]], method=method)
    with pytest.raises(ValueError, match=r"outputs of shape \(1, 2\), but expected \(1, 3\)"):
        pointwise_robustness(TorchClassifier(nn.Linear(2, 2), 3), [[0.25, 0.25]])
    with pytest.raises(ValueError, match=r"classes \[0\], but expected at least two"):
        pointwise_robustness(TorchClassifier(nn.Linear(2, 1), 1), [[0.25, 0.25]])
    with pytest.raises(UnsupportedModelError, match="bfloat16, but expected"):
        pointwise_robustness(TorchClassifier(nn.Linear(2, 2).bfloat16(), 2), [[0.25, 0.25]])
    with pytest.raises(ValueError, match=r"expected \(n_samples, n_features\)"):
        pointwise_robustness(diagonal(), [0.25, 0.25])
    module = nn.Linear(2, 2)
    module.bias.data[0] = torch.nan
    with pytest.raises(UnsupportedModelError, match="returns NaN or infinity"):
        pointwise_robustness(TorchClassifier(module, 2), [[0.25, 0.25]])


def test_certified_radius_is_the_largest_that_bounds_prove():
    # Here bounds of the hidden units by CROWN prove more than twice what intervals do.
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = nn.Sequential(
            nn.Linear(50, 300), nn.ReLU(), nn.Linear(300, 300), nn.ReLU(), nn.Linear(300, 10)
        )
    X = np.random.default_rng(0).random((2, 50)).astype(np.float32)
    model = TorchClassifier(module, 10)
    radius = pointwise_robustness(model, X, method="certified").radius
    graph, x = read_graph(module, 50), torch.as_tensor(X).double()
    labels = graph(x).argmax(dim=1)

    def holds(radius, refine):
        step = torch.as_tensor(radius).unsqueeze(1)
        low, high = (x - step).clamp(min=0), (x + step).clamp(max=1)
        return (lowest_margin(graph, x, low, high, labels, refine) > 0).numpy()

    assert holds(radius, True).all()
    assert not holds(1.04 * radius, True).any()
    assert not holds(radius / 2, False).any()


def test_exact_keeps_what_bounds_have_proven():
    module = nn.Linear(3, 2)
    module.weight.data = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    module.bias.data = torch.tensor([10.0, 0.0])
    model, X = TorchClassifier(module, 2), np.full((2, 3), 0.5)
    options = {"method": "exact", "timeout": 1e-9, "random_state": 0}
    found = pointwise_robustness(model, X, **options)
    assert set(found.status) == {"no adversarial example"}
    found = pointwise_robustness(model, X, epsilon_max=0.125, **options)
    assert set(found.status) == {"above epsilon_max"}


def test_solution_without_a_status_is_a_failure(monkeypatch):
    import cvxpy

    def failing(self, **options):
        raise ValueError("Cannot unpack invalid solution")

    monkeypatch.setattr(cvxpy.Problem, "solve", failing)
    found = pointwise_robustness(diagonal(), [[0.25, 0.25]], solver="cvxpy")
    assert found.status[0] == "numerical failure"


def test_what_is_not_piecewise_linear_is_refused_but_attacked():
    model = TorchClassifier(nn.Sequential(nn.Linear(2, 2), nn.Sigmoid(), nn.Linear(2, 2)), 2)
    with pytest.raises(UnsupportedModelError, match=r"'sigmoid' in layer 1 \(Sigmoid\)"):
        pointwise_robustness(model, [[0.5, 0.5]])
    result = pointwise_robustness(model, [[0.5, 0.5]], method="attack", random_state=0)
    assert result.status[0] in ("found", "not found")
