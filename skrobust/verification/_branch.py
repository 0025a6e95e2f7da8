r"""Branch and bound over the units of a network, many domains at a time (beta-CROWN).

A domain is the ball cut by decisions z_k >= 0 or z_k <= 0 about units. The bound of a row over
it is that of `crown`, with two kinds of free numbers that gradient steps choose: the slopes of
undecided units (alpha), and for each decision s z >= 0 a multiplier beta >= 0. Since s z >= 0 in
the domain, row - beta s z lies below the row there, so that any such numbers give a proof. Smooth
units are decided again and again, z_k >= t or z_k <= t, at points t inside of their intervals,
which makes their lines better: there row - beta s (z - t) lies below the row.

References
----------
Bunel et al., "Branch and bound for piecewise linear neural network verification", JMLR 2020.
Wang et al., "Beta-CROWN: efficient bound propagation with per-neuron split constraints for
neural network robustness verification", NeurIPS 2021.
"""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from scipy import sparse
from scipy.optimize import linprog

from skrobust.bounds import (
    UNIT,
    Climb,
    Relaxation,
    Units,
    backward,
    crown,
    farthest,
    initial_slopes,
    lines_of,
    tighten,
)
from skrobust.graphs import Smooth
from skrobust.verification._choice import costliest, is_decided
from skrobust.verification._domains import Domains, Stack, split, within
from skrobust.verification._failing import patience, tighten_failing

__all__ = ["Problem", "branch", "close_leaf"]

_RATE_ALPHA = 0.2
_RATE_BETA = 4.0  # relative to the size of the rows at the node
_DECAY = 0.9
_SHARE = 1 / 32  # of the domains of a batch that are tightened
_TIGHTEN = 4  # decisions after which a domain may be tightened again
_WAITING = 0.75  # of the memory, for domains that wait
_COPIES = 32  # of each number of a node, while a domain is bounded with gradients
_SMOOTH = 6  # times as much for the lines of smooth units
_BATCH = 512
_PRICE = 1e4  # of breaking a decision in a leaf, relative to the row


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
    stack, stuck = Stack(memory_limit * _WAITING), []
    roots = _first(problem)
    stack.push(roots)
    n_places = len(problem.rows)
    # Where a problem takes long, its root's intervals are tightened, for all that is left of it.
    due_at = patience(problem.root)
    is_plain = recording is None and problem.any_row
    counts = torch.zeros_like(roots.problem)
    size = _batch_size(problem, memory_limit * (1 - _WAITING))
    size = size if batch_size is None else min(batch_size, size)
    while stack:
        if watch.left == 0:
            return "limit", _lowest(problem, [*stack.parts, *stuck])
        domains = stack.take(min(size, watch.domains_left))
        if is_plain:
            before = counts >= due_at
            counts = counts + domains.problem.bincount(minlength=len(counts))
            due = ((counts >= due_at) & ~before).nonzero().squeeze(1)
            if len(due):
                roots = _tightened_failing(problem, roots, due, watch)
            if (counts >= due_at).any():
                domains = within(domains, roots)
        domains = _tightened(problem, domains, watch, recording)
        domains, points = _bound(problem, domains, n_steps, watch, recording)
        watch.count(len(domains))
        index = (domains.lower < 0).nonzero().squeeze(1)
        open_domains = domains[index]
        if len(open_domains) == 0:
            continue
        if visit(points[index]):
            return "end", _lowest(problem, [open_domains, *stack.parts, *stuck])
        is_leaf = open_domains.branch[:, 0] < 0
        for k in is_leaf.nonzero().squeeze(1).tolist():
            status = leaf(open_domains, k)
            if status == "end":
                return "end", _lowest(problem, [open_domains, *stack.parts, *stuck])
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
    return "stuck" if stuck else "proved", _lowest(problem, stuck)


def _batch_size(problem, n_bytes):
    """Return how many domains can be bounded in so much memory, at most `_BATCH`."""
    nodes = problem.root.graph.nodes
    numbers = sum(node.size * (1 + _SMOOTH * isinstance(node, Smooth)) for node in nodes)
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


def _bound(problem, domains, n_steps, watch, recording=None):
    """Bound domains; return them with what was learned, and where their rows may fail."""
    relaxation = _relaxation(problem, domains)
    rows, options = problem.rows[domains.problem], _options(problem, domains)
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


def _tightened(problem, domains, watch, recording=None):
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
                at = is_open.flatten(1).nonzero(as_tuple=True)
                tighten(built, j, *at, watch=watch)
                built.lines[i] = units.lines(i, graph.nodes[i], built.lows[j], built.highs[j])
    lows, highs = ({**side} for side in (domains.lows, domains.highs))
    for j in later:
        lows[j], highs[j] = lows[j].clone(), highs[j].clone()
        lows[j][due], highs[j][due] = built.lows[j], built.highs[j]
    lower, depth = domains.lower.clone(), domains.depth.clone()
    # Where intervals contradict each other, no point is left, and any claim is proved.
    lower[due] = torch.where(built.empty, torch.inf, lower[due])
    depth[due] = 0
    if recording is not None:
        recording.tighten(part)
        recording.close(part[built.empty], torch.zeros_like(due)[built.empty])
    return replace(domains, lows=lows, highs=highs, lower=lower, depth=depth)


def _tightened_failing(problem, roots, which, watch):
    """Return root domains, of some with the intervals tightened to where their rows fail."""
    some = roots[which]
    built = _relaxation(problem, some)
    with torch.no_grad():
        rows, shift = problem.rows[which], problem.shift[which]
        tighten_failing(built, rows, shift, some.alphas, watch=watch)
    lows, highs = ({j: p.clone() for j, p in side.items()} for side in (roots.lows, roots.highs))
    for j in lows:
        lows[j][which], highs[j][which] = built.lows[j], built.highs[j]
    lower = roots.lower.clone()
    # Where intervals contradict each other, there is no such point.
    lower[which] = torch.where(built.empty, torch.inf, lower[which])
    return replace(roots, lows=lows, highs=highs, lower=lower)


def close_leaf(problem, domain, recording=None):
    """Prove a row over a domain in which all units are linear, by the dual of a linear program.

    Its multipliers are free numbers like any: the bound that is proved is that of `crown`. A
    constraint may be broken at a price, so that there is always an optimum: where no point meets
    all of them, it is above what is asked for.

    Parameters
    ----------
    problem : Problem
        Over a box.
    domain : Domains
        Of one domain.
    recording : Recording, default=None

    Returns
    -------
    bool
    """
    relaxation = _relaxation(problem, domain)
    if any(lines.open.any() for lines in relaxation.lines.values()):
        return False
    ball, graph, places = relaxation.ball, relaxation.graph, []
    rows, options = problem.rows[domain.problem], _options(problem, domain)
    for j, signs in domain.signs.items():
        units = signs.flatten().nonzero().squeeze(1)
        if len(units):
            places.append((j, units, signs.flatten()[units]))
    with torch.no_grad():
        pulled, _, _ = backward(relaxation, len(graph.nodes) - 1, rows)
        sides = []
        for j, units, signs in places:
            unit = rows.new_zeros(1, len(units), graph.nodes[j].size)
            unit[0, torch.arange(len(units)), units] = signs.to(rows.dtype)
            unit = unit.view(1, len(units), *graph.nodes[j].shape)
            here, constant, _ = backward(relaxation, j, unit)
            sides.append((here[0].cpu().numpy(), constant[0].cpu().numpy()))
        # Multipliers are for one row: rows that are asked together have one row of them each.
        n_rows, betas = rows.shape[1], {}
        for j, _, _ in places:
            betas[j] = rows.new_zeros(1, n_rows, *graph.nodes[j].shape)
        for row in range(n_rows):
            slope = None if problem.slope is None else options["slope"][0, row].item()
            values = _dual(pulled[0, row].cpu().numpy(), sides, ball, slope, problem.nearest)
            start = 0
            for j, units, signs in places:
                size = rows.new_tensor(values[start : start + len(units)])
                betas[j][0, row].view(-1)[units] = -size * signs
                start += len(units)
        lower = crown(relaxation, rows, betas=betas, **options)
        if problem.margin(lower, domain.problem).item() < 0:
            return False
        if recording is not None:
            recording.close(domain, lower.argmax(dim=1), None, betas)
    return True


def _dual(row, sides, ball, slope=None, nearest=None):
    """Return multipliers of sides w x + c >= 0 for which row . x has its bound over a box.

    With a slope, that times the distance from the center is a part of the row.
    """
    if not sides:
        return np.zeros(0)
    weights = np.concatenate([w for w, _ in sides])
    size = np.maximum(np.abs(weights).sum(axis=1), 1e-300)
    weights, constants = weights / size[:, None], np.concatenate([c for _, c in sides]) / size
    price = _PRICE * (np.abs(row).sum() + abs(slope or 0.0) + 1e-9)
    low, high = ball.lower[0].cpu().numpy(), ball.upper[0].cpu().numpy()
    n, count = len(row), len(weights)
    blocks = [sparse.csr_array(-np.column_stack([weights, np.ones(count), np.zeros(count)]))]
    limits, reach = [constants], (0.0, 0.0)
    if slope is not None:
        # d >= x_i - center_i and d >= center_i - x_i.
        reach, center = (nearest.item(), farthest(ball).item()), ball.center[0].cpu().numpy()
        moves = np.flatnonzero(high > low)
        for sign in (1.0, -1.0):
            k = np.arange(len(moves))
            at = np.tile(k, 2), np.concatenate([moves, np.full(len(k), n + 1)])
            values = np.repeat([sign, -1.0], len(k))
            blocks.append(sparse.csr_array((values, at), shape=(len(k), n + 2)))
            limits.append(sign * center[moves])
    found = linprog(
        np.concatenate([row, [price, slope or 0.0]]),
        A_ub=sparse.vstack(blocks),
        b_ub=np.concatenate(limits),
        bounds=[*zip(low, high, strict=True), (0, None), (min(reach), max(reach))],
        method="highs",
    )
    if found.ineqlin is None or found.status != 0:
        return np.zeros(count)
    return np.maximum(0.0, -found.ineqlin.marginals[:count]) / size


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
