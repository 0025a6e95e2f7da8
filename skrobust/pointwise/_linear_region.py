"""The affine pieces of a network around points.

`linear_region` freezes the decisions of the piecewise linear nodes at each of n points: what is
left is an affine map a point, valid in the polyhedron where all frozen decisions stay right.

References
----------
Bastani et al., "Measuring neural net robustness with constraints", NeurIPS 2016, section 4.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from skrobust.graphs import Graph, PiecewiseNode, Relu, no_rule, pull_back, read_graph

__all__ = ["LinearRegion", "linear_region"]


_PULL_NUMBERS = 2**22  # in the largest array of one backward pass


@dataclass(frozen=True, eq=False)
class LinearRegion:
    """The affine pieces of a network around n points.

    The rows of a region are half-spaces: together, the closed polyhedron of all inputs at
    which every frozen decision is right. On it the affine map equals the network.

    Parameters
    ----------
    graph : Graph
    x : Tensor of shape (n, n_features)
    decisions : dict of int to tuple of Tensor
        For each position in ``graph.piecewise``, what its node decided.
    at_x : list of Tensor, default=None
        What ``values(x)`` returns, where it is known.

    Attributes
    ----------
    n_rows : int
        Number of half-spaces. Rows of the nodes come in the order of ``graph.piecewise``.
    """

    graph: Graph
    x: torch.Tensor
    decisions: dict
    at_x: list | None = None

    @cached_property
    def _starts(self):
        sizes = [self.graph.nodes[i].n_rows for i in self.graph.piecewise]
        return np.cumsum([0, *sizes])

    @property
    def n_rows(self):
        return int(self._starts[-1])

    def __len__(self):
        return len(self.x)

    def __getitem__(self, index):
        """Return the regions of the points at `index`, an array or slice."""
        decisions = {i: tuple(d[index] for d in parts) for i, parts in self.decisions.items()}
        return LinearRegion(self.graph, self.x[index], decisions)

    def __call__(self, x):
        """Return the outputs of the frozen affine maps, of shape (n, n_classes), at rows x."""
        return self.values(x)[-1]

    def values(self, x, linear=False):
        """Return the output of every node under the frozen decisions, as a list.

        Each row of x belongs to one region; a single region takes any number of rows. With
        `linear`, x are directions, and the values are the derivatives along them.
        """
        values = [x.double()]
        for i, node in enumerate(self.graph.nodes[1:], start=1):
            parts = [values[j] for j in node.inputs]
            if not node.is_affine:
                values.append(node.frozen(self.decisions[i], *parts, linear))
            else:
                values.append(_linear_part(self.graph, i, parts) if linear else node.apply(*parts))
        return values

    def slacks(self, values):
        """Return how far each point is inside of each half-space, of shape (n, n_rows).

        Negative is outside. `values` is what `values` returned for the points. Rows that can
        never be violated are infinite.
        """
        parts = []
        for i in self.graph.piecewise:
            node = self.graph.nodes[i]
            parts.append(node.slacks(self.decisions[i], values[node.inputs[0]]))
        return torch.cat(parts, dim=1) if parts else values[0].new_zeros(len(values[0]), 0)

    def contains(self, x, tolerance=0.0):
        """Return whether each row of x lies in its region, of shape (n,): for checking."""
        return (self.slacks(self.values(x)) >= -tolerance).all(dim=1)

    def normals(self, owner, place, row, weight=None, outputs=None):
        """Return weighted sums of gradients by the input, of half-spaces or of outputs.

        Parameters
        ----------
        owner : array-like of int, shape (k,)
            The region that each of the k sums is about.
        place, row : array-like of int, shape (t,)
            Sum and half-space of each term.
        weight : array-like of shape (t,), default=None
            Of the terms; 1 if None.
        outputs : Tensor of shape (k, n_classes), default=None
            Weights of outputs in the sums; 0 if None.

        Returns
        -------
        Tensor of shape (k, n_features)
        """
        owner, place, row = (np.asarray(v, dtype=np.int64) for v in (owner, place, row))
        weight = np.ones(len(row)) if weight is None else np.asarray(weight, dtype=float)
        block = np.searchsorted(self._starts[1:], row, side="right")
        # Sums that start deepest come first, so that on the way back those at hand are always
        # the first ones.
        sources = np.array([self.graph.nodes[i].inputs[0] for i in self.graph.piecewise], int)
        depth = np.zeros(len(owner), dtype=np.int64)
        np.maximum.at(depth, place, sources[block])
        if outputs is not None:
            depth[(outputs != 0).any(dim=1).cpu().numpy()] = len(self.graph.nodes) - 1
        order = np.argsort(-depth, kind="stable")
        rank = np.empty_like(order)
        rank[order] = np.arange(len(order))
        largest = max(node.size for node in self.graph.nodes)
        step = max(8, _PULL_NUMBERS // largest)
        parts = []
        for start in range(0, len(order), step):
            part = order[start : start + step]
            local = rank[place] - start
            here = (local >= 0) & (local < len(part))
            terms = (local[here], row[here], weight[here], block[here])
            parts.append(
                self._pull_back(
                    owner[part], depth[part], terms, None if outputs is None else outputs[part]
                )
            )
        sums = torch.cat(parts) if len(parts) > 1 else parts[0]
        return sums if (np.diff(rank) > 0).all() else sums[rank]

    def _pull_back(self, owner, depth, terms, outputs):
        """Return gradients by the input; `depth` does not increase."""
        graph, device = self.graph, self.x.device
        place, row, weight, block = terms
        readers = {}
        for b, i in enumerate(graph.piecewise):
            readers.setdefault(graph.nodes[i].inputs[0], []).append((b, i))
        last = len(graph.nodes) - 1
        sums = None

        def start(j):
            total = None
            if outputs is not None and j == last:
                count = int((depth == last).sum())
                total = outputs[:count].double().view(count, *graph.nodes[last].shape)
            for b, i in readers.get(j, ()):
                here = block == b
                if not here.any():
                    continue
                count = int(place[here].max()) + 1
                parts = (place[here], row[here] - self._starts[b], weight[here])
                seed = graph.nodes[i].seeds(
                    self._of(i, owner[:count]), *(torch.as_tensor(v, device=device) for v in parts)
                )
                total = seed if total is None else _padded_sum(total, seed)
            return total

        def visit(j, node, gradient):
            nonlocal sums
            if j == 0:
                sums = gradient
                return ()
            if node.is_affine:
                return node.adjoint(gradient)
            return (node.frozen_adjoint(self._of(j, owner[: len(gradient)]), gradient),)

        pull_back(graph, int(depth[0]) if len(depth) else 0, start, visit, _padded_sum)
        if sums is not None and len(sums) == len(owner):
            return sums
        zeros = self.x.new_zeros(len(owner), graph.n_features)
        return zeros if sums is None else _padded_sum(sums, zeros)

    def _of(self, i, owner):
        """Return the decisions of a node for the regions `owner`."""
        if len(self) == 1:
            return tuple(d.expand(len(owner), *d.shape[1:]) for d in self.decisions[i])
        return tuple(d[owner] for d in self.decisions[i])


def _padded_sum(first, second):
    """Add two gradients, of which one may have fewer rows."""
    if len(first) < len(second):
        first, second = second, first
    if len(first) == len(second):
        return first + second
    return torch.cat([first[: len(second)] + second, first[len(second) :]])


def _linear_part(graph, i, parts):
    """Return W v of an affine node."""
    return graph.nodes[i].apply(*parts) - graph.constants[i]


def linear_region(network, x, *, direction=None):
    """Return the linear regions of a network at n samples.

    Where a decision is tied (a pre-activation of exactly zero, equal entries of a pool), x
    lies on the border of several regions. Ties are then broken as a small move along
    `direction` would, so that the region has an interior wherever the direction is in general
    position.

    Parameters
    ----------
    network : Graph, Network or torch.nn.Module
        From rows to logits. Encode it once with `read_graph` to ask for many regions.
    x : Tensor or array-like of shape (n, n_features) or (n_features,)
    direction : Tensor of shape (n, n_features) or (n_features,), default=None
        A fixed random direction if None.

    Returns
    -------
    LinearRegion
    """
    x = torch.as_tensor(x).double()
    x = x.reshape(-1, x.shape[-1])
    if not isinstance(network, Graph):
        network = read_graph(network, x.shape[1])
    decisions, values, is_tied = _decide(network, x)
    tied = is_tied.nonzero().squeeze(1)
    if len(tied):
        if direction is None:
            generator = torch.Generator().manual_seed(0)
            direction = torch.randn(x.shape[1], generator=generator, dtype=torch.float64)
        direction = torch.as_tensor(direction).to(x).expand_as(x)
        broken = _break_ties(network, [value[tied] for value in values], direction[tied])
        for i, parts in broken.items():
            for decided, part in zip(decisions[i], parts, strict=True):
                decided[tied] = part
    return LinearRegion(network, x, decisions, values)


def _is_relu(node):
    return isinstance(node, Relu) and node.slope.ndim == 0 and node.slope == 0


def _decide(graph, x):
    """Run the network at x; return its decisions, its values, and where any was a tie."""
    values, decisions = [x], {}
    is_tied = torch.zeros(len(x), dtype=torch.bool, device=x.device)
    for i, node in enumerate(graph.nodes[1:], start=1):
        parts = [values[j] for j in node.inputs]
        if node.is_affine:
            values.append(node.apply(*parts))
            continue
        if not isinstance(node, PiecewiseNode):
            raise no_rule("pointwise.linear_region", node)
        is_tied |= node.is_tied(parts[0], _is_relu(graph.nodes[node.inputs[0]]))
        decisions[i] = node.decide(parts[0])
        values.append(node.frozen(decisions[i], parts[0]))
    return decisions, values, is_tied


def _break_ties(graph, values, direction):
    """Return the decisions a small move away; the values are those of either side."""
    tangents, decisions = [direction], {}
    for i, node in enumerate(graph.nodes[1:], start=1):
        moves = [tangents[j] for j in node.inputs]
        if node.is_affine:
            tangents.append(_linear_part(graph, i, moves))
        else:
            decisions[i] = node.decide(values[node.inputs[0]], moves[0])
            tangents.append(node.frozen(decisions[i], moves[0], True))
    return decisions
