"""The set of inputs that a property speaks about: a ball, cut to the valid domain."""

from dataclasses import dataclass

import numpy as np
import torch

from skrobust._cut_balls import CutBalls
from skrobust._validation import epsilon_sides, expected

__all__ = ["Ball"]

_LATTICE = 2**15  # noise is drawn as int16, so in steps of the half-width / _LATTICE


def _rounded_down(value, dtype):
    """Cast the float64 tensor `value` to `dtype`, never above it."""
    cast = value.to(dtype)
    return torch.where(
        cast > value, torch.nextafter(cast, torch.full_like(cast, -torch.inf)), cast
    )


def _rounded_towards(value, center):
    """Cast the float64 tensor `value` to the dtype of `center`, never farther from it."""
    cast = value.to(center.dtype)
    passed = torch.where(value > center, cast > value, cast < value)
    return torch.where(passed, torch.nextafter(cast, center), cast)


def _outwards(lower, upper, dtype):
    """Return ends that are one unit further, and what a coarser type makes of them if that is.

    Both stay finite in that type: no estimator that computes in it can be given more.
    """
    infinity = torch.full_like(lower, torch.inf)
    lower, upper = torch.nextafter(lower, -infinity), torch.nextafter(upper, infinity)
    limit = torch.finfo(dtype).max
    return (
        torch.minimum(lower, lower.to(dtype).double()).clamp(-limit, limit),
        torch.maximum(upper, upper.to(dtype).double()).clamp(-limit, limit),
    )


def _upper(x, epsilon, high):
    """Return at most x + epsilon and `high`, by rounding; but at least x, and finite.

    What rounding adds to a sum is known exactly (Knuth's TwoSum), so that a corner that is a
    number of the dtype is reached.
    """
    upper, rest = _two_sum(x, epsilon)
    below = torch.nextafter(upper, torch.full_like(upper, -torch.inf))
    upper = torch.where(rest < 0, below, upper)
    if high is not None:
        upper = torch.minimum(upper, high)
    # A center may lie a little outside of the domain; see `Ball`.
    return torch.maximum(upper, x)


def _two_sum(x, epsilon):
    """Return x + epsilon, finite, and what rounding took off it."""
    upper = (x + epsilon).clamp(max=torch.finfo(x.dtype).max)
    share = upper - x
    return upper, (x - (upper - share)) + (epsilon - share)


def _at_least(x, epsilon):
    """Return at least x + epsilon, by rounding, and finite."""
    upper, rest = _two_sum(x, epsilon)
    above = torch.nextafter(upper, torch.full_like(upper, torch.inf))
    return torch.where(rest > 0, above.clamp(max=torch.finfo(x.dtype).max), upper)


def _checked_distances(distance, n):
    """Return distances as a tensor of shape () or (n,), or raise a ValueError."""
    expectation = f"a number of at least 0, or a tensor of such numbers of shape ({n},)"
    try:
        # As float64 from the start: torch would make a Python float a float32.
        is_tensor = isinstance(distance, torch.Tensor)
        tensor = distance if is_tensor else torch.as_tensor(distance, dtype=torch.float64)
    except (TypeError, ValueError, RuntimeError):
        raise ValueError(expected("distance", distance, expectation)) from None
    if tensor.shape not in ((), (n,)):
        raise ValueError(expected("distance", distance, expectation))
    is_valid = tensor >= 0  # NaN is not
    if not is_valid.all():
        wrong = distance if tensor.ndim == 0 else tensor[~is_valid][0].item()
        raise ValueError(expected("distance", wrong, expectation))
    return tensor


@dataclass(frozen=True, eq=False)
class Ball:
    """Points within `epsilon` of `center`, and inside the box [`lower`, `upper`].

    Make one by `Ball.around`. For the L-infinity norm the box alone is the set. For the
    L2 norm the set is the box cut with the ball; with one epsilon for each feature that ball
    is the ellipsoid of points with norm((x - center) / epsilon) <= 1.

    The box always holds the center. Rounding may have taken a center out of the domain, by up to
    a millionth of its width (`RobustnessProperty.check` refuses more). In a feature in which it
    has, the domain is widened to the center and no further: there the coordinate of a point is in
    the domain, or between its end and the center. In all other features points lie in the
    domain. This holds for `around` and `outside` alike, so that a proof is about every point that
    an attack may find.

    Infinite ends are cut to the largest finite numbers of the dtype.

    Parameters
    ----------
    center : Tensor of shape (n, n_features)
        Finite numbers.
    epsilon : Tensor of shape () or (n_features,)
        The farther of the two sides, where a feature may fall and rise by unequal radii: the box
        says how far it may go on either. Of shape (n, 1) or (n, n_features) where `within` has
        given each ball its own.
    norm : {"linf", "l2"}
    lower, upper : Tensor of shape (n, n_features)
        In the dtype of `center`, rounded inwards by up to two units in the last place: no
        point of the box lies outside the exact one.
    local_set : LocalSet or None, default=None
        Where only some points of the box are valid. Steps and projections take no notice of it;
        `settle` and `sample` do.
    """

    center: torch.Tensor
    epsilon: torch.Tensor
    norm: str
    lower: torch.Tensor
    upper: torch.Tensor
    local_set: object = None

    @classmethod
    def around(cls, center, epsilon, norm, bounds):
        """Build the ball around each row of `center`, inside `bounds` (a pair or None).

        `epsilon` may be a pair (down, up), as a tuple.
        """
        exact = {"dtype": torch.float64, "device": center.device}
        down, up = (
            _rounded_down(torch.as_tensor(side, **exact), center.dtype)
            for side in epsilon_sides(epsilon)
        )
        low = high = None
        if bounds is not None:
            low, high = (torch.as_tensor(bound, **exact) for bound in bounds)
            low, high = (_rounded_down(bound, center.dtype) for bound in (-low, high))
        upper = _upper(center, up, high)
        return cls(center, torch.maximum(down, up), norm, -_upper(-center, down, low), upper)

    @classmethod
    def outside(cls, center, epsilon, norm, bounds):
        """Build float64 balls around each row of `center`, rounded outwards.

        They hold every point that the balls of `around` hold, and every point of the exact ones.
        One unit in the last place covers the rounding of center -+ epsilon; what cannot move
        stays fixed exactly. Where `center` is in float32, the estimator rounds what it is given
        to that: the box then holds all that the points around a float64 center, of which this
        one is the rounding, become.
        """
        x, center = center, center.double()
        # As float64 from the start: torch would make a Python float a float32.
        exact = {"dtype": torch.float64, "device": center.device}
        down, up = (torch.as_tensor(side, **exact) for side in epsilon_sides(epsilon))
        rounding = 0.0
        if x.dtype != torch.float64:
            infinity = torch.full_like(x, torch.inf)
            rounding = (torch.nextafter(x.abs(), infinity) - x.abs()).double() / 2
        lower, upper = _outwards(center - down - rounding, center + up + rounding, x.dtype)
        # Rounding keeps the order: what lies on one side of a center does not pass it.
        lower, upper = torch.where(down > 0, lower, center), torch.where(up > 0, upper, center)
        if bounds is not None:
            low, high = (torch.as_tensor(bound, **exact) for bound in bounds)
            if x.dtype != torch.float64:
                low = torch.minimum(low, low.to(x.dtype).double())
                high = torch.maximum(high, high.to(x.dtype).double())
            # A center may lie a little outside of the domain.
            lower = torch.minimum(torch.maximum(lower, low), center)
            upper = torch.maximum(torch.minimum(upper, high), center)
        return cls(center, torch.maximum(down, up), norm, lower, upper)

    def __getitem__(self, index):
        epsilon = self.epsilon[index] if self.epsilon.ndim == 2 else self.epsilon
        ends = self.lower[index], self.upper[index]
        return Ball(self.center[index], epsilon, self.norm, *ends, self.local_set)

    def within(self, distance):
        """Return the balls whose radius is, in each feature, cut to `distance`.

        They lie in these balls, and their points are no farther from the center than `distance`,
        but for the rounding of the box, which is outwards. For L-infinity these are all such
        points, so that a proof of them and one of all that are farther leave none out.

        Parameters
        ----------
        distance : float or Tensor of shape (n,)
            One for all, or one for each ball; at least 0. Infinity cuts nothing.

        Returns
        -------
        Ball

        Raises
        ------
        ValueError
            If a distance is negative or NaN, or there is another number of them.
        """
        distance = _checked_distances(distance, len(self.center)).to(self.epsilon)
        distance = distance.unsqueeze(1) if distance.ndim else distance
        epsilon = torch.minimum(self.epsilon, distance)
        lower = torch.maximum(self.lower, -_at_least(-self.center, epsilon))
        upper = torch.minimum(self.upper, _at_least(self.center, epsilon))
        return Ball(self.center, epsilon, self.norm, lower, upper, self.local_set)

    def settle(self, x):
        """Return valid points close to `x`, and which of them are: see `LocalSet.repair`.

        Single values may lie a last digit out of the box, which is rounded inwards.
        """
        if self.local_set is None:
            return self.project(x), torch.ones(len(x), dtype=torch.bool, device=x.device)
        center, lower, upper = self._as_arrays()
        rounding = 4 * torch.finfo(x.dtype).eps
        points = self.local_set.repair(x.double().cpu().numpy(), center, lower, upper, rounding)
        points = self._continuous_inside(torch.as_tensor(points).to(x))
        return points, self.are_valid(points)

    def are_valid(self, x):
        """Return which points, of shape (n, n_features), the local set holds; it is exact."""
        center, _, _ = self._as_arrays()
        valid = self.local_set.holds(x.double().cpu().numpy(), center)
        return torch.as_tensor(valid, device=x.device)

    def _as_arrays(self):
        return [part.double().cpu().numpy() for part in (self.center, self.lower, self.upper)]

    def _continuous_inside(self, points):
        """Clip the features that take any value; points are (n, n_features) or (n, r, .)."""
        lower, upper = self.lower, self.upper
        if points.ndim == 3:
            lower, upper = lower.unsqueeze(1), upper.unsqueeze(1)
        is_single = torch.zeros(points.shape[-1], dtype=torch.bool, device=points.device)
        is_single[torch.as_tensor(self.local_set.discrete, device=points.device)] = True
        return torch.where(is_single, points, torch.clamp(points, lower, upper))

    def distance(self, x):
        """Return the plain distance from the center: (n,) for `x` of shape (n, n_features).

        For `x` of shape (n, r, n_features) it is (n, r).
        """
        center = self.center if x.ndim == 2 else self.center.unsqueeze(1)
        order = float("inf") if self.norm == "linf" else 2
        return torch.linalg.vector_norm(x - center, ord=order, dim=-1)

    def project(self, x):
        """Return the closest point of the box (for L2: of the ball, and then of the box)."""
        if self.norm == "l2":
            # The center lies in the box, so that clipping to it afterwards only comes closer.
            exact = self.center.double()
            offset = x.double() - exact
            length = torch.linalg.vector_norm(self._scaled(offset), dim=-1, keepdim=True)
            # One part in a million inwards, for the rounding of the length. That of each
            # coordinate goes towards the center: in many dimensions it would add up.
            moved = exact + offset * torch.clamp((1 - 1e-6) / length, max=1.0)
            x = _rounded_towards(moved, self.center)
        return torch.clamp(x, self.lower, self.upper)

    def step(self, x, direction, size):
        """Move by `size`, relative to epsilon, along a gradient, and project.

        `size` is a float (below 0 to go against the gradient) or a tensor of shape (n, 1). The
        step is the steepest one of the norm: the sign for L-infinity, the normalized gradient
        for L2.
        """
        if self.norm == "linf" and self.epsilon.ndim == 0 and isinstance(size, float):
            # Half the passes over memory of the general form below.
            x = torch.add(x, direction.sign(), alpha=size * self.epsilon.item())
            return torch.clamp_(x, self.lower, self.upper)
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

    def noise(self, n_samples, generator=None):
        """Draw what `sample` can share between balls; None for L2, which shares nothing."""
        if self.norm == "l2":
            return None
        return _Noise(
            _random_int16((n_samples, self.center.shape[1]), generator, self.center.device)
        )

    def sample(self, n_samples, generator=None, noise=None):
        """Draw points uniformly from the ball inside the box.

        Parameters
        ----------
        n_samples : int
        generator : torch.Generator, default=None
        noise : object, default=None
            From `noise`, for as many samples; drawn anew if None. The samples of one call are
            overwritten by the next one with the same noise.

        Returns
        -------
        Tensor of shape (n, n_samples, n_features)
            The samples of one row are independent, and so are those of different rows with
            the same index. For L-infinity all rows share one array of noise, on a lattice of
            65,536 values a feature, and each has its own random shift (Cranley and Patterson
            1976): fresh noise would cost as much as the network's forward pass.
        """
        if self.local_set is not None:
            seed = torch.empty((), dtype=torch.int64).random_(generator=generator).item()
            rng = np.random.default_rng(seed)
            points = self.local_set.sample(*self._as_arrays(), n_samples, rng)
            return self._continuous_inside(torch.as_tensor(points).to(self.center))
        if self.norm == "l2":
            return self.scaled_up(self.cut().sample(n_samples, generator))
        if noise is None:
            noise = self.noise(n_samples, generator)
        n, n_features = self.center.shape
        shift = _random_int16((n, 1, n_features), generator, self.center.device)
        # The difference itself could overflow.
        step = self.upper / (2 * _LATTICE) - self.lower / (2 * _LATTICE)
        first = (self.lower / 2 + self.upper / 2) + step / 2
        samples = noise.shifted(shift, self.center.dtype)
        torch.addcmul(first.unsqueeze(1), samples, step.unsqueeze(1), out=samples)
        # The outermost values lie half a step inside, which covers the rounding in all but the
        # narrowest boxes. To look is worth its time only where there are many samples.
        if n_samples < 8 or self._is_narrow(step):
            torch.clamp_(samples, self.lower.unsqueeze(1), self.upper.unsqueeze(1))
        return samples

    def _is_narrow(self, step):
        rounding = torch.finfo(step.dtype).eps * (self.lower.abs() + self.upper.abs())
        return ((step > 0) & (step < 2 * rounding)).any()

    def cut(self):
        """Return the L2 balls in units of their radius, as `CutBalls`, from which to draw."""
        free = (self.epsilon > 0) & (self.lower < self.upper)
        exact, center = self.epsilon.double(), self.center.double()
        low = torch.where(free, (self.lower.double() - center) / exact, 0.0).clamp(min=-1)
        high = torch.where(free, (self.upper.double() - center) / exact, 0.0).clamp(max=1)
        return CutBalls(low.to(self.center.dtype), high.to(self.center.dtype))

    def scaled_up(self, offsets):
        """Return points at offsets in units of epsilon, (n, r, n_features), rounded inwards."""
        center = self.center.unsqueeze(1)
        # One epsilon a ball is one for each of its samples.
        epsilon = self.epsilon.unsqueeze(1) if self.epsilon.ndim == 2 else self.epsilon
        offsets = offsets.double() * (epsilon.double() * (1 - 1e-6))
        points = _rounded_towards(center.double() + offsets, center)
        return torch.clamp(points, self.lower.unsqueeze(1), self.upper.unsqueeze(1))

    def _scaled(self, offset):
        return torch.where(self.epsilon > 0, offset / self.epsilon, 0.0)


class _Noise:
    """Noise that all rows share, with reused buffers: new ones cost as much as the arithmetic."""

    def __init__(self, values):
        self.values = values
        self.sums = self.samples = None

    def shifted(self, shift, dtype):
        """Return values + shift for each row of `shift`, of shape (n, n_samples, n_features)."""
        shape = (len(shift), *self.values.shape)
        if self.sums is None or self.sums.shape != shape:
            self.sums = self.values.new_empty(shape)
            self.samples = self.values.new_empty(shape, dtype=dtype)
        torch.add(self.values, shift, out=self.sums)
        return self.samples.copy_(self.sums)


def _random_int16(shape, generator, device):
    count = torch.Size(shape).numel()
    words = torch.empty(-(-count // 4), dtype=torch.int64, device=device)
    words.random_(-(2**63), None, generator=generator)
    return words.view(torch.int16)[:count].view(shape)
