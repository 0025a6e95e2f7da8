"""Exact against brute force over activation patterns, against Marabou, and by hand."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linprog
from torch import nn

from skrobust.attacks import FGSM, UniformSampling
from skrobust.bounds import relax
from skrobust.graphs import read_graph
from skrobust.networks import Network
from skrobust.properties import (
    ClassificationRobustness,
    LipschitzRobustness,
    StandardRobustness,
    StrongClassificationRobustness,
)
from skrobust.verification import Exact, Reason
from skrobust.verification._highs import Minimum, Program
from skrobust.verification._program import AffineMaps
from tests.verification._perceptron import perceptron
from tests.verification._tensors import decided

CR, SR, LR = ClassificationRobustness, StandardRobustness, LipschitzRobustness
SCR = StrongClassificationRobustness


def pieces(net, low, high):
    """Yield (W, b, G, h) for each activation pattern: z = W x + b where G x <= h."""
    layers = [layer for layer in net.module if isinstance(layer, nn.Linear)]
    weights = [(la.weight.double().numpy(), la.bias.double().numpy()) for la in layers]
    counts = [len(b) for _, b in weights[:-1]]
    for pattern in itertools.product((0, 1), repeat=sum(counts)):
        W, b = np.eye(len(low)), np.zeros(len(low))
        G, h, k = [], [], 0
        for (V, c), count in zip(weights[:-1], counts, strict=True):
            W, b = V @ W, V @ b + c
            active = np.array(pattern[k : k + count])
            G.append(np.where(active, -1, 1)[:, None] * W)
            h.append(np.where(active, b, -b))
            W, b = active[:, None] * W, active * b
            k += count
        V, c = weights[-1]
        G, h = np.concatenate(G), np.concatenate(h)
        box = np.column_stack([low, high])
        if linprog(np.zeros(len(low)), G, h, bounds=box, method="highs").status == 0:
            yield V @ W, V @ b + c, G, h, box


def least(net, low, high, rows):
    """Minimize rows (a, constant) of the outputs, each over all pieces: (m,)."""
    best = np.full(len(rows), np.inf)
    for W, b, G, h, box in pieces(net, low, high):
        for k, (a, constant) in enumerate(rows):
            found = linprog(a @ W, G, h, bounds=box, method="highs")
            if found.status == 0:
                best[k] = min(best[k], found.fun + a @ b + constant)
    return best


def truth(net, property, x, label):
    """Whether the property holds, and by how much it does; None if that is too close."""
    low = np.maximum(x - property.epsilon, 0)
    high = np.minimum(x + property.epsilon, 1)
    with torch.no_grad():
        reference = net.module.double()(torch.as_tensor(x)[None])[0].numpy()
        net.module.float()
    eye = np.eye(len(reference))
    if isinstance(property, CR):
        rows = [(eye[label] - other, 0.0) for other in np.delete(eye, label, 0)]
        return least(net, low, high, rows).min()
    if isinstance(property, SR):
        pairs = list(zip(eye, reference, strict=True))
        rows = [(-s * e, property.delta + s * r) for e, r in pairs for s in (1, -1)]
        return least(net, low, high, rows).min()
    return property.lipschitz - steepest(net, low, high, x, reference)


def steepest(net, low, high, x, reference):
    """Return max (z_j(x') - z_j(x)) / d by bisection on L, with one LP for each piece."""
    n = len(low)
    parts = list(pieces(net, low, high))
    lower, upper = 0.0, 32.0
    while upper - lower > 1e-4:
        slope = (lower + upper) / 2
        lower, upper = (slope, upper) if steeper(parts, n, x, reference, slope) else (lower, slope)
    return upper


def steeper(parts, n, x, reference, slope):
    """Whether some point has |change| > slope d: a change of 1 in units where d is free.

    Divided by the distance: the direction u = (x' - x) / d and t = 1 / d >= 0 are variables,
    with |u| <= 1, so that points next to x count as well (t has no limit).
    """
    for W, b, G, h, box in parts:
        # x' = x + u / t in the piece: G u <= (h - G x) t, and inside the box.
        A = [np.hstack([G, -(h - G @ x)[:, None]])]
        A.append(np.hstack([np.eye(n), -(box[:, 1] - x)[:, None]]))
        A.append(np.hstack([-np.eye(n), -(x - box[:, 0])[:, None]]))
        A = np.concatenate(A)
        limits = [(-1, 1)] * n + [(0, 1e6)]
        offset = W @ x + b - reference
        for j, sign in itertools.product(range(len(b)), (1, -1)):
            cost = -sign * np.append(W[j], offset[j])
            found = linprog(cost, A, np.zeros(len(A)), bounds=limits, method="highs")
            if found.status == 0 and -found.fun > slope:
                return True
    return False


CASES = [
    *[CR(epsilon) for epsilon in (0.05, 0.15, 0.4)],
    CR(np.array([0.3, 0.0, 0.1])),
    *[SR(0.2, delta) for delta in (0.15, 0.4)],
    *[LR(0.2, lipschitz) for lipschitz in (0.7, 1.5, 3.0)],
]
SETTINGS = [
    Exact(),
    Exact(milp_units=0, split_inputs=0, batch_size=2),
    # An attack that finds next to nothing: counterexamples come from bounds and programs.
    Exact(UniformSampling(1), milp_units=0, split_inputs=0),
]


def points(n=2, seed=0):
    return torch.rand(n, 3, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("property", CASES, ids=repr)
@pytest.mark.parametrize("seed", range(2))
def test_verdicts_are_those_of_brute_force(seed, property):
    net, x = perceptron(seed), points(seed=seed)
    labels = net(x).argmax(dim=1)
    margins = [truth(net, property, x[k].double().numpy(), labels[k].item()) for k in range(2)]
    for verifier in SETTINGS:
        found = decided(verifier, net, property, x, labels)
        for k, margin in enumerate(margins):
            if abs(margin) > 2e-4:
                assert found.verdicts[k] == ("verified" if margin > 0 else "falsified"), verifier
            assert found.lower[k] <= max(margin, 0) + 2e-4
        assert_counterexamples(net, property, x, labels, found)


def assert_counterexamples(net, property, x, labels, found):
    broken = found.verdicts == "falsified"
    assert np.isnan(found.counterexamples[~broken]).all()
    at = torch.as_tensor(found.counterexamples[broken])
    x, labels = x[broken], labels[broken]
    assert at.dtype == x.dtype
    ball = property.ball(x)
    assert ((at >= ball.lower) & (at <= ball.upper)).all()
    holds = property.conclusion(net(x), labels).holds(net(at), ball.distance(at))
    assert not holds.any()


@settings(max_examples=15, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 2**16),
    epsilon=st.floats(0.01, 0.5),
    delta=st.one_of(st.none(), st.floats(0.05, 2.0)),
    milp_units=st.sampled_from([0, 60]),
)
def test_random_networks_against_brute_force(seed, epsilon, delta, milp_units):
    net, x = perceptron(seed, sizes=(2, 4, 3, 2)), points(1, seed)[:, :2]
    labels = net(x).argmax(dim=1)
    property = CR(epsilon) if delta is None else SR(epsilon, delta)
    margin = truth(net, property, x[0].double().numpy(), labels[0].item())
    found = decided(
        Exact(UniformSampling(1), milp_units=milp_units, split_inputs=0), net, property, x, labels
    )
    if abs(margin) > 1e-4:
        assert found.verdicts[0] == ("verified" if margin > 0 else "falsified")
    assert_counterexamples(net, property, x, labels, found)


@pytest.mark.parametrize("slope", [0.3, 1.7, -0.5])
@pytest.mark.parametrize("milp_units", [0, 60])
def test_leaky_units_against_a_grid(monkeypatch, slope, milp_units):
    if milp_units:
        monkeypatch.setattr("skrobust.verification._exact._FIRST_DOMAINS", 0)
    net = perceptron(3, sizes=(2, 6, 5, 3))
    for k, layer in enumerate(net.module):
        if isinstance(layer, nn.ReLU):
            net.module[k] = nn.LeakyReLU(slope)
    x = points(3, 1)[:, :2]
    labels = net(x).argmax(dim=1)
    line = torch.linspace(-0.2, 0.2, 301)
    grid = torch.cartesian_prod(line, line)
    for k in range(len(x)):
        change = (net((x[k] + grid).clamp(0, 1)) - net(x[k : k + 1])).abs().max().item()
        for delta, expected in ((1.02 * change, "verified"), (0.98 * change, "falsified")):
            verifier = Exact(UniformSampling(1), milp_units=milp_units, split_inputs=0)
            found = decided(verifier, net, SR(0.2, delta), x[k : k + 1], labels[k : k + 1])
            assert found.verdicts[0] == expected


@pytest.mark.parametrize("reason", [Reason.SOLVER_ERROR, Reason.COUNTEREXAMPLE])
def test_what_the_solver_of_programs_does_not_decide_is_not_lost(monkeypatch, reason):
    # It fails; or it returns a point that breaks nothing. Branch and bound goes on.
    monkeypatch.setattr("skrobust.verification._exact._FIRST_DOMAINS", 0)
    net, x = perceptron(3, sizes=(2, 6, 5, 3)), points(1, 1)[:, :2]
    labels, calls = net(x).argmax(dim=1), []
    line = torch.linspace(-0.2, 0.2, 301)
    grid = (x + torch.cartesian_prod(line, line)).clamp(0, 1)
    delta = 1.02 * (net(grid) - net(x)).abs().max().item()  # too close for bounds

    def minimize(self, *args, **options):
        calls.append(reason)
        is_point = reason is Reason.COUNTEREXAMPLE
        return Minimum(reason, point=x[0].double().numpy() if is_point else None)

    monkeypatch.setattr(Program, "minimize", minimize)
    found = decided(Exact(split_inputs=0), net, SR(0.2, delta), x, labels)
    assert calls
    assert found.verdicts.tolist() == ["verified"]


def test_the_solver_of_programs_alone_agrees(monkeypatch):
    monkeypatch.setattr("skrobust.verification._exact._FIRST_DOMAINS", 0)
    for seed, property in itertools.product(range(3), (CR(0.15), SR(0.2, 0.4), LR(0.2, 1.5))):
        net, x = perceptron(seed), points(seed=seed)
        labels = net(x).argmax(dim=1)
        by_program = decided(Exact(split_inputs=0), net, property, x, labels)
        by_branching = decided(Exact(milp_units=0, split_inputs=0), net, property, x, labels)
        assert by_program.verdicts.tolist() == by_branching.verdicts.tolist()


@pytest.mark.parametrize("seed", range(3))
def test_strong_classification_against_a_grid(seed):
    # Two inputs: a grid of the ball tells what the least probability is, but for its step.
    net, x = perceptron(seed, sizes=(2, 5, 3)), points(4, seed)[:, :2]
    labels = net(x).argmax(dim=1)
    line = torch.linspace(-0.1, 0.1, 201)
    for k in range(len(x)):
        grid = torch.cartesian_prod(line, line) + x[k]
        p = torch.softmax(net(grid.clamp(0, 1)), dim=1)[:, labels[k]].min().item()
        for eta, allowed in (
            (p - 0.01, {"verified"}),
            (min(p + 0.01, 0.999), {"falsified"}),
        ):
            found = decided(Exact(), net, SCR(0.1, eta), x[k : k + 1], labels[k : k + 1])
            assert found.verdicts[0] in allowed


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_samples_never_contradict_a_proof(norm):
    net, x = perceptron(5, sizes=(3, 12, 12, 3)), points(6, 5)
    labels = net(x).argmax(dim=1)
    generator = torch.Generator().manual_seed(0)
    n_verified = 0
    for property in (CR(0.2, norm=norm), SR(0.2, 0.6, norm=norm), LR(0.2, 3.0, norm=norm),
                     SCR(0.1, 0.4, norm=norm)):  # fmt: skip
        found = decided(Exact(milp_units=0), net, property, x, labels, timeout=60)
        verified = found.verdicts == "verified"
        n_verified += verified.sum()
        if not verified.any():
            continue
        ball = property.ball(x[verified])
        samples = ball.sample(2000, generator)
        conclusion = property.conclusion(net(x[verified]), labels[verified])
        values = conclusion.values(net(samples.flatten(0, 1)).view(*samples.shape[:2], -1),
                                   ball.distance(samples))  # fmt: skip
        assert (values > -1e-5).all()
        assert_counterexamples(net, property, x, labels, found)
    assert n_verified > 4


def test_agrees_with_marabou():
    core = pytest.importorskip("maraboupy.MarabouCore")
    seen = set()
    for seed in range(4):
        net, x = perceptron(seed, sizes=(3, 6, 3)), points(1, seed)
        labels = net(x).argmax(dim=1)
        found = decided(Exact(), net, CR(0.15), x, labels)
        expected = marabou(core, net, x[0].numpy(), labels[0].item())
        assert found.verdicts[0] == expected
        seen.add(expected)
    assert len(seen) == 2


def marabou(core, net, x, label):
    """One query for each other label j: z_label - z_j <= 0 somewhere in the ball."""
    for other in set(range(3)) - {label}:
        query = core.InputQuery()
        layers = [layer for layer in net.module if isinstance(layer, nn.Linear)]
        count = len(x) + sum(2 * layer.out_features for layer in layers)
        query.setNumberOfVariables(count)
        inputs = list(range(len(x)))
        for i in inputs:
            query.setLowerBound(i, max(float(x[i]) - 0.15, 0.0))
            query.setUpperBound(i, min(float(x[i]) + 0.15, 1.0))
            query.markInputVariable(i, i)
        place = len(x)
        for depth, layer in enumerate(layers):
            before = [place + k for k in range(layer.out_features)]
            for k, variable in enumerate(before):
                equation = core.Equation()
                equation.addAddend(-1.0, variable)
                for i, weight in zip(inputs, layer.weight[k].tolist(), strict=True):
                    equation.addAddend(weight, i)
                equation.setScalar(-layer.bias[k].item())
                query.addEquation(equation)
            place += layer.out_features
            inputs = before
            if depth < len(layers) - 1:
                inputs = [place + k for k in range(layer.out_features)]
                for b, f in zip(before, inputs, strict=True):
                    core.addReluConstraint(query, b, f)
                place += layer.out_features
        for k, variable in enumerate(inputs):
            query.markOutputVariable(variable, k)
        wrong = core.Equation(core.Equation.EquationType.LE)
        wrong.addAddend(1.0, inputs[label])
        wrong.addAddend(-1.0, inputs[other])
        wrong.setScalar(0.0)
        query.addEquation(wrong)
        options = core.Options()
        options._verbosity = 0
        status, *_ = core.solve(query, options, "")
        if status == "sat":
            return "falsified"
        assert status == "unsat"
    return "verified"


class Cut(nn.Module):
    """Clamps and a max-pool: only HiGHS decides these."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(3, 4), nn.Linear(2, 2)

    def forward(self, x):
        x = self.first(x).clamp(-0.3, 0.4).unsqueeze(1)
        return self.last(nn.functional.max_pool1d(x, 2).flatten(1))


@pytest.mark.parametrize("seed", range(3))
def test_clamps_and_pools_are_decided(seed):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = Network(Cut().requires_grad_(False), np.arange(2), 3)
    x = points(5, seed)
    labels = net(x).argmax(dim=1)
    found = decided(Exact(attack=None), net, SR(0.3, 0.05), x, labels)
    line = torch.linspace(-0.3, 0.3, 31)
    grid = torch.cartesian_prod(line, line, line)
    for k in range(len(x)):
        change = (net((x[k] + grid).clamp(0, 1)) - net(x[k : k + 1])).abs().max().item()
        assert found.verdicts[k] != "unknown"
        if change > 0.05:
            assert found.verdicts[k] == "falsified"
        elif change < 0.035:
            assert found.verdicts[k] == "verified"


def test_slopes_of_kinks_at_the_reference_point():
    # z = |x - 1 / 2| (twice, from both sides): slope 1 on both sides of the kink.
    module = nn.Sequential(nn.Linear(1, 2), nn.ReLU(), nn.Linear(2, 2))
    with torch.no_grad():
        module[0].weight.copy_(torch.tensor([[1.0], [-1.0]]))
        module[0].bias.copy_(torch.tensor([-0.5, 0.5]))
        module[2].weight.copy_(torch.tensor([[1.0, 1.0], [0.0, 0.0]]))
        module[2].bias.zero_()
    net = Network(module.requires_grad_(False), np.arange(2), 1)
    x = torch.tensor([[0.5], [0.45]])
    for lipschitz, expected in ((1.01, "verified"), (0.99, "falsified")):
        found = decided(Exact(), net, LR(0.2, lipschitz), x, timeout=5)
        assert found.verdicts.tolist() == [expected] * 2


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="Got batch_size=0"):
        Exact(batch_size=0).check()
    with pytest.raises(ValueError, match="Got max_domains=0"):
        Exact(max_domains=0).check()
    with pytest.raises(ValueError, match="Got memory_limit=1000"):
        Exact(memory_limit=1000).check()
    with pytest.raises(TypeError, match="Got attack='pgd'"):
        Exact("pgd").check()


@pytest.mark.parametrize("scale", [1e-9, 1e6, 1e9, 1e12])
def test_the_unit_of_the_inputs_does_not_matter(scale):
    # Inputs times a number and first weights divided by it: the same question. HiGHS drops
    # entries below 1e-9, so that programs in raw units would lose their inputs.
    verdicts = []
    for factor in (1.0, scale):
        with torch.random.fork_rng():
            torch.manual_seed(3)
            net = Network(Cut().requires_grad_(False).double(), np.arange(2), 3)
        x = points(8, 3).double() * factor
        with torch.no_grad():
            net.module.first.weight.mul_(2 / factor)
        property = SR(0.3 * factor, 0.12, bounds=(0.0, factor))
        found = decided(Exact(FGSM()), net, property, x)
        verdicts.append(found.verdicts.tolist())
    assert verdicts[0] == verdicts[1]
    assert set(verdicts[0]) == {"verified", "falsified"}


def test_rounding_that_no_program_can_hold_is_a_failure_not_a_proof():
    # Offsets of 1e16 beside half-widths of 2: the shift of a row is known to no digit.
    module = nn.Sequential(nn.Linear(2, 1), nn.ReLU(), nn.Linear(1, 2)).double()
    module[0].weight.data.copy_(torch.tensor([[1.0, -1.0]]))
    graph = read_graph(module.requires_grad_(False), 2)
    for offset, expected in (
        (0.0, {Reason.PROVED, Reason.COUNTEREXAMPLE}),
        (1e16, {Reason.SOLVER_ERROR}),
    ):
        x = torch.full((1, 2), offset, dtype=torch.float64)
        root = relax(graph, CR(2.0, bounds=None).outer_ball(x))
        program = Program(AffineMaps(graph), root)
        assert program.minimize(np.array([1.0, -1.0]), 0.0, 0.0).reason in expected


@pytest.mark.parametrize("seed", range(4))
def test_lower_bounds_hold_also_where_a_counterexample_was_found(seed):
    net, x = perceptron(seed, sizes=(2, 6, 6, 2)), points(3, seed)[:, :2]
    generator = torch.Generator().manual_seed(seed)
    for property in (LR(0.3, 1.0), LR(0.3, 3.0), SR(0.3, 0.4), CR(0.3)):
        labels = net(x).argmax(dim=1)
        found = decided(Exact(FGSM()), net, property, x, labels, timeout=5)
        ball = property.ball(x)
        samples = ball.sample(3000, generator)
        values = property.conclusion(net(x), labels).values(
            net(samples.flatten(0, 1)).view(*samples.shape[:2], -1), ball.distance(samples)
        )
        sampled = values.flatten(1).amin(dim=1).numpy()
        assert (found.lower <= sampled + 1e-5).all()


@pytest.mark.parametrize(
    ("x", "epsilon", "threshold", "holds"),
    [(1e6, 0.04, 0.05, False), (1e6 + 0.03, 0.01, 0.05, False), (1e6, 0.01, 0.1, True)],
)
def test_what_rounding_makes_of_large_inputs_is_accounted_for(x, epsilon, threshold, holds):
    # A float32 number near 1e6 is a multiple of 1/16: 1e6 + 0.04 becomes 1e6 + 1/16.
    module = nn.Sequential(nn.Linear(1, 2), nn.ReLU(), nn.Linear(2, 2)).requires_grad_(False)
    module[0].weight.copy_(torch.tensor([[1.0], [-1.0]]))
    module[0].bias.copy_(torch.tensor([-1e6, 1e6]))
    module[2].weight.copy_(torch.tensor([[0.0, 0.0], [1.0, -1.0]]))
    module[2].bias.copy_(torch.tensor([0.0, -threshold]))
    net = Network(module, np.arange(2), 1)
    rows = net.rows([[x]])
    found = decided(Exact(), net, CR(epsilon, bounds=None), rows, torch.tensor([0]))
    assert (found.verdicts[0] == "verified") == holds


def test_a_ball_with_one_entry_that_moves_is_decided_in_any_norm():
    net, x = perceptron(1, sizes=(3, 8, 8, 3)), points(6, 1)
    labels = net(x).argmax(dim=1)
    for epsilon in ([0.4, 0.0, 0.0], [0.0, 0.25, 0.0]):
        box, ball = (
            decided(Exact(milp_units=0), net, CR(epsilon, norm=norm), x, labels)
            for norm in ("linf", "l2")
        )
        assert (box.verdicts != "unknown").all()
        assert box.verdicts.tolist() == ball.verdicts.tolist()
