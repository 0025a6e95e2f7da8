"""The base classes of training regimes."""

from abc import ABC, abstractmethod

from sklearn.base import BaseEstimator

from skrobust._parameters import DefaultParts
from skrobust._validation import check_instance
from skrobust.attacks import Attack
from skrobust.properties import check_property

__all__ = ["PropertyRegime", "TrainingRegime"]


class TrainingRegime(BaseEstimator, ABC):
    """Base class of training regimes: what loss a classifier minimizes on each batch.

    A regime without a memory writes `loss` alone. One that needs more than the batch (a second
    network with its own optimizer, samples that are added before training, averages of the
    weights) makes it in `start`, reads and changes it in `loss`, and has a last word in
    `finish`. Parameters are those of the constructor, which only stores them, as always in
    scikit-learn; what `start` returns belongs to one fit, so that one regime can serve several
    fits at the same time.

    Notes
    -----
    Take random numbers from the `generator` of the fit or the step: then fits repeat, in
    threads, processes and on a cluster. A draw from torch's global generator, as by dropout,
    is given numbers of the fit's own (`RobustClassifier` says what is out of reach).

    In `partial_fit` each call starts and finishes. `start` is given the state that the call
    before ended with, as `TrainingFit.previous`, and may go on with it. A pickle or a copy of
    the classifier holds no state; what `finish` returns is kept there.

    Examples
    --------
    Label smoothing in one's own words:

    >>> import torch
    >>> from skrobust import RobustClassifier
    >>> from skrobust.training import TrainingRegime
    >>> class Smoothed(TrainingRegime):
    ...     def __init__(self, share=0.1):
    ...         self.share = share
    ...
    ...     def loss(self, state, step):
    ...         uniform = -torch.log_softmax(step.logits, dim=1).mean(dim=1)
    ...         task = step.task_loss(step.logits)
    ...         return (1 - self.share) * task + self.share * step.mean(uniform), step.logits
    >>> X, y = [[0.0], [0.1], [0.9], [1.0]], [0, 0, 1, 1]
    >>> model = RobustClassifier(training=Smoothed(0.2), max_epochs=100, random_state=0)
    >>> model.fit(X, y).predict(X)
    array([0, 0, 1, 1])
    """

    def check(self, property, X, n_classes=2):
        """Validate the parameters, before training.

        Parameters
        ----------
        property : RobustnessProperty or None
            The classifier's own property.
        X : ndarray of shape (n_samples, n_features)
            The data.
        n_classes : int, default=2
            Number of classes.
        """

    def start(self, fit):
        """Make what `loss` needs beside the batch; return it, the state.

        Parameters
        ----------
        fit : TrainingFit
            The module, the data and the settings of this call; ``fit.append`` adds samples.

        Returns
        -------
        object
            Anything; handed to `loss` and `finish`. None by default.
        """
        return None

    def begin_epoch(self, state, epoch):
        """Do what is due before the batches of an epoch are made; nothing by default.

        Parameters
        ----------
        state : object
            What `start` returned.
        epoch : int
            Number of epochs completed, as in ``step.epoch``.
        """

    @abstractmethod
    def loss(self, state, step):
        """Return the loss to minimize at this step, and the outputs at the batch.

        Parameters
        ----------
        state : object
            What `start` returned.
        step : TrainingStep
            The batch and the module, in training mode.

        Returns
        -------
        loss : Tensor of shape ()
            Its gradient updates the weights of the module.
        logits : Tensor of shape (n, n_classes)
            Outputs at the batch, ``step.logits`` for example, for skorch's callbacks.
        """

    def finish(self, state):
        """Do what is left after the last step: put averaged weights into the module, say.

        Called after an interrupt by the keyboard, too, unless it came before `start` had ended;
        not where training ended in an error.

        Parameters
        ----------
        state : object
            What `start` returned.

        Returns
        -------
        object
            What stays with the classifier as its ``companion_``, in pickles and copies too: a
            second network, say, on the CPU. None by default.
        """
        return None


class PropertyRegime(DefaultParts, TrainingRegime):
    """Base class of regimes that train for a property: their own, or the classifier's.

    A subclass has the constructor parameter `property`, where None stands for the property of
    the classifier, and calls `trained_property`. It lists the attacks that it uses, to have
    them validated, in `attacks`.

    Examples
    --------
    >>> from skrobust.attacks import FGSM
    >>> from skrobust.training import PropertyRegime
    >>> class OneStep(PropertyRegime):
    ...     def __init__(self, *, property=None):
    ...         self.property = property
    ...
    ...     def loss(self, state, step):
    ...         x = step.attack(FGSM("cross-entropy"), self.trained_property(step.property))
    ...         logits = step.module(x)
    ...         return step.task_loss(logits), logits
    """

    def check(self, property, X, n_classes=2):
        trained_for = self.trained_property(property)
        if trained_for is None:
            raise ValueError(
                f"Got property=None, but expected a robustness property: {type(self).__name__} "
                "trains for one. Give it to the classifier or to the regime, for example "
                "property=ClassificationRobustness(epsilon=0.1)."
            )
        check_property(trained_for, X)
        for attack in self.attacks():
            check_instance("attack", attack, Attack, "PGD(n_steps=10)").check()

    def trained_property(self, property):
        """Return the regime's own property, or the classifier's where it has none.

        Parameters
        ----------
        property : RobustnessProperty or None
            The classifier's property, as in ``step.property``.

        Returns
        -------
        RobustnessProperty or None
        """
        return property if self.property is None else self.property

    def attacks(self):
        """Return the attacks that the regime uses, to be validated before training.

        Returns
        -------
        sequence of Attack
            By default `attack`, where that is a parameter which has a default.
        """
        return (self._part("attack"),) if "attack" in self._default_parts() else ()
