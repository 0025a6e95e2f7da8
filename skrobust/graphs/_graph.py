"""A network as an ordered tuple of nodes."""

from dataclasses import dataclass
from functools import cached_property

import torch

__all__ = ["Graph"]


@dataclass(frozen=True, eq=False)
class Graph:
    """A network as an ordered tuple of nodes: the input first, the logits last.

    Parameters
    ----------
    nodes : tuple of Node
        Each takes its arguments from nodes before it.
    """

    nodes: tuple

    def __call__(self, x):
        """Return the logits, of shape (n, n_classes), for rows `x` of shape (n, n_features)."""
        return self.values(x)[-1]

    def values(self, x):
        """Return the output of every node, for rows `x`, as a list."""
        values = [x.double()]
        for node in self.nodes[1:]:
            values.append(node.apply(*(values[i] for i in node.inputs)))
        return values

    @property
    def n_features(self):
        return self.nodes[0].size

    @property
    def n_classes(self):
        return self.nodes[-1].size

    @cached_property
    def piecewise(self):
        """Positions of the nodes that are not affine, as a tuple."""
        return tuple(i for i, node in enumerate(self.nodes) if not node.is_affine)

    @cached_property
    def constants(self):
        """Output of each affine node for zeros as inputs, None for the others, as a tuple."""
        constants = [None] * len(self.nodes)
        for i, node in enumerate(self.nodes[1:], start=1):
            if node.is_affine:
                shapes = [self.nodes[j].shape for j in node.inputs]
                device = self.nodes[0].device
                zeros = [torch.zeros(1, *s, dtype=torch.float64, device=device) for s in shapes]
                constants[i] = node.apply(*zeros)
        return tuple(constants)

    def __getstate__(self):
        return {"nodes": self.nodes}

    def __repr__(self):
        lines = (
            f"{i:3}  {type(node).__name__:10} {node.shape!s:18} of {node.inputs}  {node.path}"
            for i, node in enumerate(self.nodes)
        )
        return "Graph(\n" + "\n".join(lines) + "\n)"
