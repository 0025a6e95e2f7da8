"""Classification robustness (CR) and strong classification robustness (SCR)."""

import math
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property

import torch

from skrobust._validation import check_choice, check_real
from skrobust.properties._base import RobustnessProperty
from skrobust.properties._conclusion import Conclusion, LinearRows

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
    epsilon : float or array-like of shape (n_features,), or tuple of two such, default=0.1
        Radius in units of the input; 0 marks a feature that cannot change. A tuple (down, up) says
        how far features may fall, and how far they may rise.
    norm : {"linf", "l2"}, default="linf"
        Norm of the ball. With one radius for each feature, the "l2" ball is the ellipsoid
        norm((x - reference) / epsilon) <= 1.
    bounds : pair of floats or of array-likes, Domain or None, default=(0.0, 1.0)
        Lowest and highest valid value of the features; a `Domain` where fewer points are valid.
    reference : {"label", "prediction"}, default="label"
        Whether y is the true label or the network's own label at the reference point.

    References
    ----------
    Casadio et al., CAV 2022, Definition 1, whose balls are those of ``bounds=None``; Bastani et
    al., NeurIPS 2016, section 2.

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
    Linear rows enclose it: :math:`z_y - z_j \ge \log((K - 1) \eta / (1 - \eta))` for all other
    classes j imply it, and it implies those with :math:`\log(\eta / (1 - \eta))`.

    It implies classification robustness for :math:`\eta > 1/2`. For :math:`\eta \le 1/2` it does
    not: another class may then have as high a probability, or a higher one.

    Parameters
    ----------
    epsilon : float or array-like of shape (n_features,), or tuple of two such, default=0.1
        Radius in units of the input; 0 marks a feature that cannot change. A tuple (down, up) says
        how far features may fall, and how far they may rise.
    eta : float, default=0.52
        Least probability of the label, in (0, 1).
    norm : {"linf", "l2"}, default="linf"
        Norm of the ball.
    bounds : pair of floats or of array-likes, Domain or None, default=(0.0, 1.0)
        Lowest and highest valid value of the features; a `Domain` where fewer points are valid.
    reference : {"label", "prediction"}, default="label"
        Whether y is the true label or the network's own label at the reference point.
    output : {"log-probabilities", "probabilities"}, default="log-probabilities"
        Which outputs are compared: :math:`\log \mathrm{softmax}(z)_y` with
        :math:`\log \eta`, or the probability itself with :math:`\eta`. Both are true at the same
        points; as a loss, or to an attack, the second is flat where the probability is near 0.

    References
    ----------
    Casadio et al., CAV 2022, Definition 4, and section 4.2 for what it implies. The paper supposes
    probabilities there, and does not say which outputs of its networks, which end without a
    softmax, the 0.52 is compared with; its published code asks the logit of the true class to be
    at least log 0.3, which is a `LinearRobustness`.
    """

    def __init__(
        self,
        epsilon=0.1,
        eta=0.52,
        *,
        norm="linf",
        bounds=(0.0, 1.0),
        reference="label",
        output="log-probabilities",
    ):
        super().__init__(epsilon, norm=norm, bounds=bounds, reference=reference)
        self.eta = eta
        self.output = output

    needed_outputs = frozenset({"probabilities"})

    def check(self, X=None, n_classes=None):
        check_real("eta", self.eta, low=0, high=1, closed="neither")
        check_choice("output", self.output, ("log-probabilities", "probabilities"))
        return super().check(X, n_classes)

    def conclusion(self, reference_logits, labels):
        n_classes, dtype = reference_logits.shape[1], reference_logits.dtype
        return ConfidenceRow(labels, float(self.eta), n_classes, dtype, self.output)


@dataclass(frozen=True, eq=False)
class ConfidenceRow(Conclusion):
    r"""The one row log softmax(z)_label - log(eta), which is concave in z.

    With the gaps g_j = z_label - z_j it is -log(1 + sum_j exp(-g_j)) - log(eta), of K - 1 gaps.
    Where all gaps are at least log((K - 1) eta / (1 - eta)), the sum is at most (1 - eta) / eta
    and the row at least 0. Where the row is at least 0, each exp(-g_j) is at most
    (1 - eta) / eta.

    With ``output="probabilities"`` the row is softmax(z)_label - eta = eta (exp(r) - 1), where r
    is the one above: another number with the same sign, and no longer concave.

    Parameters
    ----------
    labels : Tensor of shape (n,)
        Class indices.
    eta : float
        Least probability of the label.
    n_classes : int
    dtype : torch.dtype
        Of the linear rows.
    output : {"log-probabilities", "probabilities"}, default="log-probabilities"
    """

    labels: torch.Tensor
    eta: float
    n_classes: int
    dtype: torch.dtype
    output: str = "log-probabilities"

    uses_distance = False
    strict = False
    needed_outputs = frozenset({"probabilities"})

    @property
    def exp_limit(self):
        return (1 - Fraction(self.eta)) / Fraction(self.eta)

    def values(self, logits, distance=None):
        log_probabilities = torch.log_softmax(logits, dim=-1)
        labels = self.labels.view(-1, *[1] * (logits.ndim - 1)).expand(*logits.shape[:-1], 1)
        return self._as_output(log_probabilities.gather(-1, labels) - math.log(self.eta))

    def _as_output(self, row):
        return self.eta * torch.expm1(row) if self.output == "probabilities" else row

    def __getitem__(self, index):
        return replace(self, labels=self.labels[index])

    def sufficient(self):
        return self._sufficient

    @cached_property
    def _sufficient(self):  # asked at each step of branch and bound, for its constants
        return self._gap_rows((self.n_classes - 1) * self.eta / (1 - self.eta), outwards=1)

    def necessary(self):
        return self._gap_rows(self.eta / (1 - self.eta), outwards=-1)

    def _gap_rows(self, odds, outwards):
        """Return rows z_label - z_j - log(odds), the threshold moved by what rounding can do."""
        A = difference_rows(
            self.labels, self.n_classes, self.labels.new_empty(0, dtype=self.dtype)
        )
        threshold = math.log(odds)
        threshold += outwards * 8 * torch.finfo(self.dtype).eps * (1 + abs(threshold))
        b = torch.full_like(A[:, :, 0], -threshold)
        return LinearRows(A, torch.zeros_like(b), b, strict=False, uses_distance=False)

    def gaps(self, lower):
        return lower - self.sufficient().b

    def lower_margin(self, lower):
        gaps, log_eta = self.gaps(lower), math.log(self.eta)
        zero = torch.zeros_like(gaps[:, :1])
        row = -torch.logsumexp(torch.cat([zero, -gaps], dim=1), dim=1) - log_eta
        # The rounding of the sum, the exponentials and the logarithms: some units in the last
        # place of numbers no larger than these.
        unit = 48 * torch.finfo(gaps.dtype).eps
        row = row - unit * (gaps.shape[1] + 10 + row.abs() + abs(log_eta))
        if self.output == "log-probabilities":
            return row
        # Two more roundings, of a number that is no larger than 1 in size.
        return self._as_output(row) - unit

    def proved(self, lower):
        # The bound of the row itself is the better one but for its rounding.
        return super().proved(lower) | (self.lower_margin(lower) >= 0)
