r"""Branch and bound over the units of a network, many domains at a time (beta-CROWN).

A domain is the ball cut by decisions z_k >= 0 or z_k <= 0 about units. The bound of a row over
it is that of `crown`, with two kinds of free numbers that gradient steps choose: the slopes of
undecided units (alpha), and for each decision s z >= 0 a multiplier beta >= 0. Since s z >= 0 in
the domain, row - beta s z lies below the row there, so that any such numbers give a proof.

References
----------
Bunel et al., "Branch and bound for piecewise linear neural network verification", JMLR 2020.
Wang et al., "Beta-CROWN: efficient bound propagation with per-neuron split constraints for
neural network robustness verification", NeurIPS 2021.
"""

from dataclasses import dataclass, replace
from functools import cached_property

import torch

from skrobust.bounds import (
    Climb,
    Relaxation,
    Units,
    backward,
    crown,
    initial_slopes,
    lines_of,
    splits_at_zero,
    tighten,
)

__all__ = ["Domains", "Problem", "branch"]

_RATE_ALPHA = 0.2
_RATE_BETA = 4.0  # relative to the size of the rows at the node
_DECAY = 0.9
_SHARE = 1 / 32  # of the domains of a batch that are tightened
_TIGHTEN = 4  # decisions after which a domain may be tightened again


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
    """

    root: Relaxation
    rows: torch.Tensor
    shift: torch.Tensor
    slope: torch.Tensor | None
    nearest: torch.Tensor | None
    margin: object

    @cached_property
    def scales(self):
        """Mean size of the rows of each node that piecewise nodes read: the unit of betas."""
        trace, count = {}, len(self.rows)
        sample = torch.zeros(count, dtype=torch.long, device=self.rows.device)
        with torch.no_grad():
            backward(self.root, len(self.root.graph.nodes) - 1, self.rows, sample, trace=trace)
        return {j: trace[j].abs().mean() + 1e-12 for j in self.root.sources if j in trace}


@dataclass(frozen=True, eq=False)
class Domains:
    """P domains.

    Parameters
    ----------
    problem : int Tensor of shape (P,)
    lows, highs : dict of int to Tensor of shape (P, *shape)
        Intervals of what piecewise nodes read.
    signs : dict of int to Tensor of shape (P, *shape)
        Decisions of those nodes: 1, -1, or 0 for none.
    alphas : dict of int to Tensor of shape (P, m, *shape)
    betas : dict of int to Tensor of shape (P, 1, *shape)
    lower : Tensor of shape (P,)
    branch : int Tensor of shape (P, 2)
        The node that a piecewise one reads, and its entry to decide next; -1 if none is left.
    depth : int Tensor of shape (P,)
        Number of decisions since the intervals were tightened.
    """

    problem: torch.Tensor
    lows: dict
    highs: dict
    signs: dict
    alphas: dict
    betas: dict
    lower: torch.Tensor
    branch: torch.Tensor
    depth: torch.Tensor

    def __len__(self):
        return len(self.problem)

    def __getitem__(self, index):
        return self._map(lambda part: part[index])

    def _map(self, function):
        fields = {}
        for name in self.__dataclass_fields__:
            value = getattr(self, name)
            if isinstance(value, dict):
                fields[name] = {key: function(part) for key, part in value.items()}
            else:
                fields[name] = function(value)
        return Domains(**fields)

    @classmethod
    def join(cls, parts):
        """Put several sets of domains into one."""
        fields = {}
        for name in cls.__dataclass_fields__:
            values = [getattr(part, name) for part in parts]
            if isinstance(values[0], dict):
                fields[name] = {k: torch.cat([v[k] for v in values]) for k in values[0]}
            else:
                fields[name] = torch.cat(values)
        return cls(**fields)


def branch(problem, *, batch_size, n_steps, watch, visit, leaf):
    """Prove the rows, or find where they fail.

    Parameters
    ----------
    problem : Problem
    batch_size : int
        Domains that are bounded together.
    n_steps : int
        Gradient steps for each.
    watch : Stopwatch
    visit : callable
        ``visit(points)`` is given points where rows may fail, of shape (k, n_features), and
        returns whether the search can end.
    leaf : callable
        ``leaf(domain, k)`` is given a set of domains without undecided units, and the place of
        one; it returns "proved", "end" or "stuck".

    Returns
    -------
    status : {"proved", "end", "limit", "stuck"}
    lower : Tensor of shape (r,)
        Proved lower bounds of the margins.
    """
    stack, stuck = [_first(problem)], []
    while stack:
        if watch.left == 0:
            return "limit", _lowest(problem, [*stack, *stuck])
        domains = _tightened(problem, _take(stack, batch_size))
        domains, points = _bound(problem, domains, n_steps)
        index = (domains.lower < 0).nonzero().squeeze(1)
        open_domains = domains[index]
        if len(open_domains) == 0:
            continue
        if visit(points[index]):
            return "end", _lowest(problem, [open_domains, *stack, *stuck])
        is_leaf = open_domains.branch[:, 0] < 0
        for k in is_leaf.nonzero().squeeze(1).tolist():
            status = leaf(open_domains, k)
            if status == "end":
                return "end", _lowest(problem, [open_domains, *stack, *stuck])
            if status == "stuck":
                stuck.append(open_domains[k : k + 1])
        inner = open_domains[(~is_leaf).nonzero().squeeze(1)]
        if len(inner):
            # The lowest domains last: they are taken first, where counterexamples are.
            inner = inner[inner.lower.argsort(descending=True)]
            stack.append(_split(inner))
    return "stuck" if stuck else "proved", _lowest(problem, stuck)


def _lowest(problem, open_domains):
    """Return the lowest bound of each problem in domains."""
    lower = problem.rows.new_full((len(problem.rows),), torch.inf)
    for part in open_domains:
        lower = lower.scatter_reduce(0, part.problem, part.lower, "amin")
    return lower


def _take(stack, batch_size):
    """Take domains from the top of the stack."""
    taken, count = [], 0
    while stack and count < batch_size:
        part = stack.pop()
        room = batch_size - count
        if len(part) > room:
            stack.append(part[:-room])
            part = part[-room:]
        taken.append(part)
        count += len(part)
    return taken[0] if len(taken) == 1 else Domains.join(taken)


def _first(problem):
    """Return the root domain of each problem."""
    root, count = problem.root, len(problem.rows)
    lows = {j: root.lows[j].expand(count, *root.lows[j].shape[1:]) for j in root.sources}
    highs = {j: root.highs[j].expand(count, *root.highs[j].shape[1:]) for j in root.sources}
    zeros = {j: torch.zeros_like(lows[j]) for j in lows}
    sample = torch.zeros(count, dtype=torch.long, device=problem.rows.device)
    alphas = initial_slopes(root, problem.rows.shape[:2], sample)
    return Domains(
        torch.arange(count, device=problem.rows.device),
        lows,
        highs,
        zeros,
        alphas,
        {j: zeros[j].unsqueeze(1) for j in zeros},
        problem.rows.new_full((count,), -torch.inf),
        torch.full((count, 2), -1, device=problem.rows.device),
        torch.zeros_like(sample),
    )


def _relaxation(problem, domains):
    """Return the relaxation over domains: the root's, but for what was decided since.

    The ball is that of the root, which holds them all, and is not repeated.
    """
    root = problem.root
    lows, highs, lines = list(root.lows), list(root.highs), {}
    for i in root.graph.piecewise:
        node = root.graph.nodes[i]
        j = node.inputs[0]
        lows[j], highs[j] = domains.lows[j], domains.highs[j]
        lines[i] = lines_of(node, lows[j], highs[j])
    empty = root.empty.expand(len(domains)).clone()
    return replace(root, lows=lows, highs=highs, lines=lines, empty=empty)


def _bound(problem, domains, n_steps):
    """Bound domains; return them with what was learned, and where their rows may fail."""
    relaxation = _relaxation(problem, domains)
    rows, options = problem.rows[domains.problem], _options(problem, domains)
    alphas = {i: part.clone() for i, part in domains.alphas.items()}
    multipliers = {j: part.clone() for j, part in domains.betas.items()}
    climb = Climb(
        [(alphas.values(), _RATE_ALPHA, 1.0), (multipliers.values(), _RATE_BETA, torch.inf)],
        _DECAY,
    )
    best = domains.lower
    for step in range(n_steps + 1):
        with torch.set_grad_enabled(step < n_steps):
            betas = _signed(multipliers, domains.signs, problem.scales)
            trace = {}
            lower = crown(relaxation, rows, alphas=alphas, betas=betas, trace=trace, **options)
            margin = problem.margin(lower, domains.problem)
        best = torch.fmax(best, margin.detach())
        # Without an open unit there is nothing to learn.
        if step == n_steps or not margin.requires_grad or (best >= 0).all():
            break
        climb.step(torch.where(best < 0, margin, 0.0).sum())
    alphas = {i: part.detach() for i, part in alphas.items()}
    betas = {j: part.detach() for j, part in multipliers.items()}
    with torch.no_grad():
        branch = _costliest(relaxation, trace, alphas)
        # Where the first row is least in the box.
        points = torch.where(trace[0][:, 0] > 0, relaxation.ball.lower, relaxation.ball.upper)
    return replace(domains, lower=best, alphas=alphas, betas=betas, branch=branch), points


def _tightened(problem, domains):
    """Return domains with the intervals behind decided units tightened, where it is time."""
    due = (domains.depth >= _TIGHTEN).nonzero().squeeze(1)
    # The lowest have the most domains below them.
    due = due[domains.lower[due].argsort()[: int(len(domains) * _SHARE)]]
    later = [j for j in problem.root.sources if _is_behind(problem.root.graph, j)]
    if len(due) == 0 or not later:
        return domains
    part = domains[due]
    built = _relaxation(problem, part)
    graph, units = built.graph, Units()
    with torch.no_grad():
        for i in graph.piecewise:
            j = graph.nodes[i].inputs[0]
            if j in later:
                is_open = units.needed(i, graph.nodes[i], built.lows[j], built.highs[j])
                tighten(built, j, *is_open.flatten(1).nonzero(as_tuple=True))
                built.lines[i] = units.lines(i, graph.nodes[i], built.lows[j], built.highs[j])
    lows, highs = ({**side} for side in (domains.lows, domains.highs))
    for j in later:
        lows[j], highs[j] = lows[j].clone(), highs[j].clone()
        lows[j][due], highs[j][due] = built.lows[j], built.highs[j]
    lower, depth = domains.lower.clone(), domains.depth.clone()
    # Where intervals contradict each other, no point is left, and any claim is proved.
    lower[due] = torch.where(built.empty, torch.inf, lower[due])
    depth[due] = 0
    return replace(domains, lows=lows, highs=highs, lower=lower, depth=depth)


def _is_behind(graph, j):
    """Return whether a node depends on a piecewise one."""
    pending = {j}
    while pending:
        i = pending.pop()
        if not graph.nodes[i].is_affine and i > 0:
            return True
        pending.update(graph.nodes[i].inputs)
    return False


def _options(problem, domains):
    index = domains.problem
    nearest = problem.nearest
    return {
        "shift": problem.shift[index],
        "slope": None if problem.slope is None else problem.slope[index],
        "nearest": None if nearest is None else nearest.expand(len(index)),
    }


def _signed(multipliers, signs, scales):
    """Return what multipliers add to the rows of nodes."""
    return {
        j: -scales[j] * part * signs[j].unsqueeze(1)
        for j, part in multipliers.items()
        if j in scales
    }


def _costliest(relaxation, trace, alphas):
    """Return the node and the unit whose lines cost most in each domain, of shape (P, 2)."""
    any_rows = next(iter(trace.values()))
    best = any_rows.new_full((len(any_rows),), -1.0)
    chosen = torch.full((len(any_rows), 2), -1, device=best.device)
    for i in relaxation.graph.piecewise:
        node, lines = relaxation.graph.nodes[i], relaxation.lines[i]
        j = node.inputs[0]
        if not splits_at_zero(node) or i not in trace or not lines.open.any():
            continue
        low, high = relaxation.lows[j].unsqueeze(1), relaxation.highs[j].unsqueeze(1)
        cost = _cost(lines, low, high, trace[i], alphas.get(i, 0.5))
        value, unit = torch.where(lines.open, cost, -1.0).flatten(1).max(dim=1)
        place = torch.stack([torch.full_like(unit, j), unit], dim=1)
        chosen = torch.where((value > best)[:, None], place, chosen)
        best = torch.maximum(best, value)
    return chosen


def _cost(lines, low, high, rows, alpha):
    """Return how much the rows may lose by the lines of each unit, of shape (P, *shape)."""
    chord = torch.maximum(lines.low_shift.abs(), lines.high_shift.abs()).unsqueeze(1)
    if lines.gain is None:
        return (rows.abs() * chord).sum(dim=1)
    kink = torch.minimum(alpha * -low, (1 - alpha) * high) * lines.gain.abs().unsqueeze(1)
    below = torch.where(lines.convex, kink, chord)
    above = torch.where(lines.convex, chord, kink)
    return (rows.clamp(min=0) * below - rows.clamp(max=0) * above).sum(dim=1)


def _split(domains):
    """Return both halves of each domain: the unit at least 0, and at most 0."""
    halves = []
    for sign in (1.0, -1.0):
        lows, highs, signs = ({**part} for part in (domains.lows, domains.highs, domains.signs))
        for j in signs:
            place = (domains.branch[:, 0] == j).nonzero().squeeze(1)
            unit = domains.branch[place, 1]
            side = lows if sign > 0 else highs
            side[j], signs[j] = side[j].clone(), signs[j].clone()
            side[j].flatten(1)[place, unit] = 0.0
            signs[j].flatten(1)[place, unit] = sign
        depth = domains.depth + 1
        halves.append(replace(domains, lows=lows, highs=highs, signs=signs, depth=depth))
    return Domains.join(halves)
