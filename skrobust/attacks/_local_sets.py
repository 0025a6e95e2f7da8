"""Attacks where only some points are valid: in the box with repair, and for each single value."""

from dataclasses import replace

import numpy as np
import torch

from skrobust.attacks._target import Target

__all__ = ["search_local_set"]

_MOST_PIECES = 64  # assignments of single values that are attacked around one sample


def search_local_set(attack, target, generator, stop_when_broken):
    """Attack in the boxes and repair what is found; then with the single values held.

    All assignments of integers and one-hot groups are tried where there are no more than 64,
    else as many at random.

    Parameters
    ----------
    attack : Attack
    target : Target
        Whose ball has a `LocalSet`.
    generator : torch.Generator or None
    stop_when_broken : bool

    Returns
    -------
    Outcome
        Of valid points only.
    """
    options = {"generator": generator, "stop_when_broken": stop_when_broken}
    everywhere, relaxed = torch.arange(len(target), device=target.x.device), target.relaxed()
    clean = relaxed.assess(target.x, target.reference_logits)
    points, is_valid = target.ball.settle(attack.search(relaxed, **options).points)
    outcome = clean.put(everywhere, _only(relaxed.outcome_at(points), is_valid))
    outcome = outcome.merge(everywhere, clean) if stop_when_broken else outcome
    seed = torch.empty((), dtype=torch.int64).random_(generator=generator).item()
    rng, local_set = np.random.default_rng(seed), target.ball.local_set
    for i in range(len(target)):
        if stop_when_broken and outcome.broken[i]:
            continue
        index = torch.tensor([i], device=target.x.device)
        pieces = _pieces(target[index], local_set, rng)
        if len(pieces) == 0:
            continue
        found = attack.search(pieces, **options)
        settled, is_valid = _settled(target[index], local_set, found.points)
        found = _only(pieces.outcome_at(settled), is_valid)
        worst = torch.where(found.broken, found.margins - 1e30, found.margins).argmin()
        outcome = outcome.merge(index, found[worst[None]])
    # Where nothing else is valid, the sample itself is the worst point.
    missing = torch.isinf(outcome.margins) & (outcome.margins > 0)
    return outcome.put(missing, clean[missing])


def _only(outcome, is_valid):
    """Take the points that are not valid out of every comparison."""
    margins = torch.where(is_valid, outcome.margins, torch.inf)
    return replace(outcome, margins=margins, broken=outcome.broken & is_valid)


def _pieces(target, local_set, rng):
    """Return the target of one sample's assignments, each with a box of its own."""
    x = target.x[0].double().cpu().numpy()
    points, _ = local_set.assignments(x, _MOST_PIECES, rng)
    points = torch.as_tensor(points[local_set.can_hold(points, x)]).to(target.x)
    labels = None if target.labels is None else target.labels.expand(len(points))
    return Target(target.network, target.property.around(target.x[0]), points, labels)


def _settled(target, local_set, points):
    """Return points of one sample's pieces as valid ones, and which are."""
    whole = torch.zeros(len(points), dtype=torch.int64, device=points.device)
    return target.ball[whole].settle(points)
