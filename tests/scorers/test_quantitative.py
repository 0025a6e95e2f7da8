"""Changes of probabilities: found from below, proved from above, with the truth in between."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.special import expit
from torch import nn

from skrobust.attacks import FGSM, PGD
from skrobust.graphs import read_graph
from skrobust.networks import Network
from skrobust.properties import ClassificationRobustness, StandardRobustness
from skrobust.scorers._quantitative import (
    bounded_change,
    change,
    change_scores,
    mean_change,
    same_label,
)
from skrobust.statistics import Interval
from skrobust.verification import Bounds
from tests._modules import build

PROPERTY = StandardRobustness(0.1, 1e-9, output="probabilities", bounds=None)
ROWS = np.linspace(-1, 1, 7)[:, None]


def line(slope=2.0):
    """Logits (0, slope x): the probability of class 1 is expit(slope x)."""
    module = nn.Linear(1, 2).double().requires_grad_(False)
    module.weight.copy_(torch.tensor([[0.0], [slope]]))
    module.bias.zero_()
    return Network(module, np.arange(2), 1)


def encoded(network):
    """Return what a verifier's encoding holds, as far as bounds of changes look at it."""
    return SimpleNamespace(network=network, graph=read_graph(network), property=PROPERTY)


def largest_change(x, slope=2.0, epsilon=0.1):
    at, ends = expit(slope * x), (expit(slope * (x - epsilon)), expit(slope * (x + epsilon)))
    return np.maximum(np.abs(ends[0] - at), np.abs(ends[1] - at))[:, 0]


def test_one_step_changes_the_probability_that_changes_most():
    # In a small ball, the largest change is at one of the corners of the linearized outputs.
    random = torch.Generator().manual_seed(0)
    module = nn.Linear(5, 4).double().requires_grad_(False)
    module.weight.copy_(torch.randn(4, 5, generator=random))
    module.bias.zero_()
    x = torch.randn(20, 5, generator=random).double()
    property = StandardRobustness(1e-3, 1.0, output="probabilities", bounds=None)
    network = Network(module, np.arange(4), 5)
    arrays = change(network, x.numpy(), None, 0, property=property, attack=FGSM())
    jacobian = torch.func.vmap(torch.func.jacrev(lambda one: torch.softmax(module(one), -1)))(x)
    largest = 1e-3 * jacobian.abs().sum(dim=2).amax(dim=1)
    np.testing.assert_allclose(arrays["changes"], largest, rtol=0.01)
    # The row of class 0 alone, which all others tie with at the reference, does not do.
    first = 1e-3 * jacobian.abs().sum(dim=2)[:, 0]
    assert (first < 0.9 * largest).sum() > 5


def test_an_attack_reaches_the_largest_change_of_a_monotone_classifier():
    arrays = change(line(), ROWS, None, 0, property=PROPERTY, attack=PGD())
    np.testing.assert_allclose(arrays["changes"], largest_change(ROWS), rtol=0, atol=1e-6)
    assert arrays["change_bounds"].tolist() == [1.0] * 7


def test_bounds_are_proved_and_tight_for_a_monotone_classifier():
    arrays = bounded_change(
        encoded(line()), ROWS, None, 0, property=PROPERTY, attack=PGD(), bounds=Bounds()
    )
    exact = largest_change(ROWS)
    assert (arrays["changes"] <= exact + 1e-12).all()
    assert (arrays["change_bounds"] >= exact).all()
    np.testing.assert_allclose(arrays["change_bounds"], exact, rtol=0, atol=1e-5)


def test_a_saturated_softmax_hides_no_change_of_label():
    # At x = 0.05 with a slope of 1000 nothing has a gradient; the label changes all the same.
    arrays = change(line(1000.0), np.array([[0.05]]), None, 0, property=PROPERTY, attack=PGD())
    assert arrays["changes"][0] == pytest.approx(1.0)


@pytest.mark.parametrize("method", ["ibp", "crown", "alpha-crown"])
def test_no_sampled_change_is_above_its_bound(method, monkeypatch):
    # A few samples at a time give the same as all together.
    monkeypatch.setattr("skrobust.scorers._quantitative.NUMBERS_AT_ONCE", 100)
    module = build(lambda: nn.Sequential(nn.Linear(3, 6), nn.ReLU(), nn.Linear(6, 4)))
    network = Network(module.double().requires_grad_(False), np.arange(4), 3)
    rows = np.random.default_rng(0).random((6, 3))
    arrays = bounded_change(
        encoded(network), rows, None, 0, property=PROPERTY, attack=PGD(3), bounds=Bounds(method)
    )
    x = torch.as_tensor(rows)
    points = PROPERTY.ball(x).sample(2_000, torch.Generator().manual_seed(0))
    before, after = (torch.softmax(network(part), dim=-1) for part in (x, points))
    sampled = (after - before[:, None]).abs().amax(dim=(1, 2)).numpy()
    assert (sampled <= arrays["change_bounds"]).all()
    assert (arrays["changes"] <= arrays["change_bounds"]).all()
    assert (arrays["change_bounds"] <= 1).all()


def test_same_label_asks_in_the_same_balls():
    property = StandardRobustness([0.1, 0.2], 0.5, norm="l2", bounds=(-1, 1))
    expected = ClassificationRobustness(
        [0.1, 0.2], norm="l2", bounds=(-1, 1), reference="prediction"
    )
    assert same_label(property) == expected


def test_scores_by_hand():
    arrays = {"changes": np.array([0.1, 0.5]), "change_bounds": np.array([0.25, 1.0])}
    plain = change_scores(arrays, None, proves=True)
    assert plain["upper"].tolist() == [0.9, 0.5] and plain["lower"].tolist() == [0.75, 0.0]
    cut = change_scores(arrays, 0.25, proves=True)
    assert cut["upper"].tolist() == [True, False] and cut["lower"].tolist() == [True, False]
    assert list(change_scores(arrays, 0.1, proves=False)) == ["upper"]


def test_the_mean_change_turns_the_score_around():
    fields = mean_change(0.75, Interval(0.5, 1.0, 0.9, "hoeffding"))
    assert fields["mean_change"] == 0.25
    assert fields["mean_change_interval"] == Interval(0.0, 0.5, 0.9, "hoeffding")
