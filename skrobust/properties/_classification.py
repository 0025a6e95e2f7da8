"""Classification robustness (CR) and strong classification robustness (SCR)."""

import math
from dataclasses import dataclass

import torch

from skrobust._validation import check_real
from skrobust.properties._base import BALL_PARAMETERS, RobustnessProperty
from skrobust.properties._conclusion import ConfidenceRow, LinearRows
from skrobust.properties._rows import LinearRobustness

__all__ = ["ClassificationRobustness", "StrongClassificationRobustness"]


def difference_rows(labels, n_classes, like):
    """Rows z_label - z_j for every other class j, of shape (n, n_classes - 1, n_classes)."""
    identity = torch.eye(n_classes, dtype=like.dtype, device=like.device)
    table = identity.unsqueeze(1) - identity.unsqueeze(0)  # [label, j] = e_label - e_j
    others = ~torch.eye(n_classes, dtype=torch.bool, device=like.device)
    table = table[others].view(n_classes, n_classes - 1, n_classes)
    return table[labels]


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
        A = difference_rows(labels, reference_logits.shape[1], reference_logits)
        zeros = torch.zeros(A.shape[:2], dtype=A.dtype, device=A.device)
        return LinearRows(A, zeros, zeros, strict=True, uses_distance=False)


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
        return ConfidenceRow(labels, self.eta)

    def sufficient(self, n_classes):
        """Return the linear property z_y - z_j >= log((K - 1) eta / (1 - eta)), implying SCR."""
        return self._gap(math.log((n_classes - 1) * self.eta / (1 - self.eta)))

    def necessary(self):
        """Return the linear property z_y - z_j >= log(eta / (1 - eta)), which SCR implies."""
        return self._gap(math.log(self.eta / (1 - self.eta)))

    def _gap(self, gap):
        ball = {name: getattr(self, name) for name in BALL_PARAMETERS}
        return LinearRobustness(_GapRows(gap), reference=self.reference, **ball)


@dataclass(frozen=True)
class _GapRows:
    """Rows z_label - z_j - gap."""

    gap: float

    def __call__(self, reference_logits, labels):
        A = difference_rows(labels, reference_logits.shape[1], reference_logits)
        b = torch.full(A.shape[:2], -self.gap, dtype=A.dtype, device=A.device)
        return A, torch.zeros_like(b), b
