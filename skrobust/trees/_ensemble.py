"""Ensembles of decision trees as arrays."""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

__all__ = ["Rivals", "TreeEnsemble", "column_of", "joined", "last_left"]


@dataclass(frozen=True, eq=False)
class TreeEnsemble:
    """Trees whose leaf values add up to one score for each class.

    Parameters
    ----------
    feature : int ndarray of shape (n_nodes,)
        -1 for leaves. The nodes of one tree stand together, its root first.
    last : ndarray of shape (n_nodes,)
        The largest float64 number that goes to the left.
    left, right : int ndarray of shape (n_nodes,)
        Children; a leaf is its own child.
    values : ndarray of shape (n_nodes, n_classes)
        What a leaf adds to the scores.
    roots : int ndarray of shape (n_trees,)
    base : ndarray of shape (n_classes,)
        Scores without trees.
    ties : {"first", "last"}
        Which one of equal scores is predicted.
    votes : bool
        Whether the estimator adds the values as they are here. Boosting scales and adds them in
        one step, which processors may round in different ways.
    unit : float, default=2**-52
        Relative precision in which scores are added.
    link : float, default=0.0
        By how much scores can differ whose probabilities, once rounded, do not.
    """

    feature: np.ndarray
    last: np.ndarray
    left: np.ndarray
    right: np.ndarray
    values: np.ndarray
    roots: np.ndarray
    base: np.ndarray
    ties: str
    votes: bool
    unit: float = np.finfo(np.float64).eps
    link: float = 0.0

    @cached_property
    def leaves(self):
        """Nodes that are leaves, in the order of the trees."""
        return np.flatnonzero(self.feature < 0)

    @cached_property
    def starts(self):
        """Place in `leaves` of the first leaf of each tree."""
        return np.searchsorted(self.leaves, self.roots)

    @cached_property
    def tree_of(self):
        """Number of the tree that each node belongs to."""
        return np.searchsorted(self.roots, np.arange(len(self.feature)), side="right") - 1

    @cached_property
    def levels(self):
        """Inner nodes of each depth, as a list of arrays."""
        levels, nodes = [], self.roots
        while True:
            nodes = nodes[self.feature[nodes] >= 0]
            if len(nodes) == 0:
                return levels
            levels.append(nodes)
            nodes = np.concatenate([self.left[nodes], self.right[nodes]])

    @cached_property
    def has_exact_sums(self):
        """Whether scores are sums of multiples of 2^-20, which no order of adding rounds."""
        values = np.concatenate([self.values[self.leaves], self.base[None]]) * 2.0**20
        small = np.abs(values).max(initial=0) * (len(self.roots) + 1) < 2.0**50
        return bool(self.votes and small and (values == np.rint(values)).all())

    @cached_property
    def slack(self):
        """How far rounding can take a difference of scores, at most."""
        if self.has_exact_sums:
            return self.link
        largest = np.maximum.reduceat(np.abs(self.values[self.leaves]).max(axis=1), self.starts)
        total = largest.sum() + np.abs(self.base).max()
        return 8 * (len(self.roots) + 4) * self.unit * total + self.link

    def reach(self, lower, upper):
        """Return which nodes the points of each of n boxes come to, bool (n, n_nodes)."""
        reached = np.zeros((len(lower), len(self.feature)), dtype=bool)
        reached[:, self.roots] = True
        for nodes in self.levels:
            here, feature, last = reached[:, nodes], self.feature[nodes], self.last[nodes]
            reached[:, self.left[nodes]] = here & (lower[:, feature] <= last)
            reached[:, self.right[nodes]] = here & (upper[:, feature] > last)
        return reached

    def leaves_at(self, x):
        """Return the nodes that points x end in, of shape (n, n_trees)."""
        nodes = np.broadcast_to(self.roots, (len(x), len(self.roots)))
        flat, start = x.ravel(), x.shape[1] * np.arange(len(x))[:, None]
        for _ in self.levels:
            # A leaf, of feature -1, compares some number, and stays where it is.
            goes_left = flat.take(start + self.feature.take(nodes) % x.shape[1])
            goes_left = goes_left <= self.last.take(nodes)
            nodes = np.where(goes_left, self.left.take(nodes), self.right.take(nodes))
        return nodes

    def scores(self, x):
        """Return the scores at points x, of shape (n, n_classes)."""
        return self.base + self.values[self.leaves_at(x)].sum(axis=1)

    def cell(self, point):
        """Return the sides of the largest box around a point in which all trees are constant.

        Parameters
        ----------
        point : ndarray of shape (n_features,)

        Returns
        -------
        lower, upper : ndarray of shape (n_features,)
        """
        lower, upper = np.full((2, len(point)), np.inf)
        lower = -lower
        nodes = self.roots
        while True:
            nodes = nodes[self.feature[nodes] >= 0]
            if len(nodes) == 0:
                return lower, upper
            feature, last = self.feature[nodes], self.last[nodes]
            goes_left = point[feature] <= last
            np.minimum.at(upper, feature[goes_left], last[goes_left])
            first = np.nextafter(last[~goes_left], np.inf)
            np.maximum.at(lower, feature[~goes_left], first)
            nodes = np.where(goes_left, self.left[nodes], self.right[nodes])

    def rivals(self, label):
        """Return the `Rivals` of a class: all others."""
        classes = np.delete(np.arange(len(self.base)), label)
        values = self.values[self.leaves]
        # Half of what two different scores differ by at least.
        unit = 2.0**-21 if self.has_exact_sums else 0.0
        loses_ties = classes > label if self.ties == "first" else classes < label
        return Rivals(
            self,
            label,
            classes,
            values[:, classes] - values[:, [label]],
            self.base[classes] - self.base[label],
            np.where(loses_ties, unit, -unit) - self.slack,
        )

    def within(self, lower, upper):
        """Return the ensemble without the nodes that no point of one box comes to.

        Trees that are constant there become a part of the base; one tree is left at least.
        """
        reached = self.reach(lower[None], upper[None])[0]
        stands_for = np.arange(len(self.feature))
        for nodes in reversed(self.levels):
            left, right = self.left[nodes], self.right[nodes]
            stands_for[nodes] = np.where(
                ~reached[left],
                stands_for[right],
                np.where(~reached[right], stands_for[left], nodes),
            )
        roots = stands_for[self.roots]
        varies = self.feature[roots] >= 0
        varies[0] |= not varies.any()
        kept = reached & (stands_for == np.arange(len(self.feature))) & varies[self.tree_of]
        place = np.cumsum(kept) - 1
        moved = {
            "left": place[stands_for[self.left[kept]]],
            "right": place[stands_for[self.right[kept]]],
            "roots": place[roots[varies]],
            "base": self.base + self.values[roots[~varies]].sum(axis=0),
            # The estimator adds all of them.
            "link": self.slack,
        }
        same = {name: getattr(self, name)[kept] for name in ("feature", "last", "values")}
        return replace(self, **moved, **same)


@dataclass(frozen=True, eq=False)
class Rivals:
    """Classes that may come before a label, and their leads: their scores minus the label's.

    Parameters
    ----------
    trees : TreeEnsemble
    label : int
    classes : int ndarray of shape (n_rivals,)
    gains : ndarray of shape (n_leaves, n_rivals)
        What each leaf adds to the leads.
    base : ndarray of shape (n_rivals,)
        Leads without trees.
    limits : ndarray of shape (n_rivals,)
        A lead below this one surely changes no prediction, whatever is rounded.
    """

    trees: TreeEnsemble
    label: int
    classes: np.ndarray
    gains: np.ndarray
    base: np.ndarray
    limits: np.ndarray

    def leads(self, reached):
        """Return upper bounds of the leads in boxes, (n, n_rivals), and the share of each tree.

        The shares are the largest and smallest gains that are reached, (n, n_trees, n_rivals).
        """
        reached = reached[:, self.trees.leaves, None]
        starts = self.trees.starts
        most = np.maximum.reduceat(np.where(reached, self.gains, -np.inf), starts, axis=1)
        least = np.minimum.reduceat(np.where(reached, self.gains, np.inf), starts, axis=1)
        return self.base + most.sum(axis=1), most, least

    def beaten(self, leads):
        """Return whether leads, or upper bounds of them, are all below their limits, (n,)."""
        return (leads < self.limits).all(axis=1)

    def surely_lead(self, leads):
        """Return whether leads at points are so large that one surely changes the prediction."""
        return (leads >= self.limits + 2 * self.trees.slack).any(axis=1)

    def at(self, points):
        """Return the leads at points, of shape (n, n_rivals)."""
        place = np.cumsum(self.trees.feature < 0) - 1  # in `leaves`, of each node that is one
        gains = self.gains.take(place.take(self.trees.leaves_at(points)), axis=0)
        return self.base + gains.sum(axis=1)

    def among(self, kept):
        """Return a selection of the rivals."""
        columns = (self.classes[kept], self.gains[:, kept], self.base[kept], self.limits[kept])
        return Rivals(self.trees, self.label, *columns)


def joined(trees, base, ties="first", votes=False, **rounding):
    """Return trees as one `TreeEnsemble`.

    Parameters
    ----------
    trees : list of (feature, last, left, right, values)
        Each numbers its own nodes from 0; children of leaves are below 0.
    base : array-like of shape (n_classes,)
    ties, votes, **rounding
        As of `TreeEnsemble`.
    """
    sizes = [len(tree[0]) for tree in trees]
    offsets = np.cumsum([0, *sizes[:-1]])
    feature, last, left, right, values = (
        np.concatenate(parts) for parts in zip(*trees, strict=True)
    )
    shift = np.repeat(offsets, sizes)
    is_leaf = left < 0
    itself = np.arange(len(feature))
    return TreeEnsemble(
        np.where(is_leaf, -1, feature),
        last,
        np.where(is_leaf, itself, left + shift),
        np.where(is_leaf, itself, right + shift),
        values,
        offsets,
        np.asarray(base, dtype=np.float64),
        ties,
        votes,
        **rounding,
    )


def column_of(values, column, n_classes):
    """Return values of one score as (n, n_classes); a binary model scores the second class."""
    placed = np.zeros((len(values), n_classes))
    placed[:, 1 if n_classes == 2 else column] = values
    return placed


def last_left(threshold):
    """Return the largest float64 number that goes to the left, where inputs become float32.

    Parameters
    ----------
    threshold : float or ndarray
        What scikit-learn compares the rounded input with, by at most.

    Returns
    -------
    ndarray, of the shape of `threshold`
    """
    threshold = np.asarray(threshold, dtype=np.float64)
    with np.errstate(over="ignore"):
        below = threshold.astype(np.float32)
        infinity = np.float32(np.inf)
        below = np.where(below > threshold, np.nextafter(below, -infinity), below)
        above = np.nextafter(below, infinity)
    middle = below.astype(np.float64) / 2 + above.astype(np.float64) / 2
    # The middle of two float32 numbers goes to the one whose last bit is 0.
    is_even = below.view(np.int32) & 1 == 0
    return np.where(is_even, middle, np.nextafter(middle, -np.inf))
