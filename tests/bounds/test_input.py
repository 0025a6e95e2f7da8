"""Tests of the least value of rows over balls."""

import pytest
import torch

from skrobust.bounds import farthest, minimum
from skrobust.properties import ClassificationRobustness
from tests.bounds._cases import BALLS, centers


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_minimum_with_the_distance_as_a_variable(norm):
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(4, 5, generator=generator)
    x[:, 0] = 0
    ball = ClassificationRobustness(0.3, norm=norm).outer_ball(x)
    rows = torch.randn(4, 3, 5, generator=generator).double()
    slope = 2 * torch.randn(4, 3, generator=generator).double()
    lower = minimum(ball, rows, slope, None)
    points = torch.cat([ball.sample(20_000, generator), ball.center.unsqueeze(1)], dim=1)
    d = ball.distance(points)
    values = points @ rows.transpose(1, 2) + d.unsqueeze(2) * slope.unsqueeze(1)
    assert (lower <= values.amin(dim=1)).all()
    if norm == "linf":
        # Each feature goes as far as d and the box let it: the least over a grid of d.
        grid = torch.linspace(0, 0.3, 3001, dtype=torch.float64)
        side = torch.where(
            rows > 0, (ball.center - ball.lower)[:, None], (ball.upper - ball.center)[:, None]
        )
        moved = (rows.abs().unsqueeze(3) * torch.minimum(side.unsqueeze(3), grid)).sum(2)
        exact = (slope.unsqueeze(2) * grid - moved).amin(2) + (rows @ ball.center[..., None])[
            ..., 0
        ]
        rising = slope > 0
        assert ((exact - lower)[rising] < 1e-3).all()
        assert (lower <= exact + 1e-12).all()
    # A least distance can only raise the bound, and holds for what is farther.
    nearest = 0.5 * farthest(ball)
    raised = minimum(ball, rows, slope, nearest)
    assert (raised >= lower - 1e-12).all()
    outer = torch.where((d >= nearest[:, None]).unsqueeze(2), values, torch.inf)
    assert (raised <= outer.amin(dim=1)).all()


def test_outer_ball_holds_the_ball_of_the_network():
    for property in (b.values[0] for b in BALLS):
        x = centers()
        inner, outer = property.ball(x), property.outer_ball(x)
        assert (outer.lower <= inner.lower.double()).all()
        assert (outer.upper >= inner.upper.double()).all()
        fixed = (torch.as_tensor(property.epsilon) == 0).expand(16)
        assert torch.equal(outer.lower[:, fixed], outer.upper[:, fixed])


@pytest.mark.parametrize("exponent", [-300, -208, -170, -150, 0, 150, 170, 203, 290])
@pytest.mark.parametrize("slope", [None, 0.0, 0.3])
def test_squares_neither_underflow_nor_overflow(exponent, slope):
    """Of points of a ball of any size, none has a row below its bound."""
    size = 10.0**exponent
    x = torch.zeros(1, 2, dtype=torch.float64)
    ball = ClassificationRobustness(size, norm="l2", bounds=None).outer_ball(x)
    rows = torch.tensor([[[3.0, 4.0]]], dtype=torch.float64) / size
    assert farthest(ball).item() >= size
    if slope is not None:
        slope = torch.full((1, 1), slope / size, dtype=torch.float64)
    lower = minimum(ball, rows, slope, None).item()
    at_nearest = -5.0 if slope is None else -5.0 + slope.item() * size
    assert at_nearest - 1e-6 <= lower <= at_nearest
