"""Scorers in units of the features: the same as on features that were scaled by hand."""

import numpy as np
import pytest
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skrobust.pointwise import pointwise_robustness
from skrobust.scorers import (
    AdversarialFrequency,
    AdversarialSeverity,
    MarginRobustness,
    RobustnessScore,
)

RNG = np.random.default_rng(0)
X = RNG.uniform(size=(60, 3)) * [1.0, 50.0, 2000.0]
Y = (X @ [1.0, 0.03, -0.0006] > 0.8).astype(int)
BOUNDS = X.min(axis=0), X.max(axis=0)


@pytest.fixture(scope="module")
def model():
    network = MLPClassifier((8,), solver="lbfgs", max_iter=300, random_state=0)
    return make_pipeline(StandardScaler(), network).fit(X, Y)


def by_hand(model):
    """Return the network alone, and data and bounds as it sees them."""
    scaler, network = model
    return network, scaler.transform(X), tuple(scaler.transform(np.vstack(BOUNDS)))


@pytest.mark.parametrize("method", ["lp", "attack", "certified", "exact"])
def test_radii_are_those_of_scaled_data(model, method):
    options = {"method": method, "random_state": 0}
    found = pointwise_robustness(model, X[:4], bounds=BOUNDS, scale="std", **options)
    network, Z, bounds = by_hand(model)
    wanted = pointwise_robustness(network, Z[:4], bounds=bounds, **options)
    np.testing.assert_allclose(found.radius, wanted.radius, atol=2e-3)  # precision of "exact"
    there = np.isfinite(found.adversarial_examples).all(axis=1)
    points = found.adversarial_examples[there]
    if method != "certified":
        assert there.any()
        assert (model.predict(points) != model.predict(X[:4][there])).all()
        assert ((points >= BOUNDS[0]) & (points <= BOUNDS[1])).all()
        moved = np.abs(points - X[:4][there]) / model[0].scale_
        np.testing.assert_allclose(moved.max(axis=1), found.radius[there], rtol=1e-9)


def test_limits_of_features_hold_and_agree_with_the_exact_distance(model):
    limits = np.array([0.0, 0.4, 0.0]), np.array([0.0, 0.4, 0.4])
    options = {"bounds": BOUNDS, "scale": "std", "epsilon_max": limits, "random_state": 0}
    attack = pointwise_robustness(model, X[:20], method="attack", **options)
    exact = pointwise_robustness(model, X[:20], method="exact", **options)
    moved = (attack.adversarial_examples - X[:20]) / model[0].scale_
    there = np.isfinite(attack.radius)
    assert there.any() and not there.all()
    assert (moved[there, 0] == 0).all() and (moved[there, 2] >= 0).all()
    assert (attack.radius >= exact.lower - 1e-9).all()
    # A free search comes closer, or as close.
    free = pointwise_robustness(model, X[:20], **options | {"method": "exact", "epsilon_max": 0.4})
    assert (free.lower <= exact.radius + 1e-3).all()


def test_one_epsilon_for_each_feature_is_a_scale(model):
    epsilon = model[0].scale_ * 0.3
    options = {"bounds": BOUNDS, "method": "lp"}
    each = AdversarialFrequency(epsilon, **options).evaluate(model, X)
    scaled = AdversarialFrequency(0.3, scale="std", **options).evaluate(model, X)
    assert each.frequency == scaled.frequency > 0
    np.testing.assert_allclose(each.radius * 0.3, scaled.radius, rtol=1e-6)
    severity = AdversarialSeverity(epsilon, **options)(model, X)
    assert abs(severity * 0.3 - scaled.severity) < 1e-6
    fixed = AdversarialFrequency(0 * epsilon, **options).evaluate(model, X)
    assert fixed.frequency == 0 and fixed.severity == 0
    up = AdversarialFrequency((0 * epsilon, epsilon), **options).evaluate(model, X)
    there = np.isfinite(up.radius)
    assert 0 < up.frequency <= each.frequency
    assert (up.adversarial_examples[there] >= X[there]).all()


def test_margins_and_shares_are_those_of_scaled_data(model):
    network, Z, bounds = by_hand(model)
    scaled = {"bounds": BOUNDS, "scale": "std", "random_state": 0}
    plain = {"bounds": bounds, "random_state": 0}
    for norm in ("linf", "l2"):
        found = MarginRobustness(norm, **scaled).evaluate(model, X)
        wanted = MarginRobustness(norm, **plain).evaluate(network, Z)
        np.testing.assert_allclose(found.radius, wanted.radius, rtol=1e-3)
    found = RobustnessScore(epsilons=[0.2, 0.5], **scaled).evaluate(model, X)
    wanted = RobustnessScore(epsilons=[0.2, 0.5], **plain).evaluate(network, Z)
    assert abs(found.score - wanted.score) < 1e-3
    up = MarginRobustness(**scaled, epsilon_max=(0.0, 0.5)).evaluate(model, X)
    there = np.isfinite(up.radius)
    assert (up.adversarial_examples[there] >= X[there] - 1e-9).all()
    assert up.epsilon_max == 0.5


def test_a_scale_is_refused_where_points_come_in_raw_units(model):
    scorer = RobustnessScore(lambda *args: args[0], scale="std")
    with pytest.raises(ValueError, match="callable neighborhood"):
        scorer.evaluate(model, X)
    with pytest.raises(ValueError, match="above 0 in some feature"):
        MarginRobustness(epsilon_max=[0.0, 0.0, 0.0]).evaluate(model, X)
