"""Checks proofs about networks, stored as files, by NumPy and the standard library alone.

    python _checker.py FOLDER [--exact]

This file and those that it imports are all of it: without skrobust or torch they run as they are.
They trust no number but those that say what is claimed: the network, the ball, the rows. From the
slopes and multipliers of a file they compute all bounds: any give one that holds.

"Verified" says: for all x of a ball, each clause has a row A z(x) + b >= 0 (> 0 where strict). The
proof is a tree of splits a clause. In each leaf one row of it is pulled back to the input: through
affine nodes by their weights, through others by lines below and above, on intervals of their
inputs. For an entry z that a split left on side s of t, any multiple of s (z - t) may be taken
off the row.

Floats: a sum of n products errs by at most n u / (1 - n u) times the sum of their sizes, where
u = 2^-53 (Higham, 2002, section 3.1). Where a row is off by delta at a node, its bound is off by
|delta| . max|z|, since the row that was computed has an exact bound. These are summed, with twice
the constant for their own rounding. Exact: numbers are integers times a power of two.
"""

import hashlib
import sys
from pathlib import Path
from types import SimpleNamespace as Space

import numpy as np

# isort: off
if __package__:
    from skrobust.evidence._rules import (
        LARGEST, ROOM, UNIT, Ball, Rejected, add, floats, integers, need, numbers, part_of, plain,
        read_arrays, read_json, rounded_down,
    )  # fmt: skip
    from skrobust.evidence._smooth_rules import KINDS
    from skrobust.evidence._tree_rules import Ensemble
else:  # run as a file
    sys.path.insert(0, str(Path(__file__).parent))
    from _rules import (
        LARGEST, ROOM, UNIT, Ball, Rejected, add, floats, integers, need, numbers, part_of, plain,
        read_arrays, read_json, rounded_down,
    )  # fmt: skip
    from _smooth_rules import KINDS
    from _tree_rules import Ensemble
# isort: on

FORMAT, VERSION = "skrobust-evidence", 1
AT_ONCE = 2**21  # numbers in the largest array of a pass
# What strangers' files may lead to, beside reasons by name.
FAULTS = (Rejected, OSError, MemoryError, ArithmeticError, LookupError, TypeError, ValueError)


class Network:
    """Nodes in order: node 0 is the input, the last one has the outputs."""

    def __init__(self, arrays, exact):
        specs = read_json(arrays.get("nodes", b""), "nodes").get("nodes")
        need(isinstance(specs, list) and specs, "the network has no nodes")
        size = int(numbers(arrays, "n_features", (), below=2**40))
        self.lift, self.ball, self.piecewise = (integers if exact else floats), None, []
        self.nodes, self.sizes, self.depths, self.gammas = [None], [size], [0], [0.0]
        for i, spec in enumerate(specs, start=1):
            kind, inputs = (
                spec.get(k) if isinstance(spec, dict) else None for k in ("kind", "inputs")
            )
            need(isinstance(kind, str) and kind in KINDS, f"node {i} is of kind {kind!r}")
            is_list = isinstance(inputs, list) and inputs and all(type(j) is int for j in inputs)
            need(is_list and all(0 <= j < i for j in inputs), f"node {i} has inputs {inputs!r}")
            is_affine, start = kind == "affine", f"{i}."
            need(is_affine or len(inputs) == 1, f"node {i} has several inputs")
            own = {k.removeprefix(start): v for k, v in arrays.items() if k.startswith(start)}
            node = KINDS[kind](own, [self.sizes[j] for j in inputs], self.lift)
            node.inputs, depth = inputs, max(self.depths[j] for j in inputs)
            self.nodes.append(node)
            self.sizes.append(node.size)
            self.piecewise += [] if is_affine else [i]
            self.depths.append(depth + node.mixes if is_affine else np.inf)
            terms = (node.terms if is_affine else 8) + node.size + len(specs)
            # Twice n u / (1 - n u), n < 2^40: once for the sums, once for sums of errors.
            self.gammas.append(2.02 * UNIT * (terms + 9))
        self.free = {i: self.nodes[i].n_free * self.sizes[i] for i in self.piecewise}
        self.sources = sorted({self.nodes[i].inputs[0] for i in self.piecewise})

    def bound(self, region, start, rows, at=None, shift=0.0, alphas=None, betas=None):
        """Return lower bounds of rows of a node over boxes, and the errors that they allow for.

        `at` is the box of each row. What betas add to rows of nodes must not be above 0 there.
        """
        shift = np.broadcast_to(shift, len(rows))
        pending, constant = {start: self.lift(rows)}, self.lift(shift)
        error = 4 * UNIT * len(self.nodes) * np.abs(shift) + ROOM

        def of(values):
            return values if at is None or len(values) == 1 else values[at]

        for i in range(start, 0, -1):
            if i not in pending:
                continue
            here, node = pending.pop(i), self.nodes[i]
            if betas and i in betas:  # multiples of z - cut, which are not above 0
                (more, k), (cut, j) = self.lift(betas[i][0]), self.lift(betas[i][1])
                here = add(here, (more, k))
                constant = add(constant, (-(more * cut).sum(axis=1), k + j))
                error = error + self.gammas[i] * np.abs(betas[i][0] * betas[i][1]).sum(axis=1)
            if self.lift is floats:
                error = error + self.gammas[i] * (np.abs(here[0]) * of(region.scales[i])).sum(
                    axis=1
                )
            lines = Space(**{k: of(v) for k, v in vars(region.lines.get(i, Space())).items()})
            parts, term = node.pull(here, lines, (alphas or {}).get(i), self.lift)
            constant = add(constant, term)
            for j, part in zip(node.inputs, parts, strict=True):
                pending[j] = add(pending[j], part) if j in pending else part
        pulled = pending.get(0) or self.lift(np.zeros((len(rows), self.sizes[0])))
        least, slack = self.ball.minimum(
            pulled, of(region.lows[0]), of(region.highs[0]), self.lift
        )
        error = error + slack if self.lift is floats else np.zeros(len(rows))
        values = rounded_down(add(constant, least)) - error
        return np.where(values < np.inf, values, -np.inf), error  # what overflows bounds nothing

    def relax(self, low, high, known=None, tightens=True):
        """Bound all nodes over boxes; `known` are intervals of what piecewise nodes read."""
        region = Space(
            lows=[low], highs=[high], scales=[None], lines={}, empty=np.zeros(len(low), bool)
        )
        for i, node in enumerate(self.nodes[1:], start=1):
            ends = [
                np.concatenate([s[j] for j in node.inputs], axis=1)
                for s in (region.lows, region.highs)
            ]
            if i in self.piecewise:
                ends = self.refine(region, i, known, tightens)
                low, high, scale = node.image(*ends)
            else:
                low, high, scale = node.interval(*ends, self.gammas[i])
            need((scale < LARGEST).all(), f"node {i} has numbers that may be beyond {LARGEST}")
            region.lows.append(low)
            region.highs.append(high)
            region.scales.append(scale)
        return region

    def refine(self, region, i, known, tightens):
        """Make the lines of a piecewise node, and return the interval of its input.

        That is cut with what is known, and tightened by lines before it where the unit is open.
        """
        node = self.nodes[i]
        j = node.inputs[0]
        if known is not None:
            self.cut(region, j, known[0][j], known[1][j])
        if tightens and (self.depths[j] > 1 or self.ball.norm == "l2"):
            low, high = region.lows[j].copy(), region.highs[j].copy()
            box, unit = np.nonzero(node.wanted(low, high))
            step = max(1, AT_ONCE // (2 * max(self.sizes)))
            for start in range(0, len(box), step):
                b, u = box[start : start + step], unit[start : start + step]
                rows, k = np.zeros((2 * len(b), self.sizes[j])), np.arange(len(b))
                rows[k, u], rows[k + len(b), u] = 1.0, -1.0
                bounds, _ = self.bound(region, j, rows, np.concatenate([b, b]))
                low[b, u] = np.fmax(low[b, u], bounds[: len(b)])
                high[b, u] = np.fmin(high[b, u], -bounds[len(b) :])
            self.cut(region, j, low, high)
        region.lines[i] = node.lines(region.lows[j], region.highs[j])
        return region.lows[j], region.highs[j]

    def cut(self, region, j, low, high):
        low, high = np.fmax(region.lows[j], low), np.fmin(region.highs[j], high)
        region.empty = region.empty | (low > high).any(axis=1)
        region.lows[j], region.highs[j] = low, np.maximum(low, high)


class Proof:
    """Trees of splits, one a clause; without any, each row is bounded over the whole ball.

    Nodes stand level by level: first the roots, then both children of each node that is split,
    in order. `node` is 0 for a leaf, else the node of the network whose entry `unit` is split,
    plus 1; the children are where it is at least `at`, and at most.
    """

    def __init__(self, network, rows, arrays):
        self.network, self.rows, n, sizes = network, rows, len(rows.b), np.array(network.sizes)
        self.n_roots, count = rows.clause.max() + 1, np.size(arrays.get("row", rows.b))
        otherwise = {
            "row": np.arange(n),
            "node": np.zeros(n),
            "unit": np.zeros(n),
            "tightens": np.zeros(n),
        }
        get = arrays if "row" in arrays else otherwise
        most = {"row": n, "node": len(sizes) + 1, "unit": sizes.max(), "tightens": 2}
        self.row, node, self.unit, self.tightens = (
            numbers(get, k, (count,), below=v) for k, v in most.items()
        )
        self.at = numbers(arrays, "at", (count,)) if "at" in arrays else np.zeros(count)
        self.node, self.inner = node - 1, node > 0
        self.child = self.n_roots + 2 * (np.cumsum(self.inner) - 1)
        self.leaf = np.cumsum(~self.inner) - 1
        at = np.flatnonzero(self.inner)
        is_tree = count == self.n_roots + 2 * len(at) and (self.child[at] > at).all()
        need(is_tree and (self.unit[at] < sizes[self.node[at]]).all(), "the tree is no tree")
        need(np.isin(self.node[at], [0, *network.sources]).all(), "a split of what no unit reads")
        n_leaves = count - len(at)
        self.alphas = {
            i: numbers(arrays, f"slopes.{i}", (n_leaves, network.free[i]), finite=False)
            for i in network.free
            if f"slopes.{i}" in arrays
        }
        self.betas = {}
        for j in network.sources:
            if f"betas.{j}" in arrays:
                value = numbers(arrays, f"betas.{j}", (None,))
                leaf = numbers(arrays, f"betas.{j}.leaf", value.shape, below=n_leaves)
                unit = numbers(arrays, f"betas.{j}.unit", value.shape, below=sizes[j])
                need((value >= 0).all(), "a multiplier is below 0")
                self.betas[j] = leaf, unit, value

    def check(self, root):
        """Raise where a leaf does not prove its row, from the bounds of the whole ball."""
        places = [0, *self.network.sources]
        signs = {j: np.zeros((1, self.network.sizes[j])) for j in places}
        lows, highs = ({j: side[j] for j in places} for side in (root.lows, root.highs))
        ids = np.arange(self.n_roots)
        stack = [(ids, ids, lows, highs, signs)]
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
        leaf, rows = self.leaf[ids[index]], self.row[ids[index]]
        need((self.rows.clause[rows] == clause[index]).all(), "a leaf proves another clause")
        alphas = {i: part[leaf] for i, part in self.alphas.items()}
        betas, place = {}, np.full(self.leaf[-1] + 1, -1)
        place[leaf] = np.arange(len(leaf))
        for j, (at, unit, value) in self.betas.items():
            here = place[at] >= 0
            betas[j] = np.zeros((len(leaf), self.network.sizes[j]))
            np.add.at(betas[j], (place[at[here]], unit[here]), value[here])
            parts = signs[j], region.lows[j], region.highs[j]
            sign, low, high = (v if len(v) == 1 else v[index] for v in parts)
            betas[j] = -sign * betas[j], np.where(sign > 0, low, high)
        A, b, strict = (part[rows] for part in (self.rows.A, self.rows.b, self.rows.strict))
        last = len(self.network.nodes) - 1
        values, _ = self.network.bound(region, last, A, index, b, alphas, betas)
        is_empty = region.empty if len(region.empty) == 1 else region.empty[index]
        is_proved = np.where(strict > 0, values > 0, values >= 0) | is_empty
        for k in np.flatnonzero(~is_proved)[:1]:
            raise Rejected(f"in leaf {leaf[k]} the bound of row {rows[k]} is {values[k]:.6g}")

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


def opened(arrays, exact):
    return (Ensemble if "ensemble" in arrays else Network)(arrays, exact)


def check_claim(arrays, network, digest):
    """Return what the arrays of a file prove, in words; raise `Rejected` where they do not."""
    claim = read_json(arrays.get("claim", b""), "its claim")
    need(claim.get("network") == digest, "it is about another network")
    if isinstance(network, Ensemble):
        return network.check_claim(arrays, claim)
    network.ball = ball = Ball(arrays, claim.get("norm"), network.sizes[0])
    rows = Space(A=numbers(arrays, "A", (None, network.sizes[-1])))
    rows.b = numbers(arrays, "b", (len(rows.A),))
    rows.strict = numbers(arrays, "strict", (len(rows.A),), below=2)
    rows.clause = numbers(arrays, "clause", (len(rows.A),), below=max(1, len(rows.A)))
    need(len(rows.A) and set(rows.clause) == set(range(rows.clause.max() + 1)), "it has no rows")
    if claim.get("verdict") == "falsified":
        return _check_point(network, rows, numbers(arrays, "point", (network.sizes[0],)))
    need(claim.get("verdict") == "verified", "its verdict is unknown")
    need(ball.norm == "linf" or network.lift is floats, "exact arithmetic is for boxes only")
    proof = Proof(network, rows, arrays)
    proof.check(network.relax(ball.lower[None], ball.upper[None]))
    n_leaves = int((~proof.inner).sum())
    return f"verified: {proof.n_roots} clauses over the ball, in {n_leaves} leaves"


def _check_point(network, rows, point):
    need(network.ball.holds(point), "its point lies outside of the ball")
    at, last, none = (
        network.relax(point[None], point[None]),
        len(network.nodes) - 1,
        np.zeros(len(rows.b), int),
    )
    values, error = network.bound(at, last, -rows.A, none, -rows.b)
    clauses = set(rows.clause)

    def falls(values):
        """Return whether all rows of a clause fall short, where they are at most -values."""
        is_broken = np.where(rows.strict > 0, values >= 0, values > 0)
        return any(is_broken[rows.clause == k].all() for k in clauses)

    if not falls(values):  # the bounds are off by at most twice what they allow for
        need(not falls(values + 2 * error), "floats cannot tell whether its point breaks a clause")
        raise Rejected(
            f"its point breaks no clause: the lowest row is at most {-values.max():.6g}"
        )
    return "falsified: a point of the ball breaks the rows"


def check_folder(folder, exact=False):
    """Yield the name of each file, whether it is accepted, and what there is to say of it."""
    folder = Path(folder)
    try:
        manifest = read_json((folder / "manifest.json").read_bytes(), "the manifest")
        found = manifest.get("format"), manifest.get("version")
        need(found == (FORMAT, VERSION), f"it is of format {found}, not {(FORMAT, VERSION)}")
        digest = hashlib.sha256((folder / "network.npz").read_bytes()).hexdigest()
        need(manifest.get("network") == digest, "network.npz is not the network of the manifest")
        with np.errstate(all="ignore"):
            network = opened(read_arrays(folder / "network.npz"), exact)
        points = manifest.get("points")
        need(isinstance(points, list), "the manifest has no list of points")
    except FAULTS as error:
        yield "manifest.json", False, told(error)
        return
    for i, name in enumerate(points):
        try:
            need(isinstance(name, str) and name == plain(name), "this is no name of a file")
            need(name not in ("", "..") and Path(name).name == name, "this is no name of a file")
            need(name not in points[:i], "it is named twice")
            with np.errstate(all="ignore"):
                message = check_claim(read_arrays(folder / name), network, digest)
            answer = name, True, message
        except FAULTS as error:
            answer = plain(name), False, told(error)
        yield answer


def told(error):
    known = isinstance(error, Rejected)
    return plain(str(error) if known else f"it is malformed: {type(error).__name__} {error}")


def main(arguments):
    folders = [each for each in arguments if each != "--exact"]
    if len(folders) != 1:
        print("usage: check FOLDER [--exact]", file=sys.stderr)
        return 2
    accepted = []
    for name, is_accepted, message in check_folder(folders[0], "--exact" in arguments):
        print(f"{name}: {'accepted' if is_accepted else 'rejected'}: {message}", flush=True)
        accepted.append(is_accepted)
    print(f"{sum(accepted)} of {len(accepted)} files accepted")
    return 0 if accepted and all(accepted) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
