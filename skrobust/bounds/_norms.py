"""Global bounds of Lipschitz constants, from the norms of layers."""

from functools import singledispatch

import numpy as np
import torch

from skrobust.graphs import Clamp, Linear, MaxPool, Permute, Relu, Reshape, no_rule

__all__ = ["norm_product", "steepest"]


def norm_product(graph, norm):
    """Bound the Lipschitz constant of a network by the operator norms of its layers.

    Parameters
    ----------
    graph : Graph
    norm : {"linf", "l2"}
        Of the changes of inputs and outputs.

    Returns
    -------
    float

    Raises
    ------
    UnsupportedModelError
        If the graph has a kind of node for which no rule is registered.
    """
    constants = [1.0]
    for node in graph.nodes[1:]:
        inputs = [constants[j] for j in node.inputs]
        if not node.is_affine:
            constants.append(steepest(node, norm) * inputs[0])
        elif norm == "linf":
            # The largest row of |W| r, for inputs that move by their own constants.
            radii = [_filled(graph, j, c) for j, c in zip(node.inputs, inputs, strict=True)]
            constants.append(node.magnitude(*radii).abs().max().item() * (1 + 1e-12))
        else:
            constants.append(_spectral(node, graph, inputs))
    return constants[-1]


def _filled(graph, j, value):
    shape = (1, *graph.nodes[j].shape)
    return torch.full(shape, value, dtype=graph.dtype, device=graph.device)


@singledispatch
def steepest(node, norm):
    """Bound the Lipschitz constant of a node that is not affine, from input to output.

    Parameters
    ----------
    node : Node
        Kinds are registered with ``steepest.register(Kind)``.
    norm : {"linf", "l2"}
        Of the changes of inputs and outputs.

    Returns
    -------
    float

    Raises
    ------
    UnsupportedModelError
        For a kind that is not registered.
    """
    raise no_rule("bounds.steepest", node)


@steepest.register(Relu)
def _steepest_of_relu(node, norm):
    return max(1.0, node.slope.abs().max().item())


@steepest.register(Clamp)
def _steepest_of_clamp(node, norm):
    return 1.0


@steepest.register(MaxPool)
def _steepest_of_pool(node, norm):
    # In the Euclidean norm an entry that lies in several windows counts once for each.
    most = node.members.flatten().bincount().max().item()
    return 1.0 if norm == "linf" else float(np.sqrt(most))


@singledispatch
def _spectral(node, graph, inputs):
    """Bound the spectral norms of an affine node, times the constants of its inputs, in sum."""
    total = 0.0
    for k, constant in enumerate(inputs):
        # ||W||^2 is at most the largest sum of |entries| of a row times that of a column. The
        # gradient of the sum of |W| r by r holds the sums of the columns.
        radii = [_filled(graph, j, float(j == node.inputs[k])) for j in node.inputs]
        radii[k].requires_grad_()
        with torch.enable_grad():
            rows = node.magnitude(*radii)
        if rows.requires_grad:
            (columns,) = torch.autograd.grad(rows.sum(), radii[k])
            total += constant * float((rows.max() * columns.max()).detach().sqrt())
    return total * (1 + 1e-9)


@_spectral.register(Permute)
@_spectral.register(Reshape)
def _spectral_of_isometry(node, graph, inputs):
    return inputs[0]


@_spectral.register(Linear)
def _spectral_of_linear(node, graph, inputs):
    return torch.linalg.matrix_norm(node.weight, 2).item() * inputs[0] * (1 + 1e-9)
