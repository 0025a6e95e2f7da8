"""Scores by a hyperparameter, as box plots."""

from numbers import Real

import numpy as np

from skrobust._validation import check_instance, expected
from skrobust.displays._axes import axes_for, check_array, short_names
from skrobust.model_selection import mean_scores, parameter_values, results_of

__all__ = ["HyperparameterBoxDisplay"]


class HyperparameterBoxDisplay:
    """Box plots of a score by a hyperparameter, over all candidates of a search.

    Each box holds the candidates of one value, whatever their other parameters: the middle half
    of their scores, the median, and whiskers as matplotlib's `boxplot` draws them.

    Parameters
    ----------
    values : array-like of shape (n_candidates,)
        Of the hyperparameter. Numbers are put in order; other values follow as they first appear,
        named by their class and the parameters that differ.
    scores : array-like of shape (n_candidates,)
        Mean test scores. Candidates with NaN (failed fits) are left out and counted.
    name : str, default="hyperparameter"
        Label of the horizontal axis.
    score_name : str, default="robustness"
        Label of the vertical axis.

    Attributes
    ----------
    scores_by_value_ : dict of str to ndarray
        The scores of each box, from left to right.
    medians_ : ndarray of shape (n_values,)
        NaN where all fits failed.
    n_failed_ : int
    boxes_ : dict of str to list
        What matplotlib's `boxplot` returns.
    ax_ : matplotlib Axes
    figure_ : matplotlib Figure

    Raises
    ------
    ValueError
        If there are no candidates, or not as many scores as values.

    References
    ----------
    "Global Adversarial Robustness Guarantees for Neural Networks", figure 2: robustness by
    capacity, and by the duration of training.

    Examples
    --------
    >>> import matplotlib
    >>> matplotlib.use("Agg")
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.model_selection import GridSearchCV
    >>> from skrobust.datasets import load_digits
    >>> from skrobust.displays import HyperparameterBoxDisplay
    >>> X, y = load_digits(return_X_y=True)
    >>> grid = {"C": [1.0, 0.01], "max_iter": [50, 100]}
    >>> scoring = {"accuracy": "accuracy"}
    >>> search = GridSearchCV(LogisticRegression(tol=1), grid, scoring=scoring, refit=False, cv=2)
    >>> display = HyperparameterBoxDisplay.from_estimator(
    ...     search.fit(X[:200], y[:200]), by="C", score="accuracy"
    ... )
    >>> {name: len(scores) for name, scores in display.scores_by_value_.items()}
    {'0.01': 2, '1.0': 2}
    """

    def __init__(self, values, scores, *, name="hyperparameter", score_name="robustness"):
        self.scores = check_array("scores", scores, ("n_candidates",))
        self.values = _as_list("values", values, len(self.scores))
        self.name = check_instance("name", name, str, "'max_epochs'")
        self.score_name = check_instance("score_name", score_name, str, "'robustness'")
        failed = np.isnan(self.scores)
        self.n_failed_ = int(failed.sum())
        names = np.array(short_names(self.values))
        self.scores_by_value_ = {
            str(shown): self.scores[(names == shown) & ~failed]
            for shown in dict.fromkeys(names[_order(self.values)])
        }
        self.medians_ = np.array(
            [np.median(each) if len(each) else np.nan for each in self.scores_by_value_.values()]
        )

    @classmethod
    def from_estimator(cls, search, *, by, score="security", ax=None, **kwargs):
        """Draw the scores of a fitted multi-metric search.

        Parameters
        ----------
        search : GridSearchCV, RandomizedSearchCV or similar
            Fitted.
        by : str
            Name of a parameter of the search. Candidates that do not set it have a box of their
            own.
        score : str, default="security"
            Name of a score in the search's `scoring`.
        ax : matplotlib Axes, default=None
        **kwargs : dict
            For matplotlib's `boxplot`.

        Returns
        -------
        HyperparameterBoxDisplay
        """
        results = results_of(search)
        scores = mean_scores(results, "score", score)
        display = cls(parameter_values(results, "by", by), scores, name=by, score_name=score)
        return display.plot(ax=ax, **kwargs)

    def plot(self, *, ax=None, **kwargs):
        """Draw a box for each value; return self."""
        self.ax_ = axes_for(ax)
        self.figure_ = self.ax_.figure
        boxes = list(self.scores_by_value_.values())
        style = {"tick_labels": list(self.scores_by_value_)} | kwargs
        self.boxes_ = self.ax_.boxplot(boxes, **style)
        self.ax_.set(xlabel=self.name, ylabel=self.score_name)
        return self


def _as_list(name, values, n):
    """Return values as a list of `n`, or raise."""
    values = list(values) if np.iterable(values) and not isinstance(values, str) else [values]
    if len(values) != n:
        raise ValueError(expected(name, values, f"as many values as there are scores, {n}"))
    return values


def _order(values):
    """Return the order of the boxes: numbers by their size, then what is none as it appears."""

    def place(index):
        value = values[index]
        return (0, value) if isinstance(value, Real) else (1, index)

    return sorted(range(len(values)), key=place)
