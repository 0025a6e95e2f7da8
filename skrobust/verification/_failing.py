r"""Intervals of units over the points of domains where rows fail.

A row that is to be proved need only be bounded where it is not above 0. There g row <= 0 for any
g >= 0, so that a lower bound of s z + g row, over the whole domain, is one of s z. Such intervals
are tighter than those over all points of the domain, and tell nothing of the others.

References
----------
Kotha et al., "Provably bounding neural network preimages", NeurIPS 2023.
"""

from dataclasses import dataclass

import torch

from skrobust.bounds import (
    NUMBERS_AT_ONCE,
    UNIT,
    Climb,
    Units,
    backward,
    crown,
    dot,
    intersect,
)

__all__ = ["patience", "tighten_failing"]

_RATE_ALPHA = 0.25
_RATE_ROW = 0.5  # relative to the size of the unit over that of the row
_FIRST_ROW = 0.5
_DECAY = 0.9
_N_STEPS = 3
_PATIENCE = 0.2  # for each open unit, of which each takes as much work as 2
_LEAST_PATIENCE = 100
_FEW_UNITS = 32  # of which the tree is small as it is, and a sweep mostly overhead


def patience(root):
    """Return how many domains of a problem come before `tighten_failing` for its root."""
    n_open = sum(int(lines.open.sum()) for lines in root.lines.values())
    if n_open <= _FEW_UNITS:
        return float("inf")
    return max(_LEAST_PATIENCE, int(_PATIENCE * n_open))


@dataclass(frozen=True, eq=False)
class Free:
    """The free numbers that intervals of units of one node were found by, from which to go on.

    Parameters
    ----------
    keys : int Tensor of shape (K,)
        Number of the domain times the size of the node, plus the entry; ascending.
    alphas : dict of int to Tensor of shape (K, 2, *shape)
        Slopes, for +z and -z.
    times : Tensor of shape (K, 2, m)
        What each row is multiplied by.
    """

    keys: torch.Tensor
    alphas: dict
    times: torch.Tensor

    def at(self, keys):
        """Return what is known of some of the units, or None where one is not among them."""
        place = torch.searchsorted(self.keys, keys).clamp(max=len(self.keys) - 1)
        if not torch.equal(self.keys[place], keys):
            return None
        alphas = {i: part[place].double() for i, part in self.alphas.items()}
        return alphas, self.times[place].double()

    @property
    def n_bytes(self):
        """Memory of all tensors."""
        parts = (self.keys, self.times, *self.alphas.values())
        return sum(part.numel() * part.element_size() for part in parts)


def tighten_failing(built, rows, shift, alphas, *, known=None, n_steps=_N_STEPS, watch=None):
    """Tighten the intervals of open units to points at which no row is above 0, in place.

    Units of late nodes come first: their intervals make those of earlier ones tighter, by way
    of the rows, and earlier ones make later ones tighter in the next sweep.

    Parameters
    ----------
    built : Relaxation
        Of P domains, of which only the ball may be the same for all.
    rows : Tensor of shape (P, m, n_classes)
    shift : Tensor of shape (P, m)
    alphas : dict of int to Tensor of shape (P, m, *shape)
        Slopes to start with, of which those of the last row are used.
    known : dict of int to Free, default=None
        By node, what an earlier sweep has returned for domains that hold these, to go on from.
    n_steps : int
        Gradient steps for each interval.
    watch : Stopwatch, default=None
        Units that come after its time is up stay as they are. Each end of an interval counts as
        a domain, which takes as much work.

    Returns
    -------
    dict of int to Free
    """
    units, known = Units(), dict(known or {})
    size = _reach(built, rows, alphas)
    for i in reversed(built.graph.piecewise):
        node, j = built.graph.nodes[i], built.graph.nodes[i].inputs[0]
        is_open = units.needed(i, node, built.lows[j], built.highs[j])
        places = is_open.flatten(1).nonzero(as_tuple=True)
        known[j] = _tighten_node(
            built, j, *places, rows, shift, alphas, size, known.get(j), n_steps, watch
        )
        built.lines[i] = units.lines(i, node, built.lows[j], built.highs[j])
    return {j: free for j, free in known.items() if free is not None}


def _tighten_node(built, j, samples, entries, rows, shift, alphas, size, known, n_steps, watch):
    low, high = built.lows[j].flatten(1).clone(), built.highs[j].flatten(1).clone()
    step, parts = max(1, NUMBERS_AT_ONCE // (2 * max(n.size for n in built.graph.nodes))), []
    if watch is not None:  # so that a limit on work is not exceeded by more than one
        step = int(min(step, max(1, watch.domains_left / 2)))
    for sample, unit in zip(samples.split(step), entries.split(step), strict=True):
        if len(sample) == 0 or (watch is not None and watch.left == 0):
            parts = []
            break
        width = (high[sample, unit] - low[sample, unit]) / 2
        scale = (width[:, None, None] / size[sample].unsqueeze(1)).expand(-1, 2, -1)
        keys = sample * low.shape[1] + unit
        found = None if known is None else known.at(keys)
        if found is None:
            slopes = {k: part[sample, -1:].repeat_interleave(2, 1) for k, part in alphas.items()}
            times = _FIRST_ROW * scale
        else:
            slopes, times = found
        if found is None and built.envelope is not None:
            slopes |= _corner(built, j, unit, rows[sample], sample, times, slopes)
        terms = (rows[sample], shift[sample], sample, scale, slopes, times / scale)
        bound, slopes, weights = _bound_units(built, j, unit, *terms, n_steps, watch)
        parts.append((keys, slopes, weights * scale))
        if watch is not None:
            watch.count(2 * len(sample))
        low[sample, unit] = torch.fmax(low[sample, unit], bound[:, 0])
        high[sample, unit] = torch.fmin(high[sample, unit], -bound[:, 1])
    intersect(built, j, low.view_as(built.lows[j]), high.view_as(built.highs[j]))
    return _joined(parts)


def _joined(parts):
    """Return the free numbers of all units of a node in half of the memory, or None."""
    if not parts:
        return None
    keys, alphas, times = zip(*parts, strict=True)
    slopes = {i: torch.cat([part[i].float() for part in alphas]) for i in alphas[0]}
    return Free(torch.cat(keys), slopes, torch.cat(times))


def _reach(built, rows, alphas):
    """Return how far the rows may go from their values at the center, by lines, (P, m)."""
    trace, ball = {}, built.ball
    with torch.no_grad():
        crown(built, rows, alphas=alphas, trace=trace)
        half = (ball.upper - ball.lower) / 2
        return dot(trace[0].abs(), half) + 1e-12


def _signs(node, unit, rows):
    """Return z and -z of each unit as rows of its node, (K, 2, *shape)."""
    count = len(unit)
    signs = rows.new_zeros(count, 2, node.size)
    places = torch.arange(count, device=unit.device)
    signs[places, 0, unit], signs[places, 1, unit] = 1.0, -1.0
    return signs.view(count, 2, *node.shape)


def _corner(built, j, unit, rows, sample, times, slopes):
    """Return free numbers of the envelope, for the corners where z and -z are least."""
    graph, keys = built.graph, built.envelope.keys
    betas = {j: _signs(graph.nodes[j], unit, rows)}
    slopes = {i: part for i, part in slopes.items() if i not in keys}
    pulled = backward(built, len(graph.nodes) - 1, times @ rows, sample, slopes, betas)[0]
    return built.envelope.start(pulled)


def _bound_units(built, j, unit, rows, shift, sample, scale, alphas, weights, n_steps, watch):
    """Return lower bounds of z and of -z for units of node j, (K, 2), and what gave them."""
    signs = _signs(built.graph.nodes[j], unit, rows)
    ends = torch.maximum(built.lows[-1].abs(), built.highs[-1].abs()).flatten(1)
    ends = ends if len(ends) == 1 else ends[sample]
    reach = dot(rows.abs(), ends) + shift.abs()
    alphas = {k: part.clone() for k, part in alphas.items()}
    weights = weights.clone()
    climb = Climb(
        [(alphas.values(), _RATE_ALPHA, 1.0), ((weights,), _RATE_ROW, torch.inf)], _DECAY
    )
    best = rows.new_full((len(unit), 2), -torch.inf)
    for step in range(n_steps + 1):
        is_last = step == n_steps or (watch is not None and watch.left == 0)
        with torch.set_grad_enabled(not is_last):
            times = weights * scale
            shifts = (times @ shift.unsqueeze(2)).squeeze(2)
            options = {"sample": sample, "alphas": alphas, "betas": {j: signs}, "shift": shifts}
            lower = crown(built, times @ rows, **options)
            # Of the sums over rows.
            rounding = 2.02 * UNIT * (rows.shape[1] + 8)
            lower = lower - rounding * (times @ reach.unsqueeze(2)).squeeze(2)
        best = torch.fmax(best, lower.detach())
        if is_last or (best >= 0).all():
            break
        with torch.enable_grad():
            climb.step(torch.where(best < 0, lower, 0.0).sum())
    return best, {k: part.detach() for k, part in alphas.items()}, weights.detach()
