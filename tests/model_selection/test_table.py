"""The table of values, and the results made of it."""

import numpy as np

from skrobust.model_selection._table import Table, Trial

TESTS = [np.array([0, 1]), np.array([2, 3, 4])]
CANDIDATES = [{"a": 1}, {"b": 2}]


def table():
    trials = [[Trial(None, 1.0), Trial(None, 3.0)], [Trial(None, 2.0), Trial(None, 2.0)]]
    return Table(trials, TESTS)


def test_items_are_the_test_samples_of_all_folds():
    known = table()
    assert known.row.tolist() == [0, 1, 2, 3, 4]
    assert known.fold.tolist() == [0, 0, 1, 1, 1]


def test_results_are_means_over_folds_of_what_was_seen():
    known = table()
    known.enter_known(0, np.arange(5), 0.0)
    known.enter(0, 0, np.array([0, 1]), np.array([1.0, 0.0]), 0.5)
    known.enter(0, 1, np.array([2, 3, 4]), np.array([1.0, 1.0, 1.0]), 0.5)
    known.enter_known(1, np.array([0]), 0.0)
    known.enter(1, 0, np.array([0]), np.array([1.0]), 0.5)
    results = known.results(CANDIDATES)
    assert results["mean_test_score"].tolist() == [0.75, 1.0]
    assert results["std_test_score"][0] == 0.25
    assert np.isnan(results["split1_test_score"][1])
    assert results["rank_test_score"].tolist() == [1, 2]  # the second one saw a single sample
    assert results["n_drawn"].tolist() == results["n_evaluations"].tolist() == [5, 1]
    assert results["mean_fit_time"].tolist() == [2.0, 2.0]
    assert results["param_a"].mask.tolist() == [False, True]


def test_values_stay_below_limits_and_the_least_ones_are_known():
    known = table()
    for fold, items in enumerate(([0, 1], [2, 3, 4])):
        known.enter(0, fold, np.array(items), np.array([0.0, 0.5, 1.0])[: len(items)], 0.1)
    known.keep_as_limits()
    known.enter_known(0, np.array([0, 1, 3]), 0.0)
    known.enter(0, 0, np.array([1]), np.array([1.0]), 0.1)
    assert known.values[0].tolist()[:2] == [0.0, 0.5]
    assert known.n_asked.tolist() == [1, 0]
    assert known.is_seen[0].tolist() == [True, True, False, True, False]


def test_failures_rank_last():
    known = table()
    for candidate, value in ((0, np.nan), (1, 0.0)):
        for fold, items in enumerate(([0, 1], [2, 3, 4])):
            known.enter_known(candidate, np.array(items), 0.0)
            known.enter(candidate, fold, np.array(items), np.full(len(items), value), 0.1)
    results = known.results(CANDIDATES)
    assert np.isnan(results["mean_test_score"][0])
    assert results["rank_test_score"].tolist() == [2, 1]
