"""Bounds of the slopes of a network, seen from the centers of balls."""

from dataclasses import replace

import torch

from skrobust.balls import Ball
from skrobust.bounds._intervals import Units, _members_of, relax
from skrobust.bounds._lines import Lines
from skrobust.graphs import Clamp, MaxPool

__all__ = ["SlopeUnits", "slope_relaxation", "unit_ball"]


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
