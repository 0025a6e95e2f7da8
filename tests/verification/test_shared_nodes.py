"""Nodes that several units read: splits of one unit say something of the others, too."""

import numpy as np
import pytest
import torch
from torch import nn

from skrobust.balls import Ball
from skrobust.bounds import relax
from skrobust.evidence import check
from skrobust.graphs import read_graph
from skrobust.networks import Network
from skrobust.properties import LinearRobustness
from skrobust.verification import Exact
from skrobust.verification._base import Stopwatch
from skrobust.verification._branch import Problem, branch

REACH = 0.5


class Shared(nn.Module):
    """Two units read each entry of one linear layer."""

    def __init__(self, seed, first, second):
        super().__init__()
        torch.manual_seed(seed)
        self.before, self.after = nn.Linear(2, 2), nn.Linear(4, 1)
        self.units = first, second
        with torch.no_grad():
            self.before.weight *= 4
            self.before.bias += 1.5
        self.double()

    def forward(self, x):
        z = self.before(x)
        return self.after(torch.cat([unit(z) for unit in self.units], dim=1))


def lowest(module, x):
    """Return the smallest output on a grid of the ball, and the range of outputs there."""
    side = torch.linspace(-REACH, REACH, 201, dtype=torch.float64)
    with torch.no_grad():
        values = module(x + torch.cartesian_prod(side, side))
    return values.min().item(), (values.max() - values.min()).item()


@pytest.mark.parametrize("units", [(torch.tanh, torch.relu), (torch.relu, torch.tanh)])
@pytest.mark.parametrize("seed", [7, 8, 10, 13])
def test_a_false_row_is_never_proved(units, seed):
    module = Shared(seed, *units)
    x = torch.as_tensor(np.random.default_rng(seed).random((1, 2)))
    least, width = lowest(module, x)
    shift = -least - 1e-4 * width  # below 0 at a point of the grid
    reach = torch.full((2,), REACH, dtype=torch.float64)
    ball = Ball(x, reach, "linf", x - REACH, x + REACH)
    rows, shift = torch.ones(1, 1, 1).double(), torch.full((1, 1), shift).double()
    problem = Problem(
        relax(read_graph(module, 2), ball), rows, shift, None, None, lambda low, _: low.amax(dim=1)
    )
    word, lower = branch(
        problem,
        batch_size=64,
        memory_limit=2**28,
        n_steps=10,
        watch=Stopwatch(None, max_domains=1500),
        visit=lambda points: False,
        leaf=lambda domains, k: "stuck",
    )
    assert word != "proved"
    assert lower.item() <= least + shift.item() + 1e-9


@pytest.mark.parametrize("seed", range(3))
def test_proofs_about_shared_nodes_leave_evidence(seed, tmp_path):
    module = Shared(seed, torch.relu, nn.LeakyReLU(0.3))
    x = np.random.default_rng(seed).random((1, 2))
    least, width = lowest(module, torch.as_tensor(x))
    two = nn.Sequential(module, nn.Linear(1, 2).double())
    with torch.no_grad():
        two[1].weight[:], two[1].bias[:] = torch.tensor([[1.0], [0.0]]), 0.0
    property = LinearRobustness(([[1.0, 0.0]], [0.05 * width - least]), REACH, bounds=None)
    verifier = Exact(split_inputs=0, max_domains=2000)
    network = Network(two, np.arange(2), 2)
    result = verifier.verify(network, x, property=property, random_state=0, evidence=tmp_path)
    assert result.verdicts[0] == "verified"
    assert check(tmp_path).accepted.all()
