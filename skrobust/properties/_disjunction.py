"""Two properties of the same ball, one of which must hold at each point."""

from functools import cached_property

import torch

from skrobust.logics import Or
from skrobust.properties._clauses import check_clause_count
from skrobust.properties._conclusion import LinearRows
from skrobust.properties._pair import ConclusionPair, PropertyPair

__all__ = ["Disjunction"]


class Disjunction(PropertyPair):
    """Two properties of the same ball, one of which must hold. Written ``left | right``.

    At each point of the ball one of them is enough, and it need not be the same one everywhere.
    It is nested, set and copied as `Conjunction` is. Whatever has rows has "or" among them:
    their margin is the larger of those of the parts; a logic reads it as its own "or"; and
    attacks and verifiers see clauses, each the largest of one row of either part, of which there
    may be 10,000.

    Parameters
    ----------
    left, right : RobustnessProperty
        Of the same `epsilon`, `norm` and `bounds`.

    Examples
    --------
    The label stays, or no output moves by more than 1:

    >>> from skrobust.properties import ClassificationRobustness, StandardRobustness
    >>> either = ClassificationRobustness(0.1) | StandardRobustness(0.1, delta=1.0)
    >>> either
    ClassificationRobustness() | StandardRobustness(delta=1.0)
    >>> given = {"reference_logits": [[1.0, 0.5], [1.0, 0.5]], "labels": [0, 0]}
    >>> either.margin([[0.9, 1.0], [-1.0, 1.0]], **given)
    array([ 0.5, -1. ])
    """

    _sign, _noun = "|", "disjunction"

    @staticmethod
    def _join(left, right, reference_logits):
        return EitherConclusion(left, right, None)  # each row knows whether it is strict


class EitherConclusion(ConclusionPair):
    """Of two conclusions, the one or the other.

    Its own rows are clauses: each row of the left with each of the right.
    """

    has_clauses = True

    def values(self, logits, distance=None):
        return _clauses(*self._values(logits, distance))

    def margin(self, logits, distance=None):
        left, right = (part.margin(logits, distance) for part in (self.left, self.right))
        return torch.maximum(left, right)

    def judged(self, logits, distance=None):
        (left, left_holds), (right, right_holds) = self._judged(logits, distance)
        return torch.maximum(left, right), left_holds | right_holds

    def formula(self, logits, distance=None):
        return Or(*(part.formula(logits, distance) for part in (self.left, self.right)))

    def sufficient(self):
        return self._sufficient

    @cached_property
    def _sufficient(self):
        return LinearRows.either(self.left.sufficient(), self.right.sufficient())

    def necessary(self):
        return LinearRows.either(self.left.necessary(), self.right.necessary())

    def proved(self, lower):
        left, right = self._split(lower)
        return self.left.proved(left) | self.right.proved(right)

    def lower_margin(self, lower):
        left, right = self._split(lower)
        return torch.maximum(self.left.lower_margin(left), self.right.lower_margin(right))

    def gaps(self, lower):
        left, right = self._split(lower)
        return _clauses(self.left.gaps(left), self.right.gaps(right))

    def parts(self):
        return [self.sufficient()] if self.is_linear else [self]


def _clauses(left, right):
    """Return the larger of each row of the left and each of the right."""
    check_clause_count(left.shape[-1], right.shape[-1])
    return torch.maximum(left.unsqueeze(-1), right.unsqueeze(-2)).flatten(-2)
