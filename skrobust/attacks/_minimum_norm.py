"""The fast minimum-norm attack: a walk in a ball whose radius follows the boundary."""

import math

import torch

from skrobust._validation import check_choice, check_integer, check_real
from skrobust.attacks._base import Attack
from skrobust.attacks._boundary import beyond_rounding, closer, rounding
from skrobust.attacks._gradients import finite_or_zero, input_gradient
from skrobust.attacks._rows import row_gradients

__all__ = ["FastMinimumNorm"]

_LAST_STEP = 0.01  # relative to the first one; steps shrink along a cosine
_LAST_RATE = 0.02


class FastMinimumNorm(Attack):
    r"""Fast minimum norm: descend a row in a ball that shrinks where the property is broken.

    Each sample has a radius of its own. Where the point of a step breaks the property, the radius
    shrinks by a small share, and to the closest point known; where it does not, the radius grows
    by that share, and, as long as nothing was found, to where the linearised row is zero. The
    steps go along the steepest direction of the norm, and both their length, relative to the
    radius, and the share by which the radius changes shrink along a cosine.

    One row of the property is followed (for classification robustness: one other class) at a
    time: first the one whose linearisation at the reference point is the closest to zero, then
    the next one. The closest point that breaks the property at all is kept.

    Parameters
    ----------
    n_steps : int, default=30
        Steps for each row that is followed.
    targets : int or "all", default=9
        How many rows are followed, the closest ones by linearisation first. A number above that of
        the rows is all of them, as the default is for ten classes.
    step_size : float, default=1.0
        Length of the first step, relative to the radius.
    rate : float, default=0.05
        Share by which the radius changes at first (the paper's gamma), in (0, 1).
    random_starts : int, default=0
        How often all rows are followed once more, from random points of the ball that reaches to
        the closest point known. The first walks start at the reference.

    Notes
    -----
    All steps are taken whether or not the property is broken: the aim is the closest point.

    The differences from the paper, each of which came closer on validation images: rows are
    followed in turn, rather than the smallest one at the point; a step is relative to the radius,
    rather than an absolute length; and for the L-infinity norm it follows the sign of the
    gradient, rather than the gradient normalized in L2. See ``benchmarks/closest.py``.

    Where rows depend on the distance (Lipschitz robustness), all of them hold with equality at the
    reference point, so that their linearisation says nothing of how far to go: the first radius is
    that of the ball. Violations near the reference alone may be missed: `PGD` with restarts looks
    for them in smaller balls, too.

    References
    ----------
    Pintor, Roli, Brendel, Biggio, "Fast minimum-norm adversarial attacks through adaptive norm
    constraints", NeurIPS 2021, Algorithm 1; it extends Rony et al., "Decoupling direction and
    norm for efficient gradient-based L2 adversarial attacks and defenses", CVPR 2019.

    Examples
    --------
    >>> from sklearn.linear_model import LogisticRegression
    >>> from skrobust.attacks import FastMinimumNorm
    >>> from skrobust.properties import ClassificationRobustness
    >>> X, y = [[0.2], [0.4], [0.6], [0.8]], [0, 0, 1, 1]
    >>> model = LogisticRegression(C=1e3).fit(X, y)
    >>> attack = FastMinimumNorm()
    >>> found = attack.perturb(model, X, y, property=ClassificationRobustness(0.5))
    >>> found.round(2).ravel()
    array([0.5, 0.5, 0.5, 0.5])
    >>> model.predict(found)
    array([1, 1, 0, 0])
    """

    def __init__(self, n_steps=30, *, targets=9, step_size=1.0, rate=0.05, random_starts=0):
        self.n_steps = n_steps
        self.targets = targets
        self.step_size = step_size
        self.rate = rate
        self.random_starts = random_starts

    def check(self):
        check_integer("n_steps", self.n_steps, low=1)
        if isinstance(self.targets, str):
            check_choice("targets", self.targets, ("all",))
        else:
            check_integer("targets", self.targets, low=1)
        check_real("step_size", self.step_size, low=0, closed="neither")
        check_real("rate", self.rate, low=0, high=1, closed="neither")
        check_integer("random_starts", self.random_starts)
        return self

    def attempt(self, target, *, generator=None, stop_when_broken=True):
        n_rows = None if isinstance(self.targets, str) else int(self.targets)
        order, reach = _nearest_rows(target)[:, :n_rows].unbind(dim=1), _reach(target.ball)
        first = reach if target.conclusion.uses_distance else torch.zeros_like(reach)
        best = None
        for rows in order:
            best = self._descend(target, rows, best, target.x, first)
        for _ in range(self.random_starts):
            for rows in order:
                known = torch.where(best.broken, target.ball.distance(best.points), reach)
                start = target.ball.within(known).sample(1, generator)[:, 0]
                best = self._descend(target, rows, best, start, known)
        return best

    def _descend(self, target, rows, best, x, radius):
        """Follow one row of each sample; return the better of what it finds and `best`."""
        ball, reach = target.ball, _reach(target.ball)
        was_broken = torch.zeros_like(radius, dtype=torch.bool)
        least = rounding(target)
        for step in range(self.n_steps):
            value, gradient, seen = _follow(target, x, rows)
            seen = beyond_rounding(seen, least)
            best = seen if best is None else closer(ball, best, seen)[0]
            was_broken |= seen.broken
            closest = torch.where(best.broken, ball.distance(best.points), torch.inf)
            cosine = (1 + math.cos(math.pi * step / self.n_steps)) / 2
            rate = self.rate * (_LAST_RATE + (1 - _LAST_RATE) * cosine)
            need = (value + 2 * least).clamp(min=0.0)
            grown = ball.distance(x) + need / _slope(ball, gradient)
            grown = torch.where(was_broken, radius * (1 + rate), torch.maximum(radius, grown))
            shrunk = torch.minimum(radius * (1 - rate), closest)
            radius = torch.minimum(torch.where(seen.broken, shrunk, grown), reach)
            size = self.step_size * (_LAST_STEP + (1 - _LAST_STEP) * cosine)
            move = size * radius.unsqueeze(1) * _steepest(ball, x, gradient)
            x = _projected(ball, x - move, radius)
        return closer(ball, best, beyond_rounding(target.outcome_at(x), least))[0]


def _nearest_rows(target):
    """Order the rows of each sample by the distance to where their linearisation is zero."""
    values, gradients = row_gradients(target, target.x)
    if values.shape[1] == 1:
        return torch.zeros_like(values, dtype=torch.int64)
    lengths = [
        row / _slope(target.ball, gradient)
        for row, gradient in zip(values.unbind(dim=1), gradients, strict=True)
    ]
    return torch.stack(lengths, dim=1).argsort(dim=1)


def _follow(target, x, rows):
    """Return the value of one row of each sample, its gradient, and the outcome at `x`.

    Of distances there is no gradient: the radius says how far to go, the outputs say where.
    """
    leaf = x.detach().requires_grad_()
    with torch.enable_grad():
        logits = target.network(leaf)
        values = target.conclusion.values(logits, target.distance(x))
        value = values.gather(1, rows.unsqueeze(1)).squeeze(1)
        gradient = finite_or_zero(input_gradient(value.sum(), leaf))
    return value.detach(), gradient, target.assess(x, logits.detach())


def _reach(ball):
    """Return a distance from each reference that no point of its ball exceeds, (n,)."""
    across = ball.distance(torch.where(_farther_up(ball), ball.upper, ball.lower))
    return across if ball.norm == "linf" else across.clamp(max=ball.epsilon.max())


def _farther_up(ball):
    return ball.upper - ball.center > ball.center - ball.lower


def _slope(ball, gradient):
    """Return by how much a row falls on a unit of distance from the reference, (n,).

    Features that cannot move from there in the direction of descent do not count.
    """
    room = torch.where(gradient > 0, ball.center - ball.lower, ball.upper - ball.center)
    order = 1 if ball.norm == "linf" else 2
    slope = torch.linalg.vector_norm(gradient * (room > 0), ord=order, dim=1)
    return slope.clamp(min=torch.finfo(slope.dtype).tiny)


def _steepest(ball, x, gradient):
    """Return the ascent of length 1 among the features that can move from `x`."""
    at_edge = torch.where(gradient > 0, x <= ball.lower, x >= ball.upper)
    return ball.unit(gradient.masked_fill(at_edge, 0.0))


def _projected(ball, x, radius):
    """Return the closest points of the balls of the given radii, cut to `ball`."""
    offset, radius = x - ball.center, radius.unsqueeze(1)
    if ball.norm == "linf":
        return ball.project(ball.center + offset.clamp(-radius, radius))
    length = torch.linalg.vector_norm(offset, dim=1, keepdim=True)
    share = torch.where(length > radius, radius / length, 1.0)
    return ball.project(ball.center + offset * share)
