"""Bounds from weights of all rows: sound on the way, and tight in the end."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog

from skrobust.graphs import read_graph
from skrobust.pointwise import _ascent
from skrobust.pointwise._ascent import climb
from skrobust.pointwise._linear_region import linear_region
from skrobust.pointwise._programs import closest_by_half_spaces
from tests.pointwise._nets import convolutional, diagonal, perceptron, points, seeded


def program(module, x):
    """Return regions, targets, right-hand sides, and the arguments of another solver."""
    graph = read_graph(module, x.shape[1])
    region = linear_region(graph, torch.as_tensor(x).double())
    values = region.at_x
    logits = values[-1].flatten(1)
    labels, targets = logits.argsort(dim=1, descending=True)[:, :2].T
    gaps = logits - logits.gather(1, targets[:, None])
    gaps.scatter_(1, targets[:, None], -torch.inf)
    right = torch.cat([-region.slacks(values), gaps], dim=1)
    return region, right, targets, labels


def climbed(region, right, targets, limit, n_steps, low=0.0, high=1.0):
    x = region.x
    ends = low - x, high - x
    tolerance = torch.zeros_like(right)
    return climb(region, right, tolerance, targets, *ends, limit, n_steps)


def optima(region, targets, labels, low=0.0, high=1.0):
    x = region.x.numpy()
    found = closest_by_half_spaces(
        region, x, targets.numpy(), np.full(x.shape, low), np.full(x.shape, high), 0.0,
        labels.numpy(),
    )  # fmt: skip
    assert set(found.status) <= {"optimal", "infeasible"}
    return torch.as_tensor(np.where(found.status == "optimal", found.radius, np.inf))


@settings(max_examples=20, deadline=None)
@given(
    st.sampled_from([(perceptron, 5), (convolutional, 64)]),
    st.integers(0, 50),
    st.floats(0.1, 3.0),
    st.integers(1, 60),
)
def test_bounds_are_never_above_the_optimum(net, seed, share, n_steps):
    factory, n_features = net
    module, x = seeded(factory, seed), points(2, n_features, seed)
    region, right, targets, labels = program(module, x)
    true = optima(region, targets, labels)
    limit = share * torch.where(torch.isfinite(true) & (true > 0), true, 0.1)
    found = climbed(region, right, targets, limit, n_steps)
    assert (found.bound >= 0).all() and (found.bound <= true * (1 + 1e-9)).all()
    assert (found.weights >= 0).all()


@pytest.mark.parametrize("bounds", [(0.0, 1.0), (-np.inf, np.inf)])
def test_every_limit_below_the_optimum_is_passed(bounds):
    region, right, targets, labels = program(seeded(perceptron, 3), points(12, 5))
    true = optima(region, targets, labels, *bounds)
    feasible = torch.isfinite(true) & (true > 1e-6)
    assert feasible.sum() > 3
    limit = 0.9 * torch.where(feasible, true, 1.0)
    found = climbed(region, right, targets, limit, 1500, *bounds)
    assert (found.bound[feasible] > limit[feasible]).all()
    assert (found.bound <= true * (1 + 1e-9)).all()


def by_hand(module, x, target, margin, low, high):
    """Return the optimum around one point by scipy, with rows of a forward pass in NumPy."""
    weight, bias, rows, right = np.eye(len(x)), np.zeros(len(x)), [], []
    for part in module:
        if isinstance(part, torch.nn.Linear):
            own = part.weight.detach().double().numpy()
            weight, bias = own @ weight, own @ bias + part.bias.detach().double().numpy()
            continue
        sign = np.where(weight @ x + bias > 0, 1.0, -1.0)
        rows += [*(sign[:, None] * weight)]
        right += [*(-sign * (weight @ x + bias))]
        weight, bias = weight * (sign > 0)[:, None], bias * (sign > 0)
    others = np.delete(np.arange(len(bias)), target)
    rows += [*(weight[target] - weight[others])]
    right += [*(margin - (weight @ x + bias)[target] + (weight @ x + bias)[others])]
    # Variables: the radius, and the move; rows @ move >= right, |move| <= radius.
    n = len(x)
    within = np.concatenate([np.c_[-np.ones(n), np.eye(n)], np.c_[-np.ones(n), -np.eye(n)]])
    found = linprog(
        np.eye(n + 1)[0],
        np.concatenate([np.c_[np.zeros(len(rows)), -np.array(rows)], within]),
        np.concatenate([-np.array(right), np.zeros(2 * n)]),
        bounds=[(0, None), *zip(low - x, high - x, strict=True)],
    )
    assert found.status in (0, 2)
    return found.fun if found.status == 0 else np.inf


@pytest.mark.parametrize("margin", [0.0, 0.1])
@pytest.mark.parametrize("ends", ["both", "upward", "fixed"])
def test_bounds_against_a_forward_pass_in_numpy(ends, margin):
    module, x = seeded(perceptron, 7), points(10, 5, 7).astype(float)
    low, high = np.zeros_like(x), np.ones_like(x)
    if ends == "upward":
        low[:, :3] = x[:, :3]
    if ends == "fixed":
        low[:, 1], high[:, 1] = x[:, 1], x[:, 1]
    region, right, targets, _ = program(module, x)
    right[:, region.n_rows :] += margin  # minus infinity stays: a class is no rival of itself
    cases = zip(x, targets, low, high, strict=True)
    true = torch.tensor(
        [by_hand(module, *case[:2], margin, *case[2:]) for case in cases], dtype=torch.float64
    )
    reached = torch.isfinite(true) & (true > 1e-6)
    assert reached.sum() > 2
    ends = torch.as_tensor(low), torch.as_tensor(high)
    for share, n_steps, is_passed in ((0.9, 500, True), (1.1, 50, False)):
        limit = share * torch.where(reached, true, 0.01)
        found = climbed(region, right, targets, limit, n_steps, *ends)
        assert (found.bound <= true * (1 + 1e-9)).all()
        assert ((found.bound > limit)[reached] == is_passed).all()


def test_a_search_ends_where_a_move_shows_that_no_bound_will_pass(monkeypatch):
    region, right, targets, labels = program(seeded(perceptron, 3), points(12, 5))
    true = optima(region, targets, labels)
    feasible = torch.isfinite(true)
    region, right, targets = region[feasible.numpy()], right[feasible], targets[feasible]
    walked = []
    step = _ascent._Walk.step
    monkeypatch.setattr(_ascent._Walk, "step", lambda self: (walked.append(1), step(self)))
    found = climbed(region, right, targets, 2 * true[feasible] + 0.01, 1500)
    assert len(walked) < 1500
    assert (found.bound <= true[feasible] * (1 + 1e-9)).all()
    # The moves nearly satisfy the rows of the outputs, in units of the limit.
    outputs = region(region.x + found.move)
    leads = outputs.gather(1, targets[:, None]) - outputs
    assert (leads.amin(dim=1) > -0.5).all()


def test_hand_worked_boundary():
    # The boundary x1 + x2 = 1 is 0.25 away.
    module = diagonal().module
    region, right, targets, _ = program(module, np.array([[0.25, 0.25]], dtype=np.float32))
    for limit in (0.2, 0.249):
        found = climbed(region, right, targets, torch.tensor([limit]).double(), 200)
        assert limit < found.bound[0] <= 0.25 * (1 + 1e-9)
    found = climbed(region, right, targets, torch.tensor([0.3]).double(), 200)
    assert 0.24 < found.bound[0] <= 0.25 * (1 + 1e-9)
    np.testing.assert_allclose(found.move, 0.25, atol=0.01)


@pytest.mark.parametrize(("factory", "n_features"), [(perceptron, 5), (convolutional, 64)])
def test_passes_are_products_with_the_rows(factory, n_features):
    region, right, targets, _ = program(seeded(factory, 1), points(3, n_features))
    rows = _ascent._Rows(region, targets)
    move = torch.randn(3, n_features, generator=torch.Generator().manual_seed(0)).double()
    reached = rows.times(move) * rows.scale
    for k in range(3):
        row = torch.isfinite(right[k, : region.n_rows]).nonzero()[:, 0].numpy()
        place = np.arange(len(row))
        normals = region.normals(np.full(len(row), k), place, row)
        np.testing.assert_allclose(reached[k, row], normals @ move[k], atol=1e-10)
    y = torch.rand(right.shape, generator=torch.Generator().manual_seed(1)).double()
    left, other = (rows.times(move) * y).sum(dim=1), (rows.transposed(y) * move).sum(dim=1)
    np.testing.assert_allclose(left, other, rtol=1e-9)
