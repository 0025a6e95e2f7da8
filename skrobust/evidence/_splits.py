"""Trees of splits, as the checker of evidence reads and checks them."""

from types import SimpleNamespace as Space

import numpy as np

# isort: off
if __package__:
    from skrobust.evidence._rules import Rejected, integers, need, numbers
else:  # run as a file
    from _rules import Rejected, integers, need, numbers
# isort: on

AT_ONCE = 2**21  # numbers in the largest array of a pass


class Proof:
    """Trees of splits, one for each of some clauses; without any, each is bounded at once.

    Nodes stand level by level: first the roots, then both children of each node that is split,
    in order. `node` is 0 for a leaf, else the node of the network whose entry `unit` is split,
    plus 1; the children are where it is at least `at`, and at most. A leaf has a bound of one row
    or mixture; of a clause with a limit, one of each of its rows.
    """

    def __init__(self, network, rows, clauses, arrays):
        self.network, self.rows, self.clauses = network, rows, clauses
        self.n_roots, sizes = len(clauses), np.array(network.sizes)
        self.weights, self.clause_of, self.strict = rows.mixed(arrays)
        first = np.array([rows.of_clause[k][0] for k in clauses])
        otherwise = {"row": first} | dict.fromkeys(("node", "unit", "tightens"), 0 * first)
        get = arrays if "row" in arrays else otherwise
        count = np.size(get["row"])
        most = {"row": len(self.weights), "node": len(sizes) + 1, "unit": sizes.max()}
        most["tightens"] = 2
        self.row, node, self.unit, self.tightens = (
            numbers(get, k, (count,), below=v) for k, v in most.items()
        )
        self.at = numbers(arrays, "at", (count,)) if "at" in arrays else np.zeros(count)
        self.node, self.inner = node - 1, node > 0
        self.child = self.n_roots + 2 * (np.cumsum(self.inner) - 1)
        at = np.flatnonzero(self.inner)
        is_tree = count == self.n_roots + 2 * len(at) and (self.child[at] > at).all()
        need(is_tree and (self.unit[at] < sizes[self.node[at]]).all(), "the tree is no tree")
        need(np.isin(self.node[at], [0, *network.sources]).all(), "a split of what no unit reads")
        # The bounds of leaves: how many, and where they begin.
        clause = self.clause_of[self.row]
        sizes_of = np.where(rows.limit > 0, np.bincount(rows.clause), 1)
        self.counts = np.where(self.inner, 0, sizes_of[clause])
        self.first, n_bounds = np.cumsum(self.counts) - self.counts, int(self.counts.sum())
        self.alphas = {
            i: numbers(arrays, f"slopes.{i}", (n_bounds, network.free[i]), finite=False)
            for i in network.free
            if f"slopes.{i}" in arrays
        }
        self.betas = {}
        for j in network.sources:
            if f"betas.{j}" in arrays:
                value = numbers(arrays, f"betas.{j}", (None,))
                which = numbers(arrays, f"betas.{j}.leaf", value.shape, below=n_bounds)
                unit = numbers(arrays, f"betas.{j}.unit", value.shape, below=sizes[j])
                need((value >= 0).all(), "a multiplier is below 0")
                self.betas[j] = which, unit, value

    def check(self, root):
        """Raise where a leaf does not prove its row, from the bounds of the whole ball."""
        places = [0, *self.network.sources]
        signs = {j: np.zeros((1, self.network.sizes[j])) for j in places}
        lows, highs = ({j: side[j] for j in places} for side in (root.lows, root.highs))
        stack = [(np.arange(self.n_roots), np.array(self.clauses), lows, highs, signs)]
        step = max(1, AT_ONCE // (4 * sum(self.network.sizes)))
        while stack:
            state = stack.pop()
            if len(state[0]) > step:
                stack.append(part_of(state, slice(step, None)))
                state = part_of(state, slice(step))
            for tightens in (0, 1):
                index = np.flatnonzero(self.tightens[state[0]] == tightens)
                if len(index):
                    stack += self._children(root, *part_of(state, index), tightens)

    def _children(self, root, ids, clause, lows, highs, signs, tightens):
        """Check the leaves among domains; return both halves of the others."""
        region = self._region(root, ids, lows, highs, tightens)
        self._leaves(region, ids, clause, signs)
        lows, highs = ({j: side[j] for j in lows} for side in (region.lows, region.highs))
        inner = np.flatnonzero(self.inner[ids])
        if len(inner) == 0:
            return []
        state = part_of((ids, clause, lows, highs, signs), inner, set(self.node[ids[inner]]))
        return [self._half(*state, side) for side in (0, 1)]

    def _region(self, root, ids, lows, highs, tightens):
        """Return bounds of all nodes in domains, with what splits have cut."""
        pairs = [(a[j], b[j]) for a, b in ((lows, root.lows), (highs, root.highs)) for j in lows]
        if not tightens and all(own is whole for own, whole in pairs):
            return root
        if any((a[0] != b[0]).any() for a, b in ((lows, root.lows), (highs, root.highs))):
            return self.network.relax(lows[0], highs[0], (lows, highs), tightens)
        region = Space(**vars(root) | {"lows": [*root.lows], "highs": [*root.highs], "lines": {}})
        region.empty = np.zeros(len(ids), dtype=bool)
        for i in self.network.piecewise:
            self.network.refine(region, i, (lows, highs), tightens)
        return region

    def _leaves(self, region, ids, clause, signs):
        index = np.flatnonzero(~self.inner[ids])
        if len(index) == 0:
            return
        leaf, row = ids[index], self.row[ids[index]]
        need((self.clause_of[row] == clause[index]).all(), "a leaf proves another clause")
        counts = self.counts[leaf]
        owner, first = np.repeat(np.arange(len(leaf)), counts), np.cumsum(counts) - counts
        within = np.arange(len(owner)) - first[owner]
        bounds, place = self.first[leaf][owner] + within, np.full(self.counts.sum(), -1)
        has_limit = self.rows.limit[clause[index]] > 0
        each = row[owner]
        for k in np.flatnonzero(has_limit):
            each[first[k] : first[k] + counts[k]] = self.rows.of_clause[clause[index[k]]]
        alphas, betas = {i: part[bounds] for i, part in self.alphas.items()}, {}
        place[bounds] = np.arange(len(bounds))
        for j, (at, unit, value) in self.betas.items():
            here = place[at] >= 0
            betas[j] = np.zeros((len(bounds), self.network.sizes[j]))
            np.add.at(betas[j], (place[at[here]], unit[here]), value[here])
            # So many times what an entry is above its least value, or below its largest.
            parts = signs[j], region.lows[j], region.highs[j]
            sign, low, high = (v if len(v) == 1 else v[index[owner]] for v in parts)
            betas[j] = -sign * betas[j], np.where(sign > 0, low, high)
        weights, last = self.weights[each], len(self.network.nodes) - 1
        distance = self.rows.distances(weights)
        values, _ = self.network.bound(
            region, last, weights, index[owner], alphas, betas, distance
        )
        at = values[first]
        is_proved = np.where(self.strict[row] > 0, at > 0, at >= 0)
        for k in np.flatnonzero(has_limit):
            own = values[first[k] : first[k] + counts[k]]
            is_proved[k] = self.rows.within(clause[index[k]], own, self.network.lift is integers)
        is_proved |= region.empty if len(region.empty) == 1 else region.empty[index]
        for k in np.flatnonzero(~is_proved)[:1]:
            which = int((~self.inner[: leaf[k]]).sum())
            raise Rejected(f"in leaf {which} the bound of row {row[k]} is {at[k]:.6g}")

    def _half(self, ids, clause, lows, highs, signs, side):
        """Return the children at which what is split is at least `at` (side 0), or at most."""
        lows, highs, signs = ({j: v.copy() for j, v in of.items()} for of in (lows, highs, signs))
        for j in lows:
            k = np.flatnonzero(self.node[ids] == j)
            unit, at = self.unit[ids[k]], self.at[ids[k]]
            if side == 0:
                lows[j][k, unit] = np.maximum(lows[j][k, unit], at)
            else:
                highs[j][k, unit] = np.minimum(highs[j][k, unit], at)
            need(j or (lows[0][k, unit] <= highs[0][k, unit]).all(), "a split outside of the box")
            signs[j][k, unit] = 1.0 - 2.0 * side
        return self.child[ids] + side, clause, lows, highs, signs


def part_of(state, index, spread=()):
    """Return some domains. What all share has one row; it is spread for nodes that are split."""
    parts, count = [], len(state[0])
    for part in state:
        if isinstance(part, dict):
            part = {
                j: np.broadcast_to(v, (count, v.shape[1])) if j in spread else v
                for j, v in part.items()
            }
            parts.append({j: v[index] if len(v) == count else v for j, v in part.items()})
        else:
            parts.append(part[index])
    return tuple(parts)
