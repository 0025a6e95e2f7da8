"""What two properties of the same ball have in common, however they are joined."""

from abc import abstractmethod
from dataclasses import dataclass

import torch
from sklearn.base import BaseEstimator, clone

from skrobust._validation import check_instance, shown
from skrobust.properties._base import BALL_PARAMETERS, RobustnessProperty, same_value
from skrobust.properties._conclusion import Conclusion

__all__ = ["ConclusionPair", "PropertyPair"]


class PropertyPair(RobustnessProperty):
    """Two properties of the same ball. Subclasses say how they are joined.

    Parameters
    ----------
    left, right : RobustnessProperty
        Of the same `epsilon`, `norm` and `bounds`.
    """

    def __init__(self, left, right):
        self.left = left
        self.right = right

    _sign = "?"  # between the parts, when printed
    _noun = "pair"

    @staticmethod
    @abstractmethod
    def _join(left, right, reference_logits):
        """Return the `ConclusionPair` of two conclusions about the same reference points."""

    epsilon = property(lambda self: self.left.epsilon)
    norm = property(lambda self: self.left.norm)
    bounds = property(lambda self: self.left.bounds)
    ball_parameters = property(lambda self: self.left.ball_parameters)

    def _sides(self, n_features):
        return self.left._sides(n_features)

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
        if isinstance(self.left, PropertyPair) and type(self.left) is not type(self):
            left = f"({left})"
        if isinstance(self.right, PropertyPair):
            right = f"({right})"
        return f"{left} {self._sign} {right}"

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
        names = {**dict.fromkeys(self.left.ball_parameters + self.right.ball_parameters)}
        for name in names:
            left, right = (getattr(part, name, None) for part in (self.left, self.right))
            if not same_value(left, right):
                raise ValueError(
                    f"Got {name}={shown(left)} on the left and {name}={shown(right)} on the "
                    f"right of a {self._noun}, but expected the same ball. Use set_params({name}="
                    f"...) on the {self._noun} to set both."
                )
        return self

    def conclusion(self, reference_logits, labels):
        parts = (
            part.conclusion(reference_logits, part.reference_labels(reference_logits, labels))
            for part in (self.left, self.right)
        )
        return self._join(*parts, reference_logits)

    def reference_labels(self, reference_logits, labels=None):
        """Return the true labels; each part takes its own from them or from the outputs."""
        for part in (self.left, self.right):
            part.reference_labels(reference_logits, labels)
        return labels


@dataclass(frozen=True, eq=False)
class ConclusionPair(Conclusion):
    """Two conclusions about the same points. Subclasses say how they are joined.

    Parameters
    ----------
    left, right : Conclusion
    strict : bool or bool Tensor of shape (m,)
        Of the own rows.
    """

    left: Conclusion
    right: Conclusion
    strict: object

    @property
    def uses_distance(self):
        return self.left.uses_distance or self.right.uses_distance

    @property
    def is_linear(self):
        return self.left.is_linear and self.right.is_linear

    @property
    def needed_outputs(self):
        return self.left.needed_outputs | self.right.needed_outputs

    def __getitem__(self, index):
        return type(self)(self.left[index], self.right[index], self.strict)

    def _values(self, logits, distance):
        return [part.values(logits, distance) for part in (self.left, self.right)]

    def _judged(self, logits, distance):
        return [part.judged(logits, distance) for part in (self.left, self.right)]

    def _split(self, lower):
        """Return what of the bounds of all sufficient rows is about the left and the right."""
        n_left = self.left.sufficient().b.shape[1]
        return lower[:, :n_left], lower[:, n_left:]


def strict_rows(conclusion, reference_logits):
    """Return which own rows are strict, as a bool tensor of one entry each."""
    distance = reference_logits.new_zeros(1)
    n_rows = conclusion[:1].values(reference_logits[:1], distance).shape[1]
    return torch.as_tensor(conclusion.strict, device=reference_logits.device).expand(n_rows)


def _shown(part, length):
    return part.__repr__(length) if isinstance(part, BaseEstimator) else repr(part)
