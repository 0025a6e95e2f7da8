r"""Branch and bound over the units of a network, many domains at a time (beta-CROWN).

A domain is the ball cut by decisions z_k >= 0 or z_k <= 0 about units. The bound of a row over
it is that of `crown`, with two kinds of free numbers that gradient steps choose: the slopes of
undecided units (alpha), and for each decision s z >= 0 a multiplier beta >= 0. Since s z >= 0 in
the domain, row - beta s z lies below the row there, so that any such numbers give a proof. Smooth
units are decided again and again, z_k >= t or z_k <= t, at points t inside of their intervals,
which makes their lines better: there row - beta s (z - t) lies below the row.

Where a tree grows large, it is begun anew, in another way: one domain at a time, whose intervals
are tightened to the points at which its rows fail, again and again (see `_failing`), then a
small tree below it, and only then two halves. What is found of the points where all rows fail
proves the domain as well as what is found of all points: were there a point at which they fail,
it would be among them.

References
----------
Bunel et al., "Branch and bound for piecewise linear neural network verification", JMLR 2020.
Wang et al., "Beta-CROWN: efficient bound propagation with per-neuron split constraints for
neural network robustness verification", NeurIPS 2021.
"""

from dataclasses import dataclass, field, replace
from functools import cached_property

import torch

from skrobust.bounds import (
    UNIT,
    Climb,
    Relaxation,
    backward,
    crown,
    initial_slopes,
)
from skrobust.graphs import Smooth
from skrobust.verification._choice import costliest, is_decided
from skrobust.verification._domains import Domains, Stack, split
from skrobust.verification._failing import patience, tighten_failing
from skrobust.verification._intervals import relaxation_of, retightened, sharpened

__all__ = ["Problem", "branch", "options_of"]

_RATE_ALPHA = 0.2
_RATE_BETA = 4.0  # relative to the size of the rows at the node
_DECAY = 0.9
_WAITING = 0.5  # of the memory, for domains that wait
_BOUNDED = 0.25  # for those that are bounded
_KNOWN = 0.25  # for what sweeps go on from
_SWEEPS = 30  # of one domain, at most
_WORTH = 0.03  # of the bound, which a sweep must gain for another one
_INNER = 0.25  # of the work of sweeps, for the tree below before the domain is split
_LEAST_INNER = 128  # domains of that tree: where few units are open, it is the faster way
_COPIES = 32  # of each number of a node, while a domain is bounded with gradients
_SMOOTH = 6  # times as much for the lines of smooth units
_BATCH = 512


@dataclass(frozen=True, eq=False)
class Problem:
    """Rows of one network over one ball.

    Parameters
    ----------
    root : Relaxation
        Of the one ball.
    rows : Tensor of shape (r, m, n_classes)
        Each of r problems asks whether m rows hold: one for linear properties.
    shift, slope : Tensor of shape (r, m)
        Their constants, and what they have of the distance (or None).
    nearest : Tensor of shape (1,) or None
        Least distance.
    margin : callable
        From lower bounds (P, m) and the problems (P,) to what must be at least 0, (P,).
    any_row : bool, default=True
        Whether a problem holds at each point where one of its rows is above 0, and the rows have
        nothing of the distance.
    is_joint : bool, default=False
        Whether bounds of all rows together prove a problem, not that of one of them.
    weights : Tensor of shape (r, m - 1) or None
        Where the last row of a problem is a mixture of the others: their weights in it.
    """

    root: Relaxation
    rows: torch.Tensor
    shift: torch.Tensor
    slope: torch.Tensor | None
    nearest: torch.Tensor | None
    margin: object
    any_row: bool = True
    is_joint: bool = False
    weights: torch.Tensor | None = None

    @cached_property
    def scales(self):
        """Mean size of the rows of each node's open units: the unit of betas.

        Most units of a node are closed as a rule, and never get a beta; their rows, which are
        far smaller where they are dead, say nothing of it.
        """
        trace, count = {}, len(self.rows)
        sample = torch.zeros(count, dtype=torch.long, device=self.rows.device)
        with torch.no_grad():
            backward(self.root, len(self.root.graph.nodes) - 1, self.rows, sample, trace=trace)
        scales = {}
        for j, readers in self.root.sources.items():
            is_open = [
                self.root.lines[i].open[0] for i in readers if is_decided(self.root.graph.nodes[i])
            ]
            is_open = torch.stack(is_open).any(dim=0) if is_open else None
            if j in trace and is_open is not None and is_open.any():
                scales[j] = trace[j][:, :, is_open].abs().mean() + 1e-12
        return scales


def branch(problem, *, batch_size, memory_limit, n_steps, watch, visit, leaf, recording=None):
    """Prove the rows, or find where they fail.

    Parameters
    ----------
    problem : Problem
    batch_size : int or None
        Domains that are bounded together; what suits the memory if None.
    memory_limit : float
        Bytes, for the domains that wait and for those that are bounded.
    n_steps : int
        Gradient steps for each.
    watch : Stopwatch
        Of seconds and domains.
    visit : callable
        ``visit(points)`` is given points where rows may fail, of shape (k, n_features), and
        returns whether the search can end.
    leaf : callable
        ``leaf(domain, k)`` is given a set of domains without undecided units, and the place of
        one; it returns "proved", "end" or "stuck".
    recording : Recording, default=None
        Is told of the tree, and by what the bounds of its leaves were found.

    Returns
    -------
    status : {"proved", "end", "limit", "stuck"}
    lower : Tensor of shape (r,)
        Proved lower bounds of the margins.
    """
    size = _batch_size(problem, memory_limit * _BOUNDED)
    search = _Search(
        problem,
        size if batch_size is None else min(batch_size, size),
        memory_limit,
        n_steps,
        visit,
        leaf,
        recording,
    )
    is_plain = recording is None and problem.any_row
    due_at = patience(problem.root) if is_plain else float("inf")
    status, open_parts = search.grow(_first(problem), watch, due_at)
    return status, _lowest(problem, open_parts)


@dataclass(frozen=True, eq=False)
class _Search:
    """Searches of trees of domains; fields as the arguments of `branch`.

    All return how they ended, and parts of domains that are not proved.
    """

    problem: Problem
    batch_size: int
    memory_limit: float
    n_steps: int
    visit: object
    leaf: object
    recording: object = None
    known: dict = field(default_factory=dict)

    def grow(self, roots, watch, due_at=float("inf")):
        """Search the trees below some domains, many domains at a time.

        Problems whose trees grow to `due_at` domains are left to `sweep`.
        """
        problem, recording = self.problem, self.recording
        stack, stuck = Stack(self.memory_limit * _WAITING), []
        stack.push(roots)
        n_places, counts = len(roots), torch.zeros(len(problem.rows), device=roots.place.device)
        while stack:
            if watch.left == 0:
                return "limit", [*stack.parts, *stuck]
            domains = stack.take(min(self.batch_size, watch.domains_left))
            counts = counts + domains.problem.bincount(minlength=len(counts))
            domains = retightened(problem, domains, watch, recording)
            domains, points = _bound(problem, domains, self.n_steps, watch, recording)
            watch.count(len(domains))
            index = (domains.lower < 0).nonzero().squeeze(1)
            open_domains = domains[index]
            if len(open_domains) == 0:
                continue
            if self.visit(points[index]):
                return "end", [open_domains, *stack.parts, *stuck]
            is_leaf = open_domains.branch[:, 0] < 0
            for k in is_leaf.nonzero().squeeze(1).tolist():
                status = self.leaf(open_domains, k)
                if status == "end":
                    return "end", [open_domains, *stack.parts, *stuck]
                if status == "stuck":
                    stuck.append(open_domains[k : k + 1])
            inner = open_domains[(~is_leaf).nonzero().squeeze(1)]
            if len(inner):
                # The lowest domains last: they are taken first, where counterexamples are.
                inner = inner[inner.lower.argsort(descending=True)]
                halves = split(inner, n_places)
                if recording is not None:
                    recording.split(halves)
                stack.push(halves)
                n_places += 2 * len(inner)
            for which in (counts >= due_at).nonzero().squeeze(1).tolist():
                if watch.left == 0:
                    break
                counts[which] = -torch.inf
                if stack.drop(which):
                    # The tree that is begun anew holds what was stuck in this one.
                    stuck = [part for part in stuck if part.problem[0] != which]
                    status, parts = self.sweep(roots[roots.problem == which], watch)
                    if status in ("end", "limit"):
                        return status, [*parts, *stack.parts, *stuck]
                    stuck += parts
        return "stuck" if stuck else "proved", stuck

    def sweep(self, root, watch):
        """Search the tree below one domain, the intervals of each tightened to where rows fail.

        That takes long for each, and trees are so much smaller for it. A part of that work is
        spent on a tree below the domain without it, which may do, before the domain is split.
        """
        problem = self.problem
        waiting, stuck = [(self._sharpened(root, watch), {})], []
        while waiting:
            domain, known = waiting.pop()
            rest = [*(part for part, _ in waiting), *stuck]
            if watch.left == 0:
                return "limit", [domain, *rest]
            domain, points = _bound(problem, domain, self.n_steps, watch)
            watch.count(1)
            if domain.lower < 0:
                domain, known, points, work = self._swept(domain, known, points, watch)
            if domain.lower >= 0:
                continue
            if self.visit(points):
                return "end", [domain, *rest]
            part = watch.part(max_domains=max(_LEAST_INNER, int(_INNER * work)))
            status, parts = self.grow(domain, part)
            if status == "end" or (status == "limit" and watch.left == 0):
                return status, [domain, *rest]
            if status == "stuck":
                stuck += parts
            if status == "limit":
                size = sum(free.n_bytes for free in known.values())
                is_small = (len(waiting) + 2) * size < self.memory_limit * _KNOWN
                halves = split(domain, 0)
                waiting += [(halves[k : k + 1], known if is_small else {}) for k in range(2)]
        return "stuck" if stuck else "proved", stuck

    def _sharpened(self, domain, watch):
        """Return a domain with better intervals of the whole ball, which are found once."""
        if "ball" not in self.known:
            self.known["ball"] = sharpened(self.problem.root, watch)
        ball = self.known["ball"]
        lows = {j: torch.maximum(low, ball.lows[j]) for j, low in domain.lows.items()}
        highs = {j: torch.minimum(high, ball.highs[j]) for j, high in domain.highs.items()}
        return replace(domain, lows=lows, highs=highs)

    def _swept(self, domain, known, points, watch):
        """Tighten the intervals of a domain while that pays.

        Returns it with what `tighten_failing` goes on from, where its rows may fail, and how
        many domains could have been bounded instead.
        """
        problem, work = self.problem, 0
        rows, shift = problem.rows[domain.problem], problem.shift[domain.problem]
        for _ in range(_SWEEPS):
            built, before = relaxation_of(problem, domain), domain.lower.item()
            work += 2 * sum(int(lines.open.sum()) for lines in built.lines.values())
            with torch.no_grad():
                terms = (rows, shift, domain.alphas)
                known = tighten_failing(built, *terms, known=known, watch=watch)
            lows, highs = ({j: s[j] for j in domain.lows} for s in (built.lows, built.highs))
            # Where intervals contradict each other, no row fails anywhere.
            lower = torch.where(built.empty, torch.inf, domain.lower)
            domain = replace(domain, lows=lows, highs=highs, lower=lower)
            domain, points = _bound(problem, domain, self.n_steps, watch)
            gain = domain.lower.item() - before
            if domain.lower >= 0 or watch.left == 0 or not gain > -_WORTH * before:
                break
        return domain, known, points, work


def _batch_size(problem, n_bytes):
    """Return how many domains can be bounded in so much memory, at most `_BATCH`."""
    nodes = problem.root.graph.nodes
    numbers = sum(node.size * (1 + _SMOOTH * isinstance(node, Smooth)) for node in nodes)
    numbers += 0 if problem.root.envelope is None else problem.root.envelope.size
    return int(max(1, min(_BATCH, n_bytes / (8 * _COPIES * numbers * problem.rows.shape[1]))))


def _lowest(problem, open_domains):
    """Return the lowest bound of each problem in domains."""
    lower = problem.rows.new_full((len(problem.rows),), torch.inf)
    for part in open_domains:
        lower = lower.scatter_reduce(0, part.problem, part.lower, "amin")
    return lower


def _first(problem):
    """Return the root domain of each problem."""
    root, count = problem.root, len(problem.rows)
    lows = {j: root.lows[j].expand(count, *root.lows[j].shape[1:]) for j in root.sources}
    highs = {j: root.highs[j].expand(count, *root.highs[j].shape[1:]) for j in root.sources}
    zeros = {j: torch.zeros_like(lows[j]) for j in lows}
    sample = torch.zeros(count, dtype=torch.long, device=problem.rows.device)
    alphas = initial_slopes(root, problem.rows.shape[:2], sample)
    if root.envelope is not None:
        alphas |= root.envelope.start(_pulled(root, problem.rows, sample, alphas))
    return Domains(
        torch.arange(count, device=problem.rows.device),
        lows,
        highs,
        zeros,
        alphas,
        {j: zeros[j].unsqueeze(1) for j in zeros},
        problem.rows.new_full((count,), -torch.inf),
        torch.full((count, 2), -1, device=problem.rows.device),
        problem.rows.new_zeros(count),
        torch.zeros_like(sample),
        torch.arange(count, device=problem.rows.device),
        torch.full_like(sample, -1),
        sample.new_zeros(count, 3),
    )


def _pulled(root, rows, sample, alphas):
    """Return rows of the output as rows of the input."""
    with torch.no_grad():
        return backward(root, len(root.graph.nodes) - 1, rows, sample, alphas)[0]


def _bound(problem, domains, n_steps, watch, recording=None):
    """Bound domains; return them with what was learned, and where their rows may fail."""
    relaxation = relaxation_of(problem, domains)
    rows, options = problem.rows[domains.problem], options_of(problem, domains)
    shifts, cuts = options.pop("shift"), _cuts(problem, domains)
    alphas = {i: part.clone() for i, part in domains.alphas.items()}
    multipliers = {j: part.clone() for j, part in domains.betas.items()}
    climb = Climb(
        [(alphas.values(), _RATE_ALPHA, 1.0), (multipliers.values(), _RATE_BETA, torch.inf)],
        _DECAY,
    )
    best = domains.lower
    for step in range(n_steps + 1):
        is_last = step == n_steps or watch.left == 0
        with torch.set_grad_enabled(not is_last):
            betas = _signed(multipliers, domains.signs, problem.scales)
            trace, shift = {}, shifts + _thresholds(betas, cuts)
            lower = crown(
                relaxation, rows, alphas=alphas, betas=betas, trace=trace, shift=shift, **options
            )
            margin = problem.margin(lower, domains.problem)
        if recording is not None:
            at = ((margin >= 0) & (best < 0)).nonzero().squeeze(1)
            if len(at):
                used = {j: part.detach()[at] for j, part in betas.items()}
                choices = _choices(relaxation, alphas, at)
                recording.close(domains[at], lower.detach()[at].argmax(dim=1), choices, used)
        best = torch.fmax(best, margin.detach())
        # Without an open unit there is nothing to learn.
        if is_last or not margin.requires_grad or (best >= 0).all():
            break
        climb.step(torch.where(best < 0, margin, 0.0).sum())
    alphas = {i: part.detach() for i, part in alphas.items()}
    betas = {j: part.detach() for j, part in multipliers.items()}
    with torch.no_grad():
        branch, cut = costliest(relaxation, trace, alphas)
        # Where the first row is least in the box.
        points = torch.where(trace[0][:, 0] > 0, relaxation.ball.lower, relaxation.ball.upper)
    learned = {"alphas": alphas, "betas": betas, "branch": branch, "cut": cut}
    return replace(domains, lower=best, **learned), points


def options_of(problem, domains):
    """Return what rows have beside their coefficients, for domains."""
    index = domains.problem
    nearest = problem.nearest
    return {
        "shift": problem.shift[index],
        "slope": None if problem.slope is None else problem.slope[index],
        "nearest": None if nearest is None else nearest.expand(len(index)),
    }


def _choices(relaxation, alphas, index):
    """Return by which numbers the lines of some domains are known, for each piecewise node."""
    nodes, lines = relaxation.graph.nodes, relaxation.lines
    with torch.no_grad():
        return {
            i: lines[i][index].points(part[index]) if isinstance(nodes[i], Smooth) else part[index]
            for i, part in alphas.items()
        }


def _signed(multipliers, signs, scales):
    """Return what multipliers add to the rows of nodes."""
    return {
        j: -scales[j] * part * signs[j].unsqueeze(1)
        for j, part in multipliers.items()
        if j in scales
    }


def _cuts(problem, domains):
    """Return the values that units were last decided at, for each node that smooth ones read.

    Whatever reads such a node besides, its decisions may lie anywhere.
    """
    graph, cuts = problem.root.graph, {}
    for j, readers in problem.root.sources.items():
        if any(isinstance(graph.nodes[i], Smooth) for i in readers):
            cuts[j] = torch.where(domains.signs[j] > 0, domains.lows[j], domains.highs[j])
            cuts[j] = torch.where(domains.signs[j] == 0, 0.0, cuts[j])
    return cuts


def _thresholds(betas, cuts):
    """Return the constants of what multipliers add to the rows, of shape (P, 1).

    A decision s (z - t) >= 0 adds -beta s z, and beta s t.
    """
    total = 0.0
    for j, cut in cuts.items():
        if j in betas:
            terms = (betas[j] * cut.unsqueeze(1)).flatten(2)
            rounding = 2.02 * UNIT * (terms.shape[2] + 8)
            total = total - terms.sum(dim=2) - rounding * terms.detach().abs().sum(dim=2)
    return total
