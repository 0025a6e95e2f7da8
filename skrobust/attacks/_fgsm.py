"""The fast gradient sign method."""

from skrobust.attacks._base import GradientAttack

__all__ = ["FGSM"]


class FGSM(GradientAttack):
    """Fast gradient sign method: one step of full length from the reference point.

    For the L2 norm the step follows the normalized gradient.

    Parameters
    ----------
    objective : {"margin", "smallest-row", "cross-entropy"}, default="margin"
        What the step goes against; see `GradientAttack`.

    References
    ----------
    Goodfellow, Shlens, Szegedy, "Explaining and harnessing adversarial examples", ICLR 2015.
    """

    def __init__(self, objective="margin"):
        self.objective = objective

    def walk(self, target, tracker, generator):
        gradient, _, _ = target.gradient(target.x, self.objective)
        return target.ball.step(target.x, gradient, -1.0)
