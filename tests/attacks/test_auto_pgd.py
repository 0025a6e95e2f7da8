"""Auto-PGD: its checkpoints, its steps, and the best point."""

import numpy as np
import pytest
import torch

from skrobust.attacks import PGD, AutoPGD, Target
from skrobust.attacks._auto_pgd import _checkpoints
from skrobust.properties import ClassificationRobustness
from tests.attacks._nets import generator, rows, small_net


@pytest.mark.parametrize("n_steps", [1, 2, 10, 100])
def test_checkpoints_follow_the_paper(n_steps):
    # p = 0, 0.22, then gaps that shrink by 0.03 down to 0.06.
    shares = [0.22, 0.41, 0.57, 0.70, 0.80, 0.87, 0.93, 0.99]
    expected = [int(np.ceil(round(n_steps * share, 9))) for share in shares]
    assert _checkpoints(n_steps) == expected


def test_small_integers_of_numpy():
    net, x = small_net(), rows(3)
    target = Target(net, ClassificationRobustness(0.2), x, net(x).argmax(dim=1))
    small, plain = (
        AutoPGD(kind(100)).points(target, generator=generator()) for kind in (np.int8, int)
    )
    assert torch.equal(small, plain)


def test_auto_pgd_halves_its_step_where_it_oscillates():
    # A valley of width far below the first step: only shrinking steps reach its floor.
    class Valley(torch.nn.Module):
        def forward(self, x):
            depth = (x - 0.537).abs().sum(dim=1, keepdim=True)
            return torch.cat([1 + depth, torch.zeros_like(depth)], dim=1)

    x = torch.full((20, 2), 0.5, dtype=torch.float64)
    labels = torch.zeros(20, dtype=torch.int64)
    property = ClassificationRobustness(0.4)
    outcome = AutoPGD(100).search(
        Target(Valley(), property, x, labels), stop_when_broken=False, generator=generator()
    )
    assert (outcome.margins - 1).max() < 0.02
    fixed = PGD(100, step_size=0.4, schedule="constant").search(
        Target(Valley(), property, x, labels), stop_when_broken=False, generator=generator()
    )
    assert (fixed.margins - 1).mean() > 0.1


def test_auto_pgd_returns_the_best_point_also_when_nothing_breaks():
    class Valley(torch.nn.Module):
        def forward(self, x):
            depth = (x - 0.537).abs().sum(dim=1, keepdim=True)
            return torch.cat([1 + depth, torch.zeros_like(depth)], dim=1)

    x = torch.full((20, 2), 0.5, dtype=torch.float64)
    labels = torch.zeros(20, dtype=torch.int64)
    property = ClassificationRobustness(0.4)
    for n_steps in (3, 7, 12):
        margins = [
            AutoPGD(n_steps)
            .search(
                Target(Valley(), property, x, labels), stop_when_broken=stop, generator=generator()
            )
            .margins
            for stop in (True, False)
        ]
        assert (margins[0] <= margins[1] + 1e-12).all()
