"""Training with a loss made from the property by a differentiable logic."""

import torch

from skrobust._validation import check_choice, check_instance, check_integer, check_real
from skrobust.attacks import PGD
from skrobust.logics import DL2, Logic
from skrobust.training._base import PropertyRegime

__all__ = ["ConstraintTraining"]


class ConstraintTraining(PropertyRegime):
    r"""Minimize :math:`\alpha` x task loss + :math:`\beta` x loss of the property.

    The property's loss is taken, by a differentiable logic, at the point of each ball that an
    attack finds. The reference outputs take part in the gradient.

    Parameters
    ----------
    alpha : float, default=1.0
        Weight of the loss of the task.
    beta : float, default=0.2
        Weight of the loss of the property.
    logic : Logic or None, default=None
        How the property becomes a loss, from `skrobust.logics`. None is DL2.
    attack : Attack or None, default=None
        Any attack of `skrobust.attacks`. None is PGD of 10 steps, which goes against the row of
        the property that the ball can take the lowest.
    ramp_epochs : int, default=0
        Epochs over which `beta` rises to its value, in equal steps, as in `CertifiedTraining`.
    balance : {"fixed", "gradient-norm"}, default="fixed"
        With "gradient-norm", the loss of the property is scaled at each step so that its
        gradient is `beta` / `alpha` times as long as that of the task's loss (at most 1,000
        times `beta`, where it almost vanishes). This costs two more backward passes.
    property : RobustnessProperty or None, default=None
        What to train for; the classifier's own property if None.

    References
    ----------
    Casadio et al., CAV 2022, section 2, equation 1, and appendix B; Fischer et al., "DL2", ICML
    2019; gradient norms as in Chen et al., "GradNorm", ICML 2018.
    """

    def __init__(
        self,
        alpha=1.0,
        beta=0.2,
        *,
        logic=None,
        attack=None,
        ramp_epochs=0,
        balance="fixed",
        property=None,
    ):
        self.alpha = alpha
        self.beta = beta
        self.logic = logic
        self.attack = attack
        self.ramp_epochs = ramp_epochs
        self.balance = balance
        self.property = property

    def check(self, property, X, n_classes=2):
        check_real("alpha", self.alpha, low=0)
        check_real("beta", self.beta, low=0)
        check_integer("ramp_epochs", self.ramp_epochs)
        check_choice("balance", self.balance, ("fixed", "gradient-norm"))
        check_instance("logic", self._part("logic"), Logic, "DL2()")
        if self.balance == "gradient-norm":
            check_real("alpha", self.alpha, low=0, closed="neither")
        super().check(property, X, n_classes)

    def _default_parts(self):
        return {"attack": PGD(10), "logic": DL2()}

    def loss(self, state, step):
        property = self.trained_property(step.property)
        x = step.attack(self._part("attack"), property)
        # One pass over both, so that batch statistics are shared.
        clean, attacked = step.module(torch.cat([step.x, x])).chunk(2)
        labels = property.reference_labels(clean.detach(), step.labels)
        conclusion = property.conclusion(clean, labels)
        distance = property.ball(step.x).distance(x) if conclusion.uses_distance else None
        task = step.task_loss(clean)
        constraint = step.mean(conclusion.loss(attacked, distance, self._part("logic")))
        beta = self.beta * step.ramp(self.ramp_epochs)
        if self.balance == "gradient-norm":
            beta = beta * self._balance(step.module, task, constraint)
        return self.alpha * task + beta * constraint, clean

    def _balance(self, module, task, constraint):
        parameters = [p for p in module.parameters() if p.requires_grad]
        lengths = []
        for loss in (task, constraint):
            gradients = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
            parts = [g.norm() for g in gradients if g is not None]
            lengths.append(torch.stack(parts).norm() if parts else loss.new_zeros(()))
        ratio = lengths[0] / lengths[1].clamp(min=1e-30)
        return torch.where(lengths[1] > 0, ratio, 1.0).clamp(max=1e3)
