"""Multilevel splitting: probabilities of rare violations in a ball, and their intervals.

Particles are uniform points of the ball below a level of the margin. The worst of them set the
next level, the others stay, copies of these take the empty places, and random walks that keep the
uniform distribution move the copies apart. The walks run in normal coordinates, of which a point
of the ball is a function: there one size of step fits a feature that must come within a billionth
of its end, and one that may be anywhere.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from scipy.stats import gamma

from skrobust.attacks import Outcome, confirm_outcome
from skrobust.scorers._base import as_arrays, as_target
from skrobust.statistics import clopper_pearson

__all__ = ["Splitting", "split_chunk"]

_ACCEPTANCE = 0.3  # share of moves to aim at: smaller steps explore less, larger ones stand still
_SMALLEST_STEP = 1e-4
_LEAST_LOG = math.log(np.finfo(float).tiny)  # no probability below this is told from 0


@dataclass(frozen=True)
class Splitting:
    """How particles are drawn and replaced, and what follows from how often they were.

    Let S be the minus logarithm of the probability of a level. If walks forget their start, the
    values of S at which particles pass are a point process whose rate is the number of particles
    that are left: `n_samples`, one less after each, down to `n_particles`; from there on down to
    ``n_particles - n_replaced``, and then from `n_particles` again. With one replaced at a time
    that is a Poisson process of rate `n_particles`, the last-particle algorithm. The number of
    those that passed before the property broke therefore has a known distribution.

    Parameters
    ----------
    n_samples, n_particles, n_replaced, n_steps, max_evaluations, batch_size : int
        As in `ViolationProbability`.
    """

    n_samples: int
    n_particles: int
    n_replaced: int
    n_steps: int
    max_evaluations: int
    batch_size: int

    @property
    def max_levels(self):
        """Levels that the evaluations allow; the first comes from the plain sample."""
        a_level = self.n_replaced * self.n_steps
        affordable = (self.max_evaluations - self.n_samples - 1) // a_level
        told = _LEAST_LOG / math.log1p(-self.n_replaced / self.n_particles)
        return 1 + max(0, min(affordable, int(told)))

    def size(self, n_levels):
        """Return how many points there are after so many levels."""
        return self.n_particles if n_levels else self.n_samples

    def estimate(self, n_levels, n_holding):
        """Return the unbiased estimate of the probability.

        Parameters
        ----------
        n_levels : int
            Levels passed.
        n_holding : int
            Points beyond the last level at which the property holds.
        """
        size = self.size(n_levels)
        if n_levels == 0:
            return (size - n_holding) / size
        kept = 1 - self.n_replaced / self.n_particles
        start = self.n_particles / self.n_samples
        return start * kept ** (n_levels - 1) * (size - n_holding) / size

    def interval(self, n_levels, n_holding, confidence):
        """Return both ends of the interval for the probability.

        The exact one by Clopper and Pearson where the plain sample was enough; else from the
        point process, by gamma quantiles.
        """
        size = self.size(n_levels)
        if n_levels == 0:
            exact = clopper_pearson(size - n_holding, size, confidence)
            return exact.low, exact.high
        miss = (1 - confidence) / 2
        rates = self._rates(n_levels, n_holding)
        high = math.exp(-waiting_time(rates, miss))
        if n_holding == size:
            return 0.0, high
        rates = np.append(rates, size - n_holding)
        return math.exp(-waiting_time(rates, 1 - miss)), high

    def _rates(self, n_levels, n_holding):
        """Return the rate before each particle that passed."""
        first = np.arange(self.n_samples, self.n_particles, -1.0)
        level = self.n_particles - np.arange(max(self.n_replaced, n_holding), dtype=float)
        repeated = np.tile(level[: self.n_replaced], n_levels - 1)
        return np.concatenate([first, repeated, level[:n_holding]])


def waiting_time(rates, probability):
    """Return a quantile of the sum of independent exponential times of given rates.

    By the shifted gamma distribution of the same mean, variance and third moment: exact for equal
    rates, and within a hundredth of a standard deviation for those of whole levels. Where the
    last level is all but empty of violations, and the rates fall to 1, it is a few hundredths.
    """
    if len(rates) == 0:
        return 0.0
    mean, variance, third = (1 / rates).sum(), (rates**-2.0).sum(), 2 * (rates**-3.0).sum()
    shape, scale = 4 * variance**3 / third**2, third / (2 * variance)
    return max(0.0, float(gamma.ppf(probability, shape)) * scale + mean - shape * scale)


# ---- points as functions of normal coordinates ----------------------------------------------


class _Box:
    """Each feature is the distribution function of one normal coordinate, to its interval."""

    def __init__(self, ball):
        # Halves first: the sum or difference itself could overflow.
        self.middle = (ball.lower / 2 + ball.upper / 2).unsqueeze(1)
        self.half = (ball.upper / 2 - ball.lower / 2).unsqueeze(1)
        self.lower, self.upper = ball.lower.unsqueeze(1), ball.upper.unsqueeze(1)

    def draw(self, n_samples, generator):
        n, _, n_features = self.middle.shape
        return self.noise((n, n_samples, n_features), generator)

    def noise(self, shape, generator):
        like = {"dtype": self.middle.dtype, "device": self.middle.device}
        return torch.randn(shape, generator=generator, **like)

    def points(self, z):
        """Return points (n, r, n_features), and which of them are inside; here all are."""
        x = torch.erf(z * math.sqrt(0.5)).mul_(self.half).add_(self.middle)
        inside = torch.ones(x.shape[:2], dtype=torch.bool, device=x.device)
        return torch.clamp_(x, self.lower, self.upper), inside


class _CutBall:
    """The first d of d + 2 normal coordinates, divided by the length of all, are uniform.

    Uniform in the unit L2 ball, that is. Where the center of a feature is at an end of the domain
    the half on the other side is folded over; what other ends cut off is outside.
    """

    def __init__(self, ball):
        self.ball = ball
        self.cut = cut = ball.cut()
        self.low, self.high = cut.low.unsqueeze(1), cut.high.unsqueeze(1)
        at_end = (cut.low == 0).to(cut.low.dtype) - (cut.high == 0).to(cut.low.dtype)
        self.fold = torch.where(cut.fold != 0, cut.fold, at_end).unsqueeze(1)
        free = torch.nn.functional.pad((cut.low < cut.high).to(cut.low.dtype), (0, 2), value=1.0)
        self.free = free.unsqueeze(1)

    def draw(self, n_samples, generator):
        w = self.cut.sample(n_samples, generator)
        lifted = torch.nn.functional.pad(w, (0, 2))
        # The other two coordinates on the sphere have any direction, and all any common length.
        rest = (1 - (w * w).sum(dim=2)).clamp(min=0).sqrt()
        other = self.noise((*w.shape[:2], 2), generator, masked=False)
        other = other / torch.linalg.vector_norm(other, dim=2, keepdim=True).clamp(min=1e-30)
        lifted[:, :, -2:] = other * rest.unsqueeze(2)
        length = torch.linalg.vector_norm(self.noise(lifted.shape, generator), dim=2, keepdim=True)
        return lifted * length

    def noise(self, shape, generator, masked=True):
        like = {"dtype": self.low.dtype, "device": self.low.device}
        noise = torch.randn(shape, generator=generator, **like)
        return noise.mul_(self.free) if masked else noise

    def points(self, z):
        length = torch.linalg.vector_norm(z, dim=2, keepdim=True).clamp(min=1e-30)
        w = z[:, :, :-2] / length
        w = torch.where(self.fold != 0, w.abs() * self.fold, w)
        inside = ((w >= self.low) & (w <= self.high)).all(dim=2)
        return self.ball.scaled_up(w), inside


def _coordinates(ball):
    return _Box(ball) if ball.norm == "linf" else _CutBall(ball)


# ---- particles ---------------------------------------------------------------------------


class _Particles:
    """Points of n balls, the same number in each, ordered by how well the property holds.

    A value is the smallest row, or minus infinity where the property is broken. Where values
    are equal, as on the plateaus of a tree or of a dead unit, a uniform number beside each
    decides, so that the order is that of a continuous variable, whatever the margin is.
    """

    def __init__(self, target, batch_size):
        self.target, self.batch_size = target, batch_size
        self.coordinates = _coordinates(target.ball)
        self.z = self.values = self.ties = None
        n, like = len(target), {"dtype": target.x.dtype, "device": target.x.device}
        self.step = torch.ones((n, 1, 1), **like)
        self.acceptance = torch.full((n,), torch.nan, **like)

    def __getitem__(self, index):
        part = _Particles(self.target[index], self.batch_size)
        for name in ("z", "values", "ties", "step", "acceptance"):
            setattr(part, name, getattr(self, name)[index])
        return part

    def values_at(self, x):
        """Return the values of the points x, of shape (n, r, n_features)."""
        rows = x.flatten(0, 1)
        logits = torch.cat([self.target.network(part) for part in rows.split(self.batch_size)])
        outcome = self.target.assess(x, logits.unflatten(0, x.shape[:2]))
        return torch.where(outcome.broken, -torch.inf, outcome.margins)

    def draw(self, n_samples, n_kept, generator):
        """Draw points, keep the lowest; return at how many of all the property holds, (n,)."""
        z = self.coordinates.draw(n_samples, generator)
        values = self.values_at(self.coordinates.points(z)[0])
        ties = self._uniform(values.shape, generator)
        kept = _descending(values, ties)[:, n_samples - n_kept :]
        self.z = _rows_of(z, kept)
        self.values, self.ties = values.gather(1, kept), ties.gather(1, kept)
        return (values > -torch.inf).sum(dim=1)

    def lower(self, n_replaced, n_steps, generator):
        """Replace the highest particles by copies of others, and move the copies."""
        order = _descending(self.values, self.ties)
        gone, kept = order[:, :n_replaced], order[:, n_replaced:]
        level = self.values.gather(1, gone[:, -1:]), self.ties.gather(1, gone[:, -1:])
        # Each of the others about equally often, in random order.
        shuffle = self._uniform(kept.shape, generator).argsort(dim=1)
        source = kept.gather(1, shuffle.repeat(1, -(-n_replaced // kept.shape[1])))
        source = source[:, :n_replaced]
        moved = _rows_of(self.z, source), *(v.gather(1, source) for v in (self.values, self.ties))
        moved = self._walk(*moved, level, n_steps, generator)
        self.z.scatter_(1, gone.unsqueeze(2).expand(moved[0].shape), moved[0])
        self.values.scatter_(1, gone, moved[1])
        self.ties.scatter_(1, gone, moved[2])

    def _walk(self, z, values, ties, level, n_steps, generator):
        """Take steps that keep the normal distribution, cut to what lies below the level.

        The preconditioned Crank-Nicolson walk of step b is z -> sqrt(1 - b^2) z + b noise.
        """
        value, tie = level
        accepted_share = torch.zeros_like(self.acceptance)
        for _ in range(n_steps):
            proposal = z * (1 - self.step**2).sqrt()
            proposal.addcmul_(self.coordinates.noise(z.shape, generator), self.step)
            x, inside = self.coordinates.points(proposal)
            new_values = self.values_at(x)
            # The tie stays while the point moves, and is then drawn anew from what is left of its
            # interval: on a plateau every move is taken, however far down the ties have come.
            is_below = (new_values < value) | ((new_values == value) & (ties < tie))
            accepted = inside & is_below
            z = torch.where(accepted.unsqueeze(2), proposal, z)
            values = torch.where(accepted, new_values, values)
            room = torch.where(values == value, tie, torch.ones_like(tie))
            ties = room * self._uniform(values.shape, generator)
            share = accepted.to(z.dtype).mean(dim=1)
            accepted_share += share / n_steps
            factor = torch.exp(share - _ACCEPTANCE).view(-1, 1, 1)
            self.step = (self.step * factor).clamp(_SMALLEST_STEP, 1.0)
        self.acceptance = accepted_share
        return z, values, ties

    def worst(self):
        """Return the points of lowest value, (n, n_features)."""
        lowest = self.values.argmin(dim=1, keepdim=True)
        return self.coordinates.points(_rows_of(self.z, lowest))[0][:, 0]

    def _uniform(self, shape, generator):
        like = {"dtype": torch.float64, "device": self.target.x.device}
        return torch.rand(shape, generator=generator, **like)


def _descending(values, ties):
    """Return the order of each row, highest value first, and by the ties where values agree."""
    by_tie = ties.argsort(dim=1, descending=True)
    by_value = values.gather(1, by_tie).argsort(dim=1, descending=True, stable=True)
    return by_tie.gather(1, by_value)


def _rows_of(z, index):
    return z.gather(1, index.unsqueeze(2).expand(*index.shape, z.shape[2]))


# ---- one chunk ---------------------------------------------------------------------------


def split_chunk(model, rows, labels, seed, *, property, splitting):
    """Return what the runs of a chunk counted, and the confirmed worst points.

    "n_levels", "n_holding" are as in `Splitting.estimate`; of a ball of one point they are 0 and
    whether the property holds, and "is_exact" is True.
    """
    target, generator = as_target(model, rows, labels, seed, property)
    n, device = len(target), target.x.device
    counts = torch.zeros((3, n), dtype=torch.int64, device=device)
    acceptance = torch.full((n,), torch.nan, dtype=target.x.dtype, device=device)
    points = target.x.clone()
    movable = target.movable
    with torch.no_grad():
        fixed = (~movable).nonzero()[:, 0]
        if len(fixed):
            counts[1, fixed] = (~target[fixed].outcome_at(target.x[fixed]).broken).long()
            counts[2, fixed] = 1
        index = movable.nonzero()[:, 0]
        if len(index):
            found = _split(target[index], generator, splitting)
            counts[:, index], acceptance[index], points[index] = found
        outcome = target.outcome_at(points)
    confirmed = confirm_outcome(target, Outcome(points, outcome.margins, outcome.broken))
    n_levels, n_holding, evaluations = counts.cpu().numpy()
    worst = as_arrays(confirmed)
    return {
        "n_levels": n_levels,
        "n_holding": n_holding,
        "evaluations": evaluations,
        "is_exact": (~movable).cpu().numpy(),
        "acceptance": acceptance.double().cpu().numpy(),
        "margins": worst["margins"],
        "counterexamples": worst["counterexamples"],
    }


def _split(target, generator, plan):
    """Run all points of a target side by side; each ends at a level of its own.

    Returns
    -------
    counts : int Tensor of shape (3, n)
        Levels, points that hold, evaluations.
    acceptance : Tensor of shape (n,)
    points : Tensor of shape (n, n_features)
    """
    n, device = len(target), target.x.device
    counts = torch.zeros((3, n), dtype=torch.int64, device=device)
    acceptance = torch.full((n,), torch.nan, dtype=target.x.dtype, device=device)
    points = target.x.clone()
    _ = target.conclusion  # computed once, and handed on to the parts

    def settle(particles, index, n_levels, holding, n_leaving, evaluations):
        """Note the points that end here; return the others."""
        ends = holding <= n_leaving if n_levels < plan.max_levels else holding >= 0
        at = index[ends]
        # Where just those pass that the next level replaces, that level is passed as well.
        passed = (holding == n_leaving) & (n_levels < plan.max_levels)
        counts[0, at] = (n_levels + passed.long())[ends]
        counts[1, at] = holding.masked_fill(passed, 0)[ends]
        counts[2, at] = evaluations
        acceptance[at] = particles.acceptance[ends]
        if len(at):
            points[at] = particles[ends].worst()
        return (particles[~ends], index[~ends]) if len(at) else (particles, index)

    groups = []
    for start in range(n):  # the plain sample of one point is a batch
        particles = _Particles(target[start : start + 1], plan.batch_size)
        holding = particles.draw(plan.n_samples, plan.n_particles, generator)
        index = torch.tensor([start], device=device)
        n_leaving = plan.n_samples - plan.n_particles
        groups.append(settle(particles, index, 0, holding, n_leaving, plan.n_samples + 1))
    groups = [group for group in groups if len(group[1])]
    if not groups:
        return counts, acceptance, points
    particles, index = _joined(target, plan.batch_size, groups)
    for n_levels in range(1, plan.max_levels + 1):
        moves = (n_levels - 1) * plan.n_replaced * plan.n_steps
        holding = (particles.values > -torch.inf).sum(dim=1)
        particles, index = settle(
            particles, index, n_levels, holding, plan.n_replaced, plan.n_samples + 1 + moves
        )
        if len(index) == 0:
            break
        particles.lower(plan.n_replaced, plan.n_steps, generator)
    return counts, acceptance, points


def _joined(target, batch_size, groups):
    """Return the particles of several points as one, and their places in the target."""
    index = torch.cat([at for _, at in groups])
    joined = _Particles(target[index], batch_size)
    for name in ("z", "values", "ties"):
        setattr(joined, name, torch.cat([getattr(particles, name) for particles, _ in groups]))
    return joined, index
