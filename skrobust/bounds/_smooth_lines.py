r"""Lines below and above smooth units, on an interval of their input.

The best lines below f on [l, u] are those of its convex envelope: tangents of f where the
envelope touches it, and chords that bridge the rest. Which one is free, and is chosen by gradient
steps as the slopes of ReLUs are.

Tangent points are found by bisection, but no proof rests on that. For any slope s, a line of that
slope lies below f if its constant is at most the minimum of g(z) = f(z) - s z on [l, u]. Where f
is concave, g is least at an end; where it is convex, g lies above its own tangent at any point p,
g(z) >= g(p) + g'(p) (z - p). The constant is the least of these few numbers, moved down by what
rounding can do. For lines above f, the same is done with -f.

References
----------
Zhang et al., "Efficient neural network robustness certification with general activation
functions", NeurIPS 2018 (tangents). Shi et al., "Neural network verification with
branch-and-bound for general nonlinearities", TACAS 2025 (tangent points as free numbers).
"""

from dataclasses import dataclass

import torch

from skrobust.bounds._rounding import dot
from skrobust.graphs import Node

__all__ = ["SmoothLines", "smooth_lines", "steepness", "trust"]

_FAR = 1e100  # beyond it products would overflow: lines are level there
_BISECTIONS = 18
_REACH = 40.0  # tangent points are looked for between -+ this


@dataclass(frozen=True, eq=False)
class SmoothLines:
    """For each unit a line below it and one above it, on the interval of its input.

    Parameters
    ----------
    below, above : _Side
    open : bool Tensor of shape (B, *shape)
        Which units are not linear on their interval.
    """

    below: object
    above: object
    open: torch.Tensor

    def __len__(self):
        return len(self.open)

    def __getitem__(self, index):
        return SmoothLines(self.below[index], self.above[index], self.open[index])

    def start(self):
        """Return the free numbers that the lines now have, of shape (B, *shape), or None."""
        return torch.full_like(self.below.slope, 0.5) if self.open.any() else None

    def pull(self, rows, alpha=None):
        """Return rows (B, m, *shape) as rows of the input, and their constants (B, m)."""
        positive, negative = rows.clamp(min=0), rows.clamp(max=0)
        if alpha is None:
            constant = dot(positive, self.below.shift) + dot(negative, self.above.shift)
            return positive * self.low + negative * self.high, constant
        low, low_shift = self.below.line(alpha)
        high, high_shift = self.above.line(alpha)
        constant = (positive * low_shift + negative * high_shift).flatten(2).sum(dim=2)
        return positive * low + negative * high, constant

    def points(self, alpha):
        """Return the points whose tangents are the lines for free numbers (B, m, *shape).

        Returns
        -------
        Tensor of shape (B, m, 2, *shape)
            Those of the lines below, and above; infinite where a line is no tangent.
        """
        sides = [side.point(alpha) for side in (self.below, self.above)]
        return torch.stack([point.masked_fill(~is_free, torch.inf) for point, is_free in sides], 2)

    def cost(self, rows):
        """Return how much rows (B, m, *shape) may lose by the lines, of shape (B, *shape)."""
        weights = rows.clamp(min=0).sum(dim=1), -rows.clamp(max=0).sum(dim=1)
        below, above = self.below, self.above
        return _looseness(below.node, below, above, below.lower, below.upper, weights)

    def best_cut(self, rows, index, unit):
        """Return where to cut the interval of one unit in each of some balls, of shape (k,).

        Parameters
        ----------
        rows : Tensor of shape (k, m, *shape)
        index, unit : int Tensor of shape (k,)
            The balls and the entries of the units.
        """
        node = self.below.node
        lower, upper = (
            end.flatten(1)[index, unit].unsqueeze(1)
            for end in (self.below.lower, self.below.upper)
        )
        places = torch.arange(len(index), device=index.device)
        here = rows.flatten(2)[places, :, unit]
        weights = [
            part.sum(dim=1, keepdim=True) for part in (here.clamp(min=0), -here.clamp(max=0))
        ]
        middle = (lower + upper) / 2
        best, least = middle, torch.full_like(middle, torch.inf)
        for bend in (None, *node.bends):
            # Near an end a cut would gain nothing.
            cut = middle if bend is None else torch.full_like(middle, bend)
            is_inside = (cut - lower > (upper - lower) / 8) & (upper - cut > (upper - lower) / 8)
            cut = torch.where(is_inside, cut, middle)
            halves = []
            for ends in ((lower, cut), (cut, upper)):
                sides = [_side(node, sign, *ends) for sign in (1.0, -1.0)]
                halves.append(_looseness(node, *sides, *ends, weights))
            worst = torch.maximum(*halves)
            best = torch.where(worst < least, cut, best)
            least = torch.minimum(worst, least)
        return best.squeeze(1)

    @property
    def low(self):
        return self.below.slope.unsqueeze(1)

    @property
    def high(self):
        return self.above.slope.unsqueeze(1)


@dataclass(frozen=True, eq=False)
class _Side:
    """Lines on one side of a node.

    Parameters
    ----------
    node : Smooth
    sign : float
        1 for lines below the function f, -1 for those above; F is sign * f.
    lower, upper : Tensor of shape (B, *shape)
    first, middle, last : Tensor of shape (B, *shape)
        Tangents of F at points from the first to the last lie below it on the interval.
    is_free : bool Tensor of shape (B, *shape)
        Whether there are such points.
    margin : Tensor of shape (B, *shape)
        What lines are moved away from the function by, for rounding.
    slope, shift : Tensor of shape (B, *shape)
        The line of f that is taken without a choice: the tangent at the middle one, or a chord.
    """

    node: Node
    sign: float
    lower: torch.Tensor
    upper: torch.Tensor
    first: torch.Tensor
    middle: torch.Tensor
    last: torch.Tensor
    is_free: torch.Tensor
    margin: torch.Tensor
    slope: torch.Tensor
    shift: torch.Tensor

    _PARTS = (
        "lower", "upper", "first", "middle", "last", "is_free", "margin", "slope", "shift",
    )  # fmt: skip

    def __getitem__(self, index):
        return _Side(
            self.node, self.sign, **{name: getattr(self, name)[index] for name in self._PARTS}
        )

    def line(self, alpha):
        """Return slope and shift, of shape (B, m, *shape), for free numbers of that shape."""
        names = ("lower", "upper", "margin", "slope", "shift")
        lower, upper, margin, slope, shift = (getattr(self, name).unsqueeze(1) for name in names)
        point, is_free = self.point(alpha)
        free, free_shift = _tangent(self.node, self.sign, point, lower, upper, margin)
        return torch.where(is_free, free, slope), torch.where(is_free, free_shift, shift)

    def point(self, alpha):
        """Return where tangents touch for free numbers (B, m, *shape), and which are lines."""
        names = ("first", "middle", "last", "is_free")
        first, middle, last, is_free = (getattr(self, name).unsqueeze(1) for name in names)
        # At the start, where both have no part, the gradient tells which way is better.
        side = torch.where(alpha > 0.5, last - middle, middle - first)
        side = torch.where(alpha == 0.5, (last - first) / 2, side)
        # Beyond a kink the tangent would be another one: rounding must not lead there.
        return (middle + (2 * alpha - 1) * side).clamp(first, last), is_free


def _tangent(node, sign, point, lower, upper, margin):
    """Return slope and shift of a line of f that is parallel to its tangent at a point.

    The interval has one convex piece of sign * f, in which the point lies.
    """
    slope = sign * node.slope(point)
    rests = [sign * node.value(z) - slope * z for z in (point, lower, upper)]
    rest = torch.minimum(torch.minimum(*rests[:2]), rests[2])
    return sign * slope, sign * (rest - margin)


def _looseness(node, below, above, lower, upper, weights):
    """Return the mean distance of the lines from a node at three points, by weights of both."""
    total = torch.zeros_like(lower)
    for z in (lower, (lower + upper) / 2, upper):
        value = node.value(z)
        total = total + weights[0] * (value - below.slope * z - below.shift)
        total = total + weights[1] * (above.slope * z + above.shift - value)
    return total / 3


def trust(node, lower, upper):
    """Bound what rounding can do to a value, a slope times a width, and a sum of these."""
    unit = torch.finfo(lower.dtype).eps / 2
    return 256 * unit * node.growth * (1 + torch.maximum(-lower, upper).clamp(min=0))


def steepness(node, lower, upper):
    """Return an interval of the slopes of a node on intervals of its input."""
    slopes = [node.slope(lower), node.slope(upper)]
    for bend in node.bends:
        # A slope is largest or least at an end, or where convexity changes.
        at = node.slope(lower.new_full((), bend))
        is_inside = (lower < bend) & (bend < upper)
        slopes.append(torch.where(is_inside, at, slopes[0]))
    slopes = torch.stack(slopes)
    slack = 128 * torch.finfo(lower.dtype).eps / 2 * node.growth
    return slopes.amin(dim=0) - slack, slopes.amax(dim=0) + slack


def smooth_lines(node, lower, upper, is_open):
    """Return the lines of a node on intervals.

    Parameters
    ----------
    node : Smooth
    lower, upper : Tensor of shape (B, *shape)
    is_open : bool Tensor of shape (B, *shape)

    Returns
    -------
    SmoothLines
    """
    is_far = ~((lower > -_FAR) & (upper < _FAR))
    inner = [torch.where(is_far, 0.0, end) for end in (lower, upper)]
    sides = []
    for sign in (1.0, -1.0):
        side = _side(node, sign, *inner)
        if is_far.any():
            side = _level(side, is_far, lower, upper)
        sides.append(side)
    return SmoothLines(*sides, is_open & ~is_far)


def _level(side, is_far, lower, upper):
    """Replace lines on intervals that are too long for products by level ones."""
    node = side.node
    limit = node.range[0] if side.sign > 0 else node.range[1]
    if side.sign > 0 and node.lowest is not None:
        limit = node.lowest[1] - 1e-15
    level = torch.full_like(side.shift, limit) - side.sign * node.drop(upper)
    return _replaced(side, is_far, level)


def _replaced(side, where, level):
    fields = {name: getattr(side, name) for name in side._PARTS}
    fields["is_free"] = side.is_free & ~where
    fields["slope"] = torch.where(where, 0.0, side.slope)
    fields["shift"] = torch.where(where, level, side.shift)
    return _Side(side.node, side.sign, **fields)


def _side(node, sign, lower, upper):
    margin = trust(node, lower, upper)
    if sign > 0:
        margin = margin + node.drop(upper)
    with torch.no_grad():
        first, last, is_free, pieces = _tangent_points(node, sign, lower, upper)
        middle = ((lower + upper) / 2).clamp(first, last)
    slope, shift = _tangent(node, sign, middle, lower, upper, margin)
    chord, chord_shift = _chord(node, sign, lower, upper, margin, pieces)
    return _Side(
        node, sign, lower, upper, first, middle, last, is_free, margin,
        torch.where(is_free, slope, chord),
        torch.where(is_free, shift, chord_shift),
    )  # fmt: skip


def _tangent_points(node, sign, lower, upper):
    """Return the first and the last point whose tangents lie below, whether there are any.

    Also, for each convex piece of sign * f, its part of the interval and a point in it.
    """
    pieces, count = [], torch.zeros_like(lower, dtype=torch.int)
    first, last = lower, upper
    is_free = torch.zeros_like(lower, dtype=torch.bool)
    for low, high in node.pieces(sign > 0):
        left, right = lower.clamp(low, high), upper.clamp(low, high)
        is_met = (lower < high) & (upper > low) | (lower == upper) & (low <= lower) & (
            lower <= high
        )
        # The further right, the lower is the tangent at the left end; and the other way round.
        begin, begins = _touching(node, sign, lower, right, left)
        end, ends = _touching(node, sign, upper, left, right)
        ordered = begins & ends & (begin <= end)
        pieces.append((left, right, is_met, ((begin + end) / 2).clamp(left, right)))
        count = count + is_met
        first, last = torch.where(is_met, begin, first), torch.where(is_met, end, last)
        is_free = torch.where(is_met, ordered, is_free)
    # Where the interval meets several convex pieces, a tangent of one may cross the other.
    is_free = is_free & (count == 1)
    last = torch.maximum(first, last)
    return first, last, is_free, pieces


def _touching(node, sign, end, safe, wanted):
    """Return the point nearest to `wanted` whose tangent lies below sign * f at an end.

    Tangents at points from `safe` to `wanted` rise at the end. Also, whether there is one.
    """
    target = sign * node.value(end)

    def excess(point, end, target):
        """Return how far the tangent at a point is above the function at the end."""
        slope = sign * node.slope(point)
        return sign * node.value(point) + slope * (end - point) - target

    at_wanted, at_safe = excess(wanted, end, target), excess(safe, end, target)
    is_whole = (wanted == end) | (at_wanted <= 0)
    exists = is_whole | (at_safe <= 0)
    point = wanted.clone()
    # What is left is a root in between, for some of the units.
    chosen = exists & ~is_whole
    if chosen.any():
        parts = (part[chosen] for part in (end, target, safe, wanted))
        point[chosen] = _root(excess, *parts)
    return point, exists


def _root(excess, end, target, good, bad):
    """Return points near the root of what rises from `good` to `bad`, on the side of `good`."""
    low, high = torch.minimum(good, bad), torch.maximum(good, bad)
    good, bad = good.clamp(-_REACH, _REACH), bad.clamp(-_REACH, _REACH)
    for _ in range(_BISECTIONS):
        point = (good + bad) / 2
        fits = excess(point, end, target) <= 0
        good, bad = torch.where(fits, point, good), torch.where(fits, bad, point)
    return torch.minimum(torch.maximum(good, low), high)


def _chord(node, sign, lower, upper, margin, pieces):
    """Return slope and shift of a line of f that is parallel to the chord of the interval."""
    ends = sign * node.value(lower), sign * node.value(upper)
    width = upper - lower
    # Any slope is right; that of a short chord is lost in rounding.
    is_long = width > torch.finfo(lower.dtype).eps ** (1 / 3) * (1 + upper.abs())
    chord = (ends[1] - ends[0]) / torch.where(is_long, width, 1.0)
    slope = torch.where(is_long, chord, sign * node.slope((lower + upper) / 2))
    rest = torch.minimum(ends[0] - slope * lower, ends[1] - slope * upper)
    for left, right, is_met, between in pieces:
        least = torch.full_like(rest, -torch.inf)
        for point in (left, right, between):
            value = sign * node.value(point) - slope * point
            rise = sign * node.slope(point) - slope
            fall = rise.clamp(min=0) * (point - left) - rise.clamp(max=0) * (right - point)
            least = torch.maximum(least, value - fall)
        rest = torch.where(is_met, torch.minimum(rest, least), rest)
    return sign * slope, sign * (rest - margin)
