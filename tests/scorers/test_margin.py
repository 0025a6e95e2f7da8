"""Margins: closed forms of linear classifiers, invariances, who won, and what is not found."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from joblib import parallel_config
from scipy.optimize import linprog
from sklearn.base import clone
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skrobust import TorchClassifier
from skrobust.attacks import FGSM, PGD, Ensemble, LinearBoundary, UniformSampling
from skrobust.displays import RobustnessCurveDisplay
from skrobust.exceptions import UnsupportedModelError
from skrobust.pointwise import pointwise_robustness
from skrobust.scorers import MarginRobustness
from skrobust.statistics import empirical_bernstein


def linear(weight, bias, classes=None):
    layer = torch.nn.Linear(len(weight[0]), len(weight)).double()
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(weight))
        layer.bias.copy_(torch.tensor(bias))
    return TorchClassifier(layer, len(weight) if classes is None else classes)


def linear_margins(weight, bias, X, dual, labels=None):
    """Distance to the closest other class of a linear classifier, without bounds."""
    weight, X = np.asarray(weight, dtype=float), np.asarray(X, dtype=float)
    z = X @ weight.T + bias
    own = z.argmax(axis=1) if labels is None else labels
    gaps = z[np.arange(len(X)), own][:, None] - z
    slopes = np.linalg.norm(weight[own][:, None] - weight, dual, axis=2)
    distance = np.divide(gaps, slopes, out=np.full_like(gaps, np.inf), where=slopes > 0)
    return distance.min(axis=1).clip(min=0)


@pytest.fixture(scope="module")
def split():
    """Changes at 0.5; distances 0.3, 0.15, 0.05, 0.25."""
    return linear([[-1.0], [1.0]], [0.5, -0.5]), np.array([[0.2], [0.35], [0.55], [0.75]])


# ---- closed forms --------------------


@pytest.mark.parametrize(("norm", "dual"), [("linf", 1), ("l2", 2)])
def test_margins_of_a_linear_classifier(digits, norm, dual):
    X, X_test, y, _ = digits
    model = LogisticRegression(max_iter=500).fit(X.astype(np.float64), y)
    X_test = X_test.astype(np.float64)
    truth = linear_margins(model.coef_, model.intercept_, X_test, dual)
    scorer = MarginRobustness(norm, epsilon_max=4.0, bounds=None, random_state=0)
    result = scorer.evaluate(model, X_test)
    np.testing.assert_allclose(result.radius, truth, atol=1e-6)
    assert (result.radius >= truth - 1e-9).all()
    assert result.score == pytest.approx(truth.mean(), abs=1e-6)
    moved = result.adversarial_examples
    assert (model.predict(moved) != model.predict(X_test)).all()
    order = np.inf if norm == "linf" else 2
    np.testing.assert_allclose(np.linalg.norm(moved - X_test, order, axis=1), result.radius)


def test_margins_inside_the_domain_are_those_of_a_linear_program(digits):
    X, X_test, y, _ = digits
    model = LogisticRegression(max_iter=500).fit(X.astype(np.float64), y)
    X_test = X_test[:20].astype(np.float64)
    scorer = MarginRobustness(random_state=0)
    rough = scorer.evaluate(model, X_test).radius
    # Where the box cuts the move, a part of the overshoot stays.
    exact = scorer.set_params(attack__linear__overshoot=0.0).evaluate(model, X_test).radius
    np.testing.assert_allclose(rough, exact, rtol=1e-3)
    for x, radius in zip(X_test, exact, strict=True):
        own = model.predict(x[None])[0]
        best = np.inf
        for other in set(range(10)) - {own}:
            # Smallest t with |d| <= t, x + d inside [0, 1], and the other class level.
            w = model.coef_[other] - model.coef_[own]
            need = model.intercept_[own] - model.intercept_[other] - w @ x
            eye, one = np.eye(64), np.ones((64, 1))
            found = linprog(
                np.r_[np.zeros(64), 1],
                A_ub=np.vstack([np.c_[eye, -one], np.c_[-eye, -one], np.r_[-w, 0][None]]),
                b_ub=np.r_[np.zeros(128), -need],
                bounds=[*zip(-x, 1 - x, strict=True), (0, None)],
            )
            best = min(best, found.fun if found.status == 0 else np.inf)
        assert radius == pytest.approx(best, abs=1e-6)


@settings(max_examples=25, deadline=None)
@given(
    st.integers(0, 10**6), st.integers(2, 5), st.integers(1, 6), st.sampled_from(["linf", "l2"])
)
def test_random_linear_classifiers(seed, n_classes, n_features, norm):
    random = np.random.default_rng(seed)
    weight = random.normal(size=(n_classes, n_features))
    bias = random.normal(size=n_classes)
    X = random.random((5, n_features))
    truth = linear_margins(weight, bias, X, 1 if norm == "linf" else 2)
    scorer = MarginRobustness(norm, epsilon_max=100.0, bounds=None, random_state=0)
    result = scorer.evaluate(linear(weight.tolist(), bias.tolist()), X)
    np.testing.assert_allclose(result.distances, np.minimum(truth, 100), rtol=1e-4, atol=1e-6)


def test_pipelines_are_measured_in_raw_space(digits):
    X, X_test, y, _ = (part.astype(np.float64) for part in digits)
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=500)).fit(X, y)
    scaler, last = model[0], model[-1]
    weight = last.coef_ / scaler.scale_
    bias = last.intercept_ - weight @ scaler.mean_
    truth = linear_margins(weight, bias, X_test, 1)
    result = MarginRobustness(epsilon_max=2.0, bounds=None, random_state=0).evaluate(model, X_test)
    np.testing.assert_allclose(result.radius, truth, atol=1e-6)
    assert (model.predict(result.adversarial_examples) != model.predict(X_test)).all()


def test_agrees_with_pointwise_robustness(digits, digits_model):
    _, X, *_ = digits
    attack = Ensemble([("linear", LinearBoundary())])
    ours = MarginRobustness(attack=attack).evaluate(digits_model, X[:50])
    theirs = pointwise_robustness(digits_model, X[:50], method="attack", attack=attack)
    np.testing.assert_allclose(ours.radius, theirs.radius, rtol=1e-3)
    certified = pointwise_robustness(digits_model, X[:50], method="certified")
    assert (ours.radius >= certified.radius).all()


# ---- the score, the area, the interval --------------------


def test_score_area_and_interval_by_hand(split):
    model, X = split
    result = MarginRobustness(epsilon_max=0.5, random_state=0).evaluate(model, X)
    distances = np.array([0.3, 0.15, 0.05, 0.25])
    np.testing.assert_allclose(result.radius, distances, atol=1e-7)
    assert result.score == pytest.approx(0.1875, abs=1e-7)
    assert result.area == pytest.approx(0.375, abs=1e-7)
    assert result.interval == empirical_bernstein(result.distances, 0, 0.5)
    assert result.area_interval == empirical_bernstein(result.distances / 0.5)
    # The area under the drawn curve.
    epsilons = np.linspace(0, 0.5, 301)
    display = RobustnessCurveDisplay.from_radius(result, epsilons=epsilons)
    area = np.trapezoid(display.scores["radius"], epsilons) / 0.5
    assert area == pytest.approx(result.area, abs=2e-3)


def test_what_lies_beyond_counts_as_the_largest_distance(split):
    model, X = split
    result = MarginRobustness(epsilon_max=0.2, random_state=0).evaluate(model, X)
    assert np.isinf(result.radius).tolist() == [True, False, False, True]
    np.testing.assert_allclose(result.distances, [0.2, 0.15, 0.05, 0.2], atol=1e-7)
    assert result.found_by[0] == result.found_by[3] == ""
    assert np.isnan(result.adversarial_examples).any(axis=1).tolist() == [True, False, False, True]
    assert np.isfinite([result.score, result.area, *result.wins.values()]).all()


@pytest.mark.parametrize(("norm", "across"), [("linf", 2.0), ("l2", np.sqrt(5.0))])
def test_the_largest_distance_is_that_across_the_domain(norm, across):
    bounds = (np.array([0.0, -1.0]), np.array([1.0, 1.0]))
    model = linear([[1.0, 0.0], [0.0, 1.0]], [0.2, 0.0])
    result = MarginRobustness(norm, bounds=bounds).evaluate(model, [[0.5, 0.0], [0.1, 0.9]])
    assert result.epsilon_max == pytest.approx(across)
    truth = linear_margins([[1, 0], [0, 1]], [0.2, 0], [[0.5, 0.0], [0.1, 0.9]], 1)
    if norm == "linf":
        np.testing.assert_allclose(result.radius, truth, atol=1e-6)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_a_constant_classifier_scores_all_there_is(norm):
    model = linear([[0.0, 0.0], [0.0, 0.0], [0.0, 0.0]], [1.0, 0.0, -1.0])
    X = np.random.default_rng(0).random((20, 2))
    result = MarginRobustness(norm, epsilon_max=0.7).evaluate(model, X)
    assert result.area == pytest.approx(1.0)
    assert result.score == pytest.approx(0.7)
    assert np.isinf(result.radius).all()
    assert set(result.found_by) == {""}
    assert np.isnan(list(result.wins.values())).all()


def test_a_tie_has_no_margin():
    model = linear([[0.0], [0.0]], [1.0, 1.0])
    assert MarginRobustness()(model, [[0.2], [0.3]]) == 0.0


def test_names_and_order_of_the_classes_do_not_matter(digits):
    X, X_test, y, _ = digits
    model = LogisticRegression(max_iter=500).fit(X.astype(np.float64), y)
    order = np.random.default_rng(0).permutation(10)
    swapped = linear(
        model.coef_[order].tolist(),
        model.intercept_[order].tolist(),
        np.array(list("abcdefghij"))[order],
    )
    scorer = MarginRobustness(random_state=0)
    X_test = X_test[:60].astype(np.float64)
    np.testing.assert_allclose(
        scorer.evaluate(swapped, X_test).radius, scorer.evaluate(model, X_test).radius, rtol=1e-6
    )


# ---- the reference --------------------


def test_misclassified_samples_have_no_margin_by_label(blobs):
    X, y = blobs
    model = LogisticRegression().fit(X, y)
    scorer = MarginRobustness(reference="label", random_state=0)
    result = scorer.evaluate(model, X, y)
    wrong = model.predict(X) != y
    assert wrong.any()
    np.testing.assert_array_equal(result.radius == 0, wrong)
    np.testing.assert_array_equal(result.adversarial_examples[wrong], X[wrong])
    assert set(result.found_by[wrong]) == {""}
    own = clone(scorer).set_params(reference="prediction").evaluate(model, X)
    np.testing.assert_allclose(own.radius[~wrong], result.radius[~wrong])
    assert (own.radius[wrong] > 0).all()


@pytest.mark.parametrize("attack", [None, FGSM()], ids=["ensemble", "fgsm"])
def test_no_attack_wins_a_sample_that_is_adversarial_itself(split, attack):
    model, X = split
    scorer = MarginRobustness(reference="label", attack=attack, random_state=0)
    result = scorer.evaluate(model, X, [1, 0, 0, 1])  # the first and third are misclassified
    np.testing.assert_allclose(result.radius, [0, 0.15, 0, 0.25], atol=1e-6)
    assert (result.found_by == "").tolist() == [True, False, True, False]
    assert sum(result.wins.values()) == pytest.approx(1)
    for name, share in result.wins.items():  # of the two that remain
        assert share == (result.found_by == name).sum() / 2
    none = scorer.evaluate(model, X, [1, 1, 0, 0])
    assert none.score == 0 and set(none.found_by) == {""}
    assert np.isnan(list(none.wins.values())).all()


# ---- who won --------------------


def test_each_attack_wins_its_share(digits, digits_model):
    _, X, *_ = digits
    scorer = MarginRobustness("l2", epsilon_max=1.0, random_state=0)
    result = scorer.evaluate(digits_model, X)
    assert list(result.wins) == ["linear", "fmn"]
    assert sum(result.wins.values()) == pytest.approx(1)
    found = np.isfinite(result.radius)
    for name, share in result.wins.items():
        assert share == pytest.approx((result.found_by[found] == name).mean())
    # The closest of all: no member alone comes closer.
    for name, attack in Ensemble().members:
        alone = clone(scorer).set_params(attack=attack).evaluate(digits_model, X)
        assert list(alone.wins) == [type(attack).__name__.lower()]
        assert (alone.radius >= result.radius - 1e-6).all()
        won = result.found_by == name
        np.testing.assert_allclose(alone.radius[won], result.radius[won])
    assert (scorer(digits_model, X)) == result.score


def test_parameters_of_the_attack_are_in_reach():
    scorer = MarginRobustness().set_params(attack__fmn__n_steps=3)
    assert dict(scorer.attack.members)["fmn"].n_steps == 3
    assert clone(scorer).get_params()["attack__fmn__n_steps"] == 3


def test_scores_in_a_search(blobs):
    X, y = blobs
    scoring = {"margin": MarginRobustness(reference="label", random_state=0), "acc": "accuracy"}
    grid = {"C": [1e-3, 1.0]}
    search = GridSearchCV(LogisticRegression(), grid, scoring=scoring, refit="margin", cv=2)
    results = search.fit(X, y).cv_results_
    assert (results["mean_test_margin"] > 0).all()
    assert (results["mean_test_margin"] < 0.3).all()


def test_black_boxes_by_sampling(blobs):
    X, y = blobs
    forest = RandomForestClassifier(5, random_state=0).fit(X, y)
    scorer = MarginRobustness(epsilon_max=0.3, attack=UniformSampling(50), random_state=0)
    result = scorer.evaluate(forest, X)
    found = np.isfinite(result.radius)
    assert 0 < found.mean() < 1
    moved = result.adversarial_examples[found]
    assert (forest.predict(moved) != forest.predict(X[found])).all()
    with pytest.raises(UnsupportedModelError, match="RandomForestClassifier"):
        MarginRobustness()(forest, X)


# ---- results, jobs, memory --------------------


def test_results_repeat(blobs, tmp_path):
    X, y = blobs
    model = LogisticRegression().fit(X, y)
    scorer = MarginRobustness("l2", chunk_size=30, random_state=0)
    first = scorer.evaluate(model, X)
    for changed in ({"n_jobs": 2}, {"memory": str(tmp_path)}, {"memory": str(tmp_path)}):
        with parallel_config("threading"):
            again = clone(scorer).set_params(**changed).evaluate(model, X)
        np.testing.assert_array_equal(again.radius, first.radius)
        np.testing.assert_array_equal(again.found_by, first.found_by)
    assert first.to_frame().columns.tolist() == ["radius", "distances", "found_by"]
    assert repr(first).startswith("MarginRobustnessResult(score=")


# ---- refusals --------------------


@pytest.mark.parametrize(
    ("params", "error", "message"),
    [
        ({"norm": "l1"}, ValueError, "Got norm='l1', but expected one of 'linf', 'l2'"),
        ({"epsilon_max": 0.0}, ValueError, r"Got epsilon_max=0\.0, but expected"),
        ({"epsilon_max": np.inf}, ValueError, "Got epsilon_max=inf, but expected"),
        ({"bounds": None}, ValueError, "Got epsilon_max=None, but expected a number, since"),
        ({"bounds": (0.0, np.inf)}, ValueError, "Got epsilon_max=None, but expected a number"),
        ({"bounds": (0.4, 1.0)}, ValueError, "2 of 4 rows of X lie outside"),
        ({"reference": "truth"}, ValueError, "Got reference='truth', but expected one of"),
        ({"reference": "label"}, ValueError, "Got y=None, but expected the true labels"),
        ({"attack": "pgd"}, TypeError, "Got attack='pgd', but expected an Attack, such as"),
        ({"attack": PGD(0)}, ValueError, "Got n_steps=0"),
        ({"confidence": 1}, ValueError, "Got confidence=1, but expected"),
        ({"chunk_size": 0}, ValueError, "Got chunk_size=0"),
    ],
)
def test_bad_parameters(split, params, error, message):
    with pytest.raises(error, match=message):
        MarginRobustness(attack=FGSM()).set_params(**params)(*split)


def test_bad_data(split):
    model, X = split
    with pytest.raises(ValueError, match="but expected at least 2, for the interval"):
        MarginRobustness()(model, X[:1])
    for reference in ("label", "prediction"):  # also where the labels are not needed
        with pytest.raises(ValueError, match="Got y of length 3, but expected 4"):
            MarginRobustness(reference=reference)(model, X, [0, 1, 0])
        with pytest.raises(ValueError, match=r"Got .*7.* but expected"):
            MarginRobustness(reference=reference)(model, X, [0, 1, 0, 7])
    scorer = MarginRobustness(random_state=0)
    assert scorer(model, X, [1, 1, 0, 0]) == scorer(model, X)
