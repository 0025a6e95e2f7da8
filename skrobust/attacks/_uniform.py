"""Random sampling in the ball."""

from dataclasses import dataclass

import torch

from skrobust._validation import check_integer
from skrobust.attacks._base import Attack
from skrobust.attacks._target import Outcome

__all__ = ["SamplingSummary", "UniformSampling"]


@dataclass(frozen=True, eq=False)
class SamplingSummary:
    """What a sample of points around each of n references showed.

    Attributes
    ----------
    worst : Outcome
        The point of lowest margin of each reference.
    n_holding : int Tensor of shape (n,)
        Points at which the property holds.
    first_holds : bool Tensor of shape (n,)
        Whether it holds at the first point.
    """

    worst: Outcome
    n_holding: torch.Tensor
    first_holds: torch.Tensor


class UniformSampling(Attack):
    """Points drawn uniformly in the ball; the one of lowest margin is kept.

    They are uniform in the part of the ball that lies inside the bounds, for either norm. Where
    `bounds` are a `~skrobust.properties.Domain`, each whole number and each category is as likely
    as any other, and points that break a constraint are drawn anew.

    Parameters
    ----------
    n_samples : int, default=100
        Points for each sample.
    batch_size : int, default=2048
        Points that the network sees at a time.
    """

    needs_gradient = False
    draws_valid = True

    def __init__(self, n_samples=100, *, batch_size=2048):
        self.n_samples = n_samples
        self.batch_size = batch_size

    def check(self):
        check_integer("n_samples", self.n_samples, low=1)
        check_integer("batch_size", self.batch_size, low=1)
        return self

    def sample(self, target, generator=None):
        """Draw and assess the points of a `Target`, a block at a time.

        Yields
        ------
        index : slice
            Samples of this block, k of them.
        outcome : Outcome
            Of r points of each: points (k, r, n_features), margins and broken (k, r). A block
            may hold fewer than `n_samples` points of a sample; further blocks bring the rest.
        """
        # Small integers of NumPy, from a search's grid, would overflow.
        n_samples, batch_size = int(self.n_samples), int(self.batch_size)
        n_rows = max(batch_size // n_samples, 1)
        for done in range(0, n_samples, batch_size):
            r = min(batch_size, n_samples - done)
            noise = target.ball.noise(r, generator)
            for part in range(0, len(target), batch_size):
                group = target[part : part + batch_size]
                _ = group.conclusion  # computed once, and handed on to its blocks
                for start in range(0, len(group), n_rows):
                    block = group[start : start + n_rows]
                    x = block.ball.sample(r, generator, noise)
                    with torch.no_grad():
                        logits = block.network(x.flatten(0, 1)).unflatten(0, x.shape[:2])
                    yield slice(part + start, part + start + len(block)), block.assess(x, logits)

    def summary(self, target, generator=None):
        """Draw the points of a `Target` and return their `SamplingSummary`."""
        n, device = len(target), target.x.device
        points = target.x.clone()
        margins = target.x.new_full((n,), torch.inf)
        n_holding = torch.zeros(n, dtype=torch.int64, device=device)
        first_holds = torch.zeros(n, dtype=torch.bool, device=device)
        n_seen = 0
        for index, outcome in self.sample(target, generator):
            holding = ~outcome.broken
            lowest, worst = outcome.margins.min(dim=1)
            candidates = outcome.points[torch.arange(len(worst), device=device), worst]
            if n_seen < n:  # the first round, over all samples
                n_seen += len(worst)
                first_holds[index] = holding[:, 0]
                points[index], margins[index] = candidates, lowest
            else:
                better = lowest < margins[index]
                points[index] = torch.where(better.unsqueeze(1), candidates, points[index])
                margins[index] = torch.where(better, lowest, margins[index])
            n_holding[index] += holding.sum(dim=1)
        worst = Outcome(points, margins, n_holding < int(self.n_samples))
        return SamplingSummary(worst, n_holding, first_holds)

    def attempt(self, target, *, generator=None, stop_when_broken=True):
        return self.summary(target, generator).worst
