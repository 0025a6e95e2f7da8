"""Intervals of units where rows fail: they hold all such points, and are tighter."""

import itertools
from dataclasses import replace

import pytest
import torch
from torch import nn

from skrobust.bounds import envelope_of, relax
from skrobust.graphs import read_graph
from skrobust.properties import ClassificationRobustness
from skrobust.verification import _branch, _failing
from skrobust.verification._base import Stopwatch
from skrobust.verification._branch import Problem, branch
from skrobust.verification._leaves import close_leaf
from tests.verification._nets import grid_of

ROW = torch.tensor([[1.0, -1.0]], dtype=torch.float64)


def root_of(seed, sizes=(8, 8), epsilon=0.3, envelope=False):
    generator, layers, n = torch.Generator().manual_seed(seed), [], 2
    for size in (*sizes, 2):
        layer = nn.Linear(n, size).requires_grad_(False)
        layer.weight.copy_(torch.randn(layer.weight.shape, generator=generator))
        layer.bias.copy_(0.5 * torch.randn(layer.bias.shape, generator=generator))
        layers, n = [*layers, layer, nn.ReLU()], size
    graph = read_graph(nn.Sequential(*layers[:-1]).double(), 2)
    x = torch.tensor([[0.4, 0.6]], dtype=torch.float64)
    root = relax(graph, ClassificationRobustness(epsilon, bounds=None).outer_ball(x))
    return replace(root, envelope=envelope_of(root)) if envelope else root


def tightened(root, shift, n_steps=3, rows=ROW[None], n_sweeps=1, watch=None):
    """Tighten a copy of the root, sweep by sweep; the rows are those plus the shift."""
    built = root[torch.zeros(1, dtype=torch.long)]
    shift = torch.full(rows.shape[:2], shift, dtype=torch.float64)
    alphas = _branch.initial_slopes(built, rows.shape[:2])
    known = None
    with torch.no_grad():
        for _ in range(n_sweeps):
            known = _failing.tighten_failing(
                built, rows, shift, alphas, known=known, n_steps=n_steps, watch=watch
            )
    return built


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("n_steps", [0, 4])
def test_points_at_which_the_row_fails_stay_inside(seed, n_steps):
    root = root_of(seed)
    values = root.graph.values(grid_of(root.ball, 101))
    row = (values[-1] @ ROW[0]).squeeze()
    n_tighter = 0
    for part in (0.02, 0.2, 0.6):
        shift = -row.quantile(part).item()
        built = tightened(root, shift, n_steps)
        fails = row + shift <= 0
        assert fails.any() and not built.empty.any()
        for j in root.sources:
            assert (values[j][fails] >= built.lows[j] - 1e-12).all()
            assert (values[j][fails] <= built.highs[j] + 1e-12).all()
            n_tighter += int((built.lows[j] > root.lows[j] + 1e-6).sum())
    assert n_tighter > 0


@pytest.mark.parametrize("envelope", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_sweeps_that_go_on_from_one_another_hold_all_points_and_are_tighter(seed, envelope):
    root = root_of(seed, envelope=envelope)
    values = root.graph.values(grid_of(root.ball, 101))
    row = (values[-1] @ ROW[0]).squeeze()
    shift = -row.quantile(0.05).item()
    fails = row + shift <= 0
    assert fails.any()
    one, many = tightened(root, shift), tightened(root, shift, n_sweeps=6)
    assert not many.empty.any()
    widths = [sum((b.highs[j] - b.lows[j]).sum() for j in root.sources) for b in (one, many)]
    assert widths[1] < widths[0]
    for j in root.sources:
        assert (values[j][fails] >= many.lows[j] - 1e-12).all()
        assert (values[j][fails] <= many.highs[j] + 1e-12).all()


def test_ends_of_intervals_count_as_work_and_end_with_it():
    root = root_of(1, sizes=(8, 8, 8))
    n_open = [int(lines.open.sum()) for lines in root.lines.values()]
    watch = Stopwatch(None, 1000)
    tightened(root, 0.0, watch=watch)
    assert 0 < watch.n_domains <= 2 * sum(n_open)
    # What comes after the limit is left as it is: here all but the units of the last node.
    watch, last = Stopwatch(None, 2 * n_open[-1]), max(root.sources)
    built = tightened(root, 0.0, watch=watch)
    assert watch.n_domains == 2 * n_open[-1]
    for j in root.sources:
        is_same = torch.equal(built.lows[j], root.lows[j])
        assert is_same == (j != last)


def test_free_numbers_are_found_by_unit():
    keys, numbers = torch.tensor([2, 5, 9]), torch.arange(3.0)
    parts = {1: numbers.view(3, 1, 1).expand(3, 2, 4)}, numbers.double().view(3, 1, 1)
    free = _failing.Free(keys, *parts)
    alphas, times = free.at(torch.tensor([2, 9]))
    assert alphas[1][:, 0, 0].tolist() == times.flatten().tolist() == [0, 2]
    assert alphas[1].dtype == torch.float64
    for others in ([2, 7], [10], [0, 5]):
        assert free.at(torch.tensor(others)) is None


def test_where_several_rows_must_fail():
    root = root_of(1)
    rows = torch.tensor([[[1.0, -1.0], [0.3, 0.8]]], dtype=torch.float64)
    values = root.graph.values(grid_of(root.ball, 101))
    both = values[-1] @ rows[0].T
    shift = -both.amax(dim=1).quantile(0.1).item()
    built = tightened(root, shift, rows=rows)
    fails = (both + shift <= 0).all(dim=1)
    assert fails.any()
    for j in root.sources:
        assert (values[j][fails] >= built.lows[j] - 1e-12).all()
        assert (values[j][fails] <= built.highs[j] + 1e-12).all()


def test_a_row_that_fails_nowhere_may_leave_no_point():
    root = root_of(0)
    assert tightened(root, 100.0, 6).empty.all()


def searched(root, margin, watch):
    """Search for a row whose least value on a grid is that margin; return its end, and leaves."""
    row, leaves = (root.graph(grid_of(root.ball, 201)) @ ROW[0]).min().item(), []
    shift = torch.full((1, 1), margin - row, dtype=torch.float64)
    problem = Problem(root, ROW[None], shift, None, None, lambda lower, problem: lower[:, 0])

    def visit(points):
        return bool((root.graph(points) @ ROW[0] + shift.item() < 0).any())

    def leaf(domains, k):
        leaves.append(domains.place[k].item())
        return "proved" if close_leaf(problem, domains[k : k + 1]) else "stuck"

    options = {"batch_size": 2, "memory_limit": 2**30, "n_steps": 2}
    word, lower = branch(problem, watch=watch, visit=visit, leaf=leaf, **options)
    return word, lower, leaves


@pytest.mark.parametrize("limit", [10, 60, 150, 400])
def test_under_a_limit_on_work_the_clock_changes_nothing(limit, monkeypatch):
    monkeypatch.setattr(_branch, "patience", lambda root: 8)
    root, ends = root_of(1, sizes=(8, 8, 8), epsilon=0.6, envelope=True), []
    for seconds in (0.0, 1e6):  # each look at the clock takes so long
        clock = itertools.count(0.0, seconds)
        monkeypatch.setattr("skrobust.verification._base.time.perf_counter", clock.__next__)
        watch = Stopwatch(None, limit)
        word, lower, leaves = searched(root, 0.05, watch)
        # Two domains at once, or both ends of an interval.
        assert watch.n_domains <= limit + 2
        ends.append((word, lower.item(), leaves, watch.n_domains))
    assert ends[0] == ends[1]


@pytest.mark.parametrize("margin", [0.05, -0.05])
@pytest.mark.parametrize("patience", [1, 3])
@pytest.mark.parametrize("seed", range(2))
def test_the_search_says_the_same_with_them(seed, patience, margin, monkeypatch):
    monkeypatch.setattr(_branch, "patience", lambda root: patience)
    root = root_of(seed, epsilon=0.6, envelope=patience == 1)
    word, lower, _ = searched(root, margin, Stopwatch(None, 4000))
    if margin < 0:
        assert word in ("end", "stuck")
        assert lower.item() <= margin + 1e-9
    else:
        assert word == "proved"
