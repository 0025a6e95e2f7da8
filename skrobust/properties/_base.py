"""What all properties share: a ball, a reference label, and readings of a conclusion."""

from abc import ABC, abstractmethod
from copy import copy
from dataclasses import replace

import numpy as np
import torch
from sklearn.base import BaseEstimator, clone

from skrobust._validation import (
    BY_LABEL,
    check_choice,
    check_epsilon,
    check_finite_rows,
    check_instance,
    check_labels_given,
    check_within_bounds,
    epsilon_sides,
    expected,
)
from skrobust.balls import Ball
from skrobust.properties._conclusion import Conclusion
from skrobust.properties._domain import Domain, box_of
from skrobust.properties._local_sets import LocalSet

__all__ = ["RobustnessProperty", "check_property"]

BALL_PARAMETERS = ("epsilon", "norm", "bounds")
_TRIED_CLASSES = (10, 2)  # where the true number is not known yet


class RobustnessProperty(BaseEstimator, ABC):
    """Base class: a ball, and a conclusion about the outputs in it.

    Subclasses define `conclusion`; that is all that scorers, regimes and verifiers need. The
    constructor stores; `check` validates.

    Parameters
    ----------
    epsilon : float or array-like of shape (n_features,), or tuple of two such, default=0.1
        Radius in units of the input; 0 marks a feature that cannot change. A tuple (down, up) says
        how far features may fall, and how far they may rise: ``(0.0, 0.1)`` is one-sided.
    norm : {"linf", "l2"}, default="linf"
        Norm of the ball. With a tuple, the "l2" ball is the one of the larger side, cut to the box
        of both.
    bounds : pair of floats or of array-likes, Domain or None, default=(0.0, 1.0)
        Lowest and highest valid value of the features; a `Domain` where fewer points are valid.
    reference : {"label", "prediction"}, default="label"
        Whether the property refers to the true label, or to the network's own one.
    """

    ball_parameters = BALL_PARAMETERS  # what says which points are meant
    _anchor = None  # see `around`

    def __init__(self, epsilon=0.1, *, norm="linf", bounds=(0.0, 1.0), reference="label"):
        self.epsilon = epsilon
        self.norm = norm
        self.bounds = bounds
        self.reference = reference

    @abstractmethod
    def conclusion(self, reference_logits, labels):
        """Return the `Conclusion` around n reference points.

        Parameters
        ----------
        reference_logits : Tensor of shape (n, n_classes)
            Outputs at the reference points.
        labels : Tensor of shape (n,)
            Class indices that the property refers to (see `reference_labels`).
        """

    @property
    def needs_labels(self):
        """Whether true labels must be given."""
        return self.reference == "label"

    @property
    def needed_outputs(self):
        """What must be known of a classifier: of "labels", "probabilities" and "logits".

        It is what the `trial` conclusion reads. Where there is none, both probabilities and
        logits are asked for; a subclass that needs less defines `needed_outputs`.
        """
        conclusion = self.trial()
        return Conclusion.needed_outputs if conclusion is None else conclusion.needed_outputs

    def trial(self, n_classes=None):
        """Return the conclusion around one point whose outputs are all 0, and its label 0.

        It tells what kind of rows there are, before there is any point.

        Parameters
        ----------
        n_classes : int, default=None
            If it is not known, 10 and 2 are tried.

        Returns
        -------
        Conclusion or None
            None where `n_classes` is None and the rows fit none of the numbers tried.
        """
        if n_classes is None:
            return next(filter(None, map(self._try_classes, _TRIED_CLASSES)), None)
        logits = torch.zeros(1, n_classes, dtype=torch.float64)
        labels = torch.zeros(1, dtype=torch.long)
        return self.conclusion(logits, self.reference_labels(logits, labels))

    def _try_classes(self, n_classes):
        try:
            return self.trial(n_classes)
        except Exception:  # whatever users' code raises for a number of classes it is not for
            return None

    def check(self, X=None, n_classes=None):
        """Validate the parameters, and the rows of `X` against `bounds`; return self.

        Parameters
        ----------
        X : ndarray of shape (n_samples, n_features), default=None
            Reference points. Rounding may take them out of `bounds` by up to a millionth of
            the width of the domain; see `~skrobust.balls.Ball` for what the ball is then.
        n_classes : int, default=None
            Number of outputs, if known: then rows of one's own are tried on as many.

        Raises
        ------
        ValueError
            If a parameter is not valid, if rows of `X` lie outside `bounds` or are not finite,
            or if the property is about another number of classes.
        """
        n_features = None if X is None else X.shape[1]
        check_epsilon(self.epsilon, n_features)
        check_choice("norm", self.norm, ("linf", "l2"))
        check_choice("reference", self.reference, ("label", "prediction"))
        bounds = box_of(self.bounds, n_features)
        self._check_domain()
        if X is not None:
            check_finite_rows(X)
            check_within_bounds(X, bounds)
            if isinstance(self.bounds, Domain):
                self.bounds.check_rows(X)
        if n_classes is not None:
            self.trial(n_classes)
        return self

    def ball(self, x):
        """Return the `~skrobust.balls.Ball` around each row of the tensor `x`."""
        n_features = x.shape[1]
        ball = Ball.around(x, self.sides(n_features), self.norm, self.box(n_features))
        local_set = self.local_set(n_features)
        return ball if local_set is None else replace(ball, local_set=local_set)

    def outer_ball(self, x):
        """Return the float64 ball around each row of `x`, rounded outwards; see `Ball.outside`."""
        return Ball.outside(x, self.sides(x.shape[1]), self.norm, self.box(x.shape[1]))

    def box(self, n_features=None):
        """Return the lowest and highest valid values, a pair of floats or arrays, or None."""
        return box_of(self.bounds, n_features)

    def sides(self, n_features):
        """Return how far features may fall and rise within the bounds, as a pair.

        Parameters
        ----------
        n_features : int

        Returns
        -------
        down, up : float, or ndarray of shape (n_features,)
        """
        sides = self._sides(n_features)
        if self._anchor is None:
            return sides
        sides = [np.broadcast_to(side, n_features).copy() for side in sides]
        for side in sides:
            side[self.bounds.discrete] = 0.0
        return tuple(sides)

    def _sides(self, n_features):
        """Return what `sides` does, whatever is held; for subclasses with other balls."""
        return epsilon_sides(check_epsilon(self.epsilon, n_features))

    def local_set(self, n_features):
        """Return the `LocalSet` of points that are valid and within reach.

        None where the box says it all, or single values are held; see `around`.
        """
        if not isinstance(self.bounds, Domain) or self.bounds.is_box or self._anchor is not None:
            return None
        return LocalSet(
            self.bounds, *(np.broadcast_to(s, n_features) for s in self.sides(n_features))
        )

    def around(self, anchor):
        """Return the property around one reference, of points whose single values are held.

        What is asked of it are points that differ from the reference in integers and one-hot
        groups alone. Its ball around each is the box of the other features, and its conclusion
        is that around the reference itself.

        Parameters
        ----------
        anchor : Tensor of shape (n_features,)
        """
        other = copy(self)
        other._anchor = anchor.detach()
        return other

    def references(self, x):
        """Return the points whose outputs the conclusion refers to: `x`, but after `around`."""
        return x if self._anchor is None else self._anchor.to(x).expand_as(x)

    def _check_domain(self):
        if not isinstance(self.bounds, Domain) or self.bounds.is_box:
            return
        conclusion = self.trial()
        if self.norm != "linf" or (conclusion is not None and conclusion.uses_distance):
            raise ValueError(
                f"Got bounds={self.bounds!r} in {type(self).__name__} with norm={self.norm!r}, "
                "but expected norm='linf' and rows without a distance: single values and "
                "constraints are not treated otherwise. Use bounds=(domain.lower, domain.upper) "
                "for the box."
            )

    def reference_labels(self, reference_logits, labels=None):
        """Return the class index that each reference point should have, of shape (n,)."""
        if self.needs_labels:
            check_labels_given(labels, BY_LABEL.format("property"))
            return labels
        return reference_logits.argmax(dim=1)

    def margin(self, logits, *, reference_logits=None, distance=None, labels=None):
        """Return the smallest row at each point, of shape (n,): above 0 is robust.

        Parameters
        ----------
        logits, reference_logits : array-like of shape (n, n_classes)
            Outputs at the points, and at their reference points (default: the same).
        distance : array-like of shape (n,), default=None
            Distance of each point from its reference; zeros if None.
        labels : array-like of shape (n,), default=None
            Class indices.

        Examples
        --------
        >>> from skrobust.properties import ClassificationRobustness
        >>> ClassificationRobustness().margin([[2.0, 0.5, 1.0]], labels=[0])
        array([1.])
        """
        conclusion, logits, distance = self._at(logits, reference_logits, distance, labels)
        return conclusion.margin(logits, distance).numpy()

    def holds(self, logits, *, reference_logits=None, distance=None, labels=None):
        """Return whether the conclusion is true at each point; see `margin`."""
        conclusion, logits, distance = self._at(logits, reference_logits, distance, labels)
        return conclusion.holds(logits, distance).numpy()

    def loss(self, logits, *, reference_logits=None, distance=None, labels=None, logic=None):
        """Return the loss of each point by a logic (default: DL2), of shape (n,); see `margin`."""
        conclusion, logits, distance = self._at(logits, reference_logits, distance, labels)
        return conclusion.loss(logits, distance, logic).numpy()

    def _at(self, logits, reference_logits, distance, labels):
        self.check()
        logits = _outputs("logits", logits)
        if reference_logits is None:
            reference_logits = logits
        reference_logits = _outputs("reference_logits", reference_logits, tuple(logits.shape))
        if distance is None:
            distance = torch.zeros(len(logits), dtype=torch.float64)
        else:
            distance = _numbers("distance", distance, (len(logits),))
        if labels is not None:
            labels = _class_indices(labels, *logits.shape)
        labels = self.reference_labels(reference_logits, labels)
        return self.conclusion(reference_logits, labels), logits, distance

    def with_epsilon(self, epsilon):
        """Return a copy with another `epsilon`."""
        return clone(self).set_params(epsilon=epsilon)

    def shrunk(self, share):
        """Return a copy with `epsilon` times a share; see `with_epsilon`."""
        if isinstance(self.epsilon, tuple):
            return self.with_epsilon(tuple(np.asarray(side) * share for side in self.epsilon))
        return self.with_epsilon(np.asarray(self.epsilon) * share)

    def __and__(self, other):
        from skrobust.properties._conjunction import Conjunction  # which is itself a property

        # Copies, so that what is set on one of them later is not set on the conjunction.
        return Conjunction(clone(self), clone(other, safe=False))

    def __or__(self, other):
        from skrobust.properties._disjunction import Disjunction

        return Disjunction(clone(self), clone(other, safe=False))

    def __eq__(self, other):
        if type(self) is not type(other):
            return NotImplemented
        mine, theirs = self.get_params(deep=False), other.get_params(deep=False)
        if isinstance(mine.get("epsilon"), tuple) != isinstance(theirs.get("epsilon"), tuple):
            return False  # a pair (down, up), and one radius for each of two features
        return mine.keys() == theirs.keys() and all(same_value(mine[k], theirs[k]) for k in mine)

    # Mutable, as every scikit-learn object with set_params: no hash.
    __hash__ = None


def check_property(property, X=None):
    """Return a property whose parameters are valid, and suit the data.

    Parameters
    ----------
    property : RobustnessProperty
    X : ndarray of shape (n_samples, n_features), default=None
        Reference points, where there are any yet.

    Returns
    -------
    RobustnessProperty
        The given one.

    Raises
    ------
    TypeError
        If `property` is none.
    ValueError
        As by `RobustnessProperty.check`.

    Examples
    --------
    >>> from skrobust.properties import ClassificationRobustness, check_property
    >>> check_property(ClassificationRobustness(0.2))
    ClassificationRobustness(epsilon=0.2)
    """
    example = "ClassificationRobustness(epsilon=0.1)"
    return check_instance("property", property, RobustnessProperty, example).check(X)


def same_value(first, second):
    """Return whether two values of a parameter are equal; arrays and lists are alike."""
    if isinstance(first, RobustnessProperty) or isinstance(second, RobustnessProperty):
        return first == second
    if isinstance(first, tuple | list) and isinstance(second, tuple | list):
        return len(first) == len(second) and all(map(same_value, first, second))
    try:
        return bool(np.array_equal(first, second))
    except (TypeError, ValueError):
        return first is second


def _numbers(name, values, shape):
    """Return an array-like of real numbers as a float64 tensor of a shape, or raise."""
    expectation = f"real numbers of shape {shape}" + ", as logits" * (name != "logits")
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu()  # with a gradient, NumPy takes none
    try:
        array = np.asarray(values)
        array = array if np.iscomplexobj(array) else array.astype(np.float64)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(expected(name, values, expectation)) from None
    fits = len(shape) == array.ndim and all(map(_is_length, array.shape, shape))
    if np.iscomplexobj(array) or not fits:
        kind = f"shape {array.shape} and dtype {array.dtype}"
        raise ValueError(f"Got {name} of {kind}, but expected {expectation}.")
    return torch.as_tensor(array)


def _is_length(length, expectation):
    return expectation is None or length == expectation


def _outputs(name, values, shape=(None, None)):
    outputs = _numbers(name, values, shape)
    if 0 in outputs.shape:
        shape = tuple(outputs.shape)
        raise ValueError(f"Got {name} of shape {shape}, but expected a row and a class at least.")
    return outputs


def _class_indices(labels, n, n_classes):
    """Return an array-like of class indices as a tensor, or raise."""
    indices = _numbers("labels", labels, (n,))
    if not ((indices >= 0) & (indices < n_classes) & (indices == indices.floor())).all():
        expectation = f"class indices from 0 to {n_classes - 1}, the columns of logits"
        raise ValueError(expected("labels", labels, expectation))
    return indices.long()
