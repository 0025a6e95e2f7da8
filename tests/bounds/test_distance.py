"""Tests of what bounds know of distances: exact images, level lines, a slope of 1."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from skrobust.balls import Ball
from skrobust.bounds import bound_rows, image, lines_of, norm_product, steepest
from skrobust.graphs import LinfDistance, read_graph
from skrobust.networks import LinfDistanceNetwork
from skrobust.properties import ClassificationRobustness


def node(weight):
    weight = torch.tensor(weight, dtype=torch.float64)
    return LinfDistance(inputs=(0,), shape=(len(weight),), weight=weight)


def test_images_by_hand():
    measured = node([[0.0, 0.0], [1.0, 0.5]])
    lower, upper = torch.tensor([[[0.2, -0.1], [0.3, 0.4]]], dtype=torch.float64).unbind(1)
    low, high = image(measured, lower, upper)
    # From (0, 0): 0.2 at least, by the first; 0.4 at most. From (1, 0.5): 0.7 and 0.8.
    np.testing.assert_allclose(low, [[0.2, 0.7]], atol=1e-14)
    np.testing.assert_allclose(high, [[0.4, 0.8]], atol=1e-14)
    assert (low <= torch.tensor([[0.2, 0.7]], dtype=torch.float64)).all()


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.0, 2.0))
def test_images_are_the_extremes_over_the_box(seed, width):
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(3, 2, dtype=torch.float64, generator=generator)
    lower = torch.randn(1, 2, dtype=torch.float64, generator=generator)
    upper = lower + width * torch.rand(1, 2, dtype=torch.float64, generator=generator)
    measured = LinfDistance(inputs=(0,), shape=(3,), weight=weight)
    low, high = image(measured, lower, upper)
    axes = [torch.linspace(lower[0, i], upper[0, i], 41, dtype=torch.float64) for i in (0, 1)]
    # With the entries of the weights, where the least distances lie.
    axes = [
        torch.cat([axis, weight[:, i].clamp(lower[0, i], upper[0, i])])
        for i, axis in enumerate(axes)
    ]
    values = measured.apply(torch.cartesian_prod(*axes))
    assert (values >= low).all() and (values <= high).all()
    torch.testing.assert_close(values.amax(dim=0), high[0], rtol=0, atol=1e-12)
    torch.testing.assert_close(values.amin(dim=0), low[0], rtol=0, atol=1e-12)


def test_lines_are_level():
    measured = node([[0.0, 0.0], [1.0, 0.5]])
    lower = torch.tensor([[0.2, -0.1]], dtype=torch.float64)
    lines = lines_of(measured, lower, lower + 0.5)
    rows = torch.tensor([[[1.0, -2.0]]], dtype=torch.float64)
    pulled, constant = lines.pull(rows)
    low, high = image(measured, lower, lower + 0.5)
    assert not pulled.any()
    torch.testing.assert_close(constant, low[:, :1] - 2 * high[:, 1:])


def test_rows_are_bounded_by_margins():
    """A margin of twice the radius is proved, and no row is bounded above what points show."""
    graph = read_graph(LinfDistanceNetwork(4, 3, 8, random_state=0).eval(), 4)
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(20, 4, dtype=torch.float64, generator=generator)
    with torch.no_grad():
        labels = graph(x).argmax(dim=1)
    property = ClassificationRobustness(0.02, bounds=None)
    ball = property.outer_ball(x)
    rows = property.conclusion(graph(x), labels).sufficient()
    with torch.no_grad():
        lower = bound_rows(graph, ball, rows)
        margins = (rows.A @ graph(x).unsqueeze(2)).squeeze(2)
        shifted = ball.sample(500, generator).flatten(0, 1)
        values = rows.A.repeat_interleave(500, 0) @ graph(shifted).unsqueeze(2)
    assert (lower >= margins - 0.04 - 1e-9).all()
    assert (lower <= values.view(20, 500, -1).amin(dim=1)).all()


def test_constants_are_1():
    graph = read_graph(LinfDistanceNetwork(4, 3, (8, 5), random_state=0).eval(), 4)
    assert 1 - 1e-5 < norm_product(graph, "linf") < 1
    assert steepest(node([[0.0, 0.0], [1.0, 0.5]]), "l2") >= 2**0.5


def test_wide_batches_are_bounded_in_parts():
    weight = torch.randn(100, 60, dtype=torch.float64)
    measured = LinfDistance(inputs=(0,), shape=(100,), weight=weight)
    center = torch.randn(400, 60, dtype=torch.float64)
    ball = Ball.outside(center, 0.1, "linf", None)
    low, high = image(measured, ball.lower, ball.upper)
    assert low.shape == high.shape == (400, 100)
    np.testing.assert_allclose(high - measured.apply(center), 0.1, atol=1e-9)
