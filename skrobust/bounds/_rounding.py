r"""How far rounding can move a bound, and how much is computed at once.

Every bound is moved outwards by what rounding can do. Let u be 2^-53 in float64, and 2^-24 in
float32. A sum of n products has an error of at most gamma_n = n u / (1 - n u) times the sum of
their absolute values, in whatever order it is computed (Higham, 2002, section 3.1). Going back
through node i, a row L of it becomes L' = L W + delta with \|delta\| <= gamma \|L\| \|W\|. The
number that is returned in the end is an exact bound of the rows as they were computed, so that
delta costs no more than \|delta\| . max \|z\| <= gamma \|L\| . (\|W\| V), where V bounds the true
inputs of the node in the ball: intervals, which are at hand. These costs are added up over the
nodes, with twice gamma for the rounding of the costs themselves.

In float32 weights may be rounded, too, which is one more relative error of u for each product.
And numbers below 2^-126 are not that rare: each product, sum and weight may be wrong by that,
whatever becomes of such numbers, be they rounded or set to zero. What that can cost is a number
for each node and ball, the *floor*: that much for each operation, times the largest values that
meet it. Where the error is that of a weight, and so in proportion to rows, what rounding is
relative to is a little larger. In float64, with numbers below 2^-1022, neither is accounted for.

References
----------
Higham, "Accuracy and stability of numerical algorithms", 2002.
"""

from dataclasses import fields
from functools import singledispatch

import torch

from skrobust.exceptions import UnsupportedModelError
from skrobust.graphs import (
    Average,
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
    Sum,
    no_rule,
)

__all__ = [
    "NUMBERS_AT_ONCE",
    "UNIT",
    "check_finite",
    "constant_dot",
    "constant_weight",
    "dot",
    "floor",
    "floor_weight",
    "gamma",
    "points_at_once",
    "rounding_terms",
    "rounding_weight",
    "unit",
]

UNIT = 2.0**-53
_FEW = 10  # operations that each sum has room for, beside its own
# In the largest array of one pass. Larger ones are handed back to the system each time, and to
# get their memory again takes longer than to work on it.
NUMBERS_AT_ONCE = 2**20


def check_finite(graph):
    """Return the graph; raise where its weights or constants are NaN or infinite.

    Parameters
    ----------
    graph : Graph

    Returns
    -------
    Graph

    Raises
    ------
    UnsupportedModelError
        With the name of the layer.
    """
    for node, constant in zip(graph.nodes, graph.constants, strict=True):
        parts = [constant, *(getattr(node, field.name) for field in fields(node))]
        numbers = [part for part in parts if isinstance(part, torch.Tensor)]
        if not all(torch.isfinite(part).all() for part in numbers):
            raise UnsupportedModelError(
                f"Got weights with NaN or infinity in layer {node.path}, but expected finite ones."
            )
    return graph


def points_at_once(graph):
    """Return how many balls can be bounded together, two rows for each class, in memory.

    Parameters
    ----------
    graph : Graph

    Returns
    -------
    int
    """
    largest = max(node.size for node in graph.nodes)
    return max(1, NUMBERS_AT_ONCE // (largest * 2 * graph.n_classes))


def unit(dtype):
    """Return the largest relative error of one operation: half the distance from 1 to the next."""
    return torch.finfo(dtype).eps / 2


@singledispatch
def rounding_terms(node):
    """Return how many products one entry of a node, or of its adjoint, may sum.

    Parameters
    ----------
    node : Node
        Kinds are registered with ``rounding_terms.register(Kind)``. Any bound from above is
        sound. Of a node that is not affine, the number of its entries is added to it anyway; of
        an affine one, the product of rows with its constants is accounted for elsewhere.

    Returns
    -------
    int

    Raises
    ------
    UnsupportedModelError
        For a kind that is not registered.
    """
    raise no_rule("bounds.rounding_terms", node)


@rounding_terms.register(Linear)
def _of_linear(node):
    return max(node.weight.shape)


@rounding_terms.register(Conv)
def _of_conv(node):
    # Forwards those of a window; backwards those windows, of all channels, that hold an entry.
    return max(node.weight[0].numel(), node.weight.numel() // node.weight.shape[1])


@rounding_terms.register(Average)
def _of_average(node):
    return 2 * torch.Size(node.input_shape).numel()


@rounding_terms.register(Rearrange)
@rounding_terms.register(Scale)
def _of_scale(node):
    return node.size + torch.Size(node.input_shape).numel()


# One or two products an entry; what a pool hands back to an entry, from several windows, is a
# sum over entries of the node.
@rounding_terms.register(Clamp)
@rounding_terms.register(Concat)
@rounding_terms.register(Constant)
@rounding_terms.register(MaxPool)
@rounding_terms.register(Permute)
@rounding_terms.register(Relu)
@rounding_terms.register(Reshape)
@rounding_terms.register(Sum)
def _of_few(node):
    return 8


@singledispatch
def rounding_weight(node, lower, upper):
    """Bound \\|slope\\| V + \\|shift\\| of the lines of a node, with room for their own rounding.

    Parameters
    ----------
    node : Node
        Not affine. Kinds are registered with ``rounding_weight.register(Kind)``.
    lower, upper : Tensor of shape (B, *shape of the input)
        The interval of its input; V is the larger of their absolute values.

    Returns
    -------
    Tensor of shape (B, *shape)
        What the rounding of the node is relative to; see the module.

    Raises
    ------
    UnsupportedModelError
        For a kind that is not registered.
    """
    raise no_rule("bounds.rounding_weight", node)


@rounding_weight.register(Relu)
def _of_relu_lines(node, lower, upper):
    # The shift of a line above (or below) is at most that, and 0 where the unit is not bent. Only
    # the sum of shifts has as many terms as the node has entries.
    shift = torch.minimum(-lower, upper).clamp(min=0)
    few = 16 / (16 + node.size)
    return (1 + node.slope.abs()) * (shift + 4 * few * torch.maximum(-lower, upper))


@rounding_weight.register(Clamp)
def _of_clamp_lines(node, lower, upper):
    limits = [abs(limit) for limit in (node.low, node.high) if abs(limit) != float("inf")]
    return 8 * (torch.maximum(-lower, upper) + max(limits, default=0.0))


@rounding_weight.register(MaxPool)
def _of_pool_lines(node, lower, upper):
    return 2 * node.apply(torch.maximum(-lower, upper))


def gamma(graph, i):
    """Twice gamma_n for one node: its sums, its dot product with shifts, and the total."""
    node = graph.nodes[i]
    n_terms = rounding_terms(node) + (0 if node.is_affine else node.size)
    return 2.02 * unit(graph.dtype) * (n_terms + len(graph.nodes) + _FEW)


def constant_weight(node, constant):
    """Return what the dot product of rows of an affine node with its constants is relative to."""
    n_terms = node.size
    if isinstance(node, Conv):
        n_terms = node.shape[0] + node.size // node.shape[0]
    return (2 + n_terms / _FEW) * constant.abs()


def constant_dot(node, rows, constant):
    """Return rows of an affine node, of shape (B, m, *shape), times its constants."""
    if isinstance(node, Conv):
        # The sum over the places of a channel first: fewer terms, of which rounding is less.
        return rows.flatten(3).sum(dim=3) @ constant.flatten(2)[0, :, 0]
    return rows.flatten(2) @ constant.flatten()


_TINY = 2.0**-120  # well above the numbers below which float32 has no relative errors


def floor(n_terms, *met):
    """Return what numbers too small for float32 can cost a bound at a node, of shape (B,).

    Parameters
    ----------
    n_terms : int
        Operations for an entry of the node, or of its adjoint.
    *met : Tensor of shape (B, *shape)
        Absolute values that errors of rows and of bounds are multiplied with.
    """
    return _TINY * n_terms * (n_terms + sum(part.flatten(1).sum(dim=1) for part in met))


def floor_weight(*largest):
    """Return what to add to what rounding is relative to, of shape (B,), for inputs so large."""
    # Times gamma, which is at least 2^-20 in float32, it is above 2^26 errors of 2^-126.
    return 2.0**-80 * (1 + sum(part.flatten(1).sum(dim=1) for part in largest))


def dot(rows, values):
    """Return sum(rows * values) over the axes of a sample: (B, m, *shape), (B or 1, *shape)."""
    rows, values = rows.flatten(2), values.flatten(1)
    if len(values) == 1:
        return rows @ values[0]
    return torch.bmm(rows, values.unsqueeze(2)).squeeze(2)
