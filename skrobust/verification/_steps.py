"""What a verifier does, as data: steps that one caller takes, in chunks and jobs or at once."""

from dataclasses import dataclass, field, replace

import numpy as np
import torch

from skrobust.attacks import Target
from skrobust.properties import RobustnessProperty
from skrobust.verification._result import VerificationBuilder

__all__ = ["Encoding", "Step", "decide_in_steps", "least"]


@dataclass(frozen=True, eq=False)
class Encoding:
    """A network and a property, read once for many points.

    Parameters
    ----------
    network : Model
    property : RobustnessProperty
    graph : object
        The network as the verifier needs it; by default a `Graph` in float64.
    keeps_proofs : bool, default=False
        Whether a verifier that can shall hand over what its proofs consist of.
    """

    network: object
    property: RobustnessProperty
    graph: object
    keeps_proofs: bool = field(default=False, kw_only=True)

    def with_proofs(self):
        """Return the encoding with proofs asked for."""
        return replace(self, keeps_proofs=True)

    def target(self, x, labels=None):
        """Return the `Target` at the reference points `x`, in the network's own precision."""
        return Target(self.network, self.property, x, labels)


@dataclass(frozen=True, eq=False)
class Step:
    """Something that is asked of points, as data: whoever has the points spreads it over jobs.

    Parameters
    ----------
    name : str
        Who decides, in results.
    encoding : Encoding
    decide : callable
        ``decide(encoding, x, labels, timeout=, generator=) -> Verification``; picklable.
    kind : {"attack", "bounds", "search"}, default="search"
        What it does.
    chunk_size : int or None, default=None
        Most points of one job; 1 where a point may take minutes. None where points are cheap
        together.
    timeout : float or None, default=None
        Seconds a point, for this step and those before it; no limit if None.
    is_optional : bool, default=False
        Whether a `Cascade` may leave it out after a step of the same kind: what a verifier does of
        itself, not because a user asked for it.
    """

    name: str
    encoding: Encoding
    decide: object
    kind: str = "search"
    chunk_size: int | None = None
    timeout: float | None = None
    is_optional: bool = False

    def turns(self, timeout, verdicts):
        """Return which points are asked together, and for how many seconds each.

        Parameters
        ----------
        timeout : float or None
            Seconds a point, for all steps.
        verdicts : VerificationBuilder

        Returns
        -------
        list of (ndarray, float or None)
            Places of points that have as much time left as each other, and that time.
        """
        index = verdicts.undecided_index
        limit = least(self.timeout, timeout)
        if not limit or len(index) == 0:  # no limit, or no time
            return [(index, limit)] if len(index) else []
        # In hundredths, rounded down: measured times differ a little from run to run, and the
        # time that is left is a part of the key of what is kept in a memory.
        left = np.floor(100 * (1 - verdicts.seconds[index] / limit).clip(0) + 1e-9)
        shares = np.unique(left)[::-1]
        return [(index[left == share], limit * float(share / 100)) for share in shares]

    def enter(self, verdicts, index, answer, x, labels):
        """Enter an answer into the verdicts so far.

        Parameters
        ----------
        verdicts : VerificationBuilder
            Of all points; changed.
        index : ndarray of shape (k,)
            Places of the points that were asked.
        answer : Verification
            Of these points.
        x, labels
            Of all points.
        """
        verdicts.merge(index, answer, self.name)


def least(*limits):
    """Return the smallest of the limits that are not None, or None."""
    return min((limit for limit in limits if limit is not None), default=None)


def decide_in_steps(steps, x, labels=None, *, timeout=None, generator=None, recorder=None):
    """Take the steps of a verifier one after the other, all points in one job.

    Parameters
    ----------
    steps : list of Step
    x : Tensor of shape (n, n_features)
    labels : Tensor of shape (n,), default=None
    timeout : float, default=None
        Seconds a point, all steps together.
    generator : torch.Generator, default=None
    recorder : Recorder, default=None
        Is given each answer, and keeps the evidence for it.

    Returns
    -------
    Verification
    """
    verdicts = VerificationBuilder(x)
    for step in steps:
        for index, limit in step.turns(timeout, verdicts):
            at = torch.as_tensor(index, device=x.device)
            points = (x[at], None if labels is None else labels[at])
            answer = step.decide(step.encoding, *points, timeout=limit, generator=generator)
            if recorder is not None:
                answer = recorder.keep(*points, answer, step.name)
            step.enter(verdicts, index, answer, x, labels)
    return verdicts.result()
