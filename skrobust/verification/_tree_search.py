"""Branch and bound over the thresholds of an ensemble of trees, around one point."""

import heapq
from dataclasses import dataclass, field

import numpy as np
import torch

from skrobust.trees import ExactBall, HalfSpaces, Rivals, rows_at_once
from skrobust.verification._result import Reason

__all__ = ["Question", "search"]

_ROUNDING = 1e-9  # of relative distances; what lies within it of 1 is computed exactly


@dataclass(frozen=True, eq=False)
class Question:
    """Whether an ensemble, cut to ball i, leaves a label there.

    Parameters
    ----------
    rivals : Rivals
        That bounds on the whole ball do not beat.
    target : Target
    ball : ExactBall
    i : int
    rng : numpy.random.Generator
    asks : bool, default=True
        Whether `predict` is asked about each point that may break the property; else only where
        rounding could hide what it says.
    half_spaces : HalfSpaces or None, default=None
        Constraints on the points of which is asked.
    touching : list
        Boxes without further thresholds of which the constraints leave a point or none: rounding
        hides which. The search fills it.
    """

    rivals: Rivals
    target: object
    ball: ExactBall
    i: int
    rng: np.random.Generator
    asks: bool = True
    half_spaces: HalfSpaces | None = None
    touching: list = field(default_factory=list)

    @classmethod
    def ask(cls, trees, target, ball, label, i, rng, asks=True, half_spaces=None):
        lower, upper = ball.lower[[i]], ball.upper[[i]]
        near = trees.within(lower[0], upper[0])
        rivals = near.rivals(label)
        leads, _, _ = rivals.leads(near.reach(lower, upper))
        rivals = rivals.among(leads[0] >= rivals.limits)
        return cls(rivals, target, ball, i, rng, asks, half_spaces)

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

    def climbed(self, lower, upper):
        """Return a vertex of one box with a lead that no change of one coordinate raises."""
        inner = self.trees.feature >= 0
        features = np.unique(self.trees.feature[inner])
        index, n_starts = np.arange(len(features)), 16
        sides = (np.repeat(side[None], n_starts, axis=0) for side in (lower, upper))
        points, height = self.vertices(*sides), -np.inf
        point = points[0]
        while True:
            heights = (self.rivals.at(points) - self.rivals.limits).max(axis=1)
            if heights.max() <= height:
                return point
            point, height = points[heights.argmax()], heights.max()
            turned = np.repeat(point[None], len(features), axis=0)
            is_low = point[features] == lower[features]
            turned[index, features] = np.where(is_low, upper[features], lower[features])
            heights = (self.rivals.at(turned) - self.rivals.limits).max(axis=1)
            together = point.copy()
            rises = heights > height
            together[features[rises]] = turned[index, features][rises]
            points = np.stack([turned[heights.argmax()], together])

    def breaking(self, points):
        """Return the first of the points that breaks the property, or None."""
        # Asking `predict` is slow: our own scores tell where it is needed.
        leads = self.rivals.at(points)
        is_sure = self.rivals.surely_lead(leads) & (not self.asks)
        for k in np.flatnonzero(~self.rivals.beaten(leads)):
            if self.holds(points[k]):
                if is_sure[k]:
                    return points[k]
                point = torch.as_tensor(points[[k]])
                if self.target[[self.i]].replay(point).broken[0]:
                    return points[k]
        return None

    def holds(self, point):
        """Return whether a point is one of those of which is asked."""
        if self.half_spaces is not None and not self.half_spaces.hold(point[None])[0]:
            return False
        return self.ball.holds(self.i, point)

    def valid_points(self, lower, upper):
        """Return which boxes may hold a valid point, and one of each; NaN where none is known."""
        points = np.full(lower.shape, np.nan)
        may_hold = np.ones(len(lower), dtype=bool)
        if self.half_spaces is not None:
            for k in range(len(lower)):
                point, is_empty = self.half_spaces.point_in(lower[k], upper[k])
                may_hold[k] = not is_empty
                points[k] = np.nan if point is None else point
        return may_hold, points

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
_VERTICES = (8, 56)  # that are tried before the first cut, one lot after the other
_CLIMB = 10  # boxes until a vertex is looked for by turning coordinates, and the factor of more
_TRIED = 16  # of the boxes that are cut together, those whose points are tried


def search(question, watch, max_boxes, cuts=None):
    """Return a point that breaks the property, or the `Reason` why there is none to return.

    Boxes are cut at a threshold of the tree that says least about them, the most promising
    first, until every tree is in one leaf. Where there is a `Cuts`, it is told.
    """
    trees, ball, i = question.trees, question.ball, question.i
    lower, upper = ball.lower[[i]], ball.upper[[i]]
    tried = ball.center[[i]]  # which may have another label itself
    for n in _VERTICES:
        many = np.repeat(lower, n, axis=0), np.repeat(upper, n, axis=0)
        point = question.breaking(np.concatenate([tried, question.vertices(*many)]))
        if point is not None:
            return point
        tried = tried[:0]
    entries = 2 * len(trees.leaves) * len(question.rivals.classes)
    batch = min(_BATCH, rows_at_once(entries))
    queue, numbers, seen, climb_at = [], np.zeros(1, dtype=int), 0, _CLIMB
    while True:
        point = _queue_open_boxes(question, lower, upper, queue, numbers)
        if point is not None:
            return point
        seen += len(lower)
        if not queue:
            return Reason.SPURIOUS if question.touching else Reason.PROVED
        if watch.left == 0:
            return Reason.TIME_OUT
        if max_boxes is not None and seen >= max_boxes:
            return Reason.BOUNDS_TOO_LOOSE
        if seen >= climb_at and ball.norm == "linf":
            point = question.breaking(question.climbed(ball.lower[i], ball.upper[i])[None])
            if point is not None:
                return point
            climb_at *= _CLIMB
        boxes = [heapq.heappop(queue)[1:] for _ in range(min(batch, len(queue)))]
        cut, *boxes = (np.array(column) for column in zip(*boxes, strict=True))
        if cuts is not None:
            cuts.cut(cut, *boxes[2:], seen)
        lower, upper = _halves(*boxes)
        numbers = seen + np.arange(len(lower))


def _halves(lower, upper, feature, last):
    """Cut each box behind the number `last` of one feature; return what lies on both sides."""
    rows = np.arange(len(lower))
    left, right = upper.copy(), lower.copy()
    left[rows, feature] = last
    right[rows, feature] = np.nextafter(last, np.inf)
    return np.concatenate([lower, right]), np.concatenate([left, upper])


def _queue_open_boxes(question, lower, upper, queue, numbers):
    """Put the boxes that are still open into the queue, with where to cut them.

    Returns a point that breaks the property, or None.
    """
    rivals, touched = question.rivals, question.touches(lower, upper)
    lower, upper, numbers = lower[touched], upper[touched], numbers[touched]
    if len(lower) == 0:
        return None
    reached = question.trees.reach(lower, upper)
    leads, most, least = rivals.leads(reached)
    is_open = ~rivals.beaten(leads)
    may_hold, inside = question.valid_points(lower[is_open], upper[is_open])
    is_open[is_open] = may_hold
    parts = (lower, upper, reached, leads, numbers, most - least)
    lower, upper, reached, leads, numbers, spread = (part[is_open] for part in parts)
    inside = inside[may_hold]
    if len(lower) == 0:
        return None
    cuts = _cuts(question.trees, reached, leads, spread)
    # Where nothing is left to cut, one point stands for all of the box.
    is_tried = cuts < 0
    is_tried[np.argsort(-leads.max(axis=1))[:_TRIED]] = True
    low, high = lower[is_tried], upper[is_tried]
    tried = [question.nearest(low, high), low / 2 + high / 2, question.vertices(low, high)]
    if question.half_spaces is not None:
        is_known = ~np.isnan(inside).any(axis=1)
        tried.append(inside[is_known])
        question.touching.extend(lower[(cuts < 0) & ~is_known])
    point = question.breaking(np.concatenate(tried))
    if point is not None:
        return point
    feature, last = question.trees.feature[cuts], question.trees.last[cuts]
    for k in np.flatnonzero(cuts >= 0):
        place = (-leads[k].max(), int(numbers[k]))
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
