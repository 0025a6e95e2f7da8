"""Intervals of nodes tightened backwards (CROWN), and by the Euclidean norm."""

from dataclasses import replace

import torch

from skrobust.bounds._backward import backward, crown, optimized
from skrobust.bounds._entries import entry_rows
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
    radius = torch.linalg.vector_norm(rows * ball.epsilon, dim=1) * (1 + 1e-12)
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
    for part, s, k in _portions(built, j, sample, unit):
        if watch is not None and watch.left == 0:
            break
        start, rows, shift = entry_rows(built.graph, j, k)
        shift = torch.zeros_like(shift) if built.homogeneous else shift
        rows, shift = torch.stack([rows, -rows], dim=1), torch.stack([shift, -shift], dim=1)
        options = {"sample": s if len(part) == len(built) else None, "shift": shift}
        if n_steps:
            with torch.enable_grad():
                bound = optimized(part, rows, start, n_steps=n_steps, watch=watch, **options)
        else:
            bound = crown(part, rows, start, **options)
        low[s, k] = torch.fmax(low[s, k], bound[:, 0])
        high[s, k] = torch.fmin(high[s, k], -bound[:, 1])
    intersect(built, j, low.view_as(built.lows[j]), high.view_as(built.highs[j]))


_ROWS_OF_ONE = 16  # of one ball that are worth a pass of their own
_BYTES = 2**21  # of the largest array of a pass: what caches hold is passed over several times


def _portions(built, j, sample, unit):
    """Yield parts of a relaxation, with the balls and entries that are tightened by them at once.

    Where a ball has many entries, it is taken alone: what is known of it is then not repeated
    for each of them, which would take longer than the products.
    """
    largest = max(n.size for n in built.graph.nodes[: j + 1])
    itemsize = built.graph.dtype.itemsize
    step = max(1, _BYTES // (2 * largest * itemsize))
    if len(built) == 1 or len(sample) < _ROWS_OF_ONE * len(built):
        for s, k in zip(sample.split(step), unit.split(step), strict=True):
            yield built, s, k
        return
    counts = sample.bincount(minlength=len(built)).tolist()
    for ball, (s, k) in enumerate(zip(sample.split(counts), unit.split(counts), strict=True)):
        one = built[ball : ball + 1]
        for s_part, k_part in zip(s.split(step), k.split(step), strict=True):
            if len(s_part):
                yield one, s_part, k_part
