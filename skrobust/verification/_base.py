"""What all verifiers share."""

import time
from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
import torch
from sklearn.base import BaseEstimator

from skrobust._validation import check_bounds, check_epsilon, check_instance
from skrobust.attacks import Target, attack_and_confirm, confirm
from skrobust.graphs import read_graph
from skrobust.properties import RobustnessProperty
from skrobust.verification._query import check_rows_of_logits
from skrobust.verification._result import Verification

__all__ = [
    "Encoding",
    "Step",
    "Stopwatch",
    "Verifier",
    "at_reference",
    "attacked",
]


@dataclass(frozen=True, eq=False)
class Encoding:
    """A network and a property, read once for many points.

    Parameters
    ----------
    network : Network
    property : RobustnessProperty
    graph : object
        The network as the verifier needs it; by default a `Graph` in float64.
    """

    network: object
    property: RobustnessProperty
    graph: object

    def target(self, x, labels=None):
        """Return the `Target` at the reference points `x`, in the network's own precision."""
        return Target(self.network, self.property, x, labels)


@dataclass(frozen=True, eq=False)
class Step:
    """Something that is asked of points, so that a caller can spread it over chunks and jobs.

    Parameters
    ----------
    name : str
    state : Encoding
    decide : callable
        ``decide(state, x, labels, timeout=, generator=) -> Verification``; picklable.
    is_slow : bool
        Whether one point takes long enough to be a job of its own.
    """

    name: str
    state: Encoding
    decide: object
    is_slow: bool


class Verifier(BaseEstimator, ABC):
    """Base class: decides whether a property holds on the whole ball of each point.

    Subclasses define `check`, `decide`, and, where they accept less than piecewise linear
    networks and linear properties, `accepts`.
    """

    @property
    def name(self):
        """What the verifier is called in results."""
        return type(self).__name__.lower()

    def is_slow(self, state):
        """Return whether one point takes long enough to be a job of its own."""
        return False

    @abstractmethod
    def check(self):
        """Validate the parameters; return self."""

    def accepts(self, network, property):
        """Refuse what the verifier cannot treat, before any work starts.

        Raises
        ------
        UnsupportedModelError
            If the network is of another kind.
        UnsupportedPropertyError
            If the property, or its norm, is of another kind.
        """
        n_classes = getattr(network, "n_classes", None) or len(network.classes)
        check_rows_of_logits(property, n_classes)

    def encode(self, network, property, n_features=None):
        """Return the `Encoding` of a network and a property, to ask for many points.

        Parameters
        ----------
        network : Network
        property : RobustnessProperty
        n_features : int, default=None
            Entries of a row, where the network does not know them.
        """
        self.check()
        example = "ClassificationRobustness()"
        check_instance("property", property, RobustnessProperty, example).check()
        self.accepts(network, property)
        return Encoding(network, property, self._graph(network, n_features))

    def _graph(self, network, n_features):
        return read_graph(network, n_features)

    @abstractmethod
    def decide(self, state, x, labels=None, *, timeout=None, generator=None):
        """Decide the property around a batch of rows.

        Parameters
        ----------
        state : Encoding
        x : Tensor of shape (n, n_features)
            Reference points, in the dtype of the network.
        labels : Tensor of shape (n,), default=None
            True class indices, where the property needs them.
        timeout : float, default=None
            Seconds for each point; no limit if None.
        generator : torch.Generator, default=None
            Source of randomness; torch's own one if None.

        Returns
        -------
        Verification
        """

    def decide_open(self, state, x, labels=None, *, timeout=None, generator=None):
        """Decide points that an attack and bounds have left open; as `decide` by default."""
        return self.decide(state, x, labels, timeout=timeout, generator=generator)

    def run(self, state, x, labels, ask, *, timeout=None):
        """Decide a batch of rows, where a caller sees to the work.

        Parameters
        ----------
        state : Encoding
        x : Tensor of shape (n, n_features)
        labels : Tensor of shape (n,) or None
        ask : callable
            ``ask(step, index, timeout)`` returns the `Verification` that a `Step` gives for
            the rows at `index`.
        timeout : float, default=None

        Returns
        -------
        Verification
        """
        step = Step(self.name, state, self.decide, self.is_slow(state))
        return ask(step, np.arange(len(x)), timeout).signed(self.name)

    def verify(self, network, property, x, labels=None, *, timeout=None, generator=None):
        """Encode a network and a property, and decide; see `encode` and `decide`."""
        state = self.encode(network, property, x.shape[1])
        return self.decide(state, x, labels, timeout=timeout, generator=generator)


def at_reference(target):
    """Return the `Verification` that looking at the reference points alone can give.

    Where the property is broken there, it is falsified; where it is not, and no feature of the
    point can move, it is verified, since the ball holds no other point.
    """
    broken = confirm(target, target.x).broken
    found = Verification.undecided(target.x)
    found = found.falsify(np.arange(len(target.x)), target.x, broken)
    property, center = target.property, target.x.double()
    # As float64 from the start: torch would make a Python float a float32.
    exact = {"dtype": torch.float64, "device": center.device}
    radius = torch.as_tensor(check_epsilon(property.epsilon), **exact)
    moves = (radius > 0).expand_as(center)
    bounds = check_bounds(property.bounds)
    if bounds is not None:
        low, high = (torch.as_tensor(bound, **exact) for bound in bounds)
        moves = moves & ((low < center) | (high > center))
    fixed = (~moves.any(dim=1) & ~broken).cpu().numpy()
    return found.prove(np.flatnonzero(fixed))


def attacked(attack, found, state, x, labels=None, generator=None):
    """Return `found` with its undecided points attacked.

    Parameters
    ----------
    attack : Attack
    found : Verification
        Of the rows of `x`.
    state : Encoding
    x : Tensor of shape (n, n_features)
    labels : Tensor of shape (n,), default=None
    generator : torch.Generator, default=None
    """
    left, watch = found.undecided_index, Stopwatch()
    if len(left) == 0:
        return found
    target = state.target(x, labels)[torch.as_tensor(left, device=x.device)]
    outcome = attack_and_confirm(attack, target, generator)
    found = found.falsify(left, outcome.points, outcome.broken)
    found.seconds[left] += watch.elapsed / len(left)
    return found


class Stopwatch:
    """Wall time since it was made, against a limit.

    Parameters
    ----------
    timeout : float or None
        Seconds; no limit if None.
    """

    def __init__(self, timeout=None):
        self.start = time.perf_counter()
        self.timeout = float("inf") if timeout is None else timeout

    @property
    def elapsed(self):
        """Seconds since the start."""
        return time.perf_counter() - self.start

    def part(self, seconds):
        """Return a new watch for that many seconds from now, or for what is left if less."""
        return Stopwatch(min(seconds, self.left))

    @property
    def left(self):
        """Seconds until the limit, not below 0."""
        return max(0.0, self.timeout - self.elapsed)
