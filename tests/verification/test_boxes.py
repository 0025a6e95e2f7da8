"""Branch and bound over inputs: against fine grids, by hand, and within its limits."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from skrobust.attacks import UniformSampling
from skrobust.bounds import relax
from skrobust.graphs import read_graph
from skrobust.networks import Network
from skrobust.properties import (
    ClassificationRobustness,
    StandardRobustness,
    StrongClassificationRobustness,
)
from skrobust.verification import Exact, Reason
from skrobust.verification._base import Stopwatch
from skrobust.verification._boxes import branch_inputs
from skrobust.verification._branch import Problem
from tests.verification._tensors import decided


def module(seed, kind="relu", n=2):
    generator = torch.Generator().manual_seed(seed)
    units = {
        "relu": nn.ReLU(),
        "clamp": nn.Hardtanh(-0.5, 0.5),
        "pool": nn.Sequential(nn.Unflatten(1, (1, 8)), nn.MaxPool1d(2), nn.Flatten()),
    }[kind]
    width = 4 if kind == "pool" else 8
    net = nn.Sequential(nn.Linear(n, 8), units, nn.Linear(width, 8), units, nn.Linear(width, 3))
    with torch.no_grad():
        for part in net.parameters():
            part.copy_(torch.randn(part.shape, generator=generator))
    return net.requires_grad_(False)


def problem(net, shifts, rows=((1.0, -1.0, 0.0),), epsilon=0.4, margin=None):
    graph = read_graph(net.double(), 2)
    x = torch.full((1, 2), 0.5, dtype=torch.float64)
    root = relax(graph, ClassificationRobustness(epsilon, bounds=None).outer_ball(x))
    rows = torch.tensor(rows, dtype=torch.float64).expand(len(shifts), -1, -1)
    shift = torch.tensor(shifts, dtype=torch.float64)[:, None].expand(-1, rows.shape[1])
    margin = margin or (lambda lower, which: lower.amin(dim=1))
    return Problem(root, rows, shift, None, None, margin)


def grid(ball, count=201):
    sides = zip(ball.lower[0].tolist(), ball.upper[0].tolist(), strict=True)
    lines = [torch.linspace(low, high, count, dtype=torch.float64) for low, high in sides]
    return torch.cartesian_prod(*lines)


def run(asked, watch=None, visit=lambda points: False, **options):
    options = {"batch_size": None, "memory_limit": 2**24} | options
    return branch_inputs(asked, watch=watch or Stopwatch(), visit=visit, **options)


@pytest.mark.parametrize("kind", ["relu", "clamp", "pool"])
@settings(max_examples=6, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**16), batch_size=st.sampled_from([None, 1, 7]))
def test_what_holds_by_some_room_is_proved_and_nothing_else(kind, seed, batch_size):
    net = module(seed, kind)
    asked = problem(net, [0.0])
    values = asked.root.graph(grid(asked.root.ball)) @ asked.rows[0, 0]
    room = 0.1 * (values.max() - values.min()).item() + 1e-3
    asked = problem(net, [room - values.min().item(), 2 * room - values.min().item()])
    status, lower = run(asked, batch_size=batch_size)
    assert status == "proved" and (lower >= 0).all()

    found = []

    def visit(points):
        ball = asked.root.ball
        assert ((points >= ball.lower) & (points <= ball.upper)).all()
        found.append((asked.root.graph(points) @ asked.rows[0, 0]).amin().item())
        return found[-1] < values.min().item() + room

    asked = problem(net, [-room - values.min().item()])
    status, lower = run(asked, visit=visit)
    assert status == "end" and lower[0] <= -room + 1e-9
    # Without a visitor that ends it, a limit does, and the bound is one of all points.
    status, lower = run(asked, watch=Stopwatch(max_domains=300))
    assert status in ("limit", "stuck")
    assert lower[0] <= -room + 1e-9 and lower[0] > -np.inf


def test_work_is_counted_and_its_limit_kept():
    asked, watch = problem(module(3), [-1e3]), Stopwatch(max_domains=37)
    assert run(asked, watch)[0] == "limit"
    assert watch.n_domains == 37
    assert run(asked, Stopwatch(0.0))[0] == "limit"


def test_a_box_without_open_units_is_not_halved_in_vain():
    # One linear piece: its bound is the minimum, so that halves say nothing new.
    net = nn.Linear(2, 3).requires_grad_(False)
    watch = Stopwatch()
    status, lower = run(problem(net, [-1e3]), watch)
    assert status == "stuck" and watch.n_domains == 1
    assert lower[0] < -900


def test_rows_that_are_asked_jointly_are_halved_further():
    # At 0 the first row is least, at 1 the second; their sum is 1 everywhere.
    net = nn.Linear(2, 3, bias=False).requires_grad_(False)
    net.weight.copy_(torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 0.0]]))
    rows = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0))
    asked = problem(net, [0.0], rows, margin=lambda lower, which: lower.sum(dim=1) + 0.1)
    watch = Stopwatch()
    status, lower = run(asked, watch)
    assert status == "proved" and lower[0] >= 0 and watch.n_domains > 1


PROPERTIES = [
    ClassificationRobustness(0.15),
    ClassificationRobustness([0.3, 0.0]),
    StandardRobustness(0.1, 1.0),
    StrongClassificationRobustness(0.1, 0.2),
]


@pytest.mark.parametrize("property", PROPERTIES, ids=repr)
@pytest.mark.parametrize("kind", ["relu", "clamp", "pool"])
def test_exact_agrees_with_grids_and_with_itself(kind, property):
    generator = torch.Generator().manual_seed(5)
    for seed in range(3):
        net = Network(module(seed, kind).float(), np.arange(3), 2)
        x = torch.rand(3, 2, generator=generator)
        labels = net(x).argmax(dim=1)
        verifier = Exact(UniformSampling(1), max_domains=20_000)
        found = decided(verifier, net, property, x, labels)
        ball = property.ball(x)
        for k in range(3):
            points = grid(property.outer_ball(x[k : k + 1]), 81).float()
            points = points.clamp(ball.lower[k], ball.upper[k])
            distance = ball[k : k + 1].distance(points)
            reference, label = net(x[k : k + 1]), labels[k : k + 1]
            conclusion = property.conclusion(
                reference.expand(len(points), -1), label.expand(len(points))
            )
            holds = bool(conclusion.holds(net(points), distance).all())
            if found.verdicts[k] == "verified":
                assert holds
            elif found.verdicts[k] == "unknown":
                assert found.reasons[k] in (Reason.SPURIOUS, Reason.INCOMPLETE, Reason.WORK_LIMIT)
            if not holds:
                assert found.verdicts[k] == "falsified"
        by_units = decided(
            Exact(UniformSampling(1), split_inputs=0, max_domains=2000), net, property, x, labels
        )
        pairs = set(zip(found.verdicts.tolist(), by_units.verdicts.tolist(), strict=True))
        assert ("verified", "falsified") not in pairs and ("falsified", "verified") not in pairs


def test_few_inputs_are_split_and_many_are_not(monkeypatch):
    calls = []
    kept = branch_inputs

    def counted(asked, **options):
        calls.append(asked)
        return kept(asked, **options)

    monkeypatch.setattr("skrobust.verification._exact.branch_inputs", counted)
    net = Network(module(1, n=12).float(), np.arange(3), 12)
    x = torch.full((1, 12), 0.5)
    labels = net(x).argmax(dim=1)
    for n_moving, expected in ((8, True), (9, False)):
        calls.clear()
        epsilon = np.where(np.arange(12) < n_moving, 0.5, 0.0)
        verifier = Exact(UniformSampling(1), max_domains=50)
        encoding = verifier.encode(net, ClassificationRobustness(epsilon), 12)
        verifier.search(encoding, x, labels)
        assert bool(calls) is expected
