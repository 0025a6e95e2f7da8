"""Tests of bounds in float32: sound in real arithmetic, by exact rationals and by points."""

from fractions import Fraction

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from skrobust.balls import Ball
from skrobust.bounds import (
    crown,
    in_single,
    interval_rows,
    outer_single,
    plain_single,
    relax,
    single_graph,
)
from skrobust.graphs import Node, read_graph
from skrobust.properties import ClassificationRobustness
from tests.bounds._cases import (
    Everything,
    all_rows,
    build,
    centers,
    corners_and_samples,
    perceptron,
    steep,
)

# From below the smallest number with all digits to far above 1, and numbers that nearly cancel.
NUMBERS = st.one_of(
    st.sampled_from([0.0, 1.0, -1.0, 1 + 2**-23, -1 - 2**-23, 2**-24, 1e-38, -1e-42, 1e-30, 3e8]),
    st.floats(-4, 4, width=32),
)


def tiny(numbers):
    """A perceptron 2-2-2-1 with given weights, in float64, of numbers of float32."""
    module = nn.Sequential(
        nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 1)
    ).requires_grad_(False)
    place = 0
    for parameter in module.parameters():
        part = torch.tensor(numbers[place : place + parameter.numel()])
        parameter.copy_(part.view_as(parameter))
        place += parameter.numel()
    return module


def exactly(graph, point):
    """The one output of a perceptron at a point, in rational numbers."""
    values = [Fraction(entry) for entry in point]
    for node in graph.nodes[1:]:
        if node.is_affine:
            weights, bias = node.weight.tolist(), node.bias.tolist()
            values = [
                sum(Fraction(w) * v for w, v in zip(row, values, strict=True)) + Fraction(b)
                for row, b in zip(weights, bias, strict=True)
            ]
        else:
            values = [max(value, Fraction(0)) for value in values]
    return values[0]


def box(lower, upper):
    center = (lower + upper) / 2
    return Ball(center, torch.tensor(0.5).double(), "linf", lower, upper)


@settings(max_examples=60)
@given(
    st.lists(NUMBERS, min_size=15, max_size=15),
    st.tuples(NUMBERS, NUMBERS),
    st.sampled_from([0.0, 1e-40, 2**-24, 0.1]),
)
def test_no_exact_value_lies_below_a_bound_in_float32(numbers, corner, width):
    graph = read_graph(tiny(numbers), 2)
    lower = torch.tensor([corner]).double()
    ball = box(lower, lower + width)
    single, rows = single_graph(graph), torch.tensor([[[1.0], [-1.0]]])
    ends = [ball.lower[0].tolist(), ball.upper[0].tolist()]
    points = [(ends[a][0], ends[b][1]) for a in (0, 1) for b in (0, 1)]
    with plain_single() as is_plain:
        assert is_plain
        for refine in (False, True):
            relaxation = relax(single, outer_single(ball), refine=refine)
            for bound in (interval_rows, crown):
                least, minus_most = bound(relaxation, rows)[0].double().tolist()
                for point in points:
                    value = exactly(graph, point)
                    # A NaN is not above anything.
                    assert not least > float("inf") and not minus_most > float("inf")
                    assert not (least > -float("inf") and Fraction(least) > value)
                    assert not (minus_most > -float("inf") and Fraction(minus_most) > -value)


def test_a_margin_below_the_rounding_of_float32_is_not_proved():
    # 1 + 2^-30 - 1 - 2^-29 is below 0, but float32 sees 0.
    module = nn.Sequential(nn.Linear(1, 2), nn.ReLU(), nn.Linear(2, 1)).requires_grad_(False)
    module[0].weight.zero_()
    module[0].bias.copy_(torch.tensor([1.0, 2.0**-30]))
    module[2].weight.copy_(torch.tensor([[1.0, -1.0]]))
    module[2].bias.fill_(-1.0)
    graph, x = read_graph(module, 1), torch.zeros(1, 1).double()
    row = torch.ones(1, 1, 1)
    assert exactly(graph, [0.0]) < 0
    relaxation = relax(single_graph(graph), outer_single(box(x, x + 1)))
    assert crown(relaxation, row).item() < 0 and interval_rows(relaxation, row).item() < 0
    plain = relax(single_graph(graph), outer_single(box(x, x + 1)), rounding=False)
    assert interval_rows(plain, row).item() == 0  # what rounding hides


def test_products_that_vanish_are_accounted_for():
    # 1e-30 * 1e-30 is 0 in float32, and so would be what it is subtracted from 0.
    module = nn.Sequential(nn.Linear(1, 1), nn.ReLU(), nn.Linear(1, 1)).requires_grad_(False)
    module[0].weight.fill_(1e-30)
    module[2].weight.fill_(-1e-30)
    module[0].bias.zero_()
    module[2].bias.zero_()
    graph, x = read_graph(module, 1), torch.ones(1, 1).double()
    relaxation = relax(single_graph(graph), outer_single(box(x, x)))
    row = torch.ones(1, 1, 1)
    assert exactly(graph, [1.0]) < 0
    assert crown(relaxation, row).item() < 0 and interval_rows(relaxation, row).item() < 0
    plain = relax(single_graph(graph), outer_single(box(x, x)), rounding=False)
    assert crown(plain, row).item() == interval_rows(plain, row).item() == 0


@pytest.mark.parametrize("factory", [Everything, perceptron, steep])
@pytest.mark.parametrize("refine", [False, True])
def test_no_sampled_point_lies_below_and_float64_is_tighter(factory, refine):
    graph, x = read_graph(build(factory), 16), centers()
    ball = ClassificationRobustness(0.1).outer_ball(x)
    rows = all_rows(3).A
    relaxation = relax(single_graph(graph), outer_single(ball), refine=refine)
    exact = relax(graph, ball, refine=refine)
    points = corners_and_samples(ball, 200)
    values = rows @ graph(points.flatten(0, 1)).view(3, -1, 3).transpose(1, 2)
    for bound in (interval_rows, crown):
        lower = bound(relaxation, rows.float()).double()
        assert (lower.unsqueeze(2) <= values).all()
        gap = bound(exact, rows) - lower
        assert (gap > -1e-6).all() and gap.max() < 1e-3


def test_boxes_in_float32_hold_those_in_float64():
    ball = box(torch.tensor([[0.1, -0.3, 1e300]]).double(), torch.tensor([[0.1, 0.7, 2e300]]))
    outer = outer_single(ball)
    assert outer.lower.dtype == torch.float32
    assert (outer.lower.double() <= ball.lower).all()
    assert (outer.upper.double() >= ball.upper).all()
    assert outer.upper[0, 0] - outer.lower[0, 0] < 1e-8


def test_graphs_of_other_kinds_stay_in_float64():
    class Own(Node):
        is_affine = False

    assert in_single(Own()) is None
    graph = read_graph(nn.Sequential(nn.Linear(2, 2), nn.Tanh()), 2)
    assert single_graph(graph) is None
    single = single_graph(read_graph(build(perceptron), 16))
    assert single.dtype == single.nodes[1].weight.dtype == torch.float32


def test_settings_are_put_back_and_coarse_products_are_seen(monkeypatch):
    before = torch.backends.mkldnn.enabled
    with plain_single() as is_plain:
        assert is_plain and not torch.backends.mkldnn.enabled
        with plain_single():
            pass
        assert not torch.backends.mkldnn.enabled
    assert torch.backends.mkldnn.enabled == before
    monkeypatch.setattr(torch, "get_float32_matmul_precision", lambda: "medium")
    with plain_single() as is_plain:
        assert not is_plain
    monkeypatch.undo()

    def coarse(x, weight):
        return torch.einsum("nc,mc->nm", x[:, :, 0, 0].bfloat16(), weight[:, :, 0, 0].bfloat16())

    monkeypatch.setattr(torch.nn.functional, "conv2d", lambda x, w: coarse(x, w)[..., None, None])
    with plain_single() as is_plain:
        assert not is_plain
