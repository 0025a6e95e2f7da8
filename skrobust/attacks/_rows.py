"""The rows of a property near its references, to first order: which of them can be broken."""

import torch

from skrobust.attacks._gradients import finite_or_zero, input_gradient

__all__ = ["row_gradients", "row_order", "search_balls", "search_distances"]

_N_BALLS = 3  # in which rows that depend on the distance are looked for
_NEAR, _NEAREST = 1 / 16, 1 / 1024  # radius of the smallest, relative to the largest
_MOST_ROWS = 64  # that a gradient is asked for
_N_POINTS = 4  # random points that choose these where there are more


def row_gradients(target, x, columns=None):
    """Return the rows at `x`, and their gradients there.

    Parameters
    ----------
    target : Target
    x : Tensor of shape (n, n_features)
    columns : int Tensor of shape (n, k), default=None
        Which rows of each sample; all if None.

    Returns
    -------
    values : Tensor of shape (n, k)
    gradients : iterator over k Tensors of shape (n, n_features)
        Each is computed when it is asked for. Zero, with a warning, where not finite.
    """
    x = x.detach().requires_grad_()
    with torch.enable_grad():
        values = target.conclusion.values(target.network(x), target.distance(x))
        if columns is not None:
            values = values.gather(1, columns)
    gradients = (
        finite_or_zero(input_gradient(row.sum(), x, retain_graph=True))
        for row in values.unbind(dim=1)
    )
    return values.detach(), gradients


def search_distances(target):
    """Return how far from the reference the rows are looked for, (k,), the farthest first.

    Rows that depend on the distance are looked for in smaller balls as well, since they may be
    broken near the reference alone: to first order, what the ball and the domain cut off of a
    move counts the less the smaller it is. The smallest ball lets the feature of the smallest
    radius move as far as all others do. Infinity stands for the whole ball.

    Parameters
    ----------
    target : Target

    Returns
    -------
    Tensor of shape (k,)
    """
    epsilon = target.ball.epsilon
    largest = epsilon.max().item()
    distances = [torch.inf]
    if target.conclusion.uses_distance and largest > 0:
        share = (epsilon[epsilon > 0].min().item() / largest) or _NEAREST
        share = min(max(share, _NEAREST), _NEAR)
        distances += [largest * share ** (k / (_N_BALLS - 1)) for k in range(1, _N_BALLS)]
    return epsilon.new_tensor(distances)


def search_balls(target):
    """Return the balls of the `search_distances`, the largest first.

    Parameters
    ----------
    target : Target

    Returns
    -------
    list of Ball
    """
    ball = target.ball
    return [ball, *(ball.within(distance) for distance in search_distances(target)[1:])]


def row_order(target):
    """Return the rows of each sample in the order of what the ball can make of them.

    First comes the row of the lowest minimum over the ball, to first order at the reference: its
    value there, less what the longest move against its gradient takes off. It is the minimum over
    all `search_balls` for rows that depend on the distance.

    Parameters
    ----------
    target : Target

    Returns
    -------
    int Tensor of shape (n, k)
        Of m rows, at most 64.
    """
    columns = _lowest_rows(target)
    if columns.shape[1] == 1:
        return columns
    balls = search_balls(target)
    _, gradients = row_gradients(target, target.x, columns)
    minima = [
        torch.stack([_minimum(target, place, gradient, ball) for ball in balls]).amin(dim=0)
        for place, gradient in zip(columns.unbind(dim=1), gradients, strict=True)
    ]
    return columns.gather(1, torch.stack(minima, dim=1).argsort(dim=1, stable=True))


def _minimum(target, row, gradient, ball):
    """Return the lowest value of one row of each sample in a ball, to first order."""
    move = ball.step(target.x, gradient, -1.0) - target.x
    # Of what the row depends on, the distance of the move is known exactly.
    values = target.conclusion.values(target.reference_logits, target.distance(target.x + move))
    return values.gather(1, row.unsqueeze(1)).squeeze(1) + (gradient * move).sum(dim=1)


def _lowest_rows(target):
    """Return the rows worth a gradient: all, or those that are lowest at the points looked at."""
    logits, distance = target.reference_logits, target.distance(target.x)
    n, m = target.conclusion.values(logits, distance).shape
    if m <= _MOST_ROWS:
        return torch.arange(m, device=logits.device).expand(n, m)
    generator = torch.Generator(target.x.device).manual_seed(0)
    lowest = logits.new_full((n, m), torch.inf)
    for point in target.ball.sample(_N_POINTS, generator).unbind(dim=1):
        with torch.no_grad():
            values = target.conclusion.values(target.network(point), target.distance(point))
        lowest = torch.minimum(lowest, values)
    return lowest.argsort(dim=1, stable=True)[:, :_MOST_ROWS]
