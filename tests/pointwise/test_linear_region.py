"""Tests of skrobust.pointwise._linear_region: what is frozen, and where it is right."""

import numpy as np
import pytest
import torch
from torch import nn

from skrobust.graphs import read_graph
from skrobust.pointwise._linear_region import linear_region
from tests._modules import MODULES, build, sample


def normals(region, rows=(), outputs=None):
    """One sum for each half-space and for each row of weights of outputs, of a single region."""
    if outputs is not None:
        outputs = torch.cat([torch.zeros(len(rows), outputs.shape[1]), outputs])
    owner = [0] * (len(rows) if outputs is None else len(outputs))
    return region.normals(owner, range(len(rows)), rows, outputs=outputs)


@pytest.mark.parametrize(("factory", "n_features"), MODULES)
def test_region_holds_its_point_and_has_the_network_s_value_and_gradient(factory, n_features):
    module = build(factory)
    graph = read_graph(module, n_features)
    for x in sample(3, n_features).split(1):
        region = linear_region(graph, x)
        torch.testing.assert_close(region(x), module(x).detach(), rtol=1e-12, atol=1e-12)
        assert region.contains(x).all()
        for known, computed in zip(region.at_x, region.values(x), strict=True):
            torch.testing.assert_close(known, computed, rtol=0, atol=0)
        jacobian = torch.autograd.functional.jacobian(lambda v: module(v)[0], x)[:, 0]
        found = normals(region, outputs=torch.eye(len(jacobian)))
        torch.testing.assert_close(found, jacobian, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(("factory", "n_features"), MODULES)
def test_rows_of_a_region_are_affine_with_the_gradients_that_normals_returns(factory, n_features):
    graph = read_graph(build(factory), n_features)
    x = sample(1, n_features)
    region = linear_region(graph, x)
    slacks = region.slacks(region.values(x))[0]
    finite = slacks.isfinite().nonzero().squeeze(1)
    rng = np.random.default_rng(0)
    rows = rng.permutation(finite.numpy())[:60]
    weights = torch.eye(graph.n_classes)[:2]
    gradients = normals(region, rows, weights)
    move = torch.randn(4, n_features, generator=torch.Generator().manual_seed(3)).double()
    values = region.values(x + move)
    expected = slacks[rows] + move @ gradients[:-2].T
    torch.testing.assert_close(region.slacks(values)[:, rows], expected, rtol=1e-9, atol=1e-9)
    expected = region(x)[:, :2] + move @ gradients[-2:].T
    torch.testing.assert_close(values[-1][:, :2], expected, rtol=1e-9, atol=1e-9)
    derivative = region.values(move, linear=True)[-1]
    torch.testing.assert_close(values[-1], region(x) + derivative, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("factory", "n_features"), MODULES)
def test_many_regions_are_what_each_is_alone(factory, n_features):
    graph = read_graph(build(factory), n_features)
    x = sample(4, n_features)
    x[1] = 0.5  # with ties, in some
    many = linear_region(graph, x)
    assert len(many) == 4
    move = torch.randn(4, n_features, generator=torch.Generator().manual_seed(5)).double()
    slacks = many.slacks(many.values(x + move))
    rng = np.random.default_rng(1)
    owner, place, row, weight = [], [], [], rng.random(12)
    expected = []
    for k in range(4):
        alone = linear_region(graph, x[k])
        values = alone.values(x[[k]] + move[[k]])
        torch.testing.assert_close(alone.slacks(values)[0], slacks[k], rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(
            many[k : k + 1].values(x[[k]] + move[[k]])[-1], values[-1], rtol=1e-9, atol=1e-9
        )
        rows = rng.permutation(slacks[k].isfinite().nonzero().squeeze(1).numpy())[:3]
        rows = np.resize(rows, 3)
        owner.append(k)
        place += [k] * 3
        row += rows.tolist()
        expected.append(torch.as_tensor(weight[3 * k : 3 * k + 3]) @ normals(alone, rows))
    found = many.normals(owner, place, row, weight)
    torch.testing.assert_close(found, torch.stack(expected), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("factory", "n_features"), MODULES)
def test_network_is_affine_exactly_where_the_slacks_say(factory, n_features):
    graph = read_graph(build(factory), n_features)
    x = sample(1, n_features)
    region = linear_region(graph, x)
    move = torch.randn(500, n_features, generator=torch.Generator().manual_seed(4)).double()
    points = x + move * torch.logspace(-4, 0.5, 500).double().unsqueeze(1)
    inside = region.contains(points)
    assert 0 < inside.sum() < len(points)
    torch.testing.assert_close(region(points[inside]), graph(points[inside]))
    # Outside, some decision differs from what the network decides there.
    for point in points[~inside][::25].split(1):
        there = linear_region(graph, point)
        assert not there.contains(x).all() or not region.contains(point).all()


def test_hand_worked_region():
    # max(0, x1 - x2) and max(0, x1 + x2 - 1) at (0.75, 0.5): both on, slacks 1/4 and 1/4.
    module = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    module[0].weight.data = torch.tensor([[1.0, -1.0], [1.0, 1.0]])
    module[0].bias.data = torch.tensor([0.0, -1.0])
    region = linear_region(module, [0.75, 0.5])
    assert region.n_rows == 2
    x = torch.tensor([[0.75, 0.5], [0.25, 0.5], [0.5, 0.5]])
    slacks = region.slacks(region.values(x))
    assert slacks.tolist() == [[0.25, 0.25], [-0.25, -0.25], [0.0, 0.0]]
    assert region.contains(x).tolist() == [True, False, True]
    assert region(x).tolist() == [[0.25, 0.25], [-0.25, -0.25], [0.0, 0.0]]
    assert normals(region, [1, 0]).tolist() == [[1.0, 1.0], [1.0, -1.0]]
    # At (0.25, 0.5) both are off: the output is zero, and the rows point the other way.
    region = linear_region(module, [0.25, 0.5])
    assert region(x).tolist() == [[0.0, 0.0]] * 3
    assert normals(region, [0]).tolist() == [[-1.0, 1.0]]


def test_clamp_has_three_pieces():
    module = nn.Sequential(nn.Linear(1, 1), nn.Hardtanh(-1, 2))
    module[0].weight.data, module[0].bias.data = torch.ones(1, 1), torch.zeros(1)
    for x, output, slacks, slope in [
        (-3.0, -1.0, [2.0, np.inf], [-1.0, None]),
        (0.5, 0.5, [1.5, 1.5], [1.0, -1.0]),
        (4.0, 2.0, [np.inf, 2.0], [None, 1.0]),
    ]:
        region = linear_region(module, [x])
        point = torch.tensor([[x]])
        assert region(point).item() == output
        assert region.slacks(region.values(point)).tolist() == [slacks]
        for row, expected in enumerate(slope):
            if expected is not None:
                assert normals(region, [row]).item() == expected


def test_pool_rows_compare_the_chosen_entry_with_the_others():
    module = nn.Sequential(nn.Unflatten(1, (1, 4)), nn.MaxPool1d(2), nn.Flatten())
    region = linear_region(module, [0.1, 0.4, 0.9, 0.2])
    x = torch.tensor([[0.5, 0.4, 0.9, 0.2]])
    slacks = region.slacks(region.values(x))
    torch.testing.assert_close(
        slacks, torch.tensor([[-0.1, np.inf, np.inf, 0.7]], dtype=torch.float64)
    )
    assert normals(region, [0, 3]).tolist() == [[-1, 1, 0, 0], [0, 0, 1, -1]]


def test_ties_at_zero_give_a_region_with_an_interior():
    # Units x1, -x1 at x1 = 0: their rows must not both ask for x1 >= 0 and -x1 >= 0.
    module = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    module[0].weight.data = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
    module[0].bias.data = torch.zeros(2)
    for side in (-1.0, 1.0):
        region = linear_region(module, [0.0, 0.3], direction=torch.tensor([side, 0.0]))
        slacks = region.slacks(region.values(torch.tensor([[0.2 * side, 0.3]])))
        assert (slacks > 0.1).all()
    region = linear_region(module, [0.0, 0.3])
    points = torch.tensor([[0.2, 0.3], [-0.2, 0.3]])
    assert region.contains(points).sum() == 1


def test_equal_pool_entries_give_a_region_with_an_interior():
    module = nn.Sequential(nn.Unflatten(1, (1, 4)), nn.MaxPool1d(4), nn.Flatten())
    direction = torch.tensor([0.0, 1.0, 3.0, 2.0])
    region = linear_region(module, [0.5] * 4, direction=direction)
    x = 0.5 + 0.01 * direction.unsqueeze(0)
    assert region.slacks(region.values(x)).min() > 0.009
    constant = linear_region(module, [0.5] * 4)
    assert constant.contains(torch.full((1, 4), 0.5)).all()
