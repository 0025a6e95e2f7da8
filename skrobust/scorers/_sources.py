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
    "kept_labels",
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


def kept_labels(model, points, expected):
    """Tell which points, an array of shape (k, r, n_features), have `expected` labels: (k, r)."""
    points = torch.as_tensor(points, dtype=model.dtype, device=model.device)
    return _keep_label(model, points, torch.as_tensor(expected, device=model.device)).cpu().numpy()


@dataclass(frozen=True)
class UniformSource(PointSource):
    """Points that are uniform in the part of the ball inside the bounds.

    Parameters
    ----------
    n_samples : int
        Points drawn in each ball.
    batch_size : int
        Points that the model sees at a time.
    bounds : pair of floats or of array-likes, or None
        Valid domain of the inputs.
    labeled : pair of arrays of shape (n_rows, n_features) and (n_rows,), or None, default=None
        Data with true class indices: only points count whose closest row of the data has the
        true label of the sample.
    """

    n_samples: int
    batch_size: int
    bounds: object
    labeled: object = None

    def count(self, model, references, epsilons, norm, seed):
        """Count as `PointSource.count` says; without `labeled` all of `n_samples` points."""
        x = model.rows(references.rows)
        closest = None if self.labeled is None else _ClosestRow(*self.labeled, model)
        generator = torch.Generator(model.device).manual_seed(seed)
        n_kept = torch.zeros((len(x), len(epsilons)), dtype=torch.int64, device=model.device)
        n_points = torch.full_like(n_kept, 0 if closest else self.n_samples)
        bounds = check_bounds(self.bounds)
        n_rows = max(self.batch_size // self.n_samples, 1)
        for j, epsilon in enumerate(epsilons):
            ball = Ball.around(x, epsilon, norm, bounds)
            for done in range(0, self.n_samples, self.batch_size):
                r = min(self.batch_size, self.n_samples - done)
                draw = UniformPoints(norm, r, generator)
                for start in range(0, len(x), n_rows):
                    block = slice(start, start + n_rows)
                    points = draw(ball[block])
                    keep = _keep_label(model, points, references.expected[block])
                    if closest:
                        counts = closest.has_label(points, references.labels[block])
                        n_points[block, j] += counts.sum(dim=1)
                        keep &= counts
                    n_kept[block, j] += keep.sum(dim=1)
        return n_kept.cpu().numpy(), n_points.cpu().numpy()


class _ClosestRow:
    """The label of any point: that of the row of the data which is closest in L2."""

    def __init__(self, rows, labels, model):
        self.rows = model.rows(rows)
        self.labels = torch.as_tensor(labels, device=model.device)

    def has_label(self, points, labels):
        """Tell which points, of shape (k, r, n_features), have the label of their row: (k, r)."""
        closest = torch.cat(
            [
                torch.cdist(part, self.rows).argmin(dim=1)
                for part in points.flatten(0, 1).split(4096)
            ]
        )
        labels = torch.as_tensor(labels, device=points.device).unsqueeze(1)
        return self.labels[closest].unflatten(0, points.shape[:2]) == labels


class UniformPoints:
    """Uniform points of balls inside their boxes, from random numbers that several rows share.

    Random numbers cost as much as a small network, so that, where there are many features, one
    array of them serves several rows. Each row has signs of its own, and for L2, where balls are
    folded and signs lost, it shifts the numbers by some features: neither changes the
    distribution. The points of a row are independent and uniform; those of different rows are
    not independent.

    Parameters
    ----------
    norm : {"linf", "l2"}
    n_samples : int
        Points drawn in each ball.
    generator : torch.Generator
    """

    rows_per_sample = 64  # rows that share random numbers
    many_features = 64  # with fewer, signs or shifts alone would leave rows alike

    def __init__(self, norm, n_samples, generator):
        self.norm, self.n_samples, self.generator = norm, n_samples, generator
        self.rows_to_serve = 0
        self.points = None

    def __call__(self, ball):
        """Return points of each ball, (n, n_samples, n_features); overwritten by the next call."""
        n, n_features = ball.center.shape
        like = {"device": ball.center.device, "dtype": ball.center.dtype}
        if self.rows_to_serve <= 0 or n_features < self.many_features:
            shape = (n if n_features < self.many_features else 1, self.n_samples, n_features)
            self.numbers = self._numbers(shape, like)
            self.rows_to_serve = max(self.rows_per_sample, n)
        self.rows_to_serve -= n
        if self.points is None or len(self.points) != n:
            self.points = torch.empty((n, self.n_samples, n_features), **like)
        return self._in_boxes(ball) if self.norm == "linf" else self._in_cut_balls(ball)

    def _numbers(self, shape, like):
        if self.norm == "l2":
            return torch.randn(shape, generator=self.generator, **like)
        # By one part in a million smaller, for the rounding of the sums below.
        return (torch.rand(shape, generator=self.generator, **like) * 2 - 1) * (1 - 1e-6)

    def _in_boxes(self, ball):
        # The ball cut to the bounds is a box, not in general around the sample.
        middle, reach = (ball.lower + ball.upper) / 2, (ball.upper - ball.lower) / 2
        signs = torch.randint(2, middle.shape, generator=self.generator, device=middle.device)
        scale = (signs * 2 - 1) * reach
        torch.addcmul(middle.unsqueeze(1), self.numbers, scale.unsqueeze(1), out=self.points)
        return self.points

    def _in_cut_balls(self, ball):
        n, n_features = ball.center.shape
        normals = self.numbers
        if n_features >= self.many_features:
            like = {"generator": self.generator, "device": normals.device}
            shifts = torch.randint(n_features, (n,), **like)
            signs = torch.randint(2, (n, 1, n_features), **like)
            twice = torch.cat([normals[0], normals[0]], dim=1)
            every_shift = twice.as_strided(
                (n_features, self.n_samples, n_features), (1, 2 * n_features, 1)
            )
            normals = every_shift[shifts].mul_(signs * 2 - 1)
        offsets = ball.cut().sample(self.n_samples, self.generator, normals)
        inwards = ball.epsilon * (1 - 1e-6)
        torch.addcmul(ball.center.unsqueeze(1), offsets, inwards, out=self.points)
        return torch.clamp(
            self.points, ball.lower.unsqueeze(1), ball.upper.unsqueeze(1), out=self.points
        )


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
    holds_samples : bool, default=True
        Whether the samples are themselves among the rows.
    """

    rows: np.ndarray
    predicted: np.ndarray
    labels: np.ndarray | None
    holds_samples: bool = True

    def count(self, model, references, epsilons, norm, seed):
        """Count as `PointSource.count` says; nothing is drawn, so `seed` makes no difference."""
        n_kept = np.zeros((len(references.rows), len(epsilons)), dtype=np.int64)
        n_points = np.zeros_like(n_kept)
        for block, distance, keep in self._distances(references, norm):
            for j, epsilon in enumerate(epsilons):
                near = distance <= epsilon * _REACH
                n_points[block, j] = near.sum(dim=1).cpu().numpy()
                n_kept[block, j] = (near & keep).sum(dim=1).cpu().numpy()
        if not self.holds_samples:
            return n_kept, n_points
        # The sample itself lies in each of its balls, and is no evidence.
        return n_kept - references.agree[:, None].cpu().numpy(), n_points - 1

    def closest_change(self, references, norm):
        """Return the distance to the closest row without the expected label, inf if none: (n,).

        It is 0 where the sample itself has another one.
        """
        radius = np.zeros(len(references.rows))
        for block, distance, keep in self._distances(references, norm):
            nearest = distance.masked_fill_(keep, torch.inf).min(dim=1).values
            radius[block] = nearest.cpu().numpy()
        return np.where(references.agree.cpu().numpy(), radius, 0.0)

    def _distances(self, references, norm):
        """Yield blocks of samples, their distances from the rows that count, and which keep."""
        others = torch.as_tensor(np.ascontiguousarray(self.rows), dtype=torch.float64)
        x = torch.as_tensor(np.ascontiguousarray(references.rows), dtype=torch.float64)
        predicted, expected = torch.as_tensor(self.predicted), references.expected.cpu()
        order = torch.inf if norm == "linf" else 2
        for i in range(0, len(x), 256):
            block = slice(i, i + 256)
            distance = torch.cdist(
                x[block], others, p=order, compute_mode="donot_use_mm_for_euclid_dist"
            )
            if self.labels is not None:
                own_class = torch.as_tensor(references.labels[block])[:, None]
                distance.masked_fill_(torch.as_tensor(self.labels) != own_class, torch.inf)
            yield block, distance, predicted == expected[block, None]


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
