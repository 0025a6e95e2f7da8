"""Verification of decision trees and of ensembles of trees."""

import heapq
import itertools
from dataclasses import dataclass

import numpy as np
import torch

from skrobust._validation import check_choice, check_integer
from skrobust.attacks import confirm
from skrobust.exceptions import UnsupportedPropertyError
from skrobust.networks import BlackBox, Model
from skrobust.properties import ClassificationRobustness
from skrobust.trees import (
    ENTRIES,
    ExactBall,
    LeafBoxes,
    Rivals,
    in_parts,
    leaf_boxes,
    leaf_distances,
    read_decision_tree,
    reader,
    unwrapped,
)
from skrobust.verification._base import Stopwatch, Verifier
from skrobust.verification._result import Reason, Verification

__all__ = ["TreeVerifier", "import_veritas"]


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
        reader(network)
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
        if not isinstance(network, Model):
            reader(network)
            network = BlackBox(network)
        return super().encode(network, property, n_features)

    def _graph(self, network, n_features):
        trees = reader(network)(unwrapped(network))
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
    return reader(network) is read_decision_tree


def _replay(result, target, index, points):
    """Enter the points that break the property by `predict` as counterexamples.

    They lie in exact balls; the one of a `Target` is a little smaller.
    """
    points = torch.as_tensor(points)
    outcome = confirm(target[torch.as_tensor(index)], points, project=False)
    return result.falsify(index, outcome.points, outcome.broken)


def _decide_by_distance(result, boxes, target, ball, labels, index):
    proved, witnesses, places = [], [], []
    for part in in_parts(len(index), len(boxes.feature)):
        rows = index[part]
        distances = leaf_distances(
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


def _decide_by_bounds(result, trees, ball, labels, index):
    entries = len(trees.leaves) * len(trees.base) + len(trees.feature)
    for label in np.unique(labels[index]):
        same, rivals = index[labels[index] == label], trees.rivals(label)
        for part in in_parts(len(same), entries):
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
    batch = max(1, min(_BATCH, ENTRIES // max(1, entries)))
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
