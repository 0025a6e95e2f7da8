"""Accuracy under corruptions."""

import numpy as np

from skrobust._validation import check_choice, check_instance, expected
from skrobust.displays._axes import axes_for, check_dict, legend_beside, named
from skrobust.networks import import_pandas
from skrobust.scorers import CorruptionRobustness, CorruptionRobustnessResult

__all__ = ["CorruptionDisplay"]


class CorruptionDisplay:
    """Accuracy, agreement or a score under each corruption, as bars, for several estimators.

    Parameters
    ----------
    results : dict of str to CorruptionRobustnessResult
        For each name of an estimator; of the same corruptions.
    shown : {"accuracy", "agreement", "score"}, default="accuracy"
        Column of the results' `to_frame` that is drawn: the share that is classified right, the
        share that keeps its label, or the scores of the scorer's own `scorer`.

    Attributes
    ----------
    values_ : pandas DataFrame of shape (n_corruptions, n_estimators)
        Heights of the bars; the corruptions from the mildest to the worst, on average.
    ax_ : matplotlib Axes
    figure_ : matplotlib Figure
    bars_ : list of matplotlib BarContainer
        One for each estimator.

    Raises
    ------
    TypeError
        If `results` is no dict, or a result is none of `CorruptionRobustness`.
    ValueError
        If there are no results, or `shown` is no such name.

    Examples
    --------
    >>> import matplotlib
    >>> matplotlib.use("Agg")
    >>> from sklearn.linear_model import LogisticRegression
    >>> from skrobust.datasets import load_digits
    >>> from skrobust.displays import CorruptionDisplay
    >>> from skrobust.scorers import CorruptionRobustness
    >>> X, y = load_digits(return_X_y=True)
    >>> model = LogisticRegression().fit(X[:1000], y[:1000])
    >>> scorer = CorruptionRobustness(["noise", "occlusion"], random_state=0)
    >>> display = CorruptionDisplay.from_estimator(model, X[1000:], y[1000:], scorer=scorer)
    >>> display.values_.shape
    (2, 1)
    """

    def __init__(self, results, *, shown="accuracy"):
        self.results = check_dict("results", results, "a CorruptionRobustnessResult")
        for name, result in results.items():
            example = "CorruptionRobustness().evaluate(...)"
            check_instance(f"results[{name!r}]", result, CorruptionRobustnessResult, example)
        self.shown = check_choice("shown", shown, ("accuracy", "agreement", "score"))

    @classmethod
    def from_estimator(
        cls, estimator, X, y=None, *, scorer=None, shown="accuracy", ax=None, **kwargs
    ):
        """Evaluate the estimators under corruptions, and draw the bars.

        Parameters
        ----------
        estimator : object, list of objects, or dict of str to object
            Fitted classifiers.
        X : array-like of shape (n_samples, n_features)
        y : array-like of shape (n_samples,), default=None
            True labels; accuracies need them.
        scorer : CorruptionRobustness, default=None
            ``CorruptionRobustness()`` if None.
        shown : {"accuracy", "agreement", "score"}, default="accuracy"
            What is drawn.
        ax : matplotlib Axes, default=None
        **kwargs : dict
            For matplotlib's `bar`.

        Returns
        -------
        CorruptionDisplay
        """
        scorer = CorruptionRobustness() if scorer is None else scorer
        check_instance("scorer", scorer, CorruptionRobustness, "CorruptionRobustness()")
        results = {name: scorer.evaluate(model, X, y) for name, model in named(estimator).items()}
        return cls.from_result(results, shown=shown, ax=ax, **kwargs)

    @classmethod
    def from_result(cls, result, *, shown="accuracy", ax=None, **kwargs):
        """Draw the bars of results that are there.

        Parameters
        ----------
        result : CorruptionRobustnessResult, or dict of str to such results
            Of the same corruptions.
        shown : {"accuracy", "agreement", "score"}, default="accuracy"
            What is drawn.
        ax : matplotlib Axes, default=None
        **kwargs : dict
            For matplotlib's `bar`.

        Returns
        -------
        CorruptionDisplay
        """
        results = result if isinstance(result, dict) else {"estimator": result}
        return cls(results, shown=shown).plot(ax=ax, **kwargs)

    def plot(self, *, ax=None, **kwargs):
        """Draw the bars, with intervals where these are of what is shown; return self."""
        self.values_, frames = self._values()
        n_corruptions, n_estimators = self.values_.shape
        size = (4 + 0.25 * n_corruptions * (n_estimators + 1) / 2, 4)
        self.ax_ = axes_for(ax, figsize=size)
        self.figure_ = self.ax_.figure
        self.bars_ = []
        width = 0.8 / n_estimators
        for j, (name, heights) in enumerate(self.values_.items()):
            places = np.arange(n_corruptions) + (j - (n_estimators - 1) / 2) * width
            style = {"label": name, "width": width, "color": f"C{j}", "capsize": 2} | kwargs
            if self.results[name].counted == self.shown:  # what the intervals are of
                frame = frames[name].loc[self.values_.index]
                # As lists: of an array with one column matplotlib makes a scalar, and NumPy warns.
                style["yerr"] = [list(heights - frame["low"]), list(frame["high"] - heights)]
                style |= {"error_kw": {"elinewidth": 0.8, "ecolor": "0.3"}} | kwargs
            self.bars_.append(self.ax_.bar(places, heights, **style))
            if self.shown == "accuracy":
                clean = self.results[name].clean_accuracy
                self.ax_.axhline(clean, color=f"C{j}", linestyle=":", linewidth=1)
        crowded = n_corruptions > 4
        self.ax_.set_xticks(
            np.arange(n_corruptions),
            [str(name).replace("_", " ") for name in self.values_.index],
            rotation=40 if crowded else 0,
            ha="right" if crowded else "center",
        )
        self.ax_.set(ylabel=self.shown)
        self.ax_.set_title("Dotted: without corruption" if self.shown == "accuracy" else "")
        if n_estimators > 1:
            legend_beside(self.ax_, widen=ax is None)
        return self

    def _values(self):
        """Return the heights, sorted, and the results as frames."""
        pd = import_pandas("CorruptionDisplay")
        frames = {name: result.to_frame() for name, result in self.results.items()}
        values = pd.DataFrame({name: frame[self.shown] for name, frame in frames.items()})
        if values.isna().to_numpy().any():
            expectation = (
                "results of the same corruptions that have it: accuracies need y, scores a scorer"
            )
            raise ValueError(expected("shown", self.shown, expectation))
        return values.loc[values.mean(axis=1).sort_values(ascending=False).index], frames
