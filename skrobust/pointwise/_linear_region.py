"""The affine piece of a network around a point.

`linear_region` freezes the decisions of the piecewise linear nodes at a point: what is left is
an affine map, valid in the polyhedron where all frozen decisions stay right.

References
----------
Bastani et al., "Measuring neural net robustness with constraints", NeurIPS 2016, section 3.3.
"""

import itertools
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from skrobust.networks._graph import PiecewiseLinear, Relu
from skrobust.networks._piecewise_linear import piecewise_linear

__all__ = ["LinearRegion", "linear_region"]


@dataclass(frozen=True, eq=False)
class LinearRegion:
    """The affine piece of a network around one point.

    The rows of the region are half-spaces: together, the closed polyhedron of all inputs at
    which every frozen decision is right. On it the affine map equals the network.

    Parameters
    ----------
    graph : PiecewiseLinear
    x : Tensor of shape (1, n_features)
    decisions : dict of int to tuple of Tensor
        For each position in ``graph.piecewise``, what its node decided.
    at_x : list of Tensor
        What ``values(x)`` returns.

    Attributes
    ----------
    n_rows : int
        Number of half-spaces. Rows of the nodes come in the order of ``graph.piecewise``.
    """

    graph: PiecewiseLinear
    x: torch.Tensor
    decisions: dict
    at_x: list

    @cached_property
    def _starts(self):
        sizes = [self.graph.nodes[i].n_rows for i in self.graph.piecewise]
        return np.cumsum([0, *sizes])

    @property
    def n_rows(self):
        return int(self._starts[-1])

    def __call__(self, x):
        """Return the outputs of the frozen affine map, of shape (n, n_classes), at rows x."""
        return self.values(x)[-1]

    def values(self, x, linear=False):
        """Return the output of every node under the frozen decisions, as a list.

        With `linear`, x is a direction, and the values are the derivatives along it.
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
        """Return whether each row of x lies in the region, of shape (n,)."""
        return (self.slacks(self.values(x)) >= -tolerance).all(dim=1)

    def normals(self, rows=(), outputs=None):
        """Return gradients by the input of half-spaces, and of combinations of outputs.

        Parameters
        ----------
        rows : array-like of int, shape (k,)
            Numbers of half-spaces.
        outputs : Tensor of shape (m, n_classes), default=None
            Weights of outputs.

        Returns
        -------
        Tensor of shape (k + m, n_features)
        """
        if len(rows) == 0 and outputs is not None:
            last = len(self.graph.nodes) - 1
            return self._pull_back([(last, outputs.double())])
        seeds, order = self._seeds(np.asarray(rows, dtype=np.int64), outputs)
        gradients = self._pull_back(seeds)
        back = np.empty(len(order), dtype=np.int64)
        back[order] = np.arange(len(order))
        return gradients[back]

    def _seeds(self, rows, outputs):
        """Return the gradients to start from, at each node, and the places of their rows.

        Rows that start deepest come first, so that on the way back the rows at hand are always
        the first ones.
        """
        blocks = np.searchsorted(self._starts, rows, side="right") - 1
        groups = []
        if outputs is not None and len(outputs):
            last = len(self.graph.nodes) - 1
            seed = outputs.double().view(-1, *self.graph.nodes[last].shape)
            groups.append((last, np.arange(len(rows), len(rows) + len(seed)), seed))
        for block in np.unique(blocks):
            i = self.graph.piecewise[block]
            places = np.flatnonzero(blocks == block)
            local = torch.as_tensor(rows[places] - self._starts[block], device=self.x.device)
            node = self.graph.nodes[i]
            source = node.inputs[0]
            seed = node.normals(local, self.decisions[i])
            groups.append((source, places, seed.view(-1, *self.graph.nodes[source].shape)))
        groups.sort(key=lambda group: -group[0])
        order = np.concatenate(
            [places for _, places, _ in groups] or [np.empty(0, dtype=np.int64)]
        )
        return [(source, seed) for source, _, seed in groups], order

    def _pull_back(self, seeds):
        """Return gradients by the input; `seeds` come deepest first."""
        total = sum(len(seed) for _, seed in seeds)
        pending = {}
        seeds = iter([*seeds, (-1, None)])
        source, seed = next(seeds)
        started = 0
        for i in range(source, -1, -1):
            while source == i:
                if started:
                    seed = torch.cat([seed.new_zeros(started, *seed.shape[1:]), seed])
                pending[i] = _padded_sum(pending.get(i), seed)
                started = len(seed)
                source, seed = next(seeds)
            gradient = pending.pop(i, None) if i > 0 else None
            if gradient is None:
                continue
            node = self.graph.nodes[i]
            if node.is_affine:
                parts = node.adjoint(gradient)
            else:
                parts = (node.frozen_adjoint(self.decisions[i], gradient),)
            for j, part in zip(node.inputs, parts, strict=True):
                if part is not None:
                    pending[j] = _padded_sum(pending.get(j), part)
        if len(pending.get(0, ())) == total:
            return pending[0]
        zeros = self.x.new_zeros(total, self.graph.n_features)
        return _padded_sum(pending.get(0), zeros)


def _padded_sum(first, second):
    """Add two gradients, of which one may have fewer rows."""
    if first is None:
        return second
    if len(first) < len(second):
        first, second = second, first
    if len(first) == len(second):
        return first + second
    return torch.cat([first[: len(second)] + second, first[len(second) :]])


def _linear_part(graph, i, parts):
    """Return W v of an affine node."""
    return graph.nodes[i].apply(*parts) - graph.constants[i]


def linear_region(network, x, *, direction=None):
    """Return the linear region of a network at one sample.

    Where a decision is tied (a pre-activation of exactly zero, equal entries of a pool), x
    lies on the border of several regions. Ties are then broken as a small move along
    `direction` would, so that the region has an interior wherever the direction is in general
    position.

    Parameters
    ----------
    network : PiecewiseLinear, Network or torch.nn.Module
        From rows to logits. Encode it once with `piecewise_linear` to ask for many regions.
    x : Tensor or array-like of shape (n_features,) or (1, n_features)
    direction : Tensor of shape (n_features,), default=None
        A fixed random direction if None.

    Returns
    -------
    LinearRegion
    """
    x = torch.as_tensor(x).double().reshape(1, -1)
    if not isinstance(network, PiecewiseLinear):
        network = piecewise_linear(network, x.shape[1])
    decisions, values, is_tied = _decide(network, x)
    if is_tied:
        if direction is None:
            generator = torch.Generator().manual_seed(0)
            direction = torch.randn(x.shape, generator=generator, dtype=torch.float64)
        direction = torch.as_tensor(direction).to(x).reshape(1, -1)
        decisions = _break_ties(network, values, direction)
    return LinearRegion(network, x, decisions, values)


def _is_relu(node):
    return isinstance(node, Relu) and node.slope.ndim == 0 and node.slope == 0


def _decide(graph, x):
    """Run the network at x; return its decisions, its values, and whether any was a tie."""
    values, decisions = [x], {}
    is_tied = False
    for i, node in enumerate(itertools.islice(graph.nodes, 1, None), start=1):
        parts = [values[j] for j in node.inputs]
        if node.is_affine:
            values.append(node.apply(*parts))
            continue
        is_tied = is_tied or node.is_tied(parts[0], _is_relu(graph.nodes[node.inputs[0]]))
        decisions[i] = node.decide(parts[0])
        values.append(node.frozen(decisions[i], parts[0]))
    return decisions, values, is_tied


def _break_ties(graph, values, direction):
    """Return the decisions a small move away; the values are those of either side."""
    tangents, decisions = [direction], {}
    for i, node in enumerate(itertools.islice(graph.nodes, 1, None), start=1):
        moves = [tangents[j] for j in node.inputs]
        if node.is_affine:
            tangents.append(_linear_part(graph, i, moves))
        else:
            decisions[i] = node.decide(values[node.inputs[0]], moves[0])
            tangents.append(node.frozen(decisions[i], moves[0], True))
    return decisions
