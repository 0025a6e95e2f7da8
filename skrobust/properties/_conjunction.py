"""Two properties of the same ball, both of which must hold."""

from dataclasses import dataclass
from functools import cached_property

import torch
from sklearn.base import BaseEstimator, clone

from skrobust._validation import check_instance, shown
from skrobust.properties._base import BALL_PARAMETERS, RobustnessProperty, same_value
from skrobust.properties._conclusion import Conclusion, LinearRows

__all__ = ["Conjunction"]


class Conjunction(RobustnessProperty):
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

    def __repr__(self, N_CHAR_MAX=700):
        left, right = (_shown(part, N_CHAR_MAX) for part in (self.left, self.right))
        return (
            f"{left} & ({right})" if isinstance(self.right, Conjunction) else f"{left} & {right}"
        )

    def get_params(self, deep=True):
        """Return the parts; with `deep` also their parameters, and those of the common ball."""
        params = super().get_params(deep=deep)
        if deep and isinstance(self.left, RobustnessProperty):
            params |= {name: getattr(self, name) for name in BALL_PARAMETERS}
        return params

    def set_params(self, **params):
        """Set parameters of copies of the parts; return self.

        `epsilon`, `norm` and `bounds` are set on both, before parameters of one part are.
        """
        for name in ("left", "right"):
            if name in params:
                setattr(self, name, params.pop(name))
        shared = {name: params.pop(name) for name in BALL_PARAMETERS if name in params}
        for name in ("left", "right"):
            if shared or any(key.startswith(f"{name}__") for key in params):
                setattr(self, name, clone(getattr(self, name)).set_params(**shared))
        return super().set_params(**params)

    def check(self, X=None, n_classes=None):
        for name in ("left", "right"):
            part, example = getattr(self, name), "ClassificationRobustness()"
            check_instance(name, part, RobustnessProperty, example).check(X, n_classes)
        for name in BALL_PARAMETERS:
            left, right = getattr(self.left, name), getattr(self.right, name)
            if not same_value(left, right):
                raise ValueError(
                    f"Got {name}={shown(left)} on the left and {name}={shown(right)} on the "
                    f"right of a conjunction, but expected the same ball. Use set_params({name}="
                    "...) on the conjunction to set both."
                )
        return self

    def conclusion(self, reference_logits, labels):
        parts = (
            part.conclusion(reference_logits, part.reference_labels(reference_logits, labels))
            for part in (self.left, self.right)
        )
        return BothConclusions.of(*parts, reference_logits)

    def reference_labels(self, reference_logits, labels=None):
        """Return the true labels; each part takes its own from them or from the outputs."""
        for part in (self.left, self.right):
            part.reference_labels(reference_logits, labels)
        return labels


@dataclass(frozen=True, eq=False)
class BothConclusions(Conclusion):
    """The rows of two conclusions; make it by `of`."""

    left: Conclusion
    right: Conclusion
    strict: bool | torch.Tensor

    @classmethod
    def of(cls, left, right, reference_logits):
        """Join two conclusions about the same reference points."""
        if left.strict is right.strict:
            return cls(left, right, left.strict)
        distance = reference_logits.new_zeros(1)
        strict = [
            torch.as_tensor(part.strict, device=reference_logits.device).expand(
                part[:1].values(reference_logits[:1], distance).shape[1]
            )
            for part in (left, right)
        ]
        return cls(left, right, torch.cat(strict))

    @property
    def uses_distance(self):
        return self.left.uses_distance or self.right.uses_distance

    @property
    def is_linear(self):
        return self.left.is_linear and self.right.is_linear

    @property
    def needed_outputs(self):
        return self.left.needed_outputs | self.right.needed_outputs

    def values(self, logits, distance=None):
        parts = [part.values(logits, distance) for part in (self.left, self.right)]
        return torch.cat(parts, dim=-1)

    def __getitem__(self, index):
        return BothConclusions(self.left[index], self.right[index], self.strict)

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

    def _split(self, lower):
        """Return what of the bounds of all sufficient rows is about the left and the right."""
        n_left = self.left.sufficient().b.shape[1]
        return lower[:, :n_left], lower[:, n_left:]


def _shown(part, length):
    return part.__repr__(length) if isinstance(part, BaseEstimator) else repr(part)
