r"""Branch and bound over the inputs of a network, many boxes at a time.

Where few inputs move, halving their ranges soon leaves no unit undecided, and needs nothing of
the network but its bounds. Each box is bounded by CROWN, with intervals of its own, and cut in
two where that is likely to gain most: across the input whose width times slope in the lowest row
is largest.

References
----------
Wang et al., "Formal security analysis of neural networks using symbolic intervals", USENIX
Security 2018. Bunel et al., "Branch and bound for piecewise linear neural network verification",
JMLR 2020 (smart branching on inputs).
"""

from dataclasses import dataclass, replace

import torch

from skrobust.balls import Ball
from skrobust.bounds import crown, relax
from skrobust.verification._domains import Batch, Stack

__all__ = ["Boxes", "branch_inputs"]

_BATCH = 256
_FINEST = 2.0**-40  # of a side of the ball, below which none is halved


@dataclass(frozen=True, eq=False)
class Boxes(Batch):
    """P boxes.

    Parameters
    ----------
    low, high : Tensor of shape (P, n_features)
        Their sides.
    lows, highs : dict of int to Tensor of shape (P, *shape)
        Intervals of what piecewise nodes read, which hold for halves, too.
    margins : Tensor of shape (P, r)
        Proved lower bounds of what is asked in each of r problems.
    axis : int Tensor of shape (P,)
        The input to halve next; -1 where that is of no use.
    place : int Tensor of shape (P,)
        Number of the box in the tree, in the order in which boxes are made.
    parent : int Tensor of shape (P,)
        Place of the box that it is a half of; -1 for the whole ball.
    """

    low: torch.Tensor
    high: torch.Tensor
    lows: dict
    highs: dict
    margins: torch.Tensor
    axis: torch.Tensor
    place: torch.Tensor
    parent: torch.Tensor


def branch_inputs(problem, *, batch_size, memory_limit, watch, visit, recording=None):
    """Prove the rows, or find where they fail, as `branch` does.

    Parameters
    ----------
    problem : Problem
        Over a box, with rows that are free of the distance.
    batch_size, memory_limit, watch, visit, recording
        See `branch`.

    Returns
    -------
    status : {"proved", "end", "limit", "stuck"}
    lower : Tensor of shape (r,)
        Proved lower bounds of the margins.
    """
    stack, stuck, closed = Stack(memory_limit), [], problem.rows.new_full((1, 1), torch.inf)
    closed = closed.expand(1, len(problem.rows))
    size = min(_BATCH, batch_size or _BATCH)
    stack.push(_first(problem))
    n_places = 1

    def lowest(*parts):
        rest = [part.margins for part in (*parts, *stack.parts, *stuck)]
        return torch.cat([closed, *rest]).amin(dim=0)

    while stack:
        if watch.left == 0:
            return "limit", lowest()
        boxes = stack.take(min(size, watch.domains_left))
        boxes, points = _bound(problem, boxes, watch, recording)
        watch.count(len(boxes))
        index = (boxes.margins < 0).any(dim=1).nonzero().squeeze(1)
        boxes, points = boxes[index], points[index]
        if len(boxes) == 0:
            continue
        if visit(points.flatten(0, 1)):
            return "end", lowest(boxes)
        is_leaf = boxes.axis < 0
        if is_leaf.any():
            stuck.append(boxes[is_leaf])
        inner = boxes[~is_leaf]
        if len(inner):
            # The lowest last: they are taken first, where counterexamples are.
            inner = inner[inner.margins.amin(dim=1).argsort(descending=True)]
            halves = _halved(inner, n_places)
            if recording is not None:
                recording.halve(halves, inner.axis)
            stack.push(halves)
            n_places += 2 * len(inner)
    return "stuck" if stuck else "proved", lowest()


def _first(problem):
    root = problem.root
    ball, zero = root.ball, torch.zeros(1, dtype=torch.long, device=problem.rows.device)
    margins = problem.rows.new_full((1, len(problem.rows)), -torch.inf)
    lows, highs = ({j: side[j] for j in root.sources} for side in (root.lows, root.highs))
    return Boxes(ball.lower, ball.upper, lows, highs, margins, zero - 1, zero, zero - 1)


def _bound(problem, boxes, watch, recording=None):
    """Bound boxes; return them, and points where their rows may fail, of shape (P, 2, n)."""
    ball = problem.root.ball
    middle = (boxes.low + boxes.high) / 2
    here = Ball(middle, ball.epsilon, "linf", boxes.low, boxes.high)
    n_problems, n_rows, n_outputs = problem.rows.shape
    rows = problem.rows.view(1, -1, n_outputs).expand(len(boxes), -1, -1)
    shift = problem.shift.view(1, -1).expand(len(boxes), -1)
    with torch.no_grad():
        known, trace = {j: (boxes.lows[j], boxes.highs[j]) for j in boxes.lows}, {}
        built = relax(problem.root.graph, here, known=known, watch=watch)
        lower = crown(built, rows, shift=shift, trace=trace).nan_to_num(-torch.inf)
        which = torch.arange(n_problems, device=lower.device).repeat(len(boxes))
        margins = problem.margin(lower.view(-1, n_rows), which).view(len(boxes), n_problems)
        # Where intervals contradict each other there is no point.
        margins = torch.where(built.empty[:, None], torch.inf, margins)
        if recording is not None:
            rows_of = lower.view(len(boxes), n_problems, n_rows).argmax(dim=2)
            recording.close_boxes(boxes, (margins >= 0) & (boxes.margins < 0), rows_of)
        margins = torch.fmax(boxes.margins, margins)
        worst = margins.argmin(dim=1) * n_rows
        within = lower.view(len(boxes), n_problems, n_rows).argmin(dim=2)
        worst = worst + within.gather(1, margins.argmin(dim=1, keepdim=True)).squeeze(1)
        slopes = trace[0][torch.arange(len(boxes), device=lower.device), worst]
        corner = torch.where(slopes > 0, boxes.low, boxes.high)
        axis = _axis(ball, boxes, slopes, built, n_rows > 1)
    points = torch.stack([corner, middle], dim=1)
    lows, highs = ({j: side[j] for j in known} for side in (built.lows, built.highs))
    return replace(boxes, lows=lows, highs=highs, margins=margins, axis=axis), points


def _axis(ball, boxes, slopes, built, is_joint):
    """Return which input to halve; -1 where that is of no use.

    It is none where all sides are too short; nor where all units are decided, since the bound of
    a row is its minimum there, but for rows that are asked jointly.
    """
    width = boxes.high - boxes.low
    is_long = width > _FINEST * (ball.upper - ball.lower)
    gain = torch.where(is_long, slopes.abs() * width, -1.0)
    # A row that does not change with the input at hand may well do so in a half.
    gain = torch.where(is_long & (gain == 0), width * 1e-300, gain)
    most, axis = gain.max(dim=1)
    is_open = torch.full_like(axis, is_joint, dtype=torch.bool)
    for lines in built.lines.values():
        is_open |= lines.open.flatten(1).any(dim=1)
    return torch.where((most >= 0) & is_open, axis, -1)


def _halved(boxes, first):
    """Return both halves of each box; the first of them has the place `first`."""
    at = torch.arange(len(boxes), device=boxes.axis.device)
    cut = (boxes.low[at, boxes.axis] + boxes.high[at, boxes.axis]) / 2
    low, high = boxes.low.clone(), boxes.high.clone()
    low[at, boxes.axis], high[at, boxes.axis] = cut, cut
    places = first + torch.arange(2 * len(boxes), device=at.device).view(2, -1)
    return Boxes.join(
        [
            replace(boxes, high=high, place=places[0], parent=boxes.place),
            replace(boxes, low=low, place=places[1], parent=boxes.place),
        ]
    )
