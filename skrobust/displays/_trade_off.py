"""Accuracy against robustness of the candidates of a search."""

import numpy as np
from scipy.stats import spearmanr
from sklearn.utils.validation import check_is_fitted

from skrobust._validation import check_instance, expected
from skrobust.displays._axes import axes_for, check_array, legend_beside, short_names

__all__ = ["TradeOffDisplay"]


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
    accuracy_name, robustness_name : str
        Labels of the axes.

    Attributes
    ----------
    pareto_front_ : ndarray of bool, shape (n_candidates,)
        Candidates that no other one beats in one score and equals or beats in the other.
    correlation_ : float
        Spearman's rank correlation; NaN for fewer than three candidates, or constant scores.
    n_failed_ : int
    ax_ : matplotlib Axes
    figure_ : matplotlib Figure

    Raises
    ------
    ValueError
        If there are no candidates, or not as many scores or groups of each kind.
    """

    def __init__(
        self,
        accuracy,
        robustness,
        *,
        groups=None,
        group_name=None,
        accuracy_name="accuracy",
        robustness_name="robustness",
    ):
        self.accuracy = check_array("accuracy", accuracy, ("n_candidates",))
        self.robustness = check_array("robustness", robustness, (len(self.accuracy),), "accuracy")
        self.groups = None if groups is None else self._names(groups)
        if group_name is not None:
            check_instance("group_name", group_name, str, "'epsilon'")
        self.group_name = group_name
        self.accuracy_name = check_instance("accuracy_name", accuracy_name, str, "'accuracy'")
        self.robustness_name = check_instance(
            "robustness_name", robustness_name, str, "'robustness'"
        )
        failed = np.isnan(self.accuracy) | np.isnan(self.robustness)
        self.n_failed_ = int(failed.sum())
        self.pareto_front_ = _pareto_front(self.accuracy, self.robustness)
        self.correlation_ = _correlation(self.accuracy[~failed], self.robustness[~failed])

    def _names(self, groups):
        groups = list(groups) if np.iterable(groups) and not isinstance(groups, str) else [groups]
        if len(groups) != len(self.accuracy):
            expectation = f"as many values as accuracy has, {len(self.accuracy)}"
            raise ValueError(expected("groups", groups, expectation))
        return short_names(groups)

    @classmethod
    def from_estimator(
        cls,
        search,
        *,
        accuracy="accuracy",
        robustness="security",
        group_by=None,
        ax=None,
        **kwargs,
    ):
        """Draw the candidates of a fitted multi-metric search.

        Parameters
        ----------
        search : GridSearchCV, RandomizedSearchCV or similar
            Fitted.
        accuracy, robustness : str
            Names of the two scores in the search's `scoring`.
        group_by : str, default=None
            Name of a parameter of the search; candidates are colored by its value.
        ax : matplotlib Axes, default=None
        **kwargs : dict
            For matplotlib's `scatter`.

        Returns
        -------
        TradeOffDisplay
        """
        check_is_fitted(search, "cv_results_")
        check_instance("accuracy", accuracy, str, "'accuracy'")
        check_instance("robustness", robustness, str, "'security'")
        results = search.cv_results_
        scored = [name.removeprefix("mean_test_") for name in results if "mean_test_" in name]
        for argument, name in (("accuracy", accuracy), ("robustness", robustness)):
            if name not in scored:
                raise ValueError(expected(argument, name, f"one of the search's scores {scored}"))
        groups = None
        if group_by is not None:
            if f"param_{group_by}" not in results:
                known = [name.removeprefix("param_") for name in results if "param_" in name]
                raise ValueError(expected("group_by", group_by, f"one of {known}"))
            groups = results[f"param_{group_by}"]
        scores = (results[f"mean_test_{name}"] for name in (accuracy, robustness))
        names = {"accuracy_name": accuracy, "robustness_name": robustness}
        return cls(*scores, groups=groups, group_name=group_by, **names).plot(ax=ax, **kwargs)

    def plot(self, *, ax=None, **kwargs):
        """Draw the candidates and the Pareto front; return self."""
        self.ax_ = axes_for(ax)
        self.figure_ = self.ax_.figure
        groups = np.array([""] * len(self.accuracy) if self.groups is None else self.groups)
        for group in dict.fromkeys(groups):
            chosen = groups == group
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
        legend_beside(self.ax_, widen=ax is None, title=self.group_name)
        return self


def _pareto_front(first, second):
    """Return the candidates that are not dominated; NaN never is on the front."""
    at_least = (first[None] >= first[:, None]) & (second[None] >= second[:, None])
    above = (first[None] > first[:, None]) | (second[None] > second[:, None])
    return ~(at_least & above).any(axis=1) & ~np.isnan(first) & ~np.isnan(second)


def _correlation(first, second):
    if len(first) < 3 or np.ptp(first) == 0 or np.ptp(second) == 0:
        return np.nan
    return float(spearmanr(first, second).statistic)
