"""Differentiable logics: a formula over rows becomes a loss to train with.

A formula is built from atoms, each the claim that numbers are non-negative (or positive,
where strict), by ``&``, ``|``, ``~`` and `Formula.implies`. `Formula.holds` reads it in
classical logic; a `Logic` reads it as a loss.

References
----------
.. [1] Fischer et al., "DL2: Training and querying neural networks with logic", ICML 2019.
.. [2] van Krieken, Acar, van Harmelen, "Analyzing differentiable fuzzy logic operators",
   Artificial Intelligence 302, 2022.
.. [3] Varnai and Dimarogonas, "On robustness metrics for learning STL tasks", ACC 2020.
.. [4] Flinkow, Pearlmutter, Monahan, "Comparing differentiable logics for learning with
   logical constraints", Science of Computer Programming 244, 2025.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from sklearn.base import BaseEstimator

from skrobust._validation import check_choice, check_real, expected

__all__ = [
    "DL2",
    "STL",
    "And",
    "Atom",
    "Formula",
    "Goedel",
    "Implies",
    "Logic",
    "Lukasiewicz",
    "Not",
    "Or",
    "Reichenbach",
    "Yager",
]


class Formula(ABC):
    """A claim about each of n samples, or of samples in an array of any shape."""

    @abstractmethod
    def holds(self):
        """Return a bool tensor of shape (n,), or (...): whether the claim is true."""

    def __and__(self, other):
        return And(self, other)

    def __or__(self, other):
        return Or(self, other)

    def __invert__(self):
        return Not(self)

    def implies(self, other):
        """Return the formula "if this, then `other`"."""
        return Implies(self, other)


@dataclass(frozen=True, eq=False)
class Atom(Formula):
    """The claim that every number in a row is at least 0, or above 0 where strict.

    Parameters
    ----------
    values : Tensor of shape (n,), (n, m), or (..., m)
    strict : bool or bool Tensor of shape (m,), default=False

    Examples
    --------
    >>> import torch
    >>> Atom(torch.tensor([[0.0, 1.0], [2.0, -1.0]])).holds()
    tensor([ True, False])
    """

    values: torch.Tensor
    strict: bool | torch.Tensor = False

    def __post_init__(self):
        if not (isinstance(self.values, torch.Tensor) and self.values.ndim > 0):
            raise TypeError(expected("values", self.values, "a tensor of shape (n,) or (..., m)"))
        if isinstance(self.strict, torch.Tensor):
            is_strict = self.strict.dtype == torch.bool and (
                self.strict.ndim == 0 or self.strict.shape == self.rows.shape[-1:]
            )
        else:
            is_strict = isinstance(self.strict, bool)
        if not is_strict:
            expectation = "True, False, or a bool tensor of one entry for each row of values"
            raise TypeError(expected("strict", self.strict, expectation))

    @property
    def rows(self):
        """The values with the rows on the last axis."""
        return self.values if self.values.ndim > 1 else self.values.unsqueeze(1)

    @property
    def strict_rows(self):
        """The strictness of each row, of shape (m,) or ()."""
        return torch.as_tensor(self.strict, device=self.values.device)

    def holds(self):
        rows = self.rows
        if isinstance(self.strict, bool):
            lowest = rows.min(dim=-1).values  # NaN if any is
            return lowest > 0 if self.strict else lowest >= 0
        return torch.where(self.strict, rows > 0, rows >= 0).all(dim=-1)


@dataclass(frozen=True, eq=False)
class Not(Formula):
    """The negation of a formula.

    Parameters
    ----------
    operand : Formula
    """

    operand: Formula

    def holds(self):
        return ~self.operand.holds()


@dataclass(frozen=True, eq=False)
class _Binary(Formula):
    left: Formula
    right: Formula


class And(_Binary):
    """Both formulas.

    Parameters
    ----------
    left, right : Formula
    """

    def holds(self):
        return self.left.holds() & self.right.holds()


class Or(_Binary):
    """At least one of two formulas.

    Parameters
    ----------
    left, right : Formula
    """

    def holds(self):
        return self.left.holds() | self.right.holds()


class Implies(_Binary):
    """The second formula, wherever the first is true.

    Parameters
    ----------
    left, right : Formula
    """

    def holds(self):
        return ~self.left.holds() | self.right.holds()


class Logic(BaseEstimator, ABC):
    """A translation of formulas into losses.

    A subclass says what the truth of an atom's rows is, and how truths combine.
    """

    def loss(self, formula):
        """Return the loss of each sample, of shape (n,): small where `formula` is true.

        Atoms with values of shape (..., m) give losses of shape (...).

        Raises
        ------
        ValueError
            If a parameter of the logic is not valid.
        """
        return self.check()._to_loss(self._truth(formula))

    def check(self):
        """Validate the parameters; return self."""
        return self

    def _truth(self, formula):
        if isinstance(formula, Atom):
            return self._conjunction(self._atoms(formula.rows, formula.strict_rows))
        if isinstance(formula, Not):
            return self._negation(formula.operand)
        left, right = formula.left, formula.right
        if isinstance(formula, Implies):
            return self._implication(left, right)
        combine = self._conjunction if isinstance(formula, And) else self._disjunction
        return combine(torch.stack([self._truth(left), self._truth(right)], dim=-1))

    def _implication(self, left, right):
        return self._truth(Or(Not(left), right))

    @abstractmethod
    def _atoms(self, values, strict):
        """Truth of each row, shape (..., m)."""

    @abstractmethod
    def _conjunction(self, truths):
        """Reduce truths of shape (..., m) to (...) by "and"."""

    @abstractmethod
    def _disjunction(self, truths):
        """Reduce truths of shape (..., m) to (...) by "or"."""

    @abstractmethod
    def _negation(self, operand):
        """Truth of "not `operand`", shape (...)."""

    @abstractmethod
    def _to_loss(self, truth):
        """Turn the truth of the whole formula into a loss."""


def _negated(formula):
    """Push one negation inwards, to formulas whose own negation is simpler (De Morgan)."""
    if isinstance(formula, Not):
        return formula.operand
    if isinstance(formula, And):
        return Or(Not(formula.left), Not(formula.right))
    if isinstance(formula, Or):
        return And(Not(formula.left), Not(formula.right))
    return And(formula.left, Not(formula.right))


class DL2(Logic):
    r"""The loss of DL2: zero exactly where the formula is true.

    A row :math:`v \ge 0` becomes :math:`\max(0, -v)`; a strict row adds `tie_penalty` where
    :math:`v = 0`. "Or" is the product (which can underflow, so that "exactly" holds for
    conjunctions of rows, as in every property); negation is pushed down to the rows.

    Parameters
    ----------
    tie_penalty : float, default=1e-3
        Loss of a strict row that is exactly 0 (the paper's xi). It has no gradient.
    conjunction : {"sum", "max"}, default="sum"
        "And" is the sum of the losses, as in the paper, or the largest: then all rows together
        are one comparison, as :math:`\max(0, \|f(x) - f(\hat x)\|_\infty - \delta)` for SR.

    References
    ----------
    Fischer et al., ICML 2019, section 3; one comparison: Casadio et al., CAV 2022, Definition 2.

    Examples
    --------
    >>> import torch
    >>> DL2().loss(Atom(torch.tensor([[0.5, 2.0], [-0.5, -1.0]])))
    tensor([0.0000, 1.5000])
    """

    def __init__(self, tie_penalty=1e-3, *, conjunction="sum"):
        self.tie_penalty = tie_penalty
        self.conjunction = conjunction

    def check(self):
        largest = torch.finfo(torch.float32).max  # what float32 outputs can be compared with
        check_real("tie_penalty", self.tie_penalty, low=0, high=largest, closed="right")
        check_choice("conjunction", self.conjunction, ("sum", "max"))
        return self

    def _atoms(self, values, strict):
        return torch.relu(-values) + float(self.tie_penalty) * (strict & (values == 0))

    def _conjunction(self, truths):
        return truths.sum(dim=-1) if self.conjunction == "sum" else truths.max(dim=-1).values

    def _disjunction(self, truths):
        return truths.prod(dim=-1)

    def _negation(self, operand):
        if not isinstance(operand, Atom):
            return self._truth(_negated(operand))
        # Not all rows hold: some row is negative (or not positive, where it was strict).
        return self._disjunction(self._atoms(-operand.rows, ~operand.strict_rows))

    def _to_loss(self, truth):
        return truth


class STL(Logic):
    r"""Signal temporal logic with the smooth minimum of Varnai and Dimarogonas.

    The robustness of a row is its value, of "not" its negative, of "and" a smooth minimum
    that has the sign of the true minimum. The loss is the negative part of the robustness,
    so it is zero where the formula is true.

    Parameters
    ----------
    sharpness : float, default=1.0
        The paper's nu: the smooth minimum becomes the minimum as this grows.

    References
    ----------
    Varnai and Dimarogonas, ACC 2020, equation 9.

    Examples
    --------
    >>> import torch
    >>> STL().loss(Atom(torch.tensor([[0.5, 2.0], [-0.5, 1.0]])))
    tensor([0.0000, 0.4775])
    """

    def __init__(self, sharpness=1.0):
        self.sharpness = sharpness

    def check(self):
        check_real("sharpness", self.sharpness, low=0, closed="neither")
        return self

    def _atoms(self, values, strict):
        return values

    def _conjunction(self, truths):
        # Infinite rows (a probability of 0) have no differences; a quarter of the range has.
        limit = torch.finfo(truths.dtype).max / 4
        truths = truths.clamp(-limit, limit)
        lowest = truths.min(dim=-1, keepdim=True).values
        negative = lowest < 0
        tie = lowest.abs() < torch.finfo(lowest.dtype).eps ** 2  # its inverse square overflows
        safe = torch.where(tie, 1.0, lowest)
        relative = (truths - lowest) / safe
        # Below zero: weighted sum of lowest * exp(relative); above: weighted mean.
        weight = torch.softmax(
            float(self.sharpness) * torch.where(negative, relative, -relative), dim=-1
        )
        below = lowest * torch.exp(relative.clamp(max=0.0))
        robustness = (weight * torch.where(negative, below, truths)).sum(dim=-1)
        return torch.where(tie.squeeze(-1), lowest.squeeze(-1), robustness)

    def _disjunction(self, truths):
        return -self._conjunction(-truths)

    def _negation(self, operand):
        return -self._truth(operand)

    def _to_loss(self, truth):
        return torch.relu(-truth)


class _FuzzyLogic(Logic):
    """Truths in [0, 1]; the loss is 1 minus the truth.

    A row v >= 0 has the truth 1 where it holds, and 1 / (1 - v / scale) where it does not. So
    a conjunction of rows has the loss 0 exactly where all rows hold (ties of strict rows
    aside).
    """

    def __init__(self, scale=1.0):
        self.scale = scale

    def check(self):
        check_real("scale", self.scale, low=0, closed="neither")
        return self

    def _atoms(self, values, strict):
        return 1 / (1 + torch.relu(-values) / float(self.scale))

    def _disjunction(self, truths):
        return 1 - self._conjunction(1 - truths)

    def _negation(self, operand):
        return 1 - self._truth(operand)

    def _to_loss(self, truth):
        return 1 - truth


class Goedel(_FuzzyLogic):
    """Gödel's logic: "and" is the minimum; "a implies b" is 1 where a <= b, else b.

    Parameters
    ----------
    scale : float, default=1.0
        The violation of a row at which its truth is one half.

    References
    ----------
    van Krieken et al. 2022, tables 1 and 3.

    Examples
    --------
    >>> import torch
    >>> Goedel().loss(Atom(torch.tensor([[0.5, 2.0], [-1.0, -3.0]])))
    tensor([0.0000, 0.7500])
    """

    def _conjunction(self, truths):
        return truths.min(dim=-1).values

    def _implication(self, left, right):
        a, b = self._truth(left), self._truth(right)
        return torch.where(a <= b, 1.0, b)


class Lukasiewicz(_FuzzyLogic):
    """Łukasiewicz' logic: "and" is max(0, 1 - sum of (1 - truth)).

    Its loss is flat (no gradient) once the truths fall short by 1 together.

    Parameters
    ----------
    scale : float, default=1.0
        The violation of a row at which its truth is one half.

    References
    ----------
    van Krieken et al. 2022, tables 1 and 3.

    Examples
    --------
    >>> import torch
    >>> Lukasiewicz().loss(Atom(torch.tensor([[0.5, 2.0], [-1.0, 3.0], [-1.0, -3.0]])))
    tensor([0.0000, 0.5000, 1.0000])
    """

    def _conjunction(self, truths):
        return torch.relu(1 - (1 - truths).sum(dim=-1))

    def _implication(self, left, right):
        return torch.clamp(1 - self._truth(left) + self._truth(right), max=1.0)


class Reichenbach(_FuzzyLogic):
    """Product logic with Reichenbach's implication 1 - a + ab.

    Parameters
    ----------
    scale : float, default=1.0
        The violation of a row at which its truth is one half.

    References
    ----------
    van Krieken et al. 2022, tables 1 and 4.

    Examples
    --------
    >>> import torch
    >>> Reichenbach().loss(Atom(torch.tensor([[0.5, 2.0], [-1.0, -3.0]])))
    tensor([0.0000, 0.8750])
    """

    def _conjunction(self, truths):
        return truths.prod(dim=-1)

    def _implication(self, left, right):
        a = self._truth(left)
        return 1 - a + a * self._truth(right)


class Yager(_FuzzyLogic):
    """Yager's logic: "and" is max(0, 1 - norm of (1 - truth)) in the p-norm; b to the power a.

    Parameters
    ----------
    scale : float, default=1.0
        The violation of a row at which its truth is one half.
    p : float, default=2.0
        Order of the norm, at least 1; 1 is Łukasiewicz' "and".

    References
    ----------
    van Krieken et al. 2022, tables 1 and 4.

    Examples
    --------
    >>> import torch
    >>> Yager().loss(Atom(torch.tensor([[0.5, 2.0], [-1.0, 3.0]])))
    tensor([0.0000, 0.5000])
    """

    def __init__(self, scale=1.0, p=2.0):
        super().__init__(scale)
        self.p = p

    def check(self):
        check_real("p", self.p, low=1, closed="left")
        return super().check()

    def _conjunction(self, truths):
        return torch.relu(1 - torch.linalg.vector_norm(1 - truths, ord=float(self.p), dim=-1))

    def _implication(self, left, right):
        a, b = self._truth(left), self._truth(right)
        # 0 to the power 0 is 1; the floor keeps the gradient finite there.
        return torch.clamp(b, min=1e-12) ** a
