"""Verification of decision trees and of ensembles of trees."""

from dataclasses import dataclass, replace

import numpy as np
import torch

from skrobust._validation import check_choice, check_integer, kind_of
from skrobust.attacks import confirm
from skrobust.exceptions import UnsupportedPropertyError
from skrobust.properties import ClassificationRobustness, Monotonicity
from skrobust.trees import (
    ExactBall,
    HalfSpaces,
    LeafBoxes,
    check_tree_model,
    in_parts,
    is_single_tree,
    leaf_boxes,
    leaf_distances,
    read_trees,
)
from skrobust.verification._base import Stopwatch, Verifier
from skrobust.verification._result import Reason, Verdict, VerificationBuilder
from skrobust.verification._steps import Encoding, Step, decide_in_steps
from skrobust.verification._tree_evidence import Cuts, cuts_of_tree
from skrobust.verification._tree_lines import check_line, decide_along
from skrobust.verification._tree_search import Question, search

__all__ = ["TreeVerifier"]

_CHUNK = 16  # points of one job of the search: each job is handed the ensemble


@dataclass(frozen=True, eq=False)
class TreeEncoding(Encoding):
    """Trees and a property; the graph is a `~skrobust.trees.TreeEnsemble`.

    Parameters
    ----------
    boxes : LeafBoxes or None
        The leaves of a single tree, for the closed form.
    half_spaces : HalfSpaces or None, default=None
        Of which points are asked, in the search.
    """

    boxes: LeafBoxes | None
    half_spaces: HalfSpaces | None = None

    def under(self, A, b):
        """Return the encoding of the points with A x <= b alone."""
        return replace(self, half_spaces=HalfSpaces(A, b))


class TreeVerifier(Verifier):
    """Decides classification robustness of trees and ensembles of trees.

    For a DecisionTreeClassifier the answer is exact, in closed form. For ensembles, bounds come
    first: for each tree the leaves that the ball reaches, and the largest lead of another class
    among them, summed over the trees. What they leave open is attacked by random vertices of
    the ball, and then decided by branch and bound over the thresholds, which is complete.

    Parameters
    ----------
    method : {"branch", "bounds"}, default="branch"
        Whether ensembles that bounds and random points do not decide are searched by branch and
        bound.
    max_boxes : int or None, default=None
        Largest number of boxes that branch and bound looks at for one point; None for no limit
        but the time.

    Notes
    -----
    It treats scikit-learn's decision trees, forests, extra trees and gradient boosting,
    XGBClassifier of XGBoost and LGBMClassifier of LightGBM, searches over these, and pipelines
    whose other steps change each column by itself, such as scalers: thresholds are then those of
    the raw columns, to the last bit.

    The property is broken where the estimator's `predict` returns another label; of tied scores
    the one it returns counts. Every counterexample is confirmed by `predict`. Points are float64
    numbers, which scikit-learn and XGBoost round to float32. Linear constraints between features,
    of a `~skrobust.properties.Domain`, cut the boxes of branch and bound by linear programs; a box
    is left out only where their multipliers prove that it holds no valid point.

    References
    ----------
    Devos et al., "Versatile verification of tree ensembles", ICML 2021.

    Examples
    --------
    >>> from sklearn.tree import DecisionTreeClassifier
    >>> from skrobust.properties import ClassificationRobustness, Monotonicity
    >>> from skrobust.verification import TreeVerifier
    >>> tree = DecisionTreeClassifier().fit([[0.0], [1.0]], [0, 1])
    >>> property = ClassificationRobustness(0.1)
    >>> result = TreeVerifier().verify(tree, [[0.2], [0.45]], [0, 0], property=property)
    >>> result.verdicts.tolist()
    ['verified', 'falsified']
    """

    def __init__(self, method="branch", *, max_boxes=None):
        self.method = method
        self.max_boxes = max_boxes

    def check(self):
        check_choice("method", self.method, ("branch", "bounds"))
        if self.max_boxes is not None:
            check_integer("max_boxes", self.max_boxes, low=1)
        return self

    def accepts(self, network, property):
        check_tree_model(network)
        if isinstance(property, Monotonicity):
            check_line(property)
        elif not isinstance(property, ClassificationRobustness):
            raise UnsupportedPropertyError(
                f"Got {kind_of(property)}, but TreeVerifier treats ClassificationRobustness, "
                "IndividualFairness and Monotonicity: the outputs of trees are steps."
            )

    def encode(self, network, property, n_features=None):
        encoding = super().encode(network, property, n_features)
        trees = encoding.graph
        # Constraints leave a part of a leaf, of which the closed form says nothing.
        is_plain = getattr(property.bounds, "rows", None) is None
        boxes = leaf_boxes(trees) if is_plain and is_single_tree(network) else None
        return TreeEncoding(network, property, trees, boxes)

    def _graph(self, network, n_features):
        return read_trees(network)

    def steps(self, encoding):
        if isinstance(encoding.property, Monotonicity):
            return [Step(self.name, encoding, decide_along, "bounds")]
        together = Step(self.name, encoding, _decide_together, "bounds")
        if encoding.boxes is not None:
            return [together]
        return [together, Step(self.name, encoding, self.search, chunk_size=_CHUNK)]

    def decide(self, encoding, x, labels=None, *, timeout=None, generator=None):
        steps = self.steps(encoding)
        return decide_in_steps(steps, x.double(), labels, timeout=timeout, generator=generator)

    def search(self, encoding, x, labels=None, *, timeout=None, generator=None):
        """Decide points that bounds leave open, one by one; arguments as of `decide`."""
        questions = _Batch.ask(encoding, x, labels)
        verdicts = VerificationBuilder(questions.target.x)
        seed = torch.empty((), dtype=torch.int64).random_(generator=generator).item()
        rng = np.random.default_rng(seed)
        max_boxes = 1 if self.method == "bounds" else self.max_boxes
        # `predict` costs less for many points than for one: it is asked about what was found, and
        # one by one where that surprises.
        open_index = verdicts.undecided_index
        for asks in (False, True):
            points = {}
            for i in open_index:
                watch = Stopwatch(timeout)
                args = (questions.target, questions.ball, int(questions.labels[i]), i, rng, asks)
                cuts = Cuts() if encoding.keeps_proofs else None
                question = Question.ask(encoding.graph, *args, encoding.half_spaces)
                answer = search(question, watch, max_boxes, cuts)
                if isinstance(answer, np.ndarray):
                    points[i] = answer
                elif answer is Reason.PROVED:
                    verdicts.prove([i], 1.0)
                    verdicts.evidence[i] = "" if cuts is None else cuts.arrays()
                else:
                    verdicts.reasons[i] = answer
                verdicts.seconds[i] += watch.elapsed
            index = np.array(list(points), dtype=int)
            if len(index):
                _replay(verdicts, questions.target, index, np.array(list(points.values())))
            open_index = index[verdicts.verdicts[index] == Verdict.UNKNOWN]
        return verdicts.result()


@dataclass(frozen=True, eq=False)
class _Batch:
    """Points that one encoding is asked about."""

    target: object
    ball: ExactBall
    labels: np.ndarray

    @classmethod
    def ask(cls, encoding, x, labels):
        x = x.double()
        target = encoding.target(x, labels)
        property, n_classes = encoding.property, len(encoding.network.classes)
        is_plain = type(property) is ClassificationRobustness and property.reference == "label"
        if is_plain and labels is not None:
            # Labels are given: how many classes there are is all that counts.
            target = target.referring_to(x.new_zeros(len(x), n_classes))
        labels = property.reference_labels(target.anchor_logits, labels)
        ball = ExactBall.around(x.cpu().numpy(), property)
        return cls(target, ball, labels.cpu().numpy())


def _decide_together(encoding, x, labels=None, *, timeout=None, generator=None):
    """Decide points by the closed form, or by bounds, all at once.

    `predict` is asked about witnesses alone: a label that the point itself does not have is that
    of no leaf at distance 0, and no bound of its ball proves it.
    """
    watch, batch = Stopwatch(), _Batch.ask(encoding, x, labels)
    verdicts = VerificationBuilder(batch.target.x)
    if encoding.boxes is not None:
        _decide_by_distance(verdicts, encoding.boxes, batch)
        if encoding.keeps_proofs:
            ball = batch.ball
            for i in np.flatnonzero(verdicts.verdicts == Verdict.VERIFIED):
                verdicts.evidence[i] = cuts_of_tree(encoding.graph, ball.lower[i], ball.upper[i])
    else:
        _decide_by_bounds(verdicts, encoding.graph, batch)
    verdicts.seconds[:] = watch.elapsed / max(1, len(x))
    return verdicts.result()


def _replay(verdicts, target, index, points):
    """Enter the points that break the property by `predict` as counterexamples.

    They lie in exact balls; the one of a `Target` is a little smaller.
    """
    points = torch.as_tensor(points)
    outcome = confirm(target[torch.as_tensor(index)], points, project=False)
    verdicts.falsify(index, outcome.points, outcome.broken)


def _decide_by_distance(verdicts, boxes, batch):
    ball, index = batch.ball, verdicts.undecided_index
    proved, witnesses, places = [], [], []
    for part in in_parts(len(index), len(boxes.feature)):
        rows = index[part]
        distances = leaf_distances(
            boxes, ball.center[rows], ball.lower[rows], ball.upper[rows], ball.epsilon, ball.norm
        )
        distances[boxes.labels == batch.labels[rows, None]] = np.inf
        for i, row in zip(rows, distances, strict=True):
            witness = _nearest_point(boxes, ball, i, row)
            if witness is None:
                proved.append(i)
            else:
                places.append(i)
                witnesses.append(witness)
    verdicts.prove(np.array(proved, dtype=int), 1.0)
    if places:
        places = np.array(places)
        _replay(verdicts, batch.target, places, np.array(witnesses))
        unconfirmed = places[verdicts.verdicts[places] == "unknown"]
        verdicts.reasons[unconfirmed] = Reason.SPURIOUS


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
    """Round the moved entries inwards to float32, where the ball has room.

    Optional: such a point stays a counterexample after a cast to float32.
    """
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


def _decide_by_bounds(verdicts, trees, batch):
    ball, index = batch.ball, verdicts.undecided_index
    entries = len(trees.leaves) * len(trees.base) + len(trees.feature)
    for label in np.unique(batch.labels[index]):
        same, rivals = index[batch.labels[index] == label], trees.rivals(label)
        for part in in_parts(len(same), entries):
            rows = same[part]
            leads, _, _ = rivals.leads(trees.reach(ball.lower[rows], ball.upper[rows]))
            verdicts.prove(rows[rivals.beaten(leads)], 1.0)
