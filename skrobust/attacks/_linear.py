"""The linearised attack of Hein and Andriushchenko."""

import torch

from skrobust._validation import check_integer, check_real
from skrobust.attacks._base import Attack
from skrobust.attacks._boundary import closer, rounding
from skrobust.attacks._rows import row_gradients

__all__ = ["LinearBoundary"]

_STRIDE = 3.0  # by which the aim moves beyond the boundary after each step that fell short
_INSIDE = 1 - 2e-6  # scaled norm up to which `Ball.project` leaves a point as it is
_TINY = 1e-300  # keeps features that cannot move, of speed 0, from 0 / 0
_HALVINGS = 40  # of the weight between two norms: far below the rounding of float32 points


class LinearBoundary(Attack):
    r"""The closest point that breaks the linearised property, exactly, and again from there.

    For each row r of the property (for classification robustness: each other class) solves

    .. math:: \min_d \|d\|_p \quad \text{such that} \quad
              r(x) + \nabla r(x)^\top (\hat x + d - x) \le 0, \quad \hat x + d \in \text{ball},

    moves to the closest solution of all rows, and linearises again at that point. The closest
    point that breaks the property itself is kept. For a linear network the first step finds
    the optimum.

    Parameters
    ----------
    n_steps : int, default=10
        Linearisations; the paper takes one.
    overshoot : float, default=1e-3
        How far beyond zero a row is aimed at, relative to its value at the reference point, so
        that the network confirms the violation in its own precision. It triples with every
        step until one breaks the property. `closest` takes this part back by bisection.

    Notes
    -----
    The part of the decrease of a row that a budget t buys, :math:`\sum_i |g_i| \min(t s_i,
    b_i)` with s = 1 for L-infinity, s = \|g\| for L2 and room b up to the box, is concave and
    piecewise linear in t. Sorting its breakpoints :math:`b_i / s_i` gives the exact solution.

    All steps are taken whether or not the property is broken: the aim is the closest point.

    Where no point of the ball breaks the linearised property, the attack goes to the point
    where the row is lowest. It does so first for rows that depend on the distance (Lipschitz
    robustness): these hold with equality at the reference point, so that their linearisation
    there says nothing of how far to go.

    References
    ----------
    Hein and Andriushchenko, "Formal guarantees on the robustness of a classifier against
    adversarial manipulation", NIPS 2017, section 4 (box-constrained generation).

    Examples
    --------
    >>> from sklearn.linear_model import LogisticRegression
    >>> from skrobust.attacks import LinearBoundary
    >>> from skrobust.properties import ClassificationRobustness
    >>> X, y = [[0.2], [0.4], [0.6], [0.8]], [0, 0, 1, 1]
    >>> model = LogisticRegression(C=1e3).fit(X, y)
    >>> found = LinearBoundary().perturb(model, X, y, property=ClassificationRobustness(0.5))
    >>> found.round(2).ravel()
    array([0.5, 0.5, 0.5, 0.5])
    >>> model.predict(found)
    array([1, 1, 0, 0])
    """

    def __init__(self, n_steps=10, *, overshoot=1e-3):
        self.n_steps = n_steps
        self.overshoot = overshoot

    def check(self):
        check_integer("n_steps", self.n_steps, low=1)
        check_real("overshoot", self.overshoot, low=0)
        return self

    def attempt(self, target, *, generator=None, stop_when_broken=True):
        beyond = self._beyond(target)
        farther = torch.ones_like(beyond[:, :1])
        x, best = target.x, None
        for _ in range(self.n_steps):
            # Distance has no gradient at the reference: see the notes.
            farthest = best is None and target.conclusion.uses_distance
            x = _closest_linearised(target, x, beyond * farther, farthest)
            seen = target.outcome_at(x)
            best = seen if best is None else closer(target.ball, best, seen)[0]
            # Steps that all fall short of a curved boundary would stay short of it.
            missed = ~best.broken.unsqueeze(1)
            farther = torch.where(missed, farther * _STRIDE, 1.0)
        return best

    def _beyond(self, target):
        """How far below zero each row is aimed at, (n, m)."""
        distance = target.x.new_zeros(len(target))
        values = target.conclusion.values(target.reference_logits, distance)
        # Not below what rounding can undo.
        return torch.maximum(self.overshoot * values.abs(), rounding(target).unsqueeze(1)).double()


def _closest_linearised(target, x, beyond, farthest):
    """Return the closest points that break a row of the property, as linearised at `x`."""
    ball = target.ball
    center = ball.center.double()
    offset = x.double() - center
    # Halfway back, if every row's linearisation is broken at the reference, where it is not.
    best_move = offset / 2
    best_reached = torch.zeros(len(x), dtype=torch.bool, device=x.device)
    best_rank = offset.new_full((len(x),), torch.inf)
    linf = ball.norm == "linf"
    values, gradients = row_gradients(target, x)
    values = values.double().unbind(dim=1)
    for value, gradient, aim in zip(values, gradients, beyond.unbind(dim=1), strict=True):
        gradient = gradient.double()
        need = value - (gradient * offset).sum(dim=1) + aim
        # Without the box the move would have this length: no need to solve what cannot win.
        least = need / torch.linalg.vector_norm(gradient, ord=1 if linf else 2, dim=1)
        index = ((need > 0) & ~(best_reached & (least >= best_rank))).nonzero().squeeze(1)
        move, rank, reached = _candidate(ball[index], gradient[index], need[index], farthest)
        tie, lower = reached == best_reached[index], rank < best_rank[index]
        better = (reached & ~best_reached[index]) | (tie & lower)
        index = index[better]
        best_move[index], best_rank[index] = move[better], rank[better]
        best_reached[index] = reached[better]
    return ball.project((center + best_move).to(x.dtype))


def _candidate(ball, gradient, need, farthest):
    """Return the best move for one row, its rank, and whether it takes the row to its aim.

    The rank is the length of the move where it does, else the value the row is left with.
    """
    move, length, reached = _closest_move(ball, gradient, need)
    reached &= not farthest
    steepest = ball.step(ball.center, -gradient.to(ball.center.dtype), 1.0)
    lowest = steepest.double() - ball.center.double()
    move = torch.where(reached.unsqueeze(1), move, lowest)
    return move, torch.where(reached, length, need + (gradient * lowest).sum(dim=1)), reached


def _closest_move(ball, gradient, need):
    """Solve min norm(d) such that gradient d <= -need, within the ball, exactly.

    Returns
    -------
    move : Tensor of shape (n, n_features)
    length : Tensor of shape (n,)
        Its norm.
    reached : bool Tensor of shape (n,)
        Whether it is a solution; not where there is none, or `need` is not above 0.
    """
    upward = gradient < 0
    edge = torch.where(upward, ball.upper, ball.lower).double()
    slope = gradient.abs()
    room = (edge - ball.center.double()).abs() * (slope > 0)
    if ball.norm == "linf":
        size, reached = _spend(slope, torch.ones_like(slope), room, need)
        length = size.amax(dim=1)
    else:
        size, reached = _spend(slope, slope, room, need)
        size, reached = _within_ellipsoid(ball, slope, room, need, size, reached)
        length = torch.linalg.vector_norm(size, dim=1)
    return torch.where(upward, size, -size), length, reached & (need > 0)


def _spend(slope, speed, room, need):
    """Return size = min(t * speed, room) for the least t with sum(slope * size) >= need.

    Also returns whether there is such a t. All arguments have shape (n, n_features), but for
    `need`, of shape (n,).
    """
    need = need.unsqueeze(1)
    # The sum is concave and piecewise linear in t, with a break where a feature meets its edge.
    breaks, order = (room / speed.clamp(min=_TINY)).sort(dim=1)
    rate, gain = (slope * speed).gather(1, order), (slope * room).gather(1, order)
    before = gain.cumsum(dim=1) - gain
    after = rate.flip(1).cumsum(dim=1).flip(1)
    sums = before + breaks * after
    piece = torch.searchsorted(sums, need).clamp(max=sums.shape[1] - 1)
    before, after = before.gather(1, piece), after.gather(1, piece)
    t = torch.where(after > 0, (need - before).clamp(min=0.0) / after, 0.0)
    return torch.minimum(t * speed, room), (sums[:, -1:] >= need).squeeze(1)


def _within_ellipsoid(ball, slope, room, need, size, reached):
    """Cut the solution of the box to the L2 ball, which is an ellipsoid for unequal epsilons.

    With a multiplier for the ellipsoid, the closest point is the one of a weighted norm,
    between the plain one (share 0) and the ellipsoid's own (share 1): bisect the share.
    """
    outside = _scaled_norm(ball, size) > _INSIDE
    radius = ball.epsilon.double().expand_as(slope)
    smallest = torch.where(radius > 0, radius, torch.inf).amin(dim=1, keepdim=True)
    is_uneven = (smallest < radius.amax(dim=1, keepdim=True)).squeeze(1)
    if not (outside & is_uneven).any():
        return size, reached & ~outside
    low, high = torch.zeros_like(need), torch.ones_like(need)
    inverse = torch.where(radius > 0, smallest / radius, 1.0) ** 2

    def solve(share):
        weight = 1 + share.unsqueeze(1) * (inverse - 1)
        return _spend(slope, slope / weight, room, need)

    cut, _ = solve(high)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        tried, _ = solve(middle)
        inside = _scaled_norm(ball, tried) <= _INSIDE
        low, high = torch.where(inside, low, middle), torch.where(inside, middle, high)
        cut = torch.where(inside.unsqueeze(1), tried, cut)
    size = torch.where(outside.unsqueeze(1), cut, size)
    return size, reached & (_scaled_norm(ball, size) <= _INSIDE)


def _scaled_norm(ball, size):
    return torch.linalg.vector_norm(torch.where(size > 0, size / ball.epsilon, 0.0), dim=1)
