"""Robustness under corruptions: what is done to the images, and what is counted."""

import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn.base import clone
from sklearn.ensemble import RandomForestClassifier

from skrobust.attacks import PGD
from skrobust.properties import ClassificationRobustness
from skrobust.scorers import ConstraintSecurity, CorruptionRobustness
from skrobust.scorers._images import CORRUPTIONS
from skrobust.statistics import hoeffding

NAMES = list(CORRUPTIONS)


# ---- what is counted --------------------


def test_accuracies_and_agreements(digits, digits_model):
    _, X, _, y = digits
    result = CorruptionRobustness(random_state=0).evaluate(digits_model, X, y)
    assert result.names == tuple(NAMES)
    assert result.predictions.shape == (300, 6)
    np.testing.assert_allclose(result.accuracies, (result.predictions == y[:, None]).mean(0))
    clean = digits_model.predict(X)
    np.testing.assert_allclose(result.agreements, (result.predictions == clean[:, None]).mean(0))
    assert result.clean_accuracy == digits_model.score(X, y)
    assert (result.accuracies <= result.clean_accuracy + 0.02).all()
    assert result.score == pytest.approx(result.accuracies.mean())
    assert 0.2 < result.score < result.clean_accuracy
    assert result.interval == hoeffding((result.predictions == y[:, None]).mean(axis=1))
    for share, interval in zip(result.accuracies, result.intervals, strict=True):
        exact = binomtest(round(300 * share), 300).proportion_ci(0.95, "exact")
        assert (interval.low, interval.high) == (exact.low, exact.high)
    frame = result.to_frame()
    assert frame.index.tolist() == NAMES
    assert frame.columns.tolist() == ["accuracy", "agreement", "low", "high", "score"]
    assert frame["score"].isna().all()


def test_predictions_as_reference(digits, digits_model):
    _, X, _, _ = digits
    scorer = CorruptionRobustness(["blur", "noise"], reference="prediction", random_state=0)
    result = scorer.evaluate(digits_model, X)
    assert result.score == pytest.approx(result.agreements.mean()) == scorer(digits_model, X)
    assert np.isnan(result.accuracies).all() and np.isnan(result.clean_accuracy)


def test_corrupted_sets_and_callables(digits, digits_model):
    _, X, _, y = digits

    def darker(images, severity, generator):
        assert images.shape == (300, 8, 8)
        return images * (1 - severity / 10)

    sets = {"identity": X, "inverse": 1 - X.reshape(-1, 8, 8), "darker": darker}
    result = CorruptionRobustness(sets).evaluate(digits_model, X, y)
    assert result.accuracies[0] == result.clean_accuracy
    assert result.accuracies[1] == digits_model.score(1 - X, y)
    assert result.accuracies[2] == digits_model.score(X * np.float32(0.7), y)
    assert result.agreements[0] == 1


def test_a_scorer_on_each_set(digits, digits_model):
    _, X, _, y = digits
    security = ConstraintSecurity(ClassificationRobustness(0.03), PGD(5), random_state=0)
    scorer = CorruptionRobustness({"identity": X, "half": X / 2}, scorer=security)
    result = scorer.evaluate(digits_model, X, y)
    assert result.scores[0] == security(digits_model, X, y)
    assert result.scores[1] == security(digits_model, X / 2, y)


def test_a_corruption_does_not_depend_on_the_others(digits, digits_model):
    _, X, _, y = digits
    make = {"random_state": 3}
    alone = CorruptionRobustness(["occlusion"], **make).evaluate(digits_model, X, y)
    among = CorruptionRobustness(["noise", "occlusion"], **make).evaluate(digits_model, X, y)
    np.testing.assert_array_equal(alone.predictions[:, 0], among.predictions[:, 1])
    other = CorruptionRobustness(["occlusion"], random_state=4).evaluate(digits_model, X, y)
    assert (other.predictions != alone.predictions).any()


def test_any_classifier_any_shape_any_range(digits):
    X_train, X, y_train, y = digits
    names = np.array(list("abcdefghij"))
    raw = np.round(X_train * 255)
    forest = RandomForestClassifier(10, random_state=0).fit(raw, names[y_train])
    scorer = CorruptionRobustness(["noise"], bounds=(0, 255), severity=1, random_state=0)
    result = scorer.evaluate(forest, np.round(X * 255), names[y])
    assert 0.7 < result.score <= 1
    shaped = clone(scorer).set_params(image_shape=(1, 8, 8))
    assert shaped(forest, np.round(X * 255), names[y]) > 0.7


def test_memory_and_chunks(digits, digits_model, tmp_path):
    _, X, _, y = digits
    first = CorruptionRobustness(random_state=0).evaluate(digits_model, X, y)
    for params in ({"memory": str(tmp_path)}, {"memory": str(tmp_path)}, {"chunk_size": 7}):
        scorer = CorruptionRobustness(random_state=0, **params)
        again = scorer.evaluate(digits_model, X, y)
        np.testing.assert_array_equal(again.predictions, first.predictions)


def test_parameters_of_numpy_types_are_those_of_python(digits, digits_model):
    _, X, _, y = digits
    plain = CorruptionRobustness(severity=2, image_shape=(8, 8), random_state=0)
    small = CorruptionRobustness(
        severity=np.int8(2),
        image_shape=[np.int64(8), np.int8(8)],
        bounds=(np.float32(0), np.int64(1)),
        random_state=np.int64(0),
    )
    results = [scorer.evaluate(digits_model, X, y) for scorer in (plain, small)]
    np.testing.assert_array_equal(results[0].predictions, results[1].predictions)


# ---- refusals --------------------


@pytest.mark.parametrize(
    ("params", "error", "message"),
    [
        ({"corruptions": ["fog"]}, ValueError, "Got corruptions='fog', but expected one of"),
        ({"corruptions": []}, ValueError, r"Got corruptions=\[\], but expected at least one"),
        ({"corruptions": "noise"}, TypeError, "Got corruptions='noise', but expected None, a"),
        ({"corruptions": {"few": np.zeros((3, 64))}}, ValueError, r"Got few of shape \(3, 64\)"),
        ({"corruptions": {"far": np.full((300, 64), 2.0)}}, ValueError, "300 of 300 rows"),
        ({"corruptions": {"far": np.full((300, 64), np.inf)}}, ValueError, "infinity from far"),
        ({"corruptions": {"bad": lambda X, *_: X * np.nan}}, ValueError, "Got NaN .* from bad"),
        ({"corruptions": {"one": lambda *_: 1.0}}, ValueError, r"Got one of shape \(\)"),
        ({"corruptions": ["noise"] * 2}, ValueError, r"\['noise', 'noise'\], but .* once"),
        ({"corruptions": {1: lambda X, *_: X}}, TypeError, "but expected names that are strings"),
        ({"corruptions": {"no": lambda X, *_: None}}, TypeError, "Got no of type object, but"),
        ({"corruptions": {"no": lambda X, *_: X * 1j}}, TypeError, "Got no of type complex64"),
        ({"corruptions": {"no": np.full((300, 64), "a")}}, TypeError, "Got no of type <U1, but"),
        ({"severity": 0}, ValueError, "Got severity=0, but expected an integer from 1 to 5"),
        ({"severity": 2.0}, ValueError, r"Got severity=2\.0, but expected an integer from 1 to 5"),
        ({"severity": True}, ValueError, "Got severity=True, but expected an integer"),
        ({"severity": 6}, ValueError, "Got severity=6, but expected an integer from 1 to 5"),
        ({"bounds": None}, ValueError, "Got bounds=None, but expected a pair"),
        (
            {"bounds": (0.5, 0.5)},
            ValueError,
            r"Got bounds=\(0\.5, 0\.5\), but expected low < high",
        ),
        ({"bounds": (-np.inf, np.inf)}, ValueError, "but expected a pair .* of finite floats"),
        ({"bounds": (np.zeros(64), np.ones(64))}, ValueError, "a pair .* of finite floats"),
        ({"bounds": (0.0, 0.5)}, ValueError, "rows of X lie outside"),
        ({"reference": "truth"}, ValueError, "Got reference='truth'"),
        ({"image_shape": (5, 5)}, ValueError, r"Got image_shape=\(5, 5\), but expected .* 64"),
        ({"image_shape": 5}, ValueError, "Got image_shape=5, but expected .* 64 entries"),
        ({"image_shape": (8.0, 8)}, ValueError, r"Got image_shape=\(8\.0, 8\), but expected"),
        ({"image_shape": (-8, -8)}, ValueError, r"Got image_shape=\(-8, -8\), but expected"),
        ({"image_shape": (True, 64)}, ValueError, r"Got image_shape=\(True, 64\), but expected"),
        ({"image_shape": "88"}, ValueError, "Got image_shape='88', but expected"),
        ({"scorer": lambda *_: None}, TypeError, "Got None from scorer, but expected a callable"),
        ({"scorer": 1}, TypeError, "Got scorer=1, but expected a callable"),
        ({"confidence": 0}, ValueError, "Got confidence=0"),
        ({"chunk_size": 0}, ValueError, "Got chunk_size=0"),
    ],
)
def test_bad_parameters(digits, digits_model, params, error, message):
    _, X, _, y = digits
    with pytest.raises(error, match=message):
        CorruptionRobustness().set_params(**params)(digits_model, X, y)


def test_bad_labels(digits, digits_model):
    _, X, _, _ = digits
    with pytest.raises(ValueError, match="Got y=None, but expected the true labels"):
        CorruptionRobustness()(digits_model, X)
    with pytest.raises(ValueError, match="Got y of length 2, but expected 300"):
        CorruptionRobustness()(digits_model, X, [0, 1])
