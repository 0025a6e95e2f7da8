"""What the checker of evidence knows of smooth units; it needs NumPy alone.

Of a function f it knows where it is convex and where concave, and how to enclose f and its slope
at a point. A line of any slope s lies below f on [low, high] if its constant is at most all of
f(z) - s z. Where f is concave these are least at an end. Where it is convex, a tangent at any
point q lies below: f(z) - s z >= f(q) - s q + (f'(q) - s) (z - q), which again is least at an
end. Lines above f are lines below -f. So the choice of slopes and of points q makes lines good or
bad, but not wrong, and no care is taken with it.

Floats: each function is within 32 UNIT growth (1 + |z|) of the value that is computed here, and
its slope within 32 UNIT growth, since exp, expm1, log1p and tanh of NumPy and erf of the C
library are off by at most 4 units in the last place, 8 UNIT, by their own documents. Exact: both
are enclosed by whole numbers (`_enclosures.py`). Places where convexity changes are floats; f''
is so close to 0 between such a place and the true one that it changes f by less than 1e-40.
"""

import itertools
import math
from fractions import Fraction
from types import SimpleNamespace as Space

import numpy as np

if __package__:
    from skrobust.evidence import _enclosures as exact
    from skrobust.evidence import _rules as rules
    from skrobust.evidence._rules import LARGEST, TINY, UNIT, Relu, integers, need, numbers
else:  # run as a file
    import _enclosures as exact
    import _rules as rules
    from _rules import LARGEST, TINY, UNIT, Relu, integers, need, numbers

_STEPS, _FARTHEST = 18, 40.0  # of the search for tangents, as of those who write proofs
_BENT = 1e-9  # what lines could gain where a unit is no more bent


class Smooth(Relu):
    """A function of each entry; two points of a proof for each choose the lines."""

    n_free = 2
    parameters, bends, convex_first = (), (), True
    growth = 1.0  # f lies between -+ growth (1 + |z|), and its slope between -+ growth
    range = -np.inf, np.inf
    place = 0.0  # where a function that falls and rises may be least

    def __init__(self, arrays, sizes, lift):
        self.size, self.is_exact = sizes[0], lift is integers
        for name in self.parameters:
            value = float(numbers(arrays, name, ()))
            need(value > 0 or (name == "alpha" and value == 0), f"{name} is {value}")
            setattr(self, name, value)
        need(self.growth < LARGEST, f"a smooth unit grows by {self.growth}")

    def pieces(self, convex):
        """Return the intervals on which f is convex, or concave."""
        borders = (-np.inf, *self.bends, np.inf)
        return list(itertools.pairwise(borders))[int(self.convex_first != convex) :: 2]

    def drop(self, high):
        """Return how far f may lie below what `value` computes, up to a point."""
        return 0.0

    def enclosed(self, sign, z):
        """Return bounds of sign * f at points, below, and of its slope, below and above."""
        if self.is_exact:
            points, place = np.unique(z, return_inverse=True)
            spans = [self.spans(exact.Span.of(point)) for point in points]
            ends = np.array([[*value.floats(), *slope.floats()] for value, slope in spans])
            ends = ends[place.reshape(z.shape)]
            low, high, least, most = (ends[..., k] for k in range(4))
        else:
            value, slope = self.value(z), self.slope(z)
            error = 32 * UNIT * self.growth
            low, high = value - error * (1 + np.abs(z)), value + error * (1 + np.abs(z))
            least, most = slope - error, slope + error
        return (low, least, most) if sign > 0 else (-high, -most, -least)

    def rest(self, sign, slope, low, high, points):
        """Return a lower bound of sign * f(z) - slope * z on intervals.

        `points` has one for each piece on which sign * f is convex: any will do.
        """
        largest = np.maximum(-low, high)
        least = np.minimum(*(self.enclosed(sign, z)[0] - slope * z for z in (low, high)))
        for (start, end), point in zip(self.pieces(sign > 0), points, strict=True):
            left, right = np.clip(low, start, end), np.clip(high, start, end)
            best = np.full_like(least, -np.inf)
            for q in (left, right, np.clip(point, left, right)):
                value, fall, rise = self.enclosed(sign, q)
                to_left = np.maximum(rise - slope, 0) * (q - left)
                to_right = np.maximum(slope - fall, 0) * (right - q)
                bound = value - slope * q - np.maximum(to_left, to_right)
                best = np.maximum(best, bound)
            is_met = (low < end) & (high > start)
            least = np.where(is_met, np.minimum(least, best), least)
        # All numbers are at most 4 growth (1 + |z|) in size: six roundings, and as much again.
        least = least - 48 * UNIT * self.growth * (1 + largest) - TINY
        return least - self.drop(high) if sign > 0 else least

    def line(self, sign, low, high, points=None):
        """Return slope and constant of lines below f (sign 1) or above it (-1)."""
        slope, between = self.choice(sign, low, high)
        if points is not None:  # tangents at points, where there are any
            is_given = np.isfinite(points)
            points = np.clip(np.where(is_given, points, 0.0), low, high)
            slope = np.where(is_given, sign * self.slope(points), slope)
            between = [np.where(is_given, points, other) for other in between]
        slope = np.clip(slope, -self.growth, self.growth)
        return sign * slope, sign * self.rest(sign, slope, low, high, between)

    def lines(self, low, high):
        lines = Space(first=low, last=high)
        lines.low, lines.low_at = self.line(1.0, low, high)
        lines.high, lines.high_at = self.line(-1.0, low, high)
        return lines

    def pull(self, rows, lines, alpha, lift):
        if alpha is not None:
            low, high = np.split(alpha, 2, axis=1)
            lines.low, lines.low_at = self.line(1.0, lines.first, lines.last, low)
            lines.high, lines.high_at = self.line(-1.0, lines.first, lines.last, high)
        return super().pull(rows, lines, None, lift)

    def image(self, low, high):
        level, largest = np.zeros_like(low), np.maximum(-low, high)
        sides = []
        for sign in (1.0, -1.0):
            points = [np.clip(self.place, low, high)] * len(self.pieces(sign > 0))
            rest = sign * self.rest(sign, level, low, high, points)
            sides.append(np.clip(rest, *self.range))
        return *sides, 8 * self.growth * (1 + largest)

    def chords(self, low, high, at_low, at_high):
        """Return between which the slopes of chords to the center lie; see `Relu.chords`.

        Each is the slope of f itself at a point between (the mean value theorem), and that is
        least and largest at ends or where convexity changes.
        """
        left, right = np.minimum(low, at_low), np.maximum(high, at_high)
        points = np.stack([left, right, *(np.clip(bend, left, right) for bend in self.bends)])
        _, least, most = self.enclosed(1.0, points)
        return least.min(axis=0), most.max(axis=0)

    def wanted(self, low, high):
        ends = [self.slope(low), self.slope(high)]
        for bend in self.bends:
            is_inside = (low < bend) & (bend < high)
            ends.append(np.where(is_inside, self.slope(np.full_like(low, bend)), ends[0]))
        return (np.max(ends, axis=0) - np.min(ends, axis=0)) * (high - low) > _BENT

    # The rule for lines: a tangent near the middle that lies below sign * f on the interval; a
    # parallel to the chord where there is none, or where there are several convex pieces.

    def choice(self, sign, low, high):
        """Return slopes of lines, and a point in each convex piece where it is near sign * f."""
        first, last, between = low, high, []
        is_free, count = np.zeros(low.shape, dtype=bool), np.zeros(low.shape)
        for start, end in self.pieces(sign > 0):
            left, right = np.clip(low, start, end), np.clip(high, start, end)
            is_met = (low < end) & (high > start)
            is_met |= (low == high) & (start <= low) & (low <= end)
            begin, begins = self.touching(sign, low, right, left)
            stop, stops = self.touching(sign, high, left, right)
            first, last = np.where(is_met, begin, first), np.where(is_met, stop, last)
            is_free = np.where(is_met, begins & stops & (begin <= stop), is_free)
            between.append(begin / 2 + stop / 2)
            count += is_met
        is_free &= count == 1
        middle = np.clip(low / 2 + high / 2, first, np.maximum(first, last))
        width = high - low
        is_long = width > 2 ** (-52 / 3) * (1 + np.abs(high))
        chord = (self.value(high) - self.value(low)) / np.where(is_long, width, 1.0)
        chord = np.where(is_long, chord, self.slope(low / 2 + high / 2))
        slope = sign * np.where(is_free, self.slope(middle), chord)
        return slope, [np.where(is_free, middle, point) for point in between]

    def touching(self, sign, end, safe, wanted):
        """Return the point nearest to `wanted` whose tangent is not above sign * f at an end.

        Tangents at points from `safe` to `wanted` rise at the end. Also, whether there is one.
        """

        def fits(point, end):
            rise = self.value(point) + self.slope(point) * (end - point) - self.value(end)
            return sign * rise <= 0

        is_whole = (wanted == end) | fits(wanted, end)
        exists = is_whole | fits(safe, end)
        point, at = wanted.copy(), np.nonzero(exists & ~is_whole)
        if len(at[0]):
            end, good, bad = end[at], safe[at], wanted[at]
            lowest, highest = np.minimum(good, bad), np.maximum(good, bad)
            good, bad = (np.clip(z, -_FARTHEST, _FARTHEST) for z in (good, bad))
            for _ in range(_STEPS):
                middle = (good + bad) / 2
                is_good = fits(middle, end)
                good, bad = np.where(is_good, middle, good), np.where(is_good, bad, middle)
            point[at] = np.clip(good, lowest, highest)
        return point, exists


def _erf(z):
    return np.frompyfunc(math.erf, 1, 1)(z).astype(np.float64)


class Tanh(Smooth):
    bends, range = (0.0,), (-1.0, 1.0)
    spans = staticmethod(exact.tanh)

    def value(self, z):
        return np.tanh(z)

    def slope(self, z):
        small = np.exp(-2 * np.abs(z))
        return 4 * small / (1 + small) ** 2


class Sigmoid(Smooth):
    bends, range = (0.0,), (0.0, 1.0)
    spans = staticmethod(exact.sigmoid)

    def value(self, z):
        small = np.exp(-np.abs(z))
        return np.where(z < 0, small, 1.0) / (1 + small)

    def slope(self, z):
        small = np.exp(-np.abs(z))
        return small / (1 + small) ** 2


class Erf(Smooth):
    bends, range, growth = (0.0,), (-1.0, 1.0), 2.0
    spans = staticmethod(exact.error_function)

    def value(self, z):
        return _erf(z)

    def slope(self, z):
        return np.exp(-z * z) * (2 / math.sqrt(math.pi))


class Gelu(Smooth):
    bends, convex_first, growth = (-math.sqrt(2), math.sqrt(2)), False, 2.0
    place = -0.7517915246935645
    spans = staticmethod(exact.gelu)

    def value(self, z):
        return z / 2 * (1 + _erf(z / math.sqrt(2)))

    def slope(self, z):
        density = np.exp(-z * z / 2) / math.sqrt(2 * math.pi)
        return (1 + _erf(z / math.sqrt(2))) / 2 + z * density


class GeluByTanh(Smooth):
    bends, convex_first, growth = (-1.4185040087908284, 1.4185040087908284), False, 2.0
    place = -0.7524614220710163
    scale, cubic = math.sqrt(2 / math.pi), 0.044715

    def spans(self, z):
        return exact.gelu_by_tanh(z, self.scale, self.cubic)

    def inner(self, z):
        z = np.clip(z, -1e3, 1e3)  # where tanh is -+1 already
        return self.scale * (z + self.cubic * z**3), self.scale * (1 + 3 * self.cubic * z * z)

    def value(self, z):
        return z / 2 * (1 + np.tanh(self.inner(z)[0]))

    def slope(self, z):
        inner, steep = self.inner(z)
        small = np.exp(-2 * np.abs(inner))
        return (1 + np.tanh(inner)) / 2 + 2 * z * small / (1 + small) ** 2 * steep


class Silu(Smooth):
    bends, convex_first, growth = (-2.3993572805154677, 2.3993572805154677), False, 2.0
    place = -1.2784645427610738
    spans = staticmethod(exact.silu)

    def value(self, z):
        return z * Sigmoid.value(self, z)

    def slope(self, z):
        return Sigmoid.value(self, z) + z * Sigmoid.slope(self, z)


class Softplus(Smooth):
    """log(1 + exp(beta z)) / beta; but z itself where beta z is above a threshold."""

    parameters, range = ("beta", "threshold"), (0.0, np.inf)

    @property
    def growth(self):
        return max(1.0, 1 / self.beta)

    def spans(self, z):
        return exact.softplus(z, self.beta)

    def value(self, z):
        scaled = self.beta * z
        return (np.maximum(scaled, 0) + np.log1p(np.exp(-np.abs(scaled)))) / self.beta

    def slope(self, z):
        return Sigmoid.value(self, self.beta * z)

    def rest(self, sign, slope, low, high, points):
        least = super().rest(sign, slope, low, high, points)
        ends = (sign - slope) * np.stack([low, high])
        linear = (ends - 8 * UNIT * (1 + self.growth) * np.abs([low, high])).min(axis=0) - TINY
        return np.where(self.beta * low > self.threshold * (1 + 1e-14), linear, least)

    def chords(self, low, high, at_low, at_high):
        left, right = self.beta * np.minimum(low, at_low), self.beta * np.maximum(high, at_high)
        is_linear = left > self.threshold * (1 + 1e-14)
        # Where it jumps down, chords are as steep as one likes.
        jumps = ~is_linear & (right > self.threshold * (1 - 1e-14))
        need(not jumps.any(), "softplus jumps at its threshold: slopes of chords have no bound")
        return [np.where(is_linear, 1.0, s) for s in super().chords(low, high, at_low, at_high)]

    def drop(self, high):
        jump = math.log1p(math.exp(-self.threshold)) / self.beta * (1 + 1e-14)
        return np.where(self.beta * high > self.threshold * (1 - 1e-14), jump, 0.0)


class Elu(Smooth):
    """scale z where z > 0, else scale alpha (exp(rate z) - 1)."""

    parameters = ("alpha", "scale", "rate")

    @property
    def bends(self):
        # The slope falls at 0 from scale alpha rate to scale.
        return (0.0,) if Fraction(self.alpha) * Fraction(self.rate) > 1 else ()

    @property
    def growth(self):
        return self.scale * max(1.0, self.alpha, self.alpha * self.rate)

    def spans(self, z):
        return exact.elu(z, self.alpha, self.scale, self.rate)

    def value(self, z):
        below = self.alpha * np.expm1(self.rate * np.minimum(z, 0))
        return self.scale * np.where(z > 0, z, below)

    def slope(self, z):
        below = self.alpha * self.rate * np.exp(self.rate * np.minimum(z, 0))
        return self.scale * np.where(z > 0, 1.0, below)


KINDS = rules.KINDS | {
    "tanh": Tanh, "sigmoid": Sigmoid, "erf": Erf, "gelu": Gelu, "gelu_tanh": GeluByTanh,
    "silu": Silu, "softplus": Softplus, "elu": Elu,
}  # fmt: skip
