"""Refit rules: which candidate they take, in which searches, and what they refuse."""

import pickle
import warnings

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, HalvingGridSearchCV, RandomizedSearchCV

from skrobust.exceptions import InfeasibleWarning
from skrobust.model_selection import LargestSubjectTo, RacingSearchCV, pareto_front

RESULTS = {
    "mean_test_accuracy": np.array([0.95, 0.90, 0.80, np.nan, 0.90]),
    "mean_test_proved": np.array([0.1, 0.4, 0.6, 0.9, 0.4]),
    # The standard error of the best one is 0.05; those of others do not count.
    "split0_test_accuracy": np.array([0.90, 0.20, 0.10, np.nan, 0.9]),
    "split1_test_accuracy": np.array([1.00, 1.60, 1.50, 1.0, 0.9]),
}


@pytest.mark.parametrize(
    ("bounds", "index"),
    [
        ({}, 3),  # nothing is asked of the accuracy, so that its NaN does not matter
        ({"at_least": {"accuracy": 0.0}}, 2),
        ({"at_least": {"accuracy": 0.8}}, 2),
        ({"at_least": {"accuracy": 0.81}}, 1),  # the first of two that tie
        ({"at_least": {"accuracy": 0.91}}, 0),
        ({"within": {"accuracy": 0.05}}, 1),
        ({"within": {"accuracy": 0.0}}, 0),
        ({"within": {"accuracy": 0.15}}, 2),
        ({"within_standard_errors": {"accuracy": 1}}, 1),
        ({"within_standard_errors": {"accuracy": 0.9}}, 0),
        ({"within_standard_errors": {"accuracy": 3}}, 2),
        ({"within_standard_errors": {"accuracy": 3}, "at_least": {"accuracy": 0.85}}, 1),
        ({"at_least": {"accuracy": 0.8, "proved": 0.5}}, 2),
    ],
)
def test_by_hand(bounds, index):
    rule = LargestSubjectTo("proved", **bounds)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        chosen = rule(RESULTS)
        assert chosen == rule(pd.DataFrame(RESULTS)) == index
    assert isinstance(chosen, int)


def test_of_candidates_that_tie_the_one_with_larger_bounded_scores_is_taken():
    results = {
        "mean_test_a": [0.5, 0.1 + 0.2 + 0.3, 0.3 + 0.2 + 0.1],
        "mean_test_b": [0.9, 0.7, 0.8],
    }
    assert LargestSubjectTo("a", at_least={"b": 0})(results) == 2
    assert LargestSubjectTo("a")(results) == 1


def test_of_best_candidates_the_smallest_standard_error_counts():
    results = {
        "mean_test_a": [0.5, 0.5, 0.4],
        "split0_test_a": [0.3, 0.45, 0.4],
        "split1_test_a": [0.7, 0.55, 0.4],
        "mean_test_b": [0.1, 0.1, 0.9],
    }
    assert LargestSubjectTo("b", within_standard_errors={"a": 1})(results) == 0
    assert LargestSubjectTo("b", within_standard_errors={"a": 2})(results) == 2


def test_where_none_is_within_the_bounds_the_nearest_is_taken():
    rule = LargestSubjectTo("proved", at_least={"accuracy": 0.99})
    with pytest.warns(InfeasibleWarning) as caught:
        assert rule(RESULTS) == 0
    assert str(caught[0].message) == (
        "No candidate is within the bounds. The nearest one, at index 0, is taken: accuracy is "
        "0.95, where at_least['accuracy']=0.99 asks for 0.99."
    )
    # The largest shortfalls are 0.6, 0.3, 0.1 and 0.3.
    rule = LargestSubjectTo("proved", at_least={"accuracy": 0.9, "proved": 0.7})
    with pytest.warns(InfeasibleWarning, match="accuracy is 0.8.*; proved is 0.6, where"):
        assert rule(RESULTS) == 2


tables = st.lists(st.tuples(*[st.integers(-4, 4)] * 4), min_size=1, max_size=10)


@given(tables, st.integers(-4, 4), st.integers(0, 3), st.integers(0, 2))
@settings(max_examples=60, deadline=None)
def test_agrees_with_the_definition_and_is_on_the_front(rows, least, slack, n_errors):
    score, a, first, second = np.array(rows, float).T
    b = (first + second) / 2
    results = {"mean_test_score": score, "mean_test_a": a, "mean_test_b": b}
    results |= {"split0_test_b": first, "split1_test_b": second}
    rule = LargestSubjectTo(
        "score",
        at_least={"score": least},
        within={"a": slack},
        within_standard_errors={"b": n_errors},
    )
    # Of two folds, the standard error is half of what they differ by.
    error = np.abs(first - second)[b == b.max()].min() / 2
    limits = (least, a.max() - slack, b.max() - n_errors * error)
    feasible = (score >= limits[0]) & (a >= limits[1]) & (b >= limits[2] - 1e-9)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        chosen = rule(results)
    assert bool(caught) == (not feasible.any())
    if feasible.any():
        assert feasible[chosen] and score[chosen] == score[feasible].max()
    else:
        short = np.max([limit - x for limit, x in zip(limits, (score, a, b), strict=True)], axis=0)
        assert short[chosen] == pytest.approx(short.min())
    assert chosen in pareto_front(results, ["score", "a", "b"]).indices


# ---- in searches -----------------------------------------------------------------------------

GRID = {"C": [1e-5, 0.1, 10.0]}
SCORING = {"accuracy": "accuracy", "recall": "recall_macro"}


@pytest.mark.parametrize("kind", [GridSearchCV, RandomizedSearchCV])
def test_searches_refit_what_the_rule_takes(kind, few_digits):
    rule = LargestSubjectTo("recall", within_standard_errors={"accuracy": 1})
    options = {"n_iter": 3, "random_state": 0} if kind is RandomizedSearchCV else {}
    search = kind(
        LogisticRegression(tol=1), GRID, scoring=SCORING, refit=rule, cv=3, **options
    ).fit(*few_digits)
    assert search.best_index_ == rule(search.cv_results_)
    assert search.best_estimator_.C == search.best_params_["C"] == GRID["C"][search.best_index_]
    assert search.predict(few_digits[0][:2]).shape == (2,)
    copy = clone(search)
    assert copy.refit is not rule and copy.refit.get_params() == rule.get_params()
    assert pickle.loads(pickle.dumps(search)).refit(search.cv_results_) == search.best_index_


def test_a_race_is_won_by_who_came_to_the_end(few_digits):
    rule = LargestSubjectTo("score", within={"score": 0.05})
    race = RacingSearchCV(LogisticRegression(tol=1), GRID, refit=rule, cv=2, random_state=0)
    race.fit(*few_digits)
    results = race.cv_results_
    assert results["n_drawn"][race.best_index_] == results["n_drawn"].max()
    assert race.best_params_ == {"C": race.best_estimator_.C}


def test_of_a_halving_search_the_last_round_counts(few_digits):
    X, y = few_digits
    search = HalvingGridSearchCV(
        LogisticRegression(tol=1), GRID, cv=2, min_resources=60, random_state=0
    ).fit(X[:240], y[:240])
    index = LargestSubjectTo("score", within_standard_errors={"score": 1})(search.cv_results_)
    assert search.cv_results_["iter"][index] == search.cv_results_["iter"].max()


def test_rules_are_parameters():
    rule = LargestSubjectTo("proved", at_least={"accuracy": 0.8})
    assert repr(rule) == "LargestSubjectTo(at_least={'accuracy': 0.8}, score='proved')"
    search = GridSearchCV(LogisticRegression(), GRID, refit=rule)
    assert search.set_params(refit__score="recall").refit.score == "recall"


# ---- bad input -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rule", "error", "message"),
    [
        (LargestSubjectTo(3), TypeError, "Got score=3, but expected a str"),
        (
            LargestSubjectTo("x"),
            ValueError,
            "Got a score of LargestSubjectTo='x', but expected on",
        ),
        (
            LargestSubjectTo("proved", within={"x": 1}),
            ValueError,
            r"='x', but expected one of the search's scores \['accuracy', 'proved'\]",
        ),
        (
            LargestSubjectTo("proved", at_least=0.8),
            TypeError,
            "Got at_least=0.8, but expected a M",
        ),
        (
            LargestSubjectTo("proved", at_least={3: 1}),
            TypeError,
            "Got a key of at_least=3, but ex",
        ),
        (
            LargestSubjectTo("proved", at_least={"accuracy": "0.8"}),
            ValueError,
            r"Got at_least\['accuracy'\]='0.8', but expected a finite number",
        ),
        (
            LargestSubjectTo("proved", within={"accuracy": -1}),
            ValueError,
            r"Got within\['accuracy'\]=-1, but expected a finite number in \[0",
        ),
        (
            LargestSubjectTo("accuracy", within_standard_errors={"proved": 1}),
            ValueError,
            "Got results with fewer than two folds of 'proved'",
        ),
    ],
)
def test_refuses_odd_parameters(rule, error, message):
    with pytest.raises(error, match=message):
        rule(RESULTS)


def test_refuses_odd_results():
    rule = LargestSubjectTo("a", at_least={"b": 0})
    with pytest.raises(TypeError, match="Got cv_results=3, but expected the `cv_results_`"):
        rule(3)
    failed = {"mean_test_a": [np.nan, 1.0], "mean_test_b": [1.0, np.nan]}
    with pytest.raises(ValueError, match=r"Got NaN in one of the scores \['a', 'b'\] of each"):
        rule(failed)
