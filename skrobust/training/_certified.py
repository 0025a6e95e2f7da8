"""Training on bounds of the outputs, so that verifiers can prove what was learned."""

import torch
from torch.nn import functional

from skrobust._validation import check_choice, check_integer, check_real
from skrobust.bounds import crown, interval_rows, relax
from skrobust.exceptions import UnsupportedModelError, UnsupportedPropertyError
from skrobust.graphs import read_live
from skrobust.training._base import PropertyRegime

__all__ = ["CertifiedTraining"]


class CertifiedTraining(PropertyRegime):
    r"""Minimise the loss of the worst outputs that bounds allow (IBP or CROWN-IBP training).

    Intervals of the pixels are propagated through the module, with gradients, to lower bounds
    of the property's rows. With :math:`l_j` for these, the loss is
    :math:`\log(1 + \sum_j e^{-l_j})`. For classification that is the cross-entropy of the worst
    case. Both the radius and the weight of that loss grow over the first epochs.

    Parameters
    ----------
    method : {"ibp", "crown-ibp"}, default="ibp"
        "crown-ibp" mixes the bounds by intervals with those by lines below and above each unit
        (CROWN, on the same intervals), whose share falls from 1 to 0 while the radius grows. It
        is slower in these epochs, about by the number of rows, and takes modules whose nonlinear
        layers are piecewise linear.
    ramp_epochs : int, default=10
        Epochs over which the radius grows to epsilon, and the weight of the loss at the inputs
        themselves falls from 1 to `clean_weight`. About a third of all epochs is a good choice.
    clean_weight : float, default=0.5
        Weight, in [0, 1], of the loss at the inputs themselves after that. A larger one is more
        accurate, and less can be proved.
    property : RobustnessProperty or None, default=None
        What is proved, in the L-infinity norm; the classifier's own property if None. Rows that
        depend on the distance (Lipschitz robustness) have no bound of this kind.

    Notes
    -----
    The module may consist of what `skrobust.graphs.read_live` reads: linear and convolutional
    layers, batch norm, pooling, ReLU and its kin, tanh, sigmoid, GELU, SiLU, softplus, ELU and
    its kin, views, sums, and products with constants. `Bounds("ibp")` proves what this trains for.
    Training does without what proofs add for rounding, and stays in the dtype of the module.

    References
    ----------
    Gowal et al., "On the effectiveness of interval bound propagation for training verifiably
    robust models", 2018. Zhang et al., "Towards stable and efficient training of verifiably
    robust neural networks", ICLR 2020 (CROWN-IBP).
    """

    def __init__(self, method="ibp", *, ramp_epochs=10, clean_weight=0.5, property=None):
        self.method = method
        self.ramp_epochs = ramp_epochs
        self.clean_weight = clean_weight
        self.property = property

    def check(self, property, X, n_classes=2):
        check_choice("method", self.method, ("ibp", "crown-ibp"))
        check_integer("ramp_epochs", self.ramp_epochs)
        check_real("clean_weight", self.clean_weight, low=0, high=1)
        super().check(property, X, n_classes)
        trained_for = self.trained_property(property)
        if trained_for.norm != "linf":
            raise UnsupportedPropertyError(
                f"Got norm={trained_for.norm!r}, but CertifiedTraining expects norm='linf'."
            )
        # Rows that do not fit the number of classes are seen before training.
        _rows(trained_for.trial(n_classes), trained_for)

    def loss(self, state, step):
        property = self.trained_property(step.property)
        ramp = step.ramp(self.ramp_epochs)
        weight = 1 - ramp * (1 - self.clean_weight)
        ball = property.shrunk(ramp).ball(step.x)
        graph, logits = read_live(step.module, step.x)
        labels = property.reference_labels(logits.detach(), step.labels)
        conclusion = property.conclusion(logits, labels)
        rows = _rows(conclusion, property)
        share = 1 - ramp if self.method == "crown-ibp" else 0.0
        gaps = conclusion.gaps(lower_rows(graph, ball, rows.A, share) + rows.b)
        worst = step.mean(torch.logsumexp(functional.pad(-gaps, (1, 0)), dim=1))
        clean = step.task_loss(logits)
        return weight * clean + (1 - weight) * worst, logits


def _rows(conclusion, property):
    """Return the linear rows whose bounds are trained, or refuse."""
    rows = conclusion.sufficient()
    if rows.uses_distance or rows.output != "logits":
        raise UnsupportedPropertyError(
            f"Got {property!r}, but CertifiedTraining expects rows of the logits that do "
            "not depend on the distance, such as those of ClassificationRobustness."
        )
    return rows


def lower_rows(graph, ball, A, share):
    """Return lower bounds, of shape (n, m), of rows A of the outputs, with gradients.

    Parameters
    ----------
    graph : Graph
        From `read_live`.
    ball : Ball
        Of n centers, in the dtype of the graph.
    A : Tensor of shape (n, m, n_classes)
    share : float
        Of the bounds by lines, in the mean with those by intervals.
    """
    try:
        relaxation = relax(graph, ball, refine=False, lines=share > 0, rounding=False)
    except UnsupportedModelError as error:
        advice = " Use method='ibp', which needs no lines." if share > 0 else ""
        raise UnsupportedModelError(f"CertifiedTraining: {error}{advice}") from None
    lower = interval_rows(relaxation, A)
    return lower if share == 0 else (1 - share) * lower + share * crown(relaxation, A)
