"""Intervals of units where rows fail: they hold all such points, and are tighter."""

import pytest
import torch
from torch import nn

from skrobust.bounds import relax
from skrobust.graphs import read_graph
from skrobust.properties import ClassificationRobustness
from skrobust.verification import _branch, _failing
from skrobust.verification._base import Stopwatch
from skrobust.verification._branch import Problem, branch
from skrobust.verification._leaves import close_leaf
from tests.verification._nets import grid_of

ROW = torch.tensor([[1.0, -1.0]], dtype=torch.float64)


def root_of(seed, sizes=(8, 8), epsilon=0.3):
    generator, layers, n = torch.Generator().manual_seed(seed), [], 2
    for size in (*sizes, 2):
        layer = nn.Linear(n, size).requires_grad_(False)
        layer.weight.copy_(torch.randn(layer.weight.shape, generator=generator))
        layer.bias.copy_(0.5 * torch.randn(layer.bias.shape, generator=generator))
        layers, n = [*layers, layer, nn.ReLU()], size
    graph = read_graph(nn.Sequential(*layers[:-1]).double(), 2)
    x = torch.tensor([[0.4, 0.6]], dtype=torch.float64)
    return relax(graph, ClassificationRobustness(epsilon, bounds=None).outer_ball(x))


def tightened(root, shift, n_steps=3, rows=ROW[None], n_sweeps=1):
    """Tighten a copy of the root, sweep by sweep; the rows are those plus the shift."""
    built = root[torch.zeros(1, dtype=torch.long)]
    shift = torch.full(rows.shape[:2], shift, dtype=torch.float64)
    alphas = _branch.initial_slopes(built, rows.shape[:2])
    known = None
    with torch.no_grad():
        for _ in range(n_sweeps):
            known = _failing.tighten_failing(
                built, rows, shift, alphas, known=known, n_steps=n_steps
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


@pytest.mark.parametrize("seed", range(4))
def test_sweeps_that_go_on_from_one_another_hold_all_points_and_are_tighter(seed):
    root = root_of(seed)
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


@pytest.mark.parametrize("margin", [0.05, -0.05])
@pytest.mark.parametrize("patience", [1, 3])
@pytest.mark.parametrize("seed", range(2))
def test_the_search_says_the_same_with_them(seed, patience, margin, monkeypatch):
    monkeypatch.setattr(_branch, "patience", lambda root: patience)
    root = root_of(seed, epsilon=0.6)
    row = (root.graph(grid_of(root.ball, 201)) @ ROW[0]).min().item()
    shift = torch.full((1, 1), margin - row, dtype=torch.float64)
    problem = Problem(root, ROW[None], shift, None, None, lambda lower, problem: lower[:, 0])

    def visit(points):
        return bool((root.graph(points) @ ROW[0] + shift.item() < 0).any())

    def leaf(domains, k):
        return "proved" if close_leaf(problem, domains[k : k + 1]) else "stuck"

    watch = Stopwatch(None, 4000)
    word, lower = branch(
        problem,
        batch_size=2,
        memory_limit=2**30,
        n_steps=2,
        watch=watch,
        visit=visit,
        leaf=leaf,
    )
    if margin < 0:
        assert word in ("end", "stuck")
        assert lower.item() <= margin + 1e-9
    else:
        assert word == "proved"
