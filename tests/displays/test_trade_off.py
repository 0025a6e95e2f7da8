"""The trade-off finds the Pareto front of a search, and draws it."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV

from skrobust.attacks import PGD
from skrobust.displays import TradeOffDisplay
from skrobust.properties import ClassificationRobustness
from skrobust.scorers import ConstraintSecurity
from skrobust.training import AdversarialTraining, DataAugmentation

SCORER = ConstraintSecurity(ClassificationRobustness(0.1), random_state=0)


@pytest.fixture(scope="module")
def search(digits):
    scoring = {"accuracy": "accuracy", "security": SCORER}
    grid = {"C": [0.01, 1.0, 100.0]}
    search = GridSearchCV(LogisticRegression(), grid, scoring=scoring, refit=False, cv=2)
    return search.fit(*digits)


def test_pareto_front_by_hand():
    accuracy = [0.9, 0.8, 0.7, 0.9, 0.6, np.nan]
    robustness = [0.1, 0.5, 0.5, 0.1, 0.7, 0.9]
    display = TradeOffDisplay(accuracy, robustness)
    # Equal candidates do not dominate each other; NaN takes no part.
    assert display.pareto_front_.tolist() == [True, True, False, True, True, False]
    assert display.n_failed_ == 1
    assert display.hypervolume_ == pytest.approx(0.6 * 0.7 + 0.2 * 0.5 + 0.1 * 0.1)


def test_front_is_the_border_of_what_is_reached():
    """The line steps down at each candidate: what lies right of it is reached by the next one."""
    display = TradeOffDisplay([0.6, 0.9, 0.8], [0.7, 0.1, 0.5]).plot()
    (front,) = [line for line in display.ax_.lines if line.get_label().startswith("Pareto")]
    assert front.get_drawstyle() == "steps-pre"
    np.testing.assert_array_equal(front.get_xdata(), [0.6, 0.8, 0.9])
    np.testing.assert_array_equal(front.get_ydata(), [0.7, 0.5, 0.1])


@pytest.mark.parametrize("robustness", [[-1.0, -0.5], [np.nan, np.nan], [np.inf, 0.0]])
def test_some_fronts_have_no_hypervolume(robustness):
    display = TradeOffDisplay([0.5, 0.6], robustness)
    assert np.isnan(display.hypervolume_)
    if not np.isinf(robustness[0]):  # of which matplotlib warns
        assert display.plot().ax_.get_legend().get_texts()[-1].get_text() == "Pareto front"


def test_correlation_is_spearmans():
    display = TradeOffDisplay([0.1, 0.2, 0.3, 0.4], [0.9, 0.5, 0.4, 0.1])
    assert display.correlation_ == pytest.approx(-1.0)
    assert np.isnan(TradeOffDisplay([0.1, 0.2], [0.9, 0.5]).correlation_)
    assert np.isnan(TradeOffDisplay([0.1, 0.1, 0.1], [0.9, 0.5, 0.4]).correlation_)


def test_takes_its_points_from_the_search(search):
    display = TradeOffDisplay.from_estimator(search, group_by="C")
    results = search.cv_results_
    np.testing.assert_array_equal(display.accuracy, results["mean_test_accuracy"])
    np.testing.assert_array_equal(display.robustness, results["mean_test_security"])
    assert display.groups == ["0.01", "1.0", "100.0"]
    legend = [text.get_text() for text in display.ax_.get_legend().get_texts()]
    volume = display.hypervolume_
    assert legend == ["0.01", "1.0", "100.0", f"Pareto front, hypervolume {volume:.3f}"]


def test_refuses_unknown_names(search):
    with pytest.raises(ValueError, match=r"Got robustness='nonsense', but expected one of"):
        TradeOffDisplay.from_estimator(search, robustness="nonsense")
    with pytest.raises(ValueError, match=r"Got group_by='D', but expected one of \['C'\]"):
        TradeOffDisplay.from_estimator(search, group_by="D")


def test_legend_of_groups_has_a_title(search):
    display = TradeOffDisplay.from_estimator(search, group_by="C")
    assert display.ax_.get_legend().get_title().get_text() == "C"
    plain = TradeOffDisplay.from_estimator(search)
    assert plain.ax_.get_legend().get_title().get_text() == ""


def test_long_legends_do_not_squeeze_the_axes():
    regimes = [
        AdversarialTraining(PGD(5)),
        AdversarialTraining(PGD(40, objective="cross-entropy")),
        DataAugmentation(),
    ]
    scores = np.array([0.1, 0.5, 0.9])
    widths = []
    for groups in (None, regimes):
        display = TradeOffDisplay(scores, scores[::-1], groups=groups).plot()
        display.figure_.canvas.draw()
        widths.append(display.ax_.get_window_extent().width)
        legend = display.ax_.get_legend().get_window_extent()
        assert legend.x0 > display.ax_.get_window_extent().x1
        assert legend.x1 <= display.figure_.bbox.x1
    assert widths[1] == pytest.approx(widths[0], rel=0.05)
    assert display.groups[2] == "DataAugmentation"


def test_figures_of_others_keep_their_size():
    figure, ax = plt.subplots(figsize=(5, 4))
    TradeOffDisplay([0.1, 0.2], [0.2, 0.1], groups=["a" * 40, "b"]).plot(ax=ax)
    assert figure.get_size_inches().tolist() == [5, 4]


@pytest.mark.parametrize(
    ("scores", "params", "message"),
    [
        (([], []), {}, r"Got accuracy of shape \(0,\), but expected \(n_candidates,\)"),
        (([0.1], [0.1, 0.2]), {}, r"Got robustness of shape \(2,\), but expected \(1,\)"),
        ((0.1, [0.1]), {}, r"Got accuracy of shape \(\)"),
        (([0.1], None), {}, r"Got robustness of shape \(\)"),
        ((["a"], [0.1]), {}, r"Got accuracy=\['a'\], but expected numbers"),
        (([0.1], [0.1]), {"groups": ["a", "b"]}, r"Got groups=\['a', 'b'\], but expected as many"),
        (([0.1, 0.2], [0.1, 0.2]), {"groups": "ab"}, r"Got groups=\['ab'\], but expected as many"),
    ],
)
def test_refuses_odd_arguments(scores, params, message):
    with pytest.raises(ValueError, match=message):
        TradeOffDisplay(*scores, **params)


# ---- two color scales --------------------------------------------------------------


def test_correlations_of_groups_are_their_own():
    """Falling in one group, rising in the other."""
    accuracy, robustness = [1, 2, 3, 1, 2, 3], [3, 2, 1, 1, 2, np.nan]
    display = TradeOffDisplay(accuracy, robustness, groups=["a"] * 3 + ["b"] * 3)
    assert display.group_correlations_["a"] == pytest.approx(-1.0)
    assert np.isnan(display.group_correlations_["b"])  # two candidates are left
    assert TradeOffDisplay(accuracy, robustness).group_correlations_ == {}


def test_each_group_has_a_color_scale_of_its_own():
    shades = [1, 2, 3, 100, 300, np.nan]
    scores = np.linspace(0, 1, 6)
    groups = ["SGD"] * 3 + ["HMC"] * 3
    display = TradeOffDisplay(scores, scores, groups=groups, shades=shades, shade_name="width")
    first, second = display.plot().ax_.collections
    assert first.get_cmap().name != second.get_cmap().name
    assert (first.norm.vmax, second.norm.vmax) == (3, 300)
    np.testing.assert_array_equal(first.get_array(), [1, 2, 3])
    darkness = [1 - np.mean(first.to_rgba(shade)[:3]) for shade in (1.0, 2.0, 3.0)]
    assert darkness == sorted(darkness) and darkness[0] > 0.15  # seen on white
    assert np.ptp(second.to_rgba(np.array([np.nan]))[0, :3]) == 0  # gray
    bars = [ax for ax in display.figure_.axes if ax is not display.ax_]
    assert [bar.get_xlabel() for bar in bars] == ["SGD, width", "HMC, width"]
    assert bars[0].get_xlim() == (1, 3)
    legend = [text.get_text() for text in display.ax_.get_legend().get_texts()]
    assert legend == ["Pareto front, hypervolume 1.000"]


def test_one_shade_alone_needs_no_bar():
    for shades, text in (([5, 5], "width=5"), ([np.nan, np.nan], "width not set")):
        display = TradeOffDisplay([0.1, 0.2], [0.2, 0.1], shades=shades, shade_name="width").plot()
        display.figure_.canvas.draw()
        assert display.figure_.axes == [display.ax_]
        legend = [entry.get_text() for entry in display.ax_.get_legend().get_texts()]
        assert legend == [text, "Pareto front, hypervolume 0.030"]


def test_several_searches_are_the_groups(search, digits):
    scoring = {"accuracy": "accuracy", "security": "recall_macro"}
    other = GridSearchCV(
        LogisticRegression(), {"C": [0.1, 10.0]}, scoring=scoring, refit=False, cv=2
    ).fit(*digits)
    display = TradeOffDisplay.from_estimator({"first": search, "other": other}, shade_by="C")
    assert display.groups == ["first"] * 3 + ["other"] * 2
    np.testing.assert_array_equal(display.shades, [0.01, 1.0, 100.0, 0.1, 10.0])
    expected = [each.cv_results_["mean_test_security"] for each in (search, other)]
    np.testing.assert_array_equal(display.robustness, np.concatenate(expected))
    assert display.shade_name == "C"
    other = GridSearchCV(
        LogisticRegression(), {"tol": [1.0]}, scoring=scoring, refit=False, cv=2
    ).fit(*digits)
    display = TradeOffDisplay.from_estimator({"first": search, "other": other}, shade_by="C")
    np.testing.assert_array_equal(display.shades, [0.01, 1.0, 100.0, np.nan])
    with pytest.raises(ValueError, match=r"Got group_by='C', but expected None, as the searches"):
        TradeOffDisplay.from_estimator({"first": search}, group_by="C")
    with pytest.raises(ValueError, match=r"Got search=\{\}, but expected one search"):
        TradeOffDisplay.from_estimator({})
    with pytest.raises(ValueError, match=r"Got shade_by='D', but expected one of \['C'\]"):
        TradeOffDisplay.from_estimator(search, shade_by="D")


@pytest.mark.parametrize(
    ("params", "error", "message"),
    [
        ({"shades": [1]}, ValueError, r"Got shades of shape \(1,\), but expected \(2,\)"),
        ({"shades": ["a", "b"]}, ValueError, "Got shades=.*but expected numbers"),
        ({"shade_name": 3}, TypeError, "Got shade_name=3, but expected a str"),
    ],
)
def test_refuses_odd_shades(params, error, message):
    with pytest.raises(error, match=message):
        TradeOffDisplay([0.1, 0.2], [0.2, 0.1], **params)


# ---- bars, joined candidates, and the interval ---------------------------------------


def test_bars_go_from_the_proved_to_the_surviving_share():
    display = TradeOffDisplay([0.9, 0.8], [0.2, 0.5], surviving=[0.6, 0.5]).plot()
    (bars,) = [c for c in display.ax_.collections if hasattr(c, "get_segments")]
    segments = np.array(bars.get_segments())
    np.testing.assert_array_equal(segments[:, :, 0], [[0.9, 0.9], [0.8, 0.8]])
    np.testing.assert_array_equal(segments[:, :, 1], [[0.2, 0.6], [0.5, 0.5]])
    assert display.ax_.get_ylabel() == "robustness"  # the markers; the bars are in the legend
    legend = [text.get_text() for text in display.ax_.get_legend().get_texts()]
    assert legend[0] == "bar: up to surviving"


def test_candidates_of_a_group_are_joined_in_order():
    accuracy, robustness = [0.9, 0.7, 0.8, 0.95, 0.6], [0.1, 0.5, 0.3, 0.0, 0.2]
    display = TradeOffDisplay(
        accuracy,
        robustness,
        groups=["a", "a", "a", "b", "b"],
        joins=[1, 3, 2, np.nan, 2],
        join_name="epsilon",
    ).plot()
    first, second = [line for line in display.ax_.lines if line.get_label().startswith("_")]
    np.testing.assert_array_equal(first.get_xdata(), [0.9, 0.8, 0.7])
    np.testing.assert_array_equal(second.get_xdata(), [0.6])  # NaN stays by itself
    assert first.get_linestyle() != second.get_linestyle()
    points = display.ax_.collections[0]
    assert np.argsort(points.get_sizes()).tolist() == [0, 2, 1]
    assert "markers grow with epsilon" in display.ax_.get_legend().get_title().get_text()


def test_groups_differ_without_their_colors():
    n = 10
    scores = np.linspace(0, 1, n)
    display = TradeOffDisplay(scores, scores, groups=[str(i) for i in range(n)]).plot()
    outlines = [c.get_paths()[0].vertices for c in display.ax_.collections]
    colors = [tuple(c.get_facecolor()[0]) for c in display.ax_.collections]
    looks = {(v.tobytes(), color) for v, color in zip(outlines, colors, strict=True)}
    assert len(looks) == n
    assert len({v.tobytes() for v in outlines[:7]}) == 7


def test_names_of_scores_in_a_search(search):
    display = TradeOffDisplay.from_estimator(
        search, robustness="security", surviving="accuracy", join_by="C"
    )
    np.testing.assert_array_equal(display.surviving, display.accuracy)
    np.testing.assert_array_equal(display.joins, [0.01, 1.0, 100.0])
    assert display.join_name == "C"


def test_interval_of_the_correlation_by_hand():
    """Bonett and Wright: the variance of Fisher's z is (1 + r^2 / 2) / (n - 3)."""
    accuracy, robustness = np.arange(20.0), np.arange(20.0) % 7
    display = TradeOffDisplay(accuracy, robustness, confidence=0.9)
    r = display.correlation_
    half = 1.6448536 * np.sqrt((1 + r**2 / 2) / 17)
    interval = display.correlation_interval_
    assert interval.low == pytest.approx(np.tanh(np.arctanh(r) - half))
    assert interval.high == pytest.approx(np.tanh(np.arctanh(r) + half))
    assert (interval.confidence, interval.method) == (0.9, "fisher-z")
    assert f"[{interval.low:+.2f}, {interval.high:+.2f}]" in display.plot().ax_.get_title()


def test_interval_of_few_or_perfect_correlations_is_unknown():
    for n in (2, 3, 10):
        interval = TradeOffDisplay(np.arange(n), np.arange(n)).correlation_interval_
        assert np.isnan([interval.low, interval.high]).all()


def test_interval_covers_the_true_correlation():
    """Of normal pairs, whose rank correlation is known: 6 / pi * arcsin(r / 2)."""
    rng = np.random.default_rng(0)
    truth = 6 / np.pi * np.arcsin(0.6 / 2)
    hits = 0
    for _ in range(200):
        x = rng.normal(size=30)
        y = 0.6 * x + 0.8 * rng.normal(size=30)
        interval = TradeOffDisplay(x, y).correlation_interval_
        hits += interval.low <= truth <= interval.high
    assert hits >= 180


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"surviving": [0.1, 0.2]}, r"Got surviving=\[0.1, 0.2\], but expected at least robust"),
        ({"surviving": [0.5]}, r"Got surviving of shape \(1,\), but expected \(2,\)"),
        ({"joins": ["a", "b"]}, "Got joins=.*but expected numbers"),
        ({"confidence": 1}, "Got confidence=1, but expected"),
    ],
)
def test_refuses_odd_bars(params, message):
    with pytest.raises(ValueError, match=message):
        TradeOffDisplay([0.1, 0.2], [0.2, 0.1], **params)
