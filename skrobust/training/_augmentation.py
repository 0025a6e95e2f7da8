"""Training on extra samples from the ball around each input."""

import copy

import torch

from skrobust._validation import check_choice, check_flag, check_integer
from skrobust.attacks import FGSM, Target
from skrobust.networks import evaluation_mode
from skrobust.training._base import PropertyRegime

__all__ = ["DataAugmentation"]


class DataAugmentation(PropertyRegime):
    """Add samples from the ball around each input, with the label of that input.

    By default they are drawn anew at each step, which then sees its batch and `n_extra` times as
    many rows beside it; an epoch has as many steps as without them. With ``static=True`` they are
    drawn once, before training, and appended to the data: an epoch then has 1 + `n_extra` times as
    many steps of the optimizer, of mixed rows. At the same number of epochs the two are therefore
    not the same amount of training.

    Parameters
    ----------
    n_extra : int, default=2
        Samples added for each input.
    sampling : {"uniform", "fgsm"}, default="uniform"
        Uniform in the ball; or by FGSM, at evenly spaced shares of epsilon (half and all of it,
        for two), on the network as it is. With ``static=True`` and a fresh network that is a copy
        which is first trained on the data alone, by cross-entropy, for as many epochs.
    static : bool, default=False
        Whether the samples are drawn once. In `partial_fit` each call draws for its own data.
    property : RobustnessProperty or None, default=None
        Whose ball is sampled; the classifier's own property if None.

    Notes
    -----
    Casadio et al. augment statically. Of the samples by FGSM, their public code takes only those
    that mislead a trained network.

    References
    ----------
    Casadio et al., CAV 2022, section 2 and appendix B.
    """

    def __init__(self, n_extra=2, sampling="uniform", *, static=False, property=None):
        self.n_extra = n_extra
        self.sampling = sampling
        self.static = static
        self.property = property

    def check(self, property, X, n_classes=2):
        check_integer("n_extra", self.n_extra, low=1)
        check_choice("sampling", self.sampling, ("uniform", "fgsm"))
        check_flag("static", self.static)
        super().check(property, X, n_classes)

    def start(self, fit):
        if not self.static:
            return
        property = self.trained_property(fit.property)
        module = fit.module
        if self.sampling == "fgsm" and fit.epoch == 0:
            module = _trained_copy(fit)
        parts = zip(fit.X.split(fit.batch_size), fit.y.split(fit.batch_size), strict=True)
        extra = [
            self._samples(module, property, x.to(fit.device), y.to(fit.device), fit.generator)
            for x, y in parts
        ]
        weight = fit.sample_weight
        weight = None if weight is None else weight.repeat_interleave(self.n_extra)
        fit.append(torch.cat(extra), fit.y.repeat_interleave(self.n_extra), weight)

    def loss(self, state, step):
        if self.static:
            return step.task_loss(step.logits), step.logits
        property = self.trained_property(step.property)
        extra = self._samples(step.module, property, step.x, step.labels, step.generator)
        logits = step.module(torch.cat([step.x, extra]))
        labels = self._with_extra(step.labels)
        weight = None if step.sample_weight is None else self._with_extra(step.sample_weight)
        return step.task_loss(logits, labels, weight), logits[: len(step.x)]

    def _with_extra(self, values):
        return torch.cat([values, values.repeat_interleave(self.n_extra)])

    def _samples(self, module, property, x, labels, generator):
        """Return `n_extra` points for each row of `x`, one after the other."""
        if self.sampling == "uniform":
            return property.ball(x).sample(self.n_extra, generator).flatten(0, 1)
        with evaluation_mode(module):
            target = Target(module, property, x, labels)
            corner = FGSM(objective="cross-entropy").points(target, generator=generator)
        # The ball is convex, so the points between the input and the FGSM point lie in it.
        shares = torch.arange(1, self.n_extra + 1, device=x.device) / self.n_extra
        move = (corner.detach() - x).unsqueeze(1)
        return (x.unsqueeze(1) + shares.view(1, -1, 1) * move).flatten(0, 1)


def _trained_copy(fit):
    """Return a copy of the module, trained on the data alone for as many epochs as the fit has."""
    # Together, so that the copy of the optimizer updates the weights of the copy.
    module, optimizer = copy.deepcopy((fit.module, fit.optimizer))
    module.train()
    shuffler = torch.Generator().manual_seed(fit.random_state.randint(2**31 - 1))
    for _ in range(fit.n_epochs):
        order = torch.randperm(len(fit.X), generator=shuffler)
        for part in order.tensor_split(fit.n_steps):
            optimizer.zero_grad()
            logits = module(fit.X[part].to(fit.device))
            losses = torch.nn.functional.cross_entropy(
                logits, fit.y[part].to(fit.device), reduction="none"
            )
            if fit.sample_weight is not None:
                losses = losses * fit.sample_weight[part].to(losses)
            losses.mean().backward()
            optimizer.step()
    return module
