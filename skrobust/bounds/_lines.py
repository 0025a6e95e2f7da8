"""Lines below and above piecewise nodes, on an interval of their input."""

from dataclasses import dataclass
from functools import singledispatch

import torch

from skrobust.bounds._rounding import dot
from skrobust.graphs import Clamp, MaxPool, Relu, no_rule

TIE = 1 + 2.0**-20  # how much larger a side of an interval must be

__all__ = ["Lines", "PoolLines", "lines_of"]


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

    def start(self):
        """Return the free numbers that the lines now have, of shape (B, *shape), or None."""
        if self.base is None or not self.open.any():
            return None
        free = torch.where(self.convex, self.low, self.high) - self.base
        free = free / torch.where(self.gain == 0, 1.0, self.gain)
        return torch.where(self.open, free, 0).clamp(0, 1)

    def pull(self, rows, alpha=None):
        """Return rows (B, m, *shape) as rows of the input, and their constants (B, m)."""
        negative = rows.clamp(max=0)
        low, high = self.low.unsqueeze(1), self.high.unsqueeze(1)
        if alpha is not None:
            free = self.base.unsqueeze(1) + alpha * self.gain.unsqueeze(1)
            chosen = self.open.unsqueeze(1)
            low = torch.where(chosen & self.convex, free, low)
            high = torch.where(chosen & ~self.convex, free, high)
        constant = dot(negative, self.high_shift)
        if self.low_shift.any():  # not of ReLU, whose lines below go through 0
            constant = constant + dot(rows - negative, self.low_shift)
        # The line below for what is positive, the one above for the rest, in fewer passes.
        return torch.addcmul(rows * low, negative, high - low), constant


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

    def start(self):
        return None

    def pull(self, rows, alpha=None):
        flat = rows.flatten(2)
        decided = self.decided.unsqueeze(1)
        if self.bottom is None:
            linear = torch.where(decided, flat, flat.clamp(min=0))
            constant = dot(flat - linear, self.top)
        else:
            linear = torch.where(decided, flat, 0.0)
            rest = flat - linear
            constant = dot(rest.clamp(min=0), self.bottom) + dot(rest.clamp(max=0), self.top)
        out = flat.new_zeros(*flat.shape[:2], torch.Size(self.input_shape).numel())
        out = out.scatter_add(2, self.member.unsqueeze(1).expand_as(flat), linear)
        return out.view(*flat.shape[:2], *self.input_shape), constant


@singledispatch
def lines_of(node, lower, upper):
    """Return lines below and above a node that is not affine.

    Parameters
    ----------
    node : Node
        Kinds are registered with ``lines_of.register(Kind)``.
    lower, upper : Tensor of shape (B, *shape of the input)
        The interval of its input, on which the lines hold.

    Returns
    -------
    Lines, PoolLines or SmoothLines
        Or anything with their methods.

    Raises
    ------
    UnsupportedModelError
        For a kind that is not registered.
    """
    raise no_rule("bounds.lines_of", node)


@lines_of.register(Relu)
def _relu_lines(node, lower, upper):
    slope = node.slope
    is_open = (lower < 0) & (upper > 0)
    width = torch.where(is_open, upper - lower, 1.0)
    chord = (upper - slope * lower) / width
    shift = upper - chord * upper
    # The better of the two pieces by area, as in the CROWN paper. Of intervals that are symmetric
    # but for rounding, any who compute them choose the same one.
    nearer = torch.where(upper > -TIE * lower, torch.ones_like(upper), slope.expand_as(upper))
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


@lines_of.register(Clamp)
def _clamp_lines(node, lower, upper):
    low, high = node.low, node.high
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


@lines_of.register(MaxPool)
def _pool_lines(node, lower, upper):
    lows, highs = node.windows(lower), node.windows(upper)
    best, place = lows.max(dim=2)
    member = node.members.expand(len(lows), -1, -1).gather(2, place.unsqueeze(2))
    # Entries that are repeated to fill a window are no rivals.
    rivals = highs.masked_fill(node.members == member, -torch.inf)
    return PoolLines(
        member.squeeze(2), best >= rivals.amax(dim=2), highs.amax(dim=2), node.input_shape
    )
