"""Training on adversarial points."""

import torch

from skrobust._validation import check_real
from skrobust.attacks import PGD
from skrobust.training._base import PropertyRegime

__all__ = ["AdversarialTraining"]


class AdversarialTraining(PropertyRegime):
    """Minimize the loss of the task at the points that an attack finds.

    Parameters
    ----------
    attack : Attack or None, default=None
        Any attack of `skrobust.attacks`. None is PGD of 10 steps on the cross-entropy.
    clean_weight : float, default=0.0
        Weight, in [0, 1], of the loss at the inputs themselves; the adversarial points have
        the rest.
    property : RobustnessProperty or None, default=None
        What the attack breaks; the classifier's own property if None.

    References
    ----------
    Madry et al., "Towards deep learning models resistant to adversarial attacks", ICLR 2018.
    """

    def __init__(self, attack=None, *, clean_weight=0.0, property=None):
        self.attack = attack
        self.clean_weight = clean_weight
        self.property = property

    def check(self, property, X, n_classes=2):
        check_real("clean_weight", self.clean_weight, low=0, high=1)
        super().check(property, X, n_classes)

    def _default_parts(self):
        return {"attack": PGD(10, objective="cross-entropy")}

    def loss(self, state, step):
        x = step.attack(self._part("attack"), self.trained_property(step.property))
        return loss_at_both(step, x, self.clean_weight)


def loss_at_both(step, x, clean_weight):
    """Return the loss of the task at the batch and at points found near it, and the outputs.

    Parameters
    ----------
    step : TrainingStep
    x : Tensor of shape (n, n_features)
        A point for each row of the batch.
    clean_weight : float
        Weight of the batch itself; the points have the rest.

    Returns
    -------
    loss : Tensor of shape ()
    logits : Tensor of shape (n, n_classes)
        At the batch; at the points where the batch has no weight.
    """
    if clean_weight == 0:
        logits = step.module(x)
        return step.task_loss(logits), logits
    # One pass over both, so that batch statistics are shared.
    clean, attacked = step.module(torch.cat([step.x, x])).chunk(2)
    losses = step.task_loss(clean), step.task_loss(attacked)
    return clean_weight * losses[0] + (1 - clean_weight) * losses[1], clean
