"""Verification by branch and bound and by programs, without an outside verifier."""

from dataclasses import replace
from functools import partial
from typing import ClassVar

import numpy as np
import torch

from skrobust._validation import check_integer, check_real
from skrobust.bounds import envelope_of, reduce, relax
from skrobust.graphs import LinfDistance, Smooth
from skrobust.verification._base import Stopwatch, decide_by_attack
from skrobust.verification._bounds import Bounds
from skrobust.verification._boxes import branch_inputs
from skrobust.verification._branch import Problem, branch
from skrobust.verification._complete import CompleteVerifier, PointSearch
from skrobust.verification._highs import Program, add_node
from skrobust.verification._leaves import close_leaf
from skrobust.verification._mixtures import with_mixtures
from skrobust.verification._query import make_query, reference_error
from skrobust.verification._recording import Recording, proof_of
from skrobust.verification._result import LIMITS, Reason, VerificationBuilder
from skrobust.verification._steps import Step, decide_in_steps

__all__ = ["Exact"]

# Limits of searches within the search are in work, not in seconds, so that what is found does not
# depend on the machine.
_FIRST_DOMAINS = 4000  # before HiGHS is asked
_OPEN_DOMAINS = 2000  # for counterexamples, where slopes prove nothing near the reference point
_PIECES = 200  # of the outputs' range, for a concave row in one linear piece
_LEAST = 1e-300  # strict rows are proved above 0: the smallest number above is asked for
_ROOT_STEPS = 5  # of gradients, for each interval of the whole ball
_FEW_ROWS = 3  # up to which branch and bound finds better intervals of its own for each
# What branch and bound says, which knows of rows and domains, not of properties.
_REASONS = {
    "proved": Reason.PROVED,
    "end": Reason.COUNTEREXAMPLE,
    "stuck": Reason.INCOMPLETE,
}
_DECIDED = (Reason.PROVED, Reason.COUNTEREXAMPLE)
_WITHOUT_PROGRAM = (LinfDistance, Smooth)  # kinds of nodes


class Exact(CompleteVerifier):
    r"""Decide a property by bounds, then by branch and bound or a mixed-integer program.

    What CROWN and an attack leave open is decided by branch and bound: domains in which units
    are decided are bounded in batches, with slopes and multipliers chosen by gradient steps
    (beta-CROWN), until every domain is proved, or a point is found that breaks the property.
    Where that takes long, intervals of units are tightened to the points at which a row fails.
    In L-infinity balls, units of a first dense layer have lines above them that are functions of
    the input, too: parts of their concave envelopes, which are tight at corners of the ball.
    Where few units are undecided over the ball, and that takes more than 4,000 domains, each gets
    a 0-1 variable, and HiGHS solves the program, row by row. The search can be stopped at any
    time: the smallest row has a proved lower bound then. Units that are zero over the whole ball
    take no part in it. Where few inputs can move, their ranges are halved instead, which needs
    nothing but bounds, so that it also treats clamps and max-pools.

    Parameters
    ----------
    attack : Attack or None, default=None
        Looks for counterexamples first. None is PGD of 40 steps with 3 restarts.
    milp_units : int, default=60
        Up to that many undecided units, HiGHS is asked for what branch and bound does not
        decide in its first 4,000 domains; and branch and bound goes on where HiGHS fails.
    split_inputs : int, default=8
        Up to that many inputs that can move, their ranges are halved in place of the signs of
        units, for rows that are free of the distance.
    batch_size : int or None, default=None
        Domains that are bounded together, at most; as many as suit `memory_limit` if None. Up to
        512 are at once, and where inputs are halved up to 256.
    n_steps : int, default=3
        Gradient steps for each domain.
    max_domains : int or None, default=None
        Limit on the work for a point: domains that are bounded, ends of intervals that are
        tightened with gradient steps (four without steps count as one, and one with 8 as two),
        and nodes of the trees of HiGHS. No limit if None. What is done once for each point
        before the search, by bounds and by the attack, does not count. With it, and without a
        `timeout`, verdicts do not depend on how fast the machine is.
    memory_limit : float, default=1 GiB
        Bytes, for the domains of branch and bound: a quarter for those that are bounded
        together, a quarter for how their intervals were found, the rest for those that wait.
        Where that is full, fewer are taken at once. The libraries and the network come on top.

    Notes
    -----
    It is complete, up to the tolerances below, for linear properties in L-infinity balls, and
    networks whose units are ReLU and leaky ReLU; with clamps and max-pools where HiGHS decides,
    or where few inputs can move. In L2 balls, where HiGHS has no part, a domain without undecided
    units may stay open. For `StrongClassificationRobustness`, whose row is concave in the
    outputs, the range of the outputs is halved in such a domain, up to 200 times.

    Intervals of smooth units (tanh, sigmoid, GELU and their like, also next to ReLUs) are split
    at points inside, as often as the limits allow; HiGHS has no part in such networks. A row
    whose minimum is very close to 0 stays open, with the bound that was reached.

    The proofs of branch and bound hold in float64 with rounding accounted for. HiGHS is asked
    for the absence of points at which the row is below 1e-6, relative to the numbers in the
    row, with tolerances of 1e-9: a row whose minimum lies in between is not proved.

    `LipschitzRobustness` is 0 at the reference point. Near it, slopes prove it, within a radius
    that is halved until they do; farther out, in shells of doubling radius, it is a row in which
    d is a variable that is at least the inner radius. There the row has room above 0. Where
    slopes prove it within no radius, the ball is searched for counterexamples only, for 2,000
    domains at most, from small distances outwards; what is found in none stays unknown.

    All tensors live on the device of the network; HiGHS works on the CPU.

    References
    ----------
    Tjeng et al., "Evaluating robustness of neural networks with mixed integer programming",
    ICLR 2019. Wang et al., "Beta-CROWN", NeurIPS 2021. Tjandraatmadja et al., "The convex
    relaxation barrier, revisited", NeurIPS 2020 (envelopes).

    Examples
    --------
    >>> from sklearn.neural_network import MLPClassifier
    >>> from skrobust.properties import ClassificationRobustness
    >>> from skrobust.verification import Exact
    >>> X, y = [[0.2], [0.4], [0.6], [0.8]], [0, 0, 1, 1]
    >>> model = MLPClassifier(5, solver="lbfgs", random_state=0).fit(X, y)
    >>> result = Exact().verify(model, X, y, property=ClassificationRobustness(0.09))
    >>> result.verdicts.tolist()
    ['verified', 'verified', 'verified', 'verified']
    """

    def __init__(
        self,
        attack=None,
        *,
        milp_units=60,
        split_inputs=8,
        batch_size=None,
        n_steps=3,
        max_domains=None,
        memory_limit=2**30,
    ):
        self.attack = attack
        self.milp_units = milp_units
        self.split_inputs = split_inputs
        self.batch_size = batch_size
        self.n_steps = n_steps
        self.max_domains = max_domains
        self.memory_limit = memory_limit

    _rule = staticmethod(add_node)
    _without_rule = _WITHOUT_PROGRAM

    def check(self):
        super().check()
        check_integer("milp_units", self.milp_units)
        check_integer("split_inputs", self.split_inputs)
        check_integer("n_steps", self.n_steps, low=1)
        for name in ("batch_size", "max_domains"):
            if getattr(self, name) is not None:
                check_integer(name, getattr(self, name), low=1)
        check_real("memory_limit", self.memory_limit, low=2**20)
        return self

    def steps(self, encoding):
        by_attack = partial(decide_by_attack, self._part("attack"))
        return [
            Step(self.name, encoding, Bounds().decide, "bounds", is_optional=True),
            Step(self.name, encoding, by_attack, "attack", is_optional=self.attack is None),
            Step(self.name, encoding, self.search, chunk_size=1),
        ]

    def decide(self, encoding, x, labels=None, *, timeout=None, generator=None):
        steps = self.steps(encoding)
        return decide_in_steps(steps, x, labels, timeout=timeout, generator=generator)

    def search(self, encoding, x, labels=None, *, timeout=None, generator=None):
        """Decide points that an attack and bounds leave open; arguments as of `decide`."""
        verdicts = VerificationBuilder(x)
        for i in range(len(x)):
            at = slice(i, i + 1)
            watch = Stopwatch(timeout, self.max_domains)
            query = make_query(encoding, x[at], None if labels is None else labels[at])
            verdicts.merge(at, _Search(self, encoding, query, watch).run())
        return verdicts.result()


def _has_units_without_program(graph):
    """Return whether a graph has units that no program of HiGHS can hold."""
    return any(isinstance(graph.nodes[i], _WITHOUT_PROGRAM) for i in graph.piecewise)


def _n_moving(ball):
    """Return how many inputs of one ball can move."""
    return int((ball.upper > ball.lower).sum())


def _is_box(ball):
    """Return whether one ball is a box: of L-infinity, or one of L2 in which one entry moves."""
    return ball.norm == "linf" or _n_moving(ball) <= 1


def _least_clause(program, rows, slopes, shifts, watch):
    """Return the `Minimum` of the largest of the rows of one clause."""
    # A clause that is shorter than others repeats a row.
    _, first = np.unique(np.column_stack([rows, slopes, shifts]), axis=0, return_index=True)
    if len(first) == 1:
        return program.minimize(rows[0], slopes[0], shifts[0], watch=watch)
    terms = (rows[first], slopes[first], shifts[first])
    return program.minimize_largest(*terms, watch=watch)


class _Search(PointSearch):
    """By branch and bound, and by mixed-integer programs."""

    open_limit: ClassVar = {"max_domains": _OPEN_DOMAINS}
    solver = "highs"

    def __init__(self, settings, encoding, query, watch):
        super().__init__(encoding, query, watch)
        self.settings = settings
        self._n_descents = 0

    def decide_piece(self, query, lower):
        graph = self.encoding.graph
        # The checker of evidence finds the intervals of the whole ball without steps.
        n_steps = 0 if self.encoding.keeps_proofs or self._is_few(query, lower) else _ROOT_STEPS
        root = relax(graph, query.ball, n_steps=n_steps, watch=self.watch)
        n_open = sum(int(lines.open.sum()) for lines in root.lines.values())
        is_plain = _is_box(query.ball) and not query.uses_distance
        if is_plain and _n_moving(query.ball) <= self.settings.split_inputs:
            return self._by_inputs(query, root, lower, self.watch)
        split_graph, split_root = self.encoding.split_maps.graph, root
        if split_graph is not graph:
            split_root = relax(split_graph, query.ball, n_steps=n_steps, watch=self.watch)
        search = partial(self._by_branching, query, split_root)
        is_program = query.is_linear and _is_box(query.ball)
        is_program = is_program and not _has_units_without_program(graph)
        if not is_program or n_open > self.settings.milp_units:
            return search(lower, self.watch)
        # Where no point breaks the rows, branching is the faster one, as a rule by far. Where
        # one does that the attack has missed, the program finds it sooner.
        reason = search(lower, self.watch.part(max_domains=_FIRST_DOMAINS))
        if reason in _DECIDED or self.watch.left == 0:
            return reason
        return self._after_programs(query, root, lower, search)

    def _after_programs(self, query, root, lower, search):
        """Ask HiGHS, and search on where it fails, or where its word is not enough."""
        keeps = self.encoding.keeps_proofs
        # Rows that it has proved are not proved again, unless there is to be evidence for them.
        known = self._own(lower)
        self.by_solver = False  # what an unfinished search has said
        reason = self._by_programs(query, root, known)
        needs_more = reason is Reason.PROVED and keeps
        if (reason in _DECIDED and not needs_more) or self.watch.left == 0:
            return reason
        claimed, self.by_solver = self.by_solver, self.by_solver and not keeps
        again = search(lower, self.watch)
        if again in _DECIDED:
            return again
        self.by_solver = claimed
        return reason

    def _is_few(self, query, lower):
        """Return whether few rows are open, all of which branch and bound can sweep for."""
        if not query.is_linear or query.uses_distance:
            return False
        return int((~query.proved(lower)[0]).sum()) <= _FEW_ROWS

    def _visit(self, points):
        """Try the points that bounds suggest, where it is worth it."""
        points = self.query.ball.project(points) if self.query.ball.norm == "l2" else points
        values = self.values(points)
        order = values.argsort()
        if values[order[0]] <= 0 and self.confirms(points[order[:8]]):
            return True
        # A short descent from the best points, while the search is young.
        self._n_descents += 1
        return self._n_descents <= 3 and self.confirms(points[order[:8]])

    # -- mixed-integer programs --

    def _by_programs(self, query, root, lower):
        nearest = query.nearest.item() if query.uses_distance else None
        program = Program(self.encoding.maps, root, nearest)
        shift = query.rows.b - reference_error(self.encoding.graph, query)
        reason = Reason.PROVED
        # Of rows alone, these are their bounds themselves, for what comes after.
        proved, bounds = query.proved(lower)[0], query.clause_bounds(lower)[0]
        for clause in bounds.argsort().tolist():
            if proved[clause]:
                continue
            rows = query.clauses[clause]
            terms = (part[0, rows].cpu().numpy() for part in (query.rows.A, query.rows.c, shift))
            minimum = _least_clause(program, *terms, self.watch)
            answer = self._confirmed(minimum)
            if answer in (Reason.COUNTEREXAMPLE, *LIMITS):
                return answer
            if answer is Reason.PROVED:
                self.by_solver = True
                bounds[clause] = max(bounds[clause].item(), 0.0)
            else:
                reason = answer
        self.lower = bounds.amin().item()
        return reason

    def _confirmed(self, minimum):
        """Return the reason of a `Minimum`, whose point counts only if the network confirms it."""
        if minimum.point is not None and self.confirms(torch.as_tensor(minimum.point)[None]):
            return Reason.COUNTEREXAMPLE
        is_spurious = minimum.reason is Reason.COUNTEREXAMPLE
        return Reason.SPURIOUS if is_spurious else minimum.reason

    # -- branch and bound --

    def _by_branching(self, query, root, lower, watch):
        reduction, lower = reduce(root), self._own(lower)
        small = reduction.relaxation
        if not self.encoding.keeps_proofs:  # the checker of evidence does not know such lines
            small = replace(small, envelope=envelope_of(small))
        problem, open_rows = self._problem(query, small, lower)

        recording = self._recording(problem, root, reduction.places, small)

        def leaf(domains, k):
            domain = domains[k : k + 1]
            if _is_box(query.ball) and close_leaf(problem, domain, recording):
                return "proved"
            return self._leaf(query, root, reduction, problem, domain, watch)

        word, bounds = branch(
            problem,
            batch_size=self.settings.batch_size,
            memory_limit=self.settings.memory_limit,
            n_steps=self.settings.n_steps,
            watch=watch,
            visit=self._visit,
            leaf=leaf,
            recording=recording,
        )
        if recording is not None and word == "proved":
            self.proof = proof_of(recording, problem, query, open_rows, is_shared=False)
            if root.graph is not self.encoding.graph:
                self.proof["relus"] = np.array(1, dtype=np.uint8)
        return self._said(query, lower, word, bounds, open_rows, watch)

    def _recording(self, problem, root, places, small):
        """Return what a search is to be recorded in, or None."""
        if not self.encoding.keeps_proofs:
            return None
        n_bounds = problem.rows.shape[1] if problem.is_joint else 1
        return Recording(root, places, small, n_bounds)

    def _own(self, lower):
        """Return bounds to be raised by what is proved; a copy where a proof must be whole."""
        return lower.clone() if self.encoding.keeps_proofs else lower

    def _by_inputs(self, query, root, lower, watch):
        lower = self._own(lower)
        problem, open_rows = self._problem(query, root, lower)
        recording = self._recording(problem, root, {}, root)
        word, bounds = branch_inputs(
            problem,
            batch_size=self.settings.batch_size,
            memory_limit=self.settings.memory_limit,
            watch=watch,
            visit=self._visit,
            recording=recording,
        )
        if recording is not None and word == "proved":
            self.proof = proof_of(recording, problem, query, open_rows, is_shared=True)
        return self._said(query, lower, word, bounds, open_rows, watch)

    def _said(self, query, lower, word, bounds, open_rows, watch):
        """Enter the bounds of a search that ended with a word; return its `Reason`."""
        reason = watch.reason if word == "limit" else _REASONS[word]
        if reason is Reason.INCOMPLETE and watch.left == 0:
            reason = watch.reason
        elif _has_units_without_program(self.encoding.graph):
            pass
        elif reason is Reason.INCOMPLETE and query.is_linear and _is_box(query.ball):
            # All units are decided in what is stuck, so that only tolerances are in the way.
            reason = Reason.SPURIOUS
        if query.is_linear:
            known = query.clause_bounds(lower)[0]  # of rows alone, these bounds themselves
            known[open_rows] = torch.maximum(known[open_rows], bounds.clamp(max=0))
            self.lower = known.amin().item()
        else:
            self.lower = max(query.margin(lower).item(), min(bounds.item(), 0.0))
        return reason

    def _problem(self, query, root, lower):
        rows, shift = query.rows, query.rows.b - reference_error(self.encoding.graph, query)
        nearest = query.nearest if query.uses_distance else None
        if not query.is_linear:
            # All gaps together, since the row is a function of all.
            def joint(lower, problem):
                return query.margin(lower - query.strict * _LEAST)

            terms = (root, rows.A, shift, None, None, joint)
            everything = torch.arange(1, device=rows.A.device)
            return Problem(*terms, any_row=False, is_joint=True), everything
        chosen = (~query.proved(lower)[0]).nonzero().squeeze(1)
        known = query.clause_bounds(lower)[0, chosen]
        chosen = chosen[known.argsort(descending=True)]
        members = query.clauses[chosen]
        slope = rows.c[0, members] if query.uses_distance else None
        least = (query.strict[members].any(dim=1) * _LEAST).unsqueeze(1)

        def largest(lower, problem):
            return (lower - least[problem]).amax(dim=1)

        *terms, weights = with_mixtures(
            root, rows.A[0, members], shift[0, members], slope, nearest
        )
        is_plain = not query.uses_distance
        problem = Problem(root, *terms, nearest, largest, any_row=is_plain, weights=weights)
        return problem, chosen

    def _leaf(self, query, root, reduction, problem, domain, watch):
        """Decide a domain without undecided units, by a linear program; see `branch`."""
        if not _is_box(query.ball) or _has_units_without_program(self.encoding.graph):
            return "stuck"
        lows, highs = list(root.lows), list(root.highs)
        for small, (j, units) in reduction.places.items():
            for whole, part in ((lows, domain.lows), (highs, domain.highs)):
                whole[j] = whole[j].clone()
                whole[j].flatten(1)[:, units] = part[small].flatten(1)
        cut = replace(root, lows=lows, highs=highs)
        nearest = query.nearest.item() if query.uses_distance else None
        program = Program(self.encoding.split_maps, cut, nearest, integer=False)
        for small, (j, units) in reduction.places.items():
            signs = domain.signs[small].flatten().cpu().numpy()
            decided = np.flatnonzero(signs)
            if len(decided):
                program.restrict(j, units.cpu().numpy()[decided], signs[decided])
        which = domain.problem.item()
        rows, shifts = problem.rows[which].cpu().numpy(), problem.shift[which].tolist()
        if not query.is_linear:
            return self._concave_leaf(query, program, rows, shifts, watch)
        slopes = (
            np.zeros(len(rows)) if problem.slope is None else problem.slope[which].cpu().numpy()
        )
        minimum = _least_clause(program, rows, slopes, np.array(shifts), watch)
        answer = self._confirmed(minimum)
        self.by_solver |= answer is Reason.PROVED
        return {Reason.PROVED: "proved", Reason.COUNTEREXAMPLE: "end"}.get(answer, "stuck")

    def _concave_leaf(self, query, program, rows, shifts, watch):
        """Decide the row of strong classification where the outputs are affine.

        It is concave in the gaps, so its minimum lies at a corner that no linear program finds.
        From the least value of each gap follows a bound; where that is below 0, the range of
        the gap that costs most is halved.
        """
        pieces = [program]
        for _ in range(_PIECES):
            if not pieces:
                self.by_solver = True
                return "proved"
            piece, minima = pieces.pop(), []
            for row, shift in zip(rows, shifts, strict=True):
                minima.append(piece.minimize(row, 0.0, shift, watch=watch, decide=False))
                if minima[-1].point is None:
                    break
            if minima[-1].reason is Reason.PROVED:  # the piece holds no point
                continue
            if minima[-1].point is None:
                return "stuck"
            points = torch.as_tensor(np.stack([each.point for each in minima]))
            points = points.to(query.ball.center.device)
            if self.confirms(points, repair=False):
                return "end"
            lower = points.new_tensor([[each.lower for each in minima]])
            if query.holds(lower).item():
                continue
            with torch.no_grad():
                outputs = self.encoding.graph(points).cpu().numpy()
            values = outputs @ rows.T + shifts
            values = values[np.exp(-values).sum(axis=1).argmax()]
            lower = lower[0].cpu().numpy()
            worst = (np.exp(-lower) - np.exp(-values)).argmax()
            pieces += piece.cut(rows[worst], shifts[worst], (lower[worst] + values[worst]) / 2)
        return "stuck"
