"""Where the points of a robustness score come from."""

from dataclasses import dataclass

import numpy as np
import torch

from skrobust._validation import check_bounds
from skrobust.balls import Ball

__all__ = ["predicted_classes"]


def predicted_classes(model, rows, batch_size):
    """Return the class index that a model gives each row, (n,)."""
    parts = [
        model.replay(model.rows(rows[start : start + batch_size])).argmax(dim=1)
        for start in range(0, len(rows), batch_size)
    ]
    return torch.cat(parts).cpu().numpy()


def _has_label(model, points, wanted):
    """Tell which points, of shape (k, r, n_features), have the label of their row: (k, r)."""
    with torch.no_grad():
        logits = model(points.flatten(0, 1))
    found = logits.argmax(dim=1).unflatten(0, points.shape[:2])
    return found == wanted.unsqueeze(1)


@dataclass(frozen=True)
class UniformSource:
    """Points that are uniform in the ball."""

    n_samples: int
    batch_size: int
    bounds: object

    def count(self, model, rows, labels, wanted, is_wanted, epsilons, norm, seed):
        x = model.rows(rows)
        generator = torch.Generator(model.device).manual_seed(seed)
        n_kept = torch.zeros((len(x), len(epsilons)), dtype=torch.int64, device=model.device)
        bounds = check_bounds(self.bounds)
        n_rows = max(self.batch_size // self.n_samples, 1)
        for j, epsilon in enumerate(epsilons):
            ball = Ball.around(x, epsilon, norm, bounds)
            for done in range(0, self.n_samples, self.batch_size):
                r = min(self.batch_size, self.n_samples - done)
                draw = PointsSource(norm, bounds, r, generator)
                for start in range(0, len(x), n_rows):
                    block = slice(start, start + n_rows)
                    points = draw(ball[block])
                    n_kept[block, j] += _has_label(model, points, wanted[block]).sum(dim=1)
        n_kept = n_kept.cpu().numpy()
        return n_kept, np.full_like(n_kept, self.n_samples)


class PointsSource:
    """Uniform points of balls: a sample of the unit ball, moved by random signs.

    Random numbers cost as much as a small network, so that a sample serves a number of rows,
    where there are many features. The unit ball looks the same after any change of signs of the
    coordinates: each row has its own, and its points are independent and uniform.
    """

    n_uses = 64  # rows, after which a new sample is drawn
    many = 64  # features; with few of them, signs alone would leave rows alike

    def __init__(self, norm, bounds, n_samples, generator):
        self.norm, self.bounds = norm, bounds
        self.n_samples, self.generator = n_samples, generator
        self.left = 0
        self.points = None

    def __call__(self, ball):
        n, n_features = ball.center.shape
        like = {"device": ball.center.device, "dtype": ball.center.dtype}
        if self.left <= 0 or n_features < self.many:
            shape = (n if n_features < self.many else 1, self.n_samples, n_features)
            # By one part in a million smaller, for the rounding of the sums below.
            self.unit = self._unit_ball(shape, like) * (1 - 1e-6)
            self.left = max(self.n_uses, n)
        self.left -= n
        if self.points is None or len(self.points) != n:
            self.points = torch.empty((n, self.n_samples, n_features), **like)
        middle, reach = ball.center, ball.epsilon
        if self.norm == "linf":
            # The ball cut to the bounds is a box, not in general around the centre.
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
class NeighboursSource:
    """The other rows of the data, all or those of the same class."""

    rows: np.ndarray
    predicted: np.ndarray
    labels: np.ndarray | None

    def count(self, model, rows, labels, wanted, is_wanted, epsilons, norm, seed):
        others = torch.as_tensor(np.ascontiguousarray(self.rows), dtype=torch.float64)
        x = torch.as_tensor(np.ascontiguousarray(rows), dtype=torch.float64)
        predicted, wanted = torch.as_tensor(self.predicted), wanted.cpu()
        n_kept = np.zeros((len(x), len(epsilons)), dtype=np.int64)
        n_points = np.zeros_like(n_kept)
        order = torch.inf if norm == "linf" else 2
        for i in range(0, len(x), 256):
            block = slice(i, i + 256)
            distance = torch.cdist(
                x[block], others, p=order, compute_mode="donot_use_mm_for_euclid_dist"
            )
            same = predicted == wanted[block, None]
            if self.labels is not None:
                apart = torch.as_tensor(self.labels) != torch.as_tensor(labels[block])[:, None]
                distance.masked_fill_(apart, torch.inf)
            for j, epsilon in enumerate(epsilons):
                near = distance <= epsilon * (1 + 1e-6)
                n_points[block, j] = near.sum(dim=1)
                n_kept[block, j] = (near & same).sum(dim=1)
        # The row itself lies in every ball, and is no evidence.
        return n_kept - is_wanted[:, None].cpu().numpy(), n_points - 1


@dataclass(frozen=True)
class GeneratedSource:
    """Points from the user's own generator, those of them that lie in the ball."""

    generate: object
    classes: np.ndarray
    n_samples: int
    batch_size: int

    def count(self, model, rows, labels, wanted, is_wanted, epsilons, norm, seed):
        random = np.random.default_rng(seed)
        n_kept = np.zeros((len(rows), len(epsilons)), dtype=np.int64)
        n_points = np.zeros_like(n_kept)
        n_rows = max(self.batch_size // self.n_samples, 1)
        for j, epsilon in enumerate(epsilons):
            for start in range(0, len(rows), n_rows):
                block = slice(start, start + n_rows)
                x = rows[block]
                y = None if labels is None else self.classes[labels[block]]
                drawn = np.asarray(self.generate(x, y, epsilon, self.n_samples, random))
                shape = (len(x), self.n_samples, x.shape[1])
                if drawn.shape != shape:
                    raise ValueError(
                        f"Got Q with points of shape {drawn.shape}, but expected {shape}."
                    )
                near = _are_near(drawn, x, epsilon, norm)
                points = torch.as_tensor(
                    np.where(near[:, :, None], drawn, x[:, None]),
                    dtype=model.dtype,
                    device=model.device,
                )
                same = _has_label(model, points, wanted[block]).cpu().numpy()
                n_points[block, j] = near.sum(axis=1)
                n_kept[block, j] = (near & same).sum(axis=1)
        return n_kept, n_points


def _are_near(points, x, epsilon, norm):
    """Tell which points, of shape (k, r, n_features), lie in the balls; NaN does not: (k, r)."""
    if norm is None:
        return np.isfinite(points).all(axis=2)
    offset = points.astype(np.float64) - x[:, None]
    return np.linalg.norm(offset, np.inf if norm == "linf" else 2, axis=2) <= epsilon * (1 + 1e-6)
