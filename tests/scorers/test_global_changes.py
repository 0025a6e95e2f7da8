"""The quantitative form of global robustness, as the scorer returns it."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit
from sklearn.base import clone

from skrobust import TorchClassifier
from skrobust.attacks import PGD
from skrobust.properties import ClassificationRobustness
from skrobust.scorers import GlobalRobustness
from skrobust.statistics import hoeffding
from skrobust.verification import Bounds

CR = ClassificationRobustness
BOUNDS = ["hoeffding", "clopper-pearson", "bernstein", "sequential", "anytime"]
own = CR(0.1, reference="prediction")


@pytest.fixture(scope="module")
def line():
    """A classifier of numbers in [0, 1] that changes at 0.5, and 3000 uniform ones."""
    layer = torch.nn.Linear(1, 2)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[-20.0], [20.0]]))
        layer.bias.copy_(torch.tensor([10.0, -10.0]))
    X = np.random.default_rng(0).random((3000, 1))
    return TorchClassifier(layer, 2), X


def true_changes(X, epsilon):
    """Largest change of the logistic function of 40 (x - 0.5), which is monotone."""
    x = X[:, 0]
    p = expit(40 * (x - 0.5))
    up = expit(40 * (np.minimum(x + epsilon, 1) - 0.5)) - p
    down = p - expit(40 * (np.maximum(x - epsilon, 0) - 0.5))
    return np.maximum(up, down)


def test_quantities_are_sandwiched_and_found(line):
    model, X = line
    scorer = GlobalRobustness(own, quantitative="linf-probabilities", random_state=0)
    found = scorer.evaluate(model, X)
    truth = true_changes(X[found.index], 0.1)
    np.testing.assert_allclose(found.changes, truth, atol=1e-3)
    assert (found.changes <= truth + 1e-6).all()
    assert found.side == "upper"
    assert found.score == pytest.approx(1 - found.changes.mean())
    assert found.interval == hoeffding(1 - found.changes)
    both = clone(scorer).set_params(local=Bounds()).evaluate(model, X)
    assert both.side == "both"
    assert (both.change_bounds >= truth).all()
    assert (both.changes <= both.change_bounds).all()
    assert both.score == pytest.approx(1 - both.change_bounds.mean())
    assert both.lower <= 1 - truth.mean() <= both.upper
    # With two classes and a linear network the bound is the change itself.
    np.testing.assert_allclose(both.change_bounds, truth, atol=3e-6)


@pytest.mark.parametrize("method", ["ibp", "crown", "alpha-crown"])
def test_changes_of_a_network_are_sandwiched(digits, digits_model, method):
    _, X, *_ = digits
    scorer = GlobalRobustness(
        CR(0.02), tolerance=0.2, quantitative="linf-probabilities", random_state=0
    )
    scorer.set_params(local=Bounds(method))
    result = scorer.evaluate(digits_model, X)
    x = X[result.index]
    before = digits_model.predict_proba(x)
    random = np.random.default_rng(0)
    for _ in range(200):
        moves = random.choice([-0.02, 0.02], size=x.shape)
        after = digits_model.predict_proba(np.clip(x + moves, 0, 1).astype(np.float32))
        seen = np.abs(after - before).max(axis=1)
        assert (seen <= result.change_bounds).all()
        assert (seen <= result.changes + 0.02).all()  # what the attack finds is as large
    assert (result.changes <= result.change_bounds).all()
    assert result.lower < result.upper
    # CROWN's are far from what is always true.
    loosest = {"ibp": 1.0, "crown": 0.2, "alpha-crown": 0.2}[method]
    assert np.median(result.change_bounds) <= loosest


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10**6), st.integers(2, 4), st.floats(0.01, 0.5))
def test_no_point_of_a_ball_changes_more_than_its_bound(seed, n_classes, epsilon):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        layers = torch.nn.Linear(2, 6), torch.nn.ReLU(), torch.nn.Linear(6, n_classes)
    module = torch.nn.Sequential(*layers).double()
    with torch.no_grad():
        layers[0].weight.mul_(5)
        layers[2].weight.mul_(5)
    X = np.random.default_rng(seed).random((20, 2))
    scorer = GlobalRobustness(
        CR(epsilon),
        tolerance=0.4,
        confidence=0.9,
        quantitative="linf-probabilities",
        local=Bounds(),
        random_state=0,
    )
    result = scorer.evaluate(TorchClassifier(module, n_classes), X)
    x = torch.as_tensor(X[result.index])
    steps = torch.linspace(-epsilon, epsilon, 41, dtype=torch.float64)
    grid = (x[:, None] + torch.cartesian_prod(steps, steps)).clamp(0, 1)
    with torch.no_grad():
        before, after = module(x).softmax(dim=1), module(grid).softmax(dim=2)
    truth = (after - before[:, None]).abs().amax(dim=(1, 2)).numpy()
    assert (truth <= result.change_bounds).all()


def test_probability_bounds_by_hand():
    """Three classes, one feature: all extremes of the logits' differences are at the ends."""
    layer = torch.nn.Linear(1, 3)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[4.0], [0.0], [-2.0]]))
        layer.bias.zero_()
    X = np.full((800, 1), 0.5)
    model = TorchClassifier(layer, 3)
    scorer = GlobalRobustness(
        CR(0.1), local=Bounds(), quantitative="linf-probabilities", random_state=0
    )
    result = scorer.evaluate(model, X)
    z = np.array([4.0, 0.0, -2.0])
    p, low, high = (np.exp(z * at) / np.exp(z * at).sum() for at in (0.5, 0.4, 0.6))
    # Class 0 beats both others most at 0.6, class 2 loses most there.
    truth = max(np.abs(low - p).max(), np.abs(high - p).max())
    np.testing.assert_allclose(result.changes, truth, atol=1e-5)
    np.testing.assert_allclose(result.change_bounds, truth, atol=1e-5)


@pytest.mark.parametrize("local", [PGD(), Bounds()], ids=lambda local: type(local).__name__)
@pytest.mark.parametrize("bound", BOUNDS)
def test_thresholds(line, bound, local):
    model, X = line
    scorer = GlobalRobustness(
        own,
        bound=bound,
        quantitative="linf-probabilities",
        threshold=0.5,
        tolerance=0.1,
        local=local,
        random_state=0,
    )
    result = scorer.evaluate(model, X)
    found, proved = (result.changes <= 0.5).mean(), (result.change_bounds <= 0.5).mean()
    assert result.upper == found
    assert (result.lower, result.score) == (
        (proved, proved) if result.side == "both" else (0, found)
    )
    assert result.side == ("upper" if isinstance(local, PGD) else "both")
    truth = (true_changes(X, 0.1) <= 0.5).mean()
    assert result.interval.low <= truth <= result.interval.high


def test_bernstein_for_a_mean_that_varies_little(line):
    model, X = line
    scorer = GlobalRobustness(
        CR(0.001), bound="bernstein", quantitative="linf-probabilities", random_state=0
    )
    result = scorer.evaluate(model, X)
    assert result.n_used == 1253
    assert result.interval.high - result.interval.low < 0.04
    assert result.tolerance == (result.interval.high - result.interval.low) / 2


def test_a_constant_classifier_changes_nothing():
    layer = torch.nn.Linear(2, 3)
    with torch.no_grad():
        layer.weight.zero_()
    X = np.random.default_rng(0).random((800, 2))
    model = TorchClassifier(layer, 3)
    assert GlobalRobustness(own, random_state=0)(model, X) == 1.0
    quantity = GlobalRobustness(own, quantitative="linf-probabilities", random_state=0)
    assert quantity(model, X) == pytest.approx(1.0)


@pytest.mark.parametrize("threshold", [None, 0.5])
@pytest.mark.parametrize("local", [PGD(), Bounds()], ids=lambda local: type(local).__name__)
def test_the_change_of_the_paper_stands_beside_the_score(line, threshold, local):
    model, X = line
    scorer = GlobalRobustness(
        own, quantitative="linf-probabilities", threshold=threshold, local=local, random_state=0
    )
    result = scorer.evaluate(model, X)
    assert result.mean_change == pytest.approx(1 - result.score)
    changes = result.changes if isinstance(local, PGD) else result.change_bounds
    counted = changes if threshold is None else changes > threshold
    assert result.mean_change == pytest.approx(counted.mean())
    interval = result.mean_change_interval
    assert (interval.low, interval.high) == pytest.approx(
        (1 - result.interval.high, 1 - result.interval.low)
    )
    truth = true_changes(X, 0.1)
    assert interval.low <= (truth if threshold is None else truth > 0.5).mean() <= interval.high
