"""Weights of samples in scores that are means: by hand, by repetition, by routing."""

import numpy as np
import pytest
from sklearn import config_context
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, cross_validate

from skrobust.attacks import FGSM
from skrobust.properties import ClassificationRobustness
from skrobust.scorers import (
    AdversarialFrequency,
    AdversarialSeverity,
    ConstraintAccuracy,
    ConstraintSatisfaction,
    ConstraintSecurity,
    MarginRobustness,
    RobustnessScore,
)
from skrobust.verification import Bounds

CR = ClassificationRobustness
SCORERS = [
    ConstraintAccuracy(CR(0.3), 4, random_state=0),
    ConstraintSecurity(CR(0.1), FGSM(), random_state=0),
    ConstraintSatisfaction(CR(0.1), Bounds(), random_state=0),
    AdversarialFrequency(0.1, random_state=0),
    MarginRobustness(epsilon_max=1.0, random_state=0),
]
SEVERITY = AdversarialSeverity(0.1, random_state=0)
by_scorer = pytest.mark.parametrize("scorer", SCORERS, ids=lambda s: type(s).__name__)


@pytest.fixture(scope="module")
def model(blobs):
    return LogisticRegression().fit(*blobs)


def values_of(result):
    for name in ("shares", "holds", "distances"):
        if hasattr(result, name):
            return getattr(result, name)
    if hasattr(result, "frequency"):
        return -(result.radius <= 0.1).astype(float)
    return result.verdicts == "verified"


@by_scorer
def test_weighted_score_is_the_weighted_mean(blobs, model, scorer):
    X, y = blobs
    weights = np.linspace(0, 3, len(X))
    plain, weighted = scorer.evaluate(model, X, y), scorer.evaluate(model, X, y, weights)
    values = values_of(plain)
    assert 0 < abs(values.mean()) < 1
    assert weighted.score == pytest.approx((weights * values).sum() / weights.sum())
    assert weighted.score != plain.score
    np.testing.assert_array_equal(values_of(weighted), values)
    effective = weights.sum() ** 2 / (weights**2).sum()
    half = np.sqrt(np.log(40) / (2 * effective))
    assert weighted.interval.method == "weighted hoeffding"
    width = weighted.interval.high - weighted.interval.low
    assert width <= 2 * half + 1e-12
    assert width > 0.1


@by_scorer
def test_units_of_weights_do_not_matter(blobs, model, scorer):
    X, y = blobs
    weights = 1.0 + np.arange(len(X)) % 3
    one, other = (scorer.evaluate(model, X, y, weights * unit) for unit in (1, 5e307))
    assert one.score == pytest.approx(other.score)
    assert one.interval.low == pytest.approx(other.interval.low)


@by_scorer
def test_a_weight_of_zero_leaves_a_sample_out(blobs, model, scorer):
    X, y = blobs
    weights = np.repeat([1.0, 0.0], len(X) // 2)
    half = values_of(scorer.evaluate(model, X, y))[: len(X) // 2]
    assert scorer(model, X, y, sample_weight=weights) == pytest.approx(half.mean())


def test_the_surviving_share_is_weighted_as_well(blobs, model):
    X, y = blobs
    weights = np.linspace(0, 3, len(X))
    result = SCORERS[2].evaluate(model, X, y, weights)
    surviving = result.verdicts != "falsified"
    assert result.surviving_share == pytest.approx(np.average(surviving, weights=weights))
    assert result.surviving_interval.method == "weighted hoeffding"


def test_severity_is_the_weighted_mean_of_what_lies_within(blobs, model):
    X, y = blobs
    weights = np.linspace(0, 3, len(X))
    result = SEVERITY.evaluate(model, X, y, weights)
    within = result.radius <= 0.1
    assert 1 < within.sum() < len(X)
    assert result.score == pytest.approx(
        np.average(result.radius[within], weights=weights[within])
    )
    assert result.score != SEVERITY(model, X, y)
    assert result.interval.method == "weighted hoeffding"
    assert 0 <= result.interval.low < result.score < result.interval.high <= 0.1
    assert SEVERITY(model, X, y, sample_weight=(~within).astype(float)) == 0.1  # none is left


@pytest.mark.parametrize("scorer", [*SCORERS, SEVERITY], ids=lambda s: type(s).__name__)
def test_searches_route_the_weights(blobs, scorer):
    X, y = blobs
    weights = np.where(y == 0, 1.0, 5.0)
    given = {"cv": 2, "params": {"sample_weight": weights}}
    with config_context(enable_metadata_routing=True):
        model = LogisticRegression().set_fit_request(sample_weight=False)
        asked = type(scorer)(**scorer.get_params(deep=False)).set_score_request(sample_weight=True)
        scores = cross_validate(model, X, y, scoring=asked, return_indices=True, **given)
        for train, test, score in zip(
            scores["indices"]["train"],
            scores["indices"]["test"],
            scores["test_score"],
            strict=True,
        ):
            fitted = LogisticRegression().fit(X[train], y[train])
            assert score == scorer(fitted, X[test], y[test], sample_weight=weights[test])
        search = GridSearchCV(
            model, {"C": [0.1, 1.0]}, scoring={"robust": asked}, refit="robust", cv=2
        ).fit(X, y, sample_weight=weights)
        assert search.score(X, y, sample_weight=weights) == scorer(
            search.best_estimator_, X, y, sample_weight=weights
        )


def test_scorers_without_weights_refuse_them(blobs, model):
    with pytest.raises(TypeError, match="sample_weight"):
        RobustnessScore()(model, *blobs, sample_weight=np.ones(80))
    assert not hasattr(RobustnessScore, "set_score_request")


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([1.0], r"Got sample_weight of shape \(1,\), but expected"),
        (-np.ones(80), "Got sample_weight with the entry -1.0"),
        (np.full(80, np.nan), "Got sample_weight with the entry nan"),
        (np.zeros(80), "Got sample_weight with zeros alone"),
        (["a"] * 80, "Got sample_weight=.*but expected non-negative"),
    ],
)
def test_odd_weights_are_named(blobs, model, weights, message):
    with pytest.raises(ValueError, match=message):
        SCORERS[1].evaluate(model, *blobs, weights)
