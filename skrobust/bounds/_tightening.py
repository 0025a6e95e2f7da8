"""Intervals of nodes tightened backwards (CROWN), and by the Euclidean norm."""

from dataclasses import replace

import torch

from skrobust.bounds._backward import backward, crown, optimized
from skrobust.bounds._entries import entry_rows
from skrobust.bounds._input import length
from skrobust.bounds._rounding import UNIT

__all__ = ["intersect", "tighten", "tighten_before"]


def tighten_before(built, i, node, refine, n_steps, depth, units, watch):
    """Tighten the bounds of what the piecewise node i reads, in place."""
    j = node.inputs[0]
    is_exact = depth <= 1 and built.ball.norm == "linf"
    if built.ball.norm == "l2" and depth < float("inf"):
        intersect(built, j, *_euclidean_interval(built, j))
    if refine and not is_exact:
        is_open = units.needed(i, node, built.lows[j], built.highs[j])
        sample, unit = is_open.flatten(1).nonzero(as_tuple=True)
        if len(sample):
            tighten(built, j, sample, unit, n_steps if depth == float("inf") else 0, watch)


def intersect(built, j, low, high):
    """Cut the intervals of a node by others that are proved, in place."""
    # These ignore NaN, which tells nothing.
    built.lows[j] = torch.fmax(built.lows[j], low)
    built.highs[j] = torch.fmin(built.highs[j], high)
    crossed = built.lows[j] > built.highs[j]
    built.empty.logical_or_(crossed.flatten(1).any(dim=1))
    built.highs[j] = torch.where(crossed, built.lows[j], built.highs[j])


def _euclidean_interval(built, j):
    """Bound a node behind affine ones over L2 balls, without the box: center -+ |W eps|."""
    graph, ball = built.graph, built.ball
    size = graph.nodes[j].size
    eye = torch.eye(size, dtype=graph.dtype, device=ball.center.device)
    # The rows are the same for all balls; the rounding is that of the largest numbers of any.
    first = built[:1]
    if built.rounding:
        weights = [None, *(part.amax(dim=0, keepdim=True) for part in built.weights[1:])]
        first = replace(first, weights=weights)
    rows, shift, error = backward(first, j, eye.view(1, size, *graph.nodes[j].shape))
    rows, shift, error = rows[0], shift[0], error[0]
    center = ball.center @ rows.T + shift
    reach = ball.center.abs() @ rows.abs().T + shift.abs()
    radius = length(rows * ball.epsilon, 1) * (1 + 1e-12)
    radius = radius + error + 2.02 * UNIT * (rows.shape[1] + 8) * reach
    shape = graph.nodes[j].shape
    return (center - radius).view(-1, *shape), (center + radius).view(-1, *shape)


def tighten(built, j, sample, unit, n_steps=0, watch=None):
    """Tighten entries of a node by rows +z and -z, in place.

    Parameters
    ----------
    built : Relaxation
        It must reach up to the node.
    j : int
        Position of the node.
    sample, unit : int Tensor of shape (k,)
        The ball and the entry of each.
    n_steps : int, default=0
        Gradient steps for the slopes behind each.
    watch : Stopwatch, default=None
        Entries that come after its time is up stay as they are.
    """
    low, high = built.lows[j].flatten(1).clone(), built.highs[j].flatten(1).clone()
    for balls, entries in _portions(built, j, sample, unit):
        if watch is not None and watch.left == 0:
            break
        part = built if len(built.empty) == 1 else built[_index(balls)]
        start, rows, shift = entry_rows(built.graph, j, entries.flatten())
        shift = torch.zeros_like(shift) if built.homogeneous else shift
        rows, shift = (values.unflatten(0, entries.shape) for values in (rows, shift))
        rows, shift = torch.cat([rows, -rows], dim=1), torch.cat([shift, -shift], dim=1)
        if n_steps:
            with torch.enable_grad():
                bound = optimized(part, rows, start, shift=shift, n_steps=n_steps, watch=watch)
        else:
            bound = crown(part, rows, start, shift=shift)
        bound = torch.where(bound.isnan(), -torch.inf, bound)  # NaN tells nothing
        below, above = bound[:, : entries.shape[1]], -bound[:, entries.shape[1] :]
        low[balls] = low[balls].scatter_reduce(1, entries, below, "amax")
        high[balls] = high[balls].scatter_reduce(1, entries, above, "amin")
    intersect(built, j, low.view_as(built.lows[j]), high.view_as(built.highs[j]))


_BYTES = 2**21  # of the largest array of a pass: what caches hold is passed over several times


def _portions(built, j, sample, unit):
    """Yield balls, and the entries of each that are tightened at once: of shapes (b,), (b, m).

    What is known of a ball is then not repeated for each entry, which would take longer than the
    products. A ball that has fewer entries than the others of a pass repeats one of them.
    """
    largest = max(n.size for n in built.graph.nodes[: j + 1])
    most = max(1, _BYTES // (2 * largest * built.graph.dtype.itemsize))
    counts = sample.bincount(minlength=len(built.empty))
    starts = counts.cumsum(0) - counts
    # Those with as many entries side by side.
    counts, order = counts.sort(descending=True)
    sizes, first = counts.tolist(), 0
    while first < len(sizes) and sizes[first]:
        width = sizes[first]
        last = min(len(sizes), first + max(1, most // width))
        while sizes[last - 1] == 0:
            last -= 1
        balls = order[first:last]
        place = torch.arange(width, device=unit.device).minimum(counts[first:last, None] - 1)
        for part in (starts[balls, None] + place).split(most, dim=1):
            yield balls, unit[part]
        first = last


def _index(balls):
    """Return an index of balls; that of a single one makes a view, not a copy."""
    return slice(int(balls), int(balls) + 1) if len(balls) == 1 else balls
