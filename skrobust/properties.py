r"""Robustness properties: what must hold for every input in a ball around a reference input.

A property is a value object: parameters, nothing else. Around given reference points it
yields a `~skrobust._ball.Ball` (where it speaks) and a `Conclusion` (what it says), and
from the rows of that conclusion follow the margin, the indicator, the loss, the objective
of an attack, and the rows that a verifier negates.

The rows of a linear property are

.. math:: A \, z(x) + c \, d(x, \hat x) + b \ge 0,

where z(x) are the outputs at x and d is the input distance.

References
----------
.. [1] Casadio et al., "Neural network robustness as a verification property: a principled
   case study", CAV 2022, Definitions 1-4.
.. [2] Bastani et al., "Measuring neural net robustness with constraints", NeurIPS 2016.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
import torch
from sklearn.base import BaseEstimator, clone

from skrobust._ball import Ball
from skrobust._validation import (
    check_bounds,
    check_choice,
    check_epsilon,
    check_instance,
    check_real,
    check_within_bounds,
    expected,
)
from skrobust.exceptions import UnsupportedPropertyError
from skrobust.logics import DL2, Atom

__all__ = [
    "ClassificationRobustness",
    "Conclusion",
    "Conjunction",
    "LinearRobustness",
    "LinearRows",
    "LipschitzRobustness",
    "RobustnessProperty",
    "StandardRobustness",
    "StrongClassificationRobustness",
]

_BALL_PARAMETERS = ("epsilon", "norm", "bounds")


# ---- conclusions: rows around given reference points -------------------------------------


class Conclusion(ABC):
    """What a property says about the outputs at points near n reference points.

    Attributes
    ----------
    strict : bool, or bool Tensor of shape (m,)
        Whether rows must be above 0, rather than at least 0.
    uses_distance : bool
        Whether any row depends on the distance of the point from its reference.
    """

    @abstractmethod
    def values(self, logits, distance=None):
        """Return the value of every row, of shape (n, m), at one point for each reference.

        Parameters
        ----------
        logits : Tensor of shape (n, n_classes)
            Or (n, r, n_classes) for r points near each reference; then all results of this
            class have a second axis of length r as well.
        distance : Tensor of shape (n,), default=None
            Needed where `uses_distance`.
        """

    @abstractmethod
    def __getitem__(self, index):
        """Return the conclusion about a selection of the reference points."""

    def margin(self, logits, distance=None):
        """Return the smallest row of each point, of shape (n,)."""
        return self.values(logits, distance).min(dim=-1).values

    def holds(self, logits, distance=None):
        """Return whether the conclusion is true at each point, of shape (n,). NaN is not."""
        return self.formula(logits, distance).holds()

    def formula(self, logits, distance=None):
        """Return the claim that all rows hold, to be read by a `~skrobust.logics.Logic`."""
        return Atom(self.values(logits, distance), self.strict)

    def loss(self, logits, distance=None, logic=None):
        """Return the loss of each point by `logic` (default: DL2), of shape (n,)."""
        return (DL2() if logic is None else logic).loss(self.formula(logits, distance))

    def linear_rows(self):
        """Return the rows as `LinearRows`, for methods that need them linear."""
        raise UnsupportedPropertyError(f"{type(self).__name__} has no linear rows.")


@dataclass(frozen=True, eq=False)
class LinearRows(Conclusion):
    """Rows A z + c d + b, where z are the logits or the probabilities.

    Parameters
    ----------
    A : Tensor of shape (n, m, n_classes)
    c, b : Tensor of shape (n, m)
    strict : bool, or bool Tensor of shape (m,)
    output : {"logits", "probabilities"}
    uses_distance : bool
    """

    A: torch.Tensor
    c: torch.Tensor
    b: torch.Tensor
    strict: bool | torch.Tensor
    output: str = "logits"
    uses_distance: bool = True

    def values(self, logits, distance=None):
        outputs = _outputs(logits, self.output)
        if logits.ndim == 3:
            values = outputs @ self.A.transpose(1, 2)
            b, c = self.b.unsqueeze(1), self.c.unsqueeze(1)
        else:
            values = (self.A * outputs.unsqueeze(1)).sum(dim=2)
            b, c = self.b, self.c
        return values + b + c * distance.unsqueeze(-1) if self.uses_distance else values + b

    def __getitem__(self, index):
        rows = (self.A[index], self.c[index], self.b[index])
        return LinearRows(*rows, self.strict, self.output, self.uses_distance)

    def linear_rows(self):
        return self


@dataclass(frozen=True, eq=False)
class _ConfidenceRow(Conclusion):
    """The one row log softmax(z)_label - log(eta), which is concave in z."""

    labels: torch.Tensor
    eta: float

    uses_distance = False
    strict = False

    def values(self, logits, distance=None):
        log_probabilities = torch.log_softmax(logits, dim=-1)
        labels = self.labels.view(-1, *[1] * (logits.ndim - 1)).expand(*logits.shape[:-1], 1)
        return log_probabilities.gather(-1, labels) - math.log(self.eta)

    def __getitem__(self, index):
        return _ConfidenceRow(self.labels[index], self.eta)

    def linear_rows(self):
        raise UnsupportedPropertyError(
            "The row of StrongClassificationRobustness is concave, not linear. Use its methods "
            "sufficient() and necessary(), which are linear and enclose it."
        )


@dataclass(frozen=True, eq=False)
class _Both(Conclusion):
    """The rows of two conclusions."""

    left: Conclusion
    right: Conclusion
    strict: bool | torch.Tensor

    @classmethod
    def of(cls, left, right, reference_logits):
        """Join two conclusions about the same reference points."""
        if left.strict is right.strict:
            return cls(left, right, left.strict)
        distance = reference_logits.new_zeros(1)
        parts = [
            torch.as_tensor(part.strict, device=reference_logits.device).expand(
                part[:1].values(reference_logits[:1], distance).shape[1]
            )
            for part in (left, right)
        ]
        return cls(left, right, torch.cat(parts))

    @property
    def uses_distance(self):
        return self.left.uses_distance or self.right.uses_distance

    def values(self, logits, distance=None):
        parts = [part.values(logits, distance) for part in (self.left, self.right)]
        return torch.cat(parts, dim=-1)

    def __getitem__(self, index):
        return _Both(self.left[index], self.right[index], self.strict)

    def linear_rows(self):
        left, right = self.left.linear_rows(), self.right.linear_rows()
        if left.output != right.output:
            raise UnsupportedPropertyError(
                "The two parts of the conjunction speak about different outputs "
                f"({left.output} and {right.output}), so they have no rows in common."
            )
        pairs = ((left.A, right.A), (left.c, right.c), (left.b, right.b))
        joined = (torch.cat(pair, dim=1) for pair in pairs)
        return LinearRows(*joined, self.strict, left.output, self.uses_distance)


def _outputs(logits, output):
    return torch.softmax(logits, dim=-1) if output == "probabilities" else logits


def _difference_rows(labels, n_classes, like):
    """Rows z_label - z_j for every other class j, of shape (n, n_classes - 1, n_classes)."""
    identity = torch.eye(n_classes, dtype=like.dtype, device=like.device)
    table = identity.unsqueeze(1) - identity.unsqueeze(0)  # [label, j] = e_label - e_j
    others = ~torch.eye(n_classes, dtype=torch.bool, device=like.device)
    table = table[others].view(n_classes, n_classes - 1, n_classes)
    return table[labels]


def _two_sided_rows(reference, slope, constant):
    """Rows slope * d + constant -+ (z_j - reference_j) for every class j."""
    n, n_classes = reference.shape
    identity = torch.eye(n_classes, dtype=reference.dtype, device=reference.device)
    A = torch.cat([-identity, identity]).expand(n, -1, -1)
    b = torch.cat([reference, -reference], dim=1) + constant
    return A, torch.full_like(b, slope), b


# ---- properties --------------------------------------------------------------------------


class RobustnessProperty(BaseEstimator, ABC):
    """Base class: a ball, and a conclusion about the outputs in it.

    Subclasses define `conclusion`. The constructor stores; `check` validates.

    Parameters
    ----------
    epsilon : float or array-like of shape (n_features,), default=0.1
        Radius in units of the input; 0 marks a feature that cannot change.
    norm : {"linf", "l2"}, default="linf"
        Norm of the ball.
    bounds : pair of floats or of array-likes, or None, default=(0.0, 1.0)
        Lowest and highest valid value of the features.
    reference : {"label", "prediction"}, default="label"
        Whether the property refers to the true label, or to the network's own one.
    """

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
        """What must be known of a classifier: of "labels", "probabilities" and "logits"."""
        return {self.output}

    def check(self, X=None):
        """Validate the parameters, and the rows of `X` against `bounds`; return self.

        Parameters
        ----------
        X : ndarray of shape (n_samples, n_features), default=None

        Raises
        ------
        ValueError
            If a parameter is not valid, or if rows of `X` lie outside `bounds`.
        """
        n_features = None if X is None else X.shape[1]
        check_epsilon(self.epsilon, n_features)
        check_choice("norm", self.norm, ("linf", "l2"))
        check_choice("reference", self.reference, ("label", "prediction"))
        bounds = check_bounds(self.bounds, n_features)
        if X is not None:
            check_within_bounds(X, bounds)
        return self

    def ball(self, x):
        """Return the `~skrobust._ball.Ball` around each row of the tensor `x`."""
        epsilon, bounds = check_epsilon(self.epsilon), check_bounds(self.bounds)
        return Ball.around(x, epsilon, self.norm, bounds)

    def reference_labels(self, reference_logits, labels=None):
        """Return the class index that each reference point should have, of shape (n,)."""
        if self.needs_labels:
            if labels is None:
                raise ValueError(
                    f"{type(self).__name__}(reference='label') needs the true labels, but got "
                    "y=None. Give y, or set reference='prediction'."
                )
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
        """Return the loss of each point by a logic (default: DL2); see `margin`."""
        conclusion, logits, distance = self._at(logits, reference_logits, distance, labels)
        return conclusion.loss(logits, distance, logic).numpy()

    def _at(self, logits, reference_logits, distance, labels):
        self.check()
        logits = torch.as_tensor(np.asarray(logits, dtype=np.float64))
        if reference_logits is None:
            reference_logits = logits
        reference_logits = torch.as_tensor(np.asarray(reference_logits, dtype=np.float64))
        if distance is None:
            distance = np.zeros(len(logits))
        if labels is not None:
            labels = torch.as_tensor(np.asarray(labels))
        labels = self.reference_labels(reference_logits, labels)
        distance = torch.as_tensor(np.asarray(distance, dtype=np.float64))
        return self.conclusion(reference_logits, labels), logits, distance

    def with_epsilon(self, epsilon):
        """Return a copy with another `epsilon`."""
        return clone(self).set_params(epsilon=epsilon)

    def __and__(self, other):
        return Conjunction(self, other)

    def __eq__(self, other):
        if type(self) is not type(other):
            return NotImplemented
        mine, theirs = self.get_params(deep=False), other.get_params(deep=False)
        return mine.keys() == theirs.keys() and all(_same(mine[k], theirs[k]) for k in mine)

    # Mutable, as every scikit-learn object with set_params: no hash.
    __hash__ = None


def _same(first, second):
    if isinstance(first, RobustnessProperty) or isinstance(second, RobustnessProperty):
        return first == second
    if isinstance(first, tuple | list) and isinstance(second, tuple | list):
        return len(first) == len(second) and all(map(_same, first, second))
    try:
        return bool(np.array_equal(first, second))
    except (TypeError, ValueError):
        return first is second


class ClassificationRobustness(RobustnessProperty):
    r"""CR: no point of the ball has another label.

    Rows :math:`z_y - z_j > 0` for every class j other than y. They are strict: a tie counts
    as a violation, since the label is then not unique.

    Parameters
    ----------
    epsilon : float or array-like of shape (n_features,), default=0.1
        Radius in units of the input; 0 marks a feature that cannot change.
    norm : {"linf", "l2"}, default="linf"
        Norm of the ball. With one radius for each feature, the "l2" ball is the ellipsoid
        norm((x - reference) / epsilon) <= 1.
    bounds : pair of floats or of array-likes, or None, default=(0.0, 1.0)
        Lowest and highest valid value of the features.
    reference : {"label", "prediction"}, default="label"
        Whether y is the true label or the network's own label at the reference point.

    References
    ----------
    Casadio et al., CAV 2022, Definition 1; Bastani et al., NeurIPS 2016, section 2.

    Examples
    --------
    >>> from skrobust.properties import ClassificationRobustness
    >>> ClassificationRobustness(0.05)
    ClassificationRobustness(epsilon=0.05)
    """

    needed_outputs = frozenset({"labels"})

    def conclusion(self, reference_logits, labels):
        A = _difference_rows(labels, reference_logits.shape[1], reference_logits)
        zeros = torch.zeros(A.shape[:2], dtype=A.dtype, device=A.device)
        return LinearRows(A, zeros, zeros, strict=True, uses_distance=False)


class _OutputRobustness(RobustnessProperty):
    """Shared by SR and LR, which compare the outputs with those at the reference point."""

    @property
    def needs_labels(self):
        return False

    def check(self, X=None):
        check_choice("output", self.output, ("logits", "probabilities"))
        return super().check(X)

    def _rows(self, reference_logits, slope, constant):
        reference = _outputs(reference_logits, self.output)
        A, c, b = _two_sided_rows(reference, slope, constant)
        return LinearRows(A, c, b, False, self.output, uses_distance=slope != 0)


class StandardRobustness(_OutputRobustness):
    r"""SR: no output changes by more than delta in the ball.

    Rows :math:`\delta \mp (z_j - \hat z_j) \ge 0` for every class j.

    Parameters
    ----------
    epsilon : float or array-like of shape (n_features,), default=0.1
        Radius in units of the input; 0 marks a feature that cannot change.
    delta : float, default=10.0
        Largest allowed change of an output, in units of the output.
    norm : {"linf", "l2"}, default="linf"
        Norm of the ball.
    bounds : pair of floats or of array-likes, or None, default=(0.0, 1.0)
        Lowest and highest valid value of the features.
    reference : {"label", "prediction"}, default="label"
        Part of every property; it makes no difference here, where labels play no role.
    output : {"logits", "probabilities"}, default="logits"
        Which outputs are compared.

    References
    ----------
    Casadio et al., CAV 2022, Definition 2.
    """

    def __init__(
        self,
        epsilon=0.1,
        delta=10.0,
        *,
        norm="linf",
        bounds=(0.0, 1.0),
        reference="label",
        output="logits",
    ):
        super().__init__(epsilon, norm=norm, bounds=bounds, reference=reference)
        self.delta = delta
        self.output = output

    def check(self, X=None):
        check_real("delta", self.delta, low=0)
        return super().check(X)

    def conclusion(self, reference_logits, labels):
        return self._rows(reference_logits, slope=0.0, constant=self.delta)


class LipschitzRobustness(_OutputRobustness):
    r"""LR: no output changes by more than `lipschitz` times the input distance in the ball.

    Rows :math:`L d \mp (z_j - \hat z_j) \ge 0` for every class j, where d is the distance in
    the norm of the ball. At the reference point itself they hold with equality.

    Parameters
    ----------
    epsilon : float or array-like of shape (n_features,), default=0.1
        Radius in units of the input; 0 marks a feature that cannot change.
    lipschitz : float, default=10.0
        Largest allowed ratio of output change to input distance.
    norm : {"linf", "l2"}, default="linf"
        Norm of the ball and of the distance.
    bounds : pair of floats or of array-likes, or None, default=(0.0, 1.0)
        Lowest and highest valid value of the features.
    reference : {"label", "prediction"}, default="label"
        Part of every property; it makes no difference here, where labels play no role.
    output : {"logits", "probabilities"}, default="logits"
        Which outputs are compared.

    References
    ----------
    Casadio et al., CAV 2022, Definition 3.
    """

    def __init__(
        self,
        epsilon=0.1,
        lipschitz=10.0,
        *,
        norm="linf",
        bounds=(0.0, 1.0),
        reference="label",
        output="logits",
    ):
        super().__init__(epsilon, norm=norm, bounds=bounds, reference=reference)
        self.lipschitz = lipschitz
        self.output = output

    def check(self, X=None):
        check_real("lipschitz", self.lipschitz, low=0, closed="neither")
        return super().check(X)

    def conclusion(self, reference_logits, labels):
        return self._rows(reference_logits, slope=self.lipschitz, constant=0.0)


class StrongClassificationRobustness(RobustnessProperty):
    r"""SCR: the reference label keeps at least the probability eta in the ball.

    The one row :math:`\log \mathrm{softmax}(z)_y - \log \eta \ge 0` is concave in the logits.
    Linear rows enclose it: see `sufficient` and `necessary`.

    Parameters
    ----------
    epsilon : float or array-like of shape (n_features,), default=0.1
        Radius in units of the input; 0 marks a feature that cannot change.
    eta : float, default=0.52
        Least probability of the label, in (0, 1).
    norm : {"linf", "l2"}, default="linf"
        Norm of the ball.
    bounds : pair of floats or of array-likes, or None, default=(0.0, 1.0)
        Lowest and highest valid value of the features.
    reference : {"label", "prediction"}, default="label"
        Whether y is the true label or the network's own label at the reference point.

    References
    ----------
    Casadio et al., CAV 2022, Definition 4.
    """

    def __init__(
        self, epsilon=0.1, eta=0.52, *, norm="linf", bounds=(0.0, 1.0), reference="label"
    ):
        super().__init__(epsilon, norm=norm, bounds=bounds, reference=reference)
        self.eta = eta

    needed_outputs = frozenset({"probabilities"})

    def check(self, X=None):
        check_real("eta", self.eta, low=0, high=1, closed="neither")
        return super().check(X)

    def conclusion(self, reference_logits, labels):
        return _ConfidenceRow(labels, self.eta)

    def sufficient(self, n_classes):
        """Return the linear property z_y - z_j >= log((K - 1) eta / (1 - eta)), implying SCR."""
        return self._gap(math.log((n_classes - 1) * self.eta / (1 - self.eta)))

    def necessary(self):
        """Return the linear property z_y - z_j >= log(eta / (1 - eta)), which SCR implies."""
        return self._gap(math.log(self.eta / (1 - self.eta)))

    def _gap(self, gap):
        ball = {name: getattr(self, name) for name in _BALL_PARAMETERS}
        return LinearRobustness(_GapRows(gap), reference=self.reference, **ball)


@dataclass(frozen=True)
class _GapRows:
    """Rows z_label - z_j - gap."""

    gap: float

    def __call__(self, reference_logits, labels):
        A = _difference_rows(labels, reference_logits.shape[1], reference_logits)
        b = torch.full(A.shape[:2], -self.gap, dtype=A.dtype, device=A.device)
        return A, torch.zeros_like(b), b


class LinearRobustness(RobustnessProperty):
    r"""A property of your own, given by its rows :math:`A z + c d + b \ge 0`.

    Parameters
    ----------
    rows : tuple (A, b) or (A, c, b) of array-likes, or callable
        Arrays of shapes (m, n_classes), (m,) and (m,), the same for every point; or a
        callable ``rows(reference_logits, labels)`` that returns tensors A, c, b of shapes
        (n, m, n_classes), (n, m), (n, m). The reference logits are those of n points, labels
        their class indices.
    epsilon : float or array-like of shape (n_features,), default=0.1
        Radius in units of the input; 0 marks a feature that cannot change.
    norm : {"linf", "l2"}, default="linf"
        Norm of the ball.
    bounds : pair of floats or of array-likes, or None, default=(0.0, 1.0)
        Lowest and highest valid value of the features.
    reference : {"label", "prediction"}, default="prediction"
        Which labels a callable is given.
    output : {"logits", "probabilities"}, default="logits"
        Which outputs z are.
    strict : bool, default=False
        Whether the rows must be above 0.

    Examples
    --------
    The last class is never ahead of the first one by more than 2:

    >>> from skrobust.properties import LinearRobustness
    >>> property = LinearRobustness(([[1.0, 0.0, -1.0]], [2.0]), epsilon=0.1)
    >>> property.margin([[0.0, 5.0, 1.0], [0.0, 5.0, 3.0]])
    array([ 1., -1.])
    """

    def __init__(
        self,
        rows,
        epsilon=0.1,
        *,
        norm="linf",
        bounds=(0.0, 1.0),
        reference="prediction",
        output="logits",
        strict=False,
    ):
        super().__init__(epsilon, norm=norm, bounds=bounds, reference=reference)
        self.rows = rows
        self.output = output
        self.strict = strict

    @property
    def needs_labels(self):
        return callable(self.rows) and super().needs_labels

    def check(self, X=None):
        check_choice("output", self.output, ("logits", "probabilities"))
        if not callable(self.rows):
            self._constant_rows()
        return super().check(X)

    def conclusion(self, reference_logits, labels):
        n, n_classes = reference_logits.shape
        if callable(self.rows):
            rows = self.rows(_outputs(reference_logits, self.output), labels)
        else:
            rows = (torch.as_tensor(row).expand(n, *row.shape) for row in self._constant_rows())
        A, c, b = (torch.as_tensor(row).to(reference_logits) for row in rows)
        m = A.shape[1] if A.ndim == 3 else None
        if A.shape != (n, m, n_classes) or c.shape != (n, m) or b.shape != (n, m):
            shapes = ", ".join(str(tuple(row.shape)) for row in (A, c, b))
            raise ValueError(
                f"Got rows A, c, b of shapes {shapes}, but expected ({n}, m, {n_classes}), "
                f"({n}, m), ({n}, m) for {n} points and {n_classes} classes."
            )
        uses_distance = bool((c != 0).any())
        return LinearRows(A, c, b, bool(self.strict), self.output, uses_distance)

    def _constant_rows(self):
        expectation = (
            "a callable, or arrays (A, b) or (A, c, b) of shapes (m, n_classes), (m,), (m,)"
        )
        try:
            rows = [np.asarray(row, dtype=np.float64) for row in self.rows]
        except (TypeError, ValueError):
            raise ValueError(expected("rows", self.rows, expectation)) from None
        if len(rows) == 2:
            rows.insert(1, np.zeros_like(rows[1]))
        fits = len(rows) == 3 and rows[0].ndim == 2
        fits = fits and rows[1].shape == rows[2].shape == rows[0].shape[:1]
        if not fits or not all(np.isfinite(row).all() for row in rows):
            raise ValueError(expected("rows", self.rows, expectation + ", all finite"))
        return rows


class Conjunction(RobustnessProperty):
    """Two properties of the same ball, both of which must hold. Written ``left & right``.

    `epsilon`, `norm` and `bounds` of both parts can be set together on the conjunction, so
    that a search or a robustness curve treats it as any other property.

    Parameters
    ----------
    left, right : RobustnessProperty

    Examples
    --------
    >>> from skrobust.properties import ClassificationRobustness, StandardRobustness
    >>> both = ClassificationRobustness(0.1) & StandardRobustness(0.1, delta=1.0)
    >>> both.set_params(epsilon=0.2).right.epsilon
    0.2
    """

    def __init__(self, left, right):
        self.left = left
        self.right = right

    epsilon = property(lambda self: self.left.epsilon)
    norm = property(lambda self: self.left.norm)
    bounds = property(lambda self: self.left.bounds)

    @property
    def needs_labels(self):
        return self.left.needs_labels or self.right.needs_labels

    @property
    def needed_outputs(self):
        return self.left.needed_outputs | self.right.needed_outputs

    @property
    def reference(self):
        return "label" if self.needs_labels else "prediction"

    def set_params(self, **params):
        """Set parameters; `epsilon`, `norm` and `bounds` are set on both parts."""
        shared = {name: params.pop(name) for name in _BALL_PARAMETERS if name in params}
        super().set_params(**params)
        for part in (self.left, self.right) if shared else ():
            part.set_params(**shared)
        return self

    def check(self, X=None):
        for name in ("left", "right"):
            example = "ClassificationRobustness()"
            check_instance(name, getattr(self, name), RobustnessProperty, example).check(X)
        for name in _BALL_PARAMETERS:
            left, right = getattr(self.left, name), getattr(self.right, name)
            if not _same(left, right):
                raise ValueError(
                    f"Got {name}={left!r} on the left and {name}={right!r} on the right of a "
                    f"conjunction, but expected the same ball. Use set_params({name}=...) on "
                    "the conjunction to set both."
                )
        return self

    def conclusion(self, reference_logits, labels):
        parts = (
            part.conclusion(reference_logits, part.reference_labels(reference_logits, labels))
            for part in (self.left, self.right)
        )
        return _Both.of(*parts, reference_logits)

    def reference_labels(self, reference_logits, labels=None):
        """Return the true labels; each part takes its own from them or from the outputs."""
        for part in (self.left, self.right):
            part.reference_labels(reference_logits, labels)
        return labels
