r"""Bounds of the slopes of a network, seen from the centers of balls.

The graph is read as a map of (x - center) / d to (z(x) - z(center)) / d, where d is the
distance. A unit f multiplies its input by the slope of a chord, (f(z) - f(y)) / (z - y), where
y is its input at the center and z any other in the ball.
"""

from dataclasses import dataclass, replace
from functools import singledispatch

import torch

from skrobust.balls import Ball
from skrobust.bounds._intervals import relax
from skrobust.bounds._lines import Lines, PoolLines
from skrobust.bounds._units import Units, members_of
from skrobust.graphs import Clamp, MaxPool, Node, Relu, no_rule

__all__ = ["Chords", "SlopeUnits", "chords_of", "slope_relaxation"]


@dataclass(frozen=True, eq=False)
class Chords:
    """Slopes of the chords of units: each output is its slope times its input.

    Parameters
    ----------
    least, most : Tensor of shape (B, *shape)
        Between which the slope of each unit lies.
    """

    least: torch.Tensor
    most: torch.Tensor

    def needed(self, lower):
        """Return which entries of the input are worth tightening."""
        return self.least < self.most

    def lines(self, lower, upper):
        """Return lines below and above slope * z for z in an interval."""
        least, most = self.least, self.most
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

    def image(self, lower, upper):
        """Return the interval of slope * z for z in an interval."""
        ends = [slope * end for slope in (self.least, self.most) for end in (lower, upper)]
        ends = torch.stack(ends)
        return ends.amin(dim=0), ends.amax(dim=0)


@dataclass(frozen=True, eq=False)
class _PoolChords:
    """The change of a maximum lies between the changes of its entries.

    Parameters
    ----------
    node : MaxPool
    known : PoolLines
        Over the ball: where one entry is always the largest, its change is that of the maximum.
    """

    node: Node
    known: PoolLines

    def needed(self, lower):
        return members_of(self.node, self.known.open, lower)

    def lines(self, lower, upper):
        bottom = self.node.windows(lower).amin(dim=2)
        return replace(self.known, top=self.node.windows(upper).amax(dim=2), bottom=bottom)

    def image(self, lower, upper):
        node, known = self.node, self.known
        chosen = [part.flatten(1).gather(1, known.member) for part in (lower, upper)]
        low = torch.where(known.decided, chosen[0], node.windows(lower).amin(dim=2))
        high = torch.where(known.decided, chosen[1], node.windows(upper).amax(dim=2))
        return low.view(-1, *node.shape), high.view(-1, *node.shape)


@singledispatch
def chords_of(node, known, ball, center):
    r"""Return what is known of the chords of a node, from its input at the centers of balls.

    Parameters
    ----------
    node : Node
        Not affine. Kinds are registered with ``chords_of.register(Kind)``.
    known : Lines or PoolLines
        Lines of the node over the ball.
    ball : pair of Tensor of shape (B, *shape of the input)
        The interval of its input over the ball.
    center : pair of Tensor of shape (B, *shape of the input)
        The interval of its input at the center, as wide as rounding makes it.

    Returns
    -------
    Chords
        Or anything with its methods.

    Raises
    ------
    UnsupportedModelError
        For a kind that is not registered.
    """
    raise no_rule("bounds.chords_of", node)


@chords_of.register(MaxPool)
def _chords_of_pool(node, known, ball, center):
    return _PoolChords(node, known)


@chords_of.register(Clamp)
def _chords_of_clamp(node, known, ball, center):
    lower, upper = ball
    inside = (lower >= node.low) & (upper <= node.high)
    flat = (upper <= node.low) | (lower >= node.high)
    return Chords(inside.to(lower.dtype), (~flat).to(lower.dtype))


@chords_of.register(Relu)
def _chords_of_relu(node, known, ball, center):
    # For convex and for concave f the slope of a chord is monotone in both ends.
    ends = (
        _chord_slope(node.slope, ball[0], center[0], node.slope),
        _chord_slope(node.slope, ball[1], center[1], torch.ones_like(ball[1])),
    )
    slack = 1e-15 * (1 + node.slope.abs())
    least, most = torch.minimum(*ends), torch.maximum(*ends)
    kinked = least < most
    return Chords(least - slack * kinked, most + slack * kinked)


class SlopeUnits(Units):
    """How nodes that are not affine are bounded: as slopes, from the center of a ball.

    Parameters
    ----------
    relaxation : Relaxation
        Over the ball itself.
    """

    homogeneous = True

    def __init__(self, relaxation):
        center = relaxation.ball.center
        point = replace(relaxation.ball, lower=center, upper=center, norm="linf")
        at_center = relax(relaxation.graph, point, refine=False, lines=False)
        self.chords = {}
        for i, known in relaxation.lines.items():
            node = relaxation.graph.nodes[i]
            j = node.inputs[0]
            ends = ((part.lows[j], part.highs[j]) for part in (relaxation, at_center))
            self.chords[i] = chords_of(node, known, *ends)

    def needed(self, i, node, lower, upper):
        return self.chords[i].needed(lower)

    def lines(self, i, node, lower, upper):
        return self.chords[i].lines(lower, upper)

    def image(self, i, node, lower, upper):
        return self.chords[i].image(lower, upper)


def _chord_slope(slope, z, center, at_zero):
    """Return the slope of the chord of a leaky ReLU between z and the center."""
    right = torch.maximum(z, center).clamp(min=0)
    left = torch.minimum(z, center).clamp(max=0)
    width = right - left
    # Without width both lie at the kink, where any slope between the two is one.
    chord = (right - slope * left) / torch.where(width > 0, width, 1.0)
    return torch.where(width > 0, chord, at_zero)


def _unit_ball(ball):
    """Return the directions in which the points of a ball lie, as a ball of radius 1."""
    zero = torch.zeros_like(ball.center)
    one = torch.ones((), dtype=torch.float64, device=zero.device)
    lower = -(ball.lower < ball.center).to(zero.dtype)
    upper = (ball.upper > ball.center).to(zero.dtype)
    return Ball(zero, one, ball.norm, lower, upper)


def slope_relaxation(relaxation, refine=True, watch=None):
    """Relax the slopes of a network, seen from the centers of balls.

    Rows of the result bound (z(x) - z(center)) / d for all x of the ball, where d > 0 is the
    distance of x from the center in the norm of the ball.

    Parameters
    ----------
    relaxation : Relaxation
        Over the ball itself, with lines.
    refine : bool, default=True
        Whether intervals of slopes are tightened backwards.
    watch : Stopwatch, default=None
        When its time is up, they are no longer tightened.

    Returns
    -------
    Relaxation
    """
    units = SlopeUnits(relaxation)
    ball = _unit_ball(relaxation.ball)
    return relax(relaxation.graph, ball, refine=refine, units=units, watch=watch)
