"""Two properties of the same ball, both of which must hold."""

from skrobust._validation import check_instance
from skrobust.properties._base import BALL_PARAMETERS, RobustnessProperty, _same
from skrobust.properties._conclusion import BothConclusions

__all__ = ["Conjunction"]


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
        shared = {name: params.pop(name) for name in BALL_PARAMETERS if name in params}
        super().set_params(**params)
        for part in (self.left, self.right) if shared else ():
            part.set_params(**shared)
        return self

    def check(self, X=None):
        for name in ("left", "right"):
            example = "ClassificationRobustness()"
            check_instance(name, getattr(self, name), RobustnessProperty, example).check(X)
        for name in BALL_PARAMETERS:
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
        return BothConclusions.of(*parts, reference_logits)

    def reference_labels(self, reference_logits, labels=None):
        """Return the true labels; each part takes its own from them or from the outputs."""
        for part in (self.left, self.right):
            part.reference_labels(reference_logits, labels)
        return labels
