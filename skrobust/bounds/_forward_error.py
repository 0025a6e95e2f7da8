r"""How far a network that is computed in floating point lies from the network in exact arithmetic.

Let u be 2^-24 in float32 and 2^-53 in float64. A number that has gone through k roundings is off
by a factor between 1 - gamma_k and 1 + gamma_k, where gamma_k = k u / (1 - k u). A sum of n
products, in whatever order and grouping, with fused operations or without, is the sum of its
products, each of which has gone through at most n roundings (Higham, 2002, sections 3.1 and 4.2).
There is room for one more of the bias, and one of weights that are rounded to the type. So if the
inputs of an affine node are off by at most e, and their exact values lie in intervals within -+ V,
its output is off by at most

.. math:: |W| e + \gamma_k (|W| (V + e) + |b|),

and the errors of a node that bends go on by at most its slope. Numbers below the smallest normal
one may be set to zero: that much is added for each operation. All of it is computed in float64,
and moved upwards by what that may have rounded.

References
----------
Higham, "Accuracy and stability of numerical algorithms", 2002. Szasz, Banhelyi and Jelasity, "No
soundness in the real world", arXiv 2506.01054.
"""

from functools import singledispatch

import torch

from skrobust._validation import expected
from skrobust.bounds._intervals import relax
from skrobust.bounds._smooth_lines import steepness
from skrobust.graphs import (
    Average,
    AveragePool,
    Clamp,
    Concat,
    Constant,
    Conv,
    Linear,
    MaxPool,
    Permute,
    Rearrange,
    Relu,
    Reshape,
    Scale,
    Smooth,
    Sum,
    no_rule,
)

__all__ = ["carried_error", "forward_error", "roundings"]

_ROOM = 2.0**-20  # for the rounding of what is computed here, which takes less than 2^32 sums


def forward_error(graph, ball, *, dtype=torch.float32):
    r"""Bound how far outputs in floating point lie from those in exact arithmetic, over balls.

    What `Bounds` and `Exact` prove is about the network in exact arithmetic. The outputs that are
    computed in `dtype` differ from it by at most this, at every point of the ball that is a number
    of `dtype`: a row a z + b that is proved to be above sum(abs(a) error) is above 0 in floating
    point also.

    Parameters
    ----------
    graph : Graph
        In float64, as `skrobust.graphs.read_graph` returns it.
    ball : Ball
        Of B centers, in float64.
    dtype : torch.dtype, default=torch.float32
        In which the network is computed.

    Returns
    -------
    Tensor of shape (B, n_classes)
        In units of the outputs. Infinite where numbers may overflow, or sums are too long for the
        type.

    Raises
    ------
    ValueError
        If `dtype` is no type of floating point, or graph or ball are not in float64.
    UnsupportedModelError
        For a kind of node for which nothing is registered.

    Notes
    -----
    It holds for each machine, library, number of threads and batch size with which every operation
    of the graph is computed in `dtype`, or in a wider type and then rounded: products and sums in
    any order, fused or not, and smooth functions within 64 units in the last place of
    ``growth * (1 + abs(z))``. It does not for convolutions by the methods of Winograd or by
    Fourier transforms, for products in a narrower type (TF32, bfloat16), nor where an export has
    made one operation of several. A SiLU or GELU that is written out, as ``x * sigmoid(x)``, is
    one function of the graph, and taken to be computed as well as one.

    References
    ----------
    Higham, "Accuracy and stability of numerical algorithms", 2002, sections 3.1 and 4.2.

    Examples
    --------
    >>> import torch
    >>> from skrobust.bounds import forward_error
    >>> from skrobust.graphs import read_graph
    >>> from skrobust.properties import ClassificationRobustness
    >>> graph = read_graph(torch.nn.Linear(2, 1), n_features=2)
    >>> x = torch.tensor([[0.5, 0.5]], dtype=torch.float64)
    >>> ball = ClassificationRobustness(0.1).outer_ball(x)
    >>> bool(forward_error(graph, ball) < 1e-6)
    True
    """
    if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
        raise ValueError(expected("dtype", dtype, "a type of floating point, as torch.float32"))
    for name, own in (("graph", graph.dtype), ("ball", ball.center.dtype)):
        if own != torch.float64:
            raise ValueError(f"Got {name} in {own}, but expected torch.float64.")
    facts = torch.finfo(dtype)
    with torch.no_grad():
        built = relax(graph, ball)
        errors = [torch.zeros_like(built.lows[0])]
        for i, node in enumerate(graph.nodes[1:], start=1):
            if node.is_affine:
                error = _affine_error(built, i, [errors[j] for j in node.inputs], facts)
            else:
                (j,) = node.inputs
                error = carried_error(
                    node, built.lows[j] - errors[j], built.highs[j] + errors[j], errors[j], facts
                )
            errors.append(_rounded_up(error))
    return errors[-1]


def _rounded_up(error):
    return (error * (1 + _ROOM)).nan_to_num(torch.inf, torch.inf)


def _affine_error(built, i, errors, facts):
    node, k = built.graph.nodes[i], roundings(built.graph.nodes[i])
    carried = node.magnitude(*errors)
    if k == 0:
        return carried
    unit = facts.eps / 2
    if k * unit >= 1:
        return torch.full_like(built.lows[i], torch.inf)
    largest = [
        torch.maximum(-built.lows[j], built.highs[j]) + error
        for j, error in zip(node.inputs, errors, strict=True)
    ]
    terms = node.magnitude(*largest) + _constants(node, built.graph.constants[i])
    top = sum(part.flatten(1).amax(dim=1) for part in largest)
    floor = 4 * k * facts.tiny * (1 + top)
    error = carried + k * unit / (1 - k * unit) * terms + floor.view(-1, *[1] * len(node.shape))
    return torch.where(2 * terms < facts.max, error, torch.inf)


def _constants(node, constant):
    """Return what the roundings of the constants of a node are relative to."""
    if isinstance(node, Scale) and node.canceled is not None:
        return node.canceled.expand(node.shape)
    return constant.abs()


@singledispatch
def roundings(node):
    """Return through how many roundings the terms of an entry of an affine node go at most.

    Parameters
    ----------
    node : Node
        Affine. Kinds are registered with ``roundings.register(Kind)``: those of products and sums
        in any order, and of their weights, which may be rounded once.

    Returns
    -------
    int
        0 for one that only moves entries.

    Raises
    ------
    UnsupportedModelError
        For a kind that is not registered.
    """
    raise no_rule("bounds.roundings", node)


@roundings.register(Linear)
def _of_linear(node):
    return node.weight.shape[1] + 2


@roundings.register(Conv)
def _of_conv(node):
    return node.weight[0].numel() + 2


@roundings.register(Average)
def _of_average(node):
    return torch.Size(node.input_shape).numel() + 3


@roundings.register(AveragePool)
def _of_average_pool(node):
    return torch.Size(node.kernel).numel() + 3


@roundings.register(Scale)
def _of_scale(node):
    return 10  # of batch norm: four make the weight, three the shift, and three use them


@roundings.register(Sum)
def _of_sum(node):
    return 3


@roundings.register(Constant)
def _of_constant(node):
    return 1


@roundings.register(Concat)
@roundings.register(Permute)
@roundings.register(Rearrange)
@roundings.register(Reshape)
def _of_moves(node):
    return 0


@singledispatch
def carried_error(node, lower, upper, error, facts):
    """Bound the error of the output of a node that is not affine, given that of its input.

    Parameters
    ----------
    node : Node
        Kinds are registered with ``carried_error.register(Kind)``.
    lower, upper : Tensor of shape (B, *shape of the input)
        Between which its input lies, exact or computed.
    error : Tensor of shape (B, *shape of the input)
        How far the two are apart.
    facts : torch.finfo
        Of the type in which it is computed.

    Returns
    -------
    Tensor of shape (B, *shape)

    Raises
    ------
    UnsupportedModelError
        For a kind that is not registered.
    """
    raise no_rule("bounds.carried_error", node)


@carried_error.register(Relu)
def _through_relu(node, lower, upper, error, facts):
    slope = node.slope.abs()
    # Products by 0 and by 1 are exact.
    is_rounded = (slope != 0) & (slope != 1)
    rounded = 2 * facts.eps * slope * torch.maximum(-lower, upper) + 2 * facts.tiny * (1 + slope)
    return slope.clamp(min=1) * error + torch.where(is_rounded, rounded, 0.0)


@carried_error.register(Clamp)
def _through_clamp(node, lower, upper, error, facts):
    limits = [abs(limit) for limit in (node.low, node.high) if abs(limit) != float("inf")]
    return error + facts.eps * max(limits, default=0.0) + facts.tiny


@carried_error.register(MaxPool)
def _through_max_pool(node, lower, upper, error, facts):
    return node.apply(error)


@carried_error.register(Smooth)
def _through_smooth(node, lower, upper, error, facts):
    least, most = steepness(node, lower, upper)
    slope = torch.maximum(least.abs(), most.abs())
    own = 64 * facts.eps * node.growth * (1 + torch.maximum(-lower, upper).clamp(min=0))
    return torch.where(error == 0, 0.0, slope * error) + own + node.drop(upper) + facts.tiny
