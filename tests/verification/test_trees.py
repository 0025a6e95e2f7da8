"""Trees: distances and verdicts against brute force over cells, projections, and each other."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.ensemble import (
    HistGradientBoostingClassifier,
    RandomForestClassifier,
)
from sklearn.model_selection import GridSearchCV
from sklearn.tree import DecisionTreeClassifier

from skrobust.exceptions import UnsupportedPropertyError
from skrobust.networks import BlackBox
from skrobust.properties import ClassificationRobustness, StandardRobustness
from skrobust.trees import ExactBall, Rivals, read_trees
from skrobust.verification import Reason, TreeVerifier, _trees
from tests._asserts import assert_inside_ball
from tests.trees._models import ENSEMBLES, SINGLE, cells, data, fitted, lengths


def brute_force(model, property, X, y):
    """Verdicts by `predict` at one point of every cell that the ball touches."""
    verdicts = []
    epsilon = np.broadcast_to(property.epsilon, X.shape[1:])
    for x, label in zip(X, y, strict=True):
        low, high = (-np.inf, np.inf) if property.bounds is None else property.bounds
        lower, upper = np.maximum(x - epsilon, low), np.minimum(x + epsilon, high)
        points = cells(model, x, lower, upper)
        points = points[lengths(points, x, epsilon, property.norm) <= 1]
        broken = (model.predict(points) != label).any()
        verdicts.append("falsified" if broken else "verified")
    return verdicts


def verify(model, property, X, y, method="branch", **options):
    verifier = TreeVerifier(method, max_boxes=options.pop("max_boxes", None))
    network = model if isinstance(model, BlackBox) else BlackBox(model)
    encoding = verifier.encode(network, property)
    labels = None if y is None else network.encode(y)
    return verifier.decide(encoding, network.rows(X), labels, **options)


def assert_sound(model, property, X, y, result):
    """Counterexamples lie in the ball and have another label; nothing else is there."""
    falsified = result.verdicts == "falsified"
    assert np.isnan(result.counterexamples[~falsified]).all()
    points = result.counterexamples[falsified]
    if len(points):
        assert_inside_ball(points, X[falsified], property)
        assert (model.predict(points) != y[falsified]).all()
    reasons = {"verified": {Reason.PROVED}, "falsified": {Reason.COUNTEREXAMPLE}}
    for verdict, reason in zip(result.verdicts, result.reasons, strict=True):
        assert reason in reasons.get(verdict, {Reason.BOUNDS_TOO_LOOSE, Reason.TIME_OUT})
    np.testing.assert_array_equal(
        result.lower, np.where(result.verdicts == "verified", 1, -np.inf)
    )


# ---- verdicts ----------------------------------------------------------------------------

BALLS = {
    "linf": ClassificationRobustness(0.06),
    "l2": ClassificationRobustness(0.08, norm="l2"),
    "features": ClassificationRobustness([0.0, 0.12], norm="linf"),
    "ellipse": ClassificationRobustness([0.0, 0.12], norm="l2", bounds=None),
    "ellipse 2": ClassificationRobustness([0.03, 0.1], norm="l2"),
    "domain": ClassificationRobustness(0.2, bounds=([0.0, 0.4], [0.6, 1.0])),
}


@pytest.mark.parametrize("ball", BALLS)
@pytest.mark.parametrize("name", SINGLE | ENSEMBLES)
@pytest.mark.parametrize("n_classes", [2, 3])
def test_verdicts_are_those_of_brute_force(name, ball, n_classes):
    if name == "exponential" and n_classes == 3:
        pytest.skip("scikit-learn's exponential loss is for two classes")
    property = BALLS[ball]
    model = fitted((SINGLE | ENSEMBLES)[name], n_classes)
    X, y = data(n_classes, n=40, seed=2)
    if ball == "domain":
        inside = (X[:, 0] <= 0.6) & (X[:, 1] >= 0.4)
        X, y = X[inside], y[inside]
    result = verify(model, property, X, y)
    assert result.verdicts.tolist() == brute_force(model, property, X, y)
    assert_sound(model, property, X, y, result)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(["linf", "l2"]), st.floats(0.001, 0.5))
def test_random_forests_are_decided_as_by_brute_force(seed, norm, epsilon):
    model = fitted(RandomForestClassifier(3, max_depth=3, random_state=seed), seed=seed)
    property = ClassificationRobustness(epsilon, norm=norm)
    X, y = data(n=6, seed=seed + 1)
    y = np.where(np.arange(6) % 2, model.predict(X), y)
    result = verify(model, property, X, y)
    assert result.verdicts.tolist() == brute_force(model, property, X, y)


@pytest.mark.parametrize("name", ["forest", "pure forest", "boosting", "hist"])
def test_bounds_are_sound_and_never_beat_the_search(name):
    model = fitted(ENSEMBLES[name], n_features=5)
    X, _ = data(n_features=5, n=40, seed=3)
    y, seen = model.predict(X), set()
    for epsilon in (0.01, 0.04, 0.1):
        property = ClassificationRobustness(epsilon)
        loose = verify(model, property, X, y, "bounds")
        exact = verify(model, property, X, y)
        decided = loose.verdicts != "unknown"
        np.testing.assert_array_equal(loose.verdicts[decided], exact.verdicts[decided])
        assert (exact.verdicts != "unknown").all()
        assert set(loose.reasons[~decided]) <= {Reason.BOUNDS_TOO_LOOSE}
        assert_sound(model, property, X, y, loose)
        seen |= set(loose.verdicts)
    assert {"verified", "falsified"} <= seen


def test_tied_votes_count_as_predict_counts_them():
    X, y = data(2, n=30, seed=5)
    model = RandomForestClassifier(2, random_state=1, max_depth=2).fit(X, y)
    pure = RandomForestClassifier(2, random_state=1).fit(X, y)
    for forest in (model, pure):
        tied = np.isclose(forest.predict_proba(X)[:, 0], 0.5)
        for label in (0, 1):
            property = ClassificationRobustness(0.0)
            verdicts = verify(forest, property, X, np.full(30, label)).verdicts
            np.testing.assert_array_equal(verdicts == "verified", forest.predict(X) == label)
    assert tied.any()  # the first class wins them
    assert (pure.predict(X[tied]) == 0).all()


# ---- what else is asked ------------------------------------------------------------------


@pytest.mark.parametrize("name", ["tree", "forest"])
def test_labels_of_any_kind_and_the_networks_own(name):
    X, y = data()
    names = np.array(["red", "green", "blue"])[y]
    model = clone((SINGLE | ENSEMBLES)[name]).fit(X, names)
    own = ClassificationRobustness(0.05, reference="prediction")
    result = verify(model, own, X, None)
    same = verify(model, ClassificationRobustness(0.05), X, model.predict(X))
    np.testing.assert_array_equal(result.verdicts, same.verdicts)
    assert_sound(model, own, X, model.predict(X), result)
    wrong = verify(model, ClassificationRobustness(0.0), X, names)
    np.testing.assert_array_equal(wrong.verdicts == "verified", model.predict(X) == names)


@pytest.mark.parametrize("wrap", ["network", "search", "frame"])
def test_what_stands_for_an_estimator(wrap):
    X, y = data()
    tree, property = SINGLE["tree"], ClassificationRobustness(0.05)
    expected = verify(clone(tree).fit(X, y), property, X, y).verdicts
    if wrap == "network":
        model = BlackBox(clone(tree).fit(X, y))
    elif wrap == "search":
        model = GridSearchCV(tree, {"max_depth": [4]}, cv=2).fit(X, y)
    else:
        pd = pytest.importorskip("pandas")
        model = clone(tree).fit(pd.DataFrame(X, columns=["a", "b"]), y)
    np.testing.assert_array_equal(verify(model, property, X, y).verdicts, expected)


def test_witnesses_survive_float32():
    model, property = fitted(SINGLE["tree"]), ClassificationRobustness(0.1)
    X, _ = data(n=40, seed=6)
    X, y = X.astype(np.float32).astype(float), model.predict(X)
    result = verify(model, property, X, y)
    points = result.counterexamples[result.verdicts == "falsified"]
    assert len(points) > 5
    np.testing.assert_array_equal(points.astype(np.float32), points)


def test_time_and_boxes_are_limited():
    X, y = data(n_features=12, n=200)
    model = RandomForestClassifier(60, max_depth=6, random_state=0).fit(X, y)
    X, y, property = X[:8], model.predict(X[:8]), ClassificationRobustness(0.05)
    full = verify(model, property, X, y)
    assert "unknown" not in full.verdicts
    late = verify(model, property, X, y, timeout=0.0)
    few = verify(model, property, X, y, max_boxes=1)
    open_ = late.verdicts == "unknown"
    assert open_.any()
    assert set(late.reasons[open_]) == {Reason.TIME_OUT}
    assert set(few.reasons[few.verdicts == "unknown"]) == {Reason.BOUNDS_TOO_LOOSE}
    assert (late.seconds < full.seconds)[full.seconds > 0.1].all()


@pytest.mark.parametrize("name", ["tree", "forest"])
def test_the_result_does_not_depend_on_the_seed_of_torch(name):
    model, property = fitted((SINGLE | ENSEMBLES)[name]), ClassificationRobustness(0.05)
    X, y = data(n=20, seed=7)
    runs = [
        verify(model, property, X, y, generator=torch.Generator().manual_seed(seed))
        for seed in (0, 0, 1)
    ]
    np.testing.assert_array_equal(runs[0].counterexamples, runs[1].counterexamples)
    np.testing.assert_array_equal(runs[0].verdicts, runs[2].verdicts)


def test_a_witness_that_predict_does_not_confirm_is_spurious():
    model = fitted(SINGLE["tree"])
    X, _ = data(n=20, seed=8)
    y = model.predict(X)
    honest = verify(model, ClassificationRobustness(0.1), X, y).verdicts
    known = dict(zip(map(tuple, X), y, strict=True))
    model.predict = lambda points: np.array([known.get(tuple(p), y[0]) for p in points])
    X, y, honest = X[y == y[0]], y[y == y[0]], honest[y == y[0]]
    result = verify(model, ClassificationRobustness(0.1), X, y)
    np.testing.assert_array_equal(result.verdicts == "unknown", honest == "falsified")
    assert (honest == "falsified").any()
    assert set(result.reasons[honest == "falsified"]) == {Reason.SPURIOUS}


# ---- refusals ----------------------------------------------------------------------------


def test_refused_properties():
    tree = fitted(SINGLE["tree"])
    for property in (StandardRobustness(), ClassificationRobustness() & StandardRobustness()):
        name = type(property).__name__
        with pytest.raises(UnsupportedPropertyError, match=f"Got a {name}, but TreeVerifier"):
            TreeVerifier().encode(BlackBox(tree), property)
    with pytest.raises(TypeError, match="Got property=None"):
        TreeVerifier().encode(BlackBox(tree), None)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"method": "smt"}, "Got method='smt', but expected one of 'branch', 'bounds'"),
        ({"max_boxes": 0}, "Got max_boxes=0, but expected an integer of at least 1"),
    ],
)
def test_bad_parameters(params, message):
    with pytest.raises(ValueError, match=message):
        TreeVerifier(**params).encode(BlackBox(fitted(SINGLE["tree"])), ClassificationRobustness())


def test_the_border_of_a_ball_is_exact():
    # In binary, 0.1 + 0.2 lies above 0.3, and so the ball around 0.1 ends at the number
    # that `0.1 + 0.2` rounds to, or below; the boosted tree compares float64 numbers.
    X = np.array([[0.1], [0.5]]).repeat(20, axis=0)
    model = HistGradientBoostingClassifier(max_iter=1, min_samples_leaf=1, max_bins=2)
    model.fit(X, np.arange(40) // 20)
    nodes = model._predictors[0][0].nodes
    top = ExactBall.around(np.array([[0.1]]), ClassificationRobustness(0.2)).upper[0, 0]
    for threshold, verdict in ((top, "verified"), (np.nextafter(top, 0), "falsified")):
        nodes["num_threshold"][0] = threshold
        result = verify(model, ClassificationRobustness(0.2), [[0.1]], np.array([0]))
        assert result.verdicts.tolist() == [verdict]
    assert result.counterexamples[0, 0] == top


def test_a_tree_of_one_label_is_verified_everywhere():
    tree = DecisionTreeClassifier(min_samples_leaf=2).fit([[0.0], [1.0], [2.0]], [1, 0, 1])
    result = verify(tree, ClassificationRobustness(5.0, bounds=None), [[0.3]], np.array([1]))
    assert result.verdicts.tolist() == ["verified"]


def test_trees_are_read_once(monkeypatch):
    model, calls = fitted(ENSEMBLES["forest"]), []
    monkeypatch.setattr(_trees, "read_trees", lambda m: calls.append(m) or read_trees(m))
    X, y = data()
    TreeVerifier().verify(model, X, y, property=ClassificationRobustness(0.05))
    assert len(calls) == 1


def test_counterexamples_of_any_input_are_float64():
    tree = DecisionTreeClassifier().fit([[0.0], [1.0]], [0, 1])
    encoding = TreeVerifier().encode(BlackBox(tree), ClassificationRobustness(0.1))
    x = torch.tensor([[0.45]])  # float32
    assert (
        TreeVerifier().decide(encoding, x, torch.tensor([0])).counterexamples.dtype == np.float64
    )


def test_what_predict_does_not_confirm_is_searched_again(monkeypatch):
    """Our own scores speak first, `predict` last: verdicts stand where the scores are wrong."""
    model, (X, y) = fitted(ENSEMBLES["forest"]), data(seed=3)
    property = ClassificationRobustness(0.05, reference="prediction")
    expected = TreeVerifier().verify(model, X[:8], y[:8], property=property).verdicts
    right = Rivals.at
    monkeypatch.setattr(Rivals, "at", lambda self, points: right(self, points) + 10.0)
    found = TreeVerifier().verify(model, X[:8], y[:8], property=property).verdicts
    np.testing.assert_array_equal(found, expected)
    assert set(expected) == {"verified", "falsified"}
