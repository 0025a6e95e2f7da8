"""What the checker of evidence knows of balls, and of the points in them that are valid.

Balls hold the points that a claim is about: within a distance of a center, which may differ from
feature to feature and on its two sides, and in a domain. Where the domain is more than a box
(whole numbers, one-hot groups, linear constraints), a proof is about all points of the box and so
about the valid ones; but a counterexample must be one of these.
"""

from fractions import Fraction

import numpy as np

if __package__:
    from skrobust.evidence._rules import TINY, UNIT, integers, need, numbers
else:  # run as a file
    from _rules import TINY, UNIT, integers, need, numbers


def sides_of(arrays, n):
    """Return how far features may fall and rise: `epsilon` has one number for both, or two."""
    shape = (2, n) if np.ndim(arrays.get("epsilon")) == 2 else (n,)
    sides = numbers(arrays, "epsilon", shape)
    need((sides >= 0).all(), "an epsilon is below 0")
    return np.broadcast_to(sides, (2, n))


class Valid:
    """Which points are valid beyond the box: all of them, where a claim says nothing.

    `integers` are places of whole numbers; `group` numbers the one-hot group of each feature from
    1 on, and is 0 for others. `domain_A` and `domain_b` are constraints A x <= b; a center that
    breaks one widens it.
    """

    def __init__(self, arrays, center):
        n = len(center)
        none = {"integers": np.zeros(0), "group": np.zeros(n)}
        none |= {"domain_A": np.zeros((0, n)), "domain_b": np.zeros(0)}
        arrays = none | arrays
        self.integers = numbers(arrays, "integers", (None,), below=n)
        group = numbers(arrays, "group", (n,), below=n + 1)
        self.groups = [np.flatnonzero(group == k) for k in np.unique(group[group > 0])]
        self.b, self.center = numbers(arrays, "domain_b", (None,)), center
        self.A = numbers(arrays, "domain_A", (len(self.b), n))

    def holds(self, x):
        """Return whether a point is valid, in exact arithmetic."""
        whole = x[self.integers]
        codes = all(sorted(x[group]) == [0.0] * (len(group) - 1) + [1.0] for group in self.groups)
        if not codes or (whole != np.floor(whole)).any():
            return False
        for row, b in zip(self.A, self.b, strict=True):
            used = np.flatnonzero(row)
            left, limit = (
                sum(Fraction(row[i]) * Fraction(at[i]) for i in used) for at in (x, self.center)
            )
            if left > max(limit, Fraction(b)):
                return False
        return True


class Ball:
    """Points of a box with norm((x - center) / epsilon) <= 1, and within the sides of the center.

    Where sides differ, epsilon is the larger one of each feature.
    """

    def __init__(self, arrays, norm, n):
        need(norm in ("linf", "l2"), f"the norm {norm!r} is unknown")
        self.norm, self.sides = norm, sides_of(arrays, n)
        c, self.lower, self.upper = (
            numbers(arrays, k, (n,)) for k in ("center", "lower", "upper")
        )
        low, high = (numbers(arrays, f"domain_{k}", (n,), finite=False) for k in ("low", "high"))
        self.center, self.epsilon = c, self.sides.max(axis=0)
        self.domain, self.valid = (np.minimum(low, c), np.maximum(high, c)), Valid(arrays, c)
        # The float beside a rounded sum lies outside of the exact one.
        least, most = (
            np.where(e > 0, np.nextafter(c + s * e, s * np.inf), c)
            for s, e in zip((-1, 1), self.sides, strict=True)
        )
        fits = self.lower <= np.minimum(np.maximum(least, low), c)
        fits &= self.upper >= np.maximum(np.minimum(most, high), c)
        need(fits.all(), "the box leaves out points of the ball")
        # For a smaller one the minimizer in `_cut`, whose parts have epsilon^2, underflows.
        e = self.epsilon
        need(norm == "linf" or ((e == 0) | (e >= 1e-80)).all(), "an epsilon is below 1e-80")

    def holds(self, x):
        """Return whether a point lies in ball, box and domain, and is valid: exactly."""
        low, high = np.maximum(self.lower, self.domain[0]), np.minimum(self.upper, self.domain[1])
        if ((x < low) | (x > high)).any():
            return False
        steps = {
            i: Fraction(x[i]) - Fraction(self.center[i]) for i in np.flatnonzero(x != self.center)
        }
        if any(abs(step) > Fraction(self.sides[int(step > 0), i]) for i, step in steps.items()):
            return False
        if self.norm == "l2":
            shares = [step / Fraction(self.epsilon[i]) for i, step in steps.items()]
            if sum(share * share for share in shares) > 1:
                return False
        return self.valid.holds(x)

    def minimum(self, rows, low, high, lift):
        """Return lower bounds of rows over boxes, cut with the ball, and what they err by."""
        here, k = rows
        if lift is integers:
            ends, i = lift(np.stack([low, high]))
            return (np.where(here > 0, here * ends[0], here * ends[1]).sum(axis=1), k + i), 0.0
        largest, size = np.maximum(-low, high), np.abs(here)
        least = (here * (low / 2 + high / 2)).sum(axis=1) - (size * (high / 2 - low / 2)).sum(
            axis=1
        )
        if self.norm == "l2":
            # Of a row of zeros the multiplier underflows: NaN bounds nothing.
            least = np.fmax(least, self._cut(here, low - self.center, high - self.center))
        # Two sums of n products, whose factors are rounded, of sizes up to size * largest: 2 (n +
        # 3) roundings, times 4.
        slack = 8 * UNIT * (here.shape[1] + 8) * (size * (largest + TINY)).sum(axis=1)
        return (least, 0), slack

    def _cut(self, rows, down, up):
        """Minimize rows . v + t |v / epsilon|^2 - t: for any t >= 0 no more than the ball has."""
        moves = self.epsilon > 0
        scaled = rows * self.epsilon
        # Any t > 0 will do. The best is at most |scaled| / 2; 1e-280 keeps t above 0.
        high = np.sqrt((scaled**2).sum(axis=1, keepdims=True)) / 2 + 1e-280
        low, epsilon = high * 1e-3, np.where(moves, self.epsilon, 1.0)
        for step in range(21):
            t = high if step == 20 else np.sqrt(low * high)
            v = np.clip(-scaled * epsilon / (2 * t), down, up)
            length = (np.where(moves, v / epsilon, 0.0) ** 2).sum(axis=1, keepdims=True)
            low, high = np.where(length > 1, t, low), np.where(length > 1, high, t)
        # Sums of n rounded products, twice; v is off by few roundings, which count squared.
        value = (rows * (self.center + v)).sum(axis=1) + (t * length - t)[:, 0]
        size = (np.abs(rows) * (np.abs(self.center) + np.abs(v))).sum(axis=1)
        return value - 16 * UNIT * (rows.shape[1] + 8) * (size + (t * length + t)[:, 0])
