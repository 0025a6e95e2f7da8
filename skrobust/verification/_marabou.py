"""Verification by Marabou, in a process that may be killed."""

import warnings
from importlib.util import find_spec

import numpy as np
import torch

from skrobust._validation import check_choice
from skrobust.bounds import bound_rows, relax
from skrobust.exceptions import SolverDisagreementWarning, UnsupportedPropertyError
from skrobust.verification._base import Stopwatch, at_reference, decide_by_attack
from skrobust.verification._complete import CompleteVerifier, PointSearch
from skrobust.verification._marabou_process import MISSING, Child, reason_of
from skrobust.verification._marabou_query import MARGIN, MarabouProgram, image
from skrobust.verification._query import make_query, reference_error
from skrobust.verification._result import Reason, Verdict, VerificationBuilder
from skrobust.verification._steps import Step

__all__ = ["Marabou"]

_FORMS = ("auto", "disjunction", "rows")
_FIRST_SECONDS = 0.5  # for each question, where forms take turns; then twice that, and so on


class Marabou(CompleteVerifier):
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

    _rule = staticmethod(image)

    def check(self):
        super().check()
        check_choice("form", self.form, _FORMS)
        return self

    def accepts(self, network, property):
        if find_spec("maraboupy") is None:
            raise ImportError(MISSING.format("No module named 'maraboupy'."))
        if property.norm != "linf":
            raise UnsupportedPropertyError(
                f"Got a property with norm={property.norm!r}, but Marabou speaks of boxes. Use "
                "norm='linf', or Exact."
            )
        super().accepts(network, property)

    def steps(self, encoding):
        return [Step(self.name, encoding, self.decide, chunk_size=1)]

    def decide(self, encoding, x, labels=None, *, timeout=None, generator=None):
        if len(x) == 0:
            return VerificationBuilder(x).result()
        verdicts = at_reference(encoding.target(x, labels))
        claimed = []
        with Child() as child:
            for i in verdicts.undecided_index:
                at = slice(i, i + 1)
                watch = Stopwatch(timeout)
                query = make_query(encoding, x[at], None if labels is None else labels[at])
                search = _Search(self.form, child, encoding, query, watch)
                verdicts.merge(at, search.run())
                if search.n_questions and verdicts.verdicts[i] == Verdict.VERIFIED:
                    claimed.append(i)
        if claimed:
            self._attack_claims(verdicts, np.array(claimed), encoding, x, labels, generator)
        return verdicts.result()

    def _attack_claims(self, verdicts, claimed, encoding, x, labels, generator):
        """Attack the points at `claimed`, of which Marabou says that nothing breaks them."""
        at = torch.as_tensor(claimed, device=x.device)
        labels = None if labels is None else labels[at]
        attack = self._part("attack")
        answer = decide_by_attack(attack, encoding, x[at], labels, generator=generator)
        verdicts.seconds[claimed] += answer.seconds
        for k in np.flatnonzero(answer.verdicts == Verdict.FALSIFIED):
            i = int(claimed[k])
            note = "Marabou claims a proof, but the attack that checks it found a counterexample."
            where = f"Point {i} of the {len(x)} that Marabou was asked for"
            warnings.warn(f"{where}: {note}", SolverDisagreementWarning, stacklevel=4)
            verdicts.disagree(i, answer.counterexamples[k], "attack", note)


class _Search(PointSearch):
    """By questions to Marabou.

    Attributes
    ----------
    n_questions : int
        How often Marabou was asked.
    """

    def __init__(self, form, child, encoding, query, watch):
        super().__init__(encoding, query, watch)
        self.form, self.child = form, child
        self.n_questions = 0

    def decide_piece(self, query, lower):
        graph = self.encoding.graph
        nearest = query.nearest.item() if query.uses_distance else None
        program = MarabouProgram(self.encoding.maps, relax(graph, query.ball), nearest)
        shift = query.rows.b - reference_error(graph, query)
        chosen = (~query.proved(lower)[0]).nonzero().squeeze(1)
        chosen = chosen[query.clause_bounds(lower)[0, chosen].argsort()]
        reason = self._ask_rows(program, query.rows, chosen, shift, lower, MARGIN)
        self.by_solver = reason is Reason.PROVED and len(chosen) > 0
        decided = (Reason.PROVED, Reason.COUNTEREXAMPLE, Reason.TIME_OUT)
        if reason in decided or query.is_linear:
            return reason
        # The row of strong classification lies between these and those that it implies.
        if self._breaks_necessary(program, query):
            return Reason.COUNTEREXAMPLE
        return Reason.INCOMPLETE if reason is Reason.SPURIOUS else reason

    def _breaks_necessary(self, program, query):
        rows = query.necessary
        lower = bound_rows(self.encoding.graph, query.ball, rows)
        chosen = (rows.gaps(lower)[0] < 0).nonzero().squeeze(1)
        reason = self._ask_rows(program, rows, chosen, rows.b, lower, 0.0)
        return reason is Reason.COUNTEREXAMPLE

    def _ask_rows(self, program, rows, chosen, shift, lower, limit):
        """Ask whether all rows of one of the chosen clauses are at most `limit`."""
        if len(chosen) == 0:
            return Reason.PROVED
        clauses = rows.members[chosen]
        asked, clauses = clauses.unique(return_inverse=True)
        slope = rows.c[0, asked] if self.query.uses_distance else None
        variables = program.add_rows(rows.A[0, asked], slope, shift[0, asked], lower[0, asked])
        if variables is None:
            return Reason.NOT_SUPPORTED
        places = [sorted({variables[k] for k in clause}) for clause in clauses.tolist()]
        if self.form == "disjunction":
            return self._ask(program, places, limit, self.watch)
        if self.form == "rows":
            return self._one_by_one(program, places, limit, np.inf)[0]
        return self._in_turns(program, places, limit)

    def _in_turns(self, program, places, limit):
        """Ask for all clauses together, then for each, with time limits that double."""
        reason, seconds = Reason.PROVED, _FIRST_SECONDS
        while places:
            if len(places) > 1:
                answer = self._ask(program, places, limit, self.watch.part(seconds))
                if answer is Reason.COUNTEREXAMPLE:
                    return answer
                if answer is Reason.PROVED:
                    return reason
            answer, places = self._one_by_one(
                program, places, limit, np.inf if len(places) == 1 else seconds
            )
            if answer is Reason.COUNTEREXAMPLE:
                return answer
            reason = reason if answer is Reason.PROVED else answer
            if places and self.watch.left == 0:
                return Reason.TIME_OUT
            seconds *= 2
        return reason

    def _one_by_one(self, program, places, limit, seconds):
        """Ask for each clause; return the `Reason`, and those that `seconds` leave open."""
        reason, late = Reason.PROVED, []
        for place in places:
            answer = self._ask(program, [place], limit, self.watch.part(seconds))
            if answer is Reason.COUNTEREXAMPLE:
                return answer, []
            if answer is Reason.TIME_OUT and seconds < np.inf:
                late.append(place)
            elif answer is not Reason.PROVED:
                reason = answer
        return reason, late

    def _ask(self, program, places, limit, watch):
        """Ask whether of one of the clauses `places` all variables are at most `limit`."""
        if watch.left == 0:
            return Reason.TIME_OUT
        self.n_questions += 1
        word, values = self.child.ask(program.task, places, limit, watch)
        reason = reason_of(word)
        if reason is not Reason.COUNTEREXAMPLE:
            return reason
        return reason if self.confirms(program.point(values)[None]) else Reason.SPURIOUS
