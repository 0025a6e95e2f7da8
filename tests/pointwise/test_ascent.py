"""Bounds from weights of all rows: sound on the way, and tight in the end."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

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
