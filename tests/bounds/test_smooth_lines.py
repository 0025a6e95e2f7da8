"""Lines of smooth units, proved in 40 digits to lie below and above them, and how near."""

import itertools

import mpmath as mp
import pytest
import torch

from skrobust.bounds import SmoothLines, lines_of
from tests.bounds._smooth_units import UNITS, exact_slope, exact_value

each_unit = pytest.mark.parametrize("unit", UNITS.values(), ids=UNITS)
ENDS = [-60.0, -7.0, -2.5, -1.45, -0.7, -0.05, 0.0, 0.2, 1.0, 1.6, 3.5, 25.0]
POINTS = [-30.0, -1.4142135623730951, -0.75, -1e-9, 0.0, 0.4, 2.4]
INTERVALS = [
    *itertools.combinations(ENDS, 2),
    *((p, p) for p in POINTS),
    *((p, p + width) for p in POINTS for width in (1e-12, 1e-5)),
    (-1e6, 3.0), (-2.0, 1e6), (-1e5, 1e5), (-2e-300, 1e-300),
]  # fmt: skip
LOWER, UPPER = torch.tensor(INTERVALS, dtype=torch.float64).T.unsqueeze(2)


def sides(lines, share=None):
    """Return (sign, slope, shift) of the lines below and above, by rows +1 and -1."""
    rows = torch.tensor([[1.0], [-1.0]], dtype=torch.float64).expand(len(lines), 2, 1)
    alpha = None if share is None else torch.full((len(lines), 2, 1), share, dtype=torch.float64)
    slopes, shifts = lines.pull(rows, alpha)
    return [(s, (s * slopes[:, k, 0]).tolist(), (s * shifts[:, k]).tolist())
            for k, s in enumerate((1, -1))]  # fmt: skip


def nearest_parallels(unit, slopes, low, high):
    """Return two floats around where the unit has a slope, in a piece where slopes are monotone.

    All are tensors of the same shape.
    """
    rising = unit.slope(high) > unit.slope(low)
    for _ in range(90):
        middle = (low + high) / 2
        is_left = (unit.slope(middle) < slopes) == rising
        low, high = torch.where(is_left, middle, low), torch.where(is_left, high, middle)
    return low, high


def least_gaps(unit, sign, slopes, shifts):
    """Yield lower bounds of sign * (f - line) on each interval, by convexity, in 40 digits."""

    def gap(z, slope, shift):
        return sign * (exact_value(unit, z) - mp.mpf(slope) * mp.mpf(z) - mp.mpf(shift))

    least = [
        min(gap(end, slope, shift) for end in ends)
        for ends, slope, shift in zip(INTERVALS, slopes, shifts, strict=True)
    ]
    for piece in unit.pieces(convex=sign > 0):
        start, end = LOWER[:, 0].clamp(*piece), UPPER[:, 0].clamp(*piece)
        places = nearest_parallels(unit, torch.tensor(slopes, dtype=torch.float64), start, end)
        for k in (start < end).nonzero().squeeze(1).tolist():
            bounds = []
            for place in places:
                # A convex function lies above its tangent at any point.
                z = place[k].item()
                rise = sign * (exact_slope(unit, z) - mp.mpf(slopes[k]))
                reach = (start if rise > 0 else end)[k].item()
                bounds.append(gap(z, slopes[k], shifts[k]) + rise * (mp.mpf(reach) - mp.mpf(z)))
            least[k] = min(least[k], max(bounds))
    return least


@each_unit
@pytest.mark.parametrize("share", [None, 0.0, 0.9])
def test_lines_lie_below_and_above_the_function_in_exact_arithmetic(unit, share):
    lines = lines_of(unit, LOWER, UPPER)
    assert isinstance(lines, SmoothLines) and len(lines) == len(INTERVALS)
    drops = unit.drop(UPPER[:, 0]).tolist()
    for sign, slopes, shifts in sides(lines, share):
        if sign > 0:
            shifts = [shift + drop for shift, drop in zip(shifts, drops, strict=True)]
        gaps = least_gaps(unit, sign, slopes, shifts)
        for (low, high), slope, gap in zip(INTERVALS, slopes, gaps, strict=True):
            assert gap >= 0, (low, high, sign, slope, float(gap))
            # And no line of that slope lies much nearer.
            size = 1 + max(abs(low), abs(high))
            assert gap <= 1e-6 * (1 + 1e-4 * size), (low, high, sign, slope, float(gap))
