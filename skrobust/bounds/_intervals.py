"""Intervals of all nodes over balls, from the input on (IBP), tightened backwards (CROWN).

References
----------
Gowal et al., "On the effectiveness of interval bound propagation for training verifiably robust
models", 2018.
"""

import torch

from skrobust.bounds._backward import adjoint
from skrobust.bounds._relaxation import Relaxation
from skrobust.bounds._rounding import (
    constant_dot,
    constant_weight,
    dot,
    floor,
    floor_weight,
    gamma,
    rounding_terms,
    rounding_weight,
    unit,
)
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
        If `rounding` is asked for in float32 with a ball of L2 or for slopes, for which it is
        only computed in float64; or if the dtypes of graph and ball differ.
    """
    units = Units() if units is None else units
    single = rounding and graph.dtype != torch.float64
    if single and not (graph.dtype == torch.float32 and _is_plain(ball, units)):
        raise ValueError(
            f"Got a graph of {graph.dtype} with rounding=True, but expected torch.float64: what "
            "rounding can do is only computed for that, and in torch.float32 for boxes and "
            "piecewise linear functions. Use rounding=False, or read_graph."
        )
    shape = graph.nodes[0].shape
    lows, highs = [ball.lower.view(-1, *shape)], [ball.upper.view(-1, *shape)]
    empty = torch.zeros(len(ball.lower), dtype=torch.bool, device=ball.lower.device)
    floors = [floor(graph.n_features + 8, _largest(lows[0], highs[0]))] if single else []
    built = Relaxation(
        graph, ball, lows, highs, [None], {}, units.homogeneous, empty, rounding, floors
    )
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
            weight = None
            if rounding:
                weight = _floored(built, i, rounding_weight(node, lows[j], highs[j]))
        lows.append(low)
        highs.append(high)
        built.weights.append(weight)
    return built


def _is_plain(ball, units):
    return ball.norm == "linf" and ball.lower.dtype == torch.float32 and not units.homogeneous


def _largest(low, high):
    return torch.maximum(-low, high)


def _floored(built, i, weight):
    """Account for numbers too small for float32 in what the rounding of a node is relative to."""
    if not built.floors:
        return weight
    node = built.graph.nodes[i]
    largest = [_largest(built.lows[j], built.highs[j]) for j in node.inputs]
    weight = weight + floor_weight(*largest).view(-1, *[1] * len(node.shape))
    built.floors.append(floor(rounding_terms(node) + node.size + 8, weight, *largest))
    return weight


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
    weight = node.magnitude(*(_largest(low, high) for low, high in pairs))
    weight = _floored(built, i, weight + constant_weight(node, graph.constants[i]))
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
                factor = 2.02 * unit(rows.dtype) * (node.size + len(graph.nodes) + 8)
                largest = torch.maximum(-low, high)
                if relaxation.floors:
                    largest = largest + floor_weight()
                error = error + factor * dot(size, largest)
            return ()
        if relaxation.rounding:
            error = error + dot(here.abs(), relaxation.weights[i] * gamma(graph, i))
        if not relaxation.homogeneous:
            lower = lower + constant_dot(node, here, graph.constants[i])
        return adjoint(node, here)

    pull_back(graph, len(graph.nodes) - 1, {len(graph.nodes) - 1: rows}.get, visit)
    if shift is not None and relaxation.rounding:
        error = error + 4 * unit(rows.dtype) * len(graph.nodes) * shift.abs()
    for part in relaxation.floors:
        error = error + part[:, None]
    return lower - error
