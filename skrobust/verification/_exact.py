"""Complete verification of piecewise linear networks, without an outside verifier."""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch

from skrobust._parameters import DefaultParts
from skrobust._validation import check_instance, check_integer
from skrobust.attacks import PGD, Attack, confirm
from skrobust.bounds import check_finite, farthest, relax
from skrobust.graphs import Relu
from skrobust.verification._base import Encoding, Stopwatch, Verifier, attacked
from skrobust.verification._bounds import Bounds, bound_query, proved_radius, reference_error
from skrobust.verification._branch import Problem, branch
from skrobust.verification._milp import Program, affine_maps
from skrobust.verification._query import make_query
from skrobust.verification._result import Reason, Verification

__all__ = ["Exact"]

_FIRST_SECONDS = 1.0
_PIECES = 200  # of the outputs' range, for a concave row in one linear piece
_ROOT_STEPS = 5  # of gradients, for each interval of the whole ball
_HALVINGS = 40  # of the distance, down to where a network is one linear piece


class Exact(DefaultParts, Verifier):
    r"""Decide a property by bounds, then by branch and bound or a mixed-integer program.

    What CROWN and an attack leave open is decided by branch and bound: domains in which units
    are decided are bounded in batches, with slopes and multipliers chosen by gradient steps
    (beta-CROWN), until every domain is proved, or a point is found that breaks the property.
    Where few units are undecided over the ball, and that takes more than a second, each gets a
    0-1 variable, and HiGHS solves the program, row by row. The search can be stopped at any
    time: the smallest row has a proved lower bound then.

    Parameters
    ----------
    attack : Attack or None, default=None
        Looks for counterexamples first. None is PGD of 40 steps with 3 restarts.
    milp_units : int, default=60
        Up to that many undecided units, HiGHS is asked for what branch and bound does not
        decide in its first second; and branch and bound goes on where HiGHS fails.
    batch_size : int, default=128
        Domains that are bounded together.
    n_steps : int, default=3
        Gradient steps for each domain.

    Notes
    -----
    It is complete, up to the tolerances below, for linear properties in L-infinity balls, and
    networks whose units are ReLU and leaky ReLU; with clamps and max-pools where HiGHS decides.
    In L2 balls, where HiGHS has no part, a domain without undecided units may stay open. For
    `StrongClassificationRobustness`, whose row is concave in the outputs, the range of the
    outputs is halved in such a domain, up to 200 times.

    The proofs of branch and bound hold in float64 with rounding accounted for. HiGHS is asked
    for the absence of points at which the row is below 1e-6, relative to the numbers in the
    row, with tolerances of 1e-9: a row whose minimum lies in between is not proved.

    `LipschitzRobustness` is 0 at the reference point. Near it, slopes prove it, within a radius
    that is halved until they do; farther out, in shells of doubling radius, it is a row in which
    d is a variable that is at least the inner radius. There the row has room above 0.

    References
    ----------
    Tjeng et al., "Evaluating robustness of neural networks with mixed integer programming",
    ICLR 2019. Wang et al., "Beta-CROWN", NeurIPS 2021.

    Examples
    --------
    >>> from sklearn.neural_network import MLPClassifier
    >>> from skrobust.networks import as_network
    >>> from skrobust.properties import ClassificationRobustness
    >>> from skrobust.verification import Exact
    >>> X, y = [[0.2], [0.4], [0.6], [0.8]], [0, 0, 1, 1]
    >>> model = MLPClassifier(5, solver="lbfgs", random_state=0).fit(X, y)
    >>> network = as_network(model)
    >>> x, labels = network.rows(X), network.encode(y)
    >>> found = Exact().verify(network, ClassificationRobustness(0.09), x, labels)
    >>> found.verdicts.tolist()
    ['verified', 'verified', 'verified', 'verified']
    """

    def __init__(self, attack=None, *, milp_units=60, batch_size=128, n_steps=3):
        self.attack = attack
        self.milp_units = milp_units
        self.batch_size = batch_size
        self.n_steps = n_steps

    def _default_parts(self):
        return {"attack": PGD(40, n_restarts=3)}

    def check(self):
        if self.attack is not None:
            check_instance("attack", self.attack, Attack, "PGD(n_steps=40)").check()
        check_integer("milp_units", self.milp_units)
        check_integer("batch_size", self.batch_size, low=1)
        check_integer("n_steps", self.n_steps, low=1)
        return self

    def encode(self, network, property, n_features=None):
        encoding = super().encode(network, property, n_features)
        return _ExactEncoding(encoding.network, encoding.property, encoding.graph)

    def _graph(self, network, n_features):
        return check_finite(super()._graph(network, n_features))

    def is_slow(self, state):
        return True

    def decide(self, state, x, labels=None, *, timeout=None, generator=None):
        watch = Stopwatch()
        found = Bounds().decide(state, x, labels, timeout=timeout)
        attack = self._part("attack")
        found = attacked(attack, found, state, x, labels, generator)
        left = found.undecided_index
        if len(left) == 0:
            return found
        index = torch.as_tensor(left, device=x.device)
        labels = None if labels is None else labels[index]
        # What bounds and the attack have spent is a part of each point's time.
        if timeout is not None:
            timeout = max(0.0, timeout - watch.elapsed / len(x))
        return found.merge(left, self.decide_open(state, x[index], labels, timeout=timeout))

    def decide_open(self, state, x, labels=None, *, timeout=None, generator=None):
        found = Verification.undecided(x)
        for place in range(len(x)):
            at = slice(place, place + 1)
            part = None if labels is None else labels[at]
            found = found.merge(at, self._decide_point(state, x[at], part, Stopwatch(timeout)))
        return found

    def _decide_point(self, state, x, labels, watch):
        query = make_query(state, x, labels)
        search = _Search(self, state, query, watch)
        status = search.run()
        if status == "stuck" and watch.left == 0:
            status = "limit"
        found = Verification.undecided(x, _REASONS.get(status, Reason.BOUNDS_TOO_LOOSE))
        if status == "proved":
            found = found.prove([0], search.lower)
        elif search.counterexample is not None:
            found = found.falsify([0], search.counterexample, torch.tensor([True]))
        found.lower[:] = search.lower
        found.seconds[:] = watch.elapsed
        return found


_REASONS = {"limit": Reason.TIME_OUT, "spurious": Reason.SPURIOUS, "failure": Reason.SOLVER_ERROR}


@dataclass(frozen=True, eq=False)
class _ExactEncoding(Encoding):
    @cached_property
    def maps(self):
        """The network's affine parts as sparse matrices."""
        return affine_maps(self.graph)


def _is_box(ball):
    """Return whether one ball is a box: of L-infinity, or one of L2 in which one entry moves."""
    return ball.norm == "linf" or int((ball.upper > ball.lower).sum()) <= 1


class _Search:
    """The search for one reference point.

    Attributes
    ----------
    lower : float
        Proved lower bound of the smallest row, over the pieces of the ball looked at so far.
    counterexample : Tensor of shape (1, n_features) or None
    """

    def __init__(self, settings, state, query, watch):
        self.settings, self.state, self.query, self.watch = settings, state, query, watch
        self.counterexample = None
        self.lower = -np.inf
        self._tried = 0

    def run(self):
        """Return "proved", "end" (a counterexample), "limit", "spurious", "failure" or "stuck"."""
        if not self.query.uses_distance:
            return self._piece(self.query)
        return self._shells()

    # -- the ball in pieces --

    def _shells(self):
        query, graph = self.query, self.state.graph
        near = proved_radius(graph, query, halvings=_HALVINGS, watch=self.watch)
        far = farthest(query.ball)
        if near.item() == 0:
            return "end" if self._steepest() else "stuck" if self.watch.left else "limit"
        status, radius = "proved", near
        while radius < far:
            outer = torch.minimum(2 * radius, far)
            found = self._piece(query.within(outer).beyond(radius))
            status = found if found != "proved" else status
            if found in ("end", "limit"):
                break
            radius = outer
        # What is known of one shell says nothing of the others; and near the reference point
        # the rows come down to 0.
        self.lower = min(self.lower, 0.0) if status == "proved" else -np.inf
        return status

    def _steepest(self):
        """Try the points along the steepest direction of each row from the reference point."""
        center = self.query.ball.center.clone().requires_grad_()
        with torch.enable_grad():
            logits = self.state.graph(center)
            rows = (self.query.rows.A[0] @ logits[0]).unbind()
            gradients = [torch.autograd.grad(row, center, retain_graph=True)[0] for row in rows]
        ball = self.query.ball
        moves = torch.cat([ball.steepest(gradient) for gradient in gradients])
        sizes = torch.tensor([1.0, 0.1, 0.01, 0.001], dtype=torch.float64)
        points = ball.center - (sizes[:, None, None] * moves).flatten(0, 1)
        return self._try(points)

    def _piece(self, query):
        """Decide all rows over one ball: the linear ones together, and each concave one."""
        root = relax(self.state.graph, query.ball, n_steps=_ROOT_STEPS, watch=self.watch)
        status, lower = "proved", torch.inf
        parts = query.parts()
        while parts and status not in ("end", "limit"):
            self.lower = -np.inf
            found = self._part(parts.pop(0), root)
            status = found if found != "proved" else status
            lower = min(lower, self.lower)
        # A part that was not looked at has no bound.
        self.lower = -np.inf if parts else lower
        return status

    def _part(self, query, root):
        """Decide rows that are linear, or one that is concave, over the ball of the root."""
        with torch.no_grad():
            lower = bound_query(self.state.graph, query, "crown", watch=self.watch)
            lower = lower.nan_to_num(-torch.inf, torch.inf, -torch.inf)
        if query.holds(lower).item():
            self.lower = query.margin(lower).item()
            return "proved"
        undecided = sum(int(lines.open.sum()) for lines in root.lines.values())
        by_units = all(isinstance(self.state.graph.nodes[i], Relu) for i in root.lines)
        if not (query.is_linear and _is_box(query.ball)):
            return self._by_branching(query, root, lower, self.watch)
        if not by_units:
            return self._by_programs(query, root, lower)
        if undecided > self.settings.milp_units:
            return self._by_branching(query, root, lower, self.watch)
        # Where no point breaks the rows, branching is the faster one, as a rule by far. Where
        # one does that the attack has missed, the program finds it sooner.
        status = self._by_branching(query, root, lower, self.watch.part(_FIRST_SECONDS))
        if status in ("proved", "end"):
            return status
        status = self._by_programs(query, root, lower)
        if status in ("proved", "end", "limit"):
            return status
        # The solver has failed, or the row is closer to 0 than its tolerance.
        found = self._by_branching(query, root, lower, self.watch)
        return found if found in ("proved", "end") else status

    # -- candidates --

    def _try(self, points, repair=True):
        """Keep a point that breaks the property in the network itself; return whether one does."""
        index = torch.zeros(len(points), dtype=torch.long)
        outcome = confirm(self.query.target[index], points, repair=repair)
        if outcome.broken.any():
            self.counterexample = outcome.points[outcome.broken][:1]
        return bool(outcome.broken.any())

    def _visit(self, points):
        """Try the points that bounds suggest, where it is worth it."""
        points = self.query.ball.project(points) if self.query.ball.norm == "l2" else points
        index = torch.zeros(len(points), dtype=torch.long)
        with torch.no_grad():
            values = self.query[index].values(self.state.graph(points), points).amin(dim=1)
        order = values.argsort()
        if values[order[0]] <= 0 and self._try(points[order[:8]]):
            return True
        # A short descent from the best points, while the search is young.
        self._tried += 1
        return self._tried <= 3 and self._try(points[order[:8]])

    # -- mixed-integer programs --

    def _by_programs(self, query, root, lower):
        nearest = query.nearest.item() if query.uses_distance else None
        program = Program(self.state.maps, root, nearest)
        shift = query.rows.b - reference_error(self.state.graph, query)
        status = "proved"
        proved = query.proved(lower)[0]
        for row in lower[0].argsort().tolist():
            if proved[row]:
                continue
            found = program.minimise(
                query.rows.A[0, row].numpy(),
                query.rows.c[0, row].item(),
                shift[0, row].item(),
                time_limit=self.watch.left,
            )
            if found.point is not None and self._try(torch.as_tensor(found.point)[None]):
                return "end"
            if found.status == "limit":
                return "limit"
            if found.status != "proved":
                status = "spurious" if found.status == "found" else "failure"
            else:
                lower[0, row] = max(lower[0, row].item(), 0.0)
        self.lower = lower.amin().item()
        return status

    # -- branch and bound --

    def _by_branching(self, query, root, lower, watch):
        problem, open_rows = self._problem(query, root, lower)
        status, bounds = branch(
            problem,
            batch_size=self.settings.batch_size,
            n_steps=self.settings.n_steps,
            watch=watch,
            visit=self._visit,
            leaf=lambda domains, k: self._leaf(query, root, problem, domains[k : k + 1]),
        )
        if status == "stuck" and query.is_linear and query.ball.norm == "linf":
            # All units are decided there: what is left is a matter of tolerances, or of time.
            status = "spurious" if watch.left else "limit"
        if query.is_linear:
            lower[0, open_rows] = torch.maximum(lower[0, open_rows], bounds.clamp(max=0))
            self.lower = lower.amin().item()
        else:
            self.lower = max(query.margin(lower).item(), min(bounds.item(), 0.0))
        return status

    def _problem(self, query, root, lower):
        rows, shift = query.rows, query.rows.b - reference_error(self.state.graph, query)
        nearest = query.nearest if query.uses_distance else None
        if not query.is_linear:
            # All gaps together, since the row is a function of all.
            def joint(lower, problem):
                return query.margin(lower)

            return Problem(root, rows.A, shift, None, None, joint), slice(None)
        chosen = (~query.proved(lower)[0]).nonzero().squeeze(1)
        chosen = chosen[lower[0, chosen].argsort(descending=True)]
        slope = rows.c[0, chosen].unsqueeze(1) if query.uses_distance else None
        # Strict rows are proved above 0: the smallest number above is asked for.
        least = query.strict[chosen].to(torch.float64) * 1e-300

        def single(lower, problem):
            return lower[:, 0] - least[problem]

        A, shift = rows.A[0, chosen].unsqueeze(1), shift[0, chosen].unsqueeze(1)
        return Problem(root, A, shift, slope, nearest, single), chosen

    def _leaf(self, query, root, problem, domain):
        """Decide a domain without undecided units, by a linear program."""
        if not _is_box(query.ball):
            return "stuck"
        lows, highs = list(root.lows), list(root.highs)
        for j in domain.lows:
            lows[j], highs[j] = domain.lows[j], domain.highs[j]
        cut = replace(root, lows=lows, highs=highs)
        nearest = query.nearest.item() if query.uses_distance else None
        program = Program(self.state.maps, cut, nearest, integer=False)
        for j, signs in domain.signs.items():
            units = signs.flatten().nonzero().squeeze(1).numpy()
            if len(units):
                program.restrict(j, units, signs.flatten().numpy()[units])
        which = domain.problem.item()
        rows, shifts = problem.rows[which].numpy(), problem.shift[which].tolist()
        if not query.is_linear:
            return self._concave_leaf(query, program, rows, shifts)
        slope = 0.0 if problem.slope is None else problem.slope[which, 0].item()
        found = program.minimise(rows[0], slope, shifts[0], time_limit=self.watch.left)
        if found.point is not None and self._try(torch.as_tensor(found.point)[None]):
            return "end"
        return "proved" if found.status == "proved" else "stuck"

    def _concave_leaf(self, query, program, rows, shifts):
        """Decide the row of strong classification where the outputs are affine.

        It is concave in the gaps, so its minimum lies at a corner that no linear program finds.
        From the least value of each gap follows a bound; where that is below 0, the range of
        the gap that costs most is halved.
        """
        pieces = [program]
        for _ in range(_PIECES):
            if not pieces:
                return "proved"
            piece, found = pieces.pop(), []
            for row, shift in zip(rows, shifts, strict=True):
                left = self.watch.left
                found.append(piece.minimise(row, 0.0, shift, time_limit=left, decide=False))
                if found[-1].point is None:
                    break
            if found[-1].status == "proved":  # no point is left
                continue
            if found[-1].point is None:
                return "stuck"
            points = torch.as_tensor(np.stack([each.point for each in found]))
            if self._try(points, repair=False):
                return "end"
            lower = torch.tensor([[each.lower for each in found]], dtype=torch.float64)
            if query.margin(lower).item() >= 0:
                continue
            with torch.no_grad():
                outputs = self.state.graph(points).numpy()
            values = outputs @ rows.T + shifts
            values = values[np.exp(-values).sum(axis=1).argmax()]
            lower = lower[0].numpy()
            worst = (np.exp(-lower) - np.exp(-values)).argmax()
            pieces += piece.cut(rows[worst], shifts[worst], (lower[worst] + values[worst]) / 2)
        return "stuck"
