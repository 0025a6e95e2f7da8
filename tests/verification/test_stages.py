"""Tests of bounds in stages: no stage changes a verdict, and each is asked for what is open."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from skrobust import TorchClassifier
from skrobust.properties import ClassificationRobustness, StrongClassificationRobustness
from skrobust.verification import Bounds
from skrobust.verification._stages import Stages

ALL = Stages._single_stages


def network(seed, widths=(6, 8, 8, 8, 3)):
    """A perceptron whose decision borders are spread over the domain."""
    generator = torch.Generator().manual_seed(seed)
    layers = []
    for before, after in pairwise(widths):
        layer = nn.Linear(before, after).requires_grad_(False)
        layer.weight.copy_(torch.randn(after, before, generator=generator) * (2 / before) ** 0.5)
        layer.bias.copy_(0.1 * torch.randn(after, generator=generator))
        layers += [layer, nn.ReLU()]
    return TorchClassifier(nn.Sequential(*layers[:-1]), np.arange(widths[-1]), bounds=(0, 1))


def verify(model, epsilon, method="crown", n=8, kind=ClassificationRobustness, **options):
    X = np.random.RandomState(0).rand(n, 6).astype(np.float32)
    y = model.predict(X)
    property = kind(epsilon, **options)
    return Bounds(method, n_steps=2).verify(model, X, y, property=property)


def only(*kept):
    """Leave out all stages in float32 but those at the places `kept`."""

    def stages(self):
        every = ALL(self)
        return [stage for place, stage in enumerate(every) if place in kept]

    return stages


@settings(max_examples=10)
@given(st.integers(0, 10**6), st.sampled_from([0.01, 0.05, 0.1, 0.2]))
@pytest.mark.parametrize("method", ["ibp", "crown", "alpha-crown"])
def test_no_stage_loses_a_verdict(method, seed, epsilon):
    model = network(seed)
    found = verify(model, epsilon, method)
    with pytest.MonkeyPatch.context() as patch:
        for kept in ((), (0,), (1,), (2,)):
            patch.setattr(Stages, "_single_stages", only(*kept))
            without = verify(model, epsilon, method)
            # More is proved where lines over looser intervals happen to be the better ones.
            lost = (without.verdicts != found.verdicts) & (found.verdicts != "verified")
            assert not lost.any()
    assert (found.lower[found.verdicts == "verified"] >= 0).all()


@pytest.mark.parametrize(
    "options", [{"norm": "l2"}, {"kind": StrongClassificationRobustness, "eta": 0.3}], ids=str
)
def test_other_balls_and_rows_have_the_verdicts_of_float64(options, monkeypatch):
    found = verify(network(3), 0.05, **options)
    monkeypatch.setattr(Stages, "_single_stages", only())
    assert (found.verdicts == verify(network(3), 0.05, **options).verdicts).all()


def asked(monkeypatch, *arguments):
    """Return how many points each kind of stage was asked for."""
    counts = {}

    def counting(name, function):
        def stage(self, *inputs):
            key = (name, inputs[1]) if name == "_in_single" else name
            query = inputs[3] if name == "_in_single" else inputs[0]
            counts[key] = counts.get(key, 0) + len(query)
            return function(self, *inputs)

        return stage

    for name in ("_in_single", "_exact"):
        monkeypatch.setattr(Stages, name, counting(name, getattr(Stages, name)))
    return counts, verify(*arguments)


def test_easy_points_never_reach_the_dear_stages(monkeypatch):
    counts, found = asked(monkeypatch, network(0), 1e-4)
    assert (found.verdicts == "verified").all()
    assert counts == {("_in_single", False): 8}


def test_float64_is_not_asked_where_float32_misses_by_far(monkeypatch):
    counts, found = asked(monkeypatch, network(0), 0.5)
    assert (found.verdicts == "unknown").any()
    assert counts[("_in_single", True)] == (found.verdicts == "unknown").sum()
    assert "_exact" not in counts


def test_margins_within_the_rounding_of_float32_are_left_to_float64(monkeypatch):
    # Both logits are relu(x) up to 1e-6 of a margin, less than what 1e3 loses in float32.
    class Close(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(6, 1)

        def forward(self, x):
            z = torch.relu(self.linear(x)) * 1e3
            return torch.cat([z + 2.0**-12, z], dim=1)

    module = Close().requires_grad_(False)
    module.linear.weight.fill_(1.0)
    module.linear.bias.zero_()
    model = TorchClassifier(module, np.arange(2), bounds=(0, 1))
    counts, found = asked(monkeypatch, model, 1e-3)
    assert counts["_exact"] > 0
    assert (found.verdicts == "verified").all()
