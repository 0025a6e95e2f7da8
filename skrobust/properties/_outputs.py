"""Standard robustness (SR) and Lipschitz robustness (LR): outputs stay near a reference."""

import torch

from skrobust._validation import check_choice, check_real
from skrobust.properties._base import RobustnessProperty
from skrobust.properties._conclusion import LinearRows, outputs_of

__all__ = ["LipschitzRobustness", "StandardRobustness"]


def _two_sided_rows(reference, slope, constant):
    """Rows slope * d + constant -+ (z_j - reference_j) for every class j."""
    n, n_classes = reference.shape
    identity = torch.eye(n_classes, dtype=reference.dtype, device=reference.device)
    A = torch.cat([-identity, identity]).expand(n, -1, -1)
    b = torch.cat([reference, -reference], dim=1) + constant
    return A, torch.full_like(b, slope), b


class _OutputRobustness(RobustnessProperty):
    """Shared by SR and LR, which compare the outputs with those at the reference point."""

    @property
    def needs_labels(self):
        return False

    @property
    def needed_outputs(self):
        return frozenset({self.output})

    def check(self, X=None, n_classes=None):
        check_choice("output", self.output, ("logits", "probabilities"))
        return super().check(X, n_classes)

    def _rows(self, reference_logits, slope, constant):
        reference = outputs_of(reference_logits, self.output)
        A, c, b = _two_sided_rows(reference, slope, constant)
        # With a slope, both sides of a row are 0 at the reference point.
        has_slope = slope != 0
        return LinearRows(A, c, b, False, self.output, has_slope, anchored=has_slope)


class StandardRobustness(_OutputRobustness):
    r"""SR: no output changes by more than delta in the ball.

    Rows :math:`\delta \mp (z_j - \hat z_j) \ge 0` for every class j.

    Parameters
    ----------
    epsilon : float or array-like of shape (n_features,), or tuple of two such, default=0.1
        Radius in units of the input; 0 marks a feature that cannot change. A tuple (down, up) says
        how far features may fall, and how far they may rise.
    delta : float, default=10.0
        Largest allowed change of an output, in units of the output.
    norm : {"linf", "l2"}, default="linf"
        Norm of the ball.
    bounds : pair of floats or of array-likes, or None, default=(0.0, 1.0)
        Lowest and highest valid value of the features.
    reference : {"label", "prediction"}, default="label"
        Part of every property; it makes no difference here, where labels play no role.
    output : {"logits", "probabilities"}, default="logits"
        Which outputs are compared.

    References
    ----------
    Casadio et al., CAV 2022, Definition 2, with the L-infinity norm of the outputs, as in all
    experiments of the paper, and balls of ``bounds=None``.
    """

    def __init__(
        self,
        epsilon=0.1,
        delta=10.0,
        *,
        norm="linf",
        bounds=(0.0, 1.0),
        reference="label",
        output="logits",
    ):
        super().__init__(epsilon, norm=norm, bounds=bounds, reference=reference)
        self.delta = delta
        self.output = output

    def check(self, X=None, n_classes=None):
        check_real("delta", self.delta, low=0)
        return super().check(X, n_classes)

    def conclusion(self, reference_logits, labels):
        return self._rows(reference_logits, slope=0.0, constant=float(self.delta))


class LipschitzRobustness(_OutputRobustness):
    r"""LR: no output changes by more than `lipschitz` times the input distance in the ball.

    Rows :math:`L d \mp (z_j - \hat z_j) \ge 0` for every class j, where d is the distance in
    the norm of the ball. At the reference point itself they hold with equality.

    Parameters
    ----------
    epsilon : float or array-like of shape (n_features,), or tuple of two such, default=0.1
        Radius in units of the input; 0 marks a feature that cannot change. A tuple (down, up) says
        how far features may fall, and how far they may rise.
    lipschitz : float, default=10.0
        Largest allowed ratio of output change to input distance.
    norm : {"linf", "l2"}, default="linf"
        Norm of the ball and of the distance.
    bounds : pair of floats or of array-likes, or None, default=(0.0, 1.0)
        Lowest and highest valid value of the features.
    reference : {"label", "prediction"}, default="label"
        Part of every property; it makes no difference here, where labels play no role.
    output : {"logits", "probabilities"}, default="logits"
        Which outputs are compared.

    References
    ----------
    Casadio et al., CAV 2022, Definition 3, with the L-infinity norm of the outputs, as in all
    experiments of the paper, and balls of ``bounds=None``. It implies standard robustness with
    delta = epsilon times `lipschitz` (section 4.1).
    """

    def __init__(
        self,
        epsilon=0.1,
        lipschitz=10.0,
        *,
        norm="linf",
        bounds=(0.0, 1.0),
        reference="label",
        output="logits",
    ):
        super().__init__(epsilon, norm=norm, bounds=bounds, reference=reference)
        self.lipschitz = lipschitz
        self.output = output

    def check(self, X=None, n_classes=None):
        check_real("lipschitz", self.lipschitz, low=0, closed="neither")
        return super().check(X, n_classes)

    def conclusion(self, reference_logits, labels):
        return self._rows(reference_logits, slope=float(self.lipschitz), constant=0.0)
