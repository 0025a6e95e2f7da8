r"""How far rounding can move a bound, and how much is computed at once.

Everything is float64, and every bound is moved outwards by what rounding can do. Let
u = 2^-53. A sum of n products has an error of at most gamma_n = n u / (1 - n u) times the sum of
their absolute values, in whatever order it is computed (Higham, 2002, section 3.1). Going back
through node i, a row L of it becomes L' = L W + delta with \|delta\| <= gamma \|L\| \|W\|. The
number that is returned in the end is an exact bound of the rows as they were computed, so that
delta costs no more than \|delta\| . max \|z\| <= gamma \|L\| . (\|W\| V), where V bounds the true
inputs of the node in the ball: intervals, which are at hand. These costs are added up over the
nodes, with twice gamma for the rounding of the costs themselves.

References
----------
Higham, "Accuracy and stability of numerical algorithms", 2002.
"""

import torch

from skrobust.exceptions import UnsupportedModelError
from skrobust.graphs import Average, Conv, Linear, Rearrange, Scale

__all__ = ["NUMBERS_AT_ONCE", "check_finite", "points_at_once"]

UNIT = 2.0**-53
# In the largest array of one pass. Larger ones are handed back to the system each time, and to
# get their memory again takes longer than to work on it.
NUMBERS_AT_ONCE = 2**20


def check_finite(graph):
    """Return the graph; raise where its weights or constants are NaN or infinite."""
    for node, constant in zip(graph.nodes, graph.constants, strict=True):
        parts = [constant, *(getattr(node, name, None) for name in ("weight", "slope"))]
        if not all(torch.isfinite(part).all() for part in parts if part is not None):
            raise UnsupportedModelError(
                f"Got weights with NaN or infinity in layer {node.path}, but expected finite ones."
            )
    return graph


def points_at_once(graph):
    """Return how many balls can be bounded together, two rows for each class, in memory."""
    largest = max(node.size for node in graph.nodes)
    return max(1, NUMBERS_AT_ONCE // (largest * 2 * graph.n_classes))


def _terms(node):
    """Number of products that one entry of the node, or of its adjoint, may sum."""
    if isinstance(node, Linear):
        return sum(node.weight.shape)
    if isinstance(node, Conv):
        return node.weight.numel()
    if isinstance(node, Average):
        return 2 * torch.Size(node.input_shape).numel()
    if isinstance(node, Rearrange | Scale):
        return node.size + torch.Size(node.input_shape).numel()
    return 8


def _gamma(graph, i):
    """Twice gamma_n for one node: its sums, its dot product with constants, and the total."""
    node = graph.nodes[i]
    return 2.02 * UNIT * (_terms(node) + node.size + len(graph.nodes) + 8)


def _dot(rows, values):
    """Return sum(rows * values) over the axes of a sample: (B, m, *shape), (B or 1, *shape)."""
    rows, values = rows.flatten(2), values.flatten(1)
    if len(values) == 1:
        return rows @ values[0]
    return torch.bmm(rows, values.unsqueeze(2)).squeeze(2)
