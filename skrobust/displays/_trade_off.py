"""Accuracy against robustness of the candidates of a search."""

from itertools import cycle

import numpy as np
from scipy.stats import spearmanr

from skrobust._validation import check_instance, expected
from skrobust.displays._axes import axes_for, check_array, legend_beside, short_names
from skrobust.displays._search import mean_scores, parameter_values, parameters_of, results_of

__all__ = ["TradeOffDisplay"]

_SCALES = ("Blues", "RdPu", "Greens", "Oranges", "Purples")


class TradeOffDisplay:
    """Accuracy against robustness of the candidates of a search.

    Parameters
    ----------
    accuracy, robustness : array-like of shape (n_candidates,)
        Mean test scores. Candidates with NaN (failed fits) are left out and counted.
    groups : array-like of shape (n_candidates,), default=None
        Color the candidates by this: estimators, regimes and the like are named by their
        class and the parameters that differ.
    group_name : str, default=None
        Title of the legend.
    shades : array-like of shape (n_candidates,), default=None
        Numbers, such as a hyperparameter: each group then has a color scale of its own, from its
        smallest number to its largest, and a bar that shows it. Gray where NaN.
    shade_name : str, default=None
        Label of the bars.
    accuracy_name, robustness_name : str
        Labels of the axes.

    Attributes
    ----------
    pareto_front_ : ndarray of bool, shape (n_candidates,)
        Candidates that no other one beats in one score and equals or beats in the other.
    correlation_ : float
        Spearman's rank correlation; NaN for fewer than three candidates, or constant scores.
    group_correlations_ : dict of str to float
        The same within each group; with no groups, empty.
    n_failed_ : int
    ax_ : matplotlib Axes
    figure_ : matplotlib Figure

    Raises
    ------
    ValueError
        If there are no candidates, or not as many scores, groups or shades of each kind.
    """

    def __init__(
        self,
        accuracy,
        robustness,
        *,
        groups=None,
        group_name=None,
        shades=None,
        shade_name=None,
        accuracy_name="accuracy",
        robustness_name="robustness",
    ):
        self.accuracy = check_array("accuracy", accuracy, ("n_candidates",))
        self.robustness = check_array("robustness", robustness, (len(self.accuracy),), "accuracy")
        self.groups = None if groups is None else self._names(groups)
        if group_name is not None:
            check_instance("group_name", group_name, str, "'epsilon'")
        self.group_name = group_name
        if shades is not None:
            shades = check_array("shades", shades, (len(self.accuracy),), "accuracy")
        self.shades = shades
        if shade_name is not None:
            check_instance("shade_name", shade_name, str, "'max_epochs'")
        self.shade_name = shade_name
        self.accuracy_name = check_instance("accuracy_name", accuracy_name, str, "'accuracy'")
        self.robustness_name = check_instance(
            "robustness_name", robustness_name, str, "'robustness'"
        )
        failed = np.isnan(self.accuracy) | np.isnan(self.robustness)
        self.n_failed_ = int(failed.sum())
        self.pareto_front_ = _pareto_front(self.accuracy, self.robustness)
        self.correlation_ = _correlation(self.accuracy[~failed], self.robustness[~failed])
        self.group_correlations_ = {
            group: _correlation(self.accuracy[chosen & ~failed], self.robustness[chosen & ~failed])
            for group, chosen in self._parts()
            if self.groups is not None
        }

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
        group_by=None,
        shade_by=None,
        ax=None,
        **kwargs,
    ):
        """Draw the candidates of a fitted multi-metric search.

        Parameters
        ----------
        search : GridSearchCV, RandomizedSearchCV or similar, or dict of str to such
            Fitted. Of several searches, each is a group, by its name in the dict.
        accuracy, robustness : str
            Names of the two scores in the search's `scoring`.
        group_by : str, default=None
            Name of a parameter of the search; candidates are colored by its value. Of one search
            only.
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
        searches = search if isinstance(search, dict) else {"": search}
        if not searches:
            raise ValueError(expected("search", search, "one search at least"))
        if isinstance(search, dict) and group_by is not None:
            expectation = "None, as the searches of a dict are the groups"
            raise ValueError(expected("group_by", group_by, expectation))
        given = {name: [] for name in ("accuracy", "robustness", "groups", "shades")}
        results_by_name = {name: results_of(each) for name, each in searches.items()}
        # What one of several searches does not vary is gray there.
        varied = parameters_of(*results_by_name.values())
        for name, results in results_by_name.items():
            given["accuracy"].extend(mean_scores(results, "accuracy", accuracy))
            given["robustness"].extend(mean_scores(results, "robustness", robustness))
            if group_by is not None:
                given["groups"] += parameter_values(results, "group_by", group_by)
            elif isinstance(search, dict):
                given["groups"] += [name] * len(results["params"])
            if shade_by is not None:
                given["shades"] += parameter_values(results, "shade_by", shade_by, np.nan, varied)
        display = cls(
            given["accuracy"],
            given["robustness"],
            groups=given["groups"] or None,
            group_name=group_by,
            shades=given["shades"] or None,
            shade_name=shade_by,
            accuracy_name=accuracy,
            robustness_name=robustness,
        )
        return display.plot(ax=ax, **kwargs)

    def plot(self, *, ax=None, **kwargs):
        """Draw the candidates and the Pareto front; return self."""
        self.ax_ = axes_for(ax)
        self.figure_ = self.ax_.figure
        for (group, chosen), scale in zip(self._parts(), cycle(_SCALES), strict=False):
            if self.shades is not None:
                self._shaded(group, chosen, scale, kwargs)
                continue
            style = {"label": group or None, "alpha": 0.85} | kwargs
            self.ax_.scatter(self.accuracy[chosen], self.robustness[chosen], **style)
        front = np.flatnonzero(self.pareto_front_)
        front = front[np.argsort(self.accuracy[front])]
        self.ax_.plot(
            self.accuracy[front],
            self.robustness[front],
            color="black",
            linewidth=1,
            marker="o",
            markersize=11,
            markerfacecolor="none",
            zorder=0,
            label="Pareto front",
        )
        self.ax_.set(xlabel=self.accuracy_name, ylabel=self.robustness_name)
        self.ax_.set_title(f"Spearman correlation {self.correlation_:+.2f}")
        title = self.group_name if self.shades is None else None  # then the bars name the groups
        legend_beside(self.ax_, widen=ax is None, title=title)
        return self

    def _shaded(self, group, chosen, scale, style):
        """Draw a group in its color scale, and the bar below the axes."""
        shades = self.shades[chosen]
        finite = shades[np.isfinite(shades)]
        low, high = (finite.min(), finite.max()) if len(finite) else (0.0, 0.0)
        if low == high:
            low, high = low - 0.5, high + 0.5
        # The lightest third of a scale is hardly seen on white.
        style = {
            "cmap": scale,
            "vmin": low - (high - low) / 2,
            "vmax": high,
            "alpha": 0.85,
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


def _pareto_front(first, second):
    """Return the candidates that are not dominated; NaN never is on the front."""
    at_least = (first[None] >= first[:, None]) & (second[None] >= second[:, None])
    above = (first[None] > first[:, None]) | (second[None] > second[:, None])
    return ~(at_least & above).any(axis=1) & ~np.isnan(first) & ~np.isnan(second)


def _correlation(first, second):
    if len(first) < 3 or np.ptp(first) == 0 or np.ptp(second) == 0:
        return np.nan
    return float(spearmanr(first, second).statistic)
