"""Training without regard to robustness."""

from skrobust.training._base import TrainingRegime

__all__ = ["StandardTraining"]


class StandardTraining(TrainingRegime):
    """Minimize the loss of the task alone (cross-entropy, unless you choose another).

    Examples
    --------
    >>> from skrobust.training import StandardTraining
    >>> StandardTraining()
    StandardTraining()
    """

    def loss(self, state, step):
        return step.task_loss(step.logits), step.logits
