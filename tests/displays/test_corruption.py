"""Bars are what the scorer says of each corruption."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
from sklearn.dummy import DummyClassifier

from skrobust.displays import CorruptionDisplay
from skrobust.properties import ClassificationRobustness
from skrobust.scorers import ConstraintSecurity, CorruptionRobustness

SCORER = ConstraintSecurity(ClassificationRobustness(0.1), random_state=0)
CORRUPTIONS = CorruptionRobustness(["blur", "noise", "occlusion"], random_state=0)


def test_bars_are_what_the_scorer_says(model, digits):
    result = CORRUPTIONS.evaluate(model, *digits)
    display = CorruptionDisplay.from_estimator(model, *digits, scorer=CORRUPTIONS)
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


def test_several_estimators_stand_side_by_side(model, digits):
    _, ax = plt.subplots()
    flat = DummyClassifier().fit(*digits)
    display = CorruptionDisplay.from_estimator(
        {"a": model, "b": flat}, *digits, scorer=CORRUPTIONS, shown="agreement", ax=ax
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


def test_scores_of_another_scorer(model, digits):
    scorer = CorruptionRobustness(["noise"], scorer=SCORER, random_state=0)
    result = scorer.evaluate(model, *digits)
    display = CorruptionDisplay.from_result(result, shown="score")
    assert display.values_.loc["noise", "estimator"] == result.scores[0]
    agreement = CorruptionRobustness(["noise"], reference="prediction", random_state=0)
    display = CorruptionDisplay.from_result(
        agreement.evaluate(model, digits[0]), shown="agreement", color="gray"
    )
    assert display.bars_[0].errorbar is not None


def test_refusals(model, digits):
    result = CORRUPTIONS.evaluate(model, *digits)
    with pytest.raises(ValueError, match="Got shown='score', but expected results of the"):
        CorruptionDisplay.from_result(result, shown="score")
    with pytest.raises(ValueError, match="Got shown='loss', but expected one of"):
        CorruptionDisplay.from_result(result, shown="loss")
    other = CorruptionRobustness(["shift"]).evaluate(model, *digits)
    with pytest.raises(ValueError, match="but expected results of the same corruptions"):
        CorruptionDisplay.from_result({"a": result, "b": other})
    with pytest.raises(TypeError, match=r"Got results\['estimator'\]=0\.5, but expected a"):
        CorruptionDisplay.from_result(0.5)
    with pytest.raises(TypeError, match="but expected a CorruptionRobustness, such as"):
        CorruptionDisplay.from_estimator(model, *digits, scorer=SCORER)


@pytest.mark.parametrize(
    ("results", "error", "message"),
    [
        ({}, ValueError, "Got results={}, but expected one name at least"),
        ([], TypeError, r"Got results=\[\], but expected a dict of names to a Corruption"),
        (None, TypeError, "Got results=None, but expected a dict of names to a Corruption"),
        (
            {"a": None},
            TypeError,
            r"Got results\['a'\]=None, but expected a",
        ),
    ],
)
def test_refuses_odd_results(results, error, message):
    with pytest.raises(error, match=message):
        CorruptionDisplay(results)


def test_legend_of_several_estimators_does_not_squeeze_the_bars(model, digits):
    result = CORRUPTIONS.evaluate(model, *digits)
    widths = []
    for names in ("ab", ("a" * 40, "b" * 40)):
        display = CorruptionDisplay.from_result(dict.fromkeys(names, result))
        display.figure_.canvas.draw()
        widths.append(display.ax_.get_window_extent().width)
    assert widths[1] == pytest.approx(widths[0], rel=0.05)
