r"""Decision trees and ensembles of trees, exactly.

A leaf of a tree is a box. scikit-learn rounds inputs to float32 before it compares them, so a
threshold t sends exactly the float64 numbers up to some number t* to the left: t* is found once
for each threshold, and all boxes are closed boxes of float64 numbers from then on. Nothing is
lost to tolerances: the distance to a box has a closed form, and the box of an L-infinity ball
holds exactly the float64 points of the ball.

References
----------
.. [1] Bastani et al., "Verifiable reinforcement learning via policy extraction", NeurIPS 2018.
.. [2] Devos et al., "Versatile verification of tree ensembles", ICML 2021.
"""

import heapq
import itertools
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property

import numpy as np
import torch
from sklearn.ensemble import (
    ExtraTreesClassifier,
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
)
from sklearn.model_selection._search import BaseSearchCV
from sklearn.tree import DecisionTreeClassifier, ExtraTreeClassifier
from sklearn.utils.validation import check_is_fitted

from skrobust._validation import (
    check_bounds,
    check_choice,
    check_epsilon,
    check_integer,
    check_within_bounds,
)
from skrobust.exceptions import UnsupportedModelError, UnsupportedPropertyError
from skrobust.networks import BlackBox, Network
from skrobust.networks._base import check_rows
from skrobust.properties import ClassificationRobustness
from skrobust.verification._base import Reason, Stopwatch, Verification, Verifier

__all__ = ["TreeVerifier", "tree_distances"]

_ENTRIES = 2**22  # of temporary arrays


# ---- ensembles as arrays -----------------------------------------------------------------


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
            return 0.0
        largest = np.maximum.reduceat(np.abs(self.values[self.leaves]).max(axis=1), self.starts)
        total = largest.sum() + np.abs(self.base).max()
        return 8 * (len(self.roots) + 4) * np.finfo(np.float64).eps * total

    def reach(self, lower, upper):
        """Return which nodes the points of each of n boxes come to, bool (n, n_nodes)."""
        reached = np.zeros((len(lower), len(self.feature)), dtype=bool)
        reached[:, self.roots] = True
        for nodes in self.levels:
            here, feature, last = reached[:, nodes], self.feature[nodes], self.last[nodes]
            reached[:, self.left[nodes]] = here & (lower[:, feature] <= last)
            reached[:, self.right[nodes]] = here & (upper[:, feature] > last)
        return reached

    def scores(self, x):
        """Return the scores at points x, of shape (n, n_classes)."""
        nodes = np.broadcast_to(self.roots, (len(x), len(self.roots)))
        rows = np.arange(len(x))[:, None]
        for _ in self.levels:
            goes_left = x[rows, self.feature[nodes]] <= self.last[nodes]
            nodes = np.where(goes_left, self.left[nodes], self.right[nodes])
        return self.base + self.values[nodes].sum(axis=1)

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
        """Return the ensemble without the nodes that no point of one box comes to."""
        reached = self.reach(lower[None], upper[None])[0]
        stands_for = np.arange(len(self.feature))
        for nodes in reversed(self.levels):
            left, right = self.left[nodes], self.right[nodes]
            stands_for[nodes] = np.where(
                ~reached[left],
                stands_for[right],
                np.where(~reached[right], stands_for[left], nodes),
            )
        kept = reached & (stands_for == np.arange(len(self.feature)))
        place = np.cumsum(kept) - 1
        moved = {
            "left": place[stands_for[self.left[kept]]],
            "right": place[stands_for[self.right[kept]]],
            "roots": place[stands_for[self.roots]],
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

    def at(self, points):
        """Return the leads at points, of shape (n, n_rivals)."""
        scores = self.trees.scores(points)
        return scores[:, self.classes] - scores[:, [self.label]]

    def among(self, kept):
        """Return a selection of the rivals."""
        columns = (self.classes[kept], self.gains[:, kept], self.base[kept], self.limits[kept])
        return Rivals(self.trees, self.label, *columns)


def last_left(threshold):
    """Return the largest float64 number that float32 rounding leaves at most `threshold`."""
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


def _joined(trees, base, ties="first", votes=False):
    """Join trees, each (feature, last, left, right, values) with children of leaves below 0."""
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
    )


def _sklearn_tree(tree, values):
    return tree.feature, last_left(tree.threshold), tree.children_left, tree.children_right, values


def _read_decision_tree(model):
    _check_outputs(model)
    # A single tree predicts the largest value of its leaf.
    tree = _sklearn_tree(model.tree_, model.tree_.value[:, 0, :])
    return _joined([tree], np.zeros(len(model.classes_)), votes=True)


def _read_forest(model):
    _check_outputs(model)
    trees = [_sklearn_tree(e.tree_, e.tree_.value[:, 0, :]) for e in model.estimators_]
    return _joined(trees, np.zeros(len(model.classes_)), votes=True)


def _check_outputs(model):
    if model.n_outputs_ > 1:
        raise UnsupportedModelError(
            f"Got a {type(model).__name__} with {model.n_outputs_} outputs, but expected one "
            "class a sample."
        )
    if model.n_classes_ < 2:
        raise UnsupportedModelError(
            f"Got a {type(model).__name__} of one class, but expected two or more."
        )


def _column(values, column, n_classes):
    """Return values of one score as (n, n_classes); a binary model scores the second class."""
    placed = np.zeros((len(values), n_classes))
    placed[:, 1 if n_classes == 2 else column] = values
    return placed


def _read_gradient_boosting(model):
    if model.init is not None and model.init != "zero":
        raise UnsupportedModelError(
            "Got a GradientBoostingClassifier that starts from another estimator, but expected "
            "init=None or 'zero'."
        )
    n_classes = len(model.classes_)
    start = model._raw_predict_init(np.zeros((1, model.n_features_in_), dtype=np.float32))[0]
    trees = [
        _sklearn_tree(
            tree.tree_, _column(model.learning_rate * tree.tree_.value[:, 0, 0], k, n_classes)
        )
        for stage in model.estimators_
        for k, tree in enumerate(stage)
    ]
    base = sum(_column(start[[k]], k, n_classes)[0] for k in range(len(start)))
    return _joined(trees, base, "last" if n_classes == 2 else "first")


def _read_hist_gradient_boosting(model):
    if model.is_categorical_ is not None:
        raise UnsupportedModelError(
            "Got a HistGradientBoostingClassifier with categorical features, but expected "
            "numbers: a ball has no meaning for categories."
        )
    n_classes = len(model.classes_)
    trees = []
    for stage in model._predictors:
        for k, predictor in enumerate(stage):
            nodes = predictor.nodes
            is_leaf = nodes["is_leaf"].astype(bool)
            left, right = (
                np.where(is_leaf, -1, nodes[side].astype(np.int64)) for side in ("left", "right")
            )
            values = _column(nodes["value"], k, n_classes)
            # Inputs stay in float64 here, so that thresholds are as they are.
            trees.append((nodes["feature_idx"], nodes["num_threshold"], left, right, values))
    start = np.ravel(model._baseline_prediction)
    base = sum(_column(start[[k]], k, n_classes)[0] for k in range(len(start)))
    return _joined(trees, base)


_READERS = {
    DecisionTreeClassifier: _read_decision_tree,
    ExtraTreeClassifier: _read_decision_tree,
    RandomForestClassifier: _read_forest,
    ExtraTreesClassifier: _read_forest,
    GradientBoostingClassifier: _read_gradient_boosting,
    HistGradientBoostingClassifier: _read_hist_gradient_boosting,
}


def _unwrapped(model):
    """Return the estimator behind a network and a search."""
    if isinstance(model, BlackBox):
        model = model.estimator
    if isinstance(model, BaseSearchCV):
        check_is_fitted(model, "best_estimator_")
        model = model.best_estimator_
    return model


def _reader(model):
    """Return what reads the trees of an estimator, or refuse it."""
    model = _unwrapped(model)
    # Not subclasses: what they predict is unknown.
    if type(model) in _READERS:
        check_is_fitted(model)
        return _READERS[type(model)]
    names = ", ".join(kind.__name__ for kind in _READERS)
    raise UnsupportedModelError(
        f"Got a {type(model).__name__}, but TreeVerifier needs one of scikit-learn's {names}."
    )


# ---- balls -------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class ExactBall:
    """The float64 points of a property's ball around n rows, and of its domain.

    Parameters
    ----------
    center, lower, upper : ndarray of shape (n, n_features)
        For "linf" the box from lower to upper holds exactly the float64 points of the ball;
        for "l2" it encloses the ball.
    epsilon : ndarray of shape (n_features,)
    norm : {"linf", "l2"}
    """

    center: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    epsilon: np.ndarray
    norm: str

    @classmethod
    def around(cls, x, property):
        epsilon = np.broadcast_to(check_epsilon(property.epsilon), x.shape[1:])
        lower, upper = -_largest_sum(-x, epsilon), _largest_sum(x, epsilon)
        bounds = check_bounds(property.bounds)
        if bounds is not None:
            # Data may lie outside of the domain by the rounding that made them float32.
            lower = np.minimum(np.maximum(lower, bounds[0]), x)
            upper = np.maximum(np.minimum(upper, bounds[1]), x)
        return cls(x, lower, upper, np.asarray(epsilon), property.norm)

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


# ---- one tree: distances to leaf boxes ---------------------------------------------------


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
    """Return the `LeafBoxes` of an ensemble of one tree, without those that hold no number."""
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


def _leaf_distances(boxes, x, lower, upper, epsilon, norm):
    """Return distances of n rows to the leaves, cut with boxes around the rows, (n, n_leaves).

    In units of epsilon; infinite where leaf and box have no point in common.
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


def _in_parts(n, entries):
    """Yield slices of n rows, so that temporary arrays stay small."""
    size = max(1, _ENTRIES // max(1, entries))
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
    if _reader(tree) is not _read_decision_tree:
        raise UnsupportedModelError(
            f"Got a {type(_unwrapped(tree)).__name__}, but expected a DecisionTreeClassifier: "
            "only a single tree has distances in closed form."
        )
    network = BlackBox(tree)
    X = check_rows(X, network.n_features).astype(np.float64)
    bounds = check_bounds(bounds, X.shape[1])
    check_within_bounds(X, bounds)
    y = tree.predict(X) if y is None else y
    labels = network.encode(y).numpy()
    boxes = leaf_boxes(_read_decision_tree(_unwrapped(tree)))
    low, high = (-np.inf, np.inf) if bounds is None else bounds
    domain = [np.broadcast_to(side, X.shape) for side in (low, high)]
    ones = np.ones(X.shape[1])
    nearest = np.empty(len(X))
    for part in _in_parts(len(X), len(boxes.feature)):
        box = (side[part] for side in domain)
        distances = _leaf_distances(boxes, X[part], *box, ones, norm)
        distances[boxes.labels == labels[part, None]] = np.inf
        nearest[part] = distances.min(axis=1)
    return nearest


# ---- the verifier ------------------------------------------------------------------------


class TreeVerifier(Verifier):
    """Decides classification robustness of trees and ensembles of trees.

    For a DecisionTreeClassifier the answer is exact, in closed form. For ensembles, bounds come
    first: for each tree the leaves that the ball reaches, and the largest lead of another class
    among them, summed over the trees. What they leave open is attacked by random vertices of
    the ball, and then decided by branch and bound over the thresholds, or by the package
    dtai-veritas.

    Parameters
    ----------
    method : {"branch", "veritas", "bounds"}, default="branch"
        What to do with ensembles that bounds and random points do not decide: our own branch and
        bound, which is complete; the search of dtai-veritas (L-infinity only), followed by our
        own where its witness does not hold or its memory is full; or nothing.
    max_boxes : int or None, default=None
        Largest number of boxes that branch and bound looks at for one point; None for no limit
        but the time.

    Notes
    -----
    `encode` takes the estimator itself, a search over it, or the `~skrobust.networks.BlackBox`
    that stands for it. The property is broken where the estimator's `predict` returns another
    label; of tied scores the one it returns counts. Every counterexample is confirmed by
    `predict`. Points are float64 numbers, which scikit-learn rounds to float32.

    References
    ----------
    Devos et al., "Versatile verification of tree ensembles", ICML 2021.

    Examples
    --------
    >>> import torch
    >>> from sklearn.tree import DecisionTreeClassifier, ExtraTreeClassifier
    >>> from skrobust.properties import ClassificationRobustness
    >>> from skrobust.verification import TreeVerifier
    >>> tree = DecisionTreeClassifier().fit([[0.0], [1.0]], [0, 1])
    >>> x, labels = torch.tensor([[0.2], [0.45]]), torch.tensor([0, 0])
    >>> TreeVerifier().verify(tree, ClassificationRobustness(0.1), x, labels).verdicts.tolist()
    ['verified', 'falsified']
    """

    def __init__(self, method="branch", *, max_boxes=None):
        self.method = method
        self.max_boxes = max_boxes

    def check(self):
        check_choice("method", self.method, ("branch", "veritas", "bounds"))
        if self.max_boxes is not None:
            check_integer("max_boxes", self.max_boxes, low=1)
        return self

    def accepts(self, network, property):
        _reader(network)
        if not isinstance(property, ClassificationRobustness):
            raise UnsupportedPropertyError(
                f"Got a {type(property).__name__}, but TreeVerifier treats "
                "ClassificationRobustness: the outputs of trees are steps."
            )
        if self.method == "veritas":
            import_veritas()
            if property.norm != "linf":
                raise UnsupportedPropertyError(
                    f"Got norm={property.norm!r}, but method='veritas' treats 'linf'. "
                    "Use method='branch'."
                )

    def encode(self, network, property, n_features=None):
        """Return the `Encoding` of an estimator of trees; see `Verifier.encode`."""
        if not isinstance(network, Network):
            _reader(network)
            network = BlackBox(network)
        return super().encode(network, property, n_features)

    def _graph(self, network, n_features):
        trees = _reader(network)(_unwrapped(network))
        return leaf_boxes(trees) if _is_single(network) else trees

    def decide(self, state, x, labels=None, *, timeout=None, generator=None):
        watch = Stopwatch()
        x = x.double()
        target = state.target(x, labels)
        labels = state.property.reference_labels(target.reference_logits, labels)
        labels = labels.cpu().numpy()
        ball = ExactBall.around(x.cpu().numpy(), state.property)
        result = Verification.undecided(x)
        # A label that the point itself does not have needs no search.
        result = _replay(result, target, np.arange(len(x)), x.cpu().numpy())
        rest = result.undecided_index
        if isinstance(state.graph, LeafBoxes):
            result = _decide_by_distance(result, state.graph, target, ball, labels, rest)
        else:
            result = _decide_by_bounds(result, state.graph, ball, labels, rest)
        result.seconds[:] = watch.elapsed / max(1, len(x))
        if not isinstance(state.graph, LeafBoxes):
            seed = torch.empty((), dtype=torch.int64).random_(generator=generator).item()
            rng = np.random.default_rng(seed)
            for i in result.undecided_index:
                ask = (state.graph, target, ball, int(labels[i]), int(i), rng)
                result = self._search(result, ask, timeout)
        return result

    def _search(self, result, ask, timeout):
        watch, question = Stopwatch(timeout), _Question.ask(*ask)
        target, i = question.target, question.i
        found = None
        if self.method == "veritas":
            found = _search_by_veritas(question, watch)
        if found is None:
            max_boxes = 1 if self.method == "bounds" else self.max_boxes
            found = _search_by_branching(question, watch, max_boxes)
        if isinstance(found, np.ndarray):
            result = _replay(result, target, [i], found[None])
        elif found is Reason.PROVED:
            result = result.prove([i], 1.0)
        else:
            result.reasons[i] = found
        result.seconds[i] += watch.elapsed
        return result


def _is_single(network):
    return _reader(network) is _read_decision_tree


def _replay(result, target, index, points):
    """Enter the points that break the property by `predict` as counterexamples.

    Not by `confirm`: its repair follows gradients, and its balls are a little smaller.
    """
    points = torch.as_tensor(points)
    return result.falsify(index, points, target[torch.as_tensor(index)].replay(points).broken)


# ---- single trees ------------------------------------------------------------------------


def _decide_by_distance(result, boxes, target, ball, labels, index):
    proved, witnesses, places = [], [], []
    for part in _in_parts(len(index), len(boxes.feature)):
        rows = index[part]
        distances = _leaf_distances(
            boxes, ball.center[rows], ball.lower[rows], ball.upper[rows], ball.epsilon, ball.norm
        )
        distances[boxes.labels == labels[rows, None]] = np.inf
        for i, row in zip(rows, distances, strict=True):
            witness = _nearest_point(boxes, ball, i, row)
            if witness is None:
                proved.append(i)
            else:
                places.append(i)
                witnesses.append(witness)
    result = result.prove(np.array(proved, dtype=int), 1.0)
    if places:
        places = np.array(places)
        result = _replay(result, target, places, np.array(witnesses))
        open_ = places[result.verdicts[places] == "unknown"]
        result.reasons[open_] = Reason.SPURIOUS
    return result


_ROUNDING = 1e-9  # of relative distances; what lies within it of 1 is computed exactly


def _nearest_point(boxes, ball, i, distances):
    """Return the closest point of a leaf that lies in ball i, or None."""
    order = np.flatnonzero(distances <= 1 + _ROUNDING)
    for leaf in order[distances[order].argsort()]:
        entries = boxes.entries(leaf)
        point = ball.center[i].copy()
        feature = boxes.feature[entries]
        low = np.maximum(boxes.lower[entries], ball.lower[i, feature])
        high = np.minimum(boxes.upper[entries], ball.upper[i, feature])
        point[feature] = np.clip(point[feature], low, high)
        if ball.holds(i, point):
            return _in_float32(point, feature, low, high, ball, i)
    return None


def _in_float32(point, feature, low, high, ball, i):
    """Round the moved entries inwards to float32, where the ball has room: not needed here, but
    such points survive being stored as float32."""
    center = ball.center[i, feature]
    rounded = point.copy()
    inside = np.where(low > center, _float32_up(low), -_float32_up(-high))
    fits = (point[feature] != center) & (low <= inside) & (inside <= high)
    rounded[feature] = np.where(fits, inside, point[feature])
    return rounded if ball.holds(i, rounded) else point


def _float32_up(x):
    """Return the smallest float32 number that is at least x, as float64."""
    with np.errstate(over="ignore"):
        cast = x.astype(np.float32)
        cast = np.where(cast < x, np.nextafter(cast, np.float32(np.inf)), cast)
    return cast.astype(np.float64)


# ---- ensembles ---------------------------------------------------------------------------


def _decide_by_bounds(result, trees, ball, labels, index):
    entries = len(trees.leaves) * len(trees.base) + len(trees.feature)
    for label in np.unique(labels[index]):
        same, rivals = index[labels[index] == label], trees.rivals(label)
        for part in _in_parts(len(same), entries):
            rows = same[part]
            leads, _, _ = rivals.leads(trees.reach(ball.lower[rows], ball.upper[rows]))
            result = result.prove(rows[rivals.beaten(leads)], 1.0)
    return result


@dataclass(frozen=True, eq=False)
class _Question:
    """Whether an ensemble, cut to ball i, leaves a label there.

    Parameters
    ----------
    rivals : Rivals
        That bounds on the whole ball do not beat.
    target : Target
    ball : ExactBall
    i : int
    rng : numpy.random.Generator
    """

    rivals: Rivals
    target: object
    ball: ExactBall
    i: int
    rng: np.random.Generator

    @classmethod
    def ask(cls, trees, target, ball, label, i, rng):
        lower, upper = ball.lower[[i]], ball.upper[[i]]
        near = trees.within(lower[0], upper[0])
        rivals = near.rivals(label)
        leads, _, _ = rivals.leads(near.reach(lower, upper))
        return cls(rivals.among(leads[0] >= rivals.limits), target, ball, i, rng)

    @property
    def trees(self):
        return self.rivals.trees

    def nearest(self, lower, upper):
        """Return the closest point of each box to the center."""
        return np.clip(self.ball.center[self.i], lower, upper)

    def vertices(self, lower, upper):
        """Return one random vertex of each box; for L2 pulled into the ball."""
        points = np.where(self.rng.random(lower.shape) < 0.5, lower, upper)
        if self.ball.norm == "l2":
            center = self.ball.center[self.i]
            step = (points - center) / np.maximum(self._lengths(points), 1)[:, None]
            points = np.clip(center + (1 - _ROUNDING) * step, lower, upper)
        return points

    def breaking(self, points):
        """Return the first of the points that breaks the property, or None."""
        # Asking `predict` is slow: our own scores tell where it is needed.
        for k in np.flatnonzero(~self.rivals.beaten(self.rivals.at(points))):
            if self.ball.holds(self.i, points[k]):
                point = torch.as_tensor(points[[k]])
                if self.target[[self.i]].replay(point).broken[0]:
                    return points[k]
        return None

    def touches(self, lower, upper):
        """Return which boxes may hold a point of the ball."""
        if self.ball.norm == "linf":
            return np.ones(len(lower), dtype=bool)
        return self._lengths(self.nearest(lower, upper)) <= 1 + _ROUNDING

    def _lengths(self, points):
        """Return L2 distances from the center in units of epsilon."""
        move = np.abs(points - self.ball.center[self.i])
        with np.errstate(divide="ignore", invalid="ignore"):
            move = np.where(move > 0, move / self.ball.epsilon, 0.0)
        return np.linalg.norm(move, axis=1)


_BATCH = 64  # boxes that are cut together, at most
_VERTICES = 256  # that are tried before the first cut


def _search_by_branching(question, watch, max_boxes):
    """Return a point that breaks the property, or the `Reason` why there is none to return.

    Boxes are cut at a threshold of the tree that says least about them, the most promising
    first, until every tree is in one leaf.
    """
    trees, ball, i = question.trees, question.ball, question.i
    lower, upper = ball.lower[[i]], ball.upper[[i]]
    many = np.repeat(lower, _VERTICES, axis=0), np.repeat(upper, _VERTICES, axis=0)
    found = question.breaking(question.vertices(*many))
    if found is not None:
        return found
    entries = 2 * len(trees.leaves) * len(question.rivals.classes)
    batch = max(1, min(_BATCH, _ENTRIES // max(1, entries)))
    queue, count, seen = [], itertools.count(), 0
    while True:
        found = _queue_open_boxes(question, lower, upper, queue, count)
        if found is not None:
            return found
        seen += len(lower)
        if not queue:
            return Reason.PROVED
        if watch.left == 0:
            return Reason.TIME_OUT
        if max_boxes is not None and seen >= max_boxes:
            return Reason.BOUNDS_TOO_LOOSE
        boxes = [heapq.heappop(queue)[2:] for _ in range(min(batch, len(queue)))]
        lower, upper = _halves(*(np.array(column) for column in zip(*boxes, strict=True)))


def _halves(lower, upper, feature, last):
    """Cut each box behind the number `last` of one feature; return what lies on both sides."""
    rows = np.arange(len(lower))
    left, right = upper.copy(), lower.copy()
    left[rows, feature] = last
    right[rows, feature] = np.nextafter(last, np.inf)
    return np.concatenate([lower, right]), np.concatenate([left, upper])


def _queue_open_boxes(question, lower, upper, queue, count):
    """Put the boxes that are still open into the queue, with where to cut them.

    Returns a point that breaks the property, or None.
    """
    rivals, touched = question.rivals, question.touches(lower, upper)
    lower, upper = lower[touched], upper[touched]
    if len(lower) == 0:
        return None
    reached = question.trees.reach(lower, upper)
    leads, most, least = rivals.leads(reached)
    is_open = ~rivals.beaten(leads)
    lower, upper, reached, leads = (v[is_open] for v in (lower, upper, reached, leads))
    if len(lower) == 0:
        return None
    tried = (
        question.nearest(lower, upper),
        lower / 2 + upper / 2,
        question.vertices(lower, upper),
    )
    found = question.breaking(np.concatenate(tried))
    if found is not None:
        return found
    cuts = _cuts(question.trees, reached, leads, (most - least)[is_open])
    feature, last = question.trees.feature[cuts], question.trees.last[cuts]
    for k in np.flatnonzero(cuts >= 0):
        place = (-leads[k].max(), next(count))
        heapq.heappush(queue, (*place, lower[k], upper[k], feature[k], last[k]))
    return None


def _cuts(trees, reached, leads, spread):
    """Return the node at which to cut each box; -1 where every tree is in one leaf.

    It is the first undecided one of the tree whose values differ most for the leading class.
    """
    undecided = reached[:, trees.left] & reached[:, trees.right] & (trees.feature >= 0)
    rows = np.arange(len(leads))
    spread = spread[rows, :, leads.argmax(axis=1)]
    node = np.where(undecided, spread[:, trees.tree_of], -1.0).argmax(axis=1)
    return np.where(undecided[rows, node], node, -1)


# ---- dtai-veritas ------------------------------------------------------------------------


def import_veritas():
    """Return the module veritas, or raise an ImportError that says how to install it."""
    try:
        import veritas
    except ImportError as error:
        raise ImportError(
            "TreeVerifier(method='veritas') needs the package dtai-veritas. Install it by: "
            "pip install 'skrobust[trees]'. method='branch' decides the same without it."
        ) from error
    return veritas


def _search_by_veritas(question, watch):
    """Return a point that breaks the property, a `Reason`, or None where veritas cannot tell."""
    veritas = import_veritas()
    lower, upper = question.ball.lower[question.i], question.ball.upper[question.i]
    # Its intervals do not hold their upper end.
    beyond = np.nextafter(upper, np.inf)
    box = [veritas.Interval(a, b) for a, b in zip(lower, beyond, strict=True)]
    for k, limit in enumerate(question.rivals.limits):
        config = veritas.Config(veritas.HeuristicType.MAX_OUTPUT)
        config.stop_when_num_solutions_exceeds = 1
        config.max_memory = 2**30
        config.ignore_state_when_worse_than = limit - question.trees.slack
        search = config.get_search(_as_addtree(veritas, question.rivals, k), box)
        reason = search.step_for(min(watch.left, 1e9), 100)
        if search.num_solutions() > 0:
            point = _solution_point(search.get_solution(0).box(), question)
            return question.breaking(point[None])
        if reason == veritas.StopReason.OUT_OF_TIME:
            return Reason.TIME_OUT
        if reason != veritas.StopReason.NO_MORE_OPEN:
            return None
    return Reason.PROVED


def _as_addtree(veritas, rivals, k):
    """Return the lead of rival k as a sum of trees."""
    trees = rivals.trees
    gain = dict(zip(trees.leaves.tolist(), rivals.gains[:, k].tolist(), strict=True))
    result = veritas.AddTree(1, veritas.AddTreeType.REGR)
    result.set_base_score(0, rivals.base[k])
    for root in trees.roots:
        tree = result.add_tree()
        stack = [(int(root), tree.root())]
        while stack:
            node, place = stack.pop()
            if node in gain:
                tree.set_leaf_value(place, 0, gain[node])
                continue
            # Its splits send what is smaller to the left.
            first_right = np.nextafter(trees.last[node], np.inf)
            tree.split(place, int(trees.feature[node]), float(first_right))
            stack.append((int(trees.left[node]), tree.left(place)))
            stack.append((int(trees.right[node]), tree.right(place)))
    return result


def _solution_point(box, question):
    """Return the point of a box of veritas that is closest to the center of the ball."""
    lower = question.ball.lower[question.i].copy()
    upper = question.ball.upper[question.i].copy()
    for feature, interval in box.items():
        lower[feature] = max(lower[feature], interval.lo)
        upper[feature] = min(upper[feature], np.nextafter(interval.hi, -np.inf))
    return question.nearest(lower, upper)
