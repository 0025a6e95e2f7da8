"""Box plots hold the scores of each value of a hyperparameter, and nothing else."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV

from skrobust.displays import HyperparameterBoxDisplay
from skrobust.training import AdversarialTraining, StandardTraining


def test_boxes_by_hand():
    display = HyperparameterBoxDisplay([10, 2, 10, 2, 5], [0.1, 0.5, 0.3, np.nan, np.nan])
    assert list(display.scores_by_value_) == ["2", "5", "10"]
    assert display.scores_by_value_["10"].tolist() == [0.1, 0.3]
    assert display.n_failed_ == 2
    np.testing.assert_allclose(display.medians_, [0.5, np.nan, 0.2])


def test_values_that_are_no_numbers_stand_as_they_appear():
    display = HyperparameterBoxDisplay([(64,), "tanh", (64,), None], [0.1, 0.2, 0.3, 0.4])
    assert list(display.scores_by_value_) == ["(64,)", "tanh", "None"]
    regimes = [StandardTraining(), AdversarialTraining()]
    display = HyperparameterBoxDisplay(regimes, [0.1, 0.2])
    assert list(display.scores_by_value_) == ["StandardTraining", "AdversarialTraining"]


def test_what_is_drawn_are_the_medians():
    values, scores = [3, 1, 3, 1], [0.1, 0.5, 0.3, 0.7]
    display = HyperparameterBoxDisplay(values, scores, name="depth", score_name="1 - D").plot()
    drawn = [float(line.get_ydata()[0]) for line in display.boxes_["medians"]]
    assert drawn == pytest.approx([0.6, 0.2])
    np.testing.assert_allclose(display.medians_, drawn)
    assert [text.get_text() for text in display.ax_.get_xticklabels()] == ["1", "3"]
    assert (display.ax_.get_xlabel(), display.ax_.get_ylabel()) == ("depth", "1 - D")


def test_takes_its_scores_from_the_search(digits):
    grid = [{"C": [1.0, 0.01], "tol": [0.1, 1.0]}, {"tol": [0.5]}]
    scoring = {"accuracy": "accuracy", "security": "recall_macro"}
    search = GridSearchCV(LogisticRegression(), grid, scoring=scoring, refit=False, cv=2)
    search.fit(*digits)
    _, ax = plt.subplots()
    display = HyperparameterBoxDisplay.from_estimator(search, by="C", ax=ax)
    assert display.ax_ is ax
    counted = [(name, len(each)) for name, each in display.scores_by_value_.items()]
    assert counted == [("0.01", 2), ("1.0", 2), ("not set", 1)]
    first = search.cv_results_["mean_test_security"][:2]
    np.testing.assert_array_equal(display.scores_by_value_["1.0"], first)
    with pytest.raises(ValueError, match=r"Got by='D', but expected one of \['C', 'tol'\]"):
        HyperparameterBoxDisplay.from_estimator(search, by="D")
    with pytest.raises(ValueError, match="Got score='f1', but expected one of the search's"):
        HyperparameterBoxDisplay.from_estimator(search, by="C", score="f1")


@pytest.mark.parametrize(
    ("values", "scores", "params", "error", "message"),
    [
        ([], [], {}, ValueError, r"Got scores of shape \(0,\)"),
        ([1], [0.1, 0.2], {}, ValueError, r"Got values=\[1\], but expected as many .*, 2"),
        (1, [0.1, 0.2], {}, ValueError, r"Got values=\[1\]"),
        ("ab", [0.1, 0.2], {}, ValueError, r"Got values=\['ab'\]"),
        ([1, 2], ["a", 0.2], {}, ValueError, r"Got scores=\['a', 0.2\], but expected numbers"),
        ([1], [0.1], {"name": 3}, TypeError, "Got name=3, but expected a str"),
        ([1], [0.1], {"score_name": None}, TypeError, "Got score_name=None"),
    ],
)
def test_refuses_odd_arguments(values, scores, params, error, message):
    with pytest.raises(error, match=message):
        HyperparameterBoxDisplay(values, scores, **params)
