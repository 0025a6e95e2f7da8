"""Intervals of all nodes over balls, from the input on (IBP), tightened backwards (CROWN).

References
----------
Gowal et al., "On the effectiveness of interval bound propagation for training verifiably robust
models", 2018.
"""

import torch

from skrobust.bounds._backward import adjoint
from skrobust.bounds._relaxation import Relaxation
from skrobust.bounds._rounding import UNIT, dot, gamma, rounding_weight
from skrobust.bounds._tightening import intersect, tighten_before
from skrobust.bounds._units import Units
from skrobust.exceptions import UnsupportedModelError
from skrobust.graphs import pull_back

__all__ = ["affine_interval", "interval_rows", "relax"]


def relax(
    graph, ball, *, refine=True, lines=True, rounding=True, n_steps=0, units=None, known=None,
    watch=None,
):  # fmt: skip
    """Bound every node over balls, from the input on.

    Parameters
    ----------
    graph : Graph
    ball : Ball
        Of B centers, in the dtype of the graph.
    refine : bool, default=True
        Whether intervals before piecewise nodes are tightened backwards (CROWN), not only
        propagated (IBP).
    lines : bool, default=True
        Whether lines are made, which all but `interval_rows` needs.
    rounding : bool, default=True
        Whether bounds are moved outwards by what rounding can do, as a proof needs, and the
        training of a network does not.
    n_steps : int, default=0
        Gradient steps for the slopes behind each of these intervals.
    units : Units, default=None
        How nodes that are not affine are bounded: as functions of their input if None.
    known : dict of int to pair of Tensor of shape (B, *shape), default=None
        Proved bounds of nodes that piecewise ones read, such as those of larger balls.
    watch : Stopwatch, default=None
        When its time is up, intervals are no longer tightened.

    Returns
    -------
    Relaxation

    Raises
    ------
    UnsupportedModelError
        If the graph has a kind of node for which no rule is registered.
    ValueError
        If `rounding` is asked for in another dtype than float64, for which it is computed.
    """
    if rounding and graph.dtype != torch.float64:
        raise ValueError(
            f"Got a graph of {graph.dtype} with rounding=True, but expected torch.float64: what "
            "rounding can do is only computed for that. Use rounding=False, or read_graph."
        )
    units = Units() if units is None else units
    shape = graph.nodes[0].shape
    lows, highs = [ball.lower.view(-1, *shape)], [ball.upper.view(-1, *shape)]
    empty = torch.zeros(len(ball.lower), dtype=torch.bool, device=ball.lower.device)
    built = Relaxation(graph, ball, lows, highs, [None], {}, units.homogeneous, empty, rounding)
    depths = _depths(graph)
    for i, node in enumerate(graph.nodes[1:], start=1):
        if node.is_affine:
            low, high, weight = affine_interval(built, i, node)
        else:
            (j,) = _one_input(node)
            if known is not None and j in known:
                intersect(built, j, *known[j])
            tighten_before(built, i, node, refine, n_steps, depths[j], units, watch)
            if lines:
                built.lines[i] = units.lines(i, node, lows[j], highs[j])
            low, high = units.image(i, node, lows[j], highs[j])
            weight = rounding_weight(node, lows[j], highs[j]) if rounding else None
        lows.append(low)
        highs.append(high)
        built.weights.append(weight)
    return built


def _one_input(node):
    """Return the inputs; refuse a kind whose rules would be told of the first of several only."""
    if len(node.inputs) != 1:
        raise UnsupportedModelError(
            f"Got {node.name} with {len(node.inputs)} inputs, but expected one: bounds of nodes "
            "that are not affine look at one interval. Join the inputs by Concat before."
        )
    return node.inputs


def _depths(graph):
    """Count the layers that mix entries before each node; infinite behind a piecewise one."""
    depths = [0]
    for node in graph.nodes[1:]:
        depth = max(depths[j] for j in node.inputs)
        depths.append(depth + node.mixes if node.is_affine else float("inf"))
    return depths


def affine_interval(built, i, node):
    graph = built.graph
    pairs = [(built.lows[j], built.highs[j]) for j in node.inputs]
    center = node.apply(*((low + high) / 2 for low, high in pairs))
    radius = node.magnitude(*((high - low) / 2 for low, high in pairs))
    if built.homogeneous:
        center = center - graph.constants[i]
    if not built.rounding:
        return center - radius, center + radius, None
    weight = node.magnitude(*(torch.maximum(-low, high) for low, high in pairs))
    weight = weight + 2 * graph.constants[i].abs()
    radius = radius + gamma(graph, i) * weight
    # Where numbers overflow nothing is known; a NaN would pass for a decided unit.
    low, high = center - radius, center + radius
    return (
        low.nan_to_num(-torch.inf, torch.inf, -torch.inf),
        high.nan_to_num(torch.inf, torch.inf, -torch.inf),
        weight,
    )


def interval_rows(relaxation, rows, shift=None):
    """Return lower bounds of rows of the outputs by intervals alone.

    The rows are pulled back through the last affine nodes first, which keeps what the outputs
    have in common.

    Parameters
    ----------
    relaxation : Relaxation
        Of B balls.
    rows : Tensor of shape (B, m, n_classes)
    shift : Tensor of shape (B, m), default=None
        Added to the rows.

    Returns
    -------
    Tensor of shape (B, m)
    """
    graph = relaxation.graph
    zeros = rows.new_zeros(rows.shape[:2])
    lower, error = zeros if shift is None else shift, zeros

    def visit(i, node, here):
        nonlocal lower, error
        if i == 0 or not node.is_affine:
            low, high = relaxation.lows[i], relaxation.highs[i]
            size = here.abs()
            lower = lower + dot(here, (low + high) / 2) - dot(size, (high - low) / 2)
            if relaxation.rounding:
                # Two sums of node.size products, and one rounding each of the middle and of the
                # half-width: in sum at most (node.size + 4) u |here| . max |z|.
                factor = 2.02 * UNIT * (node.size + len(graph.nodes) + 8)
                error = error + factor * dot(size, torch.maximum(-low, high))
            return ()
        if relaxation.rounding:
            error = error + dot(here.abs(), relaxation.weights[i] * gamma(graph, i))
        if not relaxation.homogeneous:
            lower = lower + here.flatten(2) @ graph.constants[i].flatten()
        return adjoint(node, here)

    pull_back(graph, len(graph.nodes) - 1, {len(graph.nodes) - 1: rows}.get, visit)
    if shift is not None and relaxation.rounding:
        error = error + 4 * UNIT * len(graph.nodes) * shift.abs()
    return lower - error
