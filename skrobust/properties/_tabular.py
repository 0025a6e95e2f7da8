"""Properties of tabular classifiers: individual fairness, and monotonicity in a feature."""

import numpy as np
import torch

from skrobust._validation import check_choice, check_integer, check_real, expected
from skrobust.properties._base import RobustnessProperty
from skrobust.properties._classification import ClassificationRobustness
from skrobust.properties._conclusion import LinearRows, outputs_of
from skrobust.properties._domain import Domain

__all__ = ["IndividualFairness", "Monotonicity"]


def _places_of(name, features, bounds, n_features=None):
    """Return the places of features, by the names that a domain knows, within the rows of X."""
    domain = bounds if isinstance(bounds, Domain) else Domain(0.0, 1.0)
    places = domain.places(name, features)
    if not places or (n_features is not None and max(places) >= n_features):
        limit = "" if n_features is None else f" from 0 to {n_features - 1}"
        raise ValueError(expected(name, features, f"places of features{limit}, one at least"))
    return places


def _widths(name, box, places, n_features):
    """Return what is more than the way from any valid value to any other, of features."""
    if box is None:
        raise ValueError(
            f"Got bounds=None, but expected bounds: {name} features take any value in them."
        )
    low, high = (np.broadcast_to(side, n_features)[places] for side in box)
    width = 2 * (high - low)
    if not np.isfinite(width).all():
        place = places[int((~np.isfinite(width)).argmax())]
        raise ValueError(
            f"Got infinite bounds of feature {place}, but expected finite ones: {name} features "
            "take any value in them."
        )
    return width


class IndividualFairness(ClassificationRobustness):
    r"""No other values of the protected features change the label.

    Around each point, protected features take any value in `bounds`, and all others may move by
    `epsilon`: individuals that are alike but for what is protected are to be treated alike. Rows
    and trees as for `ClassificationRobustness`.

    Parameters
    ----------
    protected : list of int or str
        Features, by place; or by name where `bounds` are a `Domain` that has names. Of a one-hot
        group, all.
    epsilon : float or array-like of shape (n_features,), or tuple of two such, default=0.0
        Radius of all other features, in the L-infinity norm. Entries of protected features do not
        count.
    bounds : pair of floats or of array-likes, or Domain, default=(0.0, 1.0)
        Lowest and highest valid value of the features; finite for the protected ones.
    reference : {"prediction", "label"}, default="prediction"
        Whether the label is the network's own one at the point, or the true one.

    References
    ----------
    Dwork et al., "Fairness through awareness", ITCS 2012 (similar individuals are treated
    similarly, definition 2.1); here for labels, and for similarity by the other features.

    Examples
    --------
    A linear classifier that takes no notice of the second feature, and one that does:

    >>> from sklearn.linear_model import LogisticRegression
    >>> from skrobust.properties import IndividualFairness
    >>> from skrobust.verification import Exact
    >>> X, y = [[0.1, 0.0], [0.2, 1.0], [0.8, 0.0], [0.9, 1.0]], [0, 0, 1, 1]
    >>> model = LogisticRegression(C=1e3).fit(X, y)
    >>> property = IndividualFairness([1], epsilon=0.01)
    >>> Exact().verify(model, X, property=property).verdicts.tolist()
    ['verified', 'verified', 'verified', 'verified']
    >>> model.coef_[0, 1] = 20.0
    >>> Exact().verify(model, X[:2], property=property).verdicts.tolist()
    ['falsified', 'falsified']
    """

    norm = "linf"
    ball_parameters = (*RobustnessProperty.ball_parameters, "protected")

    def __init__(self, protected, epsilon=0.0, *, bounds=(0.0, 1.0), reference="prediction"):
        self.protected = protected
        self.epsilon = epsilon
        self.bounds = bounds
        self.reference = reference

    def check(self, X=None, n_classes=None):
        super().check(X, n_classes)
        n_features = None if X is None else X.shape[1]
        places = _places_of("protected", self.protected, self.bounds, n_features)
        groups = self.bounds.groups if isinstance(self.bounds, Domain) else []
        for group in groups:
            if 0 < len(set(group) & set(places)) < len(group):
                expectation = f"all of the one-hot group {group}, or none of it"
                raise ValueError(expected("protected", self.protected, expectation))
        if n_features is not None:
            _widths("protected", self.box(n_features), places, n_features)
        return self

    def _sides(self, n_features):
        places = _places_of("protected", self.protected, self.bounds, n_features)
        width = _widths("protected", self.box(n_features), places, n_features)
        sides = [np.broadcast_to(s, n_features).copy() for s in super()._sides(n_features)]
        for side in sides:
            side[places] = width
        return tuple(sides)


class Monotonicity(RobustnessProperty):
    r"""An output does not fall when a feature rises.

    Around each point the feature takes any higher value in `bounds`, and all others stay, or
    move by `epsilon`. The row compares the output there with that at the point itself:
    :math:`s (f(x') - f(x)) + t \ge 0` with the `direction` s and the `tolerance` t, where f is
    what `output` says of the class. It is not 0 at the point itself, since no bound in floating
    point proves what holds by nothing.

    Parameters
    ----------
    feature : int or str
        By place; or by name where `bounds` are a `Domain` that has names.
    direction : {1, -1}, default=1
        1: the output does not fall when the feature rises; -1: it does not rise.
    epsilon : float or array-like of shape (n_features,), or tuple of two such, default=0.0
        Radius of all other features, in the L-infinity norm.
    class_index : int or None, default=None
        Place of the class among the estimator's `classes_`; None is the second of two.
    tolerance : float, default=1e-4
        By how much the output may fall all the same, in units of the output; above 0.
    bounds : pair of floats or of array-likes, or Domain, default=(0.0, 1.0)
        Lowest and highest valid value of the features; finite for the feature.
    output : {"logits", "probabilities"}, default="logits"
        Which output: of two classes, "logits" are the log odds, which rise where the probability
        does; of more, the logit of the class itself. Trees have "probabilities" alone.

    References
    ----------
    Liu et al., "Certified monotonic neural networks", NeurIPS 2020.

    Examples
    --------
    >>> from sklearn.linear_model import LogisticRegression
    >>> from skrobust.properties import Monotonicity
    >>> from skrobust.verification import Exact
    >>> X, y = [[0.1, 0.9], [0.2, 0.4], [0.8, 0.5], [0.9, 0.1]], [0, 0, 1, 1]
    >>> model = LogisticRegression(C=1e3).fit(X, y)
    >>> model.coef_.round(1).tolist()
    [[13.4, -0.8]]
    >>> Exact().verify(model, X, property=Monotonicity(0)).verdicts.tolist()
    ['verified', 'verified', 'verified', 'verified']
    >>> Exact().verify(model, X, property=Monotonicity(1)).verdicts.tolist()
    ['falsified', 'falsified', 'falsified', 'falsified']
    """

    norm, reference = "linf", "prediction"
    needs_labels = False
    ball_parameters = (*RobustnessProperty.ball_parameters, "feature")

    def __init__(
        self,
        feature,
        direction=1,
        *,
        epsilon=0.0,
        class_index=None,
        tolerance=1e-4,
        bounds=(0.0, 1.0),
        output="logits",
    ):
        self.feature = feature
        self.direction = direction
        self.epsilon = epsilon
        self.class_index = class_index
        self.tolerance = tolerance
        self.bounds = bounds
        self.output = output

    def check(self, X=None, n_classes=None):
        if self.direction not in (1, -1) or isinstance(self.direction, bool):
            raise ValueError(expected("direction", self.direction, "1 or -1"))
        if self.class_index is not None:
            check_integer("class_index", self.class_index)
        check_real("tolerance", self.tolerance, low=0, closed="neither")
        check_choice("output", self.output, ("logits", "probabilities"))
        n_features = None if X is None else X.shape[1]
        place = self.place(n_features)
        groups = self.bounds.groups if isinstance(self.bounds, Domain) else []
        if any(place in group for group in groups):
            expectation = "one that is in no one-hot group, where nothing rises alone"
            raise ValueError(expected("feature", self.feature, expectation))
        super().check(X, n_classes)
        if n_features is not None:
            _widths("monotone", self.box(n_features), [place], n_features)
        return self

    @property
    def needed_outputs(self):
        return frozenset({self.output})

    def place(self, n_features=None):
        """Return the place of the feature."""
        return _places_of("feature", [self.feature], self.bounds, n_features)[0]

    def _sides(self, n_features):
        place = self.place(n_features)
        down, up = (np.broadcast_to(s, n_features).copy() for s in super()._sides(n_features))
        down[place] = 0.0
        up[place] = _widths("monotone", self.box(n_features), [place], n_features)[0]
        return down, up

    def trial(self, n_classes=None):
        if n_classes is None and self.class_index is not None:
            n_classes = max(3, self.class_index + 1)
        return super().trial(2 if n_classes is None else n_classes)

    def conclusion(self, reference_logits, labels):
        n, n_classes = reference_logits.shape
        weights = self._weights(n_classes, reference_logits)
        reference = outputs_of(reference_logits, self.output) @ weights
        A = (self.direction * weights).expand(n, 1, n_classes)
        b = (float(self.tolerance) - self.direction * reference).unsqueeze(1)
        return LinearRows(A, torch.zeros_like(b), b, False, self.output, uses_distance=False)

    def _weights(self, n_classes, like):
        chosen = self.class_index
        if (chosen is None and n_classes != 2) or (chosen is not None and chosen >= n_classes):
            limit = f"an integer from 0 to {n_classes - 1}, for {n_classes} classes"
            raise ValueError(expected("class_index", chosen, limit))
        chosen = 1 if chosen is None else int(chosen)
        weights = torch.zeros(n_classes, dtype=like.dtype, device=like.device)
        if n_classes == 2 and self.output == "logits":
            weights[1 - chosen] = -1.0
        weights[chosen] = 1.0
        return weights
