"""Verification by Marabou, in a process that may be killed."""

import warnings
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec

import numpy as np
import torch

from skrobust._parameters import DefaultParts
from skrobust._validation import check_choice, check_instance
from skrobust.attacks import PGD, Attack, confirm
from skrobust.bounds import bound_rows, check_finite, farthest, relax
from skrobust.exceptions import SolverDisagreementWarning, UnsupportedPropertyError
from skrobust.verification._base import (
    Encoding,
    Stopwatch,
    Verifier,
    at_reference,
    attacked,
)
from skrobust.verification._bounds import bound_query, proved_radius, reference_error
from skrobust.verification._marabou_process import MISSING, STATUSES, Child
from skrobust.verification._marabou_query import MARGIN, MarabouProgram
from skrobust.verification._milp import affine_maps
from skrobust.verification._query import make_query
from skrobust.verification._result import Reason, Verdict, Verification

__all__ = ["Marabou"]

_FORMS = ("auto", "disjunction", "rows")
_HALVINGS = 40  # of the distance, down to where a network is one linear piece
_FIRST_SECONDS = 0.5  # for each question, where forms take turns; then twice that, and so on
_OPEN_HALVINGS = 6  # where slopes prove nothing


class Marabou(DefaultParts, Verifier):
    r"""Decide a property by Marabou, the solver of the networks that Casadio et al. verify.

    The rows of the property that CROWN leaves open are negated, and Marabou is asked whether a
    point of the ball meets one of these negations. It works in a process of its own, which is
    killed at the time limit and may die: verdicts tell a time-out, an error and a crash apart.
    A point that it names is a counterexample only if it breaks the property in the estimator
    itself; a proof of it is checked by an attack.

    Parameters
    ----------
    form : {"auto", "disjunction", "rows"}, default="auto"
        "disjunction" asks for all rows in one query, "rows" for one row in each query, that with
        the lowest bound first. "auto" lets both take turns, in slices of time that double: either
        form takes now and then a hundred times as long as the other one.
    attack : Attack or None, default=None
        Looks for counterexamples where Marabou claims that there are none. None is PGD of 40
        steps with 3 restarts. A point that it breaks is falsified, with the reason
        `Reason.DISAGREEMENT`, a note, and a `SolverDisagreementWarning`.

    Raises
    ------
    ImportError
        If maraboupy cannot be imported. `Exact` does the same job without it.

    Notes
    -----
    It takes linear properties and `StrongClassificationRobustness` in L-infinity balls, and
    networks of linear layers, convolutions, ReLU, leaky ReLU, clamps and pooling. All units
    become ReLUs: a clamp is two of them, a maximum a + relu(b - a). Units that bounds decide
    over the ball become linear, and bounds of the others are given.

    Give a time limit: there are queries that Marabou 2.0 never ends.

    **What "verified" rests on.** Where CROWN proves all rows, on bounds with rounding accounted
    for. Where Marabou was asked, on its word: it computes in float64, compares with tolerances
    of 1e-10 to 1e-5, and gives no certificate that is checked here. Marabou 2.0 takes each
    variable whose bounds come within 1e-5 of each other as fixed, which has made it overlook
    counterexamples. So all variables are scaled to a width of about 1, inputs that cannot move
    are no variables, and it must show that the rows are above 2e-5 of their width over the ball,
    not above 0: the points that break a row then leave room for such errors. Units that are
    decided but for 1e-9 of their width get a free variable for the rest instead of a ReLU, and a
    row that moves by less than 1e-7 of the numbers in it is not supported. What holds by less
    than that stays unknown. The attack is a check of all this, not a proof.

    `LipschitzRobustness` is 0 at the reference point, where no solver with a tolerance can prove
    it. So it is treated as `Exact` does: slopes prove it within a small radius; farther out, in
    shells of doubling radius, the distance d is a variable that is at least the inner radius,
    and the negation asks for L d - change <= 2e-5 of its width.

    `StrongClassificationRobustness` is verified where linear rows that imply it hold, and
    falsified by points at which it breaks; these are also looked for where linear rows that it
    implies break. Between the two it stays unknown.

    References
    ----------
    Katz et al., "The Marabou framework for verification and analysis of deep neural networks",
    CAV 2019. Wu et al., "Marabou 2.0: a versatile formal analyzer of neural networks", CAV 2024.
    """

    def __init__(self, form="auto", *, attack=None):
        self.form = form
        self.attack = attack

    def _default_parts(self):
        return {"attack": PGD(40, n_restarts=3)}

    def check(self):
        check_choice("form", self.form, _FORMS)
        if self.attack is not None:
            check_instance("attack", self.attack, Attack, "PGD(n_steps=40)").check()
        return self

    def accepts(self, network, property):
        if find_spec("maraboupy") is None:
            raise ImportError(MISSING.format("No module named 'maraboupy'."))
        if property.norm != "linf":
            raise UnsupportedPropertyError(
                f"Got a property with norm={property.norm!r}, but Marabou speaks of boxes. Use "
                "norm='linf', or Exact."
            )

    def encode(self, network, property, n_features=None):
        encoding = super().encode(network, property, n_features)
        return _MarabouEncoding(encoding.network, encoding.property, encoding.graph)

    def _graph(self, network, n_features):
        return check_finite(super()._graph(network, n_features))

    def is_slow(self, state):
        return True

    def decide(self, state, x, labels=None, *, timeout=None, generator=None):
        if len(x) == 0:
            return Verification.undecided(x)
        found = at_reference(state.target(x, labels))
        claimed = []
        with Child() as child:
            for place in found.undecided_index:
                at, watch = slice(place, place + 1), Stopwatch(timeout)
                query = make_query(state, x[at], None if labels is None else labels[at])
                search = _Search(self.form, state, query, child, watch)
                found = found.merge(at, search.run())
                if search.n_asked and found.verdicts[place] == Verdict.VERIFIED:
                    claimed.append(place)
        return self._checked(found, np.array(claimed, dtype=int), state, x, labels, generator)

    def _checked(self, found, claimed, state, x, labels, generator):
        """Attack the points at `claimed`, of which Marabou says that nothing breaks them."""
        if len(claimed) == 0:
            return found
        attack = self._part("attack")
        at = torch.as_tensor(claimed, device=x.device)
        part = None if labels is None else labels[at]
        asked = Verification.undecided(x[at])
        other = attacked(attack, asked, state, x[at], part, generator)
        found.seconds[claimed] += other.seconds
        for k in np.flatnonzero(other.verdicts == Verdict.FALSIFIED):
            place = int(claimed[k])
            note = "Marabou claims a proof, but the attack that checks it found a counterexample."
            where = f"Point {place} of the {len(x)} that Marabou was asked for"
            warnings.warn(f"{where}: {note}", SolverDisagreementWarning, stacklevel=3)
            found = found.disagree(place, other.counterexamples[k], "attack", note)
        return found


@dataclass(frozen=True, eq=False)
class _MarabouEncoding(Encoding):
    @cached_property
    def maps(self):
        """The network's affine parts as sparse matrices."""
        return affine_maps(self.graph)


_REASONS = {
    "limit": Reason.TIME_OUT,
    "crash": Reason.SOLVER_CRASH,
    "failure": Reason.SOLVER_ERROR,
    "spurious": Reason.SPURIOUS,
    "narrow": Reason.NOT_SUPPORTED,
    "open": Reason.BOUNDS_TOO_LOOSE,
}


class _Search:
    """The search for one reference point.

    Attributes
    ----------
    n_asked : int
        How often Marabou was asked.
    counterexample : Tensor of shape (1, n_features) or None
    """

    def __init__(self, form, state, query, child, watch):
        self.form, self.state, self.query = form, state, query
        self.child, self.watch = child, watch
        self.n_asked = 0
        self.counterexample = None

    def run(self):
        status = self._shells() if self.query.uses_distance else self._piece(self.query)
        found = Verification.undecided(self.query.target.x, _REASONS.get(status))
        if status == "proved":
            found = found.prove([0])
        elif status == "found":
            found = found.falsify([0], self.counterexample, torch.tensor([True]))
        found.seconds[:] = self.watch.elapsed
        return found

    def _shells(self):
        """Decide rows that are 0 at the reference point: near it by slopes, farther by d."""
        near = proved_radius(self.state.graph, self.query, halvings=_HALVINGS)
        far = farthest(self.query.ball)
        # Where slopes prove nothing, a counterexample is what can be found.
        status = "proved" if near.item() > 0 else "open"
        radius = torch.where(near > 0, near, far / 2**_OPEN_HALVINGS)
        while radius < far:
            outer = torch.minimum(2 * radius, far)
            found = self._piece(self.query.within(outer).beyond(radius))
            if found in ("found", "limit"):
                return found
            status = found if found != "proved" else status
            radius = outer
        return status

    def _piece(self, query):
        """Decide all rows over one ball."""
        graph = self.state.graph
        with torch.no_grad():
            lower = bound_query(graph, query, "crown")
        if query.holds(lower).item():
            return "proved"
        nearest = query.nearest.item() if query.uses_distance else None
        program = MarabouProgram(self.state.maps, relax(graph, query.ball), nearest)
        shift = query.rows.b - reference_error(graph, query)
        chosen = (~query.proved(lower)[0]).nonzero().squeeze(1)
        chosen = chosen[lower[0, chosen].argsort()]
        status = self._ask_rows(program, query.rows, chosen, shift, lower, MARGIN)
        if status in ("proved", "found", "limit") or query.is_linear:
            return status
        # The row of strong classification lies between these and those that it implies.
        status = "open" if status == "spurious" else status
        return "found" if self._breaks_necessary(program, query) else status

    def _breaks_necessary(self, program, query):
        rows = query.necessary
        lower = bound_rows(self.state.graph, query.ball, rows)
        chosen = (lower[0] < 0).nonzero().squeeze(1)
        return self._ask_rows(program, rows, chosen, rows.b, lower, 0.0) == "found"

    def _ask_rows(self, program, rows, chosen, shift, lower, limit):
        """Ask whether one of the chosen rows, hardest first, is at most `limit`."""
        if len(chosen) == 0:
            return "proved"
        slope = rows.c[0, chosen] if self.query.uses_distance else None
        places = program.add_rows(rows.A[0, chosen], slope, shift[0, chosen], lower[0, chosen])
        if places is None:
            return "narrow"
        if self.form == "disjunction":
            return self._ask(program, places, limit, self.watch)
        status = "proved"
        seconds = np.inf if self.form == "rows" else _FIRST_SECONDS
        while places:
            if len(places) == 1:
                seconds = np.inf
            elif self.form == "auto":
                found = self._ask(program, places, limit, self.watch.part(seconds))
                if found in ("proved", "found"):
                    return found if found == "found" else status
            for place in list(places):
                found = self._ask(program, [place], limit, self.watch.part(seconds))
                if found == "found":
                    return found
                if found != "limit" or seconds == np.inf:
                    places.remove(place)
                    status = status if found == "proved" else found
            if places and self.watch.left == 0:
                return "limit"
            seconds *= 2
        return status

    def _ask(self, program, places, limit, watch):
        if watch.left == 0:
            return "limit"
        self.n_asked += 1
        status, values = self.child.ask(program.task, places, limit, watch)
        if status != "sat":
            return STATUSES.get(status, "failure")
        candidate = program.point(values)[None]
        outcome = confirm(self.query.target, candidate, repair=True)
        if not outcome.broken.item():
            return "spurious"
        self.counterexample = outcome.points
        return "found"
