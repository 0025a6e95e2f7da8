"""Branch and bound of smooth units: right against grids, and bounds hold in their domains."""

import numpy as np
import pytest
import torch
from torch import nn

from skrobust import TorchClassifier
from skrobust.bounds import lines_of, relax
from skrobust.graphs import Gelu, Tanh, read_graph
from skrobust.properties import (
    ClassificationRobustness,
    LipschitzRobustness,
    StandardRobustness,
    StrongClassificationRobustness,
)
from skrobust.verification import Bounds, Exact, Reason
from skrobust.verification._base import Stopwatch
from skrobust.verification._branch import Problem, _bound, _first, branch
from skrobust.verification._domains import split
from tests.bounds._cases import build
from tests.verification._tensors import decided
from tests.verification.test_smooth_networks import is_broken_on_a_grid, samples, tiny


class Mixed(nn.Module):
    """ReLU, tanh and GELU in one layer."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(2, 6), nn.Linear(6, 2)
        self.first.weight.data *= 3

    def forward(self, x):
        a, b, c = self.first(x).split(2, dim=1)
        return self.last(torch.cat([torch.relu(a), torch.tanh(b), nn.functional.gelu(c)], dim=1))


def deep(unit):
    layers = [nn.Linear(2, 5), unit, nn.Linear(5, 5), unit, nn.Linear(5, 2)]
    layers[0].weight.data *= 3
    return nn.Sequential(*layers)


FACTORIES = {
    "mixed": Mixed,
    "tanh": lambda: deep(nn.Tanh()),
    "gelu": lambda: deep(nn.GELU()),
    "softplus": lambda: deep(nn.Softplus(2.0, 3.0)),
    "selu": lambda: deep(nn.SELU()),
}
each_network = pytest.mark.parametrize("factory", FACTORIES.values(), ids=FACTORIES)


def problem_of(factory, seed, shift=0.0, epsilon=0.4):
    graph = read_graph(build(factory, seed).double(), 2)
    x = torch.tensor([[0.4, 0.6]], dtype=torch.float64)
    ball = ClassificationRobustness(epsilon, bounds=None).outer_ball(x)
    rows = torch.tensor([[[1.0, -1.0]]], dtype=torch.float64)
    shift = torch.full((1, 1), shift, dtype=torch.float64)
    root = relax(graph, ball)
    return Problem(root, rows, shift, None, None, lambda lower, problem: lower[:, 0])


def grid_values(problem, n=101):
    """Return the row at a grid of the ball, and the values of all nodes."""
    ball, steps = problem.root.ball, torch.linspace(0, 1, n, dtype=torch.float64)
    points = ball.lower + torch.cartesian_prod(steps, steps) * (ball.upper - ball.lower)
    values = problem.root.graph.values(points)
    return values[-1] @ problem.rows[0, 0] + problem.shift[0, 0], values


@each_network
@pytest.mark.parametrize("seed", range(3))
def test_bounds_of_domains_hold_in_them_whatever_the_multipliers(factory, seed):
    problem = problem_of(factory, seed)
    row, values = grid_values(problem)
    generator = torch.Generator().manual_seed(seed)
    domains, n_met = _first(problem), 0
    for step in range(5):
        domains, _ = _bound(problem, domains, step % 3, Stopwatch())
        for k in range(len(domains)):
            inside = torch.ones(len(row), dtype=torch.bool)
            for j in domains.lows:
                z = values[j].flatten(1)
                low, high = domains.lows[j][k].flatten(), domains.highs[j][k].flatten()
                inside &= ((z >= low) & (z <= high)).all(dim=1)
            if inside.any():
                n_met += 1
                assert domains.lower[k] <= row[inside].min() + 1e-9
        domains = split(domains, 100)
        # Multipliers and slopes of no sense: worse bounds, but bounds.
        for parts, factor in ((domains.betas, 3.0), (domains.alphas, 1.0)):
            for part in parts.values():
                part.copy_(factor * torch.rand(part.shape, generator=generator).double())
        domains = domains[torch.randperm(len(domains), generator=generator)[:16]]
        domains.lower.fill_(-torch.inf)
    assert n_met > 10


@each_network
def test_the_answer_is_that_of_a_grid(factory):
    for seed in range(3):
        least = grid_values(problem_of(factory, seed))[0].min().item()
        for margin, expected in ((0.05, "proved"), (-0.05, "end")):
            problem = problem_of(factory, seed, margin - least)
            graph, row = problem.root.graph, problem.rows[0, 0]

            def visit(points, graph=graph, row=row, shift=problem.shift):
                return bool((graph(points) @ row + shift[0, 0] < 0).any())

            status, lower = branch(
                problem,
                batch_size=64,
                memory_limit=2**28,
                n_steps=3,
                watch=Stopwatch(max_domains=20000),
                visit=visit,
                leaf=lambda domains, k: "stuck",
            )
            # Where the minimum lies inside, no corner of a domain may be seen to break the row.
            assert status in ((expected,) if margin > 0 else (expected, "limit", "stuck"))
            assert lower[0] >= 0 if status == "proved" else lower[0] <= margin + 1e-3


def test_a_cut_makes_lines_better_and_a_unit_is_cut_more_than_once():
    problem = problem_of(FACTORIES["tanh"], 0, shift=-10.0)
    domains, cuts = _first(problem), []
    for _ in range(8):
        domains, _ = _bound(problem, domains, 0, Stopwatch())
        assert (domains.branch[:, 0] >= 0).all()
        cuts.append(domains[:1])
        domains = split(domains, 0)[:1]  # always the upper half
    units = {tuple(part.branch[0].tolist()) for part in cuts}
    assert len(units) < len(cuts)
    lower = torch.cat([part.lower for part in cuts])
    assert (lower.diff() >= -1e-9).all() and lower[-1] > lower[0]
    for part in cuts:
        j, unit = part.branch[0].tolist()
        assert part.lows[j][0, unit] < part.cut[0] < part.highs[j][0, unit]


def test_cuts_lie_where_both_halves_are_best():
    place = {"inputs": (0,), "shape": (1,)}
    lower, upper = torch.tensor([[-9.0], [-1.0], [0.5]]), torch.tensor([[3.0], [1.0], [2.0]])
    rows = torch.ones(3, 1, 1, dtype=torch.float64)
    at, unit = torch.arange(3), torch.zeros(3, dtype=torch.long)
    for node in (Tanh(**place), Gelu(**place)):
        lines = lines_of(node, lower.double(), upper.double())
        for sign in (1, -1):
            cuts = lines.best_cut(sign * rows, at, unit)
            assert (cuts > lower[:, 0]).all() and (cuts < upper[:, 0]).all()
            assert (lines.cost(sign * rows) > 0).all()


@pytest.mark.parametrize("module", [nn.Tanh(), nn.GELU()], ids=repr)
@pytest.mark.parametrize(
    "property",
    [
        ClassificationRobustness(0.12),
        ClassificationRobustness(0.3, norm="l2"),
        StandardRobustness(0.05, delta=0.05),
        pytest.param(LipschitzRobustness(0.1, 0.8), marks=pytest.mark.slow),
        StrongClassificationRobustness(0.05, eta=0.4),
    ],
    ids=repr,
)
def test_exact_is_right_and_decides_more_than_bounds(module, property):
    network = tiny(module)
    x, labels = samples(network, 8)
    is_broken = is_broken_on_a_grid(network, property, x, labels)
    verifier = Exact(max_domains=250)
    result = decided(verifier, network, property, x, labels)
    is_verified, is_falsified = (result.verdicts == v for v in ("verified", "falsified"))
    assert not (is_verified & is_broken).any()
    before = decided(Bounds("crown"), network, property, x, labels).verdicts == "verified"
    assert (is_verified | ~before).all()
    if not isinstance(property, LipschitzRobustness):
        assert (is_verified | is_falsified).mean() > 0.6
    is_open = ~(is_verified | is_falsified)
    stopped = {Reason.WORK_LIMIT, Reason.INCOMPLETE}
    assert set(result.reasons[is_open].tolist()) <= stopped


def test_networks_in_float32_are_falsified_by_points_of_their_own():
    layers = tiny(nn.Tanh(), seed=0).module.float()
    model = TorchClassifier(layers, [0, 1, 2])
    X = np.random.default_rng(0).random((20, 2)).astype(np.float32)
    y = model.predict(X)
    result = Exact(max_domains=2000).verify(model, X, y, property=ClassificationRobustness(0.15))
    broken = result.verdicts == "falsified"
    assert broken.any() and (result.verdicts == "verified").any()
    points = result.counterexamples[broken]
    assert (model.predict(points) != y[broken]).all()
    assert (np.abs(points - X[broken]) <= 0.15 + 1e-6).all()
