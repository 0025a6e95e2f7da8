r"""Intervals of all nodes over balls, from the input on (IBP), tightened backwards (CROWN).

References
----------
Gowal et al., "On the effectiveness of interval bound propagation for training verifiably robust
models", 2018.
"""

from dataclasses import dataclass, replace

import torch

from skrobust.balls import Ball
from skrobust.bounds._backward import _adjoint, backward, crown, optimised
from skrobust.bounds._lines import lines_of
from skrobust.bounds._rounding import NUMBERS_AT_ONCE, UNIT, _dot, _gamma
from skrobust.graphs import Clamp, Concat, Constant, MaxPool, Rearrange, Relu, Scale

__all__ = ["Relaxation", "Units", "interval_rows", "relax", "tighten"]


@dataclass(frozen=True, eq=False)
class Relaxation:
    """Intervals of all nodes and lines of the piecewise ones, over B balls.

    Parameters
    ----------
    graph : Graph
    ball : Ball
    lows, highs : list of Tensor of shape (B, *shape)
        Proved bounds of each node.
    weights : list of Tensor of shape (B, *shape) or None
        For each node what its rounding is relative to; see the top of this module.
    lines : dict of int to Lines or PoolLines
    homogeneous : bool
        Whether affine nodes go without their constants, as for slopes.
    empty : bool Tensor of shape (B,)
        Where the intervals contradict each other: no point of the ball meets what was known.
    """

    graph: object
    ball: Ball
    lows: list
    highs: list
    weights: list
    lines: dict
    homogeneous: bool
    empty: torch.Tensor

    def __len__(self):
        return len(self.ball.center)

    def __getitem__(self, index):
        return Relaxation(
            self.graph,
            self.ball[index],
            [part[index] for part in self.lows],
            [part[index] for part in self.highs],
            [None if part is None else part[index] for part in self.weights],
            {i: lines[index] for i, lines in self.lines.items()},
            self.homogeneous,
            self.empty[index],
        )

    @property
    def sources(self):
        """Positions of the nodes that piecewise nodes read, with those nodes, as a dict."""
        return {self.graph.nodes[i].inputs[0]: i for i in self.graph.piecewise}


class Units:
    """How piecewise nodes are bounded: as functions of their input."""

    homogeneous = False

    def lines(self, i, node, lower, upper):
        """Return lines on the intervals of the input."""
        return lines_of(node, lower, upper)

    def needed(self, i, node, lower, upper):
        """Return which entries of the input are worth tightening."""
        if isinstance(node, MaxPool):
            return _members_of(node, lines_of(node, lower, upper).open, lower)
        if isinstance(node, Relu):
            return (lower < 0) & (upper > 0)
        return (lower < node.low) & (upper > node.low) | (lower < node.high) & (upper > node.high)

    def image(self, i, node, lower, upper):
        """Return the interval of the output."""
        low, high = node.apply(lower), node.apply(upper)
        if isinstance(node, Relu) and (node.slope < 0).any():
            # Not monotone: the kink counts too.
            inside = (lower < 0) & (upper > 0)
            low, high = torch.minimum(low, high), torch.maximum(low, high)
            low = torch.where(inside, low.clamp(max=0), low)
            high = torch.where(inside, high.clamp(min=0), high)
        return low, high


def _members_of(node, is_open, like):
    """Return which entries of the input belong to an open window."""
    chosen = torch.zeros(len(like), like[0].numel(), device=like.device)
    places = node.members.flatten().expand(len(like), -1)
    repeated = is_open.to(chosen.dtype).repeat_interleave(node.members.shape[1], dim=1)
    return (chosen.scatter_add_(1, places, repeated) > 0).view(like.shape)


def relax(graph, ball, *, refine=True, n_steps=0, units=None, watch=None):
    """Bound every node over balls, from the input on.

    Parameters
    ----------
    graph : Graph
    ball : Ball
        Of B centers, in float64.
    refine : bool, default=True
        Whether intervals before piecewise nodes are tightened backwards (CROWN), not only
        propagated (IBP).
    n_steps : int, default=0
        Gradient steps for the slopes behind each of these intervals.
    units : Units, default=None
    watch : Stopwatch, default=None
        When its time is up, intervals are no longer tightened.

    Returns
    -------
    Relaxation
    """
    units = Units() if units is None else units
    shape = graph.nodes[0].shape
    lows, highs = [ball.lower.view(-1, *shape)], [ball.upper.view(-1, *shape)]
    empty = torch.zeros(len(ball.lower), dtype=torch.bool, device=ball.lower.device)
    built = Relaxation(graph, ball, lows, highs, [None], {}, units.homogeneous, empty)
    depths = _depths(graph)
    for i, node in enumerate(graph.nodes[1:], start=1):
        if node.is_affine:
            low, high, weight = _affine_interval(built, i, node)
        else:
            j = node.inputs[0]
            _tighten(built, i, node, refine, n_steps, depths[j], units, watch)
            built.lines[i] = units.lines(i, node, lows[j], highs[j])
            low, high = units.image(i, node, lows[j], highs[j])
            weight = _piecewise_weight(node, lows[j], highs[j])
        lows.append(low)
        highs.append(high)
        built.weights.append(weight)
    return built


def _depths(graph):
    """Count the layers that mix entries before each node; infinite behind a piecewise one."""
    depths = [0]
    for node in graph.nodes[1:]:
        depth = max(depths[j] for j in node.inputs)
        simple = isinstance(node, Rearrange | Scale | Concat | Constant)
        depths.append(depth + (not simple) if node.is_affine else float("inf"))
    return depths


def _affine_interval(built, i, node):
    graph = built.graph
    pairs = [(built.lows[j], built.highs[j]) for j in node.inputs]
    center = node.apply(*((low + high) / 2 for low, high in pairs))
    radius = node.magnitude(*((high - low) / 2 for low, high in pairs))
    weight = node.magnitude(*(torch.maximum(-low, high) for low, high in pairs))
    weight = weight + 2 * graph.constants[i].abs()
    if built.homogeneous:
        center = center - graph.constants[i]
    radius = radius + _gamma(graph, i) * weight
    # Where numbers overflow nothing is known; a NaN would pass for a decided unit.
    low, high = center - radius, center + radius
    return (
        low.nan_to_num(-torch.inf, torch.inf, -torch.inf),
        high.nan_to_num(torch.inf, torch.inf, -torch.inf),
        weight,
    )


def _piecewise_weight(node, lower, upper):
    """Bound |slope| V + |shift| of the lines of a node, with room for their own rounding."""
    reach = torch.maximum(-lower, upper)
    if isinstance(node, Relu):
        return 4 * (1 + node.slope.abs()) * reach
    if isinstance(node, Clamp):
        limits = [abs(limit) for limit in (node.low, node.high) if abs(limit) != float("inf")]
        return 8 * (reach + max(limits, default=0.0))
    return 2 * node.apply(reach)


def _tighten(built, i, node, refine, n_steps, depth, units, watch):
    """Tighten the bounds of what the piecewise node i reads, in place."""
    j = node.inputs[0]
    is_exact = depth <= 1 and built.ball.norm == "linf"
    if built.ball.norm == "l2" and depth < float("inf"):
        _intersect(built, j, *_euclidean_interval(built, j))
    if refine and not is_exact:
        is_open = units.needed(i, node, built.lows[j], built.highs[j])
        sample, unit = is_open.flatten(1).nonzero(as_tuple=True)
        if len(sample):
            tighten(built, j, sample, unit, n_steps if depth == float("inf") else 0, watch)


def _intersect(built, j, low, high):
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
    eye = torch.eye(size, dtype=torch.float64, device=ball.center.device)
    # The rows are the same for all balls; the rounding is that of the largest numbers of any.
    first = built[:1]
    weights = [None, *(part.amax(dim=0, keepdim=True) for part in built.weights[1:])]
    rows, shift, error = backward(
        replace(first, weights=weights), j, eye.view(1, size, *graph.nodes[j].shape)
    )
    rows, shift, error = rows[0], shift[0], error[0]
    center = ball.center @ rows.T + shift
    reach = ball.center.abs() @ rows.abs().T + shift.abs()
    radius = torch.linalg.vector_norm(rows * ball.epsilon, dim=1) * (1 + 1e-12)
    radius = radius + error + 2.02 * UNIT * (rows.shape[1] + 8) * reach
    shape = graph.nodes[j].shape
    return (center - radius).view(-1, *shape), (center + radius).view(-1, *shape)


def tighten(built, j, sample, unit, n_steps=0, watch=None):
    """Tighten the entries `unit` of node j of the balls `sample` by rows +z and -z, in place.

    The entries that come after the time of the `watch` is up stay as they are.
    """
    node = built.graph.nodes[j]
    largest = max(n.size for n in built.graph.nodes[: j + 1])
    step = max(1, NUMBERS_AT_ONCE // (2 * largest))
    low, high = built.lows[j].flatten(1).clone(), built.highs[j].flatten(1).clone()
    for start in range(0, len(sample), step):
        if watch is not None and watch.left == 0:
            break
        s, k = sample[start : start + step], unit[start : start + step]
        rows = low.new_zeros(len(s), 2, node.size)
        places = torch.arange(len(s), device=s.device)
        rows[places, 0, k], rows[places, 1, k] = 1.0, -1.0
        rows = rows.view(len(s), 2, *node.shape)
        if n_steps:
            with torch.enable_grad():
                bound = optimised(built, rows, j, sample=s, n_steps=n_steps, watch=watch)
        else:
            bound = crown(built, rows, j, sample=s)
        low[s, k] = torch.fmax(low[s, k], bound[:, 0])
        high[s, k] = torch.fmin(high[s, k], -bound[:, 1])
    _intersect(built, j, low.view_as(built.lows[j]), high.view_as(built.highs[j]))


def interval_rows(relaxation, rows, shift=None):
    """Return lower bounds, of shape (B, m), of rows of the outputs by intervals alone.

    The rows are pulled back through the last affine nodes first, which keeps what the outputs
    have in common.
    """
    graph = relaxation.graph
    zeros = rows.new_zeros(rows.shape[:2])
    lower, error = zeros if shift is None else shift, zeros
    pending = {len(graph.nodes) - 1: rows}
    for i in range(len(graph.nodes) - 1, -1, -1):
        here = pending.pop(i, None)
        if here is None:
            continue
        node = graph.nodes[i]
        if i == 0 or not node.is_affine:
            low, high = relaxation.lows[i], relaxation.highs[i]
            lower = lower + _dot(here.clamp(min=0), low) + _dot(here.clamp(max=0), high)
            gamma = 2.02 * UNIT * (node.size + len(graph.nodes) + 8)
            error = error + gamma * _dot(here.abs(), torch.maximum(-low, high))
            continue
        error = error + _dot(here.abs(), relaxation.weights[i] * _gamma(graph, i))
        if not relaxation.homogeneous:
            lower = lower + here.flatten(2) @ graph.constants[i].flatten()
        parts = _adjoint(node, here.flatten(0, 1))
        for j, part in zip(node.inputs, parts, strict=True):
            if part is not None:
                part = part.unflatten(0, rows.shape[:2])
                pending[j] = pending[j] + part if j in pending else part
    if shift is not None:
        error = error + 4 * UNIT * len(graph.nodes) * shift.abs()
    return lower - error
