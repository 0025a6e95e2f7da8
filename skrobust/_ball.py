"""The set of inputs that a property speaks about: a ball, cut to the valid domain."""

from dataclasses import dataclass

import torch

__all__ = ["Ball"]

_LATTICE = 2**15  # noise is drawn as int16, so in steps of the half-width / _LATTICE


def _rounded(value, toward, like):
    """Cast float64 `value` to the dtype of `like`, never past `value` as seen from `toward`."""
    cast = value.to(like.dtype)
    passed = torch.where(value > toward, cast > value, cast < value)
    return torch.where(passed, torch.nextafter(cast, like), cast)


@dataclass(frozen=True, eq=False)
class Ball:
    """Points within `epsilon` of `center`, and inside the box [`lower`, `upper`].

    Make one by `Ball.around`. For the L-infinity norm the box alone is the set. For the
    L2 norm the set is the box cut with the ball; with one epsilon for each feature that ball
    is the ellipsoid of points with norm((x - center) / epsilon) <= 1.

    Parameters
    ----------
    center : Tensor of shape (n, n_features)
    epsilon : Tensor of shape () or (n_features,)
    norm : {"linf", "l2"}
    lower, upper : Tensor of shape (n, n_features)
        In the dtype of `center`, rounded inwards: no point of the box lies outside the exact
        one.
    """

    center: torch.Tensor
    epsilon: torch.Tensor
    norm: str
    lower: torch.Tensor
    upper: torch.Tensor

    @classmethod
    def around(cls, center, epsilon, norm, bounds):
        """Build the ball around each row of `center`, inside `bounds` (a pair or None)."""
        exact = center.double()
        radius = torch.as_tensor(epsilon, dtype=torch.float64, device=center.device)
        lower, upper = exact - radius, exact + radius
        if bounds is not None:
            low, high = (torch.as_tensor(b, dtype=torch.float64).to(center.device) for b in bounds)
            # A centre can leave the domain by the rounding of the data to float32, no more.
            lower = torch.minimum(torch.maximum(lower, low), exact)
            upper = torch.maximum(torch.minimum(upper, high), exact)
        return cls(
            center,
            radius.to(center.dtype),
            norm,
            _rounded(lower, exact, center),
            _rounded(upper, exact, center),
        )

    def __getitem__(self, index):
        return Ball(
            self.center[index], self.epsilon, self.norm, self.lower[index], self.upper[index]
        )

    def distance(self, x):
        """Return the plain distance from the centre: (n,) for `x` of shape (n, n_features).

        For `x` of shape (n, r, n_features) it is (n, r).
        """
        center = self.center if x.ndim == 2 else self.center.unsqueeze(1)
        order = float("inf") if self.norm == "linf" else 2
        return torch.linalg.vector_norm(x - center, ord=order, dim=-1)

    def project(self, x):
        """Return the closest point of the box (for L2: of the ball, and then of the box)."""
        if self.norm == "l2":
            # The centre lies in the box, so that clipping to it afterwards only comes closer.
            offset = x - self.center
            length = torch.linalg.vector_norm(self._scaled(offset), dim=-1, keepdim=True)
            # One part in a million inwards, so that rounding cannot leave the ball.
            x = self.center + offset * torch.clamp((1 - 1e-6) / length, max=1.0)
        return torch.clamp(x, self.lower, self.upper)

    def step(self, x, direction, size):
        """Move by `size`, relative to epsilon, along a gradient, and project.

        `size` is a float or a tensor of shape (n, 1). The step is the steepest one of the
        norm: the sign for L-infinity, the normalised gradient for L2.
        """
        return self.project(x + self.steepest(direction) * size)

    def unit(self, direction):
        """Return the steepest move of length 1, in units of the input, along a gradient."""
        if self.norm == "linf":
            return direction.sign()
        direction = direction * (self.epsilon > 0)
        length = torch.linalg.vector_norm(direction, dim=-1, keepdim=True)
        return direction / torch.where(length > 0, length, 1.0)

    def steepest(self, direction):
        """Return the longest move within epsilon (without the box) along a gradient."""
        if self.norm == "linf":
            return direction.sign() * self.epsilon
        scaled = direction * self.epsilon
        length = torch.linalg.vector_norm(scaled, dim=-1, keepdim=True)
        return scaled * self.epsilon / torch.where(length > 0, length, 1.0)

    def sample(self, n_samples, generator=None):
        """Draw points uniformly; for L2, uniformly in the ball and then clipped to the box.

        Returns
        -------
        Tensor of shape (n, n_samples, n_features)
            The samples of one row are independent, and so are those of different rows with
            the same index. For L-infinity all rows share one array of noise on a lattice of
            65,536 values a feature, each with its own random shift (Cranley and Patterson
            1976): this halves the cost of a forward pass over fresh noise.
        """
        if self.norm == "l2":
            return self._sample_l2(n_samples, generator)
        n, n_features = self.center.shape
        noise = _random_int16((n_samples, n_features), generator, self.center.device)
        shift = _random_int16((n, 1, n_features), generator, self.center.device)
        step = (self.upper - self.lower) / (2 * _LATTICE)
        first = (self.lower / 2 + self.upper / 2) + step / 2
        noise = (noise + shift).to(self.center.dtype)
        samples = torch.addcmul(first.unsqueeze(1), noise, step.unsqueeze(1))
        return torch.clamp_(samples, self.lower.unsqueeze(1), self.upper.unsqueeze(1))

    def _sample_l2(self, n_samples, generator):
        n, n_features = self.center.shape
        like = {"generator": generator, "device": self.center.device, "dtype": self.center.dtype}
        free = (self.epsilon > 0).expand(n_features)
        direction = torch.randn((n, n_samples, n_features), **like) * free
        direction /= torch.linalg.vector_norm(direction, dim=-1, keepdim=True).clamp(min=1e-30)
        length = torch.rand((n, n_samples, 1), **like) ** (1 / max(int(free.sum()), 1))
        points = self.center.unsqueeze(1) + direction * length * (self.epsilon * (1 - 1e-6))
        return torch.clamp(points, self.lower.unsqueeze(1), self.upper.unsqueeze(1))

    def _scaled(self, offset):
        return torch.where(self.epsilon > 0, offset / self.epsilon, 0.0)


def _random_int16(shape, generator, device):
    count = torch.Size(shape).numel()
    words = torch.empty(-(-count // 4), dtype=torch.int64, device=device)
    words.random_(-(2**63), None, generator=generator)
    return words.view(torch.int16)[:count].view(shape)
