"""Adversarial frequency and severity: readings of the pointwise radius."""

import weakref

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import binomtest
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_validate

from skrobust import RobustClassifier, TorchClassifier
from skrobust.attacks import UniformSampling
from skrobust.displays import RobustnessCurveDisplay
from skrobust.exceptions import UnresolvedWarning, UnsupportedModelError
from skrobust.pointwise import pointwise_robustness
from skrobust.pointwise._programs import LazyPrograms
from skrobust.scorers import AdversarialFrequency, AdversarialSeverity, _adversarial

EPSILON = 0.06


@pytest.fixture(scope="module")
def linear(digits):
    X, X_test, y, y_test = digits
    return LogisticRegression(C=0.1).fit(X, y), X_test[100:160], y_test[100:160]


def test_both_are_read_from_the_radius(linear):
    model, X, _ = linear
    radius = pointwise_robustness(model, X, epsilon_max=EPSILON).radius
    within = radius <= EPSILON
    assert 0 < within.sum() < len(X)
    frequency = AdversarialFrequency(EPSILON).evaluate(model, X)
    severity = AdversarialSeverity(EPSILON).evaluate(model, X)
    assert frequency.score == -within.mean() == -frequency.frequency
    assert severity.score == radius[within].mean() == severity.severity
    np.testing.assert_array_equal(frequency.radius, radius)
    found = frequency.adversarial_examples[within]
    assert (model.predict(found) != model.predict(X[within])).all()
    distance = np.abs(found - X[within]).max(axis=1)
    np.testing.assert_allclose(distance, radius[within], atol=1e-6)


def test_intervals(linear):
    model, X, _ = linear
    result = AdversarialFrequency(EPSILON, confidence=0.9).evaluate(model, X)
    n_within = int((result.radius <= EPSILON).sum())
    ci = binomtest(n_within, len(X)).proportion_ci(0.9, method="exact")
    assert (result.interval.low, result.interval.high) == pytest.approx((-ci.high, -ci.low))
    severity = AdversarialSeverity(EPSILON, confidence=0.9).evaluate(model, X)
    half = EPSILON * np.sqrt(np.log(2 / 0.1) / (2 * n_within))
    low, high = max(severity.score - half, 0), min(severity.score + half, EPSILON)
    assert (severity.interval.low, severity.interval.high) == pytest.approx((low, high))


def test_without_adversarial_examples_the_severity_is_epsilon(linear):
    model, X, _ = linear
    far = pointwise_robustness(model, X).radius
    few = X[far > 0.02]
    assert AdversarialFrequency(0.01)(model, few) == 0
    assert AdversarialSeverity(0.01)(model, few) == 0.01


def test_misclassified_samples_have_radius_zero_under_the_true_label(linear):
    model, X, y = linear
    result = AdversarialFrequency(1e-6, reference="label").evaluate(model, X, y)
    wrong = model.predict(X) != y
    assert wrong.any()
    np.testing.assert_array_equal(result.radius[wrong], 0)
    assert result.frequency == wrong.mean()


@pytest.fixture
def computed(monkeypatch):
    """The epsilons of all computations so far."""
    epsilons = []

    def counted(*args, **kwargs):
        epsilons.append(kwargs["epsilon_max"])
        return pointwise_robustness(*args, **kwargs)

    monkeypatch.setattr(_adversarial, "pointwise_robustness", counted)
    return epsilons


def test_metrics_are_both_scores_of_one_computation(linear, computed):
    model, X, y = linear
    frequency, severity = AdversarialFrequency(EPSILON), AdversarialSeverity(EPSILON)
    found = cross_validate(LogisticRegression(), X, y, cv=3, scoring=frequency.metrics)
    assert len(computed) == 3
    assert (found["test_adversarial_frequency"] <= 0).all()
    assert (found["test_adversarial_severity"] > 0).all()
    expected = {
        "adversarial_frequency": frequency(model, X),
        "adversarial_severity": severity(model, X),
        "failed_count": 0,
    }
    assert frequency.metrics(model, X) == severity.metrics(model, X) == expected


def test_both_scorers_find_what_one_has_kept(linear, tmp_path, monkeypatch):
    model, X, _ = linear
    calls = []
    solve = LazyPrograms.solve

    def counted(self, *args):
        calls.append(len(self.centers))
        return solve(self, *args)

    monkeypatch.setattr(LazyPrograms, "solve", counted)
    options = {"memory": str(tmp_path)}
    frequency = AdversarialFrequency(EPSILON, **options).evaluate(model, X)
    n_calls = len(calls)
    severity = AdversarialSeverity(EPSILON, **options).evaluate(model, X)
    assert len(calls) == n_calls > 0
    np.testing.assert_array_equal(frequency.radius, severity.radius)
    AdversarialSeverity(EPSILON, margin=1e-3, **options).evaluate(model, X)
    assert len(calls) > n_calls


def test_without_a_random_state_every_call_draws_anew(digits, digits_model):
    X = digits[1][:30]
    attack = UniformSampling(n_samples=50)
    scorer = AdversarialFrequency(0.3, method="attack", attack=attack)
    examples = [scorer.evaluate(digits_model, X).adversarial_examples for _ in range(3)]
    assert np.isfinite(examples[0]).any()
    assert not np.array_equal(examples[0], examples[1], equal_nan=True)
    assert not np.array_equal(examples[1], examples[2], equal_nan=True)
    scorer.set_params(random_state=0)
    examples = [scorer.evaluate(digits_model, X).adversarial_examples for _ in range(2)]
    np.testing.assert_array_equal(*examples)


def test_nothing_is_left_of_a_result(linear):
    model, X, _ = linear
    first = AdversarialFrequency(EPSILON).evaluate(model, X)
    score = first.score
    kept = weakref.ref(first.adversarial_examples)
    first.radius[:] = 0.0
    del first
    assert kept() is None
    assert AdversarialFrequency(EPSILON).evaluate(model, X).score == score


class Shifted(torch.nn.Module):
    """The shift is kept in a place that a state dict does not show."""

    def __init__(self, shift):
        super().__init__()
        self.layer = torch.nn.Linear(2, 2)
        self.layer.weight.data, self.layer.bias.data = torch.eye(2), torch.zeros(2)
        self.shift = torch.tensor(shift)

    def forward(self, x):
        return self.layer(x) + self.shift


def test_models_that_differ_in_what_they_do_not_show_share_nothing(tmp_path):
    X = np.array([[0.5, 0.45], [0.4, 0.5]])
    for memory in (None, str(tmp_path)):
        scorer = AdversarialFrequency(0.06, memory=memory)
        near, far = (TorchClassifier(Shifted(shift), 2) for shift in ([0.0, 0.0], [9.0, 0.0]))
        assert scorer(near, X) == -1.0
        assert scorer(far, X) == 0.0
        assert scorer(near, X) == -1.0


def test_samples_on_which_the_method_fails_are_counted(linear, monkeypatch):
    model, X, _ = linear
    solve = LazyPrograms.solve

    def failing(self, *args):
        if (self.centers == X[3]).all(axis=1).any():
            raise FloatingPointError("injected")
        return solve(self, *args)

    whole = AdversarialFrequency(EPSILON).evaluate(model, X)
    assert whole.n_failed == 0
    monkeypatch.setattr(LazyPrograms, "solve", failing)
    with pytest.warns(UnresolvedWarning, match="AdversarialFrequency: 1 of 60 samples"):
        found = AdversarialFrequency(EPSILON).evaluate(model, X)
    assert found.n_failed == 1 and found.status[3] == "numerical failure"
    others = np.arange(len(X)) != 3
    np.testing.assert_array_equal(found.radius[others], whole.radius[others])
    # What is not known counts against the classifier: as an example, at distance 0.
    within = whole.radius[others] <= EPSILON
    assert found.frequency == -found.score == (within.sum() + 1) / len(X)
    assert found.interval.low <= found.score <= found.interval.high
    with pytest.warns(UnresolvedWarning):
        severity = AdversarialSeverity(EPSILON).evaluate(model, X)
    assert severity.score == whole.radius[others][within].sum() / (within.sum() + 1)
    assert severity.score < AdversarialSeverity(EPSILON)(model, X[others])


def test_a_program_that_stopped_below_the_example_of_another_target_counts(monkeypatch):
    # From 1/4, label 1 wins from 1/2 on, and label 2 up to 1/8.
    module = torch.nn.Linear(1, 3)
    module.weight.data = torch.tensor([[0.0], [1.0], [-2.0]])
    module.bias.data = torch.tensor([0.5, 0.0, 0.75])
    model, X = TorchClassifier(module, 3), [[0.25]]
    severity = AdversarialSeverity(0.3, targets="all")
    assert severity(model, X) == pytest.approx(0.125, abs=1e-4)
    solve = LazyPrograms.solve

    def stopping(self, *args):
        found = solve(self, *args)
        found.keep(np.flatnonzero(self.targets == 2), "rows", 0.0625)
        return found

    monkeypatch.setattr(LazyPrograms, "solve", stopping)
    with pytest.warns(UnresolvedWarning, match="1 of 1 samples"):
        result = severity.evaluate(model, X)
    assert result.radius[0] == pytest.approx(0.25, abs=1e-4)
    assert result.score == 0.0625 and result.n_failed == 1 and result.frequency == 1


@pytest.mark.filterwarnings("ignore::skrobust.exceptions.UnresolvedWarning")
@pytest.mark.parametrize(("method", "severity"), [("lp", 0.125), ("polished", 0.0)])
def test_bounds_of_the_own_region_count_in_lp_alone(linear, monkeypatch, method, severity):
    """Elsewhere, an example may be closer than all of the sample's own region."""
    model, X, _ = linear

    def unresolved(*args, **kwargs):
        found = pointwise_robustness(*args, **kwargs)
        found.radius[:], found.status[:], found.bound[:] = np.inf, "row limit", 0.125
        return found

    monkeypatch.setattr(_adversarial, "pointwise_robustness", unresolved)
    assert AdversarialSeverity(0.3, method=method)(model, X[:2]) == severity


def test_an_unresolved_sample_takes_part_in_the_mean_only_where_that_lowers_it():
    found = np.array([0.2, 0.4])

    def lowering(found, bounds, weights=None):
        within = np.arange(len(found) + len(bounds)) < len(found)
        values = np.r_[found, bounds]
        counts = _adversarial._counting(values, within, ~within, values, 1.0, weights)
        assert set(np.flatnonzero(within)) <= set(counts) or weights is not None
        return values[counts][~within[counts]].tolist()

    assert lowering(found, [0.35, 0.1]) == [0.1]
    assert lowering(found, [0.35, 0.25]) == [0.25]
    assert lowering(found, [0.31]) == []
    assert lowering([], [0.5, 0.0]) == [0.0]
    assert lowering([], [1.0]) == []
    assert lowering(found, [0.31], np.array([0.1, 0.9, 1.0])) == [0.31]  # the mean is 0.38
    assert lowering(found, [0.25, 0.1], np.array([0.0, 0.0, 1.0, 0.0])) == [0.25]


def test_epsilon_zero_counts_what_has_radius_zero():
    model = TorchClassifier(Shifted([0.0, 0.0]), 2)
    X, y = np.array([[0.5, 0.5], [0.6, 0.5], [0.7, 0.5]]), [0, 0, 1]
    for method in ("lp", "polished", "attack", "lbfgs"):
        options = {"method": method, "random_state": 0}
        assert AdversarialFrequency(0.0, **options)(model, X) == -1 / 3  # a tie
        wrong = AdversarialFrequency(0.0, reference="label", **options).evaluate(model, X, y)
        assert wrong.frequency == 2 / 3 and wrong.n_failed == 0
        severity = AdversarialSeverity(0.0, **options).evaluate(model, X)
        assert severity.score == severity.interval.low == severity.interval.high == 0.0
    curve = RobustnessCurveDisplay.from_estimator(
        model, X, scorer=AdversarialFrequency(0.1), epsilons=[0.0, 0.06, 0.2]
    )
    (scores,) = curve.scores.values()
    np.testing.assert_allclose(scores, [-1 / 3, -2 / 3, -1.0])


def test_row_limit_and_margin_reach_the_programs(digits):
    X, _, y, _ = digits
    model = RobustClassifier(hidden_layer_sizes=(20,), max_epochs=3, random_state=0)
    model.fit(X[:300], y[:300])
    free = AdversarialFrequency(0.3).evaluate(model, X[:20])
    with pytest.warns(UnresolvedWarning) as caught:
        AdversarialFrequency(0.3, max_rows=1)(model, X[:20])
    assert caught[0].filename == __file__
    with pytest.warns(UnresolvedWarning):
        limited = AdversarialFrequency(0.3, max_rows=1).evaluate(model, X[:20])
    assert limited.frequency == ((limited.radius <= 0.3) | (limited.status == "row limit")).mean()
    assert limited.score <= free.score
    with pytest.warns(UnresolvedWarning):
        assert AdversarialSeverity(0.3, max_rows=1)(model, X[:20]) <= free.severity
    assert free.n_failed == 0 < limited.n_failed == (limited.status == "row limit").sum()
    wider = AdversarialFrequency(0.3, margin=0.05).evaluate(model, X[:20])
    both = np.isfinite(wider.radius) & np.isfinite(free.radius)
    assert both.any() and (wider.radius > free.radius)[both].all()


def test_in_a_search_with_jobs(linear):
    _, X, y = linear
    search = GridSearchCV(
        LogisticRegression(),
        {"C": [0.1, 10.0]},
        scoring={"frequency": AdversarialFrequency(EPSILON), "severity": AdversarialSeverity(0.1)},
        refit="frequency",
        cv=2,
        n_jobs=2,
    ).fit(X, y)
    assert np.isfinite(search.cv_results_["mean_test_severity"]).all()


def test_methods_order_the_frequency(linear):
    model, X, _ = linear
    by_method = {
        method: AdversarialFrequency(EPSILON, method=method, random_state=0).evaluate(model, X)
        for method in ("lp", "polished", "attack")
    }
    for result in by_method.values():
        assert result.n_failed == 0
    assert by_method["polished"].frequency >= by_method["lp"].frequency
    assert by_method["polished"].frequency >= by_method["attack"].frequency


@pytest.mark.parametrize("scorer", [AdversarialFrequency(0.1), AdversarialSeverity(0.1)])
def test_parameters_and_errors(scorer, linear):
    model, X, _ = linear
    assert clone(scorer).set_params(epsilon=0.2, method="attack").epsilon == 0.2
    for changed, message in (
        ({"epsilon": -0.1}, r"Got epsilon=-0.1, but expected a non-negative finite float"),
        ({"method": "certified"}, "Got method='certified', but expected one of 'lp'"),
        ({"reference": "y"}, "Got reference='y', but expected one of"),
        ({"confidence": 1.0}, "Got confidence=1.0, but expected"),
        ({"reference": "label"}, "Got y=None, but expected the true labels"),
        ({"bounds": (0.2, 1.0)}, "60 of 60 rows of X lie outside"),
    ):
        with pytest.raises(ValueError, match=message):
            clone(scorer).set_params(**changed)(model, X)
    with pytest.raises(UnsupportedModelError, match="Got an object"):
        scorer(object(), X)


def test_parameters_of_the_default_attack_are_reached():
    scorer = AdversarialFrequency(0.1, method="attack").set_params(attack__fmn__n_steps=3)
    assert dict(scorer.attack.members)["fmn"].n_steps == 3


def test_columns_in_another_order_are_refused():
    frame = pd.DataFrame(np.random.default_rng(0).random((20, 3)), columns=["a", "b", "c"])
    y = (frame["a"] > 0.5).to_numpy().astype(int)
    model = LogisticRegression().fit(frame, y)
    with pytest.raises(ValueError, match="Got X with columns"):
        AdversarialFrequency(0.1).evaluate(model, frame[["b", "c", "a"]], y)
