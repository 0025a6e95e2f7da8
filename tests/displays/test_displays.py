"""Displays store the right arrays, and draw them."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV

from skrobust.datasets import load_digits
from skrobust.displays import (
    AdversarialExamplesDisplay,
    CorruptionDisplay,
    RobustnessCurveDisplay,
    TradeOffDisplay,
)
from skrobust.properties import ClassificationRobustness
from skrobust.scorers import ConstraintSecurity, CorruptionRobustness


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def digits():
    X, y = load_digits(return_X_y=True)
    return X[:300], y[:300]


@pytest.fixture(scope="module")
def model(digits):
    return LogisticRegression().fit(*digits)


@pytest.fixture(scope="module")
def search(digits):
    scoring = {"accuracy": "accuracy", "security": SCORER}
    grid = {"C": [0.01, 1.0, 100.0]}
    search = GridSearchCV(LogisticRegression(), grid, scoring=scoring, refit=False, cv=2)
    return search.fit(*digits)


SCORER = ConstraintSecurity(ClassificationRobustness(0.1), random_state=0)


class TestRobustnessCurve:
    def test_scores_and_intervals_are_those_of_the_scorer(self, model, digits):
        display = RobustnessCurveDisplay.from_estimator(
            model, *digits, scorer=SCORER, epsilons=[0.0, 0.1]
        )
        scores = display.scores["LogisticRegression"]
        expected = SCORER.evaluate(model, *digits)
        assert scores[0] == model.score(*digits)
        assert scores[1] == expected.score
        low, high = display.intervals["LogisticRegression"][1]
        assert (low, high) == (expected.interval.low, expected.interval.high)

    def test_the_scorer_is_left_as_it_was(self, model, digits):
        RobustnessCurveDisplay.from_estimator(model, *digits, scorer=SCORER, epsilons=[0.3])
        assert SCORER.property == ClassificationRobustness(0.1)

    def test_draws_one_labelled_line_an_estimator(self, model, digits):
        _, ax = plt.subplots()
        display = RobustnessCurveDisplay.from_estimator(
            {"a": model, "b": model}, *digits, scorer=SCORER, epsilons=[0, 0.05], ax=ax
        )
        assert display.ax_ is ax and display.figure_ is ax.figure
        assert [line.get_label() for line in display.lines_] == ["a", "b"]
        np.testing.assert_array_equal(display.lines_[0].get_ydata(), display.scores["a"])

    def test_numbers_estimators_of_one_class(self, model, digits):
        display = RobustnessCurveDisplay.from_estimator(
            [model, model], *digits, scorer=SCORER, epsilons=[0]
        )
        assert list(display.scores) == ["LogisticRegression 0", "LogisticRegression 1"]

    def test_refuses_what_is_no_scorer(self, model, digits):
        with pytest.raises(TypeError, match=r"Got scorer='accuracy', but expected"):
            RobustnessCurveDisplay.from_estimator(
                model, *digits, scorer="accuracy", epsilons=[0.1]
            )


class TestTradeOff:
    def test_pareto_front_by_hand(self):
        accuracy = [0.9, 0.8, 0.7, 0.9, 0.6, np.nan]
        robustness = [0.1, 0.5, 0.5, 0.1, 0.7, 0.9]
        display = TradeOffDisplay(accuracy, robustness)
        # Equal candidates do not dominate each other; NaN takes no part.
        assert display.pareto_front_.tolist() == [True, True, False, True, True, False]
        assert display.n_failed_ == 1

    def test_correlation_is_spearmans(self):
        display = TradeOffDisplay([0.1, 0.2, 0.3, 0.4], [0.9, 0.5, 0.4, 0.1])
        assert display.correlation_ == pytest.approx(-1.0)
        assert np.isnan(TradeOffDisplay([0.1, 0.2], [0.9, 0.5]).correlation_)
        assert np.isnan(TradeOffDisplay([0.1, 0.1, 0.1], [0.9, 0.5, 0.4]).correlation_)

    def test_takes_its_points_from_the_search(self, search):
        display = TradeOffDisplay.from_estimator(search, group_by="C")
        results = search.cv_results_
        np.testing.assert_array_equal(display.accuracy, results["mean_test_accuracy"])
        np.testing.assert_array_equal(display.robustness, results["mean_test_security"])
        assert display.groups == ["0.01", "1.0", "100.0"]
        legend = [text.get_text() for text in display.ax_.get_legend().get_texts()]
        assert legend == ["0.01", "1.0", "100.0", "Pareto front"]

    def test_refuses_unknown_names(self, search):
        with pytest.raises(ValueError, match=r"Got robustness='nonsense', but expected one of"):
            TradeOffDisplay.from_estimator(search, robustness="nonsense")
        with pytest.raises(ValueError, match=r"Got group_by='D', but expected one of \['C'\]"):
            TradeOffDisplay.from_estimator(search, group_by="D")


class TestCorruptions:
    scorer = CorruptionRobustness(["blur", "noise", "occlusion"], random_state=0)

    def test_bars_are_what_the_scorer_says(self, model, digits):
        result = self.scorer.evaluate(model, *digits)
        display = CorruptionDisplay.from_estimator(model, *digits, scorer=self.scorer)
        heights = display.values_["LogisticRegression"]
        assert heights.to_dict() == result.to_frame()["accuracy"].to_dict()
        # The mildest first.
        assert (np.diff(heights) <= 0).all()
        (bars,) = display.bars_
        assert [bar.get_height() for bar in bars] == heights.tolist()
        ticks = [text.get_text() for text in display.ax_.get_xticklabels()]
        assert ticks == heights.index.tolist()
        ends = bars.errorbar[2][0].get_segments()[0][:, 1]
        frame = result.to_frame().loc[heights.index[0]]
        assert ends.tolist() == pytest.approx([frame["low"], frame["high"]])
        assert display.ax_.lines[-1].get_ydata()[0] == result.clean_accuracy

    def test_several_estimators_stand_side_by_side(self, model, digits):
        _, ax = plt.subplots()
        flat = DummyClassifier().fit(*digits)
        display = CorruptionDisplay.from_estimator(
            {"a": model, "b": flat}, *digits, scorer=self.scorer, shown="agreement", ax=ax
        )
        assert display.ax_ is ax and display.figure_ is ax.figure
        assert list(display.values_) == ["a", "b"]
        assert (display.values_["b"] == 1).all()
        first, second = display.bars_
        for left, right in zip(first, second, strict=True):
            assert left.get_x() + left.get_width() == pytest.approx(right.get_x())
        # The scorer's intervals are of accuracies.
        assert first.errorbar is None
        assert [text.get_text() for text in ax.get_legend().get_texts()] == ["a", "b"]

    def test_scores_of_another_scorer(self, model, digits):
        scorer = CorruptionRobustness(["noise"], scorer=SCORER, random_state=0)
        result = scorer.evaluate(model, *digits)
        display = CorruptionDisplay.from_result(result, shown="score")
        assert display.values_.loc["noise", "estimator"] == result.scores[0]
        agreement = CorruptionRobustness(["noise"], reference="prediction", random_state=0)
        display = CorruptionDisplay.from_result(
            agreement.evaluate(model, digits[0]), shown="agreement", color="gray"
        )
        assert display.bars_[0].errorbar is not None

    def test_refusals(self, model, digits):
        result = self.scorer.evaluate(model, *digits)
        with pytest.raises(ValueError, match="Got shown='score', but expected results of the"):
            CorruptionDisplay.from_result(result, shown="score")
        with pytest.raises(ValueError, match="Got shown='loss', but expected one of"):
            CorruptionDisplay.from_result(result, shown="loss")
        other = CorruptionRobustness(["shift"]).evaluate(model, *digits)
        with pytest.raises(ValueError, match="but expected results of the same corruptions"):
            CorruptionDisplay.from_result({"a": result, "b": other})
        with pytest.raises(TypeError, match=r"Got result=0\.5, but expected a CorruptionRob"):
            CorruptionDisplay.from_result(0.5)
        with pytest.raises(TypeError, match="but expected a CorruptionRobustness, such as"):
            CorruptionDisplay.from_estimator(model, *digits, scorer=SCORER)


class TestAdversarialExamples:
    def test_shows_pairs_that_the_model_tells_apart(self, model, digits):
        X, y = digits
        display = AdversarialExamplesDisplay.from_estimator(
            model, X, y, scorer=SCORER, n_examples=5
        )
        assert display.axes_.shape == (3, 5)
        assert (model.predict(display.originals) == display.labels_before).all()
        assert (model.predict(display.perturbed) == display.labels_after).all()
        assert (display.labels_before != display.labels_after).all()
        np.testing.assert_allclose(
            np.abs(display.perturbed - display.originals).max(axis=1), 0.1, atol=0.09
        )

    def test_says_when_there_is_none(self, model, digits):
        X, y = digits
        right = model.predict(X) == y
        scorer = ConstraintSecurity(ClassificationRobustness(0.0))
        display = AdversarialExamplesDisplay.from_estimator(
            model, X[right], y[right], scorer=scorer
        )
        assert display.axes_.shape == (3, 0)

    @pytest.mark.parametrize("shape", [(2, 2, 3), (3, 2, 2), (1, 3, 4), (3, 4)])
    def test_image_shapes(self, shape):
        pairs = np.zeros((2, 12)), np.ones((2, 12)), [0, 0], [1, 1]
        display = AdversarialExamplesDisplay.from_predictions(*pairs, image_shape=shape)
        drawn = display.axes_[0, 0].images[0].get_array()
        assert drawn.shape[:2] in {(2, 2), (3, 4)}

    def test_refuses_a_shape_that_does_not_fit(self):
        pairs = np.zeros((2, 12)), np.ones((2, 12)), [0, 0], [1, 1]
        with pytest.raises(
            ValueError, match=r"Got image_shape=\(5, 5\), but expected a shape of 12"
        ):
            AdversarialExamplesDisplay.from_predictions(*pairs, image_shape=(5, 5))


def test_without_matplotlib_the_error_names_the_extra(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    with pytest.raises(ImportError, match=r"pip install 'skrobust\[plots\]'"):
        TradeOffDisplay([0.1], [0.2]).plot()


def test_curve_from_radii_counts_what_lies_beyond():
    radii = {"a": np.array([0.0, 0.1, 0.2, np.inf]), "b": [0.05, 0.05, 0.05, 0.05]}
    display = RobustnessCurveDisplay.from_radius(radii, epsilons=[0.0, 0.1, 0.3])
    assert display.scores["a"].tolist() == [0.75, 0.5, 0.25]
    assert display.scores["b"].tolist() == [1.0, 0.0, 0.0]
    low, high = display.intervals["a"][1]
    assert low < 0.5 < high
    assert RobustnessCurveDisplay.from_radius(radii["a"]).epsilons[-1] == 0.2


def test_curve_refuses_an_epsilon_for_each_feature(model, digits):
    scorer = ConstraintSecurity(ClassificationRobustness(np.full(64, 0.1)))
    with pytest.raises(ValueError, match="one epsilon for all features"):
        RobustnessCurveDisplay.from_estimator(model, *digits, scorer=scorer, epsilons=[0.1])
