"""Closest points of an attack that takes the whole ball: a bisection on the radius."""

import torch

from skrobust.attacks._boundary import beyond_rounding, closer, pull_to_boundary, rounding

__all__ = ["bisect_radius"]

_N_RADII = 10  # 1,024 times finer than the first distance
_PRECISION = 1e-3  # relative; a radius known as well as this is not searched on


def bisect_radius(attack, target, outcome, generator=None):
    """Attack in ever smaller balls, each sample in one of its own, and all in one batch.

    An attack that makes the most of the whole ball breaks the property far from the reference. In
    a ball of half that radius it has to find something closer, or nothing, which raises the lower
    end of the bisection. What is found is pulled to the boundary, which lowers the upper one.

    Parameters
    ----------
    attack : Attack
        Its `search` is called once for each radius.
    target : Target
    outcome : Outcome
        Of the whole balls; samples that are not broken stay as they are.
    generator : torch.Generator, default=None

    Returns
    -------
    Outcome
    """
    low, high = torch.zeros_like(outcome.margins), target.ball.distance(outcome.points)
    least = rounding(target)
    for _ in range(_N_RADII):
        is_open = outcome.broken & (high - low > _PRECISION * high)
        index = is_open.nonzero().squeeze(1)
        if len(index) == 0:
            break
        radius = (low[index] + high[index]) / 2
        part = target[index].within(radius)
        found = attack.search(part, generator=generator)
        # Rows that hold with equality at the reference would be followed down into noise.
        seen = pull_to_boundary(part, beyond_rounding(found, least[index]))
        better, _ = closer(part.ball, outcome[index], seen)
        outcome = outcome.put(index, better)
        high[index] = part.ball.distance(better.points)
        low[index] = torch.where(seen.broken, low[index], radius)
    return outcome
