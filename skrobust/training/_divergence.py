"""How far the probabilities at one point are from those at another."""

from dataclasses import dataclass

import torch
from torch.nn import functional

from skrobust.properties import Conclusion, RobustnessProperty

__all__ = []


def divergence(logits, others):
    r"""Return the Kullback-Leibler divergence KL(p || q) of each sample, of shape (n,).

    Parameters
    ----------
    logits, others : Tensor of shape (..., n_classes)
        Whose softmax is p, and q.
    """
    p, q = (torch.log_softmax(z, dim=-1) for z in (logits, others))
    return functional.kl_div(q, p, reduction="none", log_target=True).sum(dim=-1)


def cross_entropy(logits, others):
    """Return the cross-entropy of the probabilities of others under those of logits.

    Parameters
    ----------
    logits, others : Tensor of shape (..., n_classes)

    Returns
    -------
    Tensor of shape (...)
    """
    return -(torch.softmax(logits, dim=-1) * torch.log_softmax(others, dim=-1)).sum(dim=-1)


class SameProbabilities(RobustnessProperty):
    """No point of the ball has other probabilities than its center: what attacks of TRADES break.

    Its row is minus the divergence, so that an attack on the margin looks for the largest one.
    """

    needs_labels = False

    @classmethod
    def in_ball_of(cls, property):
        """Return the property of the same balls as another one."""
        own = cls(property.epsilon, norm=property.norm, bounds=property.bounds)
        own._sides = property.sides  # of any property, whatever its epsilon stands for
        return own

    def conclusion(self, reference_logits, labels):
        return DivergenceRow(reference_logits)


@dataclass(frozen=True, eq=False)
class DivergenceRow(Conclusion):
    """The one row -KL(p || q), where p are the probabilities at the center.

    Parameters
    ----------
    reference_logits : Tensor of shape (n, n_classes)
    """

    reference_logits: torch.Tensor

    uses_distance = False
    strict = False
    needed_outputs = frozenset({"probabilities"})

    def values(self, logits, distance=None):
        reference = self.reference_logits
        reference = reference.unsqueeze(1) if logits.ndim == 3 else reference
        return -divergence(reference.expand_as(logits), logits).unsqueeze(-1)

    def __getitem__(self, index):
        return DivergenceRow(self.reference_logits[index])
