"""A sound lower bound of the radius: interval bounds, then one backward pass of CROWN.

References
----------
Zhang et al., "Efficient neural network robustness certification with general activation
functions", NeurIPS 2018; Gowal et al., "On the effectiveness of interval bound propagation",
2018. The combination is that of Zhang et al., "Towards stable and efficient training of
verifiably robust neural networks", ICLR 2020 (CROWN-IBP).
"""

import torch

from skrobust.networks._graph import Clamp, MaxPool, Relu

__all__ = ["certified_radius", "lowest_margin"]

_SLACK = 1e-11  # outward, relative: far above the rounding of float64
_N_BISECTIONS = 16


def certified_radius(graph, x, labels, low, high, limit):
    """Return, for each row, a radius within which no other label can win, by bisection.

    Parameters
    ----------
    graph : PiecewiseLinear
    x : Tensor of shape (n, n_features), float64
    labels : Tensor of shape (n,)
    low, high : Tensor of shape (n_features,)
    limit : Tensor of shape (n,)
        Where to stop looking.

    Returns
    -------
    Tensor of shape (n,)
    """
    proven, upper = torch.zeros_like(limit), limit.clone()
    radius = limit.clone()
    for _ in range(_N_BISECTIONS + 1):
        step = radius.unsqueeze(1)
        lower, higher = torch.maximum(x - step, low), torch.minimum(x + step, high)
        holds = lowest_margin(graph, lower, higher, labels) > 0
        proven = torch.where(holds, torch.maximum(proven, radius), proven)
        upper = torch.where(holds, upper, torch.minimum(upper, radius))
        if (proven >= upper).all():
            break
        radius = (proven + upper) / 2
    return proven


def lowest_margin(graph, lower, upper, labels):
    """Return a lower bound of the smallest z_label - z_j over each box, of shape (n,)."""
    bounds = _interval_bounds(graph, lower, upper)
    n, n_classes = len(lower), graph.n_classes
    identity = torch.eye(n_classes, dtype=lower.dtype, device=lower.device)
    weights = identity[labels].unsqueeze(1) - identity  # (n, n_classes, n_classes)
    others = torch.ones(n, n_classes, dtype=torch.bool, device=lower.device)
    others[torch.arange(n), labels] = False
    margins = _backward(graph, bounds, weights)
    return margins.masked_fill(~others, torch.inf).min(dim=1).values


def _interval_bounds(graph, lower, upper):
    """Return (lower, upper) of every node, for boxes of shape (n, n_features)."""
    bounds = [(lower, upper)]
    for node in graph.nodes[1:]:
        parts = [bounds[j] for j in node.inputs]
        if node.is_affine:
            centers = [(low + high) / 2 for low, high in parts]
            radii = [(high - low) / 2 for low, high in parts]
            center, radius = node.apply(*centers), node.magnitude(*radii)
            size = node.magnitude(
                *(center.abs() + radius for center, radius in zip(centers, radii, strict=True))
            )
            radius = radius + _SLACK * (1 + size + center.abs())
            bounds.append((center - radius, center + radius))
        else:
            low, high = (node.apply(bound) for bound in parts[0])
            if isinstance(node, Relu):
                crosses = (parts[0][0] < 0) & (parts[0][1] > 0)
                low, high = torch.minimum(low, high), torch.maximum(low, high)
                bend = torch.zeros_like(low)
                low = torch.where(crosses, torch.minimum(low, bend), low)
                high = torch.where(crosses, torch.maximum(high, bend), high)
            bounds.append((low, high))
    return bounds


def _backward(graph, bounds, weights):
    """Return lower bounds, of shape (n, m), of weights (n, m, n_classes) times the logits."""
    n, m = weights.shape[:2]
    last = len(graph.nodes) - 1
    pending = {last: weights.reshape(n * m, *graph.nodes[last].shape)}
    constant = weights.new_zeros(n * m)
    error = weights.new_zeros(n * m)
    for i in range(last, 0, -1):
        A = pending.pop(i, None)
        if A is None:
            continue
        node = graph.nodes[i]
        if node.is_affine:
            terms = A * graph.constants[i]
            parts = node.adjoint(A)
        else:
            part, terms = _relaxed(node, A, bounds[node.inputs[0]], m)
            parts = (part,)
        constant = constant + terms.flatten(1).sum(dim=1)
        error = error + terms.abs().flatten(1).sum(dim=1)
        for j, part in zip(node.inputs, parts, strict=True):
            if part is not None:
                pending[j] = pending[j] + part if j in pending else part
        # The rounding of this step: of what A multiplies, by the bounds of its inputs.
        for j, part in zip(node.inputs, parts, strict=True):
            if part is not None:
                size = torch.maximum(bounds[j][0].abs(), bounds[j][1].abs())
                error = error + (part.abs() * size.repeat_interleave(m, dim=0)).flatten(1).sum(1)
    A = pending.get(0)
    if A is not None:
        low, high = (bound.repeat_interleave(m, dim=0) for bound in bounds[0])
        constant = constant + (A.clamp(min=0) * low + A.clamp(max=0) * high).flatten(1).sum(dim=1)
    return (constant - _SLACK * (1 + error)).view(n, m)


def _relaxed(node, A, bounds, m):
    """Replace a piecewise linear node by a line below A times it.

    Returns
    -------
    part : Tensor
        Coefficients of the input of the node.
    terms : Tensor
        Constants, to be summed.
    """
    low, high = bounds
    if isinstance(node, MaxPool):
        return _relaxed_pool(node, A, low, high, m)
    below, above = _lines(node, low, high)
    (a, b), (c, d) = (
        tuple(v.repeat_interleave(m, dim=0) for v in line) for line in (below, above)
    )
    positive, negative = A.clamp(min=0), A.clamp(max=0)
    return positive * a + negative * c, positive * b + negative * d


def _lines(node, low, high):
    """Return (slope, intercept) of a line below and one above, on [low, high]."""
    f_low, f_high = node.apply(low), node.apply(high)
    width = high - low
    chord = torch.where(width > 0, (f_high - f_low) / width.clamp(min=1e-300), 0.0)
    if isinstance(node, Clamp):
        inside = (low >= node.low) & (high <= node.high)
        slope = inside.to(low.dtype)
        return (slope, torch.where(inside, 0.0, f_low)), (slope, torch.where(inside, 0.0, f_high))
    slope = node.slope.expand_as(low)
    is_on, is_off = low >= 0, high <= 0
    zero = torch.zeros_like(low)
    # max(z, slope z) is convex for slope <= 1: the chord is above, a tangent below. A chord
    # may miss an end by rounding, so it is lifted to pass both.
    lift = torch.maximum(f_low - chord * low, f_high - chord * high)
    drop = torch.minimum(f_low - chord * low, f_high - chord * high)
    tangent = torch.where(high > -low, torch.ones_like(low), slope)
    convex = slope <= 1
    stays = is_on | is_off
    fixed = torch.where(is_on, torch.ones_like(low), slope)
    below_slope = torch.where(stays, fixed, torch.where(convex, tangent, chord))
    above_slope = torch.where(stays, fixed, torch.where(convex, chord, tangent))
    below = torch.where(stays | convex, zero, drop)
    above = torch.where(stays | ~convex, zero, lift)
    return (below_slope, below), (above_slope, above)


def _relaxed_pool(node, A, low, high, m):
    lows, highs = node.windows(low), node.windows(high)
    best, place = lows.max(dim=2, keepdim=True)
    chosen = node.members.unsqueeze(0).expand(len(low), -1, -1).gather(2, place)
    others = node.members.unsqueeze(0) != chosen
    dominates = torch.where(others, highs, -torch.inf).amax(dim=2, keepdim=True) <= best
    top = highs.amax(dim=2)
    flat = A.flatten(1)
    chosen, dominates, top = (
        v.squeeze(2).repeat_interleave(m, dim=0) if v.ndim == 3 else v.repeat_interleave(m, dim=0)
        for v in (chosen, dominates, top)
    )
    through = torch.where(dominates, flat, flat.clamp(min=0))
    part = torch.zeros(len(flat), low[0].numel(), dtype=A.dtype, device=A.device)
    part.scatter_add_(1, chosen, through)
    terms = torch.where(dominates, 0.0, flat.clamp(max=0) * top)
    return part.view(len(flat), *node.input_shape), terms
