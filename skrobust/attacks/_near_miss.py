"""Short runs of PGD against many rows, and long ones where these nearly broke one."""

import torch

from skrobust._validation import check_integer, check_real
from skrobust.attacks._base import Attack
from skrobust.attacks._bisection import bisect_radius
from skrobust.attacks._pgd import PGD
from skrobust.attacks._target import Outcome

__all__ = ["NearMissPGD"]


class NearMissPGD(Attack):
    """Short runs of PGD against many rows, then long ones where a row was nearly broken.

    Each short run holds on to another row of the property, the one first that the ball can take
    the lowest, to first order. The samples that none of them breaks are nearly all robust, and of
    those that are not nearly all came close: so the long runs go only against the rows that a
    short run took most of the way down, each from several random points, all in one batch.

    Parameters
    ----------
    n_steps : int, default=10
        Steps of a short run.
    n_runs : int, default=6
        Short runs for each sample, until one breaks the property; each goes against another row,
        as the restarts of `PGD` do.
    near : float, default=0.2
        What a near miss is: a run after which the smallest row is above zero by at most this share
        of what the run took off it.
    last_steps : int, default=20
        Steps of a long run.
    last_starts : int, default=12
        Random points from which each near miss is run again; 0 for no long runs.

    Notes
    -----
    The long runs are no more than there are samples left after the short ones (or than `n_runs`
    times `last_starts`, where these are few), the nearest misses first: on a network where every
    row is nearly broken they cost as much as one run of `last_steps` of the whole batch.

    A sample leaves the batch as soon as its property is broken, but for copies of it in the last
    batch.

    References
    ----------
    Croce and Hein, "Reliable evaluation of adversarial robustness with an ensemble of diverse
    parameter-free attacks", ICML 2020 (targets held for a run, the likely ones first). That the
    effort goes to near misses has no source: see ``benchmarks/security.py`` for what it finds.

    Examples
    --------
    >>> from sklearn.linear_model import LogisticRegression
    >>> from skrobust.attacks import NearMissPGD
    >>> from skrobust.properties import ClassificationRobustness
    >>> X, y = [[0.2], [0.4], [0.6], [0.8]], [0, 0, 1, 1]
    >>> model = LogisticRegression(C=1e3).fit(X, y)
    >>> found = NearMissPGD().perturb(model, X, y, property=ClassificationRobustness(0.2))
    >>> model.predict(found)
    array([0, 1, 0, 1])
    """

    def __init__(self, n_steps=10, *, n_runs=6, near=0.2, last_steps=20, last_starts=12):
        self.n_steps = n_steps
        self.n_runs = n_runs
        self.near = near
        self.last_steps = last_steps
        self.last_starts = last_starts

    def check(self):
        check_integer("n_steps", self.n_steps, low=1)
        check_integer("n_runs", self.n_runs, low=1)
        check_real("near", self.near, low=0)
        check_integer("last_steps", self.last_steps, low=1)
        check_integer("last_starts", self.last_starts, low=0)
        return self

    def attempt(self, target, *, generator=None, stop_when_broken=True):
        options = {"generator": generator, "stop_when_broken": stop_when_broken}
        outcome, misses = self._short_runs(target, options)
        sample, run = self._nearest(misses, n_open=int((~outcome.broken).sum()))
        if len(sample) == 0:
            return outcome
        found = PGD(self.last_steps).attempt(target[sample].aimed(run), **options)
        worst = _worst_of_each(sample, found)
        return outcome.merge(sample[worst], found[worst])

    def closest(self, target, *, generator=None):
        outcome = super().closest(target, generator=generator)
        return bisect_radius(self, target, outcome, generator)

    def _short_runs(self, target, options):
        """Return what the short runs find, and how far each was from it, (n, n_runs)."""
        n, device = len(target), target.x.device
        nothing = torch.zeros(n, dtype=torch.bool, device=device)
        outcome = Outcome(target.x, target.x.new_full((n,), torch.inf), nothing)
        misses = target.x.new_full((n, self.n_runs), torch.inf)
        index, part = torch.arange(n, device=device), target
        for run in range(self.n_runs):
            if len(index) == 0:
                break
            found = PGD(self.n_steps).attempt(part.aimed(run), **options)
            outcome = outcome.merge(index, found)
            misses[index, run] = _miss(part, found)
            if options["stop_when_broken"]:
                is_open = ~outcome.broken[index]
                index, part = index[is_open], part[is_open]
        misses[outcome.broken] = torch.inf
        return outcome, misses

    def _nearest(self, misses, n_open):
        """Return the samples and the runs of the near misses, once for each start."""
        sample, run = (misses <= self.near).nonzero(as_tuple=True)
        most = max(n_open // max(self.last_starts, 1), self.n_runs)
        nearest = misses[sample, run].argsort(stable=True)[:most]
        return sample[nearest].repeat(self.last_starts), run[nearest].repeat(self.last_starts)


def _miss(target, found):
    """Return by how much a run missed, relative to what it took off the smallest row, (n,).

    Infinity where it took off nothing. Distances are no merit of the run: the row before has
    the outputs of the reference, and the distance of the point found.
    """
    distance = target.distance(found.points)
    before = target.conclusion.values(target.reference_logits, distance).amin(dim=1)
    won = before.to(found.margins.dtype) - found.margins
    return torch.where(won > 0, found.margins / won, torch.inf)


def _worst_of_each(sample, found):
    """Return where the worst point of each sample is, among several of some samples."""
    order = found.margins.masked_fill(found.broken, -torch.inf).argsort(stable=True)
    order = order[sample[order].argsort(stable=True)]
    is_first = torch.ones_like(order, dtype=torch.bool)
    is_first[1:] = sample[order][1:] != sample[order][:-1]
    return order[is_first]
