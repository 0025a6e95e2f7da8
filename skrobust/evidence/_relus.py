"""Units that the checker of evidence can write as ReLUs: the largest of a window, and clamps.

The larger of a and b is b + relu(a - b); a window is halved until one entry is left. A number cut
to [low, high] is low + relu(z - low) - relu(z - high).
"""

from copy import copy

import numpy as np

# isort: off
if __package__:
    from skrobust.evidence._rules import Affine, Clamp, Pool, Relu
else:  # run as a file
    from _rules import Affine, Clamp, Pool, Relu
# isort: on


class Relus:
    """Nodes of the same network, in which neither pools nor clamps are left.

    Each halving of the windows of a pool makes five nodes (both sides, their difference, its ReLU
    and the sum), and each limit of a clamp two (the distance from it, and its ReLU), before the
    last ones, which put them together.
    """

    def __init__(self, nodes, n_features, lift):
        self.nodes, self.sizes, self.lift, places = [None], [n_features], lift, [0]
        for node in nodes[1:]:
            inputs = [places[j] for j in node.inputs]
            if isinstance(node, Pool):
                places.append(self._largest(inputs[0], node.members))
            elif isinstance(node, Clamp):
                places.append(self._cut(inputs[0], node.low, node.high))
            else:
                places.append(self._append(copy(node), inputs))

    def _append(self, node, inputs):
        node.inputs = inputs
        self.nodes.append(node)
        self.sizes.append(node.size)
        return len(self.nodes) - 1

    def _affine(self, inputs, columns, weights, constant=0.0):
        """Append a node: for each of its inputs one weight times the entries at some columns."""
        starts = np.cumsum([0, *(self.sizes[j] for j in inputs[:-1])])
        size = len(columns[0])
        arrays = {
            "rows": np.tile(np.arange(size), len(inputs)),
            "cols": np.concatenate([own + at for own, at in zip(columns, starts, strict=True)]),
            "weight": np.repeat(weights, size),
            "bias": np.full(size, constant),
        }
        return self._append(Affine(arrays, [self.sizes[j] for j in inputs], self.lift), inputs)

    def _relu(self, j):
        size = self.sizes[j]
        return self._append(Relu({"slope": np.zeros(size)}, [size], self.lift), [j])

    def _largest(self, at, members):
        if members.shape[1] == 1:
            return self._affine([at], [members[:, 0]], [1.0])
        while members.shape[1] > 1:
            sides = members[:, pairs(members.shape[1])]
            own = np.arange(sides[:, :, 0].size)
            left, right = (self._affine([at], [sides[:, :, k].ravel()], [1.0]) for k in (0, 1))
            more = self._relu(self._affine([left, right], [own, own], [1.0, -1.0]))
            at, members = self._affine([right, more], [own, own], [1.0, 1.0]), own
            members = members.reshape(len(sides), -1)
        return at

    def _cut(self, at, low, high):
        own, parts = np.arange(self.sizes[at]), []
        base, terms = terms_of(low, high)
        for weight, slope, constant in terms:
            part = self._relu(self._affine([at], [own], [slope], constant))
            parts.append((part, weight))
        if not parts:
            return self._affine([at], [own], [1.0])
        inputs, weights = zip(*parts, strict=True)
        at = self._affine(list(inputs), [own] * len(inputs), list(weights))
        return self._affine([at], [own], [1.0], base)


def pairs(count):
    """Return which of so many entries are compared; the last two overlap where it is odd."""
    first = np.minimum(np.arange(0, count, 2), count - 2)
    return np.stack([first, first + 1], axis=1)


def terms_of(low, high):
    """Return a clamp as a constant, and terms weight * relu(slope * z + constant)."""
    if np.isfinite(low):
        return low, [(1.0, 1.0, -low)] + [(-1.0, 1.0, -high)] * bool(np.isfinite(high))
    return (high, [(-1.0, -1.0, high)]) if np.isfinite(high) else (0.0, [])
