"""Checks proofs about ensembles of decision trees, stored as files, by NumPy alone.

An ensemble is a function of float64 points: each tree leads a point from its root to a leaf, to
the left where a feature is at most `last`, the largest float64 number that goes there (so that it
tells, too, of models that round inputs to float32). The values of the leaves and a base add up to
one score a class; the largest is predicted, and of equal ones the first or the last class.

"Verified" says: at all float64 points of a ball the label is predicted. The proof is a tree of
boxes, the first of which is the ball's. In each leaf box one of two things is so: it holds no
point of the ball, since its point nearest to the center is too far; or for each other class, the
largest lead over the label in the leaves of each tree that meet the box, summed, is below 0 by
more than rounding could turn.

Rounding: where values are multiples of 2^-20 and sums stay below 2^30, and the estimator adds
them as they are ("votes"), no sum is rounded; nor where there is one tree, without a base. Else
a sum of T + 1 numbers in any order, each of which may stem from a rounded product, errs by at
most (T + 2) UNIT total, with total the sum of their largest sizes; a lead has two such sums, and
is computed here within as much: 16 (T + 4) UNIT total is more than all of it. Models that add
less precisely say so by `unit`, which takes the place of 2 UNIT, and by `link`, which is added.
Exact mode sums whole numbers, and allows for the same.
"""

import math
from fractions import Fraction

import numpy as np

if __package__:
    from skrobust.evidence._ball_rules import Valid, sides_of
    from skrobust.evidence._rules import UNIT, floats, integers, need, numbers, read_json
else:  # run as a file
    from _ball_rules import Valid, sides_of
    from _rules import UNIT, floats, integers, need, numbers, read_json

_AT_ONCE = 2**22  # numbers in the largest array of a pass
_LEAST = 5e-324
_NEAR = 1e-8  # what lies within it of length 1 is computed exactly


class Ensemble:
    """Trees, as arrays over all of their nodes: a tree's stand together, its root first."""

    def __init__(self, arrays, exact):
        about = read_json(arrays["ensemble"], "the ensemble")
        self.ties, self.votes = about.get("ties"), about.get("votes")
        need(self.ties in ("first", "last"), f"ties are won by {self.ties!r}")
        need(isinstance(self.votes, bool), "votes is neither true nor false")
        # How precisely the model adds, and what its probabilities hide of its scores.
        self.unit, self.link = (
            float(numbers(arrays, name, ())) if name in arrays else least
            for name, least in (("unit", 2 * UNIT), ("link", 0.0))
        )
        need(self.unit >= 2 * UNIT and self.link >= 0, "it adds more precisely than floats do")
        self.lift = integers if exact else floats
        self.n_features = int(numbers(arrays, "n_features", (), below=2**40))
        self.base = numbers(arrays, "base", (None,))
        feature = numbers(arrays, "feature", (None,), below=self.n_features + 1)
        n = len(feature)
        self.feature, self.is_leaf = feature - 1, feature == 0  # 0 for a leaf, else the number + 1
        self.last = numbers(arrays, "last", (n,), finite=False)
        self.left, self.right = (numbers(arrays, k, (n,), below=n) for k in ("left", "right"))
        self.values = numbers(arrays, "values", (n, len(self.base)))
        self.roots = numbers(arrays, "roots", (None,), below=n)
        need(len(self.base) > 1 and self.n_features and n, "an ensemble of no classes or trees")
        self._check_trees(n)

    def _check_trees(self, n):
        """See to it that each node has one way to it, from the root of its own tree."""
        roots, inner = self.roots, np.flatnonzero(~self.is_leaf)
        need(len(roots) and roots[0] == 0 and (np.diff(roots) > 0).all(), "roots are in no order")
        children = np.concatenate([self.left[inner], self.right[inner]])
        ways = np.bincount(np.concatenate([children, roots]), minlength=n)
        tree = np.searchsorted(roots, np.arange(n), side="right")
        is_own = tree[children] == tree[np.concatenate([inner, inner])]
        need((ways == 1).all() and is_own.all(), "the trees are no trees")
        self.levels, nodes = [], roots
        while len(nodes := nodes[~self.is_leaf[nodes]]):
            self.levels.append(nodes)
            nodes = np.concatenate([self.left[nodes], self.right[nodes]])
        self.leaves = np.flatnonzero(self.is_leaf)
        self.starts = np.searchsorted(self.leaves, roots)
        need((np.diff(self.starts, append=len(self.leaves)) > 0).all(), "a tree has no leaf")

    def reached(self, low, high):
        """Return which leaves points of boxes may come to."""
        reached = np.zeros((len(low), len(self.feature)), dtype=bool)
        reached[:, self.roots] = True
        for nodes in self.levels:
            here, feature, last = reached[:, nodes], self.feature[nodes], self.last[nodes]
            reached[:, self.left[nodes]] = here & (low[:, feature] <= last)
            reached[:, self.right[nodes]] = here & (high[:, feature] > last)
        return reached[:, self.leaves]

    def rivals(self, label, low, high):
        """Return what the leads of other classes are made of, in a box that holds all others."""
        self.others = np.delete(np.arange(len(self.base)), label)
        near = self.reached(low, high)[0][:, None]
        values, n_trees = np.where(near, self.values[self.leaves], 0.0), len(self.roots)
        sizes = np.abs(values).max(axis=1)
        total = np.maximum.reduceat(sizes, self.starts).sum() + np.abs(self.base).max()
        whole = np.append(values.ravel(), self.base) * 2.0**20
        is_small = np.abs(whole).max() * (n_trees + 1) < 2.0**50
        is_whole = is_small and (whole == np.rint(whole)).all()
        is_exact = self.votes and (is_whole or (n_trees == 1 and not self.base.any()))
        self.slack = self.link + (0.0 if is_exact else 8 * (n_trees + 4) * self.unit * total)
        is_exact = is_exact and self.link == 0
        # Below the least number above 0 is what is at most 0: enough, where a tie is the label's.
        loses = self.others > label if self.ties == "first" else self.others < label
        self.tie = np.where(loses & is_exact, _LEAST, 0.0)
        self.won_tie = np.where(~loses & is_exact, _LEAST, 0.0)
        scores, self.exponent = self.lift(np.concatenate([values, self.base[None]]))
        gains = scores[:, self.others] - scores[:, [label]]
        self.gains, self.first = gains[:-1], gains[-1]

    def leads(self, low, high):
        """Return upper bounds of the leads in boxes; at points, the leads themselves."""
        reached = self.reached(low, high)[..., None]
        # Each tree has a leaf in each box; a number below all stands for the others.
        least = self.gains.min() - 1
        most = np.maximum.reduceat(np.where(reached, self.gains, least), self.starts, axis=1)
        return self.first + most.sum(axis=1)

    def is_below(self, leads, limits):
        """Return whether leads are surely below limits, which are floats."""
        if self.lift is floats:
            return leads < limits
        scale = Fraction(2) ** self.exponent
        whole = [math.ceil(Fraction(limit) / scale) for limit in limits]
        return (leads < np.array(whole, dtype=object)).astype(bool)

    def check_claim(self, arrays, claim):
        """Return what the arrays of a file prove, in words."""
        ball = PointBall(arrays, claim.get("norm"), self.n_features)
        label = claim.get("label")
        need(type(label) is int and 0 <= label < len(self.base), f"the label is {label!r}")
        self.rivals(label, ball.lower[None], ball.upper[None])
        if claim.get("verdict") == "falsified":
            return self._check_point(ball, numbers(arrays, "point", (self.n_features,)))
        need(claim.get("verdict") == "verified", "its verdict is unknown")
        n_leaves = Boxes(arrays, self.n_features).check(self, ball)
        return f"verified: the label over the ball, in {n_leaves} leaves"

    def _check_point(self, ball, point):
        need(ball.holds(point), "its point lies outside of the ball")
        leads = -self.leads(point[None], point[None])
        wins = self.is_below(leads, self.won_tie - self.slack)
        if not wins.any():
            need(not self.is_below(leads, self.won_tie + self.slack).any(),
                 "rounding decides whether its point has another label")  # fmt: skip
            need(False, "its point has the label that is claimed for the ball")
        return "falsified: a point of the ball has another label"


class PointBall:
    """The float64 points x of a domain with norm((x - center) / epsilon) <= 1.

    They lie in the box from `lower` to `upper`; for "linf" these are all of its points. Where the
    sides of a center differ, epsilon is the larger one of each feature.
    """

    def __init__(self, arrays, norm, n):
        need(norm in ("linf", "l2"), f"the norm {norm!r} is unknown")
        self.norm, self.center = norm, numbers(arrays, "center", (n,))
        c, (down, up) = self.center, sides_of(arrays, n)
        self.epsilon, self.valid = np.maximum(down, up), Valid(arrays, c)
        low, high = (numbers(arrays, f"domain_{k}", (n,), finite=False) for k in ("low", "high"))
        self.lower = np.minimum(np.maximum(-_largest_sums(-c, down), low), c)
        self.upper = np.maximum(np.minimum(_largest_sums(c, up), high), c)

    def holds(self, x):
        """Return whether a point lies in the ball, and is valid: in exact arithmetic."""
        return self.is_near(x) and self.valid.holds(x)

    def is_near(self, x):
        """Return whether a point lies in the ball, in exact arithmetic."""
        if ((x < self.lower) | (x > self.upper)).any():
            return False
        if self.norm == "linf":
            return True
        total = Fraction(0)
        for i in np.flatnonzero(x != self.center):  # epsilon is above 0: the box has x
            total += ((Fraction(x[i]) - Fraction(self.center[i])) / Fraction(self.epsilon[i])) ** 2
        return total <= 1

    def misses(self, low, high):
        """Return which boxes hold no point of the ball."""
        if self.norm == "linf":
            return np.zeros(len(low), dtype=bool)
        nearest = np.clip(self.center, low, high)
        with np.errstate(all="ignore"):
            steps = np.abs(nearest - self.center) / np.where(self.epsilon > 0, self.epsilon, 1.0)
            length = np.sqrt((steps**2).sum(axis=1))
        misses = length > 1 + _NEAR  # rounding is less, with up to 2^25 features
        for k in np.flatnonzero(np.abs(length - 1) <= _NEAR):
            misses[k] = not self.is_near(nearest[k])
        return misses


def _largest_sums(x, step):
    """Return the largest float64 numbers that are at most x + step."""
    total = x + step
    # What is beside a rounded sum is beyond it; which of both it is, fractions tell.
    pairs = zip(total, x, step, strict=True)
    is_above = [s > 0 and Fraction(t) > Fraction(c) + Fraction(s) for t, c, s in pairs]
    return np.where(is_above, np.nextafter(total, -np.inf), total)


class Boxes:
    """A tree of boxes, level by level: first the whole, then both children of each that is cut.

    `feature` is 0 for a leaf, else the number of the feature that is cut, plus 1: the first child
    has what is at most `at`, the second one what is above it. Without arrays there is one box.
    """

    def __init__(self, arrays, n_features):
        feature = arrays.get("feature", np.zeros(1))
        feature = numbers({"feature": feature}, "feature", (None,), below=n_features + 1)
        count = len(feature)
        self.inner, self.feature = feature > 0, feature - 1
        self.at = numbers(arrays, "at", (count,)) if "at" in arrays else np.zeros(count)
        self.child = 1 + 2 * (np.cumsum(self.inner) - 1)
        at = np.flatnonzero(self.inner)
        is_tree = count == 1 + 2 * len(at) and (self.child[at] > at).all()
        need(is_tree, "the tree of boxes is no tree")

    def check(self, ensemble, ball):
        """Return the number of leaves; raise where one proves nothing."""
        stack = [(np.zeros(1, dtype=int), ball.lower[None], ball.upper[None])]
        step = max(1, _AT_ONCE // max(ensemble.gains.size, 4 * ensemble.n_features))
        while stack:
            ids, low, high = stack.pop()
            if len(ids) > step:
                stack.append((ids[step:], low[step:], high[step:]))
                ids, low, high = ids[:step], low[:step], high[:step]
            is_inner = self.inner[ids]
            self._check_leaves(ensemble, ball, ids[~is_inner], low[~is_inner], high[~is_inner])
            ids, low, high = ids[is_inner], low[is_inner], high[is_inner]
            if len(ids):
                stack += self._halves(ids, low, high)
        return int((~self.inner).sum())

    def _check_leaves(self, ensemble, ball, ids, low, high):
        is_open = (low <= high).all(axis=1)
        is_open[is_open] = ~ball.misses(low[is_open], high[is_open])
        ids, low, high = ids[is_open], low[is_open], high[is_open]
        if len(ids):
            leads = ensemble.leads(low, high)
            is_below = ensemble.is_below(leads, ensemble.tie - ensemble.slack).all(axis=1)
            for k in np.flatnonzero(~is_below)[:1]:
                lead = float(leads[k].max() * Fraction(2) ** ensemble.exponent)
                need(False, f"in leaf {ids[k]} another class may lead by {lead:.6g}")

    def _halves(self, ids, low, high):
        rows, feature, at = np.arange(len(ids)), self.feature[ids], self.at[ids]
        left, right = high.copy(), low.copy()
        left[rows, feature] = np.minimum(left[rows, feature], at)
        right[rows, feature] = np.maximum(right[rows, feature], np.nextafter(at, np.inf))
        child = self.child[ids]
        return [(child, low, left), (child + 1, right, high)]
