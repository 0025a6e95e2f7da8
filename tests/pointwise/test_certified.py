"""Sound lower bounds of the radius."""

import numpy as np
import pytest
import torch
from torch import nn

from skrobust import TorchClassifier
from skrobust.graphs import read_graph
from skrobust.pointwise import _methods, pointwise_robustness
from skrobust.pointwise._certified import lowest_margin
from tests.pointwise._nets import convolutional, diagonal, perceptron, points, seeded


@pytest.mark.parametrize(
    ("factory", "n_features"), [(perceptron, 5), (convolutional, 64)], ids=["dense", "conv"]
)
def test_certified_margins_are_below_all_samples(factory, n_features):
    module = seeded(factory).double()
    graph = read_graph(module, n_features)
    generator = torch.Generator().manual_seed(0)
    x = torch.as_tensor(points(5, n_features)).double()
    labels = graph(x).argmax(dim=1)
    for radius in (0.0, 0.01, 0.1, 0.5):
        lower, upper = x - radius, x + radius
        bound = lowest_margin(graph, x, lower, upper, labels)
        refined = lowest_margin(graph, x, lower, upper, labels, refine=True)
        assert (refined >= bound - 1e-9).all()
        for k in range(len(x)):
            noise = torch.rand(400, n_features, generator=generator).double()
            noise = torch.where(noise > 0.5, 1.0, 0.0) if radius > 0.05 else noise
            logits = graph(lower[k] + noise * (upper[k] - lower[k]))
            others = logits.index_fill(1, labels[k], -torch.inf).amax(dim=1)
            margins = logits[:, labels[k]] - others
            assert max(bound[k], refined[k]) <= margins.min()
            if radius == 0:
                assert bound[k] == pytest.approx(margins.min().item(), abs=1e-7)


def test_failure_to_certify_one_point_leaves_the_others_whole(monkeypatch):
    X = np.array([[0.25, 0.25], [0.375, 0.5], [0.0, 0.5]])
    certify = _methods.certified_radius

    def failing(graph, x, *args):
        if (x[:, 0] == 0.375).any():
            raise FloatingPointError("injected")
        return certify(graph, x, *args)

    monkeypatch.setattr(_methods, "certified_radius", failing)
    found = pointwise_robustness(diagonal(), X, method="certified")
    assert found.status.tolist() == ["certified", "numerical failure", "certified"]
    assert found.radius[1] == found.lower[1] == 0.0
    assert (found.radius[[0, 2]] > 0.2).all()
    found = pointwise_robustness(diagonal(), X, method="bracket", random_state=0)
    assert found.lower[1] == 0.0 and found.upper[1] == pytest.approx(0.0625, abs=1e-5)


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e7])
def test_certified_finds_small_radii_in_large_domains(scale):
    module = nn.Linear(2, 2).double()
    module.weight.data = torch.tensor([[0.0, 0.0], [1.0, 0.0]]).double()
    module.bias.data = torch.tensor([0.0, -0.5]).double()
    model = TorchClassifier(module, 2)
    bounds = ([0.0, 0.0], [1.0, scale])
    found = pointwise_robustness(model, [[0.25, 0.0]], method="certified", bounds=bounds)
    assert 0.25 * (1 - 1e-3) <= found.radius[0] <= 0.25


def test_certified_does_not_depend_on_the_other_samples_and_says_what_is_proven():
    # No feature can move; up to 0.375 the sum stays below 1; up to 1/16 nothing was asked.
    model, X = diagonal(), np.array([[0.25, 0.25], [0.375, 0.0]])
    for bounds, options, status in (
        ((X[0], X[0]), {}, "no adversarial example"),
        ((0.0, 0.375), {}, "no adversarial example"),
        ((0.0, 1.0), {"epsilon_max": 0.0625}, "above epsilon_max"),
    ):
        for method in ("certified", "bracket"):
            options = {"method": method, "bounds": bounds, "random_state": 0, **options}
            found = pointwise_robustness(model, X[:1], **options)
            assert found.status.tolist() == [status], (bounds, method)
    both = pointwise_robustness(model, X, method="certified")
    one = pointwise_robustness(model, X[1:], method="certified")
    assert both.radius[1] == one.radius[0]


def test_certified_radius_is_the_largest_that_bounds_prove():
    # Here bounds of the hidden units by CROWN prove more than twice what intervals do.
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = nn.Sequential(
            nn.Linear(50, 300), nn.ReLU(), nn.Linear(300, 300), nn.ReLU(), nn.Linear(300, 10)
        )
    X = np.random.default_rng(0).random((2, 50)).astype(np.float32)
    model = TorchClassifier(module, 10)
    radius = pointwise_robustness(model, X, method="certified").radius
    graph, x = read_graph(module, 50), torch.as_tensor(X).double()
    labels = graph(x).argmax(dim=1)

    def holds(radius, refine):
        step = torch.as_tensor(radius).unsqueeze(1)
        low, high = (x - step).clamp(min=0), (x + step).clamp(max=1)
        return (lowest_margin(graph, x, low, high, labels, refine) > 0).numpy()

    assert holds(radius, True).all()
    assert not holds(1.04 * radius, True).any()
    assert not holds(radius / 2, False).any()
