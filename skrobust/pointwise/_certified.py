"""A sound lower bound of the radius: the largest ball, by bisection, that bounds prove.

References
----------
Zhang et al., "Efficient neural network robustness certification with general activation
functions", NeurIPS 2018 (CROWN); Zhang et al., "Towards stable and efficient training of
verifiably robust neural networks", ICLR 2020 (CROWN on interval bounds).
"""

import torch

from skrobust.balls import Ball
from skrobust.bounds import crown, interval_rows, relax

__all__ = ["certified_radius", "lowest_margin"]

_PRECISION, _REFINED = 2.0**-14, 2.0**-5  # of the radius
_SMALLEST = 1e-12  # relative to the limit; nothing smaller is looked for
_FEW_UNITS = 4000  # beyond, to tighten the bounds of all hidden units takes seconds a sample


def certified_radius(graph, x, labels, low, high, limit):
    """Return, for each row, a radius within which no other label can win.

    Parameters
    ----------
    graph : Graph
    x : Tensor of shape (n, n_features), float64
    labels : Tensor of shape (n,)
    low, high : Tensor of shape (n, n_features)
    limit : Tensor of shape (n,)
        Where to stop looking.

    Returns
    -------
    Tensor of shape (n,)
    """
    labels = torch.as_tensor(labels, device=x.device)
    proven = _bisect(graph, x, labels, low, high, torch.zeros_like(limit), limit, False)
    if sum(graph.nodes[i].size for i in graph.piecewise) <= _FEW_UNITS:
        proven = _bisect(graph, x, labels, low, high, proven, limit, True)
    return proven


def _bisect(graph, x, labels, low, high, proven, limit, refine):
    """Return the largest radii that are proven, of which `proven` are known to hold."""
    precision = _REFINED if refine else _PRECISION
    upper, left = torch.full_like(limit, torch.inf), torch.arange(len(x), device=x.device)
    radius = torch.where(proven > 0, torch.minimum(2 * proven, limit), limit)
    while len(left):
        step, at = radius[left].unsqueeze(1), x[left]
        lower, higher = torch.maximum(at - step, low[left]), torch.minimum(at + step, high[left])
        holds = lowest_margin(graph, at, lower, higher, labels[left], refine) > 0
        proven[left[holds]] = radius[left[holds]]
        upper[left[~holds]] = radius[left[~holds]]
        between = torch.where(upper < torch.inf, (proven + upper) / 2, 2 * proven)
        radius = torch.minimum(between, limit)
        is_closed = (upper < torch.inf) & (upper - proven <= precision * upper)
        is_open = ~is_closed & (proven < limit) & (upper > _SMALLEST * limit)
        left = left[is_open[left]]
    return proven


@torch.no_grad()
def lowest_margin(graph, x, lower, upper, labels, refine=False):
    """Return a lower bound of the smallest z_label - z_j over each box, of shape (n,).

    With `refine`, the bounds of hidden units are tightened by CROWN as well.
    """
    reach = torch.maximum(upper - x, x - lower).amax(dim=1).max()
    relaxation = relax(graph, Ball(x, reach, "linf", lower, upper), refine=refine)
    identity = torch.eye(graph.n_classes, dtype=x.dtype, device=x.device)
    others = ~identity.bool()[labels]
    rows = (identity[labels].unsqueeze(1) - identity)[others]
    rows = rows.view(len(x), -1, graph.n_classes)
    return torch.maximum(interval_rows(relaxation, rows), crown(relaxation, rows)).amin(dim=1)
