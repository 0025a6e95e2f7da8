"""Single entries of nodes as rows of what the nodes read."""

from functools import singledispatch

import torch

from skrobust.graphs import Conv, Linear

__all__ = ["entry_rows", "unit_rows"]


def entry_rows(graph, j, units):
    """Write entries of a node as rows of an earlier node, without any rounding.

    Parameters
    ----------
    graph : Graph
    j : int
        Position of the node.
    units : int Tensor of shape (k,)
        Entries of its flattened output.

    Returns
    -------
    start : int
        Position of the node that the rows are of: j, or what it reads.
    rows : Tensor of shape (k, *shape of that node)
    shift : Tensor of shape (k,)
        Constants, to be added.
    """
    node = graph.nodes[j]
    rows = rows_of_entries(node, units)
    if rows is not None:
        return node.inputs[0], rows, graph.constants[j].flatten()[units]
    rows = unit_rows(graph, j, units)
    return j, rows, rows.new_zeros(len(units))


def unit_rows(graph, j, units):
    """Return entries of a node as rows of itself: 1 at the entry, of shape (k, *shape)."""
    node = graph.nodes[j]
    rows = torch.zeros(len(units), node.size, dtype=graph.dtype, device=graph.device)
    rows[torch.arange(len(units), device=units.device), units] = 1.0
    return rows.view(len(units), *node.shape)


@singledispatch
def rows_of_entries(node, units):
    """Return the weights of entries of a node, of shape (k, *input shape).

    None where they are not at hand, so that they take a pass back through the node.
    """


@rows_of_entries.register(Linear)
def _of_linear(node, units):
    return node.weight[units] if len(node.shape) == 1 else None


@rows_of_entries.register(Conv)
def _of_conv(node, units):
    if node.weight.ndim != 4 or node.groups != 1:
        return None
    # Windows lie in the input with its padding, which is cut off in the end.
    channels, *sizes = node.input_shape
    framed = [size + 2 * pad for size, pad in zip(sizes, node.padding, strict=True)]
    kernel = [torch.arange(size, device=units.device) for size in node.weight.shape[2:]]
    across = [place * step for place, step in zip(kernel, node.dilation, strict=True)]
    place = across[0][:, None] * framed[1] + across[1]
    layers = torch.arange(channels, device=units.device) * (framed[0] * framed[1])
    window = (layers[:, None] + place.flatten()).flatten()
    _, height, width = node.shape
    channel, y, x = units // (height * width), units // width % height, units % width
    corner = y * node.stride[0] * framed[1] + x * node.stride[1]
    rows = node.weight.new_zeros(len(units), channels * framed[0] * framed[1])
    rows = rows.scatter(1, corner[:, None] + window, node.weight.flatten(1)[channel])
    rows = rows.view(len(units), channels, *framed)
    top, left = node.padding
    return rows[:, :, top : top + sizes[0], left : left + sizes[1]]
