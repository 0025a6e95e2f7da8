"""Which unit a domain is split at next: the one whose lines cost its rows most.

References
----------
Bunel et al., "Branch and bound for piecewise linear neural network verification", JMLR 2020
(BaBSR).
"""

import torch

from skrobust.bounds import splits_at_zero
from skrobust.graphs import Smooth

__all__ = ["costliest", "is_decided"]


def costliest(relaxation, trace, alphas):
    """Return the node and the unit whose lines cost most in each domain, and where to cut it.

    Parameters
    ----------
    relaxation : Relaxation
        Of P domains.
    trace : dict of int to Tensor of shape (P, m, *shape)
        The rows of nodes, as `crown` pulls them back.
    alphas : dict of int to Tensor of shape (P, m, *shape)
        Free slopes of piecewise nodes.

    Returns
    -------
    chosen : int Tensor of shape (P, 2)
        What the unit reads: a node, and its entry. -1 where no unit is open.
    cuts : Tensor of shape (P,)
    """
    any_rows = next(iter(trace.values()))
    best = any_rows.new_full((len(any_rows),), -1.0)
    cuts = torch.zeros_like(best)
    chosen = torch.full((len(any_rows), 2), -1, device=best.device)
    for i in relaxation.graph.piecewise:
        node, lines = relaxation.graph.nodes[i], relaxation.lines[i]
        j = node.inputs[0]
        is_smooth = isinstance(node, Smooth)
        if not is_decided(node) or i not in trace or not lines.open.any():
            continue
        low, high = relaxation.lows[j].unsqueeze(1), relaxation.highs[j].unsqueeze(1)
        if is_smooth:
            cost = lines.cost(trace[i])
        else:
            cost = _cost(lines, low, high, trace[i], alphas.get(i, 0.5))
        value, unit = torch.where(lines.open, cost, -1.0).flatten(1).max(dim=1)
        place = torch.stack([torch.full_like(unit, j), unit], dim=1)
        is_better = value > best
        if is_smooth:
            at = is_better.nonzero().squeeze(1)
            cuts[at] = lines.best_cut(trace[i][at], at, unit[at])
        else:
            cuts = cuts.masked_fill(is_better, 0.0)
        chosen = torch.where(is_better[:, None], place, chosen)
        best = torch.maximum(best, value)
    return chosen, cuts


def is_decided(node):
    """Return whether branching decides units of a node."""
    return isinstance(node, Smooth) or splits_at_zero(node)


def _cost(lines, low, high, rows, alpha):
    """Return how much the rows may lose by the lines of each unit, of shape (P, *shape)."""
    chord = torch.maximum(lines.low_shift.abs(), lines.high_shift.abs()).unsqueeze(1)
    if lines.gain is None:
        return (rows.abs() * chord).sum(dim=1)
    kink = torch.minimum(alpha * -low, (1 - alpha) * high) * lines.gain.abs().unsqueeze(1)
    below = torch.where(lines.convex, kink, chord)
    above = torch.where(lines.convex, chord, kink)
    return (rows.clamp(min=0) * below - rows.clamp(max=0) * above).sum(dim=1)
