"""The tree of a search as it grows, and what `skrobust.evidence` stores of it."""

from dataclasses import dataclass, field

import numpy as np
import torch

from skrobust.graphs import Smooth

__all__ = ["Piece", "Recording", "proof_of"]


@dataclass(frozen=True, eq=False)
class Piece:
    """A proof of one part of a property, at some distances from the reference point.

    Parameters
    ----------
    part : int
        Place in `Query.parts`.
    near, far : float
        The distances.
    by_slopes : bool, default=False
        Whether it is by the slopes of the network.
    arrays : dict of str to ndarray, default={}
        What `Recording.arrays` returns; nothing where bounds prove it.
    """

    part: int
    near: float
    far: float
    by_slopes: bool = False
    arrays: dict = field(default_factory=dict)


class Recording:
    """Domains of one search: how they were split, and by what the bounds of leaves were found.

    Parameters
    ----------
    root : Relaxation
        Of the whole network, as the checker finds it by itself.
    places : dict of int to pair
        See `Reduction`: what of the whole network is left in the one that is searched.
    small : Relaxation
        Of the latter.
    n_bounds : int, default=1
        Rows that each leaf has bounds of: one, or all of a problem that they prove together.
    """

    def __init__(self, root, places, small, n_bounds=1):
        self.n_bounds = n_bounds
        self.whole = {j: (whole, units.cpu().numpy()) for j, (whole, units) in places.items()}
        # Both graphs have the same piecewise nodes, in order.
        self.units = dict(zip(small.graph.piecewise, root.graph.piecewise, strict=True))
        self.sources = {i: small.graph.nodes[i].inputs[0] for i in small.graph.piecewise}
        self.smooth = {i for i in self.units if isinstance(small.graph.nodes[i], Smooth)}
        self.sizes = {j: root.graph.nodes[j].size for j in root.sources}
        self.children, self.tightened, self.leaves = {}, set(), {}

    def split(self, domains):
        """Enter halves of domains, as `split` returns them."""
        terms = (domains.place, domains.parent, domains.decision, domains.cut)
        for place, parent, (j, unit, sign), at in zip(*(t.tolist() for t in terms), strict=True):
            side = 0 if sign > 0 else 1
            whole, units = self.whole[j]
            entry = self.children.setdefault(parent, [whole, int(units[unit]), at, None, None])
            entry[3 + side] = place

    def halve(self, boxes, axes):
        """Enter halves of boxes: all first ones, which are below, and then all second ones."""
        below, above = boxes.place.view(2, -1).tolist()
        count = torch.arange(len(axes), device=axes.device)
        cuts = boxes.high[count, axes].tolist()
        parents = boxes.parent[: len(axes)].tolist()
        for entry in zip(parents, axes.tolist(), cuts, above, below, strict=True):
            parent, axis, cut, *children = entry
            self.children[parent] = [0, axis, cut, *children]
            self.tightened.update((parent, *children))

    def close_boxes(self, boxes, is_closed, rows):
        """Enter for which problems boxes are proved now, (P, r), and by which row of each."""
        for k, problem in is_closed.nonzero().tolist():
            key = int(boxes.place[k]), problem
            self.leaves[key] = int(rows[k, problem]), [({}, {})] * self.n_bounds

    def tighten(self, domains):
        """Enter that intervals of these domains were tightened."""
        self.tightened.update(domains.place.tolist())

    def close(self, domains, row, alphas=None, betas=None):
        """Enter domains that are proved.

        Parameters
        ----------
        domains : Domains
        row : int Tensor of shape (P,)
            Which row of the problem is proved there.
        alphas : dict of int to Tensor of shape (P, m, *shape), default=None
            Slopes; those of the rule if None. For smooth nodes the points of tangents, of shape
            (P, m, 2, *shape).
        betas : dict of int to Tensor of shape (P, 1 or m, *shape), default=None
            What was added to the rows of nodes.
        """
        keys = zip(domains.place.tolist(), domains.problem.tolist(), strict=True)
        for k, (key, which) in enumerate(zip(keys, row.tolist(), strict=True)):
            rows = [which] if self.n_bounds == 1 else range(self.n_bounds)
            self.leaves[key] = which, [self._bound(alphas, betas, k, r) for r in rows]

    def arrays(self, roots, rows_of):
        """Return the arrays of a proof.

        Parameters
        ----------
        roots : list of (int, int)
            For each clause the place of its root, and its problem.
        rows_of : list of list of int
            For each clause the rows of the claim that it has; behind them, its mixture.

        Returns
        -------
        dict of str to ndarray
        """
        order, clause = list(roots), list(range(len(roots)))
        columns = {name: [] for name in ("row", "node", "unit", "at", "tightens")}
        leaves = []
        for k, key in enumerate(order):  # grows on the way
            place, problem = key
            if key not in self.leaves and place in self.children:
                whole, unit, at, first, second = self.children[place]
                entry = (whole + 1, rows_of[clause[k]][0], unit, at)
                order += [(first, problem), (second, problem)]
                clause += [clause[k]] * 2
            else:
                row, bounds = self.leaves.get(key, (0, [({}, {})] * self.n_bounds))
                entry = (0, rows_of[clause[k]][row], 0, 0.0)
                leaves += bounds
            node, row, unit, at = entry
            tightens = int(place in self.tightened)
            for name, value in zip(columns, (row, node, unit, at, tightens), strict=True):
                columns[name].append(value)
        kinds = {"at": np.float64, "tightens": np.uint8}
        arrays = {k: np.array(v, dtype=kinds.get(k, np.int32)) for k, v in columns.items()}
        return arrays | self._slopes(leaves) | self._multipliers(leaves)

    def _bound(self, alphas, betas, k, row):
        """Return what a bound of a row of domain k is made of: slopes, units with multipliers."""
        slopes = {
            i: part[k, row].flatten().cpu().numpy().astype(self._dtype(i))
            for i, part in (alphas or {}).items()
        }
        multipliers = {}
        for j, part in (betas or {}).items():
            values = part[k, row if part.shape[1] > 1 else 0].flatten().abs().cpu().numpy()
            multipliers[j] = np.flatnonzero(values), values[values != 0]
        return slopes, multipliers

    def _dtype(self, i):
        return np.float64 if i in self.smooth else np.float32  # any slope of a kink is right

    def _slopes(self, leaves):
        arrays = {}
        for i, j in self.sources.items():
            if not any(i in slopes for slopes, _ in leaves):
                continue
            whole, units = self.whole[j]
            size, default = self.sizes[whole], -1.0
            if i in self.smooth:  # lines below, and above; what is infinite is left to the rule
                units, size, default = np.concatenate([units, size + units]), 2 * size, np.inf
            table = np.full((len(leaves), size), default, dtype=self._dtype(i))
            for k, (slopes, _) in enumerate(leaves):
                if i in slopes:
                    table[k, units] = slopes[i]
            arrays[f"slopes.{self.units[i]}"] = table
        return arrays

    def _multipliers(self, leaves):
        parts = {}  # several nodes may be parts of one of the whole network
        for j, (whole, units) in self.whole.items():
            for k, (_, multipliers) in enumerate(leaves):
                if j in multipliers and len(multipliers[j][0]):
                    unit, value = multipliers[j]
                    leaf = np.full(len(unit), k, dtype=np.int32)
                    entry = (leaf, units[unit].astype(np.int32), value)
                    parts.setdefault(whole, []).append(entry)
        arrays = {}
        for whole, entries in parts.items():
            leaf, unit, value = (np.concatenate(part) for part in zip(*entries, strict=True))
            name = f"betas.{whole}"
            arrays |= {name: value, f"{name}.leaf": leaf, f"{name}.unit": unit}
        return arrays


def proof_of(recording, problem, query, open_clauses, is_shared):
    """Return the arrays of a proof of the clauses that a search was asked for.

    Parameters
    ----------
    recording : Recording
    problem : Problem
        Of the open clauses.
    query : Query
        Of one point.
    open_clauses : int Tensor of shape (k,)
    is_shared : bool
        Whether it is one tree for all of them, or one for each.

    Returns
    -------
    dict of str to ndarray
    """
    n_rows = sum(len(set(members)) for members in query.clauses.tolist())
    if problem.is_joint:
        return recording.arrays([(0, 0)], [list(range(n_rows))])
    rows_of, first = [], 0
    for members in query.clauses.tolist():
        own = list(dict.fromkeys(members))
        rows_of.append([first + own.index(row) for row in members])
        first += len(own)
    searched = open_clauses.tolist()
    rows_of = [rows_of[k] for k in searched]
    roots, arrays = [(0 if is_shared else k, k) for k in range(len(searched))], {}
    if problem.weights is not None:
        mixtures = np.zeros((len(searched), n_rows))
        for k, (rows, values) in enumerate(zip(rows_of, problem.weights, strict=True)):
            np.add.at(mixtures[k], rows, values.cpu().numpy())
        rows_of = [[*rows, n_rows + k] for k, rows in enumerate(rows_of)]
        arrays["mixtures"] = mixtures
    return recording.arrays(roots, rows_of) | arrays | {"clauses": np.array(searched)}
