"""Conclusions: what a property says about the outputs, as rows around reference points."""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch

from skrobust.exceptions import UnsupportedPropertyError
from skrobust.logics import DL2, Atom

__all__ = ["Conclusion", "LinearRows"]


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
class ConfidenceRow(Conclusion):
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
        return ConfidenceRow(self.labels[index], self.eta)

    def linear_rows(self):
        raise UnsupportedPropertyError(
            "The row of StrongClassificationRobustness is concave, not linear. Use its methods "
            "sufficient() and necessary(), which are linear and enclose it."
        )


@dataclass(frozen=True, eq=False)
class BothConclusions(Conclusion):
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
        return BothConclusions(self.left[index], self.right[index], self.strict)

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
