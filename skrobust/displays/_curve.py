"""Robustness against the radius."""

from itertools import cycle

import numpy as np
from sklearn.base import clone

from skrobust._validation import check_flag, check_instance, check_real, expected
from skrobust.displays._axes import SERIES, axes_for, check_array, check_dict, named
from skrobust.properties import RobustnessProperty
from skrobust.scorers import RobustnessScorer
from skrobust.statistics import clopper_pearson

__all__ = ["RobustnessCurveDisplay"]


class RobustnessCurveDisplay:
    """Score against epsilon, for one or several estimators.

    Parameters
    ----------
    epsilons : array-like of shape (n_epsilons,)
        In the units of the data.
    scores : dict of str to array-like of shape (n_epsilons,)
        For each name of an estimator.
    intervals : dict of str to array-like of shape (n_epsilons, 2), default=None
        Lower and upper ends of confidence intervals, for the same names.
    score_name : str, default="score"
        Label of the vertical axis.
    shares : bool or None, default=None
        Whether scores are shares, whose whole range from 0 to 1 is shown; None where all of
        them lie in it. Limits that are set on an `ax` before it is handed to `plot` stay.
    areas : dict of str to float, default=None
        Area under each curve, for the same names, which the legend shows.

    Attributes
    ----------
    ax_ : matplotlib Axes
    figure_ : matplotlib Figure
    lines_ : list of matplotlib Line2D

    Raises
    ------
    TypeError
        If scores, intervals or areas are no dict.
    ValueError
        If there are no scores, or shapes or names do not agree.

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

    def __init__(
        self, epsilons, scores, *, intervals=None, score_name="score", shares=None, areas=None
    ):
        self.epsilons = check_array("epsilons", epsilons, ("n_epsilons",))
        n = len(self.epsilons)
        check_dict("scores", scores, "an array of scores")
        self.scores = {
            name: check_array(f"scores[{name!r}]", each, (n,), "epsilons")
            for name, each in scores.items()
        }
        self.intervals = None if intervals is None else self._checked(intervals)
        self.score_name = check_instance("score_name", score_name, str, "'score'")
        if shares is None:
            shares = all(((each >= 0) & (each <= 1)).all() for each in self.scores.values())
        self.shares = check_flag("shares", shares)
        self.areas = None
        if areas is not None:
            self._check_names("areas", areas, "a number")
            self.areas = {n: check_real(f"areas[{n!r}]", a) for n, a in areas.items()}

    def _check_names(self, argument, given, of_what):
        check_dict(argument, given, of_what)
        if given.keys() != self.scores.keys():
            raise ValueError(expected(argument, given, f"the names {list(self.scores)}"))

    def _checked(self, intervals):
        self._check_names("intervals", intervals, "an array of intervals")
        return {
            name: check_array(f"intervals[{name!r}]", each, (len(self.epsilons), 2), "epsilons")
            for name, each in intervals.items()
        }

    @classmethod
    def from_estimator(cls, estimator, X, y=None, *, scorer, epsilons, ax=None, **kwargs):
        """Score the estimators at each epsilon, and draw the curves.

        Parameters
        ----------
        estimator : object, list of objects, or dict of str to object
            Fitted classifiers.
        X : array-like of shape (n_samples, n_features)
        y : array-like of shape (n_samples,), default=None
        scorer : RobustnessScorer
            With a `property`, such as ConstraintSecurity, an `epsilon`, such as
            AdversarialFrequency, or `epsilons`, such as RobustnessScore: every one of `epsilons`
            is set in turn. With an `epsilon_max`, as MarginRobustness, the largest one is set, and
            the share of samples beyond each is drawn, as `from_radius` does.
        epsilons : array-like of shape (n_epsilons,)
        ax : matplotlib Axes, default=None
        **kwargs : dict
            For matplotlib's `plot`.

        Returns
        -------
        RobustnessCurveDisplay
        """
        check_instance("scorer", scorer, RobustnessScorer, "ConstraintSecurity(...)")
        way = _way_to_sweep(scorer)
        epsilons = check_array("epsilons", epsilons, ("n_epsilons",))
        if not (np.isfinite(epsilons).all() and (epsilons >= 0).all()):
            raise ValueError(expected("epsilons", list(epsilons), "finite radii of at least 0"))
        if way == "epsilon_max":
            return cls._from_margins(estimator, X, y, scorer, epsilons, ax, kwargs)
        scores, intervals = {}, {}
        for name, model in named(estimator).items():
            results = [_with_epsilon(scorer, way, each).evaluate(model, X, y) for each in epsilons]
            scores[name] = np.array([result.score for result in results])
            intervals[name] = np.array([[r.interval.low, r.interval.high] for r in results])
        display = cls(epsilons, scores, intervals=intervals, score_name=type(scorer).__name__)
        return display.plot(ax=ax, **kwargs)

    @classmethod
    def _from_margins(cls, estimator, X, y, scorer, epsilons, ax, style):
        """Draw the shares beyond each epsilon from one computation of the radii."""
        if not epsilons.max() > 0:
            raise ValueError(expected("epsilons", list(epsilons), "one above 0 at least"))
        copy = clone(scorer).set_params(epsilon_max=float(epsilons.max()))
        radii = {name: copy.evaluate(model, X, y) for name, model in named(estimator).items()}
        style = {"marker": "o"} | style
        how = {"epsilons": epsilons, "confidence": scorer.confidence}
        return cls.from_radius(radii, **how, ax=ax, **style)

    @classmethod
    def from_radius(
        cls,
        radius,
        *,
        epsilons=None,
        cumulative=False,
        confidence=0.95,
        area=False,
        ax=None,
        **kwargs,
    ):
        """Draw the share of samples whose radius is above epsilon, or the number of the others.

        Parameters
        ----------
        radius : array-like of shape (n_samples,), result with `radius`, or dict of str to either
            Distances of the closest adversarial examples, inf where none was found.
        epsilons : array-like of shape (n_epsilons,), default=None
            101 values from 0 to the largest finite radius, if None.
        cumulative : bool, default=False
            Draw the number of samples whose radius is at most epsilon, which rises with
            epsilon, as figure 3 of [1]_; else the share of all others, which falls.
        confidence : float, default=0.95
            Of the Clopper-Pearson intervals of the share; with `cumulative`, its ends times the
            number of samples are drawn.
        area : bool, default=False
            Show the area under each curve in the legend, as figure 4 of [2]_: from 0 to the
            `epsilon_max` of a result of `MarginRobustness`, whose `score` it is, also where
            the picture ends earlier; of other radii from 0 to the last of `epsilons`.
        ax : matplotlib Axes, default=None
        **kwargs : dict
            For matplotlib's `plot`.

        Returns
        -------
        RobustnessCurveDisplay

        Raises
        ------
        ValueError
            If there is no radius, one is negative or NaN, `cumulative` or `area` is no bool, or
            both are True.

        References
        ----------
        .. [1] Bastani et al., "Measuring neural net robustness with constraints", NeurIPS 2016.
        .. [2] Tibo, Jaeger, Larsen, "A general framework for defining and optimizing
           robustness", arXiv:2006.11122.

        Examples
        --------
        >>> import matplotlib
        >>> matplotlib.use("Agg")
        >>> from skrobust.displays import RobustnessCurveDisplay
        >>> display = RobustnessCurveDisplay.from_radius(
        ...     [0.1, 0.3, float("inf")], epsilons=[0, 0.1, 0.3], cumulative=True
        ... )
        >>> display.scores["radius"].tolist()
        [0.0, 1.0, 2.0]
        """
        check_flag("cumulative", cumulative)
        if check_flag("area", area) and cumulative:
            raise ValueError(expected("area", area, "False, with cumulative=True"))
        several = radius if isinstance(radius, dict) else {"radius": radius}
        check_dict("radius", several, "an array of radii")
        radii = {name: _radii(name, each) for name, each in several.items()}
        if epsilons is None:
            finite = [r[np.isfinite(r)].max(initial=0.0) for r in radii.values()]
            epsilons = np.linspace(0, max(finite) or 1.0, 101)
        epsilons = check_array("epsilons", epsilons, ("n_epsilons",))
        if area and not (np.isfinite(epsilons).all() and (epsilons >= 0).all()):
            expectation = "finite radii of at least 0, with area=True"
            raise ValueError(expected("epsilons", list(epsilons), expectation))
        scores, intervals = {}, {}
        for name, r in radii.items():
            is_counted = r[:, None] <= epsilons if cumulative else r[:, None] > epsilons
            counts, unit = is_counted.sum(axis=0), 1 if cumulative else len(r)
            ranges = [clopper_pearson(count, len(r), confidence) for count in counts]
            ends = np.array([[interval.low, interval.high] for interval in ranges])
            scores[name], intervals[name] = counts / unit, ends * (len(r) / unit)
        score_name = "number within epsilon" if cumulative else "share above epsilon"
        # Counts of 0 and 1 are no shares.
        options = {"intervals": intervals, "score_name": score_name, "shares": not cumulative}
        if area:
            last = epsilons.max()
            options["areas"] = {
                name: np.minimum(r, getattr(several[name], "epsilon_max", last)).mean()
                for name, r in radii.items()
            }
        return cls(epsilons, scores, **options).plot(ax=ax, **{"marker": ""} | kwargs)

    def plot(self, *, ax=None, **kwargs):
        """Draw one line an estimator, with its confidence band; return self."""
        self.ax_ = axes_for(ax)
        self.figure_ = self.ax_.figure
        self.lines_ = []
        for (name, scores), series in zip(self.scores.items(), cycle(SERIES), strict=False):
            label = name if self.areas is None else f"{name}, area {self.areas[name]:.3g}"
            style = series | {"label": label} | kwargs
            (line,) = self.ax_.plot(self.epsilons, scores, **style)
            self.lines_.append(line)
            if self.intervals is not None:
                low, high = np.transpose(self.intervals[name])
                self.ax_.fill_between(self.epsilons, low, high, color=line.get_color(), alpha=0.15)
        self.ax_.set(xlabel="epsilon", ylabel=self.score_name)
        if self.shares and self.ax_.get_autoscaley_on():
            # The whole range says how much is lost; other curves may still extend it.
            self.ax_.set_ylim(-0.02, 1.02, auto=None)
        self.ax_.legend()
        return self


def _way_to_sweep(scorer):
    """Return the parameter that a curve goes along, or raise where there is none."""
    params = scorer.get_params(deep=False)
    if isinstance(params.get("property"), RobustnessProperty):
        if np.ndim(scorer.property.epsilon) > 0:
            one = "one whose property has one epsilon for all features, for the curve replaces it"
            raise ValueError(expected("scorer", scorer, one))
        return "property"
    for name in ("epsilon", "epsilons", "epsilon_max"):
        if name in params:
            return name
    some = (
        "one with a property, an epsilon, epsilons or an epsilon_max, such as ConstraintSecurity, "
        "AdversarialFrequency or MarginRobustness"
    )
    raise ValueError(expected("scorer", scorer, some))


def _with_epsilon(scorer, way, epsilon):
    """Return a copy of the scorer, at another radius."""
    epsilon = float(epsilon)
    value = scorer.property.with_epsilon(epsilon) if way == "property" else epsilon
    return clone(scorer).set_params(**{way: value})


def _radii(name, value):
    radii = check_array(f"radius[{name!r}]", getattr(value, "radius", value), ("n_samples",))
    if not (radii >= 0).all():
        raise ValueError(expected(f"radius[{name!r}]", value, "distances of at least 0, or inf"))
    return radii
