"""The parts of a bar are the shares of the result."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
from sklearn.dummy import DummyClassifier

from skrobust.attacks import FGSM, Ensemble, LinearBoundary, UniformSampling
from skrobust.displays import WinsDisplay
from skrobust.scorers import MarginRobustness

ATTACK = Ensemble([("fgsm", FGSM()), ("bg", LinearBoundary(2))])
SCORER = MarginRobustness("l2", attack=ATTACK)


@pytest.fixture(scope="module")
def result(digits, model):
    return SCORER.evaluate(model, digits[0][:60])


def test_bars_are_the_wins(model, digits, result):
    display = WinsDisplay.from_estimator({"a": model, "b": model}, digits[0][:60], scorer=SCORER)
    assert display.values_.loc["b"].to_dict() == result.wins
    assert sum(result.wins.values()) == pytest.approx(1)
    first, second = display.bars_
    for bar, other in zip(first, second, strict=True):
        assert bar.get_x() == 0 and bar.get_width() == result.wins["fgsm"]
        assert other.get_x() == bar.get_width() and other.get_width() == result.wins["bg"]
    assert [text.get_text() for text in display.ax_.get_yticklabels()] == ["a", "b"]
    low, high = display.ax_.get_ylim()
    assert low > high  # the first on top
    legend = display.ax_.get_legend().get_texts()
    assert [text.get_text() for text in legend] == ["fgsm", "bg"]


def test_a_given_axes_and_style(result):
    _, ax = plt.subplots()
    display = WinsDisplay.from_result(result, ax=ax, height=0.3)
    assert display.ax_ is ax and display.figure_ is ax.figure
    assert list(display.values_.index) == ["estimator"]
    assert display.bars_[0][0].get_height() == 0.3


def test_nothing_found_leaves_the_bar_empty(digits):
    flat = DummyClassifier().fit(*digits)
    scorer = MarginRobustness(attack=UniformSampling(3), random_state=0)
    display = WinsDisplay.from_estimator(flat, digits[0][:5], scorer=scorer)
    assert display.values_.isna().to_numpy().all()
    assert all(bar.get_width() == 0 for bars in display.bars_ for bar in bars)
    assert not any(np.isnan(bar.get_x()) for bars in display.bars_ for bar in bars)


def test_refusals(model, digits, result):
    other = MarginRobustness(attack=LinearBoundary(2)).evaluate(model, digits[0][:5])
    with pytest.raises(ValueError, match=r"Got results\['b'\]=\['linear.*, but expected wins of"):
        WinsDisplay.from_result({"a": result, "b": other})
    with pytest.raises(TypeError, match=r"Got results\['estimator'\]=0\.5, but expected a Margi"):
        WinsDisplay.from_result(0.5)
    with pytest.raises(TypeError, match="Got results=None, but expected a dict of names"):
        WinsDisplay(None)
    with pytest.raises(ValueError, match=r"Got results={}, but expected one name at least"):
        WinsDisplay({})
    with pytest.raises(TypeError, match="Got scorer='wins', but expected a MarginRobustness"):
        WinsDisplay.from_estimator(model, *digits, scorer="wins")
