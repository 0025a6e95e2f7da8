r"""Linear bounds of piecewise linear graphs over a ball: the mathematics of IBP and CROWN.

Forwards go intervals (IBP). Backwards go rows: a row of some node is written as a row of the
nodes before it, where each piecewise node is replaced by a line below it or above it, as the
sign of the coefficient asks; at the input, the row is minimised over the ball (CROWN).

Rounding. Everything is float64, and every bound is moved outwards by what rounding can do. Let
u = 2^-53. A sum of n products has an error of at most gamma_n = n u / (1 - n u) times the sum of
their absolute values, in whatever order it is computed (Higham, 2002, section 3.1). Going back
through node i, a row L of it becomes L' = L W + delta with \|delta\| <= gamma \|L\| \|W\|. The
number that is returned in the end is an exact bound of the rows as they were computed, so that
delta costs no more than \|delta\| . max \|z\| <= gamma \|L\| . (\|W\| V), where V bounds the true
inputs of the node in the ball: intervals, which are at hand. These costs are added up over the
nodes (`_error`), with twice gamma for the rounding of the costs themselves.

References
----------
Gowal et al., "On the effectiveness of interval bound propagation for training verifiably robust
models", 2018. Zhang et al., "Efficient neural network robustness certification with general
activation functions", NeurIPS 2018. Xu et al., "Fast and complete", ICLR 2021. Wang et al.,
"Beta-CROWN", NeurIPS 2021. Higham, "Accuracy and stability of numerical algorithms", 2002.
"""

from dataclasses import dataclass, replace

import torch

from skrobust._ball import Ball
from skrobust.exceptions import UnsupportedModelError
from skrobust.networks._piecewise_linear import (
    Average,
    Clamp,
    Concat,
    Constant,
    Conv,
    Linear,
    MaxPool,
    Rearrange,
    Relu,
    Scale,
)

__all__ = [
    "NUMBERS_AT_ONCE",
    "Climb",
    "Lines",
    "PoolLines",
    "Relaxation",
    "SlopeUnits",
    "Units",
    "backward",
    "check_finite",
    "crown",
    "farthest",
    "initial_slopes",
    "interval_rows",
    "lines_of",
    "minimum",
    "optimised",
    "points_at_once",
    "relax",
    "relu_lines",
    "slope_relaxation",
    "tighten",
    "unit_ball",
]

_UNIT = 2.0**-53
# In the largest array of one pass. Larger ones are handed back to the system each time, and to
# get their memory again takes longer than to work on it.
NUMBERS_AT_ONCE = 2**20


def check_finite(graph):
    """Return the graph; raise where its weights or constants are NaN or infinite."""
    for node, constant in zip(graph.nodes, graph.constants, strict=True):
        parts = [constant, *(getattr(node, name, None) for name in ("weight", "slope"))]
        if not all(torch.isfinite(part).all() for part in parts if part is not None):
            raise UnsupportedModelError(
                f"Got weights with NaN or infinity in layer {node.path}, but expected finite ones."
            )
    return graph


def points_at_once(graph):
    """Return how many balls can be bounded together, two rows for each class, in memory."""
    largest = max(node.size for node in graph.nodes)
    return max(1, NUMBERS_AT_ONCE // (largest * 2 * graph.n_classes))


# ---- rounding ----------------------------------------------------------------------------


def _terms(node):
    """Number of products that one entry of the node, or of its adjoint, may sum."""
    if isinstance(node, Linear):
        return sum(node.weight.shape)
    if isinstance(node, Conv):
        return node.weight.numel()
    if isinstance(node, Average):
        return 2 * torch.Size(node.input_shape).numel()
    if isinstance(node, Rearrange | Scale):
        return node.size + torch.Size(node.input_shape).numel()
    return 8


def _gamma(graph, i):
    """Twice gamma_n for one node: its sums, its dot product with constants, and the total."""
    node = graph.nodes[i]
    return 2.02 * _UNIT * (_terms(node) + node.size + len(graph.nodes) + 8)


# ---- lines below and above piecewise nodes -----------------------------------------------


@dataclass(frozen=True, eq=False)
class Lines:
    """For each unit a line below it and one above it, on the interval of its input.

    Parameters
    ----------
    low, low_shift, high, high_shift : Tensor of shape (B, *shape)
        The unit lies between low * z + low_shift and high * z + high_shift.
    open : bool Tensor of shape (B, *shape)
        Which units are not linear on their interval.
    base, gain : Tensor of shape (B, *shape) or None
        Where the slope of the line through the kink is free: it is base + t * gain with t in
        [0, 1]. It is the line below where `convex`, else the one above.
    convex : bool Tensor, broadcast to (B, *shape)
    """

    low: torch.Tensor
    low_shift: torch.Tensor
    high: torch.Tensor
    high_shift: torch.Tensor
    open: torch.Tensor
    base: torch.Tensor | None = None
    gain: torch.Tensor | None = None
    convex: torch.Tensor | None = None

    def __len__(self):
        return len(self.open)

    def __getitem__(self, index):
        # `convex` has no batch axis.
        parts = (self.low, self.low_shift, self.high, self.high_shift, self.open)
        free = (None, None) if self.base is None else (self.base[index], self.gain[index])
        return Lines(*(part[index] for part in parts), *free, self.convex)

    def pull(self, rows, alpha=None):
        """Return rows (B, m, *shape) as rows of the input, and their constants (B, m)."""
        positive, negative = rows.clamp(min=0), rows.clamp(max=0)
        low, high = self.low.unsqueeze(1), self.high.unsqueeze(1)
        if alpha is not None:
            free = self.base.unsqueeze(1) + alpha * self.gain.unsqueeze(1)
            chosen = self.open.unsqueeze(1)
            low = torch.where(chosen & self.convex, free, low)
            high = torch.where(chosen & ~self.convex, free, high)
        constant = _dot(positive, self.low_shift) + _dot(negative, self.high_shift)
        return positive * low + negative * high, constant


@dataclass(frozen=True, eq=False)
class PoolLines:
    """As `Lines`, for the largest entry of each window.

    Below is one member of it; above too where it is always the largest, else a constant.

    Parameters
    ----------
    member : int Tensor of shape (B, size)
    decided : bool Tensor of shape (B, size)
    top : Tensor of shape (B, size)
    input_shape : tuple
    bottom : Tensor of shape (B, size) or None
        Where not decided, the constant below, in place of the member.
    """

    member: torch.Tensor
    decided: torch.Tensor
    top: torch.Tensor
    input_shape: tuple
    bottom: torch.Tensor | None = None

    def __len__(self):
        return len(self.open)

    def __getitem__(self, index):
        parts = (self.member[index], self.decided[index], self.top[index])
        bottom = None if self.bottom is None else self.bottom[index]
        return PoolLines(*parts, self.input_shape, bottom)

    @property
    def open(self):
        return ~self.decided

    def pull(self, rows, alpha=None):
        flat = rows.flatten(2)
        decided = self.decided.unsqueeze(1)
        if self.bottom is None:
            linear = torch.where(decided, flat, flat.clamp(min=0))
            constant = _dot(flat - linear, self.top)
        else:
            linear = torch.where(decided, flat, 0.0)
            rest = flat - linear
            constant = _dot(rest.clamp(min=0), self.bottom) + _dot(rest.clamp(max=0), self.top)
        out = flat.new_zeros(*flat.shape[:2], torch.Size(self.input_shape).numel())
        out = out.scatter_add(2, self.member.unsqueeze(1).expand_as(flat), linear)
        return out.view(*flat.shape[:2], *self.input_shape), constant


def _dot(rows, values):
    """Return sum(rows * values) over the axes of a sample: (B, m, *shape), (B or 1, *shape)."""
    rows, values = rows.flatten(2), values.flatten(1)
    if len(values) == 1:
        return rows @ values[0]
    return torch.bmm(rows, values.unsqueeze(2)).squeeze(2)


def lines_of(node, lower, upper):
    """Return the `Lines` or `PoolLines` of a piecewise node on an interval of its input."""
    if isinstance(node, Relu):
        return relu_lines(node.slope, lower, upper)
    if isinstance(node, Clamp):
        return _clamp_lines(node.low, node.high, lower, upper)
    if isinstance(node, MaxPool):
        return _pool_lines(node, lower, upper)
    raise UnsupportedModelError(f"Got a {type(node).__name__}, which has no linear bounds.")


def relu_lines(slope, lower, upper):
    """Return the `Lines` of a ReLU whose slope below 0 is the tensor `slope`."""
    is_open = (lower < 0) & (upper > 0)
    width = torch.where(is_open, upper - lower, 1.0)
    chord = (upper - slope * lower) / width
    shift = upper - chord * upper
    # The better of the two pieces by area, as in the CROWN paper.
    nearer = torch.where(upper > -lower, torch.ones_like(upper), slope.expand_as(upper))
    linear = torch.where(lower >= 0, torch.ones_like(upper), slope.expand_as(upper))
    convex = slope <= 1
    zero = torch.zeros_like(upper)
    return Lines(
        low=torch.where(is_open, torch.where(convex, nearer, chord), linear),
        low_shift=torch.where(is_open & ~convex, shift, zero),
        high=torch.where(is_open, torch.where(convex, chord, nearer), linear),
        high_shift=torch.where(is_open & convex, shift, zero),
        open=is_open,
        base=slope.expand_as(upper),
        gain=(1 - slope).expand_as(upper),
        convex=convex,
    )


def _clamp_lines(low, high, lower, upper):
    at_lower, at_upper = lower.clamp(low, high), upper.clamp(low, high)
    inside = (lower >= low) & (upper <= high)
    flat = (upper <= low) | (lower >= high)
    is_open = ~(inside | flat)
    cut_low, cut_high = is_open & (lower < low), is_open & (upper > high)
    width = torch.where(is_open, upper - lower, 1.0)
    chord = torch.where(is_open, (at_upper - at_lower) / width, inside.to(lower.dtype))
    # Below a kink at `low`, the line through (low, low) and the right end, or level; so above.
    right = (at_upper - low) / torch.where(cut_low, upper - low, 1.0)
    right = torch.where(upper - low > low - lower, right, 0.0)
    left = (high - at_lower) / torch.where(cut_high, high - lower, 1.0)
    left = torch.where(high - lower > upper - high, left, 0.0)
    below = torch.where(cut_low, right, chord)
    above = torch.where(cut_high, left, chord)
    below_at = torch.where(cut_low, low - below * low, at_lower - below * lower)
    above_at = torch.where(cut_high, high - above * high, at_upper - above * upper)
    zero = torch.zeros_like(lower)
    below_at = torch.where(inside, zero, below_at)
    above_at = torch.where(inside, zero, above_at)
    return Lines(below, below_at, above, above_at, is_open)


def _pool_lines(node, lower, upper):
    lows, highs = node.windows(lower), node.windows(upper)
    best, place = lows.max(dim=2)
    member = node.members.expand(len(lows), -1, -1).gather(2, place.unsqueeze(2))
    # Entries that are repeated to fill a window are no rivals.
    rivals = highs.masked_fill(node.members == member, -torch.inf)
    return PoolLines(
        member.squeeze(2), best >= rivals.amax(dim=2), highs.amax(dim=2), node.input_shape
    )


# ---- the relaxation: intervals, and lines ------------------------------------------------


@dataclass(frozen=True, eq=False)
class Relaxation:
    """Intervals of all nodes and lines of the piecewise ones, over B balls.

    Parameters
    ----------
    graph : PiecewiseLinear
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


class SlopeUnits(Units):
    r"""Piecewise nodes as slopes: from the center of a ball, not from zero.

    The graph is read as a map of (x - center) / d to (z(x) - z(center)) / d, where d is the
    distance. A unit f multiplies its input by the slope of a chord, (f(z) - f(y)) / (z - y),
    where y is its input at the center and z any other in the ball. For convex and for concave
    f that slope is monotone in both ends.

    Parameters
    ----------
    relaxation : Relaxation
        Over the ball itself.
    """

    homogeneous = True

    def __init__(self, relaxation):
        self.relaxation = relaxation
        center = relaxation.ball.center
        point = replace(relaxation.ball, lower=center, upper=center, norm="linf")
        self.at_center = relax(relaxation.graph, point, refine=False)

    def _range(self, i, node):
        """Return the least and the largest slope of each unit."""
        j = node.inputs[0]
        lower, upper = self.relaxation.lows[j], self.relaxation.highs[j]
        if isinstance(node, Clamp):
            inside = (lower >= node.low) & (upper <= node.high)
            flat = (upper <= node.low) | (lower >= node.high)
            return inside.to(lower.dtype), (~flat).to(lower.dtype)
        ends = (
            _chord_slope(node.slope, lower, self.at_center.lows[j], node.slope),
            _chord_slope(node.slope, upper, self.at_center.highs[j], torch.ones_like(upper)),
        )
        slack = 1e-15 * (1 + node.slope.abs())
        least, most = torch.minimum(*ends), torch.maximum(*ends)
        kinked = least < most
        least, most = least - slack * kinked, most + slack * kinked
        return least, most

    def needed(self, i, node, lower, upper):
        if isinstance(node, MaxPool):
            return _members_of(node, self.relaxation.lines[i].open, lower)
        least, most = self._range(i, node)
        return least < most

    def lines(self, i, node, lower, upper):
        if isinstance(node, MaxPool):
            known = self.relaxation.lines[i]
            bottom = node.windows(lower).amin(dim=2)
            return replace(known, top=node.windows(upper).amax(dim=2), bottom=bottom)
        least, most = self._range(i, node)
        mixed = (lower < 0) & (upper > 0)
        width = torch.where(mixed, upper - lower, 1.0)
        # The lines through the corners of the two triangles that meet at zero.
        low = (least * upper - most * lower) / width
        high = (most * upper - least * lower) / width
        positive = lower >= 0
        zero = torch.zeros_like(lower)
        return Lines(
            low=torch.where(mixed, low, torch.where(positive, least, most)),
            low_shift=torch.where(mixed, (least - low) * upper, zero),
            high=torch.where(mixed, high, torch.where(positive, most, least)),
            high_shift=torch.where(mixed, (most - high) * upper, zero),
            open=least < most,
        )

    def image(self, i, node, lower, upper):
        if isinstance(node, MaxPool):
            shape = (-1, *node.shape)
            known = self.relaxation.lines[i]
            chosen = [part.flatten(1).gather(1, known.member) for part in (lower, upper)]
            low = torch.where(known.decided, chosen[0], node.windows(lower).amin(dim=2))
            high = torch.where(known.decided, chosen[1], node.windows(upper).amax(dim=2))
            return low.view(shape), high.view(shape)
        ends = [slope * end for slope in self._range(i, node) for end in (lower, upper)]
        ends = torch.stack(ends)
        return ends.amin(dim=0), ends.amax(dim=0)


def _chord_slope(slope, z, center, at_zero):
    """Return the slope of the chord of a leaky ReLU between z and the center."""
    right = torch.maximum(z, center).clamp(min=0)
    left = torch.minimum(z, center).clamp(max=0)
    width = right - left
    # Without width both lie at the kink, where any slope between the two is one.
    chord = (right - slope * left) / torch.where(width > 0, width, 1.0)
    return torch.where(width > 0, chord, at_zero)


def relax(graph, ball, *, refine=True, n_steps=0, units=None, watch=None):
    """Bound every node over balls, from the input on.

    Parameters
    ----------
    graph : PiecewiseLinear
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
    radius = radius + error + 2.02 * _UNIT * (rows.shape[1] + 8) * reach
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


# ---- backwards ---------------------------------------------------------------------------


def backward(relaxation, start, rows, sample=None, alphas=None, betas=None, trace=None):
    """Write rows of a node as rows of the input that lie below them over the ball.

    Parameters
    ----------
    relaxation : Relaxation
        Of B balls; it must reach up to `start`.
    start : int
        Position of the node.
    rows : Tensor of shape (P, m, *shape)
        Of its output.
    sample : int Tensor of shape (P,), default=None
        The ball of each; the balls in order if None.
    alphas : dict of int to Tensor of shape (P, 1 or m, *shape), default=None
        Free slopes of piecewise nodes, in [0, 1].
    betas : dict of int to Tensor of shape (P, 1 or m, *shape), default=None
        Added to the rows of nodes. The caller sees to it that what is added is not above 0.
    trace : dict, default=None
        Where the rows of all nodes are kept, for those who ask what the bound consists of.

    Returns
    -------
    rows : Tensor of shape (P, m, n_features)
    constant, error : Tensor of shape (P, m)
        The rows lie below the given ones if constant - error is added.
    """
    graph = relaxation.graph
    count, m = rows.shape[:2]
    constant, error = rows.new_zeros(count, m), rows.new_zeros(count, m)
    alphas, betas = alphas or {}, betas or {}
    pending = {start: rows}
    for i in range(start, 0, -1):
        here = pending.pop(i, None)
        if here is None:
            continue
        node = graph.nodes[i]
        if i in betas:
            here = here + betas[i]
        if trace is not None:
            trace[i] = here
        # The rounding is no matter of gradients.
        with torch.no_grad():
            weight = _at(relaxation.weights[i], sample) * _gamma(graph, i)
            error = error + _dot(here.abs(), weight)
        if node.is_affine:
            if not relaxation.homogeneous:
                constant = constant + here.flatten(2) @ graph.constants[i].flatten()
            parts = _adjoint(node, here.flatten(0, 1))
            parts = [None if p is None else p.unflatten(0, (count, m)) for p in parts]
        else:
            lines = _at(relaxation.lines[i], sample)
            part, shift = lines.pull(here, alphas.get(i))
            constant, parts = constant + shift, [part]
        for j, part in zip(node.inputs, parts, strict=True):
            if part is not None:
                pending[j] = pending[j] + part if j in pending else part
    pulled = pending[0].flatten(2) if 0 in pending else rows.new_zeros(count, m, graph.n_features)
    if trace is not None:
        trace[0] = pulled
    return pulled, constant, error


def _at(values, sample):
    """Return values for each row; what is the same for all balls is not repeated."""
    return values if sample is None or len(values) == 1 else values[sample]


def _adjoint(node, rows):
    if isinstance(node, Average) and rows.requires_grad:
        at = rows.new_zeros(len(rows), *node.input_shape).requires_grad_()
        return torch.autograd.grad(node.apply(at), at, rows, create_graph=True)
    return node.adjoint(rows)


def crown(relaxation, rows, start=None, *, sample=None, shift=None, slope=None, nearest=None,
          alphas=None, betas=None, trace=None):  # fmt: skip
    """Return proved lower bounds, of shape (P, m), of rows of a node; see `backward`.

    Parameters
    ----------
    shift : Tensor of shape (P, m), default=None
        Added to the rows.
    slope : Tensor of shape (P, m), default=None
        Added to the rows, times the distance from the center.
    nearest : Tensor of shape (P,), default=None
        Least distance; see `minimum`.
    trace : dict, default=None
        Where the rows of all nodes are kept, those of the input too.
    """
    start = len(relaxation.graph.nodes) - 1 if start is None else start
    pulled, constant, error = backward(relaxation, start, rows, sample, alphas, betas, trace)
    ball = relaxation.ball
    ball = ball if sample is None or len(relaxation) == 1 else ball[sample]
    lower = minimum(ball, pulled, slope, nearest)
    if shift is not None:
        with torch.no_grad():
            error = error + 4 * _UNIT * len(relaxation.graph.nodes) * shift.abs()
        constant = constant + shift
    return lower + constant - error


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
            gamma = 2.02 * _UNIT * (node.size + len(graph.nodes) + 8)
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
        error = error + 4 * _UNIT * len(graph.nodes) * shift.abs()
    return lower - error


def optimised(relaxation, rows, start=None, *, sample=None, shift=None, slope=None, nearest=None,
              n_steps=20, rate=0.25, watch=None):  # fmt: skip
    """Return lower bounds as `crown` does, with the free slopes chosen for each row (alpha-CROWN).

    Parameters
    ----------
    n_steps : int
        Steps of Adam, projected to the allowed slopes. Every step gives a proved bound, of
        which the best is kept; rows leave as soon as they are at or above 0.
    rate : float
        Length of the first step, relative to the range of a slope.
    watch : Stopwatch, default=None
        The steps end when its time is up.
    """
    alphas = initial_slopes(relaxation, rows.shape[:2], sample)
    options = {"sample": sample, "shift": shift, "slope": slope, "nearest": nearest}
    if not alphas:
        return crown(relaxation, rows, start, **options)
    climb = Climb([(alphas.values(), rate, 1.0)], decay=0.95)
    best = rows.new_full(rows.shape[:2], -torch.inf)
    for step in range(n_steps + 1):
        last = step == n_steps or (watch is not None and watch.left == 0)
        with torch.set_grad_enabled(not last):
            lower = crown(relaxation, rows, start, alphas=alphas, **options)
        best = torch.fmax(best, lower.detach())
        is_open = best < 0
        if last or not is_open.any():
            break
        climb.step(torch.where(is_open, lower, 0.0).sum())
    return best


class Climb:
    """Adam (Kingma and Ba, ICLR 2015), upwards, inside a box, with a rate that decays.

    That of torch takes longer than the bounds of a small network, and a second to import.

    Parameters
    ----------
    groups : list of (collection of Tensor, float, float)
        Leaves, changed in place; the length of their first step; and their upper limit, where
        the lower one is 0.
    decay : float
        Ratio of the length of each step to that of the one before.
    """

    def __init__(self, groups, decay):
        self.parts = [
            (leaf.requires_grad_(), torch.zeros_like(leaf), torch.zeros_like(leaf), rate, high)
            for leaves, rate, high in groups
            for leaf in leaves
        ]
        self.decay, self.n_steps = decay, 0

    def step(self, value):
        """Move to where `value`, which was computed from the leaves, is larger."""
        leaves = [part[0] for part in self.parts]
        gradients = torch.autograd.grad(value, leaves, allow_unused=True)
        size = self.decay**self.n_steps
        self.n_steps += 1
        size *= (1 - 0.999**self.n_steps) ** 0.5 / (1 - 0.9**self.n_steps)
        with torch.no_grad():
            for part, gradient in zip(self.parts, gradients, strict=True):
                if gradient is None:
                    continue
                leaf, mean, square, rate, high = part
                mean.lerp_(gradient, 0.1)
                square.mul_(0.999).addcmul_(gradient, gradient, value=0.001)
                leaf.addcdiv_(mean, square.sqrt().add_(1e-12), value=rate * size).clamp_(0, high)


def initial_slopes(relaxation, counts, sample=None):
    """Return the free slopes that the lines now have, each of shape (P, m, *shape)."""
    alphas = {}
    for i, lines in relaxation.lines.items():
        if isinstance(lines, Lines) and lines.base is not None and lines.open.any():
            lines = _at(lines, sample)
            free = torch.where(lines.convex, lines.low, lines.high) - lines.base
            start = torch.where(
                lines.open, free / torch.where(lines.gain == 0, 1.0, lines.gain), 0
            )
            start = start.unsqueeze(1).expand(*counts, *start.shape[1:])
            alphas[i] = start.clamp(0, 1).clone()
    return alphas


# ---- at the input ------------------------------------------------------------------------


def farthest(ball):
    """Return the largest distance from the center in each ball, rounded up, of shape (B,)."""
    offset = torch.maximum(ball.upper - ball.center, ball.center - ball.lower)
    if ball.norm == "linf":
        return offset.amax(dim=1) * (1 + 1e-15)
    reach = ball.epsilon.max() * (1 + 1e-12)
    return torch.linalg.vector_norm(offset, dim=1).clamp(max=reach) * (1 + 1e-12)


def minimum(ball, rows, slope=None, nearest=None):
    """Return lower bounds of rows . x + slope * d over balls, of shape (B, m).

    Parameters
    ----------
    ball : Ball
        Of B centers.
    rows : Tensor of shape (B, m, n_features)
    slope : Tensor of shape (B, m), default=None
        Where it is above 0, d is any number between the distance of x and the largest one of
        the ball, but at least `nearest`. That is no restriction at the minimum but where x is
        nearer than that, and there it asks for less than the property does.
    nearest : Tensor of shape (B,), default=None
    """
    if slope is not None:
        return _minimum_with_distance(ball, rows, slope, nearest)
    if ball.norm == "linf":
        return _box_minimum(ball, rows)
    return torch.maximum(_box_minimum(ball, rows), _ball_minimum(ball, rows))


def _box_minimum(ball, rows):
    middle = (ball.lower + ball.upper) / 2
    # Sums of n_features products; the rounding of the middle and of the half-width.
    gamma = 2.02 * _UNIT * (ball.center.shape[1] + 8)
    half = (ball.upper - ball.lower) / 2
    half = half + gamma * torch.maximum(-ball.lower, ball.upper)
    return _dot(rows, middle) - _dot(rows.abs(), half)


def _offsets(ball):
    """Return how far each entry can go down and up from the center, rounded outwards."""
    down, up = ball.center - ball.lower, ball.upper - ball.center
    return down * (1 + 4 * _UNIT), up * (1 + 4 * _UNIT)


_DUAL_STEPS = 12


def _ball_minimum(ball, rows):
    r"""Minimise rows over an ellipsoid cut with a box, by its Lagrange dual.

    For any multiplier t >= 0 the sum over i of min { a_i v + t (v / eps_i)^2 : v in the box }
    minus t is a lower bound. The best t is found by bisection on a logarithmic scale.
    """
    with torch.no_grad():
        down, up = (offset.unsqueeze(1) for offset in _offsets(ball))
        epsilon = torch.where(ball.epsilon > 0, ball.epsilon, 1.0) * (1 + 1e-12)
        scaled = rows * epsilon
        high = torch.linalg.vector_norm(scaled, dim=2) / 2  # the multiplier without the box
        low = high * 1e-3
        for _ in range(_DUAL_STEPS):
            t = (low * high).sqrt()
            v = _dual_point(rows, epsilon, down, up, t)
            outside = torch.linalg.vector_norm(v / epsilon, dim=2) > 1
            low, high = torch.where(outside, t, low), torch.where(outside, high, t)
        t = high.clamp(min=1e-300)
    v = _dual_point(rows, epsilon, down, up, t)
    weight = rows.abs() @ torch.maximum(-ball.lower, ball.upper).unsqueeze(2)
    gamma = 8 * _UNIT * (rows.shape[2] + 8)
    value = (rows * v).sum(dim=2) + t * ((v / epsilon) ** 2).sum(dim=2) - t
    value = value + _dot(rows, ball.center)
    return value - gamma * (weight.squeeze(2) + 2 * t).detach()


def _dual_point(rows, epsilon, down, up, t):
    """Minimise a v + t (v / eps)^2 over the box, entry by entry."""
    v = -rows * (epsilon**2) / (2 * t.clamp(min=1e-300)).unsqueeze(2)
    return torch.minimum(torch.maximum(v, -down), up)


def _minimum_with_distance(ball, rows, slope, nearest):
    far = farthest(ball)
    near = torch.zeros_like(far) if nearest is None else torch.minimum(nearest, far)
    rising = slope.clamp(min=0)
    sinking = slope.clamp(max=0) * far[:, None]
    if ball.norm == "linf":
        lower = _linf_with_distance(ball, rows, rising, near, far)
    else:
        lower = _l2_with_distance(ball, rows, rising, near, far)
    return lower + sinking


def _linf_with_distance(ball, rows, slope, near, far):
    r"""Minimise slope d - sum_i \|a_i\| min(d, w_i) over d in [near, far], plus a . center.

    w_i is how far x_i can go in the direction that lowers the row. The function is convex and
    piecewise linear in d, so that the least value lies at an end or at some w_i.
    """
    down, up = (offset.unsqueeze(1) for offset in _offsets(ball))
    reach = torch.where(rows > 0, down, up)
    reach, order = reach.sort(dim=2)
    size = rows.abs().gather(2, order)
    gained = (size * reach).cumsum(dim=2)
    left = size.sum(dim=2, keepdim=True) - size.cumsum(dim=2)

    def value(d):
        place = torch.searchsorted(reach.detach().contiguous(), d.detach().contiguous())
        index = (place - 1).clamp(min=0)
        before = torch.where(place > 0, gained.gather(2, index), 0.0)
        rest = torch.where(place > 0, left.gather(2, index), size.sum(dim=2, keepdim=True))
        return slope.unsqueeze(2) * d - before - rest * d

    ends = torch.stack(torch.broadcast_tensors(near, far), dim=1).unsqueeze(1)
    ends = ends.expand(*rows.shape[:2], -1)
    kinks = torch.minimum(torch.maximum(reach, ends[..., :1]), ends[..., 1:])
    # Only kinks where the slope changes its sign can be least.
    first = (slope.unsqueeze(2) - left >= 0).to(reach.dtype).argmax(dim=2, keepdim=True)
    chosen = torch.cat([ends, kinks.gather(2, first)], dim=2)
    least = value(chosen).amin(dim=2)
    gamma = 8 * _UNIT * (rows.shape[2] + 8)
    weight = _dot(rows.abs(), torch.maximum(-ball.lower, ball.upper)) + slope * far[:, None]
    weight = weight + 2 * size.sum(dim=2) * far[:, None]
    return least + _dot(rows, ball.center) - (gamma * weight).detach()


def _l2_with_distance(ball, rows, slope, near, far):
    r"""As for L-infinity, from two bounds: slope d - d \|a\|, and slope d + that of the ball."""
    down, up = (offset.unsqueeze(1) for offset in _offsets(ball))
    blocked = torch.where(rows > 0, down, up) <= 0
    steep = torch.linalg.vector_norm(rows.masked_fill(blocked, 0.0), dim=2) * (1 + 1e-12)
    shift = _dot(rows, ball.center)
    weight = _dot(rows.abs(), torch.maximum(-ball.lower, ball.upper))
    error = 8 * _UNIT * (rows.shape[2] + 8) * (weight + slope * far[:, None])
    whole = torch.maximum(_box_minimum(ball, rows), _ball_minimum(ball, rows)) - shift - error
    near, far = near[:, None].expand_as(slope), far[:, None].expand_as(slope)
    crossing = torch.where(steep > 0, -whole / steep.clamp(min=1e-300), far)
    crossing = torch.minimum(torch.maximum(crossing, near), far)
    values = [slope * d + torch.maximum(-d * steep, whole) for d in (near, far, crossing)]
    return torch.stack(values).amin(dim=0) + shift - error.detach()


# ---- slopes ------------------------------------------------------------------------------


def unit_ball(ball):
    """Return the directions in which the points of a ball lie, as a ball of radius 1."""
    zero = torch.zeros_like(ball.center)
    one = torch.ones((), dtype=torch.float64, device=zero.device)
    lower = -(ball.lower < ball.center).to(zero.dtype)
    upper = (ball.upper > ball.center).to(zero.dtype)
    return Ball(zero, one, ball.norm, lower, upper)


def slope_relaxation(relaxation, refine=True, watch=None):
    """Return the `Relaxation` of the slopes of a network, seen from the centers of balls.

    Rows of it bound (z(x) - z(center)) / d for all x of the ball, where d > 0 is the distance
    of x from the center in the norm of the ball.
    """
    units = SlopeUnits(relaxation)
    ball = unit_ball(relaxation.ball)
    return relax(relaxation.graph, ball, refine=refine, units=units, watch=watch)
