"""The closest point that breaks a property, rather than any in the ball."""

from dataclasses import replace

import torch

from skrobust._validation import check_integer

__all__ = ["beyond_rounding", "closer", "pull_to_boundary", "rounding"]

_ULPS = 16  # by which outputs may differ when a point is computed within another batch


def pull_to_boundary(target, outcome, n_steps=30):
    """Move points that break a property towards their references, as far as they break it.

    Bisection on the segment. The result always breaks the property where the given point
    does. Where the segment crosses the boundary more than once, one of the crossings is found,
    not always the first one.

    Parameters
    ----------
    target : Target
    outcome : Outcome
        Points to move; samples that are not broken stay as they are.
    n_steps : int, default=30
        Halvings at most; they stop early where the dtype holds no point between the two ends.

    Returns
    -------
    Outcome
        The reference point itself where that breaks the property.
    """
    check_integer("n_steps", n_steps)
    index = outcome.broken.nonzero().squeeze(1)
    if len(index) == 0:
        return outcome
    part, pulled = target[index], outcome[index]
    reference = part.assess(part.x, part.reference_logits)
    pulled = _chosen(reference.broken, reference, pulled)
    return outcome.put(index, _bisected(part, pulled, n_steps))


def _bisected(target, outcome, n_steps):
    ball, end = target.ball, outcome.points
    low, high = torch.zeros_like(outcome.margins), torch.ones_like(outcome.margins)
    # A violation within rounding could vanish when the point is looked at again; but where the
    # given point is not better than that, neither need the others be.
    slack = torch.minimum(rounding(target), -outcome.margins)
    for _ in range(n_steps):
        middle = (low + high) / 2
        x = torch.lerp(target.x, end, middle.unsqueeze(1)).clamp(ball.lower, ball.upper)
        if ((x == outcome.points) | (x == target.x)).all():
            break
        seen = target.outcome_at(x)
        accepted = seen.broken & (seen.margins <= -slack)
        accepted &= ball.distance(x) <= ball.distance(outcome.points)
        low, high = torch.where(accepted, low, middle), torch.where(accepted, middle, high)
        outcome = _chosen(accepted, seen, outcome)
    return outcome


def closer(ball, first, second):
    """Return the better of two outcomes for each sample, and where that is the second.

    A broken point is better than one that is not, a closer one better than a farther one;
    where neither is broken, the one of lower margin is.
    """
    nearer = ball.distance(second.points) < ball.distance(first.points)
    both = first.broken & second.broken
    neither = ~first.broken & ~second.broken
    taken = (second.broken & ~first.broken) | (both & nearer)
    taken |= neither & (second.margins < first.margins)
    return _chosen(taken, second, first), taken


def _chosen(mask, first, second):
    return replace(
        second,
        points=torch.where(mask.unsqueeze(1), first.points, second.points),
        margins=torch.where(mask, first.margins, second.margins),
        broken=torch.where(mask, first.broken, second.broken),
    )


def rounding(target):
    """Return by how much the rows of each sample of a `Target` may be wrong, (n,)."""
    logits = target.reference_logits
    return _ULPS * torch.finfo(logits.dtype).eps * logits.abs().amax(dim=1)


def beyond_rounding(outcome, least):
    """Return an outcome that is broken only where its margins are at most -`least`.

    A violation within the `rounding` of a target may be none when its point is computed again,
    within another batch or in the estimator itself.
    """
    return replace(outcome, broken=outcome.broken & (outcome.margins <= -least))
