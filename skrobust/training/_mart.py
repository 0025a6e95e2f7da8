"""MART: adversarial training that minds misclassified inputs more."""

import torch

from skrobust._validation import check_real
from skrobust.attacks import PGD
from skrobust.training._base import PropertyRegime
from skrobust.training._divergence import divergence

__all__ = ["MartTraining"]


class MartTraining(PropertyRegime):
    r"""Minimize a loss at attacked points + :math:`\beta` x a divergence, where inputs are wrong.

    With p(x) for the probabilities at the input, and p(x') for those at the point that the attack
    finds, the loss is

    .. math::

        -\log p_y(x') - \log(1 - \max_{k \ne y} p_k(x'))
        + \beta \, \mathrm{KL}(p(x) \| p(x')) \, (1 - p_y(x)).

    The first term is the loss of the task; the last one counts for inputs that are not classified
    well as they are.

    Parameters
    ----------
    beta : float, default=5.0
        Weight of the divergence (the paper's :math:`\lambda`).
    attack : Attack or None, default=None
        Any attack of `skrobust.attacks`. None is PGD of 10 steps on the cross-entropy.
    property : RobustnessProperty or None, default=None
        What the attack breaks; the classifier's own property if None.

    References
    ----------
    Wang et al., "Improving adversarial robustness requires revisiting misclassified examples",
    ICLR 2020, equations 8 to 11.

    Examples
    --------
    >>> from skrobust import RobustClassifier
    >>> from skrobust.datasets import load_digits
    >>> from skrobust.properties import ClassificationRobustness
    >>> from skrobust.training import MartTraining
    >>> X, y = load_digits(return_X_y=True)
    >>> property = ClassificationRobustness(epsilon=0.1)
    >>> model = RobustClassifier(
    ...     property=property, training=MartTraining(), max_epochs=5, random_state=0
    ... ).fit(X[:1000], y[:1000])
    >>> model.score(X[1000:], y[1000:]) > 0.7
    True
    """

    def __init__(self, beta=5.0, *, attack=None, property=None):
        self.beta = beta
        self.attack = attack
        self.property = property

    def check(self, property, X, n_classes=2):
        check_real("beta", self.beta, low=0)
        super().check(property, X, n_classes)

    def _default_parts(self):
        return {"attack": PGD(10, objective="cross-entropy")}

    def loss(self, state, step):
        x = step.attack(self._part("attack"), self.trained_property(step.property))
        # One pass over both, so that batch statistics are shared.
        clean, attacked = step.module(torch.cat([step.x, x])).chunk(2)
        labels = step.labels.unsqueeze(1)
        wrong = 1 - torch.softmax(clean, dim=1).gather(1, labels).squeeze(1)
        own = -log_of_others(attacked, labels) + self.beta * wrong * divergence(clean, attacked)
        return step.task_loss(attacked) + step.mean(own), clean


def log_of_others(logits, labels):
    """Return log(1 - p_k), where k is the likeliest class but the label, of shape (n,).

    As the probability of all classes but k, whose logarithm does not overflow where p_k is 1.
    """
    rival = logits.detach().scatter(1, labels, -torch.inf).argmax(dim=1, keepdim=True)
    others = logits.scatter(1, rival, -torch.inf)
    return torch.logsumexp(others, dim=1) - torch.logsumexp(logits, dim=1)
