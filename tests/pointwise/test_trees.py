"""The closest point with another label of trees, against enumeration of their cells."""

import numpy as np
import pytest
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier

from skrobust.exceptions import UnresolvedWarning, UnsupportedModelError
from skrobust.pointwise import pointwise_robustness
from skrobust.properties import ClassificationRobustness
from skrobust.scorers import AdversarialFrequency, AdversarialSeverity
from skrobust.verification import TreeVerifier, tree_distances
from skrobust.verification._result import VerificationBuilder
from tests.trees._models import ENSEMBLES, SINGLE, cells, data, fitted

MODELS = SINGLE | ENSEMBLES


def by_enumeration(model, X):
    nearest = []
    for x, label in zip(X, model.predict(X), strict=True):
        points = cells(model, x, np.zeros(len(x)), np.ones(len(x)))
        other = points[model.predict(points) != label]
        nearest.append(np.abs(other - x).max(axis=1).min(initial=np.inf))
    return np.array(nearest)


@pytest.mark.parametrize("name", MODELS)
def test_radii_are_those_of_the_closest_cells(name):
    model = fitted(MODELS[name], n_classes=2 if name == "exponential" else 3)
    X = data(seed=1)[0][:4]
    expected = by_enumeration(model, X)
    found = pointwise_robustness(model, X, method="exact", random_state=0)
    np.testing.assert_array_equal(found.radius, expected)
    np.testing.assert_array_equal(found.lower, np.where(np.isinf(expected), found.lower, expected))
    assert set(found.status) <= {"optimal", "no adversarial example"}
    is_found = np.isfinite(expected)
    points = found.adversarial_examples[is_found]
    assert (model.predict(points) != model.predict(X[is_found])).all()
    np.testing.assert_array_equal(np.abs(points - X[is_found]).max(axis=1), expected[is_found])


def test_labels_and_limits():
    model, X = fitted(ENSEMBLES["hist"]), data(seed=1)[0][:9]
    y = model.predict(X)
    y[:3] = (y[:3] + 1) % 3
    found = pointwise_robustness(model, X, y=y, method="exact", epsilon_max=0.04)
    everything = pointwise_robustness(model, X, method="exact").radius
    assert (found.radius[:3] == 0).all()
    assert (found.status[:3] == "already misclassified").all()
    near = everything[3:] <= 0.04
    assert 0 < near.sum() < 6
    np.testing.assert_array_equal(found.radius[3:], np.where(near, everything[3:], np.inf))
    assert (found.status[3:][~near] == "above epsilon_max").all()


def test_a_single_tree_behind_a_scaler_has_the_closed_form():
    X, y = data(n_features=3, n=80)
    X = X * [1e4, 1.0, 1e-3]
    model = make_pipeline(StandardScaler(), DecisionTreeClassifier(random_state=0)).fit(X, y)
    found = pointwise_robustness(model, X[:8], method="exact", bounds=None, epsilon_max=1e5)
    np.testing.assert_array_equal(found.radius, tree_distances(model, X[:8]))


def test_frequency_and_severity():
    model, X = fitted(ENSEMBLES["boosting"]), data(seed=1)[0][:9]
    radius = by_enumeration(model, X)
    epsilon = float(np.median(radius))
    frequency = AdversarialFrequency(epsilon, method="exact").evaluate(model, X)
    assert frequency.frequency == (radius <= epsilon).mean()
    severity = AdversarialSeverity(epsilon, method="exact").evaluate(model, X)
    assert severity.severity == pytest.approx(radius[radius <= epsilon].mean(), abs=1e-12)


def test_no_time_is_unresolved():
    model, X = fitted(ENSEMBLES["forest"]), data(seed=1)[0][:4]
    found = pointwise_robustness(model, X, method="exact", timeout=1e-9)
    assert (found.status == "time limit").all()
    assert (found.lower == 0).all() and np.isinf(found.radius).all()


def test_what_needs_a_network_is_refused():
    model, X = fitted(ENSEMBLES["forest"]), data()[0][:4]
    for method in ("lp", "polished", "certified"):
        with pytest.raises(
            UnsupportedModelError, match=rf"method='{method}', but expected .exact"
        ):
            pointwise_robustness(model, X, method=method)
    with pytest.raises(UnsupportedModelError, match=r"method='lp'.*steps"):
        AdversarialFrequency(0.1).evaluate(model, X)


def test_what_ran_out_of_time_counts_against_the_classifier(monkeypatch):
    monkeypatch.setattr(TreeVerifier, "decide", _undecided)
    model, X = fitted(ENSEMBLES["forest"]), data(seed=1)[0][:4]
    with pytest.warns(UnresolvedWarning, match="4 of 4 samples are unresolved"):
        result = AdversarialFrequency(0.1, method="exact").evaluate(model, X)
    assert result.frequency == 1.0


def _undecided(self, encoding, x, labels, **options):
    return VerificationBuilder(x).result()


SCALE = np.array([0.3, 2.0, 0.05])


def nearest_in_units(model, x, unit, down=np.inf, up=np.inf):
    """Return the distance of the closest corner of a cell with another label."""
    points = cells(model, x, np.zeros(len(x)), np.ones(len(x)))
    steps = points - x
    inside = ((steps <= up) & (-steps <= down)).all(axis=1)
    other = inside & (model.predict(points) != model.predict(x[None]))
    return (np.abs(steps[other]) / unit).max(axis=1).min(initial=np.inf)


@pytest.mark.parametrize("name", ["forest", "hist"])
def test_radii_in_units(name):
    model, X = fitted(ENSEMBLES[name]), data(seed=1)[0][:5]
    unit = np.resize(SCALE, X.shape[1])
    options = {"method": "exact", "scale": unit, "random_state": 0}
    found = pointwise_robustness(model, X, **options)
    expected = np.array([nearest_in_units(model, x, unit) for x in X])
    np.testing.assert_allclose(found.radius, expected, rtol=1e-12)
    assert (found.lower <= expected).all()
    np.testing.assert_allclose(found.lower, expected, rtol=1e-12)
    # On one side, and not in the first feature.
    up = np.where(np.arange(X.shape[1]) > 0, 3.0, 0.0)
    found = pointwise_robustness(model, X, epsilon_max=(0.0, up), **options)
    nearest = [nearest_in_units(model, x, unit, 0.0, up * unit) for x in X]
    np.testing.assert_allclose(found.radius, nearest, rtol=1e-12)
    assert np.isfinite(nearest).any()


@pytest.mark.parametrize("sided", [False, True])
def test_scores_with_one_epsilon_for_each_feature(sided):
    model, X = fitted(ENSEMBLES["boosting"]), data(seed=1)[0][:9]
    epsilon = np.resize([0.0, 0.3, 0.1], X.shape[1])
    epsilon = (epsilon, epsilon / 4) if sided else epsilon
    property = ClassificationRobustness(epsilon, reference="prediction")
    broken = TreeVerifier().verify(model, X, property=property).verdicts == "falsified"
    assert 0 < broken.sum() < len(X)
    found = AdversarialFrequency(epsilon, method="exact").evaluate(model, X)
    np.testing.assert_array_equal(found.radius <= 1, broken)
    severity = AdversarialSeverity(epsilon, method="exact").evaluate(model, X)
    assert severity.severity == pytest.approx(found.radius[broken].mean(), abs=1e-9)
