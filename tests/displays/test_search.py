"""What the displays read from a search."""

import numpy as np
import pytest
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV

from skrobust.displays._search import mean_scores, parameter_values, results_of


@pytest.fixture(scope="module")
def results(digits):
    grid = [{"C": [0.1, 1.0]}, {"fit_intercept": [False]}]
    scoring = {"accuracy": "accuracy"}
    search = GridSearchCV(LogisticRegression(tol=1), grid, scoring=scoring, refit=False, cv=2)
    return results_of(search.fit(*digits))


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
