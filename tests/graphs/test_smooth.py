"""Smooth units: their values, how exactly they are computed, and what is said of them is true."""

import itertools

import mpmath as mp
import pytest
import torch
from torch import nn

from skrobust.exceptions import UnsupportedModelError
from skrobust.graphs import Elu, Smooth, Softplus, read_graph, read_live
from tests.bounds._smooth_units import MODULES, UNITS, exact_slope, exact_value

each_unit = pytest.mark.parametrize("unit", UNITS.values(), ids=UNITS)
each_module = pytest.mark.parametrize("module", MODULES, ids=repr)
UNIT = 2.0**-53
Z = torch.cat([
    torch.linspace(-12, 12, 241, dtype=torch.float64),
    torch.tensor([-750.0, -40.0, -1e-8, -1e-300], dtype=torch.float64),
    torch.tensor([1e-300, 1e-8, 40.0, 750.0, 1e6], dtype=torch.float64),
    torch.randn(100, generator=torch.Generator().manual_seed(0), dtype=torch.float64),
])  # fmt: skip


def test_what_a_kind_does_not_say_is_refused_by_name():
    node = Smooth(inputs=(0,), shape=(1,), path="there")
    for name, ask in (("value", node.value), ("slope", node.slope), ("value", node.apply)):
        with pytest.raises(UnsupportedModelError, match=rf"Smooth\.{name} has no rule for Smooth"):
            ask(Z)


@each_unit
def test_values_and_slopes_are_as_exact_as_bounds_take_them_to_be(unit):
    # A quarter of what is granted, so that other machines have room.
    values, slopes = unit.value(Z).tolist(), unit.slope(Z).tolist()
    for z, value, slope in zip(Z.tolist(), values, slopes, strict=True):
        assert abs(value - exact_value(unit, z)) <= 16 * UNIT * unit.growth * (1 + abs(z)), z
        assert abs(slope - exact_slope(unit, z)) <= 16 * UNIT * unit.growth, z


@each_unit
def test_growth_and_range_hold(unit):
    assert (unit.value(Z).abs() <= unit.growth * (1 + Z.abs())).all()
    assert (unit.slope(Z).abs() <= unit.growth).all()
    low, high = unit.range
    assert (unit.value(Z) >= low).all() and (unit.value(Z) <= high).all()


@each_unit
def test_it_is_convex_and_concave_where_it_is_said_to_be(unit):
    for convex in (True, False):
        for low, high in unit.pieces(convex):
            slopes = unit.slope(Z[(low < Z) & (high > Z)].sort().values)
            step = slopes.diff() if convex else -slopes.diff()
            assert (step >= -1e-15).all()
    # The pieces cover the line, and each border is one of both.
    ends = sorted(unit.pieces(True) + unit.pieces(False))
    assert ends[0][0] == -mp.inf and ends[-1][1] == mp.inf
    assert all(a[1] == b[0] for a, b in itertools.pairwise(ends))


@each_unit
def test_borders_of_convexity_are_exact(unit):
    for bend in unit.bends:
        if not isinstance(unit, Elu):
            second = mp.diff(lambda z: exact_slope(unit, z), mp.mpf(bend))
            assert abs(second) < 1e-14


@each_unit
def test_it_is_least_where_it_is_said_to_be(unit):
    if unit.lowest is None:
        assert (unit.slope(Z) >= 0).all()
        return
    place, value = unit.lowest
    assert abs(exact_slope(unit, place)) < 1e-15 and abs(exact_value(unit, place) - value) < 1e-16
    assert (unit.slope(Z[place > Z]) <= 0).all() and (unit.slope(Z[place < Z]) >= 0).all()


@each_module
def test_a_node_computes_the_module_and_leaves_its_input_alone(module):
    layers = nn.Sequential(nn.Linear(3, 4), module, nn.Linear(4, 2))
    graph, _ = read_live(layers, torch.rand(3, 3))
    node, z = graph.nodes[2], torch.linspace(-30, 30, 48).view(12, 4)
    assert isinstance(node, Smooth) and not node.is_affine and not node.mixes
    before = z.clone()
    value = node.apply(z)
    assert torch.equal(z, before)
    torch.testing.assert_close(value, module(before.clone()))
    exact = read_graph(layers.requires_grad_(False), 3).nodes[2]
    torch.testing.assert_close(exact.apply(z.double()), module(z.double()))


def test_softplus_jumps_down_at_its_threshold():
    unit = Softplus(inputs=(0,), shape=(1,), beta=3.0, threshold=2.0)
    z = torch.tensor([0.6, 0.67, 5.0], dtype=torch.float64)
    gap = unit.value(z) - unit.apply(z)
    assert gap[0].abs() < 1e-15 and gap[1] > 0.04
    assert (gap <= unit.drop(z) + 1e-15).all() and unit.drop(z)[0] == 0


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Softplus(inputs=(0,), shape=(1,), beta=-1.0), "beta=-1.0"),
        (lambda: Softplus(inputs=(0,), shape=(1,), threshold=0.0), "threshold=0.0"),
        (lambda: Elu(inputs=(0,), shape=(1,), alpha=-0.5), "alpha=-0.5"),
        (lambda: Elu(inputs=(0,), shape=(1,), rate=0.0), "rate=0.0"),
    ],
)
def test_parameters_that_turn_the_function_are_refused(make, message):
    with pytest.raises(UnsupportedModelError, match=message):
        make()
