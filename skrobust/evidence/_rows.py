"""What the checker of evidence knows of claims: rows, clauses, and the distance from the center.

A row is A z + b + c d, with d the distance of x from the center in the norm of the ball; one that
is anchored is A (z(x) - z(center)) + c d. Of a clause, one row must be at least 0 (above 0 where
strict); or, where it has a limit, sum exp(-row) over its rows must be at most that.

In rows with d, for any vector v, v . (x - center) >= -|v| d, where |v| is its dual norm. So

    a . x + c d >= (a - v) . x + v . center + (c - |v|) d,    near <= d <= far,

of which the last term is least at an end. Next to the center, where such rows come down to 0, they
are bounded by slopes: (z(x) - z(center)) / d is what the network makes of (x - center) / d without
its constants, if each unit is a product with the slope of a chord, of which an interval is known.
"""

import math
from copy import copy
from decimal import Context, Decimal
from fractions import Fraction
from types import SimpleNamespace as Space

import numpy as np

# isort: off
if __package__:
    from skrobust.evidence._distance_rules import Distance
    from skrobust.evidence._rules import (
        TINY, UNIT, Affine, Pool, Relu, add, floats, need, numbers, rounded_down,
    )  # fmt: skip
else:  # run as a file
    from _distance_rules import Distance
    from _rules import (
        TINY, UNIT, Affine, Pool, Relu, add, floats, need, numbers, rounded_down,
    )  # fmt: skip
# isort: on

_EXACT = Context(prec=50)
_ULPS = 64 * UNIT  # what exp of NumPy errs by, relatively, and much more


class Rows:
    """The rows that a file claims, as a node behind the outputs, and what proves clauses.

    `mixtures` are rows, too: sums of rows of one clause with weights of at least 0, which are
    above 0 only where one of these is.
    """

    def __init__(self, arrays, n_outputs):
        self.A = numbers(arrays, "A", (None, n_outputs))
        self.count, flags = len(self.A), {}
        arrays = {"anchored": np.zeros(self.count)} | arrays
        for name, below in (("strict", 2), ("anchored", 2), ("clause", max(1, self.count))):
            flags[name] = numbers(arrays, name, (self.count,), below=below)
        self.strict, self.anchored, self.clause = flags.values()
        self.b = numbers(arrays, "b", (self.count,))
        self.distance = self._optional(arrays, "distance", self.count)
        need(self.count, "it has no rows")
        self.n_clauses = int(self.clause.max()) + 1
        need(set(self.clause) == set(range(self.n_clauses)), "a clause has no rows")
        self.limit = self._optional(arrays, "limit", self.n_clauses)
        need((self.limit >= 0).all(), "a limit is below 0")
        need(not (self.anchored * self.b).any(), "an anchored row has a constant")
        self.of_clause = [np.flatnonzero(self.clause == k) for k in range(self.n_clauses)]

    @staticmethod
    def _optional(arrays, name, count):
        return numbers(arrays, name, (count,)) if name in arrays else np.zeros(count)

    def node(self, anchors, last, lift):
        """Return the rows as an affine node; `anchors` are bounds of -A z(center)."""
        bias = np.where(self.anchored > 0, anchors, self.b)
        node = Affine({"weight": self.A, "bias": bias}, [self.A.shape[1]], lift)
        node.inputs = [last]
        return node

    def mixed(self, arrays):
        """Return weights of rows and of mixtures: one a row, their clauses, and who is strict."""
        own = np.eye(self.count)
        if "mixtures" not in arrays:
            return own, self.clause, self.strict
        more = numbers(arrays, "mixtures", (None, self.count))
        first = (more > 0).argmax(axis=1)
        clause = self.clause[first]
        is_mixture = (more >= 0).all(axis=1) & (more[np.arange(len(more)), first] > 0)
        is_mixture &= ((more == 0) | (self.clause == clause[:, None])).all(axis=1)
        need(is_mixture.all() and not self.limit[clause].any(), "a mixture is none of a clause")
        strict = ((more > 0) & (self.strict > 0)).any(axis=1)
        parts = (own, more), (self.clause, clause), (self.strict, strict)
        return tuple(np.concatenate(part) for part in parts)

    def distances(self, weights):
        """Return what rows with weights have of the distance, rounded down; None where nothing."""
        if not self.distance.any():
            return None
        total, size = weights @ self.distance, weights @ np.abs(self.distance)
        is_single = (weights == 1).sum(axis=1) == (weights != 0).sum(axis=1)
        is_single &= (weights != 0).sum(axis=1) == 1
        return np.where(is_single, total, total - 4 * UNIT * (self.count + 2) * size)

    def moved(self, values, ends):
        """Return numbers above values and what rows have of a distance between two ends."""
        with np.errstate(over="ignore"):
            terms = np.maximum(self.distance * ends[0], self.distance * ends[1])
            total = np.nextafter(values + np.nextafter(terms, np.inf), np.inf)
        return np.where(self.distance != 0, total, values)

    def within(self, k, values, is_exact):
        """Return whether rows of at least these values prove the clause k, which has a limit."""
        return _exponentials(-values, is_exact, 1) <= self.limit[k]

    def broken(self, values, is_exact):
        """Return whether some clause is broken where rows are at most these values."""
        falls = np.where(self.strict > 0, values <= 0, values < 0)
        return any(
            _exponentials(-values[own], is_exact, -1) > limit if limit else falls[own].all()
            for own, limit in zip(self.of_clause, self.limit, strict=True)
        )


def _exponentials(values, is_exact, side):
    """Return a bound of the sum of exponentials: above it for a side of 1, below for -1."""
    if not is_exact:
        with np.errstate(over="ignore"):
            total = float(np.exp(values).sum())
        return total * (1 + side * _ULPS * (len(values) + 2)) + max(side, 0) * TINY
    if not (values < 1000).all():  # NaN and infinity bound nothing
        return math.inf if side > 0 else 0
    # Decimal rounds correctly: by less than 1e-49 of the value.
    total = sum(Fraction(Decimal(float(v)).exp(_EXACT)) for v in values if v > -1000)
    small = int((values <= -1000).sum()) * Fraction(1, 10**400) if side > 0 else 0
    return total * (1 + side * Fraction(1, 10**40)) + small


# -- the distance --


def farthest(ball):
    """Return a number that no point of a ball is farther from the center than."""
    reach = np.maximum(ball.upper - ball.center, ball.center - ball.lower)
    if ball.norm == "linf":
        return np.nextafter(reach.max(), np.inf)
    length = math.hypot(*reach) * (1 + 8 * UNIT)  # which scales: no square underflows
    return min(length, ball.epsilon.max() * (1 + 8 * UNIT)) + TINY


def shell(ball, near, far):
    """Return the part of a ball at distances between two radii."""
    part = copy(ball)
    part.near, part.far = near, min(far, farthest(ball))
    if far < part.far or far < farthest(ball):
        low, high = (np.nextafter(ball.center + s * far, s * np.inf) for s in (-1, 1))
        part.lower = np.maximum(ball.lower, np.minimum(low, ball.center))
        part.upper = np.minimum(ball.upper, np.maximum(high, ball.center))
    return part


def center_of(ball):
    """Return the center alone, as a box."""
    part = copy(ball)
    part.norm, part.lower, part.upper, part.near, part.far = "linf", ball.center, ball.center, 0, 0
    return part


def distance_of(ball, point):
    """Return numbers below and above the distance of a point from the center."""
    moves = [abs(Fraction(a) - Fraction(b)) for a, b in zip(point, ball.center, strict=True)]
    near = float(max(moves)) if ball.norm == "linf" else math.hypot(*map(float, moves))
    return max(0.0, near * (1 - 4 * UNIT) - TINY), near * (1 + 4 * UNIT) + TINY


def least(ball, rows, constant, low, high, lift, distance=None):
    """Return lower bounds of rows + constant + distance * d over boxes, and what they err by."""
    if distance is None:
        values, slack = ball.minimum(rows, low, high, lift)
        return rounded_down(add(constant, values)), slack
    best, near, far = None, ball.near, ball.far
    for tilt in _tilts(ball, rows, low, high, distance):
        rest, (part, k) = add(rows, lift(-tilt)), lift(tilt)
        center, i = lift(ball.center)
        values, slack = ball.minimum(rest, low, high, lift)
        values = add(add(constant, values), ((part * center).sum(axis=1), k + i))
        if ball.norm == "linf":
            length = np.abs(part).sum(axis=1), k
        else:
            length = _lengths(part) * (1 + 4 * UNIT * (part.shape[1] + 8)), 0
        free, j = add(lift(distance), (-length[0], length[1]))
        radii = [lift(np.array([radius])) for radius in (near, far)]
        ends = [add(values, (free * radius, j + k)) for radius, k in radii]
        values = np.minimum(*map(rounded_down, ends))
        if lift is floats:
            largest = np.maximum(-low, high)
            size = (np.abs(tilt) * (largest + np.abs(ball.center) + far)).sum(axis=1)
            size = size + np.abs(distance) * far
            slack = slack + 16 * UNIT * (tilt.shape[1] + 8) * (size + TINY)
            values = values - slack
        best = values if best is None else np.fmax(best, values)
    return best, 0.0


def _lengths(rows):
    """Return Euclidean lengths, of which no square that counts underflows."""
    largest = np.abs(rows).max(axis=1, initial=0.0)
    scaled = rows / np.where(largest > 0, largest, 1.0)[:, None]
    return largest * np.sqrt((scaled**2).sum(axis=1)) + TINY


def _tilts(ball, rows, low, high, distance):
    """Yield vectors v for each row: none, and the one that is best where the box is the ball."""
    numerators, k = rows
    if numerators.dtype == object:
        numerators = rounded_down((numerators.ravel(), k)).reshape(numerators.shape)
    yield np.zeros(numerators.shape)
    falls = np.where(numerators > 0, ball.center - low, high - ball.center)
    size, most = np.abs(numerators), np.maximum(distance, 0)[:, None]
    if ball.norm == "linf":
        # What can go farthest takes its part of the distance first.
        size = np.where(falls > ball.near, size, 0.0)
        order = np.argsort(-falls, axis=1)
        own = np.take_along_axis(size, order, axis=1)
        own = np.clip(most - (np.cumsum(own, axis=1) - own), 0, own)
        size = np.zeros_like(size)
        np.put_along_axis(size, order, own, axis=1)
    else:
        size = np.where(falls > 0, size, 0.0)
        length = np.sqrt((size**2).sum(axis=1, keepdims=True))
        size = size * np.minimum(1.0, most / np.where(length > 0, length, 1.0))
    yield np.where(np.isfinite(size), np.sign(numerators) * size, 0.0)


# -- slopes --


class Chord(Relu):
    """A product with a number between `least` and `most`, for each unit."""

    convex = None

    def __init__(self, least, most, inputs):
        self.least, self.most, self.inputs, self.size = least, most, inputs, len(least)

    def lines(self, low, high):
        mixed, lines = (low < 0) & (high > 0), Space(open=self.wanted(low, high))
        width = np.where(mixed, high - low, 1.0)
        for name, side in (("low", 1), ("high", -1)):
            # What is below has the slope `right` above 0 and `left` below 0: it is concave. So a
            # line lies below it where it does so at both ends.
            right, left = (self.least, self.most)[::side]
            slope = np.where(low >= 0, right, left)
            slope = np.where(mixed, (right * high - left * low) / width, slope)
            gaps = []
            for end, value in ((low, left * low), (high, right * high)):
                slack = 4 * UNIT * (np.abs(value) + np.abs(slope * end)) + TINY
                gaps.append(side * (value - slope * end) - slack)
            setattr(lines, name, slope)
            setattr(lines, f"{name}_at", np.where(mixed, side * np.minimum(*gaps), 0.0))
        return lines

    def wanted(self, low, high):
        return np.broadcast_to(self.least < self.most, low.shape)

    def image(self, low, high):
        ends = np.stack([s * end for s in (self.least, self.most) for end in (low, high)])
        steepest = np.maximum(np.abs(self.least), np.abs(self.most))
        scale = 8 * (1 + steepest) * (np.maximum(-low, high) + TINY)
        low, high = ends.min(axis=0), ends.max(axis=0)
        return np.nextafter(low, -np.inf), np.nextafter(high, np.inf), scale


class PoolChord(Pool):
    """The change of the largest entry of a window: between those of its entries.

    Where one always is the largest, its change.
    """

    def __init__(self, pool, known):
        self.members, self.size, self.n_inputs = pool.members, pool.size, pool.n_inputs
        self.inputs, self.known = pool.inputs, known

    def lines(self, low, high):
        bottom, top = low[:, self.members].min(axis=2), high[:, self.members].max(axis=2)
        return Space(member=self.known.member, open=self.known.open, bottom=bottom, top=top)

    def image(self, low, high):
        lines, every = self.lines(low, high), np.arange(len(low))[:, None]
        low = np.where(lines.open, lines.bottom, low[every, lines.member])
        high = np.where(lines.open, lines.top, high[every, lines.member])
        return low, high, 2 * np.maximum(-low, high) + TINY

    def pull(self, rows, lines, alpha, lift):
        (here, k), (ends, i) = rows, lift(np.stack([lines.bottom, lines.top]))
        linear = np.where(lines.open, 0, here)
        part = np.zeros((len(here), self.n_inputs), dtype=here.dtype)
        np.add.at(part, (np.arange(len(here))[:, None], lines.member), linear)
        rest = here - linear
        terms = np.where(rest > 0, rest, 0) * ends[0] + np.where(rest < 0, rest, 0) * ends[1]
        return [(part, k)], (terms.sum(axis=1), k + i)


def unit_ball(ball):
    """Return the directions in which the points of a ball lie, as a ball of radius 1."""
    part = copy(ball)
    part.center, part.epsilon = np.zeros_like(ball.center), np.ones_like(ball.center)
    part.lower = -1.0 * (ball.lower < ball.center)
    part.upper = 1.0 * (ball.upper > ball.center)
    return part


def slope_nodes(nodes, region, center):
    """Return the nodes of slopes, from what nodes are over a ball, and at its center."""
    made = [None]
    for node in nodes[1:]:
        if isinstance(node, Affine):
            node = copy(node)
            node.bias = np.zeros_like(node.bias)
            node.shift = (np.zeros_like(node.shift[0]), 0)
        elif isinstance(node, Pool):
            j = node.inputs[0]
            node = PoolChord(node, node.lines(region.lows[j], region.highs[j]))
        elif isinstance(node, Distance):
            node = node.slopes()
        else:
            j = node.inputs[0]
            ends = (region.lows[j][0], region.highs[j][0], center.lows[j][0], center.highs[j][0])
            node = Chord(*node.chords(*ends), node.inputs)
        made.append(node)
    return made
