"""The values of samples whose mean is a score."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier

from skrobust.datasets import load_digits
from skrobust.model_selection._samples import range_of, sample_values
from skrobust.properties import ClassificationRobustness
from skrobust.scorers import (
    AdversarialFrequency,
    AdversarialSeverity,
    ConstraintAccuracy,
    ConstraintSatisfaction,
    ConstraintSecurity,
    GlobalRobustness,
)
from skrobust.verification import Bounds

X, Y = load_digits(return_X_y=True)
MODEL = LogisticRegression(max_iter=200).fit(X[:500], Y[:500])
X, Y = X[500:540], Y[500:540]
CR = ClassificationRobustness(0.05)


@pytest.mark.parametrize(
    "scorer",
    [
        ConstraintSecurity(CR, random_state=0),
        ConstraintAccuracy(CR, 10, random_state=0),
        ConstraintSatisfaction(CR, Bounds()),
        AdversarialFrequency(0.05),
    ],
    ids=lambda scorer: type(scorer).__name__,
)
def test_the_mean_is_the_score(scorer):
    values = sample_values(scorer, MODEL, X, Y)
    assert values.shape == (40,)
    assert values.mean() == pytest.approx(scorer(MODEL, X, Y), abs=1e-12)
    low, high = range_of(scorer, (5.0, 6.0))
    assert low <= values.min() <= values.max() <= high == low + 1
    assert 0 < np.abs(values).mean() < 1


def test_unresolved_samples_count_against_the_classifier():
    network = MLPClassifier(20, solver="lbfgs", max_iter=500, random_state=0).fit(X, Y)
    scorer = AdversarialFrequency(0.1, max_rows=1)
    with pytest.warns(RuntimeWarning, match="unresolved"):
        values = sample_values(scorer, network, X[:10], Y[:10])
    with pytest.warns(RuntimeWarning, match="unresolved"):
        result = scorer.evaluate(network, X[:10], Y[:10])
    assert result.n_failed > 0
    assert values.mean() == result.score


@pytest.mark.parametrize("scoring", [None, "accuracy"])
def test_accuracy(scoring):
    assert sample_values(scoring, MODEL, X, Y).mean() == MODEL.score(X, Y)
    assert range_of(scoring, (5.0, 6.0)) == (0.0, 1.0)


def test_a_function_of_users():
    def distance(estimator, X, y):
        return list(X[:, 0])

    np.testing.assert_array_equal(sample_values(distance, MODEL, X, Y), X[:, 0])
    assert range_of(distance, (5.0, 6.0)) == (5.0, 6.0)


@pytest.mark.parametrize(
    ("scoring", "message"),
    [
        ("roc_auc", r"Got scoring='roc_auc', but expected None or 'accuracy'"),
        (3, r"Got scoring=3, but expected"),
        (AdversarialSeverity(0.05), r"Got scoring=AdversarialSeverity\(.*but expected"),
        (GlobalRobustness(CR), r"Got scoring=GlobalRobustness\(.*but expected"),
        (lambda estimator, X, y: 0.5, r"returns a float of 0 dimensions, but expected"),
    ],
)
def test_what_is_no_mean_over_samples_is_refused(scoring, message):
    with pytest.raises(TypeError, match=message):
        sample_values(scoring, MODEL, X, Y)


def test_a_wrong_number_of_values_is_refused():
    with pytest.raises(ValueError, match=r"values of `scoring` of length 2, but expected 40"):
        sample_values(lambda estimator, X, y: [0.0, 1.0], MODEL, X, Y)
