"""Curves hold the scores of the scorer at each radius, and draw them."""

import matplotlib.pyplot as plt
import numpy as np
import pytest

from skrobust.displays import RobustnessCurveDisplay
from skrobust.properties import ClassificationRobustness
from skrobust.scorers import (
    AdversarialFrequency,
    ConstraintSecurity,
    CorruptionRobustness,
    MarginRobustness,
    RobustnessScore,
)
from skrobust.statistics import clopper_pearson

SCORER = ConstraintSecurity(ClassificationRobustness(0.1), random_state=0)


def test_scores_and_intervals_are_those_of_the_scorer(model, digits):
    display = RobustnessCurveDisplay.from_estimator(
        model, *digits, scorer=SCORER, epsilons=[0.0, 0.1]
    )
    scores = display.scores["LogisticRegression"]
    expected = SCORER.evaluate(model, *digits)
    assert scores[0] == model.score(*digits)
    assert scores[1] == expected.score
    low, high = display.intervals["LogisticRegression"][1]
    assert (low, high) == (expected.interval.low, expected.interval.high)


def test_the_scorer_is_left_as_it_was(model, digits):
    RobustnessCurveDisplay.from_estimator(model, *digits, scorer=SCORER, epsilons=[0.3])
    assert SCORER.property == ClassificationRobustness(0.1)


def test_draws_one_labelled_line_an_estimator(model, digits):
    _, ax = plt.subplots()
    display = RobustnessCurveDisplay.from_estimator(
        {"a": model, "b": model}, *digits, scorer=SCORER, epsilons=[0, 0.05], ax=ax
    )
    assert display.ax_ is ax and display.figure_ is ax.figure
    assert [line.get_label() for line in display.lines_] == ["a", "b"]
    np.testing.assert_array_equal(display.lines_[0].get_ydata(), display.scores["a"])


def test_numbers_estimators_of_one_class(model, digits):
    display = RobustnessCurveDisplay.from_estimator(
        [model, model], *digits, scorer=SCORER, epsilons=[0]
    )
    assert list(display.scores) == ["LogisticRegression 0", "LogisticRegression 1"]


def test_refuses_what_is_no_scorer(model, digits):
    with pytest.raises(TypeError, match=r"Got scorer='accuracy', but expected"):
        RobustnessCurveDisplay.from_estimator(model, *digits, scorer="accuracy", epsilons=[0.1])


def test_curve_from_radii_counts_what_lies_beyond():
    radii = {"a": np.array([0.0, 0.1, 0.2, np.inf]), "b": [0.05, 0.05, 0.05, 0.05]}
    display = RobustnessCurveDisplay.from_radius(radii, epsilons=[0.0, 0.1, 0.3])
    assert display.scores["a"].tolist() == [0.75, 0.5, 0.25]
    assert display.scores["b"].tolist() == [1.0, 0.0, 0.0]
    low, high = display.intervals["a"][1]
    assert low < 0.5 < high
    assert RobustnessCurveDisplay.from_radius(radii["a"]).epsilons[-1] == 0.2


def test_cumulative_curve_counts_what_lies_within():
    radii = {"a": np.array([0.0, 0.1, 0.2, np.inf]), "b": [0.05] * 8}
    epsilons = [0.0, 0.1, 0.3]
    display = RobustnessCurveDisplay.from_radius(radii, epsilons=epsilons, cumulative=True)
    # A radius of epsilon itself is within, as in the paper's count.
    assert display.scores["a"].tolist() == [1, 2, 3]
    assert display.scores["b"].tolist() == [0, 8, 8]
    np.testing.assert_array_equal(display.lines_[1].get_ydata(), [0, 8, 8])
    assert "number" in display.ax_.get_ylabel()
    assert display.ax_.get_ylim()[1] > 8


def test_the_legend_shows_the_area_under_a_curve(model, digits):
    result = MarginRobustness("l2", epsilon_max=2.0).evaluate(model, digits[0][:60])
    radii = {"a": result, "b": [0.0, 0.25, np.inf, 1.0]}
    display = RobustnessCurveDisplay.from_radius(radii, epsilons=[0, 0.5, 0.8], area=True)
    assert display.areas["a"] == pytest.approx(result.score)
    assert display.areas["b"] == pytest.approx((0.25 + 0.8 + 0.8) / 4)
    labels = [text.get_text() for text in display.ax_.get_legend().get_texts()]
    assert labels == [f"a, area {result.score:.3g}", "b, area 0.463"]
    # It is what the curve encloses.
    fine = np.linspace(0, 0.8, 2001)
    curve = RobustnessCurveDisplay.from_radius(radii["b"], epsilons=fine).scores["radius"]
    assert np.trapezoid(curve, fine) == pytest.approx(display.areas["b"], abs=1e-3)


def test_refuses_odd_areas():
    with pytest.raises(ValueError, match="Got area=True, but expected False, with cumulative"):
        RobustnessCurveDisplay.from_radius([0.1], area=True, cumulative=True)
    with pytest.raises(ValueError, match="Got area='yes', but expected"):
        RobustnessCurveDisplay.from_radius([0.1], area="yes")
    for epsilons in ([0.1, np.nan], [-1.0]):
        with pytest.raises(ValueError, match=r"Got epsilons=.*, but expected finite radii of at"):
            RobustnessCurveDisplay.from_radius([0.1], epsilons=epsilons, area=True)
    for areas, error, message in (
        ({"b": 1.0}, ValueError, r"Got areas=.*, but expected the names \['a'\]"),
        ({"a": "1"}, ValueError, r"Got areas\['a'\]='1', but expected a finite number"),
        (0.5, TypeError, "Got areas=0.5, but expected a dict"),
    ):
        with pytest.raises(error, match=message):
            RobustnessCurveDisplay([0.1], {"a": [0.5]}, areas=areas)


def test_small_counts_do_not_cut_off_larger_ones():
    _, ax = plt.subplots()
    for radii in ([0.05] * 8, [np.inf] * 8):
        RobustnessCurveDisplay.from_radius(radii, epsilons=[0, 0.1], cumulative=True, ax=ax)
    assert ax.get_ylim()[1] > 8


def test_counts_and_shares_are_each_other_s_complement():
    radii = np.random.default_rng(0).exponential(size=50)
    epsilons = np.append(np.linspace(0, 2, 21), radii[:5])
    shares = RobustnessCurveDisplay.from_radius(radii, epsilons=epsilons)
    counts = RobustnessCurveDisplay.from_radius(radii, epsilons=epsilons, cumulative=True)
    np.testing.assert_allclose(counts.scores["radius"], 50 * (1 - shares.scores["radius"]))
    low, high = shares.intervals["radius"].T
    mirrored = 50 * (1 - np.column_stack([high, low]))
    np.testing.assert_allclose(counts.intervals["radius"], mirrored, atol=1e-9)


@pytest.mark.parametrize("cumulative", [False, True])
def test_limits_of_a_given_axes_stay(cumulative):
    _, ax = plt.subplots()
    ax.set_ylim(0.25, 0.75)
    RobustnessCurveDisplay.from_radius([0.1, 0.2], cumulative=cumulative, ax=ax)
    assert ax.get_ylim() == (0.25, 0.75)


def test_counts_of_one_do_not_cut_other_counts():
    many = RobustnessCurveDisplay.from_radius([0.1] * 9, cumulative=True)
    one = RobustnessCurveDisplay.from_radius([0.1], epsilons=[0.0, 0.1], cumulative=True)
    one.plot(ax=many.ax_)
    assert many.ax_.get_ylim()[1] > 9
    share = RobustnessCurveDisplay.from_radius([0.1, 0.2], epsilons=[0.1])
    assert share.ax_.get_ylim() == (-0.02, 1.02)
    many.plot(ax=share.ax_)
    assert share.ax_.get_ylim()[1] > 9


def test_refuses_a_cumulative_that_is_no_bool():
    with pytest.raises(ValueError, match="Got cumulative='yes', but expected"):
        RobustnessCurveDisplay.from_radius([0.1], cumulative="yes")


def test_curve_refuses_an_epsilon_for_each_feature(model, digits):
    scorer = ConstraintSecurity(ClassificationRobustness(np.full(64, 0.1)))
    with pytest.raises(ValueError, match="one epsilon for all features"):
        RobustnessCurveDisplay.from_estimator(model, *digits, scorer=scorer, epsilons=[0.1])


def test_scorers_with_a_radius_of_their_own_are_swept_too(model, digits):
    scorer = AdversarialFrequency(0.3, method="attack", random_state=0)
    X, y = digits[0][:40], digits[1][:40]
    display = RobustnessCurveDisplay.from_estimator(
        model, X, y, scorer=scorer, epsilons=[0.05, 0.1]
    )
    scores = display.scores["LogisticRegression"]
    at_radius = AdversarialFrequency(0.1, method="attack", random_state=0)
    assert scores[1] == at_radius.evaluate(model, X, y).score
    assert scores[1] < scores[0] <= 0
    # Minus a frequency is no share: the axis must not hide it.
    low, high = display.ax_.get_ylim()
    assert low < scores[1] and high > scores[0]
    assert scorer.epsilon == 0.3


def test_refuses_scorers_with_nothing_to_sweep(model, digits):
    scorer = CorruptionRobustness()
    with pytest.raises(ValueError, match=r"Got scorer=.*expected one with a property, an epsilon"):
        RobustnessCurveDisplay.from_estimator(model, *digits, scorer=scorer, epsilons=[0.1])


def test_curve_of_margins_is_that_of_their_radii(model, digits):
    X, y = digits[0][:40], digits[1][:40]
    scorer = MarginRobustness(reference="label", confidence=0.9, random_state=0)
    epsilons = [0.0, 0.05, 0.2]
    display = RobustnessCurveDisplay.from_estimator(model, X, y, scorer=scorer, epsilons=epsilons)
    limited = MarginRobustness(
        reference="label", epsilon_max=0.2, confidence=0.9, random_state=0
    ).evaluate(model, X, y)
    shares = display.scores["LogisticRegression"]
    np.testing.assert_array_equal(shares, (limited.radius[:, None] > epsilons).mean(axis=0))
    low, high = display.intervals["LogisticRegression"][1]
    exact = clopper_pearson(int(shares[1] * 40 + 0.5), 40, 0.9)
    assert (low, high) == (exact.low, exact.high)
    with pytest.raises(ValueError, match=r"Got epsilons=\[.*0.0.*\], but expected one above 0"):
        RobustnessCurveDisplay.from_estimator(model, X, y, scorer=scorer, epsilons=[0])


def test_curve_of_a_score_with_epsilons(model, digits):
    X, y = digits[0][:20], digits[1][:20]
    scorer = RobustnessScore(n_samples=5, random_state=0)
    display = RobustnessCurveDisplay.from_estimator(
        model, X, y, scorer=scorer, epsilons=[0.1, 0.5]
    )
    at_radius = RobustnessScore(epsilons=0.5, n_samples=5, random_state=0)
    assert display.scores["LogisticRegression"][1] == at_radius.evaluate(model, X, y).score


def test_curves_differ_without_their_colors():
    display = RobustnessCurveDisplay([0, 1], {"a": [1, 0], "b": [1, 0.5], "c": [1, 1]}).plot()
    assert len({line.get_marker() for line in display.lines_}) == 3
    assert len({line.get_linestyle() for line in display.lines_}) == 3


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (([0.1], {}), ValueError, "Got scores={}, but expected one name at least"),
        (([0.1], [0.5]), TypeError, r"Got scores=\[0\.5\], but expected a dict"),
        (([0.1], {"a": [0.5, 0.6]}), ValueError, r"Got scores\['a'\] of shape \(2,\)"),
        (([], {"a": []}), ValueError, r"Got epsilons of shape \(0,\), but expected"),
        ((None, {"a": [0.5]}), ValueError, r"Got epsilons of shape \(\), but expected"),
        ((["x"], {"a": [0.5]}), ValueError, r"Got epsilons=\['x'\], but expected numbers"),
    ],
)
def test_refuses_odd_arguments(arguments, error, message):
    with pytest.raises(error, match=message):
        RobustnessCurveDisplay(*arguments)


@pytest.mark.parametrize(
    ("intervals", "error", "message"),
    [
        ({"b": [[0, 1]]}, ValueError, r"but expected the names \['a'\]"),
        (
            {"a": [0, 1]},
            ValueError,
            r"of shape \(2,\), but expected \(1, 2\)",
        ),
        ([[0, 1]], TypeError, "Got intervals=.*but expected a dict"),
    ],
)
def test_refuses_odd_intervals(intervals, error, message):
    with pytest.raises(error, match=message):
        RobustnessCurveDisplay([0.1], {"a": [0.5]}, intervals=intervals)


@pytest.mark.parametrize(
    ("radius", "message"),
    [
        ({}, "Got radius={}, but expected one name at least"),
        ([], r"Got radius\['radius'\] of shape \(0,\)"),
        (None, r"Got radius\['radius'\] of shape \(\)"),
        ([0.1, np.nan], r"Got radius\['radius'\]=.*distances of at least 0, or inf"),
        ({"a": [-1.0]}, r"Got radius\['a'\]=.*distances of at least 0, or inf"),
    ],
)
def test_refuses_odd_radii(radius, message):
    with pytest.raises(ValueError, match=message):
        RobustnessCurveDisplay.from_radius(radius)
