"""Verifiers where only some points of the box are valid: the box first, then each single value.

A proof on the box is one for the valid points in it. What it leaves open is decided for each
assignment of integers and one-hot groups on its own: with these held, the valid points of a
reference are a box in the other features, which any verifier treats. So the answer is as exact as
the verifier's own.
"""

import time
from dataclasses import dataclass, replace

import numpy as np
import torch

from skrobust.attacks import confirm
from skrobust.networks import Network, with_input_rows
from skrobust.verification._constraints import UnderConstraints
from skrobust.verification._result import Reason, Verdict, VerificationBuilder
from skrobust.verification._steps import Encoding, Step, decide_in_steps

__all__ = ["WithinSet", "within_set"]

_MOST_PIECES = 4096  # assignments of single values around one point
_PIECES = 256  # that are decided together


def within_set(verifier, property):
    """Return what decides a property by a verifier: the verifier itself where a box is all.

    Parameters
    ----------
    verifier : Verifier
    property : RobustnessProperty

    Returns
    -------
    Verifier or WithinSet
    """
    bounds = property.bounds
    is_box = getattr(bounds, "is_box", True)
    return verifier if is_box else WithinSet(verifier)


@dataclass(frozen=True, eq=False)
class SetEncoding(Encoding):
    """A network and a property, as the verifier of boxes reads them; the graph is None.

    Parameters
    ----------
    inner : Encoding
    rows : int ndarray of shape (m,) or None
        Places of constraints between features that are not single values.
    constrained : Encoding or None
        Of the network with these rows among its outputs; None for trees, which take them as they
        are.
    """

    inner: Encoding
    rows: np.ndarray | None = None
    constrained: Encoding | None = None

    def with_proofs(self):
        return replace(self, inner=self.inner.with_proofs(), keeps_proofs=True)


@dataclass(frozen=True)
class WithinSet:
    """A verifier of boxes, where only some points of them are valid.

    Parameters
    ----------
    verifier : Verifier
    """

    verifier: object

    @property
    def name(self):
        """What the verifier is called in results."""
        return self.verifier.name

    def encode(self, network, property, n_features=None):
        """Return the `Encoding` of a network and a property; see `Verifier.encode`."""
        inner = self.verifier.encode(network, property, n_features)
        n_features = network.n_features if n_features is None else n_features
        open_rows = property.local_set(n_features).open_rows()
        if len(open_rows) == 0:
            return SetEncoding(network, property, None, inner)
        if not isinstance(network, Network):
            return SetEncoding(network, property, None, inner, open_rows)
        A, b = (part[open_rows] for part in property.bounds.rows)
        held = property.around(torch.zeros(n_features, dtype=torch.float64))
        wider = with_input_rows(network, A)
        constrained = self.verifier.encode(wider, UnderConstraints(held, b), n_features)
        return SetEncoding(network, property, None, inner, open_rows, constrained)

    def steps(self, encoding):
        """Return what is cheap on the boxes, and then the search through single values."""
        steps = self.verifier.steps(encoding.inner)
        cheap = [step for step in steps if step.kind != "search"]
        return [*cheap, Step(self.name, encoding, self.by_values, chunk_size=1)]

    def by_values(self, encoding, x, labels=None, *, timeout=None, generator=None):
        """Decide points for each assignment of the single values; arguments as of `decide`."""
        verdicts = VerificationBuilder(x)
        constrained = encoding.constrained
        steps = self.verifier.steps(encoding.inner if constrained is None else constrained)
        for i in range(len(x)):
            start, index = time.perf_counter(), torch.tensor([i], device=x.device)
            one = None if labels is None else labels[index]
            search = _Search(encoding, steps, x[index], one, generator)
            search.enter(verdicts, i, np.inf if timeout is None else timeout)
            verdicts.seconds[i] = time.perf_counter() - start
        return verdicts.result()


class _Search:
    """The assignments near one reference point, decided in batches."""

    def __init__(self, encoding, steps, x, labels, generator):
        self.target = encoding.target(x, labels)
        self.labels, self.generator = labels, generator
        # All steps speak of the points around this reference, whose single values are held.
        held = encoding.property.around(x[0])
        self.dtype = x.dtype
        if encoding.rows is not None:
            A, b = (part[encoding.rows] for part in encoding.property.bounds.rows)
            # Rounding may have taken the reference out of them.
            limits = np.maximum(b, A @ x[0].double().cpu().numpy())
            self.dtype = torch.float64
            if encoding.constrained is not None:
                held = UnderConstraints(held, limits)
        self.steps = [replace(s, encoding=replace(s.encoding, property=held)) for s in steps]
        if encoding.rows is not None and encoding.constrained is None:
            under = [s for s in self.steps if hasattr(s.encoding, "under")]
            under = [replace(s, encoding=s.encoding.under(A, limits)) for s in under]
            self.steps = under or self.steps
        self.local_set = encoding.property.local_set(x.shape[1])
        self.x = x[0].double().cpu().numpy()

    def enter(self, verdicts, i, timeout):
        """Enter the verdict of the point into the place `i` of a builder."""
        if self.local_set.count(self.x) > _MOST_PIECES:
            verdicts.reasons[i] = Reason.WORK_LIMIT
            verdicts.notes[i] = (
                "Its integers and one-hot groups have more values in the ball, of which at most "
                f"{_MOST_PIECES} are tried. Use a smaller epsilon on these features."
            )
            return
        points, _ = self.local_set.assignments(self.x)
        points = torch.as_tensor(points[self.local_set.can_hold(points, self.x)])
        lower, reason = np.inf, Reason.PROVED
        start = time.perf_counter()
        for part in points.to(self.target.x.device, self.dtype).split(_PIECES):
            left = timeout - (time.perf_counter() - start)
            if left <= 0:
                reason = Reason.TIME_OUT
                break
            answer = self._decide(part, left)
            if self._enter_counterexample(verdicts, i, answer):
                return
            lower = min(lower, answer.lower.min())
            open_index = np.flatnonzero(answer.verdicts != Verdict.VERIFIED)
            if len(open_index):
                reason = answer.reasons[open_index[0]]
                if answer.verdicts[open_index[0]] == Verdict.FALSIFIED:
                    reason = Reason.SPURIOUS  # the point found breaks a constraint
        if reason is Reason.PROVED:
            verdicts.prove([i], lower)
        else:
            verdicts.reasons[i], verdicts.lower[i] = (
                reason,
                lower if np.isfinite(lower) else -np.inf,
            )

    def _decide(self, points, timeout):
        labels = None if self.labels is None else self.labels.expand(len(points))
        options = {"generator": self.generator}
        if np.isfinite(timeout):
            options["timeout"] = timeout / len(points)
        return decide_in_steps(self.steps, points, labels, **options)

    def _enter_counterexample(self, verdicts, i, answer):
        """Enter a counterexample that is a valid point near the reference; return if any is."""
        found = np.flatnonzero(answer.verdicts == Verdict.FALSIFIED)
        if len(found) == 0:
            return False
        points = torch.as_tensor(answer.counterexamples[found]).to(self.target.x)
        whole = torch.zeros(len(found), dtype=torch.int64, device=points.device)
        confirmed = confirm(self.target[whole], points)
        broken = confirmed.broken.nonzero().squeeze(1)
        if len(broken):
            verdicts.falsify([i], confirmed.points[broken[:1]])
        return len(broken) > 0
