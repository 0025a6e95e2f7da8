"""Leaves by linear programs, against programs with everything written out as matrices."""

import numpy as np
import pytest
import torch

from skrobust.verification._branch import _first
from skrobust.verification._domains import split
from skrobust.verification._leaves import close_leaf
from tests.verification.test_branch import Net


def is_open(net):
    """Return which units may have either sign."""
    return net.root.lines[net.graph.piecewise[0]].open[0]


def leaf_of(net, problem, signs):
    """Return the domain in which every open unit is decided, by one split after the other."""
    domain = _first(problem)
    for unit in is_open(net).nonzero().flatten().tolist():
        sign = signs[unit]
        domain.branch[:, 0], domain.branch[:, 1] = net.source, unit
        halves = split(domain, 1)
        domain = halves[:1] if sign > 0 else halves[1:]
    return domain


@pytest.mark.parametrize("seed", range(3))
def test_a_leaf_is_proved_where_the_least_value_of_the_row_says_so(seed):
    net, n_proved = Net(seed), 0
    for pattern in range(0, 32, 3):
        signs = np.where([pattern >> k & 1 for k in range(5)], 1.0, -1.0)
        known = np.where(net.root.lows[net.source][0] >= 0, 1.0, -1.0)
        signs = np.where(is_open(net), signs, known)
        least = net.least(signs)
        for margin in (1e-3, -1e-3):
            # Where no point has these signs, any row is proved, up to the price of breaking them.
            problem = net.problem(margin - least if np.isfinite(least) else -0.5)
            closed = close_leaf(problem, leaf_of(net, problem, signs))
            assert closed == (margin > 0 or not np.isfinite(least))
            n_proved += closed
    assert 5 < n_proved < 22


def test_a_domain_with_open_units_is_no_leaf():
    net = Net(0)
    problem = net.problem(1e3)
    domain = _first(problem)
    assert any(lines.open.any() for lines in net.root.lines.values())
    assert not close_leaf(problem, domain)
    assert torch.equal(domain.signs[net.source], torch.zeros(1, 5, dtype=torch.float64))
