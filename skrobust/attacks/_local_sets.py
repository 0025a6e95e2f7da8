"""Attacks where only some points are valid: in the box with repair, and for each single value."""

from dataclasses import replace

import numpy as np
import torch

from skrobust.attacks._target import Outcome

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
    is_open = target.movable & ~(outcome.broken & stop_when_broken)
    index = is_open.nonzero().squeeze(1)
    if len(index):
        outcome = outcome.merge(index, _by_values(attack, target[index], options))
    # Where nothing else is valid, the sample itself is the worst point.
    missing = torch.isinf(outcome.margins) & (outcome.margins > 0)
    return outcome.put(missing, clean[missing])


def _by_values(attack, target, options):
    """Attack all assignments of single values together; return the worst point of each sample."""
    local_set, x = target.ball.local_set, target.x.double().cpu().numpy()
    seed = torch.empty((), dtype=torch.int64).random_(generator=options["generator"]).item()
    rng, pieces = np.random.default_rng(seed), []
    for row in x:
        points, _ = local_set.assignments(row, _MOST_PIECES, rng)
        pieces.append(points[local_set.can_hold(points, row)])
    owners = np.repeat(np.arange(len(x)), [len(points) for points in pieces])
    owners = torch.as_tensor(owners, device=target.x.device)
    together = target.around(torch.as_tensor(np.concatenate(pieces)).to(target.x), owners)
    points, is_valid = target.ball[owners].settle(attack.search(together, **options).points)
    found = _only(together.outcome_at(points), is_valid)
    worst = Outcome(
        target.x.clone(),
        torch.full_like(target.x[:, 0], torch.inf),
        torch.zeros(len(target), dtype=torch.bool, device=target.x.device),
    )
    for i in range(len(target)):
        own = (owners == i).nonzero().squeeze(1)
        if len(own):
            order = torch.where(found.broken[own], -torch.inf, found.margins[own])
            worst = worst.put(torch.tensor([i]), found[own[order.argmin()][None]])
    return worst


def _only(outcome, is_valid):
    """Take the points that are not valid out of every comparison."""
    margins = torch.where(is_valid, outcome.margins, torch.inf)
    return replace(outcome, margins=margins, broken=outcome.broken & is_valid)
