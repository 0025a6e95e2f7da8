"""The search that complete verifiers share: pieces, shells, and small distances."""

import numpy as np
import pytest
import torch
from torch import nn

from skrobust import TorchClassifier
from skrobust.attacks import FGSM
from skrobust.networks import Network
from skrobust.properties import ClassificationRobustness, LipschitzRobustness
from skrobust.verification import Cascade, Exact, Reason, _complete, _exact
from tests.verification._tensors import decided


def linear(W, b=0.0):
    layer = nn.Linear(*np.shape(W)[::-1]).requires_grad_(False)
    layer.weight.copy_(torch.as_tensor(W))
    layer.bias.copy_(torch.as_tensor(b))
    return layer


def steepest(W, down, up):
    """Largest |change| / d of a linear network, whose entries move by so much at most.

    Near the reference point every entry that can move goes as far as the others, and farther
    out fewer do: so the ratio is that of small distances.
    """
    rows = np.concatenate([W, -W])
    return np.where(rows > 0, rows * (up > 0), -rows * (down > 0)).sum(axis=1).max()


@pytest.mark.parametrize("verifier", [Exact(), Cascade(), Exact(milp_units=0)], ids=repr)
def test_an_epsilon_for_each_feature(verifier):
    # By hand: x + 0.01 [-1, 1, -1] changes the first output by 0.87 * 0.01. The corners of the
    # ball, which attacks follow, change none by as much as 0.77 of their distance.
    W = [[-0.28, 0.22, -0.37], [0.06, 0.31, -0.30], [0.42, 0.24, -0.15]]
    model, X = TorchClassifier(linear(W), 3), np.full((1, 3), 0.5, dtype=np.float32)
    options = {"bounds": None}
    broken = LipschitzRobustness([0.2, 0.01, 0.6], lipschitz=0.77, **options)
    result = verifier.verify(model, X, property=broken)
    assert result.verdicts.tolist() == ["falsified"]
    move = result.counterexamples[0].astype(float) - 0.5
    assert (np.abs(move) <= [0.2, 0.01, 0.6]).all()
    assert np.abs(np.array(W) @ move).max() > 0.77 * np.abs(move).max()
    holds = LipschitzRobustness([0.2, 0.01, 0.6], lipschitz=0.871, **options)
    assert verifier.verify(model, X, property=holds).verdicts.tolist() == ["verified"]


def test_linear_networks_against_the_closed_form():
    rng, seen = np.random.default_rng(0), []
    for k in range(200):
        n_features, n_outputs = rng.integers(1, 6), rng.integers(2, 5)
        W = rng.normal(size=(n_outputs, n_features)).astype(np.float32)
        epsilon = 10 ** rng.uniform(-3, 0, size=n_features) * (rng.random(n_features) > 0.2)
        x = rng.random((1, n_features)).astype(np.float32)
        x[0, 0] *= k % 3 > 0  # at the border of the domain
        bounds = (0.0, 1.0) if k % 2 else None
        room = (x[0], 1.0 - x[0]) if bounds else (np.inf, np.inf)
        down, up = (np.minimum(epsilon, side) for side in room)
        largest = steepest(W.astype(float), down, up)
        if largest == 0:
            continue
        factor = rng.choice([0.5, 0.9, 0.98, 1.02, 1.1])
        property = LipschitzRobustness(epsilon, lipschitz=largest * factor, bounds=bounds)
        net = Network(linear(W, rng.normal(size=n_outputs)), np.arange(n_outputs), n_features)
        result = decided(Exact(FGSM()), net, property, torch.as_tensor(x))
        expected = "verified" if factor > 1 else "falsified"
        assert result.verdicts.tolist() == [expected], (k, factor, epsilon)
        seen.append(expected)
    assert seen.count("verified") > 50 and seen.count("falsified") > 50


def test_rounding_next_to_the_reference_point_breaks_nothing():
    # z = x + 1000 has slope 1. A float32 number near 1000 is a multiple of 6e-5, so that the
    # outputs of points at 1e-5 have any ratio.
    net = Network(linear([[1.0], [0.0]], [1000.0, 0.0]), np.arange(2), 1)
    x = torch.tensor([[0.3], [0.5], [0.7]])
    for lipschitz, expected in ((1.1, "verified"), (0.9, "falsified")):
        encoding = Exact().encode(net, LipschitzRobustness(0.1, lipschitz=lipschitz))
        assert Exact().search(encoding, x).verdicts.tolist() == [expected] * 3


def kinked():
    """z = (2 |x_0 - 1/2|, 0) from two units, in which the second input counts for nothing."""
    module = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2)).requires_grad_(False)
    module[0].weight.copy_(torch.tensor([[1.0, 0.0], [-1.0, 0.0]]))
    module[0].bias.copy_(torch.tensor([-0.5, 0.5]))
    module[2].weight.copy_(torch.tensor([[2.0, 2.0], [0.0, 0.0]]))
    module[2].bias.zero_()
    return Network(module, np.arange(2), 2)


@pytest.mark.parametrize("milp_units", [0, 60])
def test_shells_find_what_the_steepest_move_does_not(monkeypatch, milp_units):
    # Without that move, and with the attack off: the leaves and programs give the point.
    monkeypatch.setattr(_complete.PointSearch, "_confirms_steepest", lambda self, repair: False)
    x = torch.tensor([[0.5, 0.5]])
    property = LipschitzRobustness([0.02, 0.5], lipschitz=1.9)
    verifier = Exact(FGSM(), milp_units=milp_units)
    encoding = verifier.encode(kinked(), property)
    result = verifier.search(encoding, x, timeout=20)
    assert result.verdicts.tolist() == ["falsified"]
    move = np.abs(result.counterexamples[0] - 0.5)
    assert 2 * move[0] > 1.9 * move.max()


def test_what_is_searched_for_counterexamples_only_is_never_verified(monkeypatch):
    # 1.9 is broken next to the reference point alone; nothing is found there if no candidate is
    # confirmed, and what bounds prove farther out is no proof of the ball.
    monkeypatch.setattr(_complete.PointSearch, "confirms", lambda self, *args, **options: False)
    monkeypatch.setattr(_exact._Search, "open_limit", {"max_domains": 200})
    verifier, x = Exact(FGSM()), torch.tensor([[0.5, 0.5]])
    encoding = verifier.encode(kinked(), LipschitzRobustness([0.02, 0.5], lipschitz=1.9))
    result = verifier.search(encoding, x)
    assert result.verdicts.tolist() == ["unknown"]
    assert result.reasons[0] is Reason.INCOMPLETE
    assert np.isneginf(result.lower[0])


def test_exact_does_not_advise_exact():
    # A corner that an L2 ball just misses: bounds prove it not, and nothing breaks it.
    net = kinked()
    seen = set()
    for margin in np.linspace(0.02, 0.3, 8):
        module = nn.Sequential(net.module, linear([[-1.0, 0.0], [0.0, 0.0]], [margin, 0.0]))
        tilted = Network(module, np.arange(2), 2)
        x, labels = torch.tensor([[0.45, 0.4]]), torch.tensor([0])
        for epsilon in (0.05, 0.1, 0.2):
            property = ClassificationRobustness(epsilon, norm="l2")
            result = decided(Exact(FGSM(), milp_units=0), tilted, property, x, labels, timeout=3)
            seen |= {result.reasons[0]}
    assert Reason.INCOMPLETE in seen and Reason.BOUNDS_TOO_LOOSE not in seen
    assert "Exact" not in Reason.INCOMPLETE.value
