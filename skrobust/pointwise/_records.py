"""The samples of one chunk, what is known of them, and the confirmation of candidates."""

import itertools

import numpy as np
import torch

from skrobust._validation import epsilon_sides
from skrobust.attacks import steps_beyond
from skrobust.balls import Ball
from skrobust.pointwise._result import PointwiseStatus
from skrobust.properties import ClassificationRobustness

__all__ = ["Chunk", "Records", "keep_confirmed", "keep_near", "larger_margins"]

# Tried in turn, relative to the largest logit, and then to 1. In float32 the first is some 25
# units in the last place: outputs change by a few when a point is computed within another batch.
_MARGINS = (3e-6, 1e-5, 1e-4, 1e-3)
_FAR = 1e30  # no bound on the distance; infinity has no nearest float below
_STATUS = f"<U{max(map(len, PointwiseStatus))}"


class Records:
    """Arrays of a result, filled by one method after the other."""

    def __init__(self, n, n_features, dtype):
        self.radius = np.full(n, np.inf)
        self.adversarial_examples = np.full((n, n_features), np.nan, dtype=dtype)
        self.status = np.full(n, PointwiseStatus.NOT_FOUND, dtype=_STATUS)
        self.lower, self.upper = np.zeros(n), np.full(n, np.inf)
        self.optimum, self.bound = np.full(n, np.nan), np.zeros(n)
        self.seconds = np.zeros(n)

    def keep(self, index, points, radius, status):
        """Record adversarial examples that are the closest so far."""
        closer = radius < self.radius[index]
        at = index[closer]
        self.radius[at] = self.upper[at] = radius[closer]
        self.adversarial_examples[at] = points[closer]
        self.status[at] = status

    def arrays(self):
        return dict(vars(self))


class Chunk:
    """What the methods need to know about the samples of one chunk."""

    def __init__(self, network, rows, labels, bounds, epsilon_max, unit=None):
        self.network, self.bounds = network, bounds
        self.sides = epsilon_sides(epsilon_max)
        self.epsilon_max = max(float(np.max(side)) for side in self.sides)
        # Of the features, where distances are in units, but rows and sides are raw.
        self.unit = unit
        if unit is not None:
            self.sides = tuple(side * unit for side in self.sides)
        # One limit for all is a limit of the distance; others are sides of a box.
        self.is_boxed = isinstance(epsilon_max, tuple) or np.ndim(epsilon_max) > 0
        self.x = network.rows(rows)
        self.exact = self.x.double().cpu()
        logits = network.check_logits(network.replay(self.x), len(rows))
        predicted = logits.argmax(dim=1)
        self.scale = logits.abs().amax(dim=1).double().cpu().numpy()
        self.labels = predicted if labels is None else torch.as_tensor(labels).to(predicted)
        self.is_wrong = (predicted != self.labels).cpu().numpy()
        self.is_best = (logits == logits.amax(dim=1, keepdim=True)).cpu().numpy()
        self.is_tied = (self.is_best.sum(axis=1) > 1) & ~self.is_wrong
        low, high = (-np.inf, np.inf) if bounds is None else bounds
        # Rounding the data to float32 may leave the domain: it is widened by as much.
        self.low = np.minimum(low, self.exact.numpy())
        self.high = np.maximum(high, self.exact.numpy())
        if self.is_boxed:
            # Outwards, by what the rounding of the sum can take off.
            center, (down, up) = self.exact.numpy(), self.sides
            self.low = np.maximum(self.low, np.nextafter(center - down, -np.inf))
            self.high = np.minimum(self.high, np.nextafter(center + up, np.inf))
            self.low = np.where(np.asarray(down) > 0, self.low, center)
            self.high = np.where(np.asarray(up) > 0, self.high, center)

    def reach(self, index):
        """Return the largest possible distances within domain and epsilon_max."""
        center = self.exact.numpy()[index]
        across = np.maximum(center - self.low[index], self.high[index] - center)
        return np.minimum(self.length(across), self.epsilon_max)

    def length(self, steps):
        """Return the largest entries of steps, of shape (..., n_features), in units."""
        steps = np.abs(steps)
        return (steps if self.unit is None else steps / self.unit).max(axis=-1)

    def nothing_within(self, reach):
        """Return the statuses of samples where it is proved that nothing is within `reach`."""
        is_all = (reach < self.epsilon_max) & (not self.is_boxed)
        return np.where(is_all, PointwiseStatus.NOWHERE, PointwiseStatus.ABOVE)

    def property(self, epsilon):
        """Return the property that nothing within `epsilon` has another label.

        Parameters
        ----------
        epsilon : float
        """
        if self.unit is not None:
            epsilon = tuple(np.minimum(side, epsilon * self.unit) for side in self.sides)
        elif self.is_boxed:
            epsilon = tuple(np.minimum(side, epsilon) for side in self.sides)
        return ClassificationRobustness(epsilon, bounds=self.bounds)

    def settle(self, index, points):
        """Return points in the network's precision inside the domain, and their distances."""
        center = self.x[index]
        points = torch.as_tensor(points, dtype=torch.float64).to(center.device)
        limit = self.sides if self.is_boxed else _FAR
        everything = Ball.around(center, limit, "linf", self.bounds)
        settled = everything.project(points.to(center.dtype))
        distance = (settled.double() - center.double()).abs().amax(dim=1)
        return settled, distance.cpu().numpy()

    def rivals(self, index, settled):
        """Return the best other class at points, by how much it beats the sample's own one.

        The estimator itself is asked. A lead of 0 is a tie, which breaks the property too.
        """
        if len(index) == 0:
            return np.zeros(0, dtype=int), np.zeros(0)
        logits = self.network.replay(settled.to(self.x.device)).double()
        own = self.labels[index].to(logits.device)[:, None]
        best, rival = logits.scatter(1, own, -torch.inf).max(dim=1)
        lead = best - logits.gather(1, own).squeeze(1)
        return rival.cpu().numpy(), lead.cpu().numpy()


def keep_near(chunk, records, index, points, status=PointwiseStatus.FOUND):
    """Record points that break the property, or points just beyond; return where any did."""
    x, kept = chunk.x[index].double(), np.zeros(len(index), dtype=bool)
    points = torch.as_tensor(points, dtype=torch.float64).to(x.device)
    # A tie breaks the property, but is no other label yet.
    for ties, near in itertools.product((False, True), steps_beyond(x, points)):
        open_index = np.flatnonzero(~kept)
        if len(open_index) == 0:
            break
        at = index[open_index]
        kept[open_index] = keep_confirmed(chunk, records, at, near[open_index], status, ties=ties)
    return kept


def keep_confirmed(chunk, records, index, points, status, ties=False):
    """Record points to which the estimator gives another label; return which those are."""
    settled, radius = chunk.settle(index, points)
    _, lead = chunk.rivals(index, settled)
    is_other = (lead >= 0 if ties else lead > 0) & (radius <= chunk.epsilon_max)
    records.keep(index[is_other], settled.cpu().numpy()[is_other], radius[is_other], status)
    return is_other


def larger_margins(scale):
    """Return ever larger margins for samples with logits of that size, each of its shape."""
    relative = [extra * scale for extra in _MARGINS]
    # Of logits that cancel, the rounding is that of larger numbers.
    return relative + [extra * np.maximum(scale, 1.0) for extra in _MARGINS]
