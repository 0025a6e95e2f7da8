"""Marabou against Exact, by hand, and with a process in its place that fails in every way."""

import itertools
import math
import subprocess
import time

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from joblib import Parallel, delayed
from torch import nn

from skrobust.attacks import PGD
from skrobust.exceptions import (
    SolverDisagreementWarning,
    UnsupportedModelError,
    UnsupportedPropertyError,
)
from skrobust.networks import Network
from skrobust.properties import (
    ClassificationRobustness,
    LinearRobustness,
    LipschitzRobustness,
    StandardRobustness,
    StrongClassificationRobustness,
)
from skrobust.verification import Exact, Marabou, Reason, _marabou, _marabou_process
from tests.verification._tensors import decided

CR, SR, LR = ClassificationRobustness, StandardRobustness, LipschitzRobustness
SCR = StrongClassificationRobustness
FORMS = ["auto", "disjunction", "rows"]

needs_marabou = pytest.mark.skipif(
    _marabou.find_spec("maraboupy") is None, reason="maraboupy is not installed"
)


def perceptron(seed, sizes=(3, 6, 5, 3), activation=nn.ReLU, scale=1.5):
    generator = torch.Generator().manual_seed(seed)
    layers = []
    for before, after in itertools.pairwise(sizes):
        layer = nn.Linear(before, after)
        weight = scale * torch.randn(after, before, generator=generator) / math.sqrt(before)
        layer.weight = nn.Parameter(weight, requires_grad=False)
        layer.bias = nn.Parameter(
            0.3 * torch.randn(after, generator=generator), requires_grad=False
        )
        layers += [layer, activation()]
    return Network(nn.Sequential(*layers[:-1]), np.arange(sizes[-1]), sizes[0])


def points(n=2, seed=0, n_features=3):
    return torch.rand(n, n_features, generator=torch.Generator().manual_seed(seed))


def assert_counterexamples(net, property, x, labels, found):
    broken = found.verdicts == "falsified"
    assert np.isnan(found.counterexamples[~broken]).all()
    at = torch.as_tensor(found.counterexamples[broken])
    x, labels = x[broken], labels[broken]
    assert at.dtype == x.dtype
    ball = property.ball(x)
    assert ((at >= ball.lower) & (at <= ball.upper)).all()
    assert not property.conclusion(net(x), labels).holds(net(at), ball.distance(at)).any()


# ---- what Marabou says -------------------------------------------------------------------

PROPERTIES = [
    *[CR(epsilon) for epsilon in (0.05, 0.15, 0.3)],
    *[SR(0.2, delta) for delta in (0.15, 0.4, 0.8)],
    *[LR(0.2, lipschitz) for lipschitz in (0.7, 1.5, 3.0)],
    *[SCR(0.1, eta) for eta in (0.3, 0.4, 0.6)],
    CR([0.0, 0.2, 0.3]),
]


@needs_marabou
@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    property=st.sampled_from(PROPERTIES),
    form=st.sampled_from(FORMS),
    activation=st.sampled_from([nn.ReLU, nn.LeakyReLU, nn.Hardtanh]),
)
def test_agrees_with_exact(seed, property, form, activation):
    net, x = perceptron(seed, activation=activation), points(seed=seed)
    labels = net(x).argmax(dim=1)
    found = decided(Marabou(form), net, property, x, labels, timeout=10)
    other = decided(Exact(), net, property, x, labels, timeout=10)
    pairs = set(zip(found.verdicts, other.verdicts, strict=True))
    assert not pairs & {("verified", "falsified"), ("falsified", "verified")}
    # The row of SCR is concave, and what holds by very little may stay open.
    if not isinstance(property, SCR):
        for k in np.flatnonzero(found.verdicts == "unknown"):
            assert found.reasons[k] == Reason.SPURIOUS
    assert_counterexamples(net, property, x, labels, found)


@needs_marabou
@pytest.mark.parametrize("form", FORMS)
def test_agrees_where_bounds_are_loose(form):
    net, x = perceptron(4, sizes=(3, 20, 20, 4)), points(6, 4)
    labels = net(x).argmax(dim=1)
    property = CR(0.2)
    found = decided(Marabou(form), net, property, x, labels, timeout=10)
    assert found.verdicts.tolist() == decided(Exact(), net, property, x, labels).verdicts.tolist()
    assert set(found.verdicts) == {"verified", "falsified"}
    assert_counterexamples(net, property, x, labels, found)


class Peak(nn.Module):
    """Logits (height, f(x)) with a piecewise linear f whose maximum is known."""

    def __init__(self, height, function, dtype=torch.float32):
        super().__init__()
        self.height = nn.Parameter(torch.tensor(height, dtype=dtype), requires_grad=False)
        self.function = function

    def forward(self, x):
        peak = self.function(x)
        return torch.cat([0 * peak + self.height, peak], dim=1)


def ramp(x):
    """relu(u) - relu(u - 1 / 10) with u = x0 - x1: 1 / 10 at most, which bounds do not see."""
    u = x[:, :1] - x[:, 1:2]
    return nn.functional.relu(u) - nn.functional.relu(u - 0.1)


def tent(x):
    """1 - 2 |x0 - 1/2| - |x1 - 1/2|: 1 in the middle."""
    return 1 - 2 * (x[:, :1] - 0.5).abs() - (x[:, 1:2] - 0.5).abs()


def pooled(x):
    """The same, through a max-pool: |z| = max(z, -z)."""
    z = x[:, :2] - 0.5
    windows = torch.cat([z.unsqueeze(2), -z.unsqueeze(2)], dim=2)
    sizes = nn.functional.max_pool1d(windows, 2).flatten(1)
    return 1 - 2 * sizes[:, :1] - sizes[:, 1:]


def clamped(x):
    """The same in the box [0.4, 0.6], with a roof at 0.9 and no floor in reach."""
    return tent(x).clamp(-5.0, 0.9)


@needs_marabou
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("function", "top"),
    [(ramp, 0.1), (tent, 0.7), (pooled, 0.7), (clamped, 0.7)],
    ids=["ramp", "tent", "pooled", "clamped"],
)
def test_by_hand(function, top, form):
    # At (0.2, 0.4) with epsilon 0.15 the nearest to the middle is (0.35, 0.5), where it is 0.7.
    x, labels = torch.tensor([[0.2, 0.4]]), torch.tensor([0])
    for height, expected in ((top + 0.002, "verified"), (top - 0.002, "falsified")):
        net = Network(Peak(height, function), np.arange(2), 2)
        found = decided(Marabou(form), net, CR(0.15), x, labels, timeout=10)
        assert found.verdicts.tolist() == [expected]
        assert_counterexamples(net, CR(0.15), x, labels, found)


@needs_marabou
def test_a_clamp_cuts_what_would_break_the_row():
    x, labels = torch.tensor([[0.5, 0.45]]), torch.tensor([0])
    for height, expected in ((0.902, "verified"), (0.898, "falsified")):
        net = Network(Peak(height, clamped), np.arange(2), 2)
        # The reference point itself is under the roof, at 0.95.
        property = LinearRobustness(([[1.0, -1.0]], [0.0]), 0.1)
        found = decided(Marabou(), net, property, x, labels, timeout=10)
        assert found.verdicts.tolist() == [expected]


@needs_marabou
def test_slopes_of_kinks_at_the_reference_point():
    net = Network(Peak(0.0, lambda x: (x - 0.5).abs()), np.arange(2), 1)
    x = torch.tensor([[0.5], [0.45]])
    for lipschitz, expected in ((1.01, "verified"), (0.99, "falsified")):
        found = decided(Marabou(), net, LR(0.2, lipschitz), x, timeout=10)
        assert found.verdicts.tolist() == [expected] * 2


@needs_marabou
def test_strong_classification_of_two_classes_is_decided():
    # At the top of the ramp the probability of class 0 is 1 / (1 + exp(0.1 - height)).
    x, labels = torch.tensor([[0.45, 0.45]]), torch.tensor([0])
    net = Network(Peak(1.0, ramp), np.arange(2), 2)
    least = 1 / (1 + math.exp(0.1 - 1.0))
    for eta, expected in ((least - 0.002, "verified"), (least + 0.002, "falsified")):
        found = decided(Marabou(), net, SCR(0.1, eta), x, labels, timeout=10)
        assert found.verdicts.tolist() == [expected]


@needs_marabou
def test_inputs_that_cannot_move_are_no_variables():
    # Only the second input moves: at best 1 - 2 * 0.1 - 0 = 0.8.
    x, labels = torch.tensor([[0.4, 0.4]]), torch.tensor([0])
    for property in (
        CR([0.0, 0.2]),
        CR(0.2, bounds=([np.float32(0.4), 0.0], [np.float32(0.4), 1.0])),
    ):
        for height, expected in ((0.802, "verified"), (0.798, "falsified")):
            net = Network(Peak(height, tent), np.arange(2), 2)
            found = decided(Marabou(), net, property, x, labels, timeout=10)
            assert found.verdicts.tolist() == [expected]
            moved = found.counterexamples - x.numpy()
            assert np.isnan(moved).all() or moved[0, 0] == 0


@needs_marabou
@pytest.mark.parametrize("width", [1e-3, 1e-5, 1e-6, 1e-7])
def test_narrow_inputs_are_not_taken_as_fixed(width):
    # y = |k (x - 1/2)| with k = 1 / width reaches 1/2 within width / 2. Marabou 2.0 alone calls
    # it impossible for widths below 1e-5, since it takes x as fixed.
    def steep(x):
        return ((x - 0.5) / width).abs()

    x, labels = torch.tensor([[0.5]], dtype=torch.float64), torch.tensor([0])
    for height, expected in ((0.4, "falsified"), (0.6, "verified")):
        net = Network(Peak(height, steep, torch.float64), np.arange(2), 1)
        for form in FORMS:
            found = decided(Marabou(form), net, CR(width / 2), x, labels, timeout=10)
            assert found.verdicts.tolist() == [expected]


@needs_marabou
def test_units_that_are_nearly_decided_are_sound():
    # relu(x - 0.599999) rises by 1e-6 only, but the next layer sees 1e6 times that.
    def late(x):
        return 1e6 * nn.functional.relu(x - 0.599999)

    x, labels = torch.tensor([[0.5]], dtype=torch.float64), torch.tensor([0])
    for height, expected in ((0.9, "falsified"), (1.1, "verified")):
        net = Network(Peak(height, late, torch.float64), np.arange(2), 1)
        found = decided(Marabou(), net, CR(0.1), x, labels, timeout=10)
        assert found.verdicts.tolist() == [expected]


@needs_marabou
def test_nothing_is_printed(capfd):
    net, x = perceptron(4, sizes=(3, 20, 20, 4)), points(2, 4)
    decided(Marabou(), net, CR(0.2), x, net(x).argmax(dim=1), timeout=10)
    assert capfd.readouterr() == ("", "")


@needs_marabou
@pytest.mark.slow
def test_works_inside_a_worker_of_joblib():
    net, x = perceptron(4, sizes=(3, 20, 20, 4)), points(4, 4)
    labels = net(x).argmax(dim=1)
    expected = decided(Marabou(), net, CR(0.2), x, labels).verdicts.tolist()
    found = Parallel(n_jobs=2, backend="loky")(
        delayed(decided)(Marabou(), net, CR(0.2), x, labels) for _ in range(2)
    )
    assert [part.verdicts.tolist() for part in found] == [expected] * 2


# ---- when it fails -----------------------------------------------------------------------

PROGRAM = """
import os, signal, sys, time
from multiprocessing.connection import Connection

connection = Connection(int(sys.argv[1]))
connection.send(("ready", ""))
n_tasks = 0
while True:
    problem, rows, limit, seconds = connection.recv()
    n_tasks += 1
    {body}
"""


@pytest.fixture
def replaced(monkeypatch, tmp_path):
    """Put a program with another body in the place of the worker; return its processes."""
    started = []

    class Popen(subprocess.Popen):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            started.append(self)

    def replace(body):
        file = tmp_path / "worker.py"
        file.write_text(PROGRAM.format(body=body), encoding="utf-8")
        monkeypatch.setattr(_marabou_process, "_WORKER", file)
        monkeypatch.setattr(_marabou, "find_spec", lambda name: name)
        monkeypatch.setattr(_marabou_process.subprocess, "Popen", Popen)
        return started

    return replace


def hard(height=0.11):
    """Return a network and two points that bounds do not decide, around which nothing breaks."""
    x = torch.tensor([[0.5, 0.45], [0.55, 0.5]])
    return Network(Peak(height, ramp), np.arange(2), 2), x, torch.tensor([0, 0])


def soft():
    """Return the same with a lower limit: something breaks."""
    return hard(0.09)


BODIES = {
    "os.kill(os.getpid(), signal.SIGKILL)": Reason.SOLVER_CRASH,
    "os.kill(os.getpid(), signal.SIGSEGV)": Reason.SOLVER_CRASH,
    "sys.exit(0)": Reason.SOLVER_CRASH,
    "connection.send(('ERROR', []))": Reason.SOLVER_ERROR,
    "connection.send(('UNKNOWN', []))": Reason.SOLVER_ERROR,
    "connection.send(('TIMEOUT', []))": Reason.TIME_OUT,
    "connection.send(('sat', [0.0] * problem['n_inputs']))": Reason.SPURIOUS,
    "connection.send(('sat', [float('nan')] * problem['n_inputs']))": Reason.SPURIOUS,
}


@pytest.mark.parametrize("form", ["disjunction", "rows"])
@pytest.mark.parametrize(("body", "reason"), BODIES.items(), ids=BODIES)
def test_failures_are_told_apart(body, reason, form, replaced):
    started = replaced(body)
    net, x, labels = hard()
    found = decided(Marabou(form), net, CR(0.1), x, labels, timeout=20)
    assert found.verdicts.tolist() == ["unknown"] * 2
    assert [str(part) for part in found.reasons] == [reason] * 2
    assert started
    assert all(process.poll() is not None for process in started)


@pytest.mark.parametrize("body", ["time.sleep(60)", "\n    while True: pass"])
def test_what_hangs_is_killed_at_the_limit(body, replaced):
    started = replaced(body)
    net, x, labels = hard()
    begun = time.perf_counter()
    found = decided(Marabou(), net, CR(0.1), x, labels, timeout=0.5)
    assert 1.0 <= time.perf_counter() - begun < 10
    assert (found.seconds >= 0.5).all()
    assert [str(part) for part in found.reasons] == [Reason.TIME_OUT] * 2
    assert all(process.poll() is not None for process in started)


def test_a_worker_that_never_starts_is_killed_at_the_limit(replaced, monkeypatch, tmp_path):
    replaced("")
    (tmp_path / "worker.py").write_text("import time; time.sleep(60)", encoding="utf-8")
    net, x, labels = hard()
    found = decided(Marabou(), net, CR(0.1), x[:1], labels[:1], timeout=0.5)
    assert found.reasons[0] == Reason.TIME_OUT


def test_a_dead_process_is_replaced_for_the_next_point(replaced, tmp_path):
    mark = tmp_path / "died"
    started = replaced(
        f"if not os.path.exists({str(mark)!r}):\n"
        f"        open({str(mark)!r}, 'w').close()\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "    connection.send(('unsat', []))"
    )
    net, x, labels = hard()
    found = decided(Marabou("disjunction"), net, CR(0.1), x, labels, timeout=20)
    assert found.verdicts.tolist() == ["unknown", "verified"]
    assert found.reasons[0] == Reason.SOLVER_CRASH
    assert len(started) == 2


def test_one_process_serves_all_points(replaced):
    started = replaced("connection.send(('unsat', []))")
    net, x, labels = hard()
    found = decided(Marabou("rows"), net, CR(0.1), x, labels, timeout=20)
    assert found.verdicts.tolist() == ["verified"] * 2
    assert len(started) == 1


def test_a_false_proof_is_reported(replaced):
    replaced("connection.send(('unsat', []))")
    net, x, labels = soft()
    x = torch.cat([x, torch.tensor([[0.1, 0.9]])])
    labels = torch.tensor([0, 0, 0])
    with pytest.warns(SolverDisagreementWarning, match="Point [01] of the 3 .* claims a proof"):
        found = decided(
            Marabou(),
            net,
            CR(0.1),
            x,
            labels,
            timeout=20,
            generator=torch.Generator().manual_seed(0),
        )
    assert found.verdicts.tolist() == ["falsified", "falsified", "verified"]
    assert [str(part) for part in found.reasons[:2]] == [Reason.DISAGREEMENT] * 2
    assert all("Marabou" in note for note in found.notes[:2])
    assert_counterexamples(net, CR(0.1), x, labels, found)


def test_a_spurious_point_is_repaired(replaced):
    # The process names the reference point, from which a descent finds the top.
    replaced("connection.send(('sat', [0.0] * problem['n_inputs']))")
    net, x, labels = (part[:1] if torch.is_tensor(part) else part for part in soft())
    found = decided(Marabou(), net, CR(0.1), x, labels, timeout=20)
    assert found.verdicts.tolist() == ["falsified"]
    assert_counterexamples(net, CR(0.1), x, labels, found)


def test_slices_of_time_double(replaced):
    # The disjunction never ends; single rows do, but only with a second.
    started = replaced(
        "if len(rows) > 1 or seconds < 0.6:\n        time.sleep(60)\n"
        "    connection.send(('unsat', []))"
    )
    net, x = Network(Two(), np.arange(3), 2), torch.tensor([[0.5, 0.5]])
    found = decided(Marabou(), net, CR(0.1), x, torch.tensor([0]), timeout=20)
    assert found.verdicts.tolist() == ["verified"]
    assert 2.0 < found.seconds[0] < 12
    assert len(started) > 3


class Two(nn.Module):
    """Two rows that bounds leave open."""

    def forward(self, x):
        top = ramp(x)
        return torch.cat([0 * top + 0.11, top, top - 0.001], dim=1)


def test_no_row_left_needs_no_process(replaced):
    started = replaced("sys.exit(1)")
    net, x, labels = hard()
    found = decided(Marabou(), net, CR(0.01), x, labels)
    assert found.verdicts.tolist() == ["verified"] * 2
    assert started == []


def test_no_points_need_no_process(replaced):
    replaced("sys.exit(1)")
    net, x, labels = hard()
    assert len(decided(Marabou(), net, CR(0.1), x[:0], labels[:0])) == 0


# ---- what is refused ---------------------------------------------------------------------


def test_without_maraboupy_the_error_says_what_to_do(monkeypatch):
    monkeypatch.setattr(_marabou, "find_spec", lambda name: None)
    net, x, labels = hard()
    with pytest.raises(ImportError, match=r"pip install maraboupy.* Exact does the same job"):
        decided(Marabou(), net, CR(0.1), x, labels)


def test_a_broken_maraboupy_gives_the_same_error(replaced, tmp_path):
    started = replaced("")
    (tmp_path / "worker.py").write_text(
        PROGRAM.replace('("ready", "")', '("missing", "libgfortran.so.5 is missing.")').format(
            body=""
        ),
        encoding="utf-8",
    )
    net, x, labels = hard()
    with pytest.raises(ImportError, match=r"libgfortran.so.5 is missing\. .*pip install"):
        decided(Marabou(), net, CR(0.1), x, labels)
    assert all(process.poll() is not None for process in started)


def test_what_cannot_be_encoded_is_refused_first(replaced):
    started = replaced("sys.exit(1)")
    net, x, labels = hard()
    with pytest.raises(UnsupportedPropertyError, match="Got a property with norm='l2'"):
        decided(Marabou(), net, CR(0.1, norm="l2"), x, labels)
    with pytest.raises(UnsupportedModelError, match="Sigmoid"):
        decided(
            Marabou(),
            Network(nn.Sequential(nn.Linear(2, 2), nn.Sigmoid()), np.arange(2), 2),
            CR(0.1),
            x,
            labels,
        )
    broken = nn.Linear(2, 2).requires_grad_(False)
    broken.weight[0, 0] = torch.nan
    with pytest.raises(UnsupportedModelError, match="NaN"):
        decided(Marabou(), Network(broken, np.arange(2), 2), CR(0.1), x, labels)
    assert started == []


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="Got form='both'"):
        Marabou("both").check()
    with pytest.raises(TypeError, match="Got attack='pgd'"):
        Marabou(attack="pgd").check()
    assert Marabou(attack=PGD(3)).check().attack.n_steps == 3
