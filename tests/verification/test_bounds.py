"""Tests of bounds: they contain what is sampled, tighten in order, and prove what is true."""

import numpy as np
import pytest
import torch
from torch import nn

from skrobust.balls import Ball
from skrobust.bounds import (
    bound_rows,
    crown,
    farthest,
    minimum,
    optimised,
    relax,
    slope_relaxation,
)
from skrobust.exceptions import UnsupportedModelError, UnsupportedPropertyError
from skrobust.graphs import read_graph
from skrobust.networks import Network
from skrobust.properties import (
    ClassificationRobustness,
    LinearRobustness,
    LinearRows,
    LipschitzRobustness,
    StandardRobustness,
    StrongClassificationRobustness,
)
from skrobust.verification import Bounds, Exact, Reason, Verdict
from skrobust.verification._query import make_query
from tests.verification._tensors import decided

METHODS = ("ibp", "crown", "alpha-crown")


class Everything(nn.Module):
    """Convolution, batch norm, residual sum, max-pool, leaky ReLU, clamp, abs, average pool."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 3, padding=1)
        self.norm = nn.BatchNorm2d(2)
        self.skip = nn.Conv2d(1, 2, 1)
        self.last = nn.Linear(8, 3)
        self.norm.running_mean.uniform_(-0.5, 0.5)
        self.norm.running_var.uniform_(0.5, 2)

    def forward(self, x):
        x = x.view(len(x), 1, 4, 4)
        x = torch.relu(self.norm(self.conv(x))) + self.skip(x)
        x = nn.functional.leaky_relu(nn.functional.max_pool2d(x, 2), 0.2)
        x = (x.flatten(1) - 0.1).abs().clamp(0.05, 0.7)
        return self.last(x)


def perceptron():
    return nn.Sequential(nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3))


def steep():
    """Leaky ReLU with a slope above 1, which is concave, and a smoothing pool."""
    return nn.Sequential(
        nn.Linear(16, 8),
        nn.LeakyReLU(1.7),
        nn.Unflatten(1, (1, 8)),
        nn.AvgPool1d(2),
        nn.Flatten(),
        nn.Hardtanh(-0.2, 0.3),
        nn.Linear(4, 3),
    )


def build(factory, seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return factory().eval().requires_grad_(False)


def centers(n=3, seed=1):
    x = torch.rand(n, 16, generator=torch.Generator().manual_seed(seed))
    x[0, :8] = 0  # at the border of the domain
    return x


def all_rows(n, n_classes=3, seed=2):
    """Each output from both sides, and some rows of no special kind."""
    eye = torch.eye(n_classes).double().expand(n, -1, -1)
    generator = torch.Generator().manual_seed(seed)
    A = torch.cat([eye, -eye, torch.randn(n, 2, n_classes, generator=generator).double()], dim=1)
    zeros = torch.zeros(A.shape[:2], dtype=torch.float64)
    return LinearRows(A, zeros, zeros, False, uses_distance=False)


BALLS = [
    pytest.param(ClassificationRobustness(0.05), id="linf"),
    pytest.param(ClassificationRobustness(0.3, bounds=None), id="linf-wide"),
    pytest.param(ClassificationRobustness(np.linspace(0, 0.2, 16)), id="linf-features"),
    pytest.param(ClassificationRobustness(0.2, norm="l2"), id="l2"),
    pytest.param(ClassificationRobustness(1.0, norm="l2"), id="l2-wide"),
    pytest.param(ClassificationRobustness(np.linspace(0, 0.5, 16), norm="l2"), id="l2-features"),
]


def corners_and_samples(ball, n_samples, seed=0):
    """Points of each ball: uniform ones, and for boxes their corners."""
    generator = torch.Generator().manual_seed(seed)
    points = ball.sample(n_samples, generator)
    if ball.norm == "linf":
        picks = torch.rand(points.shape, generator=generator) < 0.5
        corners = torch.where(picks, ball.lower.unsqueeze(1), ball.upper.unsqueeze(1))
        points = torch.cat([points, corners], dim=1)
    return points


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


def test_lines_of_one_relu_worked_by_hand():
    # z in [-1, 3]: chord (3 / 4)(z + 1) above; below z itself, since 3 > 1.
    graph = read_graph(nn.Sequential(identity(1), nn.ReLU(), identity(1)), 1)
    ball = ClassificationRobustness(2.0, bounds=None).outer_ball(torch.ones(1, 1).double())
    relaxation = relax(graph, ball)
    (lines,) = relaxation.lines.values()
    values = [lines.low, lines.low_shift, lines.high, lines.high_shift]
    np.testing.assert_allclose([v.item() for v in values], [1, 0, 0.75, 0.75], atol=1e-12)
    up = torch.ones(1, 1, 1, dtype=torch.float64)
    assert crown(relaxation, up).item() == pytest.approx(-1, abs=1e-12)
    assert crown(relaxation, -up).item() == pytest.approx(-3, abs=1e-12)
    # The best slope below is 0, and gives the truth.
    assert optimised(relaxation, up).item() == pytest.approx(0, abs=1e-6)


def identity(n):
    layer = nn.Linear(n, n, bias=False)
    nn.init.eye_(layer.weight)
    return layer.requires_grad_(False)


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


def test_outer_ball_holds_the_ball_of_the_network():
    for property in (b.values[0] for b in BALLS):
        x = centers()
        inner, outer = property.ball(x), property.outer_ball(x)
        assert (outer.lower <= inner.lower.double()).all()
        assert (outer.upper >= inner.upper.double()).all()
        fixed = (torch.as_tensor(property.epsilon) == 0).expand(16)
        assert torch.equal(outer.lower[:, fixed], outer.upper[:, fixed])


# ---- the verifier ------------------------------------------------------------------------


def network(*layers, n_features):
    return Network(nn.Sequential(*layers), np.arange(layers[-1].out_features), n_features)


def linear(weight, bias):
    layer = nn.Linear(len(weight[0]), len(weight))
    layer.weight = nn.Parameter(torch.tensor(weight), requires_grad=False)
    layer.bias = nn.Parameter(torch.tensor(bias), requires_grad=False)
    return layer


def line():
    """z = (x, 1 - x) on one feature: class 0 wins above 1 / 2."""
    return network(linear([[1.0], [-1.0]], [0.0, 1.0]), n_features=1)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("property", "expected"),
    [
        # Rows 2 x - 1: 0.4 at x = 0.7.
        (ClassificationRobustness(0.19), "verified"),
        (ClassificationRobustness(0.21), "unknown"),
        (StandardRobustness(0.1, 0.11), "verified"),
        (StandardRobustness(0.1, 0.09), "unknown"),
        (LipschitzRobustness(0.1, 1.01), "verified"),
        (LipschitzRobustness(0.1, 0.99), "unknown"),
        # p = 1 / (1 + exp(-(2 x - 1))): 0.5744 at x = 0.65.
        (StrongClassificationRobustness(0.05, 0.574), "verified"),
        (StrongClassificationRobustness(0.05, 0.575), "unknown"),
        (ClassificationRobustness(0.1) & LipschitzRobustness(0.1, 1.01), "verified"),
        (ClassificationRobustness(0.1) & LipschitzRobustness(0.1, 0.99), "unknown"),
    ],
    ids=repr,
)
def test_verdicts_of_a_line_worked_by_hand(method, property, expected):
    found = decided(Bounds(method), line(), property, torch.tensor([[0.7]]), torch.tensor([0]))
    assert found.verdicts.tolist() == [expected]
    assert (found.lower >= 0).tolist() == [expected == "verified"]
    assert found.reasons[0] == (
        Reason.PROVED if expected == "verified" else Reason.BOUNDS_TOO_LOOSE
    )


def test_lower_is_the_smallest_row():
    found = decided(
        Bounds(), line(), ClassificationRobustness(0.15), torch.tensor([[0.7]]), torch.tensor([0])
    )
    assert found.lower[0] == pytest.approx(0.1, abs=1e-6)


def test_broken_reference_points_are_falsified():
    x, labels = torch.tensor([[0.7], [0.5], [0.3]]), torch.tensor([0, 0, 0])
    found = decided(Bounds(), line(), ClassificationRobustness(0.01), x, labels)
    assert found.verdicts.tolist() == [Verdict.VERIFIED, Verdict.FALSIFIED, Verdict.FALSIFIED]
    np.testing.assert_array_equal(found.counterexamples, [[np.nan], [0.5], [np.float32(0.3)]])


def test_points_that_cannot_move_are_decided_by_the_network_itself():
    x, labels = torch.tensor([[0.7], [0.3]]), torch.tensor([0, 0])
    for property in (ClassificationRobustness(0.0), ClassificationRobustness([0.0])):
        found = decided(Bounds("ibp"), line(), property, x, labels)
        assert found.verdicts.tolist() == ["verified", "falsified"]
    still = LipschitzRobustness(0.0, 1e-3)
    assert decided(Bounds(), line(), still, x, labels).verdicts.tolist() == ["verified"] * 2


def test_more_points_than_fit_in_one_chunk(monkeypatch):
    monkeypatch.setattr("skrobust.bounds._tightening.NUMBERS_AT_ONCE", 1)
    x, labels = torch.tensor([[0.7], [0.9], [0.52]]), torch.tensor([0, 0, 0])
    found = decided(Bounds(), line(), ClassificationRobustness(0.1), x, labels)
    assert found.verdicts.tolist() == ["verified", "verified", "unknown"]
    found = decided(Bounds(), line(), ClassificationRobustness(0.1), x, labels, timeout=0)
    assert set(found.reasons) == {Reason.TIME_OUT}


def test_weights_that_are_not_finite_are_refused():
    for bad in (np.nan, np.inf):
        broken = network(linear([[1.0], [bad]], [0.0, 1.0]), n_features=1)
        with pytest.raises(UnsupportedModelError):
            Bounds().encode(broken, ClassificationRobustness(0.1))


@pytest.mark.parametrize(
    "verifier", [*map(Bounds, METHODS), Exact(milp_units=0), Exact()], ids=repr
)
@pytest.mark.filterwarnings("ignore::skrobust.exceptions.AttackWarning")
def test_numbers_that_overflow_prove_nothing(verifier):
    # relu(1e200 relu(1e200 (x - 3 / 2))) is 0 on [0, 1], and too large for float64 above 3 / 2.
    layers = [nn.Linear(1, 1), nn.ReLU(), nn.Linear(1, 1), nn.ReLU(), nn.Linear(1, 2)]
    weights = [([[1e200]], [-1.5e200]), ([[1e200]], [0.0]), ([[-1.0], [0.0]], [1.0, 0.0])]
    for layer, (weight, bias) in zip(layers[::2], weights, strict=True):
        layer.weight = nn.Parameter(torch.tensor(weight, dtype=torch.float64), False)
        layer.bias = nn.Parameter(torch.tensor(bias, dtype=torch.float64), False)
    net = Network(nn.Sequential(*layers), np.arange(2), 1)
    x, labels = torch.tensor([[0.5]], dtype=torch.float64), torch.tensor([0])
    for property in (
        ClassificationRobustness(2.0, bounds=None),
        StandardRobustness(2.0, 1.0, bounds=None),
        LipschitzRobustness(2.0, 1.0, bounds=None),
        StrongClassificationRobustness(2.0, 0.6, bounds=None),
    ):
        found = decided(verifier, net, property, x, labels, timeout=2.0)
        assert found.verdicts[0] != "verified"
        assert found.lower[0] < 0


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="Got method='exact', but expected one of 'ibp'"):
        Bounds("exact").check()
    with pytest.raises(ValueError, match="Got n_steps=0"):
        Bounds("alpha-crown", n_steps=0).check()
    x, labels = torch.tensor([[0.7]]), torch.tensor([0])
    with pytest.raises(UnsupportedPropertyError, match="probabilities"):
        decided(Bounds(), line(), StandardRobustness(0.1, output="probabilities"), x, labels)
    sigmoid = network(linear([[1.0]], [0.0]), nn.Sigmoid(), linear([[1.0], [2.0]], [0.0, 0.0]),
                      n_features=1)  # fmt: skip
    with pytest.raises(UnsupportedModelError, match="sigmoid"):
        decided(Bounds(), sigmoid, ClassificationRobustness(0.1), x, labels)


def test_custom_rows_with_a_distance_are_no_lipschitz_rows():
    # z_0 + d - 0.65 at x = 0.7: 0.05 at the center, 0.05 at x = 0.65 too; negative for 2 z_0.
    x = torch.tensor([[0.7]])
    good = LinearRobustness(([[1.0, 0.0]], [1.01], [-0.65]), epsilon=0.2)
    bad = LinearRobustness(([[1.0, 0.0]], [0.5], [-0.65]), epsilon=0.2)
    verifier = Bounds()
    assert decided(verifier, line(), good, x).verdicts.tolist() == ["verified"]
    assert decided(verifier, line(), bad, x).verdicts.tolist() == ["unknown"]


def test_slopes_prove_near_and_rows_prove_far():
    # |z| has slope 1 behind a kink that only the outer part of the ball reaches: z = relu(x - 1)
    # times 3, from x_hat = 0.5 with epsilon 0.8: a change of 0.9 at d = 0.8, a slope of 1.125.
    kinked = network(linear([[1.0]], [-1.0]), nn.ReLU(), linear([[3.0], [0.0]], [0.0, 0.0]),
                     n_features=1)  # fmt: skip
    x = torch.tensor([[0.5]])
    for lipschitz, expected in ((1.13, "verified"), (1.12, "unknown")):
        property = LipschitzRobustness(0.8, lipschitz, bounds=None)
        assert decided(Bounds(), kinked, property, x).verdicts.tolist() == [expected]


def test_strong_classification_uses_all_gaps():
    # Gaps 2 and 6: p = 1 / (1 + e^-2 + e^-6) = 0.879; the sufficient rows ask for both gaps
    # to be at least log(2 p / (1 - p)) = 2.67.
    fixed = network(linear([[0.0]] * 3, [6.0, 4.0, 0.0]), n_features=1)
    x, labels = torch.tensor([[0.5]]), torch.tensor([0])
    for eta, expected in ((0.878, "verified"), (0.880, "falsified")):
        property = StrongClassificationRobustness(0.1, eta)
        assert decided(Bounds(), fixed, property, x, labels).verdicts.tolist() == [expected]


def test_a_query_is_indexed_as_its_balls(digits, digits_model):
    from skrobust.networks import as_network

    net = as_network(digits_model)
    x, labels = net.rows(digits[1][:6]), net.encode(digits[3][:6])
    state = Bounds().encode(net, LipschitzRobustness(0.02, 5.0))
    query = make_query(state, x, labels)
    part = query[torch.tensor([4, 1])]
    assert isinstance(part.ball, Ball)
    assert torch.equal(part.ball.center, x[[4, 1]].double())
    assert torch.equal(part.rows.b, query.rows.b[[4, 1]])
    assert query.anchored.all()
    assert torch.equal(part.beyond(torch.ones(2).double()).nearest, torch.ones(2).double())
