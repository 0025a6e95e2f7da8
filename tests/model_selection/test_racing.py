"""The racing search, as scikit-learn's other searches."""

import joblib
import numpy as np
import pytest
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.datasets import load_iris
from sklearn.exceptions import FitFailedWarning, NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, GroupKFold, ParameterSampler
from sklearn.tree import DecisionTreeClassifier
from sklearn.utils.estimator_checks import check_estimator

from skrobust.attacks import FGSM, PGD
from skrobust.datasets import load_digits
from skrobust.model_selection import RacingSearchCV
from skrobust.networks import as_network
from skrobust.properties import ClassificationRobustness
from skrobust.scorers import ConstraintSecurity

X, Y = load_iris(return_X_y=True)
DIGITS, LABELS = (part[:300] for part in load_digits(return_X_y=True))
TREE = DecisionTreeClassifier(random_state=0)
DEPTHS = {"max_depth": [1, 2, 3, None]}


class Share(ClassifierMixin, BaseEstimator):
    """Has a value of 1 at a share of the samples: where the first feature is below it."""

    def __init__(self, share=0.5, column=0):
        self.share, self.column = share, column

    def fit(self, X, y):
        if self.share is None:
            raise ArithmeticError("no share")
        self.classes_ = np.unique(y)
        return self

    def predict(self, X):
        return np.zeros(len(X), dtype=int)


def value(estimator, X, y):
    return (X[:, estimator.column] < estimator.share).astype(float)


def mean_value(estimator, X, y):
    return value(estimator, X, y).mean()


def shares(n_samples=300, n_columns=1, seed=0):
    return np.random.default_rng(seed).random((n_samples, n_columns)), np.arange(n_samples) % 2


def test_winner_and_score_are_those_of_the_full_search():
    full = GridSearchCV(TREE, DEPTHS, cv=5).fit(X, Y)
    search = RacingSearchCV(TREE, DEPTHS, cv=5, batch_size=20, random_state=0).fit(X, Y)
    assert search.best_params_ == full.best_params_
    assert search.best_score_ == full.best_score_
    assert search.n_evaluations_ < search.n_evaluations_full_ == 4 * 150
    np.testing.assert_array_equal(search.predict(X), full.predict(X))
    assert search.score(X, Y) == full.score(X, Y)


def test_results_have_the_form_of_scikit_learn():
    grid = [{"max_depth": [1, 2]}, {"min_samples_leaf": [50]}]
    full = GridSearchCV(TREE, grid, cv=3).fit(X, Y).cv_results_
    results = RacingSearchCV(TREE, grid, cv=3, batch_size=1000).fit(X, Y).cv_results_
    assert results.keys() - full.keys() == {"n_drawn", "n_evaluations"}
    assert full.keys() <= results.keys()
    for name in ("mean_test_score", "std_test_score", "split2_test_score", "rank_test_score"):
        np.testing.assert_array_equal(results[name], full[name])
    assert results["params"] == full["params"]
    assert results["param_max_depth"].mask.tolist() == full["param_max_depth"].mask.tolist()


def test_dropped_candidates_rank_last_and_cost_little():
    rows, y = shares()
    grid = {"share": [0.9, 0.1, 0.5]}
    search = RacingSearchCV(Share(), grid, scoring=value, cv=3, random_state=0).fit(rows, y)
    results = search.cv_results_
    assert search.best_params_ == {"share": 0.9}
    assert search.best_score_ == pytest.approx((rows < 0.9).mean())
    assert results["n_evaluations"][0] == 300 > results["n_evaluations"][1:].max()
    assert results["rank_test_score"][0] == 1
    assert search.n_evaluations_ == results["n_evaluations"].sum()
    assert search.n_evaluations_full_ == 900


def test_ties_stay_and_the_first_one_wins():
    rows, y = shares()
    search = RacingSearchCV(Share(), {"share": [0.5, 0.5]}, scoring=value).fit(rows, y)
    assert search.best_index_ == 0
    assert search.cv_results_["rank_test_score"].tolist() == [1, 1]
    assert search.n_evaluations_ == search.n_evaluations_full_


def test_unequal_folds_weigh_as_in_the_mean_over_folds():
    rows, y = shares(120)
    groups = np.r_[np.zeros(20), np.ones(100)]  # each counts one half
    rows[:20], rows[20:] = 0.6 + rows[:20] / 3, rows[20:] / 2
    grid = {"share": [0.55, 0.95, 0.2]}
    kwargs = {"cv": GroupKFold(2), "refit": False}
    full = GridSearchCV(Share(), grid, scoring=mean_value, **kwargs)
    full.fit(rows, y, groups=groups)
    search = RacingSearchCV(Share(), grid, scoring=value, random_state=0, **kwargs)
    search.fit(rows, y, groups=groups)
    assert search.best_score_ == full.best_score_
    assert search.best_params_ == full.best_params_ == {"share": 0.95}


@pytest.mark.slow
def test_same_winner_in_95_of_100_searches_with_half_of_the_evaluations():
    grid = [{"share": [0.8 - 0.12 * k], "column": [k]} for k in range(6)]
    same = evaluations = full = 0
    for seed in range(100):
        rows, y = shares(240, 6, seed)
        rows = np.where(rows[:, :1] < 0.8, rows[:, :1] / 0.8, rows)  # what candidates share
        search = RacingSearchCV(
            Share(), grid, scoring=value, cv=2, refit=False, batch_size=32, random_state=seed
        ).fit(rows, y)
        scores = [(rows[:, k] < 0.8 - 0.12 * k).mean() for k in range(6)]
        same += search.best_score_ == pytest.approx(max(scores))
        evaluations += search.n_evaluations_
        full += search.n_evaluations_full_
    assert same >= 95
    assert evaluations <= 0.5 * full


def test_with_a_robustness_scorer_jobs_change_nothing():
    scorer = ConstraintSecurity(ClassificationRobustness(0.05), FGSM(), random_state=0)
    model, grid = LogisticRegression(max_iter=300), {"C": [1e-5, 1e-2, 1.0]}
    one, two = (
        RacingSearchCV(model, grid, scoring=scorer, cv=2, random_state=0, n_jobs=n_jobs)
        for n_jobs in (None, 2)
    )
    one = one.fit(DIGITS, LABELS)
    with joblib.parallel_config("threading"):
        two.fit(DIGITS, LABELS)
    assert one.best_params_ == two.best_params_
    for name in ("mean_test_score", "n_evaluations", "split0_test_score"):
        np.testing.assert_array_equal(one.cv_results_[name], two.cv_results_[name])
    assert one.score(DIGITS, LABELS) == scorer(one.best_estimator_, DIGITS, LABELS)


def test_a_screen_saves_evaluations_and_changes_no_score():
    property = ClassificationRobustness(0.05)
    params = {
        "estimator": LogisticRegression(max_iter=300),
        "param_grid": {"C": [1e-5, 1e-2]},
        "scoring": ConstraintSecurity(property, PGD(5), random_state=0),
        "cv": 2,
        "random_state": 0,
    }
    plain = RacingSearchCV(**params).fit(DIGITS, LABELS)
    screen = ConstraintSecurity(property, FGSM(), random_state=0)
    search = RacingSearchCV(screen=screen, **params).fit(DIGITS, LABELS)
    assert search.best_score_ == plain.best_score_
    assert search.best_params_ == plain.best_params_
    assert search.n_evaluations_ < plain.n_evaluations_
    best = search.cv_results_["n_evaluations"][search.best_index_]
    assert best < search.cv_results_["n_drawn"][search.best_index_] == 300


def test_as_a_network():
    search = RacingSearchCV(LogisticRegression(max_iter=300), {"C": [0.1, 1.0]}, cv=2)
    network = as_network(search.fit(DIGITS, LABELS))
    np.testing.assert_array_equal(network.classes, np.arange(10))


def test_failing_fits_are_out_with_a_warning():
    rows, y = shares()
    grid = {"share": [None, 0.5, 0.6]}
    with pytest.warns(FitFailedWarning, match=r"(?s)5 of 15 fits failed.*no share"):
        search = RacingSearchCV(Share(), grid, scoring=value).fit(rows, y)
    assert search.best_params_ == {"share": 0.6}
    assert np.isnan(search.cv_results_["mean_test_score"][0])
    assert search.cv_results_["rank_test_score"].tolist()[0] == 3
    with pytest.warns(FitFailedWarning):
        search.set_params(error_score=0).fit(rows, y)
    assert search.cv_results_["mean_test_score"][0] == 0
    with pytest.raises(ArithmeticError, match="no share"):
        search.set_params(error_score="raise").fit(rows, y)
    with pytest.raises(ValueError, match=r"(?s)All of the 10 fits failed.*no share"):
        search.set_params(error_score=np.nan, param_grid={"share": [None, None]}).fit(rows, y)


def test_failing_scores_are_out_with_a_warning():
    def fails(estimator, X, y):
        if estimator.share == 0.7:
            raise ArithmeticError("no value")
        return value(estimator, X, y)

    rows, y = shares()
    search = RacingSearchCV(Share(), {"share": [0.7, 0.5]}, scoring=fails, cv=2)
    with pytest.warns(FitFailedWarning, match=r"(?s)2 of 4 scores failed.*no value"):
        search.fit(rows, y)
    assert search.best_params_ == {"share": 0.5}
    search.set_params(param_grid={"share": [0.7]})
    with (
        pytest.warns(FitFailedWarning),
        pytest.raises(ValueError, match=r"(?s)All candidates failed.*no value"),
    ):
        search.fit(rows, y)


def test_refit_may_be_a_rule_or_not_be():
    rows, y = shares()
    grid = {"share": [0.5, 0.6]}
    search = RacingSearchCV(Share(), grid, scoring=value, refit=lambda results: 0).fit(rows, y)
    assert search.best_estimator_.share == 0.5
    search = RacingSearchCV(Share(), grid, scoring=value, refit=False).fit(rows, y)
    assert search.best_params_ == {"share": 0.6}
    assert not hasattr(search, "best_estimator_")
    with pytest.raises(IndexError, match="Got index of `refit`=2, but expected an index below 2"):
        search.set_params(refit=lambda results: 2).fit(rows, y)


def test_candidates_of_a_sampler():
    rows, y = shares()
    sampler = ParameterSampler({"share": [0.1, 0.5, 0.9]}, 2, random_state=0)
    search = RacingSearchCV(Share(), sampler, scoring=value).fit(rows, y)
    assert search.cv_results_["params"] == list(sampler)


def test_progress_is_told(capsys):
    rows, y = shares()
    grid = {"share": [0.1, 0.9]}
    RacingSearchCV(Share(), grid, scoring=value, verbose=1, random_state=0).fit(rows, y)
    assert capsys.readouterr().out.endswith(
        "1 of 2 candidates are left after 300 of 300 samples\n"
    )


def test_clones_and_unfitted_ones():
    search = RacingSearchCV(TREE, DEPTHS, growth=2.0, random_state=3)
    assert clone(search).get_params(deep=False).keys() == search.get_params(deep=False).keys()
    assert clone(search).growth == 2.0
    with pytest.raises(NotFittedError):
        search.predict(X)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of fits that fail, as the checks want them to
def test_scikit_learn_checks():
    check_estimator(RacingSearchCV(LogisticRegression(), {"C": [0.1, 1.0]}, cv=2))


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"confidence": 1.0}, r"Got confidence=1\.0, but expected a finite number in \(0, 1\)"),
        ({"batch_size": 0}, "Got batch_size=0, but expected an integer of at least 1"),
        ({"growth": 0.5}, r"Got growth=0\.5, but expected a finite number in \[1, inf\)"),
        ({"refit": "score"}, "Got refit='score', but expected True or False"),
        ({"error_score": "no"}, "Got error_score='no', but expected 'raise' or a number"),
        ({"value_range": (1, 0)}, r"Got value_range=\(1, 0\), but expected a pair"),
        ({"value_range": 3}, r"Got value_range=3, but expected a pair"),
        (
            {"value_range": (0, 0.5)},
            r"Got a value of `scoring`=1\.0, but expected a number in \[0",
        ),
        ({"random_state": -1}, r"Got random_state=-1, but expected None, an integer"),
    ],
)
def test_bad_parameters(params, message):
    rows, y = shares(30)
    with pytest.raises(ValueError, match=message):
        RacingSearchCV(Share(), {"share": [0.5]}, scoring=value).set_params(**params).fit(rows, y)


def test_a_score_that_is_no_mean_is_no_fault_of_the_candidates():
    rows, y = shares(30)
    search = RacingSearchCV(Share(), {"share": [0.5]}, scoring=mean_value)
    with pytest.raises(TypeError, match="0 dimensions, but expected None or 'accuracy'"):
        search.fit(rows, y)
