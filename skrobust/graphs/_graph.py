"""A network as an ordered tuple of nodes."""

import operator
from dataclasses import dataclass
from functools import cached_property

import torch

__all__ = ["Graph", "pull_back"]


@dataclass(frozen=True, eq=False)
class Graph:
    """A network as an ordered tuple of nodes: the input first, the logits last.

    Parameters
    ----------
    nodes : tuple of Node
        Each takes its arguments from nodes before it.

    Attributes
    ----------
    n_features, n_classes : int
        Entries of the input and of the output of one sample.
    dtype : torch.dtype
        Of the weights: float64, but for training.
    device : torch.device
    piecewise : tuple of int
        Positions of the nodes that are not affine.
    constants : tuple of Tensor or None
        Output of each affine node for zeros as inputs, None for the others.
    """

    nodes: tuple

    def __call__(self, x):
        """Return the logits, of shape (n, n_classes), for rows `x` of shape (n, n_features)."""
        return self.values(x)[-1]

    def values(self, x):
        """Return the output of every node, for rows `x`, as a list."""
        values = [x.to(self.dtype)]
        for node in self.nodes[1:]:
            values.append(node.apply(*(values[i] for i in node.inputs)))
        return values

    @property
    def n_features(self):
        return self.nodes[0].size

    @property
    def n_classes(self):
        return self.nodes[-1].size

    @property
    def dtype(self):
        return self.nodes[0].dtype

    @property
    def device(self):
        return self.nodes[0].device

    @cached_property
    def piecewise(self):
        return tuple(i for i, node in enumerate(self.nodes) if not node.is_affine)

    @cached_property
    def constants(self):
        constants = [None] * len(self.nodes)
        for i, node in enumerate(self.nodes[1:], start=1):
            if node.is_affine:
                shapes = [self.nodes[j].shape for j in node.inputs]
                like = {"dtype": self.dtype, "device": self.device}
                constants[i] = node.apply(*(torch.zeros(1, *s, **like) for s in shapes))
        return tuple(constants)

    def __getstate__(self):
        return {"nodes": self.nodes}

    def __repr__(self):
        lines = (
            f"{i:3}  {type(node).__name__:10} {node.shape!s:18} of {node.inputs}  {node.path}"
            for i, node in enumerate(self.nodes)
        )
        return "Graph(\n" + "\n".join(lines) + "\n)"


def pull_back(graph, last, start, visit, add=operator.add):
    """Go back through a graph with rows of its nodes: the one reverse sweep.

    Parameters
    ----------
    graph : Graph
    last : int
        Position of the node to begin at.
    start : callable
        ``start(i)`` returns the rows that begin at node i, or None.
    visit : callable
        ``visit(i, node, rows)`` is given the sum of all rows of a node, and returns one for
        each of its inputs (None: nothing), or an empty tuple to end there.
    add : callable, default=operator.add
        How rows of one node are summed.
    """
    pending = {}
    for i in range(last, -1, -1):
        _collect(pending, i, start(i), add)
        rows = pending.pop(i, None)
        if rows is not None:
            node = graph.nodes[i]
            for j, part in zip(node.inputs, visit(i, node, rows), strict=False):
                _collect(pending, j, part, add)


def _collect(pending, i, rows, add):
    if rows is not None:
        pending[i] = add(pending[i], rows) if i in pending else rows
