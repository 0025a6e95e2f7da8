"""Several regimes, one after the other."""

from dataclasses import dataclass, replace

from skrobust._parameters import NamedParts
from skrobust._validation import check_instance, check_integer, expected
from skrobust.training._base import TrainingRegime
from skrobust.training._hook import TrainingFit
from skrobust.training._standard import StandardTraining

__all__ = ["SequentialTraining"]


@dataclass(eq=False)
class _Turns:
    """Whose turn it is, and the state of that regime."""

    fit: TrainingFit | None
    data: tuple  # X, y and weights before any regime adds to them
    starts: list  # first epoch of each regime
    previous: object  # the turns of the last call
    place: int | None = None
    regime: TrainingRegime | None = None
    state: object = None
    companion: object = None  # what a regime left; the last one that left something


class SequentialTraining(NamedParts, TrainingRegime):
    """Train by one regime after the other, each for some epochs.

    A regime starts when its turn comes, on the network as the one before has left it, and
    finishes when its turn is over. Each has the data that `fit` was given: samples that one adds
    are its own. What rises over epochs, as the radius of `CertifiedTraining`, rises over those of
    the regime's own turn. The optimizer goes on throughout. The classifier's ``companion_`` is
    that of the last regime that leaves one.

    Parameters
    ----------
    regimes : list of TrainingRegime or of pairs (name, TrainingRegime), or None, default=None
        In their order. One without a name has that of its class in lower case, with ``_1``, ``_2``
        where there are several of a class. A search reaches them, as in
        ``training__adversarialtraining__attack__n_steps``. None is StandardTraining alone.
    n_epochs : list of int, or None, default=None
        Epochs of each regime; the last entry may be None. None shares `max_epochs` of the
        classifier out equally.

    Notes
    -----
    The classifier's `max_epochs` stays the number of epochs of a `fit`. The last regime goes on
    where it is more than the sum of `n_epochs`, and also in later calls of `partial_fit`, which
    count the epochs of all calls. A `max_epochs` with which a regime would not have its turn, or
    not all of it, is refused.

    ``training=[(first, 10), (second, 20)]`` of `RobustClassifier` is short for
    ``SequentialTraining([first, second], [10, 20])``.

    Examples
    --------
    >>> from skrobust import RobustClassifier
    >>> from skrobust.datasets import load_digits
    >>> from skrobust.properties import ClassificationRobustness
    >>> from skrobust.training import AdversarialTraining, SequentialTraining, StandardTraining
    >>> X, y = load_digits(return_X_y=True)
    >>> training = SequentialTraining([StandardTraining(), AdversarialTraining()], [3, 2])
    >>> model = RobustClassifier(
    ...     property=ClassificationRobustness(epsilon=0.1),
    ...     training=training.set_params(adversarialtraining__attack__n_steps=5),
    ...     max_epochs=5,
    ...     random_state=0,
    ... ).fit(X[:1000], y[:1000])
    >>> model.score(X[1000:], y[1000:]) > 0.7
    True
    """

    _parts_name = "regimes"

    def __init__(self, regimes=None, n_epochs=None):
        self.regimes = regimes
        self.n_epochs = n_epochs

    @classmethod
    def of_pairs(cls, pairs):
        """Return the sequence that a list of pairs (regime, number of epochs) stands for."""
        expectation = (
            "a regime, or a list of pairs (regime, number of epochs), such as "
            "[(StandardTraining(), 10), (AdversarialTraining(), 20)]"
        )
        if not pairs or not all(isinstance(p, tuple | list) and len(p) == 2 for p in pairs):
            raise TypeError(expected("training", pairs, expectation))
        for regime, _ in pairs:
            check_instance("training", regime, TrainingRegime, "AdversarialTraining()")
        return cls([regime for regime, _ in pairs], [number for _, number in pairs])

    def _default_list(self):
        return [StandardTraining()]

    def check(self, property, X, n_classes=2):
        self._check_parts(TrainingRegime, "AdversarialTraining()", property, X, n_classes)
        n = len(self.named_parts)
        if self.n_epochs is None:
            return
        if not isinstance(self.n_epochs, list | tuple) or len(self.n_epochs) != n:
            expectation = f"None, or a list of {n} integers, one for each regime"
            raise ValueError(expected("n_epochs", self.n_epochs, expectation))
        for place, number in enumerate(self.n_epochs):
            if number is not None or place < n - 1:
                check_integer(f"n_epochs[{place}]", number, low=1)

    def start(self, fit):
        starts = self._starts(fit.max_epochs)
        data = fit.X, fit.y, fit.sample_weight
        previous = fit.previous if isinstance(fit.previous, _Turns) else None
        turns = _Turns(fit, data, starts, previous)
        turns.companion = None if previous is None else previous.companion
        self._give_turn(turns, fit.epoch)
        return turns

    def begin_epoch(self, state, epoch):
        self._give_turn(state, epoch)
        state.regime.begin_epoch(state.state, epoch - state.starts[state.place])

    def _give_turn(self, state, epoch):
        """Finish a regime and start the next, where an epoch is the first of its turn."""
        place = sum(first <= epoch for first in state.starts) - 1
        if place == state.place:
            return
        fit, previous = state.fit, state.previous
        if state.place is not None:
            self._end_turn(state)
            fit.X, fit.y, fit.sample_weight = state.data
        last = self._last(state, place)
        went_on = previous is not None and previous.place == place
        own = replace(
            fit,
            epoch=epoch - state.starts[place],
            n_epochs=max(min(last, fit.epoch + fit.n_epochs) - epoch, 1),
            max_epochs=last - state.starts[place],
            previous=previous.state if went_on else None,
        )
        state.place, state.regime = place, list(self.named_parts.values())[place]
        state.state = state.regime.start(own)
        fit.X, fit.y, fit.sample_weight = own.X, own.y, own.sample_weight

    def loss(self, state, step):
        # Done already, unless a regime around this one does not pass `begin_epoch` on.
        self._give_turn(state, step.epoch)
        first = state.starts[state.place]
        last = self._last(state, state.place)
        own = replace(step, epoch=step.epoch - first, max_epochs=last - first)
        return state.regime.loss(state.state, own)

    def _end_turn(self, state):
        companion = state.regime.finish(state.state)
        state.companion = state.companion if companion is None else companion

    def finish(self, state):
        self._end_turn(state)
        # The state is kept for the next call, which brings data of its own.
        state.fit = state.data = state.previous = None
        return state.companion

    def _last(self, state, place):
        """Return the epoch at which the turn of a regime ends."""
        later = state.starts[place + 1 :]
        return later[0] if later else max(state.fit.max_epochs, state.starts[-1] + 1)

    def _starts(self, max_epochs):
        """Return the first epoch of each regime, or raise where one would not have its turn."""
        n = len(self.named_parts)
        numbers = [None] if self.n_epochs is None else list(self.n_epochs)
        least = n if self.n_epochs is None else sum(1 if k is None else k for k in numbers)
        if max_epochs < least:
            expectation = f"at least {least}, so that each regime in sequence has its epochs"
            raise ValueError(expected("max_epochs", max_epochs, expectation))
        if self.n_epochs is None:
            return [k * max_epochs // n for k in range(n)]
        return [sum(numbers[:k]) for k in range(n)]
