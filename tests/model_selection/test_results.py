"""What is read from the results of a search."""

import numpy as np
import pandas as pd
import pytest
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV

from skrobust.model_selection._results import (
    comparable,
    mean_scores,
    means_of,
    named_results,
    parameter_values,
    parameters_of_candidates,
    results_of,
    standard_errors,
)


@pytest.fixture(scope="module")
def results(few_digits):
    grid = [{"C": [0.1, 1.0]}, {"fit_intercept": [False]}]
    scoring = {"accuracy": "accuracy"}
    search = GridSearchCV(LogisticRegression(tol=1), grid, scoring=scoring, refit=False, cv=2)
    return results_of(search.fit(*few_digits))


def test_scores_and_parameters_of_each_candidate(results):
    scores = mean_scores(results, "score", "accuracy")
    np.testing.assert_array_equal(scores, results["mean_test_accuracy"])
    assert parameter_values(results, "by", "C") == [0.1, 1.0, "not set"]
    assert np.isnan(parameter_values(results, "by", "C", np.nan)[2])
    assert parameter_values(results, "by", "fit_intercept") == ["not set"] * 2 + [False]


def test_unknown_names_are_listed(results):
    with pytest.raises(ValueError, match=r"Got score='x', but expected one of the search's sc"):
        mean_scores(results, "score", "x")
    with pytest.raises(ValueError, match=r"Got by='x', but expected one of \['C', 'fit_inter"):
        parameter_values(results, "by", "x")
    with pytest.raises(TypeError, match="Got by=3, but expected a str"):
        parameter_values(results, "by", 3)


def test_a_search_has_been_fitted():
    with pytest.raises(NotFittedError):
        results_of(GridSearchCV(LogisticRegression(), {"C": [1.0]}))


def test_results_stand_for_their_search(results):
    frame = pd.DataFrame(results)
    assert results_of(results) is results
    assert results_of(frame) is frame
    assert named_results({"a": results, "b": frame}) == {"a": results, "b": frame}
    assert list(named_results([results, frame])) == [0, 1]
    assert list(named_results(results)) == [""]


@pytest.mark.parametrize("odd", [3, None, "search", {"a": 1}, np.zeros(3), [3], {3: 4}])
def test_what_is_no_search_is_refused(odd):
    with pytest.raises(TypeError, match=r"Got search=.*but expected a fitted search"):
        named_results(odd)


def test_parameters_are_told_by_the_list_or_by_their_columns(results):
    expected = [{"C": 0.1}, {"C": 1.0}, {"fit_intercept": False}]
    assert parameters_of_candidates(results) == expected
    columns = {name: column for name, column in results.items() if name != "params"}
    assert parameters_of_candidates(columns) == expected
    assert parameters_of_candidates({"mean_test_a": [1.0, 2.0]}) == [{}, {}]


def test_standard_errors_by_hand():
    """Of 0.2, 0.4 and 0.6 the deviation is 0.2; of one fold, or none, there is no error."""
    results = {
        "mean_test_a": [0.4, 0.4, 0.1, 0.0],
        "split0_test_a": [0.2, 0.3, 0.1, np.nan],
        "split1_test_a": [0.4, 0.5, np.nan, np.nan],
        "split2_test_a": [0.6, np.nan, np.nan, np.nan],
        "split0_test_ab": [9.0, 9.0, 9.0, 9.0],
    }
    expected = [0.2 / np.sqrt(3), 0.1, np.nan, np.nan]
    np.testing.assert_allclose(standard_errors(results, "a"), expected)
    assert np.isnan(standard_errors({"mean_test_a": [1.0, 2.0]}, "a")).all()


def test_means_of_several_scores_stand_side_by_side():
    means = means_of({"mean_test_a": [1.0, 2.0], "mean_test_b": [3.0, np.nan]}, "x", ["b", "a"])
    np.testing.assert_array_equal(means, [[3.0, 1.0], [np.nan, 2.0]])


@pytest.mark.parametrize("effort", ["n_resources", "n_drawn"])
def test_who_was_dropped_is_not_compared(effort):
    means = np.array([[0.9], [0.1], [np.nan], [0.2]])
    is_scored, is_complete = comparable({effort: [10, 30, 60, 30]}, means)
    assert is_scored.tolist() == [True, True, False, True]
    assert is_complete.tolist() == [False, True, False, True]
    assert comparable({}, means)[1].tolist() == is_scored.tolist()
