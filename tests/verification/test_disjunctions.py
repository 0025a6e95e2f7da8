"""Disjunctions in every verifier, against a grid with a Lipschitz bound."""

import numpy as np
import pytest
import torch
from torch import nn

from skrobust.exceptions import UnsupportedPropertyError
from skrobust.networks import Network
from skrobust.properties import (
    ClassificationRobustness,
    LinearRobustness,
    LipschitzRobustness,
    StandardRobustness,
    StrongClassificationRobustness,
)
from skrobust.verification import Bounds, Cascade, Exact, Marabou, TreeVerifier, _marabou
from tests.verification._nets import grid_of
from tests.verification._tensors import decided

CR, SR, LR = ClassificationRobustness, StandardRobustness, LipschitzRobustness
SCR = StrongClassificationRobustness
HAS_MARABOU = _marabou.find_spec("maraboupy") is not None


def perceptron(seed, n_outputs=3):
    generator = torch.Generator().manual_seed(seed)
    module = nn.Sequential(nn.Linear(2, 5), nn.ReLU(), nn.Linear(5, 4), nn.ReLU(),
                           nn.Linear(4, n_outputs)).requires_grad_(False)  # fmt: skip
    for layer in module[::2]:
        layer.weight.copy_(torch.randn(layer.weight.shape, generator=generator))
        layer.bias.copy_(0.3 * torch.randn(layer.bias.shape, generator=generator))
    return Network(module, np.arange(n_outputs), 2)


def random_rows(seed, shift, n_rows=5, clauses=((0, 1), (2, 3, 4))):
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(n_rows, 3)), rng.normal(size=n_rows) + shift
    return LinearRobustness(rows, 0.25, clauses=clauses, strict=bool(seed % 2))


def least_on_grid(net, property, x, label, n=161):
    """Return the least margin on a grid of the ball, and what lies below it at most elsewhere."""
    module = net.module.double()
    points = grid_of(property.outer_ball(x), n)
    target = module(x.double())
    labels = None if label is None else torch.tensor([label])
    labels = property.reference_labels(target, labels)
    conclusion = property.conclusion(target, labels)
    ball = property.outer_ball(x)
    margins = conclusion.margin(module(points)[None], ball.distance(points[None]))[0]
    lipschitz = 1.0
    for layer in module[::2]:
        lipschitz *= layer.weight.abs().sum(dim=1).max().item()
    rows = conclusion.sufficient()
    lipschitz = (lipschitz * rows.A.abs().sum(dim=2) + rows.c.abs()).max().item()
    net.module.float()
    step = ((ball.upper - ball.lower).max() / (n - 1)).item()
    return margins.min().item(), lipschitz * step / 2


def assert_right(verifier, net, property, x, label=None, is_complete=True):
    labels = None if label is None else torch.tensor([label])
    found = decided(verifier, net, property, x, labels, timeout=60)
    least, gap = least_on_grid(net, property, x, label)
    (verdict,) = found.verdicts
    if verdict == "verified":
        assert least >= 0
    elif verdict == "falsified":
        point = torch.as_tensor(found.counterexamples)
        conclusion = property.conclusion(net(x), labels)
        assert not conclusion.holds(net(point), property.ball(x).distance(point)).any()
    elif is_complete:
        assert -1e-5 <= least <= max(gap, 1e-5)
    # What is claimed of the smallest row is nowhere undercut.
    assert found.lower[0] <= least + 1e-9
    return verdict


SHIFTS = (-0.5, 0.5, 1.5, 3.0)


@pytest.mark.parametrize(
    ("verifier", "is_complete"),
    [
        (Bounds("ibp"), False),
        (Bounds(), False),
        (Bounds("alpha-crown", n_steps=5), False),
        (Exact(), True),
        (Exact(milp_units=0, batch_size=4), True),
        (Cascade(), True),
    ],
    ids=repr,
)
def test_random_clauses(verifier, is_complete):
    cases = [
        (perceptron(seed), random_rows(seed, shift), torch.rand(1, 2))
        for seed in range(6)
        for shift in SHIFTS
    ]
    verdicts = [assert_right(verifier, *case, None, is_complete) for case in cases]
    assert "verified" in verdicts
    if is_complete:
        assert {"verified", "falsified"} <= set(verdicts)


@pytest.mark.skipif(not HAS_MARABOU, reason="maraboupy is not installed")
@pytest.mark.parametrize("form", ["auto", "disjunction", "rows"])
def test_marabou_is_asked_for_conjunctions(form):
    verdicts = {
        assert_right(Marabou(form), perceptron(seed), random_rows(seed, shift), torch.rand(1, 2))
        for seed in range(3)
        for shift in SHIFTS
    }
    assert verdicts == {"verified", "falsified"}


PROPERTIES = [
    CR(0.2) | SR(0.2, delta=1.5),
    (CR(0.2) | SR(0.2, delta=1.0)) & SR(0.2, delta=3.0),
    CR(0.2) | SCR(0.2, 0.3),
    SCR(0.2, 0.9) | SR(0.2, delta=0.8),
    CR(0.2) | LR(0.2, lipschitz=4.0),
    CR(0.2) & (LR(0.2, lipschitz=6.0) | SR(0.2, delta=0.3)),
]


@pytest.mark.parametrize("property", PROPERTIES, ids=repr)
@pytest.mark.parametrize("verifier", [Bounds(), Exact()], ids=repr)
def test_the_properties_themselves(verifier, property):
    uses_distance = "Lipschitz" in repr(property)
    for seed in range(5):
        net, x = perceptron(seed), torch.rand(1, 2)
        label = int(net(x).argmax())
        is_complete = isinstance(verifier, Exact) and not uses_distance
        assert_right(verifier, net, property, x, label, is_complete)


def test_a_leaf_needs_all_rows_of_a_clause_at_once():
    """z = (x, -x): each row fails somewhere, both fail nowhere; one linear piece, no units."""
    module = nn.Linear(1, 2, bias=False).requires_grad_(False)
    module.weight.copy_(torch.tensor([[1.0], [-1.0]]))
    net, x = Network(module, [0, 1], 1), torch.tensor([[0.1], [0.9]])
    rows = [[1.0, 0.0], [0.0, 1.0]]
    for shift, verdict in ((0.01, "verified"), (-0.01, "falsified")):
        property = LinearRobustness((rows, [shift] * 2), 0.5, bounds=None, clauses=[[0, 1]])
        for verifier in (Exact(), Exact(milp_units=0)):
            result = verifier.verify(net, x[:1], property=property)
            assert result.verdicts.tolist() == [verdict]
    # At 0 both are exactly 0: that holds, but not strictly.
    property = LinearRobustness((rows, [0.0, 0.0]), 0.5, bounds=None, clauses=[[0, 1]])
    assert Exact().verify(net, x, property=property).verdicts.tolist() != ["falsified"] * 2
    strict = property.set_params(strict=True)
    assert Exact().verify(net, x[:1], property=strict).verdicts[0] != "verified"


def test_thin_violations_are_found():
    """The property fails by 0.02 at its worst point, or holds by as much."""
    net = perceptron(3)
    x = torch.tensor([[0.5, 0.5]])
    least, _ = least_on_grid(net, random_rows(4, 0.0), x, None)
    for offset, verdict in ((-0.02, "verified"), (0.02, "falsified")):
        property = random_rows(4, -least - offset)
        assert assert_right(Exact(), net, property, x) == verdict


def test_a_mixture_of_concave_and_linear_rows_is_decided_at_leaves():
    net = perceptron(1)
    x = torch.tensor([[0.4, 0.3]])
    label = int(net(x).argmax())
    results = {
        eta: Exact(milp_units=0).verify(
            net, x, [label], property=SCR(0.3, eta) | SR(0.3, delta=0.4), timeout=30
        )
        for eta in (0.01, 0.999)
    }
    for eta, result in results.items():
        least, _ = least_on_grid(net, SCR(0.3, eta) | SR(0.3, delta=0.4), x, label)
        assert result.verdicts[0] in ("unknown", "verified" if least >= 0 else "falsified")


def test_what_cannot_read_clauses_refuses_by_name(blobs):
    from sklearn.tree import DecisionTreeClassifier

    X, y = blobs
    tree = DecisionTreeClassifier().fit(X, y)
    with pytest.raises(UnsupportedPropertyError, match="Got a Disjunction"):
        TreeVerifier().verify(tree, X, y, property=CR(0.1) | SR(0.1))
