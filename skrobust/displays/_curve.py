"""Robustness against the radius."""

import numpy as np
from sklearn.base import clone

from skrobust._validation import check_instance, expected
from skrobust.displays._axes import _axes, _named
from skrobust.scorers import RobustnessScorer
from skrobust.statistics import clopper_pearson

__all__ = ["RobustnessCurveDisplay"]


class RobustnessCurveDisplay:
    """Score against epsilon, for one or several estimators.

    Parameters
    ----------
    epsilons : ndarray of shape (n_epsilons,)
    scores : dict of str to ndarray of shape (n_epsilons,)
        For each name of an estimator.
    intervals : dict of str to ndarray of shape (n_epsilons, 2), default=None
        Lower and upper ends of confidence intervals.
    score_name : str, default="score"
        Label of the vertical axis.

    Attributes
    ----------
    ax_ : matplotlib Axes
    figure_ : matplotlib Figure
    lines_ : list of matplotlib Line2D

    Examples
    --------
    >>> import matplotlib
    >>> matplotlib.use("Agg")
    >>> from sklearn.linear_model import LogisticRegression
    >>> from skrobust.datasets import load_digits
    >>> from skrobust.displays import RobustnessCurveDisplay
    >>> from skrobust.properties import ClassificationRobustness
    >>> from skrobust.scorers import ConstraintSecurity
    >>> X, y = load_digits(return_X_y=True)
    >>> model = LogisticRegression().fit(X[:1000], y[:1000])
    >>> scorer = ConstraintSecurity(ClassificationRobustness(), random_state=0)
    >>> display = RobustnessCurveDisplay.from_estimator(
    ...     model, X[1000:], y[1000:], scorer=scorer, epsilons=[0, 0.05, 0.1]
    ... )
    >>> [bool(step <= 0) for step in np.diff(display.scores["LogisticRegression"])]
    [True, True]
    """

    def __init__(self, epsilons, scores, *, intervals=None, score_name="score"):
        self.epsilons = epsilons
        self.scores = scores
        self.intervals = intervals
        self.score_name = score_name

    @classmethod
    def from_estimator(cls, estimator, X, y=None, *, scorer, epsilons, ax=None, **kwargs):
        """Score the estimators at each epsilon, and draw the curves.

        Parameters
        ----------
        estimator : object, list of objects, or dict of str to object
            Fitted classifiers.
        X : array-like of shape (n_samples, n_features)
        y : array-like of shape (n_samples,), default=None
        scorer : RobustnessScorer with a `property`
            Its property is used with every one of `epsilons` in turn.
        epsilons : array-like of shape (n_epsilons,)
        ax : matplotlib Axes, default=None
        **kwargs : dict
            For matplotlib's `plot`.

        Returns
        -------
        RobustnessCurveDisplay
        """
        check_instance("scorer", scorer, RobustnessScorer, "ConstraintSecurity(...)")
        if np.ndim(scorer.property.epsilon) > 0:
            one = "one whose property has one epsilon for all features, for the curve replaces it"
            raise ValueError(expected("scorer", scorer, one))
        epsilons = np.asarray(epsilons, dtype=float)
        scores, intervals = {}, {}
        for name, model in _named(estimator).items():
            at_epsilon = (
                clone(scorer).set_params(property=scorer.property.with_epsilon(float(epsilon)))
                for epsilon in epsilons
            )
            results = [one.evaluate(model, X, y) for one in at_epsilon]
            scores[name] = np.array([result.score for result in results])
            intervals[name] = np.array([[r.interval.low, r.interval.high] for r in results])
        display = cls(epsilons, scores, intervals=intervals, score_name=type(scorer).__name__)
        return display.plot(ax=ax, **kwargs)

    @classmethod
    def from_radius(cls, radius, *, epsilons=None, confidence=0.95, ax=None, **kwargs):
        """Draw the share of samples whose radius is above epsilon.

        Parameters
        ----------
        radius : array-like of shape (n_samples,), result with `radius`, or dict of str to either
            Distances of the closest adversarial examples, inf where none was found.
        epsilons : array-like of shape (n_epsilons,), default=None
            101 values from 0 to the largest finite radius, if None.
        confidence : float, default=0.95
            Of the Clopper-Pearson intervals.
        ax : matplotlib Axes, default=None
        **kwargs : dict
            For matplotlib's `plot`.

        Returns
        -------
        RobustnessCurveDisplay
        """
        named = radius if isinstance(radius, dict) else {"radius": radius}
        radii = {name: np.asarray(getattr(r, "radius", r)) for name, r in named.items()}
        if epsilons is None:
            finite = [r[np.isfinite(r)].max(initial=0.0) for r in radii.values()]
            epsilons = np.linspace(0, max(finite) or 1.0, 101)
        epsilons = np.asarray(epsilons, dtype=float)
        scores, intervals = {}, {}
        for name, r in radii.items():
            counts = (r[:, None] > epsilons).sum(axis=0)
            found = [clopper_pearson(count, len(r), confidence) for count in counts]
            scores[name] = counts / len(r)
            intervals[name] = np.array([[interval.low, interval.high] for interval in found])
        display = cls(epsilons, scores, intervals=intervals, score_name="share above epsilon")
        return display.plot(ax=ax, **{"marker": ""} | kwargs)

    def plot(self, *, ax=None, **kwargs):
        """Draw one line an estimator, with its confidence band; return self."""
        self.ax_ = _axes(ax)
        self.figure_ = self.ax_.figure
        self.lines_ = []
        for name, scores in self.scores.items():
            style = {"marker": "o", "label": name} | kwargs
            (line,) = self.ax_.plot(self.epsilons, scores, **style)
            self.lines_.append(line)
            if self.intervals is not None:
                low, high = np.transpose(self.intervals[name])
                self.ax_.fill_between(self.epsilons, low, high, color=line.get_color(), alpha=0.15)
        self.ax_.set(xlabel="epsilon", ylabel=self.score_name, ylim=(-0.02, 1.02))
        self.ax_.legend()
        return self
