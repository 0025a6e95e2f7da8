"""A sound lower bound of the radius: the largest ball, by bisection, that bounds prove.

References
----------
Zhang et al., "Efficient neural network robustness certification with general activation
functions", NeurIPS 2018 (CROWN); Zhang et al., "Towards stable and efficient training of
verifiably robust neural networks", ICLR 2020 (CROWN on interval bounds).
"""

import torch

from skrobust._ball import Ball
from skrobust.verification._relaxation import crown, interval_rows, relax

__all__ = ["certified_radius", "lowest_margin"]

_N_BISECTIONS = 16
_N_REFINED = 8
_FEW_UNITS = 4000  # beyond, to tighten the bounds of all hidden units takes seconds a sample


def certified_radius(graph, x, labels, low, high, limit):
    """Return, for each row, a radius within which no other label can win.

    Parameters
    ----------
    graph : PiecewiseLinear
    x : Tensor of shape (n, n_features), float64
    labels : Tensor of shape (n,)
    low, high : Tensor of shape (n, n_features)
    limit : Tensor of shape (n,)
        Where to stop looking.

    Returns
    -------
    Tensor of shape (n,)
    """
    proven = _bisect(graph, x, labels, low, high, torch.zeros_like(limit), limit, False)
    if sum(graph.nodes[i].size for i in graph.piecewise) <= _FEW_UNITS:
        proven = _bisect(graph, x, labels, low, high, proven, limit, True)
    return proven


def _bisect(graph, x, labels, low, high, proven, limit, refine):
    upper, radius = limit.clone(), limit
    for _ in range(1 + (_N_REFINED if refine else _N_BISECTIONS)):
        step = radius.unsqueeze(1)
        lower, higher = torch.maximum(x - step, low), torch.minimum(x + step, high)
        holds = lowest_margin(graph, x, lower, higher, labels, refine) > 0
        proven = torch.where(holds, torch.maximum(proven, radius), proven)
        upper = torch.where(holds, upper, torch.minimum(upper, radius))
        if (proven >= upper).all():
            break
        radius = (proven + upper) / 2
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
