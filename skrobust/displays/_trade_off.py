"""Accuracy against robustness of the candidates of a search."""

import math
from itertools import cycle

import numpy as np
from scipy.stats import norm, spearmanr

from skrobust._validation import check_instance, check_real, expected
from skrobust.displays._axes import SERIES, axes_for, check_array, legend_beside, short_names
from skrobust.model_selection import (
    mean_scores,
    named_results,
    parameter_values,
    parameters_of,
    pareto_front,
)
from skrobust.statistics import Interval

__all__ = ["TradeOffDisplay"]

_BAR = ((-1, 1), (1, 1), (0, 1), (0, -1), (0, 1))  # an upright with a lid, as lines
_SCALES = ("Blues", "RdPu", "Greens", "Oranges", "Purples")


class TradeOffDisplay:
    """Accuracy against robustness of the candidates of a search.

    Parameters
    ----------
    accuracy, robustness : array-like of shape (n_candidates,)
        Mean test scores. Candidates with NaN (failed fits) are left out and counted.
    surviving : array-like of shape (n_candidates,), default=None
        Where `robustness` is the share that is proved, the share that no attack has broken: a
        bar is drawn from one to the other, and the truth lies in it. At least `robustness`.
    groups : array-like of shape (n_candidates,), default=None
        Color the candidates by this: estimators, regimes and the like are named by their
        class and the parameters that differ. Each has a marker and a line of its own as well.
    group_name : str, default=None
        Title of the legend.
    joins : array-like of shape (n_candidates,), default=None
        Numbers, such as the epsilon that was trained for: the candidates of a group are joined
        in their order, and the markers grow with them. Those with NaN stay by themselves.
    join_name : str, default=None
        What these numbers are, for the legend.
    shades : array-like of shape (n_candidates,), default=None
        Numbers, such as a hyperparameter: each group then has a color scale of its own, from its
        smallest number to its largest, and a bar that shows it. Gray where NaN.
    shade_name : str, default=None
        Label of the bars.
    accuracy_name, robustness_name : str
        Labels of the axes.
    surviving_name : str, default="surviving"
        What the bars end at, for the legend.
    confidence : float, default=0.95
        Of the interval of the correlation.

    Attributes
    ----------
    pareto_front_ : ndarray of bool, shape (n_candidates,)
        Candidates that no other one beats in one score and equals or beats in the other, by
        `skrobust.model_selection.pareto_front`.
    hypervolume_ : float
        The area below and to the left of the front, down to 0 in both scores; NaN where one of
        them is below 0 or infinite on the front, and where all candidates failed.
    correlation_ : float
        Spearman's rank correlation; NaN for fewer than three candidates, or constant scores.
    correlation_interval_ : Interval
        By Fisher's transformation with the variance of [1]_, equation 2, as if the candidates
        were drawn at random. NaN for fewer than four, and for a correlation of -1 or 1.
    group_correlations_ : dict of str to float
        The same within each group; with no groups, empty.
    n_failed_ : int
    ax_ : matplotlib Axes
    figure_ : matplotlib Figure

    Raises
    ------
    ValueError
        If there are no candidates, or not as many scores, groups or shades of each kind, or
        if fewer survive than are proved.

    References
    ----------
    .. [1] Bonett and Wright, "Sample size requirements for estimating Pearson, Kendall and
       Spearman correlations", Psychometrika 65, 2000.
    """

    def __init__(
        self,
        accuracy,
        robustness,
        *,
        surviving=None,
        groups=None,
        group_name=None,
        joins=None,
        join_name=None,
        shades=None,
        shade_name=None,
        accuracy_name="accuracy",
        robustness_name="robustness",
        surviving_name="surviving",
        confidence=0.95,
    ):
        self.accuracy = check_array("accuracy", accuracy, ("n_candidates",))
        self.robustness = check_array("robustness", robustness, (len(self.accuracy),), "accuracy")
        self.surviving = self._numbers("surviving", surviving)
        if surviving is not None and (self.surviving < self.robustness - 1e-9).any():
            raise ValueError(expected("surviving", surviving, "at least robustness, everywhere"))
        self.groups = None if groups is None else self._names(groups)
        self.joins = self._numbers("joins", joins)
        self.shades = self._numbers("shades", shades)
        for argument, name in (
            ("group_name", group_name),
            ("join_name", join_name),
            ("shade_name", shade_name),
        ):
            if name is not None:
                check_instance(argument, name, str, "'max_epochs'")
        self.group_name, self.join_name, self.shade_name = group_name, join_name, shade_name
        self.accuracy_name = check_instance("accuracy_name", accuracy_name, str, "'accuracy'")
        self.robustness_name = check_instance(
            "robustness_name", robustness_name, str, "'robustness'"
        )
        self.surviving_name = check_instance("surviving_name", surviving_name, str, "'surviving'")
        failed = np.isnan(self.accuracy) | np.isnan(self.robustness)
        self.n_failed_ = int(failed.sum())
        means = {"mean_test_accuracy": self.accuracy, "mean_test_robustness": self.robustness}
        front = pareto_front(means, ["accuracy", "robustness"])
        self.pareto_front_ = np.isin(np.arange(len(failed)), front.indices)
        has_volume = len(front) > 0 and ((front.means >= 0) & np.isfinite(front.means)).all()
        self.hypervolume_ = front.hypervolume() if has_volume else np.nan
        self.correlation_ = _correlation(self.accuracy[~failed], self.robustness[~failed])
        self.confidence = check_real("confidence", confidence, low=0, high=1, closed="neither")
        n_candidates = len(failed) - self.n_failed_
        self.correlation_interval_ = _interval(self.correlation_, n_candidates, self.confidence)
        self.group_correlations_ = {
            group: _correlation(self.accuracy[chosen & ~failed], self.robustness[chosen & ~failed])
            for group, chosen in self._parts()
            if self.groups is not None
        }

    def _numbers(self, name, values):
        if values is None:
            return None
        return check_array(name, values, (len(self.accuracy),), "accuracy")

    def _names(self, groups):
        groups = list(groups) if np.iterable(groups) and not isinstance(groups, str) else [groups]
        if len(groups) != len(self.accuracy):
            expectation = f"as many values as accuracy has, {len(self.accuracy)}"
            raise ValueError(expected("groups", groups, expectation))
        return short_names(groups)

    def _parts(self):
        """Return pairs of a group's name, "" without groups, and which candidates are in it."""
        groups = np.array([""] * len(self.accuracy) if self.groups is None else self.groups)
        return [(str(group), groups == group) for group in dict.fromkeys(groups)]

    @classmethod
    def from_estimator(
        cls,
        search,
        *,
        accuracy="accuracy",
        robustness="security",
        surviving=None,
        group_by=None,
        join_by=None,
        shade_by=None,
        ax=None,
        **kwargs,
    ):
        """Draw the candidates of a fitted multi-metric search.

        Parameters
        ----------
        search : GridSearchCV, RandomizedSearchCV or similar, or dict of str to such
            Fitted, or ``cv_results_``. Of several searches, each is a group, by its name in the
            dict.
        accuracy, robustness : str
            Names of the two scores in the search's `scoring`.
        surviving : str, default=None
            Name of a score, such as "surviving_share" beside "verified_share".
        group_by : str, default=None
            Name of a parameter of the search; candidates are colored by its value. Of one search
            only.
        join_by : str, default=None
            Name of a parameter with numbers as values, such as "property__epsilon", in whose
            order the candidates of each group are joined.
        shade_by : str, default=None
            Name of a parameter with numbers as values, by which each group is shaded in a color
            scale of its own.
        ax : matplotlib Axes, default=None
        **kwargs : dict
            For matplotlib's `scatter`.

        Returns
        -------
        TradeOffDisplay

        Examples
        --------
        Two kinds of classifiers, each with a scale of its own:

        >>> import matplotlib
        >>> matplotlib.use("Agg")
        >>> from sklearn.linear_model import LogisticRegression
        >>> from sklearn.model_selection import GridSearchCV
        >>> from sklearn.svm import SVC
        >>> from skrobust.datasets import load_digits
        >>> from skrobust.displays import TradeOffDisplay
        >>> X, y = load_digits(return_X_y=True)
        >>> scoring = {"accuracy": "accuracy", "recall": "recall_macro"}
        >>> searches = {
        ...     name: GridSearchCV(model, {"C": [0.1, 1, 10]}, scoring=scoring, refit=False, cv=2)
        ...     .fit(X[:200], y[:200])
        ...     for name, model in (("linear", LogisticRegression(tol=1)), ("kernel", SVC()))
        ... }
        >>> display = TradeOffDisplay.from_estimator(searches, robustness="recall", shade_by="C")
        >>> display.groups
        ['linear', 'linear', 'linear', 'kernel', 'kernel', 'kernel']
        """
        results_by_name = named_results(search)
        is_several = list(results_by_name) != [""]
        if is_several and group_by is not None:
            expectation = "None, as the searches of a dict are the groups"
            raise ValueError(expected("group_by", group_by, expectation))
        names = ("accuracy", "robustness", "surviving", "groups", "joins", "shades")
        given = {name: [] for name in names}
        # What one of several searches does not vary is gray there.
        varied = parameters_of(*results_by_name.values())
        for name, results in results_by_name.items():
            given["accuracy"].extend(mean_scores(results, "accuracy", accuracy))
            given["robustness"].extend(mean_scores(results, "robustness", robustness))
            if surviving is not None:
                given["surviving"].extend(mean_scores(results, "surviving", surviving))
            if group_by is not None:
                given["groups"] += parameter_values(results, "group_by", group_by)
            elif is_several:
                given["groups"] += [name] * len(mean_scores(results, "accuracy", accuracy))
            for kind, argument, by in (
                ("joins", "join_by", join_by),
                ("shades", "shade_by", shade_by),
            ):
                if by is not None:
                    given[kind] += parameter_values(results, argument, by, np.nan, varied)
        display = cls(
            given["accuracy"],
            given["robustness"],
            surviving=given["surviving"] or None,
            groups=given["groups"] or None,
            group_name=group_by,
            joins=given["joins"] or None,
            join_name=join_by,
            shades=given["shades"] or None,
            shade_name=shade_by,
            accuracy_name=accuracy,
            robustness_name=robustness,
            surviving_name=surviving or "surviving",
        )
        return display.plot(ax=ax, **kwargs)

    def plot(self, *, ax=None, **kwargs):
        """Draw the candidates and the Pareto front; return self."""
        self.ax_ = axes_for(ax)
        self.figure_ = self.ax_.figure
        for (group, chosen), scale, series in zip(
            self._parts(), cycle(_SCALES), cycle(SERIES), strict=False
        ):
            style = {"marker": series["marker"], "s": self._sizes()[chosen], "zorder": 3}
            if self.shades is not None and len(np.unique(_finite(self.shades[chosen]))) > 1:
                self._shaded(group, chosen, scale, style | kwargs)
                color = "gray"
            else:
                color = series["color"]
                label = ", ".join(filter(None, (group, self._constant(chosen)))) or None
                style |= {"label": label, "color": color, "alpha": 0.85}
                points = self.accuracy[chosen], self.robustness[chosen]
                self.ax_.scatter(*points, **_one_color(style, kwargs))
            self._lines(chosen, {"color": color, "linestyle": series["linestyle"]})
        self._bars()
        self._front()
        self.ax_.set(xlabel=self.accuracy_name, ylabel=self.robustness_name)
        self.ax_.set_title(self._title())
        # Where there are bars, they name the groups.
        is_named = self.shades is None
        title = "\n".join(filter(None, (self.group_name if is_named else "", self._growth())))
        legend = legend_beside(self.ax_, widen=ax is None, title=title or None)
        for handle in legend.legend_handles:
            if hasattr(handle, "set_sizes"):  # one size, whatever the first candidate has
                handle.set_sizes([50.0])
        return self

    def _sizes(self):
        """Return the areas of the markers, which grow with what joins them."""
        sizes = np.full(len(self.accuracy), 36.0)
        if self.joins is None or len(_finite(self.joins)) == 0:
            return sizes
        low, high = _finite(self.joins).min(), _finite(self.joins).max()
        grown = 36 + 84 * (self.joins - low) / ((high - low) or 1.0)
        return np.where(np.isfinite(self.joins), grown, sizes)

    def _lines(self, chosen, style):
        """Draw what joins the candidates of a group, and bars to the share that survives."""
        if self.joins is not None:
            index = np.flatnonzero(chosen & np.isfinite(self.joins))
            index = index[np.argsort(self.joins[index], kind="stable")]
            self.ax_.plot(
                self.accuracy[index], self.robustness[index], linewidth=1.2, alpha=0.7, **style
            )
        if self.surviving is not None:
            ends = self.robustness[chosen], self.surviving[chosen]
            self.ax_.vlines(
                self.accuracy[chosen], *ends, color=style["color"], linewidth=3, alpha=0.35
            )
            self.ax_.scatter(
                self.accuracy[chosen], ends[1], marker="_", s=70, color=style["color"], alpha=0.85
            )

    def _bars(self):
        """Name the bars in the legend, in the gray of no group."""
        if self.surviving is not None:
            label = f"bar: up to {self.surviving_name}"
            self.ax_.plot([], [], color="gray", marker=_BAR, markersize=12, linewidth=0,
                          label=label)  # fmt: skip

    def _front(self):
        """Draw the front as the border of what some candidate reaches or exceeds."""
        front = np.flatnonzero(self.pareto_front_)
        front = front[np.argsort(self.accuracy[front])]
        label = "Pareto front"
        if not math.isnan(self.hypervolume_):
            label += f", hypervolume {self.hypervolume_:.3f}"
        self.ax_.plot(
            self.accuracy[front],
            self.robustness[front],
            color="black",
            linewidth=1,
            drawstyle="steps-pre",
            marker="o",
            markersize=13,
            markerfacecolor="none",
            zorder=1,
            label=label,
        )

    def _title(self):
        interval = self.correlation_interval_
        if math.isnan(self.correlation_):
            return ""
        title = f"Spearman correlation {self.correlation_:+.2f}"
        if math.isnan(interval.low):
            return title
        return f"{title} [{interval.low:+.2f}, {interval.high:+.2f}]"

    def _growth(self):
        if self.joins is None:
            return ""
        return f"markers grow with {self.join_name or 'what joins them'}"

    def _constant(self, chosen):
        """Return the one value that a group is shaded by, which needs no color scale."""
        if self.shades is None:
            return ""
        name = self.shade_name or "shade"
        values = np.unique(_finite(self.shades[chosen]))
        return f"{name}={values[0]:g}" if len(values) else f"{name} not set"

    def _shaded(self, group, chosen, scale, style):
        """Draw a group in its color scale, and the bar below the axes."""
        shades = self.shades[chosen]
        low, high = _finite(shades).min(), _finite(shades).max()
        # The lightest third of a scale is hardly seen on white.
        style = {
            "cmap": scale,
            "vmin": low - (high - low) / 2,
            "vmax": high,
            "alpha": 0.85,
            "edgecolors": "black",
            "linewidths": 0.5,
        } | style
        points = self.ax_.scatter(
            self.accuracy[chosen],
            self.robustness[chosen],
            c=shades,
            plotnonfinite=True,
            **style,
        )
        points.set_cmap(points.get_cmap().with_extremes(bad="lightgray"))
        label = ", ".join(part for part in (group, self.shade_name) if part)
        bar = self.figure_.colorbar(points, ax=self.ax_, location="bottom", aspect=40, label=label)
        bar.ax.set_xlim(low, high)


def _finite(values):
    return values[np.isfinite(values)]


def _one_color(style, given):
    """Return the style, changed by what a user gives; "c" is another name of the color."""
    if "c" in given:
        style = {name: value for name, value in style.items() if name != "color"}
    return style | given


def _correlation(first, second):
    if len(first) < 3 or np.ptp(first) == 0 or np.ptp(second) == 0:
        return np.nan
    return float(spearmanr(first, second).statistic)


def _interval(correlation, n, confidence):
    """Return the interval of Spearman's correlation of `n` pairs."""
    method = "fisher-z"
    if math.isnan(correlation) or n < 4 or abs(correlation) > 1 - 1e-12:
        return Interval(math.nan, math.nan, confidence, method)
    deviation = math.sqrt((1 + correlation**2 / 2) / (n - 3))
    half = norm.ppf((1 + confidence) / 2) * deviation
    middle = math.atanh(correlation)
    low, high = math.tanh(middle - half), math.tanh(middle + half)
    return Interval(low, high, confidence, method)
