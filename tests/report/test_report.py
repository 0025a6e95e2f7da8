"""The call: what it takes, what it refuses."""

import re

import numpy as np
import pandas as pd
import pytest
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier

import skrobust
from skrobust import robustness_report
from skrobust.attacks import FGSM, PGD, UniformSampling
from skrobust.exceptions import UnsupportedModelError
from skrobust.properties import (
    ClassificationRobustness,
    Domain,
    IndividualFairness,
    StandardRobustness,
)
from skrobust.report import RobustnessReport
from skrobust.verification import Bounds


@pytest.fixture(scope="module")
def model(blobs):
    return LogisticRegression().fit(*blobs)


def test_the_report_of_a_network(report, digits, digits_model):
    _, X, _, y = digits
    assert isinstance(report, RobustnessReport)
    assert report.epsilons.tolist() == [0.0, 0.03, 0.1]
    assert report.accuracy == (digits_model.predict(X[:20]) == y[:20]).mean()
    np.testing.assert_array_equal(report.predictions, digits_model.predict(X[:20]))
    assert report.not_measured == {} and report.messages == ()
    assert "accuracy=" in repr(report)


def test_a_forest_has_no_radii_and_says_so(forest_report):
    assert set(forest_report.not_measured) == {"Adversarial frequency", "Adversarial severity"}
    assert "RandomForestClassifier" in forest_report.not_measured["Adversarial severity"]
    assert "satisfaction" in forest_report.curves
    assert isinstance(forest_report.attack, UniformSampling)
    assert any("random points" in text for text in forest_report.not_checked)


def test_required_evidence_is_not_done_without(blobs, model, monkeypatch, tmp_path):
    def refuse(*arguments):
        raise UnsupportedModelError("a node that no checker knows")

    monkeypatch.setattr("skrobust.scorers._satisfaction.make_recorder", refuse)
    given = {"epsilons": [0.1], "n_examples": 0, "random_state": 0}
    report = robustness_report(model, *blobs, evidence="required", **given)
    assert "evidence='required'" in report.not_measured["Constraint satisfaction"]
    report = robustness_report(model, *blobs, evidence=tmp_path / "folder", **given)
    assert "satisfaction" in report.curves and report.evidence is None
    assert report.messages[0].startswith("Constraint satisfaction: no evidence files, since")


def test_trees_have_evidence(digits, tmp_path):
    X, X_test, y, y_test = digits
    tree = DecisionTreeClassifier(max_depth=4, random_state=0).fit(X, y)
    given = {"epsilons": [0.1], "n_examples": 0, "random_state": 0}
    report = robustness_report(tree, X_test[:5], y_test[:5], evidence=tmp_path / "trees", **given)
    assert report.evidence == tmp_path / "trees"
    assert list((tmp_path / "trees" / "epsilon-0.1").iterdir())


def test_equal_seeds_give_equal_reports(blobs, model):
    X, y = blobs
    given = {"epsilons": [0.05, 0.1], "random_state": 0}
    once, again = (robustness_report(model, X, y, **given).to_dict() for _ in range(2))
    assert once == again


def test_parts_are_handed_on(blobs, model):
    X, y = blobs
    property = StandardRobustness(delta=0.5, reference="prediction", bounds=(0, 2))
    report = robustness_report(
        model,
        X,
        y,
        epsilons=[0.1],
        property=property,
        attack=FGSM(),
        verifier=Bounds(),
        tolerance=0.3,
        confidence=0.8,
        n_examples=0,
        random_state=0,
    )
    assert "FGSM" in report.curves["security"].scorer
    assert "Bounds" in report.curves["satisfaction"].scorer
    assert "tolerance=0.3" in report.curves["global_robustness"].scorer
    assert {curve.confidence for curve in report.curves.values()} == {0.8}
    assert "delta=0.5" in report.curves["security"].scorer
    assert len(report.examples) == 0


def test_a_scale_gives_each_feature_its_epsilon(blobs):
    X, y = blobs
    units = np.array([1.0, 10.0, 0.1, 100.0])
    property = ClassificationRobustness(bounds=None)
    given = {"property": property, "random_state": 0}
    plain = make_pipeline(StandardScaler(), LogisticRegression()).fit(X, y)
    scaled = make_pipeline(StandardScaler(), LogisticRegression()).fit(X * units, y)
    one = robustness_report(plain, X, y, epsilons=[0.1], **given)
    other = robustness_report(scaled, X * units, y, epsilons=[0.1], scale=units, **given)
    assert set(other.curves) == set(one.curves) and other.not_measured == {}
    for name in ("security", "satisfaction", "frequency", "severity"):
        np.testing.assert_allclose(one.curves[name].scores, other.curves[name].scores, rtol=1e-4)
    assert 0 < one.curves["severity"].scores[0] < 0.1  # some are found, in units of the scale
    np.testing.assert_array_equal(other.scale, units)


def test_the_scale_std_is_that_of_the_scaler(blobs):
    X, y = blobs
    given = {"epsilons": [0.2], "property": ClassificationRobustness(bounds=None)}
    given |= {"random_state": 0, "n_examples": 0}
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(X, y)
    report = robustness_report(model, X, y, scale="std", **given)
    np.testing.assert_array_equal(report.scale, model[0].scale_)
    same = robustness_report(model, X, y, scale=model[0].scale_, **given)
    assert report.to_dict() == same.to_dict()


def test_scores_that_know_no_domain_say_so(blobs):
    X, y = blobs
    rows = np.column_stack([X, (X[:, 0] > np.median(X[:, 0])).astype(float)])
    domain = Domain(0.0, 1.0, integers=[4])
    model = LogisticRegression().fit(rows, y)
    report = robustness_report(
        model,
        rows,
        y,
        epsilons=[0.05, 1.0],
        property=ClassificationRobustness(bounds=domain),
        random_state=0,
    )
    measured = ["constraint_accuracy", "security", "satisfaction", "surviving"]
    assert list(report.curves) == measured
    assert set(report.not_measured) == {
        "Adversarial frequency",
        "Adversarial severity",
        "Global robustness",
    }
    for reason in report.not_measured.values():
        assert reason.startswith("Got bounds=Domain(0, 1, integers=[4])") and "boxes" in reason
    binary = report.examples.perturbed[:, 4]
    assert len(binary) and np.isin(binary, [0.0, 1.0]).all()
    assert "integers, categories and constraints" in " ".join(report.assumed)
    assert "Domain(0, 1, integers=[4])" in report.to_html()


def test_a_domain_that_is_a_box_is_its_box(blobs, model):
    X, y = blobs
    given = {"epsilons": [0.1], "random_state": 0, "n_examples": 3}
    domain = ClassificationRobustness(bounds=Domain(0.0, 1.0))
    report = robustness_report(model, X, y, property=domain, **given)
    plain = robustness_report(model, X, y, **given)
    assert report.not_measured == {}
    for name, curve in plain.curves.items():
        np.testing.assert_array_equal(report.curves[name].scores, curve.scores)


def test_a_ball_of_a_kind_of_its_own_has_no_radii(blobs, model):
    report = robustness_report(
        model, *blobs, epsilons=[0.0, 0.05], property=IndividualFairness([1]), random_state=0
    )
    assert "IndividualFairness" in report.not_measured["Adversarial severity"]
    assert "global_robustness" in report.curves


def test_l2_has_no_radii(blobs, model):
    report = robustness_report(
        model, *blobs, epsilons=[0.1], property=ClassificationRobustness(norm="l2")
    )
    assert "L-infinity" in report.not_measured["Adversarial frequency"]


def test_frames_give_the_names_of_features(blobs):
    X, y = blobs
    frame = pd.DataFrame(X, columns=["age", "income", "rate", "<b>"])
    model = LogisticRegression().fit(frame, y)
    report = robustness_report(model, frame, y, epsilons=[0.1], attack=PGD(5), random_state=0)
    assert report.feature_names == ("age", "income", "rate", "<b>")


def test_warnings_are_messages(blobs, model, recwarn):
    X, y = blobs
    report = robustness_report(model, X, y, epsilons=[0.1], tolerance=0.001, random_state=0)
    (message,) = report.messages
    assert message.startswith("Global robustness at epsilon 0.1: Got 80 samples, fewer than")
    assert len(recwarn) == 0


def test_the_name_is_found_at_the_top():
    assert skrobust.robustness_report is robustness_report
    with pytest.raises(AttributeError, match="no attribute 'robustness_reports'"):
        skrobust.robustness_reports  # noqa: B018


# ---- bad input -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epsilons": []}, "Got epsilons=[], but expected one finite radius"),
        ({"epsilons": [0.1, -0.1]}, "Got epsilons=[0.1, -0.1], but expected"),
        ({"epsilons": [0.1, 0.1]}, "each once"),
        ({"epsilons": 0.1}, "Got epsilons=0.1, but expected"),
        ({"epsilons": ["a"]}, "Got epsilons=['a']"),
        ({"epsilons": [np.inf]}, "Got epsilons=[inf]"),
        ({"scale": [1.0, 0.0, 1.0, 1.0]}, "Got scale=0.0 in feature 1, but expected"),
        ({"scale": [1.0]}, "Got scale=[1.0], but expected None, 'std', or units above 0"),
        ({"scale": "std"}, "a pipeline that starts with a StandardScaler"),
        ({"scale": "unit"}, "Got scale='unit'"),
        ({"property": ClassificationRobustness(np.full(4, 0.1))}, "features have their scale"),
        ({"confidence": 1.0}, "Got confidence=1.0"),
        ({"tolerance": 0}, "Got tolerance=0"),
        ({"timeout": 0}, "Got timeout=0"),
        ({"n_examples": -1}, "Got n_examples=-1"),
        ({"image_shape": (3, 3)}, "Got image_shape=(3, 3)"),
        ({"random_state": "a"}, "Got random_state='a'"),
        ({"details": {"use": "x"}}, "Got a name in details='use'"),
        ({"y": [0, 1]}, "Got y of length 2"),
        ({"y": None}, "Got y=None"),
        ({"y": np.full(80, 7)}, "Got y with labels [7]"),
    ],
)
def test_wrong_values_are_named(blobs, model, options, message):
    X, y = blobs
    with pytest.raises(ValueError, match=re.escape(message)):
        robustness_report(model, **{"X": X, "y": y, "epsilons": [0.1]} | options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"property": 0.1}, "Got property=0.1"),
        ({"attack": Bounds()}, "Got attack=Bounds()"),
        ({"verifier": PGD()}, "Got verifier=PGD()"),
        ({"evidence": 3}, "Got evidence=3"),
        ({"details": "x"}, "Got details='x'"),
        ({"details": {"intended_use": 3}}, "Got details['intended_use']=3"),
    ],
)
def test_wrong_kinds_are_named(blobs, model, options, message):
    with pytest.raises(TypeError, match=re.escape(message)):
        robustness_report(model, *blobs, epsilons=[0.1], **options)


def test_models_that_cannot_be_measured(blobs):
    X, y = blobs
    with pytest.raises(NotFittedError):
        robustness_report(LogisticRegression(), X, y, epsilons=[0.1])
    with pytest.raises(UnsupportedModelError, match="Ridge"):
        robustness_report(Ridge().fit(X, y), X, y, epsilons=[0.1])


def test_data_outside_of_the_bounds_are_an_error(blobs, model):
    X, y = blobs
    with pytest.raises(ValueError, match="rows of X lie outside"):
        robustness_report(model, X + 1, y, epsilons=[0.1])
