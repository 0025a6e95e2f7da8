"""Accuracy against robustness of the candidates of a search."""

import numpy as np
from scipy.stats import spearmanr
from sklearn.utils.validation import check_is_fitted

from skrobust._validation import expected
from skrobust.displays._axes import _axes, _short

__all__ = ["TradeOffDisplay"]


class TradeOffDisplay:
    """Accuracy against robustness of the candidates of a search.

    Parameters
    ----------
    accuracy, robustness : ndarray of shape (n_candidates,)
        Mean test scores. Candidates with NaN (failed fits) are left out and counted.
    groups : array-like of shape (n_candidates,), default=None
        Colour the candidates by this.
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
    """

    def __init__(
        self,
        accuracy,
        robustness,
        *,
        groups=None,
        accuracy_name="accuracy",
        robustness_name="robustness",
    ):
        self.accuracy = np.asarray(accuracy, dtype=float)
        self.robustness = np.asarray(robustness, dtype=float)
        self.groups = groups
        self.accuracy_name = accuracy_name
        self.robustness_name = robustness_name
        failed = np.isnan(self.accuracy) | np.isnan(self.robustness)
        self.n_failed_ = int(failed.sum())
        self.pareto_front_ = _pareto_front(self.accuracy, self.robustness)
        self.correlation_ = _correlation(self.accuracy[~failed], self.robustness[~failed])

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
            Name of a parameter of the search; candidates are coloured by its value.
        ax : matplotlib Axes, default=None
        **kwargs : dict
            For matplotlib's `scatter`.

        Returns
        -------
        TradeOffDisplay
        """
        check_is_fitted(search, "cv_results_")
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
            groups = [_short(value) for value in results[f"param_{group_by}"]]
        scores = (results[f"mean_test_{name}"] for name in (accuracy, robustness))
        names = {"accuracy_name": accuracy, "robustness_name": robustness}
        return cls(*scores, groups=groups, **names).plot(ax=ax, **kwargs)

    def plot(self, *, ax=None, **kwargs):
        """Draw the candidates and the Pareto front; return self."""
        self.ax_ = _axes(ax)
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
        # Beside the axes: inside, it would hide candidates.
        self.ax_.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0))
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
