r"""A relaxed network without the units that are zero over the ball.

Where most units are dead, every pass of branch and bound would carry them all. Without them the
network is the same function on the ball, so that what is proved of the smaller one holds for the
larger one. Each node that piecewise ones read is written as matrices of those before it. For
layers that are dense these are parts of the weights, bit by bit; others are products, with an
error of at most gamma \|W_n\| ... \|W_1\| V (see `_rounding`), which is added to what their
rounding is relative to.
"""

from dataclasses import dataclass, replace
from functools import singledispatch

import torch

from skrobust.bounds._backward import adjoint
from skrobust.bounds._entries import unit_rows
from skrobust.bounds._intervals import affine_interval
from skrobust.bounds._relaxation import Relaxation
from skrobust.bounds._rounding import NUMBERS_AT_ONCE, gamma
from skrobust.bounds._units import Units
from skrobust.graphs import Clamp, Constant, Conv, Graph, Linear, Relu, Sum, pull_back

__all__ = ["Reduction", "affine_blocks", "reduce", "restricted"]


@dataclass(frozen=True, eq=False)
class Reduction:
    """A relaxation of one ball over fewer units.

    Parameters
    ----------
    relaxation : Relaxation
        Of the smaller graph; the one that was given where nothing is gained.
    places : dict of int to pair
        For each node of the smaller graph that a piecewise one reads: the position of that node
        in the whole graph, and which of its entries are left, as an int Tensor of shape (k,).
    """

    relaxation: Relaxation
    places: dict


@singledispatch
def restricted(node, units, inputs):
    """Return a node that is not affine for some of its units only.

    Parameters
    ----------
    node : Node
        Kinds that work entry by entry are registered with ``restricted.register(Kind)``.
    units : int Tensor of shape (k,)
        Entries of the flattened input, and of the output.
    inputs : tuple of int
        What the new node reads, of shape (k,).

    Returns
    -------
    Node or None
        None for other kinds: networks with such a node are not reduced.
    """


@restricted.register(Relu)
def _restricted_relu(node, units, inputs):
    slope = node.slope.expand(node.shape).flatten()[units]
    slope = slope[0] if len(slope) and (slope == slope[0]).all() else slope
    return replace(node, inputs=inputs, shape=(len(units),), slope=slope)


@restricted.register(Clamp)
def _restricted_clamp(node, units, inputs):
    return replace(node, inputs=inputs, shape=(len(units),))


def reduce(relaxation):
    """Leave out the units whose output is 0 over the one ball of a relaxation.

    A graph is kept as it is where that does not make fewer products: so are convolutions, as a
    rule, whose matrices are larger than their kernels.

    Parameters
    ----------
    relaxation : Relaxation
        Of one ball, with lines.

    Returns
    -------
    Reduction
    """
    graph = relaxation.graph
    if relaxation.homogeneous or relaxation.floors or not _pays(relaxation):
        places = {j: (j, _all(graph, j)) for j in relaxation.sources}
        return Reduction(relaxation, places)
    return _Builder(relaxation).run()


def _all(graph, i):
    return torch.arange(graph.nodes[i].size, device=graph.device)


def _alive(relaxation, i):
    """Return which units of a piecewise node may be something else than 0."""
    low, high = relaxation.lows[i][0], relaxation.highs[i][0]
    return ((low != 0) | (high != 0)).flatten().nonzero().squeeze(1)


def _pays(relaxation):
    graph = relaxation.graph
    sizes, products = {0: graph.n_features}, 0
    for i in graph.piecewise:
        units = _alive(relaxation, i)
        if len(units) == 0 or restricted(graph.nodes[i], units, ()) is None:
            return False
        sizes[i] = len(units)
    for i, j in [*((i, graph.nodes[i].inputs[0]) for i in graph.piecewise), (-1, _last(graph))]:
        outputs = graph.n_classes if i < 0 else sizes[i]
        products += outputs * sum(sizes[k] for k in _stems(graph, j))
    return products < sum(_products(node) for node in graph.nodes)


def _last(graph):
    return len(graph.nodes) - 1


def _stems(graph, j):
    """Return the input and the piecewise nodes that node j is an affine function of."""
    pending, stems = {j}, set()
    while pending:
        i = pending.pop()
        if i == 0 or not graph.nodes[i].is_affine:
            stems.add(i)
        else:
            pending.update(graph.nodes[i].inputs)
    return sorted(stems)


def _products(node):
    """Return how many products a row takes on its way back through a node, where they are many."""
    return node.size * node.weight[0].numel() if isinstance(node, Linear | Conv) else 0


class _Builder:
    """The smaller graph with its relaxation, node by node."""

    def __init__(self, relaxation):
        self.whole, self.graph = relaxation, relaxation.graph
        first = replace(self.graph.nodes[0], shape=(self.graph.n_features,))
        self.nodes, self.places = [first], {}
        self.images = {0: (0, _all(self.graph, 0))}  # new position and entries of stems
        self.errors = _errors(relaxation) if relaxation.rounding else {}
        self.extra = {}  # by new position: the error of products of matrices

    def run(self):
        for i in self.graph.piecewise:
            node = self.graph.nodes[i]
            j, units = node.inputs[0], _alive(self.whole, i)
            source = self._affine(j, units)
            self.places[source] = (j, units)
            self.images[i] = (len(self.nodes), units)
            self.nodes.append(restricted(node, units, (source,)))
        last = _last(self.graph)
        self._affine(last, _all(self.graph, last))
        return Reduction(self._relaxed(), self.places)

    def _affine(self, j, units):
        """Append some entries of an affine node; return its new position."""
        matrices, constant = self._matrices(j, units)
        path, size = self.graph.nodes[j].path, len(units)
        terms = []
        for k, matrix in matrices.items():
            bias = None if terms else constant
            kind = {"inputs": (self.images[k][0],), "shape": (size,), "path": path}
            terms.append(self._append(Linear(weight=matrix, bias=bias, **kind)))
        if not terms:
            kind = {"inputs": (0,), "shape": (size,), "path": path}
            terms.append(self._append(Constant(value=constant, **kind)))
        while len(terms) > 1:
            kind = {"inputs": tuple(terms[:2]), "shape": (size,), "path": path}
            terms[:2] = [self._append(Sum(weights=(1.0, 1.0), **kind))]
        if self.whole.rounding:
            self.extra[terms[0]] = (j, units)
        return terms[0]

    def _matrices(self, j, units):
        matrices, constants = {}, []
        for blocks, constant in affine_blocks(self.graph, j, units):
            constants.append(constant)
            for k, block in blocks.items():
                matrices.setdefault(k, []).append(block[:, self.images[k][1]])
        return {k: torch.cat(blocks) for k, blocks in matrices.items()}, torch.cat(constants)

    def _append(self, node):
        self.nodes.append(node)
        return len(self.nodes) - 1

    def _relaxed(self):
        graph, whole = Graph(tuple(self.nodes)), self.whole
        ball, units = whole.ball, Units()
        built = Relaxation(
            graph, ball, [ball.lower], [ball.upper], [None], {}, False, whole.empty,
            whole.rounding,
        )  # fmt: skip
        stems = {new: (old, entries) for old, (new, entries) in self.images.items()}
        for i, node in enumerate(graph.nodes[1:], start=1):
            if i in stems:
                old, entries = stems[i]
                source = node.inputs[0]
                low, high, weight = self._kept(old, entries)
                built.lines[i] = units.lines(i, node, built.lows[source], built.highs[source])
            else:
                low, high, weight = affine_interval(built, i, node)
                low, high, weight = self._known(graph, i, low, high, weight)
            built.lows.append(low)
            built.highs.append(high)
            built.weights.append(weight)
        return built

    def _kept(self, old, entries):
        whole = self.whole
        parts = (whole.lows[old], whole.highs[old], whole.weights[old])
        return (None if part is None else part.flatten(1)[:, entries] for part in parts)

    def _known(self, graph, i, low, high, weight):
        """Give an affine node the bounds of the whole graph, and the error of its matrices."""
        if i in self.places:
            old, units = self.places[i]
            low, high, _ = self._kept(old, units)
        if i in self.extra:
            old, units = self.extra[i]
            # Once for the entries themselves, and once for what is made of them.
            error = self.errors[old].flatten(1)[:, units] * (1 + 1e-9)
            weight = weight + error / gamma(graph, i)
        return low, high, weight


def affine_blocks(graph, j, units):
    """Write entries of a node as functions of the input and of nodes that are not affine.

    Parameters
    ----------
    graph : Graph
    j : int
        Position of the node.
    units : int Tensor of shape (n,)
        Entries of its flattened output.

    Yields
    ------
    matrices : dict of int to Tensor of shape (k, size)
        For each node that k of the entries depend on.
    constants : Tensor of shape (k,)
    """
    step = max(1, NUMBERS_AT_ONCE // max(node.size for node in graph.nodes))
    for some in units.split(step):
        yield _pulled(graph, j, unit_rows(graph, j, some).unsqueeze(1))


def _pulled(graph, j, rows):
    """Return rows of a node, of shape (k, 1, *shape), as matrices, and constants."""
    matrices, constants = {}, rows.new_zeros(len(rows))

    def visit(i, node, here):
        nonlocal constants
        if i == 0 or not node.is_affine:
            matrices[i] = here.flatten(1)
            return ()
        constants = constants + (here.flatten(2) @ graph.constants[i].flatten()).squeeze(1)
        return adjoint(node, here)

    pull_back(graph, j, {j: rows}.get, visit)
    return matrices, constants


def _errors(relaxation):
    """Bound the error of the matrices of each node, times the largest values of its stems."""
    graph, sizes, errors = relaxation.graph, {}, {}
    for i, node in enumerate(graph.nodes):
        if i == 0 or not node.is_affine:
            sizes[i] = torch.maximum(-relaxation.lows[i], relaxation.highs[i])
            errors[i] = torch.zeros_like(sizes[i])
            continue
        sizes[i] = node.magnitude(*(sizes[j] for j in node.inputs))
        sizes[i] = sizes[i] + graph.constants[i].abs()
        errors[i] = node.magnitude(*(errors[j] for j in node.inputs))
        errors[i] = errors[i] + gamma(graph, i) * sizes[i]
    return errors
