"""Tests of bound_rows: proved bounds contain what is sampled, and tighten in order."""

import pytest
import torch
from torch import nn

from skrobust.bounds import bound_rows
from skrobust.graphs import read_graph
from skrobust.properties import ClassificationRobustness, LinearRows
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

METHODS = ("ibp", "crown", "alpha-crown")


@pytest.mark.parametrize("property", BALLS)
@pytest.mark.parametrize("factory", [perceptron, Everything, steep])
def test_bounds_contain_sampled_outputs_and_tighten_in_order(factory, property):
    graph = read_graph(build(factory), 16)
    ball = property.outer_ball(centers())
    rows = all_rows(len(ball.center))
    points = corners_and_samples(ball, 17_000)
    z = graph(points.flatten(0, 1)).view(*points.shape[:2], -1)
    sampled = (z @ rows.A.transpose(1, 2)).amin(dim=1)
    bounds = [bound_rows(graph, ball, rows, method) for method in METHODS]
    for lower in bounds:
        assert (lower <= sampled).all()
    ibp, crown_, alpha = bounds
    assert (ibp <= crown_ + 1e-12).all()
    assert (crown_ <= alpha + 1e-12).all()
    if factory is perceptron:
        assert (crown_ > ibp + 1e-6).any()


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_bounds_of_an_affine_network_are_exact(norm):
    module = nn.Sequential(build(lambda: nn.Linear(16, 5)), build(lambda: nn.Linear(5, 3)))
    graph = read_graph(module.double(), 16)
    x = 0.5 + 0.0 * centers()
    ball = ClassificationRobustness(0.1, norm=norm).outer_ball(x.double())
    rows = all_rows(3)
    W = module[1].weight @ module[0].weight
    dual = (rows.A @ W).abs().sum(2) if norm == "linf" else (rows.A @ W).norm(dim=2)
    exact = (rows.A @ graph(x.double()).unsqueeze(2)).squeeze(2) - 0.1 * dual
    lower = bound_rows(graph, ball, rows, "crown")
    assert (lower <= exact + 1e-15).all()
    torch.testing.assert_close(lower, exact, rtol=0, atol=1e-9 if norm == "linf" else 1e-5)


def test_rows_have_constants_and_distances():
    # z = x around 1 / 2: x + 1 / 4 is least at the left end, 2 d - x at the center.
    module = nn.Linear(1, 1)
    module.weight, module.bias = (
        nn.Parameter(part) for part in (torch.ones(1, 1), torch.zeros(1))
    )
    graph, x = read_graph(module, 1), torch.full((1, 1), 0.5).double()
    ball = ClassificationRobustness(0.25).outer_ball(x)
    A = torch.tensor([[[1.0], [-1.0]]]).double()
    c, b = torch.tensor([[0.0, 2.0]]).double(), torch.tensor([[0.25, 0.0]]).double()
    for method, expected in (("ibp", [0.5, -0.75]), ("crown", [0.5, -0.5])):
        lower = bound_rows(graph, ball, LinearRows(A, c, b, False), method)
        torch.testing.assert_close(lower, torch.tensor([expected]).double(), rtol=0, atol=1e-12)


def test_bad_input_is_refused():
    graph, ball = read_graph(build(perceptron), 16), BALLS[0].values[0].outer_ball(centers())
    rows = all_rows(3)
    with pytest.raises(ValueError, match="Got method='exact', but expected one of 'ibp'"):
        bound_rows(graph, ball, rows, "exact")
    with pytest.raises(ValueError, match="Got n_steps=0"):
        bound_rows(graph, ball, rows, n_steps=0)
    with pytest.raises(ValueError, match=r"Got ball in torch\.float32"):
        bound_rows(graph, BALLS[0].values[0].ball(centers()), rows)
