"""A graph as plain arrays: what is stored of each kind of node.

Affine nodes are W x + b: a matrix, or triplets of output, input and weight in float64, in which
those that are not dense are read off by what they make of single entries of their inputs.
"""

import json
from functools import singledispatch

import numpy as np
import torch

from skrobust.graphs import Clamp, Linear, LinfDistance, MaxPool, Relu, no_rule

__all__ = ["network_arrays", "stored_node"]

_COLUMNS = 2**22  # numbers in one pass of unit vectors


def network_arrays(graph):
    """Return the arrays of ``network.npz``.

    Parameters
    ----------
    graph : Graph
        In float64.

    Returns
    -------
    dict of str to ndarray
        "nodes" is JSON as bytes: the kind and the inputs of each node behind the input.

    Raises
    ------
    UnsupportedModelError
        If the checker has no rule for a kind of node.
    """
    nodes, arrays = [], {"n_features": np.array(graph.n_features)}
    for i, node in enumerate(graph.nodes[1:], start=1):
        kind, parts = stored_node(node, graph, i)
        nodes.append({"kind": kind, "inputs": list(node.inputs), "layer": node.path})
        arrays |= {f"{i}.{name}": _smallest(part) for name, part in parts.items()}
    text = json.dumps({"nodes": nodes}).encode()
    return arrays | {"nodes": np.frombuffer(text, dtype=np.uint8)}


def _smallest(values):
    """Return numbers as float32 where that changes none, and places as int32."""
    if values.dtype.kind == "i":
        return values.astype(np.int32) if values.size < 2**31 else values
    with np.errstate(over="ignore"):
        single = values.astype(np.float32)
    return single if (single == values).all() else values


@singledispatch
def stored_node(node, graph, i):
    """Return the kind by which the checker knows a node, and its arrays.

    Parameters
    ----------
    node : Node
        Kinds are registered with ``stored_node.register(Kind)``.
    graph : Graph
    i : int
        Position of the node.

    Returns
    -------
    kind : str
        "affine", "relu", "clamp", "maxpool", "distance", or that of a smooth unit.
    arrays : dict of str to ndarray

    Raises
    ------
    UnsupportedModelError
        For a kind that is not affine and not registered.
    """
    if not node.is_affine:
        raise no_rule("evidence.stored_node", node)
    rows, cols, values = _triplets(node, [graph.nodes[j].shape for j in node.inputs])
    return "affine", {"rows": rows, "cols": cols, "weight": values, "bias": _constant(graph, i)}


@stored_node.register(Linear)
def _of_linear(node, graph, i):
    if len(node.shape) > 1:
        return stored_node.dispatch(object)(node, graph, i)
    return "affine", {"weight": node.weight.cpu().numpy(), "bias": _constant(graph, i)}


@stored_node.register(Relu)
def _of_relu(node, graph, i):
    return "relu", {"slope": node.slope.expand(node.shape).flatten().cpu().numpy()}


@stored_node.register(Clamp)
def _of_clamp(node, graph, i):
    return "clamp", {"limits": np.array([node.low, node.high], dtype=np.float64)}


@stored_node.register(MaxPool)
def _of_max_pool(node, graph, i):
    return "maxpool", {"members": node.members.cpu().numpy()}


@stored_node.register(LinfDistance)
def _of_distance(node, graph, i):
    return "distance", {"weight": node.weight.cpu().numpy()}


def _constant(graph, i):
    return graph.constants[i].flatten().detach().cpu().numpy()


def _triplets(node, shapes):
    """Read the weights of an affine node off its adjoint, some outputs at a time.

    Each entry of W is a single product with 1, so that no rounding comes in.
    """
    sizes = [int(np.prod(shape, dtype=int)) for shape in shapes]
    starts = np.cumsum([0, *sizes[:-1]])
    step = max(1, _COLUMNS // max(1, sum(sizes)))
    found = []
    for first in range(0, node.size, step):
        count = min(step, node.size - first)
        rows = torch.zeros(count, node.size, dtype=torch.float64)
        rows[torch.arange(count), first + torch.arange(count)] = 1.0
        parts = node.adjoint(rows.view(count, *node.shape))
        for start, part in zip(starts, parts, strict=True):
            if part is not None:
                values = part.reshape(count, -1).detach().cpu().numpy()
                row, col = np.nonzero(values)
                found.append((row + first, col + start, values[row, col]))
    if not found:
        return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64), np.zeros(0)
    return tuple(np.concatenate(column) for column in zip(*found, strict=True))
