"""Tests of the initialization and the regularizers for intervals: by hand, and in training."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from skrobust import RobustClassifier
from skrobust.bounds import relax
from skrobust.graphs import read_live
from skrobust.properties import ClassificationRobustness
from skrobust.training import CertifiedTraining
from skrobust.training._short_warmup import imbalance, initialize


def deep(width=200, depth=6):
    layers = []
    for _ in range(depth):
        layers += [nn.Linear(width, width), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(width, 2))


def intervals(module, x, epsilon=0.01):
    ball = ClassificationRobustness(epsilon, bounds=None).ball(x)
    with torch.no_grad():
        return relax(read_live(module, x)[0], ball, refine=False, lines=False, rounding=False)


def widths(relaxation):
    """Mean widths before each rectifier, relative to that of the input."""
    lows, highs = relaxation.lows, relaxation.highs
    nodes = [node.inputs[0] for node in relaxation.graph.nodes if type(node).__name__ == "Relu"]
    return np.array([((highs[j] - lows[j]).mean() / 0.02).item() for j in nodes])


def test_intervals_keep_their_widths():
    torch.manual_seed(0)
    module, x = deep(), torch.randn(20, 200)
    before = widths(intervals(module, x))
    initialize(module, torch.Generator().manual_seed(0))
    after = widths(intervals(module, x))
    assert before[-1] > 50
    # The first layer has no rectifier before it, which would halve the widths.
    np.testing.assert_allclose(after[0], 2, rtol=0.1)
    assert (after[1:] > 0.8).all() and (after[1:] < 4).all()


def test_the_last_layer_and_norms_keep_their_weights():
    module = nn.Sequential(
        nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(12, 2)
    )
    kept = [module[1].weight.clone(), module[4].weight.clone(), module[0].bias.clone()]
    initialize(module, torch.Generator().manual_seed(0))
    assert all(map(torch.equal, kept, [module[1].weight, module[4].weight, module[0].bias]))
    assert module[0].weight.std().item() == pytest.approx(math.sqrt(2 * math.pi) / 18, rel=0.4)


def one_unit(module, x, epsilon):
    return imbalance(intervals(module, x, epsilon)).item()


def test_regularizers_by_hand():
    # Two units z = 4 x_0 and z = 2 x_1, over boxes of half-width 0.1: mean widths 0.8 and 0.4,
    # in the mean 0.6; the ratio to 0.2 is 1/3, so (0.5 - 1/3) / 0.5 = 1/3 for the widening.
    module = nn.Sequential(nn.Linear(2, 2, bias=False), nn.ReLU(), nn.Linear(2, 2))
    with torch.no_grad():
        module[0].weight.copy_(torch.tensor([[4.0, 0.0], [0.0, 2.0]]))
    # Centers 4 and -1, active and inactive. Means: 1 / 4. Deviations from the mean of 1.5: equal.
    x = torch.tensor([[1.0, -0.5]])
    assert one_unit(module, x, 0.1) == pytest.approx(1 / 3 + (0.5 - 0.25) / 0.5, rel=1e-5)
    # Both are active: no ratio.
    x = torch.tensor([[1.0, 0.5]])
    assert one_unit(module, x, 0.1) == pytest.approx(1 / 3, rel=1e-5)
    # As wide as the input, and balanced.
    with torch.no_grad():
        module[0].weight.copy_(torch.eye(2))
    assert one_unit(module, torch.tensor([[1.0, -1.0]]), 0.1) == 0


def test_a_net_without_rectifiers_has_none():
    module = nn.Sequential(nn.Linear(2, 3), nn.Tanh(), nn.Linear(3, 2))
    assert one_unit(module, torch.rand(4, 2), 0.1) == 0


def test_later_calls_of_partial_fit_go_on_with_their_weights(digits):
    X, _, y, _ = digits
    model = RobustClassifier(
        property=ClassificationRobustness(0.05), random_state=0, lr=1e-9,
        training=CertifiedTraining(initialization="ibp", ramp_epochs=1),
    )  # fmt: skip
    first = weights(model.partial_fit(X[:50], y[:50], classes=np.arange(10)))
    assert first[0].std().item() == pytest.approx(math.sqrt(2 * math.pi) / 64, rel=0.1)
    for before, after in zip(first, weights(model.partial_fit(X, y)), strict=True):
        torch.testing.assert_close(before, after, rtol=0, atol=1e-6)


def weights(model):
    return [weight.detach().clone() for weight in model.net_.module_.parameters()]


def test_the_same_seed_gives_the_same_weights(digits):
    X, _, y, _ = digits
    models = [
        RobustClassifier(
            property=ClassificationRobustness(0.05), max_epochs=2, random_state=3,
            training=CertifiedTraining("sabr", initialization="ibp", ramp_epochs=1),
        ).fit(X, y)
        for _ in range(2)
    ]  # fmt: skip
    assert all(map(torch.equal, *map(weights, models)))
