"""Pictures: robustness curves, the trade-off of a search, corruptions, adversarial examples.

A display stores arrays. `plot` draws them, sets `ax_` (or `axes_`) and `figure_`, and returns
the display. The pictures need matplotlib (extra "plots").
"""

import numpy as np
from scipy.stats import spearmanr
from sklearn.base import clone
from sklearn.utils.validation import check_is_fitted

from skrobust._validation import check_choice, check_instance, check_integer, expected
from skrobust.networks import as_model
from skrobust.scorers import CorruptionRobustness, CorruptionRobustnessResult, RobustnessScorer
from skrobust.statistics import clopper_pearson

__all__ = [
    "AdversarialExamplesDisplay",
    "CorruptionDisplay",
    "RobustnessCurveDisplay",
    "TradeOffDisplay",
]


def _pyplot():
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise ImportError(
            "The displays need matplotlib. Install it by: pip install 'skrobust[plots]'."
        ) from error
    return plt


def _axes(ax):
    return _pyplot().subplots(layout="constrained")[1] if ax is None else ax


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


def _named(estimators):
    """Return a dict of names to estimators; equal class names are numbered."""
    if isinstance(estimators, dict):
        return estimators
    if not isinstance(estimators, list | tuple):
        estimators = [estimators]
    names = [type(estimator).__name__ for estimator in estimators]
    if len(set(names)) < len(names):
        names = [f"{name} {i}" for i, name in enumerate(names)]
    return dict(zip(names, estimators, strict=True))


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


def _short(value):
    """Name a parameter's value: the class for objects without parameters of their own."""
    text = " ".join(str(value).split())
    return text.removesuffix("()")


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
        self.results = results
        self.shown = shown

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
        results = {name: scorer.evaluate(model, X, y) for name, model in _named(estimator).items()}
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
        if ax is None:
            size = (4 + 0.25 * n_corruptions * (n_estimators + 1) / 2, 4)
            ax = _pyplot().subplots(figsize=size, layout="constrained")[1]
        self.ax_, self.figure_ = ax, ax.figure
        self.bars_ = []
        width = 0.8 / n_estimators
        for j, (name, heights) in enumerate(self.values_.items()):
            places = np.arange(n_corruptions) + (j - (n_estimators - 1) / 2) * width
            style = {"label": name, "width": width, "color": f"C{j}", "capsize": 2} | kwargs
            if self.results[name].counted == self.shown:  # what the intervals are of
                frame = frames[name].loc[self.values_.index]
                style["yerr"] = np.array([heights - frame["low"], frame["high"] - heights])
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
            self.ax_.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0))
        return self

    def _values(self):
        """Return the heights, sorted, and the results as frames."""
        import pandas as pd

        check_choice("shown", self.shown, ("accuracy", "agreement", "score"))
        frames = {}
        for name, result in self.results.items():
            example = "CorruptionRobustness().evaluate(...)"
            check_instance("result", result, CorruptionRobustnessResult, example)
            frames[name] = result.to_frame()
        values = pd.DataFrame({name: frame[self.shown] for name, frame in frames.items()})
        if values.isna().to_numpy().any():
            expectation = (
                "results of the same corruptions that have it: accuracies need y, scores a scorer"
            )
            raise ValueError(expected("shown", self.shown, expectation))
        return values.loc[values.mean(axis=1).sort_values(ascending=False).index], frames


class AdversarialExamplesDisplay:
    """Original, perturbed and difference images, one column an example.

    Parameters
    ----------
    originals, perturbed : ndarray of shape (n_examples, n_features)
    labels_before, labels_after : array-like of shape (n_examples,)
        What the estimator says of each.
    image_shape : tuple of int
        (height, width), (channels, height, width) with 1 or 3 channels, or
        (height, width, 3).

    Attributes
    ----------
    axes_ : ndarray of matplotlib Axes, shape (3, n_examples)
    figure_ : matplotlib Figure
    """

    def __init__(self, originals, perturbed, labels_before, labels_after, *, image_shape):
        self.originals = originals
        self.perturbed = perturbed
        self.labels_before = labels_before
        self.labels_after = labels_after
        self.image_shape = image_shape

    @classmethod
    def from_estimator(
        cls, estimator, X, y=None, *, scorer, image_shape=None, n_examples=8, figure=None
    ):
        """Find counterexamples by a scorer, and draw the first ones.

        Parameters
        ----------
        estimator : object
            Fitted classifier.
        X : array-like of shape (n_samples, n_features)
        y : array-like of shape (n_samples,), default=None
        scorer : RobustnessScorer
            One whose result has `counterexamples`, such as ConstraintSecurity.
        image_shape : tuple of int, default=None
            A square, if None.
        n_examples : int, default=8
            At most so many. Samples that are misclassified as they are come last.
        figure : matplotlib Figure, default=None

        Returns
        -------
        AdversarialExamplesDisplay
        """
        check_instance("scorer", scorer, RobustnessScorer, "ConstraintSecurity(...)")
        X = np.asarray(X)
        rows = X.reshape(len(X), -1)
        found = scorer.evaluate(estimator, X, y).counterexamples
        predictor = as_model(estimator, {"labels"}, needs_gradient=False, input_shape=X.shape[1:])
        index = np.flatnonzero(~np.isnan(found).any(axis=1))
        moved = np.abs(found[index] - rows[index]).max(axis=1, initial=0) > 0
        index = index[np.argsort(~moved, kind="stable")]
        return cls.from_predictions(
            rows[index],
            found[index],
            _labels(predictor, rows[index]),
            _labels(predictor, found[index]),
            image_shape=image_shape,
            n_examples=n_examples,
            figure=figure,
        )

    @classmethod
    def from_predictions(
        cls,
        originals,
        perturbed,
        labels_before,
        labels_after,
        *,
        image_shape=None,
        n_examples=8,
        figure=None,
    ):
        """Draw the first `n_examples` of given pairs; see the class for the parameters."""
        check_integer("n_examples", n_examples, low=1)
        n_features = originals.shape[1]
        side = int(np.sqrt(n_features))
        shape = (side, side) if image_shape is None else tuple(image_shape)
        if np.prod(shape) != n_features:
            expectation = f"a shape of {n_features} entries, the number of features"
            raise ValueError(expected("image_shape", image_shape, expectation))
        parts = (originals, perturbed, labels_before, labels_after)
        parts = (part[:n_examples] for part in parts)
        return cls(*parts, image_shape=shape).plot(figure=figure)

    def plot(self, *, figure=None):
        """Draw the images; return self."""
        n = len(self.originals)
        if figure is None:
            size = (max(1.3 * n, 3), 4.2)
            figure = _pyplot().figure(figsize=size, layout="constrained")
        self.figure_ = figure
        if n == 0:
            figure.suptitle("No counterexample was found.")
            self.axes_ = np.empty((3, 0), dtype=object)
            return self
        self.axes_ = figure.subplots(3, n, squeeze=False)
        difference = self.perturbed - self.originals
        reach = np.abs(difference).max() or 1.0
        low = min(self.originals.min(), self.perturbed.min())
        high = max(self.originals.max(), self.perturbed.max())
        for j, column in enumerate(self.axes_.T):
            for ax, row in zip(column, (self.originals, self.perturbed), strict=False):
                ax.imshow(self._image(row[j], low, high), cmap="gray", vmin=low, vmax=high)
            change = self._image(difference[j], -reach, reach)
            column[2].imshow(change, cmap="RdBu", vmin=-reach, vmax=reach)
            column[0].set_title(str(self.labels_before[j]))
            column[1].set_title(str(self.labels_after[j]), color="tab:red")
        for ax in self.axes_.flat:
            ax.set(xticks=[], yticks=[])
        names = ("original", "perturbed", f"difference\n(at most {reach:.3g})")
        for ax, name in zip(self.axes_[:, 0], names, strict=True):
            ax.set_ylabel(name)
        return self

    def _image(self, row, low, high):
        """Return what `imshow` takes: (height, width), or RGB in [0, 1]."""
        image = np.reshape(row, self.image_shape)
        if image.ndim == 2:
            return image
        if image.shape[0] in (1, 3):
            image = np.moveaxis(image, 0, -1)
        return image[..., 0] if image.shape[-1] == 1 else (image - low) / (high - low)


def _labels(predictor, rows):
    if len(rows) == 0:
        return np.array([])
    index = predictor.replay(predictor.rows(rows)).argmax(dim=1)
    return predictor.classes[index.cpu().numpy()]
