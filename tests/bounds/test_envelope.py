"""Lines above units of a first layer: above them at all points, and tight at corners."""

from dataclasses import replace
from fractions import Fraction
from itertools import product

import pytest
import torch
from torch import nn

from skrobust.bounds import crown, envelope_of, initial_slopes, lines_of, relax
from skrobust.graphs import read_graph
from skrobust.properties import ClassificationRobustness

ROW = torch.tensor([[[1.0, -1.0]]], dtype=torch.float64)


def relaxation_of(module, center, epsilon=1.0, norm="linf"):
    x = torch.tensor([center], dtype=torch.float64)
    graph = read_graph(module.double().requires_grad_(False), len(center))
    ball = ClassificationRobustness(epsilon, norm=norm, bounds=None).outer_ball(x)
    return relax(graph, ball)


def random_relaxation(seed, sizes=(6, 5), n_inputs=3, activation=nn.ReLU):
    generator, layers, n = torch.Generator().manual_seed(seed), [], n_inputs
    for size in (*sizes, 2):
        layer = nn.Linear(n, size).requires_grad_(False)
        layer.weight.copy_(torch.randn(layer.weight.shape, generator=generator))
        layer.bias.copy_(0.5 * torch.randn(layer.bias.shape, generator=generator))
        layers, n = [*layers, layer, activation()], size
    return relaxation_of(nn.Sequential(*layers[:-1]), [0.3] * n_inputs, 0.4)


def with_envelope(relaxation):
    return replace(relaxation, envelope=envelope_of(relaxation))


def free_numbers(relaxation, generator):
    """Return random slopes and free numbers of the envelope, some of them 0 or 1."""
    slopes = initial_slopes(relaxation, (1, 1))
    slopes |= relaxation.envelope.start(torch.zeros(1, 1, relaxation.graph.n_features))
    for key, part in slopes.items():
        slopes[key] = (2 * torch.rand(part.shape, generator=generator) - 0.5).clamp(0, 1).double()
    return slopes


def test_a_line_that_is_tight_at_a_corner_worked_by_hand():
    # Of 2 x - max(x + y, 0) over [-1, 1]^2 the least value is -2, at (-1, 1). The line between
    # the ends of z = x + y, (z + 2) / 2, leaves -3; the plane x + 1 lies above the unit, too.
    module = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2))
    with torch.no_grad():
        module[0].weight.copy_(torch.tensor([[1.0, 1.0], [1.0, 0.0]]))
        module[0].bias.copy_(torch.tensor([0.0, 5.0]))
        module[2].weight.copy_(torch.tensor([[-1.0, 2.0], [0.0, 0.0]]))
        module[2].bias.copy_(torch.tensor([-10.0, 0.0]))
    relaxation = with_envelope(relaxation_of(module, [0.0, 0.0]))
    envelope, slopes = relaxation.envelope, initial_slopes(relaxation, (1, 1))
    assert crown(relaxation, ROW, alphas=slopes).item() == pytest.approx(-3, abs=1e-12)
    # Without these lines the row of the input is (1.5, -0.5).
    slopes |= envelope.start(torch.tensor([[[1.5, -0.5]]], dtype=torch.float64))
    shares = envelope.keys[0]
    for share in (0.0, 0.5, 1.0):
        slopes[shares] = torch.full_like(slopes[shares], share)
        lower = crown(relaxation, ROW, alphas=slopes).item()
        assert lower == pytest.approx(-3 + share, abs=1e-12)


@pytest.mark.parametrize("seed", range(8))
def test_bounds_lie_below_rows_at_all_points_whatever_the_free_numbers(seed):
    relaxation = with_envelope(random_relaxation(seed))
    generator = torch.Generator().manual_seed(seed)
    ball = relaxation.ball
    sides = torch.cartesian_prod(*[torch.linspace(0, 1, 21, dtype=torch.float64)] * 3)
    least = (relaxation.graph(ball.lower + sides * (ball.upper - ball.lower)) @ ROW[0, 0]).min()
    for _ in range(20):
        lower = crown(relaxation, ROW, alphas=free_numbers(relaxation, generator)).item()
        assert lower <= least


@pytest.mark.parametrize("seed", range(4))
def test_bounds_over_parts_in_which_units_are_decided(seed):
    root = with_envelope(random_relaxation(seed))
    generator = torch.Generator().manual_seed(seed)
    i = root.envelope.node
    j = root.graph.nodes[i].inputs[0]
    sides = torch.cartesian_prod(*[torch.linspace(0, 1, 21, dtype=torch.float64)] * 3)
    points = root.ball.lower + sides * (root.ball.upper - root.ball.lower)
    z, rows = root.graph.values(points)[j], root.graph(points) @ ROW[0, 0]
    unit = root.envelope.units[0].item()
    for sign in (1, -1):
        lows, highs = list(root.lows), list(root.highs)
        sides_of = lows if sign > 0 else highs
        sides_of[j] = sides_of[j].clone()
        sides_of[j][0, unit] = 0.0
        lines = root.lines | {i: lines_of(root.graph.nodes[i], lows[j], highs[j])}
        half = replace(root, lows=lows, highs=highs, lines=lines)
        least = rows[sign * z[:, unit] >= 0].min()
        for _ in range(5):
            assert crown(half, ROW, alphas=free_numbers(root, generator)).item() <= least


@pytest.mark.parametrize("seed", range(6))
def test_rounding_is_accounted_for_in_exact_arithmetic(seed):
    # At the corner that the free numbers are made for, one layer's bound is tight but for it.
    relaxation = with_envelope(random_relaxation(seed, sizes=(4,)))
    graph, ball, envelope = relaxation.graph, relaxation.ball, relaxation.envelope
    first, last = (node for node in graph.nodes if hasattr(node, "weight"))
    for corner in product((0, 1), repeat=3):
        signs = 1.0 - 2.0 * torch.tensor([[corner]], dtype=torch.float64)
        slopes = initial_slopes(relaxation, (1, 1)) | envelope.start(signs)
        slopes[envelope.keys[0]].fill_(1.0)
        lower = Fraction(crown(relaxation, ROW, alphas=slopes).item())
        ends = torch.cat([ball.lower, ball.upper]).T.tolist()
        for point in product(*ends):
            assert lower <= exact_value(first, last, point)


def exact_value(first, last, point):
    outputs = exact_layer(last, [max(Fraction(0), z) for z in exact_layer(first, point)])
    return outputs[0] - outputs[1]


def exact_layer(layer, values):
    return [
        Fraction(b) + sum(Fraction(w) * Fraction(x) for w, x in zip(row, values, strict=True))
        for row, b in zip(layer.weight.tolist(), layer.bias.tolist(), strict=True)
    ]


def test_there_is_none_where_its_claims_would_not_hold():
    def made(*layers, **options):
        return envelope_of(relaxation_of(nn.Sequential(*layers), [0.1, 0.2], **options))

    torch.manual_seed(0)
    first, last = nn.Linear(2, 4), nn.Linear(4, 2)
    assert made(first, nn.ReLU(), last) is not None
    assert made(first, nn.ReLU(), last, norm="l2") is None
    assert made(first, nn.LeakyReLU(0.1), last) is None
    assert made(first, nn.Tanh(), last) is None
    assert made(first, nn.ReLU(), last, epsilon=0.0) is None
    assert made(nn.ReLU(), first, nn.Tanh(), last) is None
    homogeneous = replace(relaxation_of(nn.Sequential(first, nn.ReLU(), last), [0.1, 0.2]))
    assert envelope_of(replace(homogeneous, homogeneous=True)) is None
    assert envelope_of(replace(homogeneous, rounding=False)) is None
