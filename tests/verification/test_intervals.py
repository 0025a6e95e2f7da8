"""Intervals of domains: they hold all points of each, and more work makes them tighter."""

import pytest
import torch

from skrobust.verification import _intervals
from skrobust.verification._base import Stopwatch
from skrobust.verification._branch import Problem, _first
from skrobust.verification._domains import split
from tests.verification._nets import grid_of
from tests.verification.test_failing import ROW, root_of


def halves_of(root):
    """Return the problem of a row, and both halves of the ball by a unit of the first layer."""
    shift = torch.zeros(1, 1, dtype=torch.float64)
    problem = Problem(root, ROW[None], shift, None, None, lambda lower, problem: lower[:, 0])
    ball, j = _first(problem), min(root.sources)
    unit = root.lines[min(root.lines)].open[0].nonzero()[0].item()
    ball.branch[0] = torch.tensor([j, unit])
    return problem, split(ball, 1), j, unit


def assert_holds(built, k, values, inside):
    for j in built.sources:
        assert (values[j][inside] >= built.lows[j][k] - 1e-12).all()
        assert (values[j][inside] <= built.highs[j][k] + 1e-12).all()


@pytest.mark.parametrize("envelope", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_sharpened_intervals_hold_and_count(seed, envelope):
    root, watch = root_of(seed, sizes=(8, 8, 8), envelope=envelope), Stopwatch()
    built = _intervals.sharpened(root, watch)
    values = root.graph.values(grid_of(root.ball, 101))
    assert_holds(built, 0, values, torch.ones(101**2, dtype=torch.bool))
    last = max(root.sources)
    width, before = (b.highs[last] - b.lows[last] for b in (built, root))
    assert width.sum() < before.sum()
    assert root.lows[last] is not built.lows[last]
    assert watch.n_domains > 0 and watch.n_domains % 4 == 0


def test_a_limit_on_work_ends_sharpening():
    root, watch = root_of(0), Stopwatch(None, 0)
    built = _intervals.sharpened(root, watch)
    assert all(torch.equal(built.lows[j], root.lows[j]) for j in root.sources)


@pytest.mark.parametrize("seed", range(3))
def test_halves_have_their_own_intervals_and_lines(seed):
    problem, halves, j, unit = halves_of(root_of(seed))
    values = problem.root.graph.values(grid_of(problem.root.ball, 101))
    for tightened in (False, True):
        if tightened:
            halves.depth.fill_(_intervals._TIGHTEN)
            whole = halves
            parts = []
            for k in range(2):  # a batch of so few has none that is due
                watch = Stopwatch()
                part = halves[[k] * 64]
                parts.append(_intervals.retightened(problem, part, watch))
                assert watch.n_domains > 0
            halves = type(whole).join([part[part.depth == 0] for part in parts])
            assert len(halves) == 4
            halves = halves[[0, 2]]
            assert any((halves.lows[i] > whole.lows[i]).any() for i in halves.lows)
        built = _intervals.relaxation_of(problem, halves)
        assert len(built) == 1 and len(built.empty) == 2
        for k, sign in enumerate((1, -1)):
            assert_holds(built, k, values, sign * values[j][:, unit] >= 0)
        is_open = built.lines[min(built.lines)].open
        assert not is_open[:, unit].any()
