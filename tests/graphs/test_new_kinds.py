"""A new kind of node: each operation treats it by its own rules, or refuses it by name."""

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.overrides import handle_torch_function, has_torch_function

from skrobust import TorchClassifier, pointwise_robustness
from skrobust.bounds import (
    Chords,
    Lines,
    bound_rows,
    chords_of,
    image,
    lines_of,
    norm_product,
    rounding_terms,
    rounding_weight,
    splits_at_zero,
    steepest,
    worth_tightening,
)
from skrobust.exceptions import UnsupportedModelError
from skrobust.graphs import Node, OnnxWriter, PiecewiseNode, Relu, read_graph, reads, write
from skrobust.networks import Network
from skrobust.properties import ClassificationRobustness, LipschitzRobustness
from skrobust.training import CertifiedTraining, TrainingStep
from skrobust.verification import Bounds, Exact, LipschitzBounds, lipschitz_bound
from tests.verification._tensors import decided

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, eq=False, kw_only=True)
class Tripled(PiecewiseNode):
    """y = 3 relu(z): steeper than all that the package knows."""

    def apply(self, z):
        return 3 * torch.relu(z)


@dataclass(frozen=True, eq=False, kw_only=True)
class Unruled(PiecewiseNode):
    """The same function, without any rule."""

    def apply(self, z):
        return 3 * torch.relu(z)


def tripled(x):
    if has_torch_function((x,)):
        return handle_torch_function(tripled, (x,), x)
    return 3 * torch.relu(x)


def unruled(x):
    if has_torch_function((x,)):
        return handle_torch_function(unruled, (x,), x)
    return 3 * torch.relu(x)


@reads("tripled", "unruled")
def read_both(tracer, name, func, args, kwargs, output):
    kind = Tripled if name == "tripled" else Unruled
    return kind(inputs=(tracer.at(args[0]),), shape=tracer.shape(output), path=tracer.label)


@image.register(Tripled)
def image_of_tripled(node, lower, upper):
    return node.apply(lower), node.apply(upper)


@worth_tightening.register(Tripled)
def is_open(node, lower, upper):
    return (lower < 0) & (upper > 0)


@lines_of.register(Tripled)
def lines_of_tripled(node, lower, upper):
    opened, zero = is_open(node, lower, upper), torch.zeros_like(lower)
    chord = 3 * upper / torch.where(opened, upper - lower, 1.0)
    piece = 3.0 * (lower >= 0)
    return Lines(
        low=torch.where(opened, 3.0 * (upper > -lower), piece),
        low_shift=zero,
        high=torch.where(opened, chord, piece),
        high_shift=torch.where(opened, -chord * lower, zero),
        open=opened,
        base=zero,
        gain=3 + zero,
        convex=torch.tensor(True),
    )


@chords_of.register(Tripled)
def chords_of_tripled(node, known, ball, center):
    return Chords(3.0 * (ball[0] >= 0), 3.0 * (ball[1] > 0))


@splits_at_zero.register(Tripled)
def tripled_splits(node):
    return True


@steepest.register(Tripled)
def steepest_of_tripled(node, norm):
    return 3.0


@rounding_terms.register(Tripled)
def terms_of_tripled(node):
    return 8


@rounding_weight.register(Tripled)
def weight_of_tripled(node, lower, upper):
    return 16 * torch.maximum(-lower, upper)


class Toy(nn.Module):
    def __init__(self, function, seed=0):
        super().__init__()
        torch.manual_seed(seed)
        self.first, self.last = nn.Linear(4, 6), nn.Linear(6, 3)
        self.function = function

    def forward(self, x):
        return self.last(self.function(self.first(x)))


def toy(function):
    with torch.random.fork_rng():
        return Toy(function).eval().requires_grad_(False)


def known():
    """The same network of kinds that are known."""
    module = toy(tripled)
    module.function = lambda x: 3 * torch.relu(x)
    return module


X = np.random.default_rng(0).random((5, 4)).astype(np.float32)
LABELS = toy(tripled)(torch.as_tensor(X)).argmax(dim=1)


def rows_and_ball(graph, epsilon=0.1):
    property = ClassificationRobustness(epsilon)
    x = torch.as_tensor(X)
    return property.conclusion(graph(x), LABELS).sufficient(), property.outer_ball(x)


# ---- with rules --------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["ibp", "crown", "alpha-crown"])
def test_bounds_are_those_of_the_same_network_of_known_kinds(method):
    lower = []
    for module in (toy(tripled), known()):
        graph = read_graph(module, 4)
        rows, ball = rows_and_ball(graph)
        lower.append(bound_rows(graph, ball, rows, method))
    assert "Tripled" in repr(read_graph(toy(tripled), 4))
    torch.testing.assert_close(*lower, rtol=0, atol=1e-3 if method == "alpha-crown" else 1e-9)


def test_lipschitz_constants_know_its_slope():
    for norm in ("linf", "l2"):
        by_rule, by_parts = (
            lipschitz_bound(TorchClassifier(module, [0, 1, 2]), norm=norm, X=X)
            for module in (toy(tripled), known())
        )
        assert by_rule == pytest.approx(by_parts, rel=1e-6)
        local = (
            lipschitz_bound(
                TorchClassifier(module, [0, 1, 2]), norm=norm, X=X, method="local", epsilon=0.1
            )
            for module in (toy(tripled), known())
        )
        # Its chords are bounded more coarsely than those of ReLU.
        coarse, fine = local
        assert (coarse >= fine - 1e-9).all() and (coarse <= by_rule).all()


class One(nn.Module):
    """y = 3 relu(x), and a second output of 0."""

    def __init__(self):
        super().__init__()
        self.last = nn.Linear(1, 2, bias=False)
        self.last.weight = nn.Parameter(torch.tensor([[1.0], [0.0]]))

    def forward(self, x):
        return self.last(tripled(x))


def test_one_unit_of_slope_three_has_the_constant_three():
    # By guessing it was once given the "proved" global bound 1.
    for norm in ("linf", "l2"):
        assert norm_product(read_graph(One(), 1), norm) == pytest.approx(3, rel=1e-8)


def test_training_bounds_it_with_gradients():
    for method in ("ibp", "crown-ibp"):
        losses = []
        for module in (toy(tripled), known()):
            module.requires_grad_(True)
            loss = CertifiedTraining(method, ramp_epochs=4).loss(None, step(module))[0]
            loss.backward()
            losses.append((loss.detach(), module.first.weight.grad))
        torch.testing.assert_close(*losses)


def step(module):
    x = torch.as_tensor(X)
    property = ClassificationRobustness(0.1)
    return TrainingStep(module, nn.CrossEntropyLoss(), x, LABELS, property, 1)


@pytest.mark.parametrize("epsilon", [0.02, 0.1, 0.3])
def test_exact_decides_it_rightly_or_refuses_it_by_name(epsilon):
    property, x = ClassificationRobustness(epsilon), torch.as_tensor(X)
    networks = [Network(module, np.arange(3), 4) for module in (toy(tripled), known())]
    truth = decided(Exact(), networks[1], property, x, LABELS).verdicts
    for verifier in (Exact(), Exact(milp_units=0)):
        try:
            verdicts = decided(verifier, networks[0], property, x, LABELS).verdicts
        except UnsupportedModelError as error:
            assert "Tripled" in str(error)
        else:
            assert ((verdicts == truth) | (verdicts == "unknown")).all()


# ---- without rules -----------------------------------------------------------------------


def node():
    return Unruled(inputs=(1,), shape=(6,), path="there")


Z = torch.ones(1, 6, dtype=torch.float64)


@pytest.mark.parametrize(
    ("name", "ask"),
    [
        ("bounds.image", lambda: image(node(), -Z, Z)),
        ("bounds.lines_of", lambda: lines_of(node(), -Z, Z)),
        ("bounds.worth_tightening", lambda: worth_tightening(node(), -Z, Z)),
        ("bounds.splits_at_zero", lambda: splits_at_zero(node())),
        ("bounds.chords_of", lambda: chords_of(node(), None, (-Z, Z), (Z, Z))),
        ("bounds.steepest", lambda: steepest(node(), "linf")),
        ("bounds.rounding_terms", lambda: rounding_terms(node())),
        ("bounds.rounding_weight", lambda: rounding_weight(node(), -Z, Z)),
        ("graphs.write", lambda: write(node(), None, "x")),
        ("PiecewiseNode.decide", lambda: node().decide(Z)),
        ("PiecewiseNode.is_tied", lambda: node().is_tied(Z)),
        ("PiecewiseNode.frozen", lambda: node().frozen((Z,), Z)),
        ("PiecewiseNode.frozen_adjoint", lambda: node().frozen_adjoint((Z,), Z)),
        ("PiecewiseNode.slacks", lambda: node().slacks((Z,), Z)),
        ("PiecewiseNode.seeds", lambda: node().seeds((Z,), 0, 0, 1.0)),
        ("PiecewiseNode.n_rows", lambda: node().n_rows),
        ("Node.adjoint", lambda: node().adjoint(Z)),
        ("Node.magnitude", lambda: node().magnitude(Z)),
    ],
)
def test_every_operation_refuses_by_name_what_it_has_no_rule_for(name, ask):
    with pytest.raises(UnsupportedModelError, match=rf"{name} has no rule for Unruled \(layer"):
        ask()


def test_a_node_without_a_value_is_refused():
    with pytest.raises(UnsupportedModelError, match=r"Node\.apply has no rule for Node\. "):
        Node().apply(Z)


def verify(verifier, property):
    return verifier.verify(classifier(), X, LABELS.numpy(), property=property)


def classifier():
    return TorchClassifier(toy(unruled), [0, 1, 2])


LR = LipschitzRobustness(0.1, 1.0)
CR = ClassificationRobustness(0.1)


@pytest.mark.parametrize(
    "ask",
    [
        *(lambda method=m: verify(Bounds(method), CR) for m in ("ibp", "crown", "alpha-crown")),
        lambda: verify(Bounds(), LR),
        lambda: verify(LipschitzBounds(), LR),
        lambda: verify(LipschitzBounds("local"), LR),
        lambda: verify(LipschitzBounds("lipsdp"), LR),
        lambda: verify(Exact(), CR),
        lambda: verify(Exact(milp_units=0), CR),
        lambda: lipschitz_bound(classifier(), X=X),
        lambda: lipschitz_bound(classifier(), X=X, norm="l2"),
        lambda: lipschitz_bound(classifier(), X=X, method="local", epsilon=0.1),
        lambda: pointwise_robustness(classifier(), X),
        lambda: pointwise_robustness(classifier(), X, method="certified"),
        lambda: CertifiedTraining().loss(None, step(toy(unruled))),
        lambda: CertifiedTraining("crown-ibp").loss(None, step(toy(unruled))),
    ],
)
def test_whatever_a_user_calls_refuses_it_by_name(ask):
    with pytest.raises(UnsupportedModelError, match="Unruled"):
        ask()


def test_it_is_not_written_to_onnx():
    onnx = pytest.importorskip("onnx")
    with pytest.raises(UnsupportedModelError, match=r"graphs\.write has no rule for Unruled"):
        OnnxWriter(onnx, torch.float32).model(read_graph(toy(unruled), 4))


# ---- what is inherited -------------------------------------------------------------------


def test_a_subclass_has_the_rules_of_its_base():
    class Named(Relu):
        pass

    unit = Named(inputs=(0,), shape=(6,), slope=torch.tensor(0.0).double())
    assert steepest(unit, "l2") == 1.0
    torch.testing.assert_close(image(unit, -Z, Z), (0 * Z, Z))


def test_the_worked_example_of_the_guide_runs():
    # In a process of its own: what it registers would stay.
    command = [sys.executable, "-m", "doctest", "docs/extending_node.rst"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
