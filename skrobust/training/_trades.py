"""TRADES: the loss of the task, and how far the outputs move in the ball."""

import torch

from skrobust._validation import check_real
from skrobust.attacks import PGD
from skrobust.training._base import PropertyRegime
from skrobust.training._divergence import SameProbabilities, divergence

__all__ = ["TradesTraining"]


class TradesTraining(PropertyRegime):
    r"""Minimize the loss of the task + :math:`\beta` x the divergence that an attack finds.

    With p(x) for the probabilities at the input, and p(x') for those at the point of its ball that
    the attack ends at, this is :math:`\mathrm{CE}(p(x), y) + \beta \, \mathrm{KL}(p(x) \| p(x'))`.
    The second part asks for outputs that stay what they are, right or wrong; `beta` says how much
    accuracy may cost.

    Parameters
    ----------
    beta : float, default=6.0
        Weight of the divergence (the paper's :math:`1 / \lambda`; it tries 1 and 6).
    attack : Attack or None, default=None
        Looks for the largest divergence where its objective is "margin". None is PGD of 10 steps.
        At the input itself the divergence has no gradient but rounding: an attack should start
        elsewhere, as PGD does, and not there, as FGSM.
    property : RobustnessProperty or None, default=None
        In whose ball; the classifier's own property if None. Nothing else of it is used.

    References
    ----------
    Zhang et al., "Theoretically principled trade-off between robustness and accuracy", ICML 2019,
    equation 5 and algorithm 1.

    Examples
    --------
    >>> from skrobust import RobustClassifier
    >>> from skrobust.datasets import load_digits
    >>> from skrobust.properties import ClassificationRobustness
    >>> from skrobust.training import TradesTraining
    >>> X, y = load_digits(return_X_y=True)
    >>> property = ClassificationRobustness(epsilon=0.1)
    >>> model = RobustClassifier(
    ...     property=property, training=TradesTraining(), max_epochs=5, random_state=0
    ... ).fit(X[:1000], y[:1000])
    >>> model.score(X[1000:], y[1000:]) > 0.7
    True
    """

    def __init__(self, beta=6.0, *, attack=None, property=None):
        self.beta = beta
        self.attack = attack
        self.property = property

    def check(self, property, X, n_classes=2):
        check_real("beta", self.beta, low=0)
        super().check(property, X, n_classes)

    def _default_parts(self):
        return {"attack": PGD(10)}

    def loss(self, state, step):
        same = SameProbabilities.in_ball_of(self.trained_property(step.property))
        x = step.attack(self._part("attack"), same)
        # One pass over both, so that batch statistics are shared.
        clean, attacked = step.module(torch.cat([step.x, x])).chunk(2)
        moved = step.mean(divergence(clean, attacked))
        return step.task_loss(clean) + self.beta * moved, clean
