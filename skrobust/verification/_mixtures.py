r"""Bounds of clauses by mixtures of their rows.

Of rows of which one must be above 0, a mixture sum_i w_i row_i with w_i >= 0 is above 0 only
where one of them is. Its bound can be far above those of all rows: of max(z, -z) >= 0, each row
alone proves nothing over a box around 0, and half of each is 0 everywhere.
"""

import torch

from skrobust.bounds import Climb, crown, relax, row_bounds

__all__ = ["holds_by_mixtures", "mixture", "with_mixtures"]

_N_STEPS = 10
_RATE = 0.3
_UNIT = 2.0**-52
_TINY = 1e-300


def holds_by_mixtures(graph, query, lower, shift, method, n_steps, watch=None):
    """Return what bounds of rows and of mixtures tell of a query of linear rows with clauses.

    Parameters
    ----------
    graph : Graph
    query : Query
        Of n points, whose rows do not depend on the distance.
    lower : Tensor of shape (n, m)
        Proved bounds of the rows.
    shift : Tensor of shape (n, m)
        Constants of the rows, less the rounding of the reference outputs.
    method, n_steps, watch
        As of `row_bounds`.

    Returns
    -------
    holds : bool Tensor of shape (n,)
    margin : Tensor of shape (n,)
    mixtures : list of (int, int, Tensor of shape (w,))
        For clauses that no row proves: the point, the clause and the weights of its rows.
    """
    proved, bounds = query.proved(lower), query.clause_bounds(lower)
    point, clause = (~proved).nonzero(as_tuple=True)
    if len(point) == 0:
        return proved.all(dim=1), bounds.amin(dim=1), []
    members = query.clauses[clause]
    index, at = point.unsqueeze(1), members
    relaxation = relax(graph, query.ball, watch=watch)
    terms = query.rows.A[index, at], shift[index, at]
    A, shift, _, weights = mixture(relaxation, *terms, sample=point)
    options = {"method": method, "n_steps": n_steps, "watch": watch}
    mixed = row_bounds(relaxation[point], A, shift, **options).squeeze(1)
    mixed = mixed.nan_to_num(-torch.inf, torch.inf, -torch.inf)
    is_strict = query.strict[members].any(dim=1)
    proved[point, clause] = torch.where(is_strict, mixed > 0, mixed >= 0)
    bounds[point, clause] = torch.fmax(bounds[point, clause], mixed)
    mixtures = list(zip(point.tolist(), clause.tolist(), weights, strict=True))
    return proved.all(dim=1), bounds.amin(dim=1), mixtures


def with_mixtures(root, A, shift, slope=None, nearest=None):
    """Return rows of clauses over one ball, each clause with a mixture as one row more.

    Parameters
    ----------
    root : Relaxation
        Of the one ball.
    A : Tensor of shape (k, w, n_classes)
    shift, slope : Tensor of shape (k, w)
        `slope` may be None.
    nearest : Tensor of shape (1,), default=None
        Least distance.

    Returns
    -------
    A, shift, slope
        As given, with w + 1 rows; the largest of them is the same as before.
    weights : Tensor of shape (k, w) or None
        Of the rows in the mixtures; None where there are none.
    """
    if A.shape[1] == 1:
        return A, shift, slope, None
    sample = torch.zeros(len(A), dtype=torch.long, device=A.device)
    nearest = None if nearest is None else nearest.expand(len(A))
    with torch.no_grad():
        *more, weights = mixture(root, A, shift, slope, nearest, sample=sample)
    terms = (
        None if part is None else torch.cat([part, one], dim=1)
        for part, one in zip((A, shift, slope), more, strict=True)
    )
    return *terms, weights


def mixture(relaxation, A, shift, slope=None, nearest=None, *, sample):
    """Return one row for each of P clauses that is above 0 only where one of its rows is.

    The weights are chosen by gradient steps on the bound by lines.

    Parameters
    ----------
    relaxation : Relaxation
    A : Tensor of shape (P, w, n_classes)
    shift, slope : Tensor of shape (P, w)
        `slope` may be None.
    nearest : Tensor of shape (P,), default=None
    sample : int Tensor of shape (P,)
        The ball of each.

    Returns
    -------
    A : Tensor of shape (P, 1, n_classes)
    shift, slope : Tensor of shape (P, 1)
    weights : Tensor of shape (P, w)
    """
    terms = (relaxation, sample, A, shift, slope)
    weights = torch.ones_like(shift)
    best, chosen = torch.full_like(shift[:, 0], -torch.inf), weights
    climb = Climb([((weights,), _RATE, 1.0)], decay=0.9)
    for step in range(_N_STEPS + 1):
        with torch.set_grad_enabled(step < _N_STEPS):
            rows, shifts, slopes = _mixed(weights, *terms)
            options = {"sample": sample, "shift": shifts, "slope": slopes, "nearest": nearest}
            lower = crown(relaxation, rows, **options).squeeze(1)
        better = lower.detach() > best
        best = torch.where(better, lower.detach(), best)
        chosen = torch.where(better[:, None], weights.detach(), chosen.detach())
        if step == _N_STEPS or (best > 0).all() or not lower.isfinite().all():
            break
        with torch.enable_grad():
            climb.step(torch.where(best > 0, 0.0, lower).sum())
    with torch.no_grad():
        return *_mixed(chosen, *terms), chosen


def _mixed(weights, relaxation, sample, A, shift, slope):
    """Mix the rows; what rounding can add to the sum over the ball is taken off."""
    weights = (weights / weights.sum(dim=1, keepdim=True).clamp(min=_TINY)).unsqueeze(1)

    def mixed(part):
        return (weights @ part.unsqueeze(2)).squeeze(2)

    with torch.no_grad():
        ends = [side[-1].flatten(1).abs() for side in (relaxation.lows, relaxation.highs)]
        reach = torch.maximum(*ends)
        reach = reach if len(reach) == 1 else reach[sample]
        unit = (A.shape[1] + 3) * _UNIT
        size = ((weights @ A.abs()).squeeze(1) * reach).sum(dim=1, keepdim=True)
        error = unit * (size + mixed(shift.abs()))
    slopes = None
    if slope is not None:
        slopes = mixed(slope) - unit * mixed(slope.abs())
    return weights @ A, mixed(shift) - error, slopes
