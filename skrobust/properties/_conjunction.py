"""Two properties of the same ball, both of which must hold."""

from functools import cached_property

import torch

from skrobust.logics import And
from skrobust.properties._conclusion import LinearRows
from skrobust.properties._pair import ConclusionPair, PropertyPair, strict_rows

__all__ = ["Conjunction"]


class Conjunction(PropertyPair):
    """Two properties of the same ball, both of which must hold. Written ``left & right``.

    Three and more are nested: ``a & b & c`` has the left part ``a & b``. `epsilon`, `norm` and
    `bounds` are set on both parts at once, so that a search or a robustness curve treats a
    conjunction as any other property. Whatever is set, is set on copies: the properties that it
    was made of stay as they are.

    Parameters
    ----------
    left, right : RobustnessProperty
        Of the same `epsilon`, `norm` and `bounds`.

    Examples
    --------
    >>> from skrobust.properties import ClassificationRobustness, StandardRobustness
    >>> both = ClassificationRobustness(0.1) & StandardRobustness(0.1, delta=1.0)
    >>> both.set_params(epsilon=0.2, right__delta=0.5)
    ClassificationRobustness(epsilon=0.2) & StandardRobustness(delta=0.5, epsilon=0.2)
    """

    _sign, _noun = "&", "conjunction"

    @staticmethod
    def _join(left, right, reference_logits):
        return BothConclusions.of(left, right, reference_logits)


class BothConclusions(ConclusionPair):
    """The rows of two conclusions; make it by `of`."""

    @classmethod
    def of(cls, left, right, reference_logits):
        """Join two conclusions about the same reference points."""
        if left.strict is right.strict:
            return cls(left, right, left.strict)
        if left.has_clauses or right.has_clauses:
            return cls(left, right, None)  # each clause knows of its own rows
        return cls(
            left, right, torch.cat([strict_rows(part, reference_logits) for part in (left, right)])
        )

    @property
    def has_clauses(self):
        return self.left.has_clauses or self.right.has_clauses

    def values(self, logits, distance=None):
        return torch.cat(self._values(logits, distance), dim=-1)

    def margin(self, logits, distance=None):
        if not self.has_clauses:
            return super().margin(logits, distance)
        left, right = (part.margin(logits, distance) for part in (self.left, self.right))
        return torch.minimum(left, right)

    def judged(self, logits, distance=None):
        if not self.has_clauses:
            return super().judged(logits, distance)
        (left, left_holds), (right, right_holds) = self._judged(logits, distance)
        return torch.minimum(left, right), left_holds & right_holds

    def formula(self, logits, distance=None):
        if not self.has_clauses:
            return super().formula(logits, distance)
        return And(*(part.formula(logits, distance) for part in (self.left, self.right)))

    def sufficient(self):
        return self._sufficient

    @cached_property
    def _sufficient(self):
        return LinearRows.join([self.left.sufficient(), self.right.sufficient()])

    def necessary(self):
        return LinearRows.join([self.left.necessary(), self.right.necessary()])

    def proved(self, lower):
        left, right = self._split(lower)
        return self.left.proved(left) & self.right.proved(right)

    def lower_margin(self, lower):
        left, right = self._split(lower)
        return torch.minimum(self.left.lower_margin(left), self.right.lower_margin(right))

    def gaps(self, lower):
        left, right = self._split(lower)
        return torch.cat([self.left.gaps(left), self.right.gaps(right)], dim=1)

    def parts(self):
        parts = [*self.left.parts(), *self.right.parts()]
        linear = [part for part in parts if part.is_linear]
        concave = [part for part in parts if not part.is_linear]
        return [LinearRows.join(linear), *concave] if linear else concave
