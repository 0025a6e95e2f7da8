"""The Pareto front of searches: who is on it, what is told of them, and its volume."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.experimental import enable_halving_search_cv  # noqa: F401
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, HalvingGridSearchCV

from skrobust.model_selection import ParetoFront, RacingSearchCV, pareto_front


def results_with(**means):
    return {f"mean_test_{name}": np.array(values, float) for name, values in means.items()}


@pytest.fixture(scope="module")
def search(few_digits):
    scoring = {"accuracy": "accuracy", "recall": "recall_macro"}
    grid = [{"C": [1e-5, 0.1]}, {"C": [10.0], "fit_intercept": [False]}]
    model = LogisticRegression(tol=1)
    return GridSearchCV(model, grid, scoring=scoring, refit=False, cv=3).fit(*few_digits)


def test_by_hand():
    results = results_with(
        a=[0.9, 0.8, 0.7, 0.9, 0.6, np.nan, 0.5], b=[0.1, 0.5, 0.5, 0.1, 0.7, 0.9, np.nan]
    )
    front = pareto_front(results, ["a", "b"])
    # Equal candidates do not dominate each other; NaN takes no part.
    assert front.indices.tolist() == [0, 3, 1, 4]
    np.testing.assert_array_equal(front.means, [[0.9, 0.1], [0.9, 0.1], [0.8, 0.5], [0.6, 0.7]])
    assert (len(front), front.n_candidates, front.n_failed, front.n_partial) == (4, 7, 2, 0)
    assert np.isnan(front.standard_errors).all()  # no folds are told
    assert front.params == [{}] * 4
    # In the order of the first score that is named.
    assert pareto_front(results, ["b", "a"]).indices.tolist() == [4, 1, 0, 3]


def test_what_differs_by_rounding_ties():
    a = [0.1 + 0.2 + 0.3, 0.3 + 0.2 + 0.1]
    assert a[0] != a[1]
    assert len(pareto_front(results_with(a=a, b=[0.5, 0.5]), ["a", "b"])) == 2
    assert len(pareto_front(results_with(a=[0.6, 0.6 + 1e-9], b=[0.5, 0.5]), ["a", "b"])) == 1


def dominates(first, second):
    return all(a >= b for a, b in zip(first, second, strict=True)) and first != second


tables = st.integers(1, 4).flatmap(
    lambda d: st.lists(
        st.tuples(*[st.one_of(st.integers(-3, 3), st.just(np.nan))] * d), min_size=1, max_size=12
    )
)


@given(tables)
@settings(max_examples=60, deadline=None)
def test_agrees_with_the_definition(rows):
    names = [str(i) for i in range(len(rows[0]))]
    results = {
        f"mean_test_{name}": np.array(column, float)
        for name, column in zip(names, zip(*rows, strict=True), strict=True)
    }
    front = pareto_front(results, names)
    scored = [row for row in rows if not np.isnan(row).any()]
    expected = [
        i
        for i, row in enumerate(rows)
        if row in scored and not any(dominates(other, row) for other in scored)
    ]
    assert sorted(front.indices) == expected
    assert front.n_failed == len(rows) - len(scored)
    ordered = [tuple(row) for row in front.means]
    assert ordered == sorted(ordered, reverse=True)


def test_a_search_its_results_and_a_frame_say_the_same(search):
    names = ["accuracy", "recall"]
    front = pareto_front(search, names)
    for other in (search.cv_results_, pd.DataFrame(search.cv_results_)):
        same = pareto_front(other, names)
        np.testing.assert_array_equal(same.indices, front.indices)
        np.testing.assert_array_equal(same.standard_errors, front.standard_errors)
        assert same.params == front.params
    results = search.cv_results_
    assert front.params == [results["params"][i] for i in front.indices]
    folds = np.stack([results[f"split{i}_test_recall"] for i in range(3)], axis=1)
    errors = folds.std(axis=1, ddof=1) / np.sqrt(3)
    np.testing.assert_allclose(front.standard_errors[:, 1], errors[front.indices])
    # Without the list of parameters, their columns tell.
    table = pd.DataFrame(results).drop(columns="params")
    everyone = pareto_front(results_with(x=[1, 1, 1]) | dict(table), ["x"])
    assert everyone.params[0] == {"C": 1e-5}
    assert everyone.params[2] == {"C": 10.0, "fit_intercept": False}


def test_several_searches_are_compared_with_each_other():
    one = results_with(a=[0.9, 0.5], b=[0.1, 0.4]) | {"params": [{"C": 1}, {"C": 2}]}
    two = results_with(a=[0.6, 0.95], b=[0.4, 0.05]) | {"params": [{"C": 3}, {"gamma": 4}]}
    front = pareto_front({"one": one, "two": two}, ["a", "b"])
    assert front.searches == ["two", "one", "two"]
    assert front.indices.tolist() == [1, 0, 0]
    assert front.params == [{"gamma": 4}, {"C": 1}, {"C": 3}]
    assert pareto_front([one, two], ["a", "b"]).searches == [1, 0, 1]
    frame = front.to_frame()
    assert frame["search"].tolist() == ["two", "one", "two"]
    assert frame.index.tolist() == [1, 0, 0] and frame.index.name == "candidate"
    assert frame["param_gamma"].tolist() == [4, None, None]


def test_the_frame_has_scores_errors_and_the_parameters_that_differ(search):
    everyone = {"mean_test_same": np.ones(3)} | search.cv_results_
    frame = pareto_front(everyone, ["same"]).to_frame()
    assert list(frame) == [
        "mean_test_same",
        "standard_error_same",
        "param_C",
        "param_fit_intercept",
    ]
    assert frame["param_C"].tolist() == [1e-5, 0.1, 10.0]


def test_halving_and_races_compare_who_came_as_far(few_digits):
    X, y = few_digits
    grid = {"C": [1e-6, 0.01, 1.0]}
    halving = HalvingGridSearchCV(
        LogisticRegression(tol=1), grid, cv=2, min_resources=60, random_state=0
    ).fit(X[:240], y[:240])
    resources = np.array(halving.cv_results_["n_resources"])
    assert len(set(resources)) > 1
    front = pareto_front(halving, ["score"])
    assert (resources[front.indices] == resources.max()).all()
    assert front.n_partial == (resources < resources.max()).sum()
    assert pareto_front(halving, ["score"], partial=True).n_partial == 0
    race = RacingSearchCV(LogisticRegression(tol=1), grid, cv=2, random_state=0).fit(X, y)
    front = pareto_front(race, ["score"])
    assert race.best_index_ in front.indices
    assert (race.cv_results_["n_drawn"][front.indices] == len(X)).all()


def test_luck_of_a_dropped_candidate_is_no_merit():
    results = results_with(score=[0.9, 0.8, np.nan]) | {"n_drawn": np.array([10, 100, 200])}
    assert pareto_front(results, ["score"]).indices.tolist() == [1]
    assert pareto_front(results, ["score"], partial=True).indices.tolist() == [0]


def test_hypervolume_by_hand():
    front = pareto_front(results_with(a=[0.9, 0.8, 0.1], b=[0.3, 0.5, 0.1]), ["a", "b"])
    assert front.hypervolume() == pytest.approx(0.43)
    assert front.hypervolume([0.5, -1]) == pytest.approx(0.4 * 1.3 + 0.3 * 0.2)
    assert front.hypervolume([2, 2]) == 0


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=2, max_size=12))
@settings(max_examples=30, deadline=None)
def test_more_candidates_never_lose_volume(rows):
    columns = np.array(rows) / 9
    volumes = [
        pareto_front(results_with(a=part[:, 0], b=part[:, 1]), ["a", "b"]).hypervolume()
        for part in (columns[:-1], columns)
    ]
    assert volumes[0] <= volumes[1] + 1e-12 and 0 <= volumes[1] <= 1


def test_all_candidates_may_have_failed():
    front = pareto_front(results_with(a=[np.nan], b=[0.1]), ["a", "b"])
    assert (len(front), front.n_failed, front.hypervolume()) == (0, 1, 0.0)
    frame = front.to_frame()
    assert frame.shape == (0, 4) and list(frame)[:2] == ["mean_test_a", "standard_error_a"]


def test_repr_counts():
    front = pareto_front(results_with(a=[0.9, np.nan], b=[0.1, 0.1]), ["a", "b"])
    assert isinstance(front, ParetoFront)
    assert repr(front) == (
        "ParetoFront(scores=('a', 'b'), 1 of 2 candidates, 1 failed, 0 partial)"
    )


TWO = results_with(a=[0.9], b=[-0.1])


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((TWO, "a"), TypeError, "Got scores='a', but expected a list or a tuple"),
        ((TWO, ["a", 3]), TypeError, "Got scores=3, but expected a str"),
        ((TWO, []), ValueError, r"Got scores=\[\], but expected different names"),
        ((TWO, ["a", "a"]), ValueError, r"Got scores=\['a', 'a'\], but expected different names"),
        ((TWO, ["a", "c"]), ValueError, "Got scores='c', but expected one of the search's scores"),
        ((3, ["a"]), TypeError, "Got results=3, but expected a fitted search"),
        (({}, ["a"]), ValueError, r"Got results=\{\}, but expected one search"),
        (([], ["a"]), ValueError, r"Got results=\[\], but expected one search"),
        (([TWO, 3], ["a"]), TypeError, "Got results=3, but expected a fitted search"),
        (({"mean_test_a": ["x"]}, ["a"]), ValueError, "Got mean_test_a=.*but expected numbers"),
        (({"mean_test_a": 0.1}, ["a"]), ValueError, "Got mean_test_a=0.1, but expected numbers"),
        (
            ({"mean_test_a": [1, 2], "mean_test_b": [1]}, ["a", "b"]),
            ValueError,
            r"columns of the lengths \[2, 1\] for \['a', 'b'\]",
        ),
    ],
)
def test_refuses_odd_arguments(arguments, error, message):
    with pytest.raises(error, match=message):
        pareto_front(*arguments)


def test_refuses_an_odd_flag():
    with pytest.raises(ValueError, match="Got partial='no', but expected True or False"):
        pareto_front(TWO, ["a"], partial="no")


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        (None, r"Got reference=None, but expected a point below the scores: \['b'\] of the front"),
        ([0], r"Got reference=\[0\], but expected None, or 2 finite numbers"),
        ([0, np.inf], "but expected None, or 2 finite numbers"),
        ("ab", "Got reference='ab', but expected None, or 2 finite numbers"),
    ],
)
def test_refuses_odd_reference_points(reference, message):
    with pytest.raises(ValueError, match=message):
        pareto_front(TWO, ["a", "b"]).hypervolume(reference)


def test_infinite_scores_have_no_volume():
    front = pareto_front(results_with(a=[np.inf, 1.0], b=[0.0, 1.0]), ["a", "b"])
    with pytest.raises(ValueError, match="Got infinite scores on the front"):
        front.hypervolume()
