"""The least value of rows of the input over a ball."""

import torch

from skrobust.bounds._rounding import UNIT, dot, floor_weight, unit

__all__ = ["farthest", "length", "minimum"]


def farthest(ball):
    """Return the largest distance from the center in each ball, rounded up.

    Parameters
    ----------
    ball : Ball
        Of B centers.

    Returns
    -------
    Tensor of shape (B,)
    """
    offset = torch.maximum(ball.upper - ball.center, ball.center - ball.lower)
    if ball.norm == "linf":
        return offset.amax(dim=1) * (1 + 1e-15)
    reach = ball.epsilon.max() * (1 + 1e-12)
    return length(offset, 1).clamp(max=reach) * (1 + 1e-12)


def length(values, dim):
    """Return Euclidean lengths, of which no square that counts underflows or overflows."""
    largest = values.detach().abs().amax(dim=dim, keepdim=True)
    largest = torch.where(largest > 0, largest, 1.0)
    return torch.linalg.vector_norm(values / largest, dim=dim) * largest.squeeze(dim)


def minimum(ball, rows, slope=None, nearest=None, *, sample=None, rounding=True):
    """Return lower bounds of rows . x + slope * d(x, center) over balls.

    Parameters
    ----------
    ball : Ball
        Of B centers.
    rows : Tensor of shape (P, m, n_features)
    slope : Tensor of shape (P, m), default=None
        The distance is not part of the rows if None.
    nearest : Tensor of shape (P,), default=None
        Only points at least so far from the center need be covered: where `slope` is above 0, d
        then counts as at least `nearest`. The minimum is unaffected unless x is closer than
        that; there the bound covers more points than the property requires.
    sample : int Tensor of shape (P,), default=None
        The ball of each; the balls in order if None. A single ball is that of all.
    rounding : bool, default=True
        Whether the bounds are moved outwards by what rounding in float64 can do.

    Returns
    -------
    Tensor of shape (P, m)
    """
    if len(ball.center) == 1:
        sample = None
    if slope is None and ball.norm == "linf":
        return _box_minimum(ball, rows, sample, rounding)
    ball = ball if sample is None else ball[sample]
    if slope is not None:
        return _minimum_with_distance(ball, rows, slope, nearest)
    return torch.maximum(_box_minimum(ball, rows, None, rounding), _ball_minimum(ball, rows))


def _box_minimum(ball, rows, sample=None, rounding=True):
    middle = (ball.lower + ball.upper) / 2
    half = (ball.upper - ball.lower) / 2
    if rounding:
        # Sums of n_features products; the rounding of the middle and of the half-width.
        gamma = 2.02 * unit(rows.dtype) * (ball.center.shape[1] + 8)
        reach = torch.maximum(-ball.lower, ball.upper)
        if rows.dtype == torch.float32:
            reach = reach + floor_weight()
        half = half + gamma * reach
    if sample is not None:
        # Only now: many rows of few balls would take longer to gather than to multiply.
        middle, half = middle[sample], half[sample]
    return dot(rows, middle) - dot(rows.abs(), half)


def _offsets(ball):
    """Return how far each entry can go down and up from the center, rounded outwards."""
    down, up = ball.center - ball.lower, ball.upper - ball.center
    return down * (1 + 4 * UNIT), up * (1 + 4 * UNIT)


_DUAL_STEPS = 12


def _ball_minimum(ball, rows):
    r"""Minimise rows over an ellipsoid cut with a box, by its Lagrange dual.

    For any multiplier t >= 0 the sum over i of min { a_i v + t (v / eps_i)^2 : v in the box }
    minus t is a lower bound. The best t is found by bisection on a logarithmic scale.
    """
    with torch.no_grad():
        down, up = (offset.unsqueeze(1) for offset in _offsets(ball))
        epsilon = torch.where(ball.epsilon > 0, ball.epsilon, 1.0) * (1 + 1e-12)
        scaled = rows * epsilon
        high = length(scaled, 2) / 2  # the multiplier without the box
        low = high * 1e-3
        for _ in range(_DUAL_STEPS):
            t = (low * high).sqrt()
            v = _dual_point(rows, epsilon, down, up, t)
            outside = torch.linalg.vector_norm(v / epsilon, dim=2) > 1
            low, high = torch.where(outside, t, low), torch.where(outside, high, t)
        t = high.clamp(min=1e-300)
    v = _dual_point(rows, epsilon, down, up, t)
    weight = rows.abs() @ torch.maximum(-ball.lower, ball.upper).unsqueeze(2)
    gamma = 8 * UNIT * (rows.shape[2] + 8)
    value = (rows * v).sum(dim=2) + t * ((v / epsilon) ** 2).sum(dim=2) - t
    value = value + dot(rows, ball.center)
    return value - gamma * (weight.squeeze(2) + 2 * t).detach()


def _dual_point(rows, epsilon, down, up, t):
    """Minimise a v + t (v / eps)^2 over the box, entry by entry."""
    # In units of epsilon, whose square may underflow or overflow: only at the minimizer itself is
    # the value a lower bound.
    v = epsilon * (-rows * epsilon / (2 * t.clamp(min=1e-300)).unsqueeze(2))
    return torch.minimum(torch.maximum(v, -down), up)


def _minimum_with_distance(ball, rows, slope, nearest):
    far = farthest(ball)
    near = torch.zeros_like(far) if nearest is None else torch.minimum(nearest, far)
    rising = slope.clamp(min=0)
    sinking = slope.clamp(max=0) * far[:, None]
    if ball.norm == "linf":
        lower = _linf_with_distance(ball, rows, rising, near, far)
    else:
        lower = _l2_with_distance(ball, rows, rising, near, far)
    return lower + sinking


def _linf_with_distance(ball, rows, slope, near, far):
    r"""Minimise slope d - sum_i \|a_i\| min(d, w_i) over d in [near, far], plus a . center.

    w_i is how far x_i can go in the direction that lowers the row. The function is convex and
    piecewise linear in d, so that the least value lies at an end or at some w_i.
    """
    down, up = (offset.unsqueeze(1) for offset in _offsets(ball))
    reach = torch.where(rows > 0, down, up)
    reach, order = reach.sort(dim=2)
    size = rows.abs().gather(2, order)
    gained = (size * reach).cumsum(dim=2)
    behind = size.sum(dim=2, keepdim=True) - size.cumsum(dim=2)

    def value(d):
        place = torch.searchsorted(reach.detach().contiguous(), d.detach().contiguous())
        index = (place - 1).clamp(min=0)
        before = torch.where(place > 0, gained.gather(2, index), 0.0)
        rest = torch.where(place > 0, behind.gather(2, index), size.sum(dim=2, keepdim=True))
        return slope.unsqueeze(2) * d - before - rest * d

    ends = torch.stack(torch.broadcast_tensors(near, far), dim=1).unsqueeze(1)
    ends = ends.expand(*rows.shape[:2], -1)
    kinks = torch.minimum(torch.maximum(reach, ends[..., :1]), ends[..., 1:])
    # Only kinks where the slope changes its sign can be least.
    first = (slope.unsqueeze(2) - behind >= 0).to(reach.dtype).argmax(dim=2, keepdim=True)
    chosen = torch.cat([ends, kinks.gather(2, first)], dim=2)
    least = value(chosen).amin(dim=2)
    gamma = 8 * UNIT * (rows.shape[2] + 8)
    weight = dot(rows.abs(), torch.maximum(-ball.lower, ball.upper)) + slope * far[:, None]
    weight = weight + 2 * size.sum(dim=2) * far[:, None]
    return least + dot(rows, ball.center) - (gamma * weight).detach()


def _l2_with_distance(ball, rows, slope, near, far):
    r"""As for L-infinity, from two bounds: slope d - d \|a\|, and slope d + that of the ball."""
    down, up = (offset.unsqueeze(1) for offset in _offsets(ball))
    blocked = torch.where(rows > 0, down, up) <= 0
    steep = length(rows.masked_fill(blocked, 0.0), 2) * (1 + 1e-12)
    shift = dot(rows, ball.center)
    weight = dot(rows.abs(), torch.maximum(-ball.lower, ball.upper))
    error = 8 * UNIT * (rows.shape[2] + 8) * (weight + slope * far[:, None])
    whole = torch.maximum(_box_minimum(ball, rows), _ball_minimum(ball, rows)) - shift - error
    near, far = near[:, None].expand_as(slope), far[:, None].expand_as(slope)
    crossing = torch.where(steep > 0, -whole / steep.clamp(min=1e-300), far)
    crossing = torch.minimum(torch.maximum(crossing, near), far)
    values = [slope * d + torch.maximum(-d * steep, whole) for d in (near, far, crossing)]
    return torch.stack(values).amin(dim=0) + shift - error.detach()
