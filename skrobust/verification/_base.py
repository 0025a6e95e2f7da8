"""What all verifiers share."""

import time
from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
import torch
from sklearn.base import BaseEstimator

from skrobust._validation import check_bounds, check_epsilon, check_instance
from skrobust.attacks import Target
from skrobust.graphs import read_graph
from skrobust.networks import BlackBox
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
    "confirm",
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
    broken = _replayed(target, target.x)
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
    outcome = attack.run(
        state.network, state.property, target.x, target.labels, generator=generator
    )
    points, broken = confirm(target, outcome.points, repair=False)
    found = found.falsify(left, points, broken)
    found.seconds[left] += watch.elapsed / len(left)
    return found


_REPAIR_STEPS = 25
_REPAIR_SIZE = 0.05  # first step, relative to epsilon


def confirm(target, points, *, repair=True):
    """Tell which candidates break the property in the estimator itself.

    Each point is put into the dtype
    of the network and into its ball and domain, and assessed by the outputs as the estimator
    computes them. One that breaks nothing is repaired by a short descent from there.

    Parameters
    ----------
    target : Target
        Of n reference points. Its network is a `Network`.
    points : Tensor or array-like of shape (n, n_features)
        Candidates in any dtype; rows with NaN are none.
    repair : bool, default=True
        Whether to repair what breaks nothing.

    Returns
    -------
    points : Tensor of shape (n, n_features)
        In the dtype and on the device of ``target.x``.
    broken : bool Tensor of shape (n,)
    """
    points = torch.as_tensor(points).detach().to(target.x.device)
    is_candidate = torch.isfinite(points).all(dim=1)
    points = torch.where(is_candidate[:, None], points, target.x.to(points.dtype))
    points = target.ball.project(points.to(target.x.dtype))
    broken = _replayed(target, points) & is_candidate
    index = (is_candidate & ~broken).nonzero().squeeze(1)
    # A black box has no gradient to walk down.
    if repair and len(index) and not isinstance(target.network, BlackBox):
        repaired, mended = _repair(target[index], points[index])
        points[index] = torch.where(mended[:, None], repaired, points[index])
        broken[index] = mended
    return points, broken


def _replayed(target, points):
    replay = getattr(target.network, "replay", None)
    if replay is not None:
        return target.replay(points).broken
    with torch.no_grad():
        return target.assess(points, target.network(points)).broken


def _repair(target, x):
    """Walk down the smallest row from x; return the first broken points met, and a mask."""
    found, broken = x.clone(), torch.zeros(len(x), dtype=torch.bool, device=x.device)
    for step in range(_REPAIR_STEPS):
        gradient, _, _ = target.gradient(x, "margin")
        x = target.ball.step(x, gradient, -_REPAIR_SIZE * (1 - step / _REPAIR_STEPS))
        fresh = _replayed(target, x) & ~broken
        found, broken = torch.where(fresh[:, None], x, found), broken | fresh
        if broken.all():
            break
    return found, broken


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
