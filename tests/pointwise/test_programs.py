"""The programs over linear regions, against other solvers, and in any units."""

import numpy as np
import pytest
import torch
from torch import nn

from skrobust import TorchClassifier
from skrobust.graphs import read_graph
from skrobust.pointwise import PointwiseStatus, _programs, pointwise_robustness
from skrobust.pointwise._linear_region import linear_region
from skrobust.pointwise._programs import LazyPrograms, closest_by_half_spaces
from skrobust.pointwise._stated import StatedPrograms
from tests.pointwise._nets import (
    Scaled,
    assert_confirmed,
    convolutional,
    diagonal,
    perceptron,
    points,
    seeded,
    tent,
)


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


@pytest.mark.parametrize("bounds", [(0.0, 1.0), (-np.inf, np.inf)], ids=["pixels", "none"])
@pytest.mark.parametrize("limit", [0.02, 0.1, np.inf])
def test_programs_of_many_rows_end_as_all_half_spaces_do(monkeypatch, bounds, limit):
    monkeypatch.setattr(_programs, "_FEW_ROWS", 2)
    climbed = []
    climb = _programs.climb
    monkeypatch.setattr(
        _programs, "climb", lambda *args: climbed.append(1) or climb(*args[:-1], 60)
    )
    graph = read_graph(seeded(convolutional), 64)
    x = torch.as_tensor(points(4, 64)).double()
    region = linear_region(graph, x)
    order = graph(x).argsort(dim=1, descending=True).numpy().T
    ends = np.full(x.shape, bounds[0]), np.full(x.shape, bounds[1])
    for target in order[1:]:
        for margin in (0.0, 0.02):
            arguments = (region, x.numpy(), target, *ends, margin, order[0])
            found = LazyPrograms(*arguments).solve(limit)
            full = closest_by_half_spaces(*arguments)
            passed = full.radius > limit
            expected = np.where(passed & np.isfinite(limit), "limit", full.status)
            np.testing.assert_array_equal(found.status == "optimal", expected == "optimal")
            solved = found.status == "optimal"
            np.testing.assert_allclose(found.radius[solved], full.radius[solved], atol=1e-7)
            assert (found.radius[~solved] >= min(limit, 1e300)).all()
    assert climbed


def many_pools():
    return nn.Sequential(
        nn.Unflatten(1, (1, 16, 16)), nn.Conv2d(1, 16, 3), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(784, 60), nn.ReLU(), nn.Linear(60, 3),
    )  # fmt: skip


def test_region_of_many_half_spaces_is_solved_to_its_end():
    # On a constant background all pools tie, so that the sample lies in the corner of its region.
    rng = np.random.default_rng(0)
    X = np.zeros((3, 256), dtype=np.float32)
    X[:, rng.choice(256, 40, replace=False)] = rng.integers(0, 17, (3, 40)) / 16
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = many_pools()
    module[-1].bias.data -= module(torch.rand(300, 256)).detach().mean(dim=0)
    model = TorchClassifier(module, 3)
    limited = pointwise_robustness(model, X, max_rows=100)
    assert "row limit" in limited.status.tolist()
    found = pointwise_robustness(model, X)
    stated = pointwise_robustness(model, X, solver="cvxpy")
    assert found.status.tolist() == stated.status.tolist()
    assert not set(found.status) & {"row limit", "numerical failure", "unconfirmed"}
    np.testing.assert_allclose(found.optimum, stated.optimum, rtol=1e-6)
    assert (limited.bound <= found.optimum * (1 + 1e-9))[np.isfinite(found.optimum)].all()


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


def test_bounds_that_fix_pixels():
    low, high = np.array([0.0, 0.25]), np.array([1.0, 0.25])
    result = pointwise_robustness(diagonal(), [[0.25, 0.25]], bounds=(low, high))
    assert result.optimum[0] == pytest.approx(0.5)
    assert result.adversarial_examples[0, 1] == 0.25
    fixed = np.array([0.25, 0.25])
    result = pointwise_robustness(diagonal(), [[0.25, 0.25]], bounds=(fixed, fixed))
    assert result.status[0] == "infeasible region"


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
