"""What a training regime is given: a `TrainingFit` once, and a `TrainingStep` for each batch."""

import math
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch

from skrobust._validation import expected
from skrobust.attacks import Target
from skrobust.networks import check_logits, evaluation_mode
from skrobust.properties import RobustnessProperty

__all__ = ["TrainingFit", "TrainingStep"]


@dataclass(eq=False)
class TrainingFit:
    """What a regime is given at the start of a call of `fit` or `partial_fit`.

    Parameters
    ----------
    module : torch.nn.Module
        From rows to logits; the network that is trained.
    X : Tensor of shape (n_samples, n_features)
        Training data, without those of a validation split; on the CPU.
    y : Tensor of shape (n_samples,)
        Index of each label in `classes`; on the CPU.
    classes : ndarray of shape (n_classes,)
        Labels.
    property : RobustnessProperty or None
        What the classifier is trained for, unless the regime has its own.
    sample_weight : Tensor of shape (n_samples,) or None, default=None
        Weights, of mean 1 over all data of the call; None where all are equal.
    optimizer : torch.optim.Optimizer or None, default=None
        The one that updates `module` after each step.
    max_epochs : int, default=1
        The classifier's parameter: epochs of a call of `fit`.
    n_epochs : int, default=1
        Epochs of this call: `max_epochs`, or 1 in `partial_fit`.
    epoch : int, default=0
        Epochs completed in earlier calls.
    batch_size : int, default=128
        Samples of a step.
    generator : torch.Generator or None, default=None
        Source of random numbers on `device`, which follows from the classifier's
        `random_state`. Use it (and no global one), and fits repeat, in threads as well.
    random_state : numpy.random.RandomState or None, default=None
        The same for NumPy and scikit-learn.
    previous : object or None, default=None
        The state that the last call ended with, in `partial_fit`. None in the first call, where
        the regime is another one since, and where the classifier was copied or unpickled.
    input_shape : tuple of int or None, default=None
        The classifier's parameter: the shape, as (channels, height, width), that each row is
        given before the module that the user wrote sees it; None where that takes rows.
    """

    module: torch.nn.Module
    X: torch.Tensor
    y: torch.Tensor
    classes: np.ndarray
    property: RobustnessProperty | None
    sample_weight: torch.Tensor | None = None
    optimizer: torch.optim.Optimizer | None = None
    max_epochs: int = 1
    n_epochs: int = 1
    epoch: int = 0
    batch_size: int = 128
    generator: torch.Generator | None = None
    random_state: np.random.RandomState | None = None
    previous: object = None
    input_shape: tuple | None = None

    @property
    def device(self):
        """Device of the module and of each batch."""
        return next(self.module.parameters(), self.X).device

    @property
    def dtype(self):
        """Floating-point type of the module and of the data."""
        return self.X.dtype

    @property
    def n_steps(self):
        """Steps of an epoch; a last batch of one sample joins the batch before it."""
        # Batch norm cannot be trained on a batch of one.
        whole, rest = divmod(len(self.X), self.batch_size)
        return max(whole + (rest > 1), 1)

    def append(self, X, y, sample_weight=None):
        """Add samples to the training data of this call, as in static augmentation.

        Parameters
        ----------
        X : Tensor of shape (k, n_features)
        y : Tensor of shape (k,)
            Indices into `classes`.
        sample_weight : Tensor of shape (k,) or None, default=None
            Weights, beside a mean of 1; all 1 if None.

        Raises
        ------
        ValueError
            If the samples have another number of features, labels that are no class, another
            number of labels or weights than of rows, or entries that are not finite.
        """
        X = torch.as_tensor(X).detach().to(self.X.device, self.X.dtype)
        y = torch.as_tensor(y).detach().to(self.y.device)
        if X.ndim != 2 or X.shape[1] != self.X.shape[1] or not torch.isfinite(X).all():
            shape = f"(k, {self.X.shape[1]})"
            raise ValueError(expected("X", X, f"finite rows of shape {shape} to append"))
        if y.shape != (len(X),) or y.is_floating_point() or not self._are_classes(y):
            expectation = f"{len(X)} indices of classes, from 0 to {len(self.classes) - 1}"
            raise ValueError(expected("y", y, expectation))
        if sample_weight is not None or self.sample_weight is not None:
            self._append_weights(sample_weight, len(X))
        self.X, self.y = torch.cat([self.X, X]), torch.cat([self.y, y.to(self.y.dtype)])

    def _append_weights(self, sample_weight, n_new):
        old, new = self.sample_weight, sample_weight
        old = torch.ones(len(self.X)) if old is None else old
        new = torch.ones(n_new) if new is None else torch.as_tensor(new).detach().to(old)
        if new.shape != (n_new,) or not (torch.isfinite(new) & (new >= 0)).all():
            expectation = f"{n_new} finite weights of at least 0"
            raise ValueError(expected("sample_weight", sample_weight, expectation))
        self.sample_weight = torch.cat([old, new])

    def _are_classes(self, y):
        return bool(((y >= 0) & (y < len(self.classes))).all())


@dataclass(frozen=True, eq=False)
class TrainingStep:
    """What a regime is given at each step of the optimizer.

    Parameters
    ----------
    module : torch.nn.Module
        From rows to logits, in training mode.
    criterion : callable
        ``criterion(logits, labels)``: the loss of the task, a scalar; or a vector of one loss
        for each sample, where there is a `sample_weight`. `task_loss` treats both.
    x : Tensor of shape (n, n_features)
        The batch.
    labels : Tensor of shape (n,)
        Class indices.
    property : RobustnessProperty or None
        What the classifier is trained for, unless the regime has its own.
    epoch : int
        Number of epochs completed before this one, those of earlier calls of `partial_fit`
        included.
    batch : int, default=0
        Number of steps completed in this epoch.
    n_steps : int, default=1
        Steps of an epoch.
    max_epochs : int, default=1
        The classifier's parameter: epochs of a call of `fit`.
    index : Tensor of shape (n,) or None, default=None
        Rows of ``fit.X`` that the batch is made of, on the CPU.
    sample_weight : Tensor of shape (n,) or None, default=None
        Weights, of mean 1 over all data; None where all are equal.
    generator : torch.Generator or None, default=None
        The fit's own source of random numbers.
    """

    module: torch.nn.Module
    criterion: object
    x: torch.Tensor
    labels: torch.Tensor
    property: RobustnessProperty | None
    epoch: int
    batch: int = 0
    n_steps: int = 1
    max_epochs: int = 1
    index: torch.Tensor | None = None
    sample_weight: torch.Tensor | None = None
    generator: torch.Generator | None = field(default=None, repr=False)

    @cached_property
    def logits(self):
        """Outputs at `x` in training mode, of shape (n, n_classes); computed when asked for."""
        return self.module(self.x)

    @property
    def progress(self):
        """Share, in [0, 1), of the training that is done before this step.

        It stays just below 1 where `partial_fit` goes on beyond `max_epochs`.
        """
        share = (self.epoch + self.batch / self.n_steps) / self.max_epochs
        return min(share, math.nextafter(1.0, 0.0))

    def ramp(self, n_epochs):
        """Return the share, in (0, 1], that something has that rises in equal steps.

        Parameters
        ----------
        n_epochs : int
            Epochs after which it is 1; with 0 it is 1 from the start.

        Returns
        -------
        float
        """
        return min((self.epoch + 1) / n_epochs, 1.0) if n_epochs else 1.0

    def task_loss(self, logits, labels=None, sample_weight=None):
        """Return the loss of the task, weighted by sample, as a scalar.

        Parameters
        ----------
        logits : Tensor of shape (k, n_classes)
            Outputs at points of your choice.
        labels : Tensor of shape (k,), default=None
            Class indices; `labels` of the step if None.
        sample_weight : Tensor of shape (k,), default=None
            Weights of the rows of `logits`; those of the step if None. Not read where the step
            has none.

        Returns
        -------
        Tensor of shape ()

        Raises
        ------
        UnsupportedModelError
            If `logits` is no tensor.
        ValueError
            If `logits` is not of shape (k, n_classes).
        """
        labels = self.labels if labels is None else labels
        losses = self.criterion(check_logits(logits, len(labels), when="in training mode"), labels)
        return losses if self.sample_weight is None else self.mean(losses, sample_weight)

    def mean(self, losses, sample_weight=None):
        """Return the mean of one loss for each sample, weighted where there are weights.

        The weights have a mean of 1 over all data, not over the batch: so the gradient of a
        step is right on average, and a batch of light samples counts for less.

        Parameters
        ----------
        losses : Tensor of shape (k,)
        sample_weight : Tensor of shape (k,), default=None
            Weights of `losses`; those of the step if None.

        Returns
        -------
        Tensor of shape ()
        """
        if self.sample_weight is None:
            return losses.mean()
        weight = self.sample_weight if sample_weight is None else sample_weight
        return (weight * losses).mean()

    def attack(self, attack, property):
        """Return the points that an attack reaches in evaluation mode, without gradient.

        Parameters
        ----------
        attack : Attack
            Of `skrobust.attacks`.
        property : RobustnessProperty
            What the attack breaks.

        Returns
        -------
        Tensor of shape (n, n_features)
            One point for each row of `x`.
        """
        with evaluation_mode(self.module):
            target = Target(self.module, property, self.x, self.labels)
            points = attack.points(target, generator=self.generator)
        return points.detach()
