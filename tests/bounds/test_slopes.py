"""Tests of bounds of slopes: they contain sampled ones."""

import pytest
import torch

from skrobust.bounds import crown, relax, slope_relaxation
from skrobust.graphs import read_graph
from tests.bounds._cases import (
    BALLS,
    Everything,
    all_rows,
    build,
    centers,
    corners_and_samples,
    perceptron,
    steep,
)


@pytest.mark.parametrize("property", BALLS)
@pytest.mark.parametrize("factory", [perceptron, Everything, steep])
def test_slopes_contain_sampled_ones(factory, property):
    graph = read_graph(build(factory), 16)
    ball = property.outer_ball(centers())
    rows = all_rows(len(ball.center))
    lower = crown(slope_relaxation(relax(graph, ball)), rows.A)
    loose = crown(slope_relaxation(relax(graph, ball, refine=False), refine=False), rows.A)
    points = corners_and_samples(ball, 5_000)
    change = graph(points.flatten(0, 1)).view(*points.shape[:2], -1)
    change = change - graph(ball.center).unsqueeze(1)
    d = ball.distance(points).unsqueeze(2)
    slopes = (change @ rows.A.transpose(1, 2)) / d
    slopes = torch.where(d > 1e-6, slopes, torch.inf).amin(dim=1)
    assert (lower <= slopes).all()
    assert (loose <= slopes).all()
