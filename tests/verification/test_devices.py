"""Verifiers of networks on another device, without one: see `tests._devices`."""

import numpy as np
import pytest
import torch
from torch import nn

from skrobust import TorchClassifier, pointwise_robustness
from skrobust.attacks import FGSM
from skrobust.networks import Network
from skrobust.properties import (
    ClassificationRobustness,
    LipschitzRobustness,
    StandardRobustness,
    StrongClassificationRobustness,
)
from skrobust.scorers import ConstraintSatisfaction
from skrobust.verification import Bounds, Cascade, Exact, Marabou
from tests._devices import DEVICE, FakeDevice, moved
from tests.verification._tensors import decided

CR, SR, LR = ClassificationRobustness, StandardRobustness, LipschitzRobustness
SCR = StrongClassificationRobustness


class Pooled(nn.Module):
    """Clamps and a max-pool, which only programs decide."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(3, 4), nn.Linear(2, 3)

    def forward(self, x):
        x = self.first(x).clamp(-0.3, 0.4).unsqueeze(1)
        return self.last(nn.functional.max_pool1d(x, 2).flatten(1))


def module(kind, seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        if kind == "pooled":
            return Pooled().requires_grad_(False)
        layers = nn.Linear(3, 12), nn.ReLU(), nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 3)
        net = nn.Sequential(*layers).requires_grad_(False)
        for layer in layers[::2]:
            layer.weight.mul_(2)
        return net


def points(n=4):
    return torch.rand(n, 3, generator=torch.Generator().manual_seed(0))


def on_both(verifier, kind, property, **options):
    """Verdicts of the same question on the CPU and on the fake device."""
    x = points()
    here = Network(module(kind), np.arange(3), 3)
    labels = here(x).argmax(dim=1)
    expected = decided(verifier, here, property, x, labels, **options)
    with FakeDevice():
        there = Network(moved(module(kind)), np.arange(3), 3)
        assert there.device == DEVICE
        x, labels = x.to(DEVICE), labels.to(DEVICE)
        found = decided(verifier, there, property, x, labels, **options)
    assert type(found.counterexamples) is np.ndarray
    return expected.verdicts.tolist(), found.verdicts.tolist()


PROPERTIES = [
    CR(0.2),
    CR(0.2, norm="l2"),
    CR(np.array([0.3, 0.0, 0.1])),
    SR(0.2, 0.6),
    LR(0.2, 1.5),
    SCR(0.1, 0.4),
]


@pytest.mark.parametrize("property", PROPERTIES, ids=repr)
@pytest.mark.parametrize(
    "verifier",
    [Exact(FGSM()), Exact(FGSM(), milp_units=0), Cascade(timeout=20), Bounds("alpha-crown")],
    ids=["programs", "branching", "cascade", "bounds"],
)
def test_verdicts_are_those_of_the_cpu(monkeypatch, verifier, property):
    monkeypatch.setattr("skrobust.verification._exact._FIRST_DOMAINS", 100)
    expected, found = on_both(verifier, "units", property)
    assert found == expected


@pytest.mark.parametrize("property", [CR(0.2), SR(0.3, 0.05)], ids=repr)
def test_programs_of_clamps_and_pools(property):
    expected, found = on_both(Exact(FGSM()), "pooled", property)
    assert found == expected


def test_marabou():
    pytest.importorskip("maraboupy")
    expected, found = on_both(Marabou(), "units", CR(0.1), timeout=20)
    assert found == expected


def test_the_fake_device_refuses_what_a_real_one_would():
    with FakeDevice():
        x = torch.ones(3, device=DEVICE)
        assert (
            x.device == DEVICE
            and (2 * x).device == DEVICE
            and torch.zeros_like(x).device == DEVICE
        )
        with pytest.raises(RuntimeError, match="and on cpu"):
            x + torch.ones(3)
        with pytest.raises(RuntimeError, match="use cpu"):
            x.numpy()
        assert x.cpu().numpy().tolist() == [1.0] * 3
        assert x[torch.tensor([0])].device == DEVICE


def test_scorers_and_the_door(monkeypatch):
    generator = torch.Generator
    X, y = points(3).numpy(), np.zeros(3, dtype=int)
    here = TorchClassifier(module("units"), 3)
    scorer = ConstraintSatisfaction(CR(0.2), random_state=0)
    expected = scorer.evaluate(here, X, y).verdicts
    with FakeDevice():
        monkeypatch.setattr(torch, "Generator", lambda device=None: generator())
        there = TorchClassifier(moved(module("units")), 3)
        np.testing.assert_array_equal(scorer.evaluate(there, X, y).verdicts, expected)
        found = Cascade().verify(there, X, y, property=CR(0.2), random_state=0)
    np.testing.assert_array_equal(found.verdicts, expected)


def test_exact_radii(monkeypatch):
    generator = torch.Generator
    X = points(2).numpy()
    options = {"method": "exact", "y": np.zeros(2, dtype=int), "random_state": 0}
    here = pointwise_robustness(TorchClassifier(module("units"), 3), X, **options)
    with FakeDevice():
        monkeypatch.setattr(torch, "Generator", lambda device=None: generator())
        there = pointwise_robustness(TorchClassifier(moved(module("units")), 3), X, **options)
    np.testing.assert_allclose(there.radius, here.radius, rtol=1e-3)
