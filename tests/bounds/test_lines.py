"""Lines of each kind of unit: below and above it on a grid of intervals, and where they touch."""

import itertools

import pytest
import torch

from skrobust.bounds import Lines, PoolLines, lines_of
from skrobust.exceptions import UnsupportedModelError
from skrobust.graphs import Clamp, MaxPool, PiecewiseNode, Relu

INF = float("inf")
ENDS = [-2.0, -1.0, -0.25, 0.0, 0.5, 1.0, 2.5]
INTERVALS = torch.tensor([*itertools.combinations_with_replacement(ENDS, 2)]).double()
LOWER, UPPER = INTERVALS[:, :1], INTERVALS[:, 1:]
SHARES = torch.linspace(0, 1, 101, dtype=torch.float64)
POINTS = LOWER + SHARES * (UPPER - LOWER)  # of each interval, (B, 101)


def relu(slope):
    return Relu(inputs=(0,), shape=(1,), slope=torch.tensor(slope, dtype=torch.float64))


def clamp(low, high):
    return Clamp(inputs=(0,), shape=(1,), low=low, high=high)


SLOPES = [-1.0, 0.0, 0.3, 1.0, 1.7]
UNITS = [relu(slope) for slope in SLOPES]
UNITS += [clamp(*ends) for ends in ((-1.0, 1.0), (0.0, INF), (-INF, 0.5), (-0.25, 0.5))]


def name_of(unit):
    if isinstance(unit, Relu):
        return f"slope {unit.slope.item()}"
    return f"clamp {unit.low} {unit.high}"


def below_and_above(lines, alpha=None):
    """Return the values of both lines at the points, read off by rows +1 and -1."""
    rows = torch.tensor([[1.0], [-1.0]], dtype=torch.float64).expand(len(LOWER), 2, 1)
    slopes, constants = lines.pull(rows, alpha)
    low = slopes[:, 0] * POINTS + constants[:, :1]
    high = -(slopes[:, 1] * POINTS + constants[:, 1:])
    return low, high


@pytest.mark.parametrize("unit", UNITS, ids=name_of)
def test_lines_enclose_the_unit(unit):
    lines, values = lines_of(unit, LOWER, UPPER), unit.apply(POINTS)
    low, high = below_and_above(lines)
    assert (low <= values + 1e-12).all() and (values <= high + 1e-12).all()
    # What is not open is linear, and both lines are the unit itself.
    decided = ~lines.open.squeeze(1)
    torch.testing.assert_close(low[decided], values[decided])
    torch.testing.assert_close(high[decided], values[decided])


@pytest.mark.parametrize("unit", UNITS, ids=name_of)
def test_a_unit_is_open_where_it_bends(unit):
    lines, values = lines_of(unit, LOWER, UPPER), unit.apply(POINTS)
    chord = values[:, :1] + SHARES * (values[:, -1:] - values[:, :1])
    bends = (values - chord).abs().amax(dim=1) > 1e-6
    # A slope of 1 makes a kink that is none.
    is_open = lines.open.squeeze(1)
    assert not (bends & ~is_open).any()
    if not (isinstance(unit, Relu) and unit.slope == 1):
        torch.testing.assert_close(is_open, bends)


@pytest.mark.parametrize("slope", SLOPES)
@pytest.mark.parametrize("share", [0.0, 0.4, 1.0])
def test_every_free_slope_is_on_the_same_side(slope, share):
    unit = relu(slope)
    lines, values = lines_of(unit, LOWER, UPPER), unit.apply(POINTS)
    low, high = below_and_above(lines, torch.full((len(LOWER), 1, 1), share).double())
    assert (low <= values + 1e-12).all() and (values <= high + 1e-12).all()
    # The other side is the chord, whatever is chosen.
    plain = below_and_above(lines)
    side = 1 if slope <= 1 else 0
    torch.testing.assert_close((low, high)[side], plain[side])


def test_the_chord_meets_both_ends():
    _, high = below_and_above(lines_of(relu(0.0), LOWER, UPPER))
    ends = torch.relu(POINTS)[:, [0, -1]]
    torch.testing.assert_close(high[:, [0, -1]], ends)


def test_a_part_of_the_lines_is_that_of_the_intervals():
    lines = lines_of(relu(0.3), LOWER, UPPER)
    part, alone = lines[5:9], lines_of(relu(0.3), LOWER[5:9], UPPER[5:9])
    assert isinstance(part, Lines) and len(part) == 4 and len(lines) == len(LOWER)
    for name in ("low", "low_shift", "high", "high_shift", "open", "base", "gain"):
        torch.testing.assert_close(getattr(part, name), getattr(alone, name))


# ---- pools -------------------------------------------------------------------------------

POOL = MaxPool(
    inputs=(0,), shape=(1, 2), input_shape=(1, 4), kernel=(2,), stride=(2,), padding=(0,),
    dilation=(1,), ceil_mode=False, device=torch.device("cpu"),
)  # fmt: skip


def test_pool_lines_enclose_the_largest_entries():
    generator = torch.Generator().manual_seed(0)
    ends = torch.randn(2, 60, 1, 4, generator=generator, dtype=torch.float64)
    lower, upper = ends.amin(dim=0), ends.amax(dim=0)
    rows = torch.randn(60, 3, 1, 2, generator=generator, dtype=torch.float64)
    lines = lines_of(POOL, lower, upper)
    assert isinstance(lines, PoolLines) and len(lines) == 60
    assert lines.open.any() and not lines.open.all()
    pulled, constant = lines.pull(rows)
    for _ in range(50):
        share = torch.rand(lower.shape, generator=generator, dtype=torch.float64).round(decimals=1)
        z = lower + share * (upper - lower)
        bound = (pulled * z.unsqueeze(1)).flatten(2).sum(dim=2) + constant
        value = (rows * POOL.apply(z).unsqueeze(1)).flatten(2).sum(dim=2)
        assert (bound <= value + 1e-12).all()
        exact = lines.decided.all(dim=1)
        torch.testing.assert_close(bound[exact], value[exact])


def test_pool_lines_by_hand():
    # First window: the second entry always wins. Second window: open, the first is best.
    lower = torch.tensor([[[0.0, 2.0, 0.5, 0.0]]]).double()
    upper = torch.tensor([[[1.0, 3.0, 2.0, 4.0]]]).double()
    lines = lines_of(POOL, lower, upper)
    assert lines.decided.tolist() == [[True, False]]
    assert lines.member.tolist() == [[1, 2]]
    assert lines.top.tolist() == [[3.0, 4.0]]
    rows = torch.tensor([[[[1.0, 1.0]], [[-1.0, -1.0]]]]).double()
    pulled, constant = lines.pull(rows)
    assert pulled.tolist() == [[[[0.0, 1.0, 1.0, 0.0]], [[0.0, -1.0, 0.0, 0.0]]]]
    assert constant.tolist() == [[0.0, -4.0]]
    # With a constant below, an undecided window has no member.
    level = PoolLines(
        lines.member, lines.decided, lines.top, (1, 4), torch.full((1, 2), 0.25).double()
    )
    pulled, constant = level[:1].pull(rows)
    assert pulled.tolist() == [[[[0.0, 1.0, 0.0, 0.0]], [[0.0, -1.0, 0.0, 0.0]]]]
    assert constant.tolist() == [[0.25, -4.0]]


def test_a_kind_without_lines_is_refused():
    node = PiecewiseNode(inputs=(0,), shape=(1,))
    with pytest.raises(UnsupportedModelError, match=r"lines_of has no rule for PiecewiseNode"):
        lines_of(node, LOWER, UPPER)
