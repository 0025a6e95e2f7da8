"""What bounds know of smooth units: images, slopes of chords; and whole networks of them."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from skrobust.bounds import (
    bound_rows,
    chords_of,
    crown,
    image,
    lines_of,
    relax,
    splits_at_zero,
    steepest,
    worth_tightening,
)
from skrobust.exceptions import UnsupportedModelError
from skrobust.graphs import Softplus, read_graph, read_live
from skrobust.properties import ClassificationRobustness
from tests.bounds._cases import all_rows, build, corners_and_samples
from tests.bounds._smooth_units import MODULES, UNITS, exact_slope, exact_value

INF = float("inf")
each_unit = pytest.mark.parametrize("unit", UNITS.values(), ids=UNITS)
each_module = pytest.mark.parametrize("module", MODULES, ids=repr)
ENDS = [-1e6, -8.0, -2.5, -1.4, -0.8, -0.7, -1e-7, 0.0, 1e-7, 0.6, 0.7, 1.5, 8.0, 1e6]
INTERVALS = [*itertools.combinations_with_replacement(ENDS, 2)]
LOWER, UPPER = torch.tensor(INTERVALS, dtype=torch.float64).T
SHARES = torch.linspace(0, 1, 33, dtype=torch.float64)[:, None]
POINTS = LOWER + SHARES * (UPPER - LOWER)


@each_unit
def test_the_image_holds_all_values_and_no_more(unit):
    low, high = image(unit, LOWER, UPPER)
    values = unit.apply(POINTS)
    assert (low <= values).all() and (values <= high).all()
    for k in range(len(LOWER)):
        ends = [exact_value(unit, LOWER[k].item()), exact_value(unit, UPPER[k].item())]
        least = min(ends)
        if unit.lowest is not None and LOWER[k] <= unit.lowest[0] <= UPPER[k]:
            least = exact_value(unit, unit.lowest[0])
        least = max(least - unit.drop(UPPER[k]).item(), unit.range[0])
        slack = 1e-12 * (1 + abs(LOWER[k].item()) + abs(UPPER[k].item()))
        assert low[k].item() <= least <= low[k].item() + slack
        assert high[k].item() - slack <= max(ends) <= high[k].item() + 1e-300


@each_unit
def test_infinite_and_huge_intervals_are_bounded_by_what_is_known(unit):
    ends = [[-INF, -INF, -1e300, 0.0], [0.0, INF, 1e300, INF]]
    lower, upper = torch.tensor(ends, dtype=torch.float64)
    low, high = image(unit, lower, upper)
    assert not torch.isnan(low).any() and not torch.isnan(high).any()
    assert worth_tightening(unit, lower, upper).all()
    z = torch.tensor([-1e200, -3.0, 0.0, 2.0, 1e200], dtype=torch.float64)
    inside = (z[:, None] >= lower) & (z[:, None] <= upper)
    values = unit.apply(z)[:, None]
    assert ((low <= values) & (values <= high) | ~inside).all()
    lines = lines_of(unit, lower.unsqueeze(1), upper.unsqueeze(1))
    rows = torch.tensor([[1.0], [-1.0]]).double().expand(4, 2, 1)
    slopes, shifts = lines.pull(rows)
    for k, sign in ((0, 1), (1, -1)):
        line = slopes[:, k, 0] * z[:, None] + shifts[:, k]
        assert ((line <= sign * values) | ~inside | line.isnan()).all()


@each_unit
def test_chords_between_a_ball_and_its_center(unit):
    generator = torch.Generator().manual_seed(0)
    ends = 4 * torch.randn(300, 3, generator=generator, dtype=torch.float64)
    lower, center, upper = ends.sort(dim=1).values.T
    chords = chords_of(unit, None, (lower, upper), (center, center))
    z = lower + SHARES * (upper - lower)
    apart = (z - center).abs() > 1e-3
    slopes = (unit.apply(z) - unit.apply(center)) / torch.where(apart, z - center, 1.0)
    assert ((chords.least <= slopes + 1e-12) & (slopes <= chords.most + 1e-12) | ~apart).all()
    # At a point it is the slope there, in exact arithmetic.
    chords = chords_of(unit, None, (center, center), (center, center))
    parts = (part.tolist() for part in (center, chords.least, chords.most))
    for z, least, most in zip(*parts, strict=True):
        assert least <= exact_slope(unit, z) <= most
        is_behind_the_jump = isinstance(unit, Softplus) and unit.beta * z > unit.threshold
        assert most <= least + 1e-12 or is_behind_the_jump


@each_unit
def test_no_slope_is_above_the_steepest(unit):
    z = torch.linspace(-50, 50, 2001, dtype=torch.float64)
    if isinstance(unit, Softplus):
        with pytest.raises(UnsupportedModelError, match=r"jumps by .* no Lipschitz constant"):
            steepest(unit, "l2")
        return
    for norm in ("linf", "l2"):
        most = unit.slope(z).abs().max().item()
        assert most <= steepest(unit, norm) <= most * 1.0005


def test_chords_across_a_jump_are_not_bounded():
    unit, at = UNITS["softplus with a jump"], torch.tensor([0.2, 0.6, 0.7]).double()
    chords = chords_of(unit, None, (at, at + 0.15), (at, at))
    assert torch.isinf(chords.least).tolist() == [False, True, False]


@each_unit
def test_it_is_open_where_it_bends(unit):
    values = unit.value(POINTS)
    chord = values[:1] + SHARES * (values[-1:] - values[:1])
    bends = (values - chord).abs().amax(dim=0) > 1e-6 * (1 + UPPER - LOWER)
    is_open = worth_tightening(unit, LOWER, UPPER)
    assert not (bends & ~is_open).any() and not is_open[LOWER == UPPER].any()
    assert torch.equal(is_open, lines_of(unit, LOWER[:, None], UPPER[:, None]).open[:, 0])
    assert not splits_at_zero(unit)


# ---- networks ----------------------------------------------------------------------------


def network(module, seed, depth=2):
    hidden = [part for _ in range(depth - 1) for part in (nn.Linear(6, 6), module)]
    return build(lambda: nn.Sequential(nn.Linear(16, 6), module, *hidden, nn.Linear(6, 3)), seed)


@given(
    module=st.sampled_from(MODULES),
    epsilon=st.sampled_from([1e-4, 0.03, 0.3, 3.0]),
    norm=st.sampled_from(["linf", "l2"]),
    scale=st.sampled_from([0.3, 1.0, 6.0]),
    depth=st.integers(1, 3),
    seed=st.integers(0, 2**16),
)
@settings(max_examples=40, deadline=None)
def test_bounds_hold_and_each_method_is_better_than_the_one_before(
    module, epsilon, norm, scale, depth, seed
):
    layers = network(module, seed, depth).double()
    with torch.no_grad():
        layers[0].weight *= scale
    graph = read_graph(layers, 16)
    x = torch.rand(2, 16, generator=torch.Generator().manual_seed(seed))
    ball = ClassificationRobustness(epsilon, norm=norm, bounds=None).outer_ball(x)
    rows = all_rows(2, seed=seed)
    points = corners_and_samples(ball, 200)
    values = torch.einsum("nmk,nsk->nms", rows.A, layers(points.double())).amin(dim=2)
    before = torch.full_like(values, -INF)
    for method in ("ibp", "crown", "alpha-crown"):
        lower = bound_rows(graph, ball, rows, method, n_steps=6)
        assert (lower <= values + 1e-12 * (1 + values.abs())).all()
        assert (lower >= before).all() and torch.isfinite(lower).all()
        before = lower


@each_module
def test_bounds_of_a_point_are_its_values(module):
    layers = network(module, 3)
    graph, rows = read_graph(layers, 16), all_rows(2)
    x = torch.rand(2, 16, generator=torch.Generator().manual_seed(1))
    ball = ClassificationRobustness(0.0, bounds=None).outer_ball(x)
    values = (rows.A @ graph(x).unsqueeze(2)).squeeze(2)
    jump = 0.1 if isinstance(module, nn.Softplus) and module.threshold < 20 else 1e-7
    for method in ("ibp", "crown"):
        lower = bound_rows(graph, ball, rows, method)
        assert (lower <= values).all()
        torch.testing.assert_close(lower, values, rtol=0, atol=jump)


@each_module
def test_lines_have_gradients_by_the_weights(module):
    layers, x = network(module, 0).requires_grad_(True), torch.rand(3, 16)
    ball = ClassificationRobustness(0.1).ball(x)
    relaxation = relax(read_live(layers, x)[0], ball, refine=False, rounding=False)
    rows = torch.eye(3).expand(3, -1, -1)
    lower = crown(relaxation, rows)
    points = ball.sample(50, torch.Generator().manual_seed(0))
    slack = 1e-4 if not isinstance(module, nn.Softplus) else 1e-2
    assert (lower.unsqueeze(1) <= layers(points) + slack).all()
    lower.sum().backward()
    for parameter in layers.parameters():
        assert torch.isfinite(parameter.grad).all() and (parameter.grad != 0).any()
