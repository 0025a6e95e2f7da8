r"""Linear constraints between features, as rows of a network that has them among its outputs.

"The rows hold at each point of the box with A x <= b" is the same as "at each point of the box the
rows hold, or some entry of A x - b is above 0". So a network with the further outputs A x, and
a property with clauses, ask the very question, of any verifier that treats clauses.
"""

import numpy as np
import torch

from skrobust.exceptions import UnsupportedPropertyError
from skrobust.properties import LinearRows, RobustnessProperty

__all__ = ["UnderConstraints"]


class UnderConstraints(RobustnessProperty):
    """A property of the points that satisfy constraints, of a network `with_input_rows`.

    Parameters
    ----------
    property : RobustnessProperty
        Around one reference; see `RobustnessProperty.around`.
    limits : ndarray of shape (m,)
        What the last m outputs may be at most.
    """

    def __init__(self, property, limits):
        self.property = property
        self.limits = limits

    epsilon = property(lambda self: self.property.epsilon)
    norm = property(lambda self: self.property.norm)
    bounds = property(lambda self: self.property.bounds)
    reference = property(lambda self: self.property.reference)
    needs_labels = property(lambda self: self.property.needs_labels)
    needed_outputs = property(lambda self: self.property.needed_outputs)

    def check(self, X=None, n_classes=None):
        return self  # made of one that was checked

    def sides(self, n_features):
        return self.property.sides(n_features)

    def local_set(self, n_features):
        return None  # the constraints are rows, and what takes single values is held

    def references(self, x):
        return self.property.references(x)

    def reference_labels(self, reference_logits, labels=None):
        own = reference_logits[:, : reference_logits.shape[1] - len(self.limits)]
        return self.property.reference_labels(own, labels)

    def conclusion(self, reference_logits, labels):
        m = len(self.limits)
        own = self.property.conclusion(reference_logits[:, :-m], labels)
        if not isinstance(own, LinearRows) or own.output != "logits":
            raise UnsupportedPropertyError(
                f"Got {type(self.property).__name__} under constraints between features, but "
                "verifiers treat rows that are linear in the logits. Use "
                "ClassificationRobustness, or a Domain without constraints."
            )
        n = len(reference_logits)
        padded = torch.nn.functional.pad(own.A, (0, m))
        rows = LinearRows(
            padded, own.c, own.b, own.strict, uses_distance=False, clauses=own.clauses
        )
        A = torch.eye(reference_logits.shape[1]).to(own.A)[-m:].expand(n, -1, -1)
        b = -torch.as_tensor(np.asarray(self.limits)).to(own.b).expand(n, -1)
        some = torch.arange(m, device=b.device).unsqueeze(0)
        beyond = LinearRows(A, torch.zeros_like(b), b, True, uses_distance=False, clauses=some)
        return LinearRows.either(rows, beyond)
