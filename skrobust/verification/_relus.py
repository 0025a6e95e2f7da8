"""Networks whose max-pools and clamps are written as ReLUs, which branch and bound splits.

The larger of a and b is b + relu(a - b), and a number cut to [low, high] is
low + relu(z - low) - relu(z - high): the same function, in real arithmetic. The nodes are those
that the checker of evidence makes of the same network, in the same order.
"""

from dataclasses import replace

import torch

from skrobust.evidence import pairs, terms_of
from skrobust.graphs import Clamp, Graph, MaxPool, Rearrange, Relu, Scale, Sum

__all__ = ["as_relus"]


def as_relus(graph):
    """Return a graph of the same function without max-pools and clamps.

    Parameters
    ----------
    graph : Graph

    Returns
    -------
    Graph
        The given one where there are none.
    """
    if not any(isinstance(node, MaxPool | Clamp) for node in graph.nodes):
        return graph
    return _Rewriter(graph).run()


class _Rewriter:
    """The new nodes, and where the old ones are."""

    def __init__(self, graph):
        self.graph, self.nodes = graph, [graph.nodes[0]]

    def run(self):
        places = [0]
        for node in self.graph.nodes[1:]:
            inputs = tuple(places[j] for j in node.inputs)
            if isinstance(node, MaxPool):
                places.append(self._largest(node, *inputs))
            elif isinstance(node, Clamp):
                places.append(self._cut(node, *inputs))
            else:
                places.append(self._append(replace(node, inputs=inputs)))
        return Graph(tuple(self.nodes))

    def _append(self, node):
        self.nodes.append(node)
        return len(self.nodes) - 1

    def _relu(self, j, path):
        shape = self.nodes[j].shape
        slope = torch.zeros((), dtype=self.graph.dtype, device=self.graph.device)
        return self._append(Relu(inputs=(j,), shape=shape, path=path, slope=slope))

    def _sum(self, inputs, weights, path):
        shape = self.nodes[inputs[0]].shape
        return self._append(Sum(inputs=inputs, shape=shape, path=path, weights=weights))

    def _scaled(self, j, weight, constant, path):
        shape = self.nodes[j].shape
        values = {"dtype": self.graph.dtype, "device": self.graph.device}
        weight, bias = (torch.tensor(value, **values) for value in (weight, constant))
        kind = {"inputs": (j,), "shape": shape, "path": path, "input_shape": shape}
        return self._append(Scale(weight=weight, bias=bias, **kind))

    def _largest(self, node, at):
        members, path = node.members, node.path
        while True:
            count = members.shape[1]
            index = members.unsqueeze(2) if count == 1 else members[:, pairs(count)]
            is_last = index.shape[1] == 1
            shape = node.shape if is_last else tuple(index.shape[:2])
            kind = {"inputs": (at,), "input_shape": self.nodes[at].shape}
            sides = [
                self._append(Rearrange(index=part.reshape(shape), shape=shape, path=path, **kind))
                for part in index.unbind(dim=2)
            ]
            if count == 1:
                return sides[0]
            left, right = sides
            more = self._relu(self._sum((left, right), (1.0, -1.0), path), path)
            at = self._sum((right, more), (1.0, 1.0), path)
            if is_last:
                return at
            members = torch.arange(index[:, :, 0].numel(), device=index.device)
            members = members.reshape(index.shape[:2])

    def _cut(self, node, at):
        (base, terms), path, parts = terms_of(node.low, node.high), node.path, []
        for _, slope, constant in terms:
            parts.append(self._relu(self._scaled(at, slope, constant, path), path))
        if not parts:
            return self._scaled(at, 1.0, 0.0, path)
        weights = tuple(weight for weight, _, _ in terms)
        if len(parts) == 1:
            at = self._scaled(parts[0], weights[0], 0.0, path)
        else:
            at = self._sum(tuple(parts), weights, path)
        return self._scaled(at, 1.0, base, path)
