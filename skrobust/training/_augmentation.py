"""Training on extra samples from the ball around each input."""

import torch

from skrobust._validation import check_choice, check_integer
from skrobust.attacks import FGSM
from skrobust.training._base import PropertyRegime

__all__ = ["DataAugmentation"]


class DataAugmentation(PropertyRegime):
    """Add samples from the ball around each input, with the label of that input.

    The samples are drawn anew at each step. The paper's own code adds samples once, before
    training, and for "fgsm" only those that mislead a trained network.

    Parameters
    ----------
    n_extra : int, default=2
        Samples added for each input.
    sampling : {"uniform", "fgsm"}, default="uniform"
        Uniform in the ball; or by FGSM on the network as it is, at evenly spaced shares of
        epsilon (half and all of it, for two).
    property : RobustnessProperty or None, default=None
        Whose ball is sampled; the classifier's own property if None.

    References
    ----------
    Casadio et al., CAV 2022, section 3.
    """

    def __init__(self, n_extra=2, sampling="uniform", *, property=None):
        self.n_extra = n_extra
        self.sampling = sampling
        self.property = property

    def check(self, property, X, n_classes=2):
        check_integer("n_extra", self.n_extra, low=1)
        check_choice("sampling", self.sampling, ("uniform", "fgsm"))
        super().check(property, X, n_classes)

    def loss(self, state, step):
        property = self.trained_property(step.property)
        if self.sampling == "uniform":
            extra = property.ball(step.x).sample(self.n_extra, step.generator).flatten(0, 1)
        else:
            extra = self._fgsm_samples(step, property)
        logits = step.module(torch.cat([step.x, extra]))
        labels = self._with_extra(step.labels)
        weight = None if step.sample_weight is None else self._with_extra(step.sample_weight)
        return step.task_loss(logits, labels, weight), logits[: len(step.x)]

    def _with_extra(self, values):
        return torch.cat([values, values.repeat_interleave(self.n_extra)])

    def _fgsm_samples(self, step, property):
        # The box is convex, so the points between the input and the FGSM point lie in it.
        attack = FGSM(objective="cross-entropy")
        move = (step.attack(attack, property) - step.x).unsqueeze(1)
        shares = torch.arange(1, self.n_extra + 1, device=step.x.device) / self.n_extra
        points = step.x.unsqueeze(1) + shares.view(1, -1, 1) * move
        return points.flatten(0, 1)
