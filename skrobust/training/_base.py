"""The hook between a training regime and the training loop."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from sklearn.base import BaseEstimator

from skrobust._validation import check_instance
from skrobust.attacks import Attack, Target
from skrobust.networks import evaluation_mode
from skrobust.properties import RobustnessProperty

__all__ = ["PropertyRegime", "TrainingRegime", "TrainingStep"]


@dataclass(frozen=True, eq=False)
class TrainingStep:
    """What a regime is given at each step of the optimiser.

    Parameters
    ----------
    module : torch.nn.Module
        From rows to logits, in training mode.
    criterion : callable
        ``criterion(logits, labels)``: the loss of the task, a scalar.
    x : Tensor of shape (n, n_features)
    labels : Tensor of shape (n,)
        Class indices.
    property : RobustnessProperty or None
        What the classifier is trained for, unless the regime has its own.
    epoch : int
        Number of epochs completed before this one.
    """

    module: torch.nn.Module
    criterion: object
    x: torch.Tensor
    labels: torch.Tensor
    property: RobustnessProperty | None
    epoch: int

    def task_loss(self, x, labels):
        """Return the loss of the task at the rows `x`, and the logits there."""
        logits = self.module(x)
        return self.criterion(logits, labels), logits

    def attack(self, attack, property):
        """Return the points that `attack` reaches in evaluation mode, one for each row."""
        with evaluation_mode(self.module):
            return attack.points(Target(self.module, property, self.x, self.labels)).detach()


class TrainingRegime(BaseEstimator, ABC):
    """Base class: a regime turns each batch into a loss."""

    def check(self, property, X):
        """Validate the parameters, before training.

        Parameters
        ----------
        property : RobustnessProperty or None
            The classifier's own property.
        X : ndarray of shape (n_samples, n_features)
        """

    @abstractmethod
    def loss(self, step):
        """Return the loss of a `TrainingStep`, and logits of shape (n, n_classes) to report."""


class PropertyRegime(TrainingRegime):
    """Base class of regimes that train for a property: their own, or the classifier's."""

    def check(self, property, X):
        trained_for = self._property(property)
        if trained_for is None:
            raise ValueError(
                f"Got property=None, but expected a robustness property: {type(self).__name__} "
                "trains for one. Give it to the classifier or to the regime, for example "
                "property=ClassificationRobustness(epsilon=0.1)."
            )
        example = "ClassificationRobustness(epsilon=0.1)"
        check_instance("property", trained_for, RobustnessProperty, example).check(X)
        for attack in self._attacks():
            check_instance("attack", attack, Attack, "PGD(n_steps=10)").check()

    def _property(self, property):
        return property if self.property is None else self.property

    def _attacks(self):
        """Return the attacks that the regime uses, to be validated."""
        return ()
