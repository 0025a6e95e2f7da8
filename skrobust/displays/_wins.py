"""Which attack came closest, and how often."""

import numpy as np

from skrobust._validation import check_instance, expected
from skrobust.displays._axes import axes_for, check_dict, legend_beside, named
from skrobust.networks import import_pandas
from skrobust.scorers import MarginRobustness, MarginRobustnessResult

__all__ = ["WinsDisplay"]


class WinsDisplay:
    """The share of samples at which each attack came closest, one bar an estimator.

    The parts of a bar are the shares of the attacks: table 2 of [1]_ as a picture.

    Parameters
    ----------
    results : dict of str to MarginRobustnessResult
        For each name of an estimator; of the same attacks.

    Attributes
    ----------
    values_ : pandas DataFrame of shape (n_estimators, n_attacks)
        Shares, of those samples at which any attack found an adversarial example; NaN where none
        found one. The bar of such an estimator stays empty.
    ax_ : matplotlib Axes
    figure_ : matplotlib Figure
    bars_ : list of matplotlib BarContainer
        One for each attack.

    Raises
    ------
    TypeError
        If `results` is no dict, or a result is none of `MarginRobustness`.
    ValueError
        If there are no results, or their attacks differ.

    References
    ----------
    .. [1] Tibo, Jaeger, Larsen, "A general framework for defining and optimizing robustness",
       arXiv:2006.11122.

    Examples
    --------
    >>> import matplotlib
    >>> matplotlib.use("Agg")
    >>> from sklearn.linear_model import LogisticRegression
    >>> from skrobust.attacks import FGSM, Ensemble, LinearBoundary
    >>> from skrobust.datasets import load_digits
    >>> from skrobust.displays import WinsDisplay
    >>> from skrobust.scorers import MarginRobustness
    >>> X, y = load_digits(return_X_y=True)
    >>> model = LogisticRegression().fit(X[:1000], y[:1000])
    >>> attack = Ensemble([("fgsm", FGSM()), ("bg", LinearBoundary())])
    >>> scorer = MarginRobustness("l2", attack=attack)
    >>> display = WinsDisplay.from_estimator(model, X[1000:1100], scorer=scorer)
    >>> print(display.values_.sum(axis=1))
    LogisticRegression    1.0
    dtype: float64
    """

    def __init__(self, results):
        self.results = check_dict("results", results, "a MarginRobustnessResult")
        first = None
        for name, result in results.items():
            argument = f"results[{name!r}]"
            example = "MarginRobustness().evaluate(...)"
            check_instance(argument, result, MarginRobustnessResult, example)
            attacks = list(result.wins)
            first = attacks if first is None else first
            if attacks != first:
                raise ValueError(expected(argument, attacks, f"wins of the attacks {first}"))

    @classmethod
    def from_estimator(cls, estimator, X, y=None, *, scorer=None, ax=None, **kwargs):
        """Attack the estimators, and draw the bars.

        Parameters
        ----------
        estimator : object, list of objects, or dict of str to object
            Fitted classifiers.
        X : array-like of shape (n_samples, n_features)
        y : array-like of shape (n_samples,), default=None
            True labels, for a scorer with ``reference="label"``.
        scorer : MarginRobustness, default=None
            ``MarginRobustness()`` if None.
        ax : matplotlib Axes, default=None
        **kwargs : dict
            For matplotlib's `barh`.

        Returns
        -------
        WinsDisplay
        """
        scorer = MarginRobustness() if scorer is None else scorer
        check_instance("scorer", scorer, MarginRobustness, "MarginRobustness()")
        results = {name: scorer.evaluate(model, X, y) for name, model in named(estimator).items()}
        return cls.from_result(results, ax=ax, **kwargs)

    @classmethod
    def from_result(cls, result, *, ax=None, **kwargs):
        """Draw the bars of results that are there.

        Parameters
        ----------
        result : MarginRobustnessResult, or dict of str to such results
            Of the same attacks.
        ax : matplotlib Axes, default=None
        **kwargs : dict
            For matplotlib's `barh`.

        Returns
        -------
        WinsDisplay
        """
        results = result if isinstance(result, dict) else {"estimator": result}
        return cls(results).plot(ax=ax, **kwargs)

    def plot(self, *, ax=None, **kwargs):
        """Draw one bar an estimator, the first on top; return self."""
        pd = import_pandas("WinsDisplay")
        self.values_ = pd.DataFrame({n: r.wins for n, r in self.results.items()}).T
        self.ax_ = axes_for(ax, figsize=(5, 1 + 0.5 * len(self.values_)))
        self.figure_ = self.ax_.figure
        self.bars_ = []
        places, ends = np.arange(len(self.values_)), np.zeros(len(self.values_))
        for attack, shares in self.values_.items():
            widths = shares.fillna(0.0).to_numpy()
            style = {"left": ends, "label": attack, "height": 0.7} | kwargs
            bars = self.ax_.barh(places, widths, **style)
            # What is narrower has no room for its number.
            numbers = [f"{width:.0%}" if width >= 0.08 else "" for width in widths]
            self.ax_.bar_label(bars, numbers, label_type="center", color="white")
            self.bars_.append(bars)
            ends = ends + widths
        self.ax_.set_yticks(places, [str(name) for name in self.values_.index])
        self.ax_.invert_yaxis()
        self.ax_.set(xlabel="share of samples at which it came closest", xlim=(0, 1))
        legend_beside(self.ax_, widen=ax is None)
        return self
