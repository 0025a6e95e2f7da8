"""Branch and bound of small nets against the enumeration of all activation patterns."""

import itertools

import numpy as np
import pytest
import torch
from scipy.optimize import linprog
from torch import nn

from skrobust.bounds import relax
from skrobust.graphs import read_graph
from skrobust.properties import ClassificationRobustness
from skrobust.verification._base import Stopwatch
from skrobust.verification._branch import Problem, branch

ROW = np.array([1.0, -1.0])


class Net:
    """A net of one hidden layer, over one box, with everything written out as matrices."""

    def __init__(self, seed, slope=0.0, hidden=5):
        generator = torch.Generator().manual_seed(seed)
        module = nn.Sequential(nn.Linear(2, hidden), nn.LeakyReLU(slope), nn.Linear(hidden, 2))
        for layer in module[::2]:
            layer.requires_grad_(False)
            layer.weight.copy_(torch.randn(layer.weight.shape, generator=generator))
            layer.bias.copy_(0.3 * torch.randn(layer.bias.shape, generator=generator))
        module = module.double()
        self.graph, self.slope = read_graph(module, 2), slope
        self.W, self.b = (part.numpy() for part in (module[0].weight, module[0].bias))
        self.v = ROW @ module[2].weight.numpy()
        self.c = float(ROW @ module[2].bias.numpy())
        x = torch.tensor([[0.4, 0.6]], dtype=torch.float64)
        ball = ClassificationRobustness(1.0, bounds=None).outer_ball(x)
        self.root = relax(self.graph, ball)
        self.source = self.graph.nodes[self.graph.piecewise[0]].inputs[0]
        self.box = list(zip(ball.lower[0].tolist(), ball.upper[0].tolist(), strict=True))

    def least(self, signs):
        """Return the least value of the row where units have these signs, by a linear program."""
        factor = np.where(signs > 0, 1.0, self.slope)
        cost = (self.v * factor) @ self.W
        result = linprog(cost, -signs[:, None] * self.W, signs * self.b, bounds=self.box)
        return result.fun + (self.v * factor) @ self.b + self.c if result.status == 0 else np.inf

    @property
    def minimum(self):
        patterns = itertools.product([1.0, -1.0], repeat=len(self.b))
        return min(self.least(np.array(signs)) for signs in patterns)

    def problem(self, *shifts):
        """Ask whether the row plus each shift is at least 0."""
        rows = torch.as_tensor(ROW).expand(len(shifts), 1, 2)
        shift = torch.tensor(shifts, dtype=torch.float64)[:, None]
        return Problem(self.root, rows, shift, None, None, lambda lower, problem: lower[:, 0])

    def leaf(self, shifts):
        """Decide what has no open unit exactly, as the linear program does."""

        def decide(domains, k):
            signs = domains.signs[self.source][k].numpy()
            low, high = (side[self.source][k].numpy() for side in (domains.lows, domains.highs))
            signs = np.where(signs != 0, signs, np.where(low >= 0, 1.0, -1.0))
            assert ((signs > 0) | (high <= 0) | (domains.signs[self.source][k].numpy() < 0)).all()
            holds = self.least(signs) + shifts[domains.problem[k]] >= 0
            return "proved" if holds else "end"

        return decide

    def run(self, *shifts, leaf=None, visit=lambda points: False, watch=None, **options):
        return branch(
            self.problem(*shifts),
            batch_size=options.pop("batch_size", 4),
            memory_limit=2**30,
            n_steps=options.pop("n_steps", 2),
            watch=watch or Stopwatch(),
            visit=visit,
            leaf=leaf or self.leaf(shifts),
        )


@pytest.mark.parametrize("slope", [0.0, -0.5, 1.7])
@pytest.mark.parametrize("seed", range(4))
def test_the_answer_is_that_of_all_patterns(seed, slope):
    net = Net(seed, slope)
    least = net.minimum
    for margin in (0.2, 1e-3):
        status, lower = net.run(margin - least)
        assert status == "proved" and (lower >= 0).all()
        status, lower = net.run(-margin - least)
        assert status == "end"
        assert (lower <= -margin + 1e-9).all()


@pytest.mark.parametrize("batch_size", [1, 3, 100])
def test_several_rows_at_once_are_decided_as_one_by_one(batch_size):
    net = Net(1)
    shifts = [margin - net.minimum for margin in (0.5, 0.01, 0.1)]
    status, lower = net.run(*shifts, batch_size=batch_size)
    assert status == "proved" and lower.shape == (3,) and (lower >= 0).all()


def test_bounds_stay_below_the_minimum_wherever_a_search_ends():
    net = Net(2)
    least = net.minimum
    status, lower = net.run(0.05 - least, watch=Stopwatch(0.0))
    assert status == "limit" and lower.tolist() == [-np.inf]
    status, lower = net.run(-0.05 - least, leaf=lambda domains, k: "stuck")
    assert status == "stuck" and lower[0] <= -0.05 + 1e-9
    assert lower[0] > -np.inf


def test_a_visitor_that_has_seen_enough_ends_the_search():
    net, seen = Net(3), []

    def visit(points):
        seen.append(points)
        return len(seen) == 2

    status, _ = net.run(-0.3 - net.minimum, visit=visit)
    assert status == "end" and len(seen) == 2
    low, high = np.array(net.box).T
    for points in seen:
        assert points.shape[1] == 2
        assert ((points.numpy() >= low) & (points.numpy() <= high)).all()


def test_more_steps_leave_fewer_leaves():
    net, counts = Net(0, hidden=6), []
    for n_steps in (1, 8):
        leaves, exact = [], net.leaf([0.02 - net.minimum])

        def leaf(domains, k, leaves=leaves, exact=exact):
            leaves.append(k)
            return exact(domains, k)

        assert net.run(0.02 - net.minimum, leaf=leaf, n_steps=n_steps)[0] == "proved"
        counts.append(len(leaves))
    assert counts[1] <= counts[0]
