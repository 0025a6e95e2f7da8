"""A network over one box as variables and affine expressions: what all solvers are told."""

import numpy as np
import torch
from scipy import sparse

from skrobust.bounds import affine_blocks
from skrobust.exceptions import UnsupportedModelError

__all__ = ["AffineMaps", "NetworkProgram", "check_rules", "no_rule"]


def no_rule(room, node, remedy):
    """Return the error of a function that knows nothing of a kind of node."""
    name = type(node).__name__
    return UnsupportedModelError(f"verification.{room} has no rule for {name}; {remedy}")


def check_rules(graph, rule, besides=()):
    """Refuse a graph with a kind of node that a `functools.singledispatch` rule does not know.

    Parameters
    ----------
    graph : Graph
    rule : callable
    besides : tuple of type
        Kinds that are decided without the rule.

    Raises
    ------
    UnsupportedModelError
        The one that the rule's default raises.
    """
    for i in graph.piecewise:
        if isinstance(graph.nodes[i], besides):
            continue
        if rule.dispatch(type(graph.nodes[i])) is rule.dispatch(object):
            rule(graph.nodes[i], None, i)


class AffineMaps:
    """The affine parts of a graph as sparse matrices, each made when it is asked for.

    ``maps[j]`` is node j as an affine function of the input and of piecewise nodes: a dict of
    their positions to csr_matrix, and the constant as an ndarray.

    Parameters
    ----------
    graph : Graph
    """

    def __init__(self, graph):
        self.graph = graph
        self._maps = {}

    def __getitem__(self, j):
        if j not in self._maps:
            self._maps[j] = _affine_map(self.graph, j)
        return self._maps[j]

    def __getstate__(self):
        return {"graph": self.graph, "_maps": {}}  # quick to make, and large


def _affine_map(graph, j):
    matrices, constants = {}, []
    units = torch.arange(graph.nodes[j].size, device=graph.device)
    for blocks, constant in affine_blocks(graph, j, units):
        constants.append(constant.cpu().numpy())
        for k, block in blocks.items():
            matrices.setdefault(k, []).append(sparse.csr_matrix(block.cpu().numpy()))
    matrices = {k: sparse.vstack(blocks).tocsr() for k, blocks in matrices.items()}
    return matrices, np.concatenate(constants)


class NetworkProgram:
    """Base class: variables with bounds, and each node of a network as an expression of them.

    An expression is a pair of a sparse matrix, with a column for each variable that there was
    when it was made, and a constant.

    Parameters
    ----------
    maps : AffineMaps
    relaxation : Relaxation
        Of one box.
    """

    def __init__(self, maps, relaxation):
        self.maps, self.relaxation = maps, relaxation
        self.lows, self.highs, self.n_columns = [], [], 0
        self.images = {}  # of the input and of piecewise nodes, as expressions

    @property
    def graph(self):
        return self.relaxation.graph

    @property
    def last(self):
        """Position of the outputs in the graph."""
        return len(self.graph.nodes) - 1

    def columns(self, low, high):
        """Add variables; return their places."""
        start = self.n_columns
        self.lows.append(np.asarray(low, dtype=float))
        self.highs.append(np.asarray(high, dtype=float))
        self.n_columns += len(self.lows[-1])
        return np.arange(start, self.n_columns)

    def selection(self, rows, columns, values, n_rows):
        """Return a matrix of n_rows rows with values at (row, column)."""
        values = np.broadcast_to(values, len(rows))
        return sparse.csr_matrix((values, (rows, columns)), shape=(n_rows, self.n_columns))

    def widened(self, matrix):
        """Return a matrix that was made when there were fewer variables."""
        parts = (matrix.data, matrix.indices, matrix.indptr)
        return sparse.csr_matrix(parts, shape=(matrix.shape[0], self.n_columns))

    def expression(self, j, units=None):
        """Return node j, or some of its entries, as an expression."""
        matrices, constant = self.maps[j]
        total = sparse.csr_matrix((len(constant), self.n_columns))
        for k, matrix in matrices.items():
            inner, shift = self.images[k]
            total, constant = total + matrix @ self.widened(inner), constant + matrix @ shift
        return (total, constant) if units is None else (total[units], constant[units])

    def interval(self, j):
        """Return proved bounds of the entries of node j, as arrays."""
        sides = (self.relaxation.lows[j][0], self.relaxation.highs[j][0])
        return tuple(side.flatten().cpu().numpy() for side in sides)

    def box(self):
        """Return the center and the sides of the box, as arrays."""
        ball = self.relaxation.ball
        return tuple(side[0].cpu().numpy() for side in (ball.center, ball.lower, ball.upper))
