"""Where the points near a sample come from: Q in the framework of Tibo et al.

A source counts, for each sample and radius, how many points of the ball it looked at, and at how
many of them the classifier gives the label that the sample must keep.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
import torch

from skrobust._validation import call_of_user, check_bounds
from skrobust.balls import Ball

__all__ = [
    "GeneratedSource",
    "NeighborSource",
    "PointSource",
    "References",
    "UniformPoints",
    "UniformSource",
    "predicted_classes",
]

# A point counts as inside the ball up to this factor of the radius, for rounding.
_REACH = 1 + 1e-6


def predicted_classes(model, rows, batch_size):
    """Return the class index that a model gives each row, (n,)."""
    parts = [
        model.replay(model.rows(rows[start : start + batch_size])).argmax(dim=1)
        for start in range(0, len(rows), batch_size)
    ]
    return torch.cat(parts).cpu().numpy()


@dataclass(frozen=True, eq=False)
class References:
    """The samples at the centers of the balls, and the label that each must keep.

    Parameters
    ----------
    rows : ndarray of shape (n_samples, n_features)
    labels : ndarray of shape (n_samples,) or None
        True class indices, where they are known.
    expected : Tensor of shape (n_samples,)
        Class indices that the points of the balls must have, on the device of the model.
    agree : Tensor of bool, shape (n_samples,)
        Whether the classifier gives the sample itself the expected label.
    """

    rows: np.ndarray
    labels: np.ndarray | None
    expected: torch.Tensor
    agree: torch.Tensor


class PointSource(ABC):
    """A distribution of points in the ball around a sample."""

    @abstractmethod
    def count(self, model, references, epsilons, norm, seed):
        """Count the points that keep the label of their sample, and all points.

        Parameters
        ----------
        model : Network or BlackBox
            From rows to one output a class.
        references : References
        epsilons : tuple of float
            Radii, in units of the input.
        norm : {"linf", "l2"} or None
            None is for generated points alone, all of which count.
        seed : int
            For the draws.

        Returns
        -------
        n_kept, n_points : ndarray of int, shape (n_samples, n_epsilons)
        """


def _keep_label(model, points, expected):
    """Tell which points, of shape (k, r, n_features), have the label of their row: (k, r)."""
    with torch.no_grad():
        logits = model(points.flatten(0, 1))
    predicted = logits.argmax(dim=1).unflatten(0, points.shape[:2])
    return predicted == expected.unsqueeze(1)


@dataclass(frozen=True)
class UniformSource(PointSource):
    """Points that are uniform in the ball, cut to the bounds (for "l2", clipped to them).

    Parameters
    ----------
    n_samples : int
        Points drawn in each ball.
    batch_size : int
        Points that the model sees at a time.
    bounds : pair of floats or of array-likes, or None
        Valid domain of the inputs.
    """

    n_samples: int
    batch_size: int
    bounds: object

    def count(self, model, references, epsilons, norm, seed):
        """Count as `PointSource.count` says; all balls have `n_samples` points."""
        x = model.rows(references.rows)
        generator = torch.Generator(model.device).manual_seed(seed)
        n_kept = torch.zeros((len(x), len(epsilons)), dtype=torch.int64, device=model.device)
        bounds = check_bounds(self.bounds)
        n_rows = max(self.batch_size // self.n_samples, 1)
        for j, epsilon in enumerate(epsilons):
            ball = Ball.around(x, epsilon, norm, bounds)
            for done in range(0, self.n_samples, self.batch_size):
                r = min(self.batch_size, self.n_samples - done)
                draw = UniformPoints(norm, bounds, r, generator)
                for start in range(0, len(x), n_rows):
                    block = slice(start, start + n_rows)
                    keep = _keep_label(model, draw(ball[block]), references.expected[block])
                    n_kept[block, j] += keep.sum(dim=1)
        n_kept = n_kept.cpu().numpy()
        return n_kept, np.full_like(n_kept, self.n_samples)


class UniformPoints:
    """Uniform points of balls: a sample of the unit ball, moved by random signs.

    Random numbers cost as much as a small network, so that, where there are many features, one
    sample of the unit ball serves several rows. The unit ball looks the same after any change
    of signs of the coordinates: each row has signs of its own, and its points are independent
    and uniform. Points of different rows are uncorrelated, but not independent.

    Parameters
    ----------
    norm : {"linf", "l2"}
    bounds : pair of floats or of arrays, or None
        Points of an L2 ball are clipped to them; the box of an L-infinity ball is cut already.
    n_samples : int
        Points drawn in each ball.
    generator : torch.Generator
    """

    rows_per_sample = 64  # rows that share a sample of the unit ball
    many_features = 64  # with fewer, signs alone would leave rows alike

    def __init__(self, norm, bounds, n_samples, generator):
        self.norm, self.bounds = norm, bounds
        self.n_samples, self.generator = n_samples, generator
        self.rows_to_serve = 0
        self.points = None

    def __call__(self, ball):
        """Return points of each ball, (n, n_samples, n_features); overwritten by the next call."""
        n, n_features = ball.center.shape
        like = {"device": ball.center.device, "dtype": ball.center.dtype}
        if self.rows_to_serve <= 0 or n_features < self.many_features:
            shape = (n if n_features < self.many_features else 1, self.n_samples, n_features)
            # By one part in a million smaller, for the rounding of the sums below.
            self.unit = self._unit_ball(shape, like) * (1 - 1e-6)
            self.rows_to_serve = max(self.rows_per_sample, n)
        self.rows_to_serve -= n
        if self.points is None or len(self.points) != n:
            self.points = torch.empty((n, self.n_samples, n_features), **like)
        middle, reach = ball.center, ball.epsilon
        if self.norm == "linf":
            # The ball cut to the bounds is a box, not in general around the sample.
            middle, reach = (ball.lower + ball.upper) / 2, (ball.upper - ball.lower) / 2
        signs = torch.randint(2, (n, n_features), generator=self.generator, device=like["device"])
        scale = (signs * 2 - 1) * reach
        torch.addcmul(middle.unsqueeze(1), self.unit, scale.unsqueeze(1), out=self.points)
        if self.norm == "l2" and self.bounds is not None:
            low, high = self.bounds
            if not isinstance(low, float) or not isinstance(high, float):
                low, high = (torch.as_tensor(bound, **like) for bound in self.bounds)
            torch.clamp(self.points, low, high, out=self.points)  # fastest with plain numbers
        return self.points

    def _unit_ball(self, shape, like):
        if self.norm == "linf":
            return torch.rand(shape, generator=self.generator, **like) * 2 - 1
        # Normal vectors have uniform directions; u^(1/d) is the length of a uniform point.
        points = torch.randn(shape, generator=self.generator, **like)
        length = torch.rand((*shape[:2], 1), generator=self.generator, **like)
        norm = torch.linalg.vector_norm(points, dim=-1, keepdim=True).clamp(min=1e-30)
        return points * (length ** (1 / shape[-1]) / norm)


@dataclass(frozen=True, eq=False)
class NeighborSource(PointSource):
    """The other rows of the data that lie in the ball, all or those of the same true class.

    Parameters
    ----------
    rows : ndarray of shape (n_rows, n_features)
        All the data, the samples among them.
    predicted : ndarray of shape (n_rows,)
        Class index that the model gives each of `rows`.
    labels : ndarray of shape (n_rows,) or None
        True class indices, where only rows of the class of the sample count.
    """

    rows: np.ndarray
    predicted: np.ndarray
    labels: np.ndarray | None

    def count(self, model, references, epsilons, norm, seed):
        """Count as `PointSource.count` says; nothing is drawn, so `seed` makes no difference."""
        others = torch.as_tensor(np.ascontiguousarray(self.rows), dtype=torch.float64)
        x = torch.as_tensor(np.ascontiguousarray(references.rows), dtype=torch.float64)
        predicted, expected = torch.as_tensor(self.predicted), references.expected.cpu()
        n_kept = np.zeros((len(x), len(epsilons)), dtype=np.int64)
        n_points = np.zeros_like(n_kept)
        order = torch.inf if norm == "linf" else 2
        for i in range(0, len(x), 256):
            block = slice(i, i + 256)
            distance = torch.cdist(
                x[block], others, p=order, compute_mode="donot_use_mm_for_euclid_dist"
            )
            keep = predicted == expected[block, None]
            if self.labels is not None:
                own_class = torch.as_tensor(references.labels[block])[:, None]
                distance.masked_fill_(torch.as_tensor(self.labels) != own_class, torch.inf)
            for j, epsilon in enumerate(epsilons):
                near = distance <= epsilon * _REACH
                n_points[block, j] = near.sum(dim=1).cpu().numpy()
                n_kept[block, j] = (near & keep).sum(dim=1).cpu().numpy()
        # The sample itself lies in each of its balls, and is no evidence.
        return n_kept - references.agree[:, None].cpu().numpy(), n_points - 1


@dataclass(frozen=True)
class GeneratedSource(PointSource):
    """Points from the user's own generator, those of them that lie in the ball.

    Parameters
    ----------
    generate : callable
        ``generate(X, labels, epsilon, n_samples, generator)``, as `RobustnessScore` has it.
    classes : ndarray of shape (n_classes,)
        Names of the classes, since `generate` is given names.
    n_samples : int
        Points generated for each ball.
    batch_size : int
        Points that the model sees at a time.
    """

    generate: object
    classes: np.ndarray
    n_samples: int
    batch_size: int

    def count(self, model, references, epsilons, norm, seed):
        """Count as `PointSource.count` says; points outside the ball do not count."""
        random = np.random.default_rng(seed)
        x, labels = references.rows, references.labels
        n_kept = np.zeros((len(x), len(epsilons)), dtype=np.int64)
        n_points = np.zeros_like(n_kept)
        n_rows = max(self.batch_size // self.n_samples, 1)
        for j, epsilon in enumerate(epsilons):
            for start in range(0, len(x), n_rows):
                block = slice(start, start + n_rows)
                names = None if labels is None else self.classes[labels[block]]
                generated = self._generated(x[block], names, epsilon, random)
                near = _are_near(generated, x[block], epsilon, norm)
                # The center stands in for points that do not count, which may be NaN.
                points = torch.as_tensor(
                    np.where(near[:, :, None], generated, x[block][:, None]),
                    dtype=model.dtype,
                    device=model.device,
                )
                keep = _keep_label(model, points, references.expected[block]).cpu().numpy()
                n_points[block, j] = near.sum(axis=1)
                n_kept[block, j] = (near & keep).sum(axis=1)
        return n_kept, n_points

    def _generated(self, x, names, epsilon, random):
        """Return what the user's generator makes of `x`, as numbers of the right shape."""
        shape = (len(x), self.n_samples, x.shape[1])
        generated = call_of_user(
            "neighborhood", self.generate, x, names, epsilon, self.n_samples, random
        )
        try:
            generated = np.asarray(generated)
        except ValueError:  # ragged
            generated = np.empty(0, dtype=object)
        if generated.dtype.kind not in "fiub":
            raise TypeError(
                f"Got neighborhood with points of type {generated.dtype}, but expected an array "
                f"of real numbers of shape {shape}."
            )
        if generated.shape != shape:
            raise ValueError(
                f"Got neighborhood with points of shape {generated.shape}, but expected {shape}."
            )
        return generated


def _are_near(points, x, epsilon, norm):
    """Tell which points, of shape (k, r, n_features), lie in the balls; NaN does not: (k, r)."""
    if norm is None:
        return np.isfinite(points).all(axis=2)
    offset = points.astype(np.float64) - x[:, None]
    return np.linalg.norm(offset, np.inf if norm == "linf" else 2, axis=2) <= epsilon * _REACH
