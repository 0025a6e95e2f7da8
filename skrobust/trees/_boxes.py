"""The boxes that are the leaves of a tree, and their distances: the closed form for one tree."""

from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from skrobust._validation import (
    check_bounds,
    check_choice,
    check_within_bounds,
    kind_of,
)
from skrobust.exceptions import UnsupportedModelError
from skrobust.networks import BlackBox, check_rows
from skrobust.trees._readers import is_single_tree, read_trees, unwrapped

__all__ = [
    "ExactBall",
    "LeafBoxes",
    "in_parts",
    "leaf_boxes",
    "leaf_distances",
    "rows_at_once",
    "tree_distances",
]

_ENTRIES = 2**22  # of temporary arrays


@dataclass(frozen=True, eq=False)
class ExactBall:
    """The float64 points of a property's ball around n rows, and of its domain.

    Parameters
    ----------
    center, lower, upper : ndarray of shape (n, n_features)
        For "linf" the box from lower to upper holds exactly the float64 points of the ball;
        for "l2" it encloses the ball.
    epsilon : ndarray of shape (n_features,)
        The farther of the two sides.
    norm : {"linf", "l2"}
    """

    center: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    epsilon: np.ndarray
    norm: str

    @classmethod
    def around(cls, x, property):
        down, up = (np.broadcast_to(side, x.shape[1:]) for side in property.sides(x.shape[1]))
        epsilon = np.maximum(down, up)
        lower, upper = -_largest_sum(-x, down), _largest_sum(x, up)
        bounds = property.box(x.shape[1])
        if bounds is not None:
            # Data may lie outside of the domain by the rounding that made them float32.
            lower = np.minimum(np.maximum(lower, bounds[0]), x)
            upper = np.maximum(np.minimum(upper, bounds[1]), x)
        return cls(x, lower, upper, epsilon, property.norm)

    def __getitem__(self, i):
        return ExactBall(self.center[i], self.lower[i], self.upper[i], self.epsilon, self.norm)

    def holds(self, i, point):
        """Return whether a point lies in ball i, in exact arithmetic."""
        if ((point < self.lower[i]) | (point > self.upper[i])).any():
            return False
        if self.norm == "linf":
            return True
        total = Fraction(0)
        for j in np.flatnonzero(point != self.center[i]):
            step = Fraction(float(point[j])) - Fraction(float(self.center[i, j]))
            total += (step / Fraction(float(self.epsilon[j]))) ** 2
        return total <= 1


def _largest_sum(x, epsilon):
    """Return the largest float64 numbers that are at most x + epsilon."""
    total = x + epsilon
    # What the rounding of the sum took off, exactly (Knuth).
    back = total - x
    error = (x - (total - back)) + (epsilon - back)
    return np.where(error < 0, np.nextafter(total, -np.inf), total)


@dataclass(frozen=True, eq=False)
class LeafBoxes:
    """The closed box of each leaf of a tree, by the features that it restricts.

    Parameters
    ----------
    labels : int ndarray of shape (n_leaves,)
        Class index.
    starts : int ndarray of shape (n_leaves,)
        First entry of each leaf in the arrays below; each has one or more.
    feature, lower, upper : ndarray of shape (n_entries,)
    """

    labels: np.ndarray
    starts: np.ndarray
    feature: np.ndarray
    lower: np.ndarray
    upper: np.ndarray

    def entries(self, leaf):
        """Return the slice of the entries of one leaf."""
        end = self.starts[leaf + 1] if leaf + 1 < len(self.starts) else len(self.feature)
        return slice(self.starts[leaf], end)


def leaf_boxes(trees):
    """Return the boxes of the leaves of one tree, without those that hold no number.

    Parameters
    ----------
    trees : TreeEnsemble
        Of one tree.

    Returns
    -------
    LeafBoxes
    """
    labels, starts, entries = [], [], []
    stack = [(trees.roots[0], {})]
    while stack:
        node, box = stack.pop()
        feature = int(trees.feature[node])
        if feature < 0:
            labels.append(int(trees.values[node].argmax()))
            starts.append(len(entries))
            entries += [(f, *sides) for f, sides in (box or {0: (-np.inf, np.inf)}).items()]
            continue
        low, high = box.get(feature, (-np.inf, np.inf))
        last = float(trees.last[node])
        if low <= last:
            stack.append((trees.left[node], {**box, feature: (low, min(high, last))}))
        if last < high:
            first = max(low, float(np.nextafter(last, np.inf)))
            stack.append((trees.right[node], {**box, feature: (first, high)}))
    feature, lower, upper = (np.array(column) for column in zip(*entries, strict=True))
    return LeafBoxes(np.array(labels), np.array(starts), feature, lower, upper)


def leaf_distances(boxes, x, lower, upper, epsilon, norm):
    """Return the distances from rows to leaves that are cut with boxes around the rows.

    Parameters
    ----------
    boxes : LeafBoxes
    x : ndarray of shape (n, n_features)
    lower, upper : ndarray of shape (n, n_features)
        Sides of the box around each row.
    epsilon : ndarray of shape (n_features,)
        Unit of each feature; moves of a feature with 0 are infinitely long.
    norm : {"linf", "l2"}

    Returns
    -------
    ndarray of shape (n, n_leaves)
        Infinite where leaf and box have no point in common.
    """
    feature = boxes.feature
    low = np.maximum(boxes.lower, lower[:, feature])
    high = np.minimum(boxes.upper, upper[:, feature])
    gap = np.maximum(np.maximum(low - x[:, feature], x[:, feature] - high), 0.0)
    scale = epsilon[feature]
    with np.errstate(divide="ignore", invalid="ignore"):
        gap = np.where(gap > 0, gap / scale, 0.0)
    gap[low > high] = np.inf
    if norm == "linf":
        return np.maximum.reduceat(gap, boxes.starts, axis=1)
    return np.sqrt(np.add.reduceat(gap**2, boxes.starts, axis=1))


def rows_at_once(entries):
    """Return how many rows are treated together, so that temporary arrays stay small.

    Parameters
    ----------
    entries : int
        Of temporary arrays, for each row.

    Returns
    -------
    int
    """
    return max(1, _ENTRIES // max(1, entries))


def in_parts(n, entries):
    """Yield slices of rows, each of as many as are treated together.

    Parameters
    ----------
    n : int
        Number of rows.
    entries : int
        Of temporary arrays, for each row.

    Yields
    ------
    slice
    """
    size = rows_at_once(entries)
    return (slice(start, start + size) for start in range(0, n, size))


def tree_distances(tree, X, y=None, norm="linf", *, bounds=None):
    """Return the distance from each row to the nearest point with another label.

    The closed form: the smallest distance to the box of a leaf of another label.

    Parameters
    ----------
    tree : DecisionTreeClassifier
        Fitted.
    X : array-like of shape (n_samples, n_features)
    y : array-like of shape (n_samples,), default=None
        Labels; what the tree predicts if None. A row of which the tree predicts another label
        has distance 0.
    norm : {"linf", "l2"}, default="linf"
        Norm of the distance, which is in units of the input.
    bounds : pair of floats or of array-likes, or None, default=None
        Lowest and highest valid value of the features; only points inside count.

    Returns
    -------
    ndarray of shape (n_samples,)
        Infinite where all leaves have the same label.

    Raises
    ------
    UnsupportedModelError
        If the estimator is no single tree.

    Examples
    --------
    >>> from sklearn.tree import DecisionTreeClassifier, ExtraTreeClassifier
    >>> from skrobust.verification import tree_distances
    >>> tree = DecisionTreeClassifier().fit([[0.0, 0.0], [1.0, 0.0]], ["left", "right"])
    >>> tree_distances(tree, [[0.1, 0.3], [0.75, 0.3]]).round(6)
    array([0.4 , 0.25])
    """
    check_choice("norm", norm, ("linf", "l2"))
    if not is_single_tree(tree):
        raise UnsupportedModelError(
            f"Got {kind_of(unwrapped(tree))}, but expected a DecisionTreeClassifier: "
            "only a single tree has distances in closed form."
        )
    network = BlackBox(tree)
    X = check_rows(X, network.n_features).astype(np.float64)
    bounds = check_bounds(bounds, X.shape[1])
    check_within_bounds(X, bounds)
    y = tree.predict(X) if y is None else y
    labels = network.encode(y).numpy()
    boxes = leaf_boxes(read_trees(tree))
    low, high = (-np.inf, np.inf) if bounds is None else bounds
    domain = [np.broadcast_to(side, X.shape) for side in (low, high)]
    ones = np.ones(X.shape[1])
    nearest = np.empty(len(X))
    for part in in_parts(len(X), len(boxes.feature)):
        box = (side[part] for side in domain)
        distances = leaf_distances(boxes, X[part], *box, ones, norm)
        distances[boxes.labels == labels[part, None]] = np.inf
        nearest[part] = distances.min(axis=1)
    return nearest
