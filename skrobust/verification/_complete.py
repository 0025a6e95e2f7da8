"""What complete verifiers have in common: the search around one point, piece by piece."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch

from skrobust._parameters import DefaultParts
from skrobust._validation import check_instance
from skrobust.attacks import PGD, Attack, confirm
from skrobust.bounds import check_finite, farthest
from skrobust.verification._base import Verifier
from skrobust.verification._bounds import bound_query, proved_radius
from skrobust.verification._program import AffineMaps, check_rules
from skrobust.verification._recording import Piece
from skrobust.verification._relus import as_relus
from skrobust.verification._result import LIMITS, Reason, VerificationBuilder
from skrobust.verification._steps import Encoding

__all__ = ["CompleteEncoding", "CompleteVerifier", "PointSearch"]

_HALVINGS = 40  # of the distance, down to where a network is one linear piece
# Where slopes prove nothing near the reference point, the ball is searched for counterexamples
# only, from this part of it outwards.
_OPEN_HALVINGS = 6
_MOST_HALVINGS = 20
_STEPS_INWARDS = torch.logspace(0, -6, 13, dtype=torch.float64)  # relative to a distance


@dataclass(frozen=True, eq=False)
class CompleteEncoding(Encoding):
    """A network and a property, with the network's affine parts as sparse matrices.

    Parameters
    ----------
    maps : AffineMaps
        Shared by all that is made of this one by `dataclasses.replace`.
    split_maps : AffineMaps
        Of the same network with max-pools and clamps as ReLUs, which can be split.
    """

    maps: AffineMaps
    split_maps: AffineMaps


class CompleteVerifier(DefaultParts, Verifier):
    """Base class of verifiers that search, with an attack and a solver's rule for each node."""

    _without_rule = ()  # kinds of nodes that are decided without the solver

    def _default_parts(self):
        return {"attack": PGD(40, n_restarts=3)}

    @property
    @abstractmethod
    def _rule(self):
        """The singledispatch function by which the solver is told of a piecewise node."""

    def check(self):
        if self.attack is not None:
            check_instance("attack", self.attack, Attack, "PGD(n_steps=40)").check()
        return self

    def encode(self, network, property, n_features=None):
        encoding = super().encode(network, property, n_features)
        check_rules(encoding.graph, self._rule, self._without_rule)
        graph = encoding.graph
        maps, relus = AffineMaps(graph), as_relus(graph)
        split_maps = maps if relus is graph else AffineMaps(relus)
        return CompleteEncoding(network, property, graph, maps, split_maps)

    def _graph(self, network, n_features):
        return check_finite(super()._graph(network, n_features))


class PointSearch(ABC):
    """The search around one reference point; subclasses say how one piece is decided.

    Parameters
    ----------
    encoding : CompleteEncoding
    query : Query
        Of one point.
    watch : Stopwatch

    Attributes
    ----------
    lower : float
        Proved lower bound of the smallest row, over the pieces of the ball looked at so far.
    counterexample : Tensor of shape (1, n_features) or None
    pieces : list of Piece
        What proves the property, as far as it is known.
    proof : dict of str to ndarray
        Of the piece at hand: set by `decide_piece` where a search has proved it.
    open_limit : dict
        Where slopes prove nothing near the reference point, the ball is searched for
        counterexamples only, with `Stopwatch.part` of this: in domains for those that count them,
        so that what is found does not depend on the machine.
    solver : str
        Who decides, in results, where a solver's word is all that speaks for a proof; "" for the
        name of the verifier.
    """

    open_limit: ClassVar = {"seconds": 10.0}
    solver = ""

    def __init__(self, encoding, query, watch):
        self.encoding, self.query, self.watch = encoding, query, watch
        self.counterexample, self.pieces = None, []
        self.by_solver = False
        self.lower = -np.inf

    def run(self):
        """Return the `Verification` of the point."""
        reason = self._shells() if self.query.uses_distance else self.piece(self.query)
        verdicts = VerificationBuilder(self.query.target.x, reason)
        if reason is Reason.PROVED:
            verdicts.prove([0], reason=Reason.BY_SOLVER if self.by_solver else reason)
            if self.by_solver:
                verdicts.decided_by[0] = self.solver
            if self.encoding.keeps_proofs:
                verdicts.evidence[0] = self.pieces
        elif reason is Reason.COUNTEREXAMPLE:
            verdicts.falsify([0], self.counterexample)
        verdicts.lower[:] = self.lower
        verdicts.seconds[:] = self.watch.elapsed
        return verdicts.result()

    @abstractmethod
    def decide_piece(self, query, lower):
        """Decide rows that are linear, or one that is concave, over one ball.

        Parameters
        ----------
        query : Query
        lower : Tensor of shape (1, m)
            Proved bounds of the rows, which do not prove the property.

        Returns
        -------
        Reason
            PROVED; COUNTEREXAMPLE, with `counterexample` set; or why it is neither.
        """

    def piece(self, query):
        """Return whether all rows hold over one ball, as a `Reason`."""
        reason, lower, parts = Reason.PROVED, np.inf, list(enumerate(query.parts()))
        while parts and reason not in (Reason.COUNTEREXAMPLE, *LIMITS):
            self.lower = -np.inf
            k, part = parts.pop(0)
            self.proof = {}  # by bounds, unless a search says more
            answer = self._part(part)
            radii = query.nearest.item(), farthest(query.ball).item()
            self.pieces.append(Piece(k, *radii, arrays=self.proof))
            reason = answer if answer is not Reason.PROVED else reason
            lower = min(lower, self.lower)
        # A part that was not looked at has no bound.
        self.lower = -np.inf if parts else lower
        return reason

    def _part(self, query):
        """Return whether rows that are linear, or one that is concave, hold over one ball."""
        with torch.no_grad():
            lower = bound_query(self.encoding.graph, query, "crown", watch=self.watch)
            lower = lower.nan_to_num(-torch.inf, torch.inf, -torch.inf)
        if query.holds(lower).item():
            self.lower = query.margin(lower).item()
            return Reason.PROVED
        known, self.by_solver = self.by_solver, False
        answer = self.decide_piece(query, lower)
        self.by_solver |= known
        return answer

    def confirms(self, points, repair=True):
        """Keep a point that breaks the property in the network itself; return whether one does."""
        index = torch.zeros(len(points), dtype=torch.long, device=self.query.target.x.device)
        outcome = confirm(self.query.target[index], points, repair=repair)
        if outcome.broken.any():
            self.counterexample = outcome.points[outcome.broken][:1]
        return bool(outcome.broken.any())

    def values(self, points):
        """Return the smallest row at points, by the float64 graph, of shape (n,)."""
        index = torch.zeros(len(points), dtype=torch.long, device=points.device)
        with torch.no_grad():
            logits = self.encoding.graph(points)
            return self.query[index].values(logits, points).amin(dim=1)

    # -- rows that are 0 at the reference point --

    def _shells(self):
        """Decide the ball from the inside: near it by slopes, farther in shells of distance.

        A row L d - change is 0 at the reference point, where no solver with a tolerance can
        prove it. In a shell d is at least the inner radius, which gives it room above 0.
        """
        graph, query = self.encoding.graph, self.query
        # Cheap, where proofs of ever smaller radii would take their time in vain.
        if self._confirms_steepest(repair=False):
            return Reason.COUNTEREXAMPLE
        near = proved_radius(graph, query, halvings=_HALVINGS, watch=self.watch)
        if near.item() == 0:
            return self._open_shells()
        reason, far = Reason.PROVED, farthest(query.ball)
        for k in range(len(query.parts())):
            self.pieces.append(Piece(k, 0.0, near.item(), by_slopes=True))
        while near < far:
            outer = torch.minimum(2 * near, far)
            answer = self.piece(query.within(outer).beyond(near))
            reason = answer if answer is not Reason.PROVED else reason
            if answer in (Reason.COUNTEREXAMPLE, *LIMITS):
                break
            near = outer
        # What is known of one shell says nothing of the others; and near the reference point
        # the rows come down to 0.
        self.lower = min(self.lower, 0.0) if reason is Reason.PROVED else -np.inf
        return reason

    def _open_shells(self):
        """Look for a counterexample where slopes prove nothing, however near.

        The property is never proved here: what lies next to the reference point stays open.
        """
        if self._confirms_steepest(repair=True):
            return Reason.COUNTEREXAMPLE
        if self.watch.left == 0:
            return self.watch.reason
        query, whole = self.query, self.watch
        self.watch = whole.part(**self.open_limit)
        far = farthest(query.ball)
        reach = _reach(query.ball)
        least = reach[reach > 0].min().clamp(min=far / 2**_MOST_HALVINGS)
        outer = torch.minimum(least, far / 2**_OPEN_HALVINGS)
        shell, answer = query.within(outer), None
        while answer not in (Reason.COUNTEREXAMPLE, *LIMITS):
            answer = self.piece(shell)
            if outer >= far:
                break
            inner, outer = outer, torch.minimum(2 * outer, far)
            shell = query.within(outer).beyond(inner)
        self.watch, self.lower = whole, -np.inf
        if answer is Reason.COUNTEREXAMPLE:
            return answer
        return Reason.INCOMPLETE if whole.left else whole.reason

    def _confirms_steepest(self, repair):
        """Try the steepest move for each row, at all distances where it changes.

        Were the network linear, one of these would be where the row is least for its distance:
        an entry moves as far as the others, until it comes to the end of its own range. So the
        ratio of change to distance is largest before the first of these ends.
        """
        ball = self.query.ball
        reach = _reach(ball)
        ends = reach[reach > 0].unique()
        steps = _STEPS_INWARDS.to(ends.device)
        sizes = torch.cat([ends, ends[:1] * steps, ends[-1:] * steps])[:, None, None]
        moves = torch.stack([ball.unit(gradient)[0] for gradient in self._gradients()])
        points = (ball.center - sizes * moves).flatten(0, 1).clamp(ball.lower, ball.upper)
        # Only what breaks a row in float64: so near the reference point the rounding of a
        # float32 network alone makes ratios of any size.
        values = self.values(points)
        order = values.argsort()[: int((values < 0).sum())]
        return len(order) > 0 and self.confirms(points[order], repair)

    def _gradients(self):
        """Return the gradient of each row at the reference point, each of shape (1, n)."""
        center = self.query.ball.center.clone().requires_grad_()
        with torch.enable_grad():
            logits = self.encoding.graph(center)
            rows = (self.query.rows.A[0] @ logits[0]).unbind()
            return [torch.autograd.grad(row, center, retain_graph=True)[0] for row in rows]


def _reach(ball):
    """Return how far each entry of one ball can move at most, of shape (n_features,)."""
    return torch.maximum(ball.upper - ball.center, ball.center - ball.lower)[0]
