"""Each curve against the scorer that it is read from."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from skrobust import robustness_report
from skrobust.attacks import FGSM
from skrobust.properties import ClassificationRobustness, Domain, IndividualFairness
from skrobust.scorers import (
    AdversarialFrequency,
    AdversarialSeverity,
    ConstraintAccuracy,
    ConstraintSatisfaction,
    ConstraintSecurity,
    GlobalRobustness,
)
from skrobust.verification import Bounds

CR = ClassificationRobustness
SCORERS = {
    "constraint_accuracy": lambda e: ConstraintAccuracy(CR(e), random_state=0),
    "security": lambda e: ConstraintSecurity(CR(e), random_state=0),
    "satisfaction": lambda e: ConstraintSatisfaction(CR(e), random_state=0),
    "severity": lambda e: AdversarialSeverity(e, random_state=0),
    "global_robustness": lambda e: GlobalRobustness(
        CR(e, reference="prediction"), tolerance=0.4, bound="clopper-pearson", random_state=0
    ),
}


@pytest.mark.parametrize("name", [name for name in SCORERS if name != "global_robustness"])
def test_a_curve_is_what_its_scorer_says(report, digits, digits_model, name):
    _, X, _, y = digits
    for i, epsilon in enumerate(report.epsilons):
        result = SCORERS[name](float(epsilon)).evaluate(digits_model, X[:20], y[:20])
        curve = report.curves[name]
        assert curve.scores[i] == result.score
        assert (curve.low[i], curve.high[i]) == (result.interval.low, result.interval.high)


def test_the_frequency_is_a_share_with_its_interval_turned(report, digits, digits_model):
    _, X, _, y = digits
    curve = report.curves["frequency"]
    result = AdversarialFrequency(0.1, random_state=0).evaluate(digits_model, X[:20], y[:20])
    assert curve.scores[-1] == result.frequency == -result.score
    assert (curve.low[-1], curve.high[-1]) == (-result.interval.high, -result.interval.low)
    assert not curve.larger_is_better


def test_radii_are_in_units_of_the_scale(digits, digits_model):
    _, X, _, y = digits
    scale = np.linspace(0.5, 2, 64)
    given = {"epsilons": [0.0, 0.03, 0.07], "scale": scale, "random_state": 0, "n_examples": 0}
    report = robustness_report(
        digits_model, X[:5], y[:5], attack=FGSM(), verifier=Bounds(), **given
    )
    for i, epsilon in enumerate(report.epsilons):
        scorer = AdversarialSeverity(float(epsilon), scale=scale, random_state=0)
        result = scorer.evaluate(digits_model, X[:5], y[:5])
        assert report.curves["severity"].scores[i] == result.score
        assert report.curves["frequency"].scores[i] == result.frequency


def test_surviving_and_proved_come_from_one_result(report):
    for i, result in enumerate(report.results["satisfaction"]):
        assert report.curves["surviving"].scores[i] == result.surviving_share
        assert report.curves["satisfaction"].scores[i] == result.score


def test_global_robustness_is_about_predictions_and_counts_proofs(report):
    shares = report.curves["global_robustness"].scores
    assert shares[0] == 1.0  # no change, no other label: right or wrong
    assert "reference='prediction'" in report.curves["global_robustness"].scorer
    assert all(result.side == "exact" for result in report.results["global_robustness"])
    assert report.curves["global_robustness"].side == "itself"


def test_proofs_stay_below_attacks_and_attacks_below_random_points(report):
    curves = report.curves
    assert (curves["satisfaction"].scores <= curves["surviving"].scores).all()
    assert (curves["satisfaction"].scores <= curves["security"].scores).all()
    assert (curves["security"].scores <= curves["constraint_accuracy"].scores + 1e-12).all()
    assert (np.diff(curves["security"].scores) <= 0).all()
    for curve in curves.values():
        assert (curve.low <= curve.scores).all() and (curve.scores <= curve.high).all()


def test_without_proofs_global_robustness_is_measured_by_the_attack(digits, knn_report):
    assert "global_robustness" in knn_report.curves
    assert knn_report.curves["global_robustness"].side == "above"
    (message,) = [m for m in knn_report.messages if m.startswith("Global robustness")]
    assert "by the attack, since" in message and "KNeighborsClassifier" in message
    assert "Constraint satisfaction" in knn_report.not_measured


TABLE = np.array([[0, 0.1], [1, 0.3], [2, 0.8], [3, 0.9], [1, 0.2], [2, 0.7]])
LABELS = [0, 0, 1, 1, 0, 1]


@pytest.mark.parametrize("kind", [CR, lambda **options: IndividualFairness([0], **options)])
def test_where_only_some_points_are_valid_the_rest_is_measured(kind):
    domain = Domain([0, 0], [3, 1], integers=[0])
    model = LogisticRegression().fit(TABLE, LABELS)
    property = kind(epsilon=0.1, bounds=domain)
    found = robustness_report(model, TABLE, LABELS, epsilons=[0.1], property=property)
    assert {"security", "satisfaction"} <= set(found.curves)
    whole = {"Adversarial frequency", "Adversarial severity", "Global robustness"}
    assert set(found.not_measured) == whole


def test_the_distance_takes_no_notice_of_what_is_protected_and_is_left_out():
    model = LogisticRegression().fit(TABLE, LABELS)
    box = Domain([0, 0], [3, 1])
    fair = IndividualFairness([0], bounds=box)
    found = robustness_report(model, TABLE, LABELS, epsilons=[0.1], property=fair)
    assert "over all features alike" in found.not_measured["Adversarial frequency"]
    found = robustness_report(model, TABLE, LABELS, epsilons=[0.1], property=CR(bounds=box))
    assert found.not_measured == {}
