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
    from skrobust.evidence._ball_rules import Ball
    from skrobust.evidence._distance_rules import Distance
    from skrobust.evidence._relus import Relus
    from skrobust.evidence._rows import (
        Rows, center_of, distance_of, farthest, least, shell, slope_nodes, unit_ball,
    )  # fmt: skip
    from skrobust.evidence._rules import (
        LARGEST, ROOM, TINY, UNIT, Affine, Rejected, add, floats, integers, need, numbers,
        plain, read_arrays, read_json,
    )  # fmt: skip
    from skrobust.evidence._smooth_rules import KINDS as MOST_KINDS
    from skrobust.evidence._splits import AT_ONCE, Proof
    from skrobust.evidence._tree_rules import Ensemble
else:  # run as a file
    sys.path.insert(0, str(Path(__file__).parent))
    from _ball_rules import Ball
    from _distance_rules import Distance
    from _relus import Relus
    from _rows import Rows, center_of, distance_of, farthest, least, shell, slope_nodes, unit_ball
    from _rules import (
        LARGEST, ROOM, TINY, UNIT, Affine, Rejected, add, floats, integers, need, numbers,
        plain, read_arrays, read_json,
    )  # fmt: skip
    from _smooth_rules import KINDS as MOST_KINDS
    from _splits import AT_ONCE, Proof
    from _tree_rules import Ensemble
# isort: on

FORMAT, VERSION = "skrobust-evidence", 2
KINDS = MOST_KINDS | {"distance": Distance}
# What strangers' files may lead to, beside reasons by name.
FAULTS = (Rejected, OSError, MemoryError, ArithmeticError, LookupError, TypeError, ValueError)


class Network:
    """Nodes in order: node 0 is the input, the last one has the outputs."""

    def __init__(self, arrays, exact):
        specs = read_json(arrays.get("nodes", b""), "nodes").get("nodes")
        need(isinstance(specs, list) and specs, "the network has no nodes")
        size = int(numbers(arrays, "n_features", (), below=2**40))
        nodes, sizes = [None], [size]
        for i, spec in enumerate(specs, start=1):
            kind, inputs = (
                spec.get(k) if isinstance(spec, dict) else None for k in ("kind", "inputs")
            )
            need(isinstance(kind, str) and kind in KINDS, f"node {i} is of kind {kind!r}")
            is_list = isinstance(inputs, list) and inputs and all(type(j) is int for j in inputs)
            need(is_list and all(0 <= j < i for j in inputs), f"node {i} has inputs {inputs!r}")
            need(kind == "affine" or len(inputs) == 1, f"node {i} has several inputs")
            own = {k.removeprefix(f"{i}."): v for k, v in arrays.items() if k.startswith(f"{i}.")}
            node = KINDS[kind](own, [sizes[j] for j in inputs], integers if exact else floats)
            node.inputs = inputs
            nodes.append(node)
            sizes.append(node.size)
        self.set_nodes(nodes, size, integers if exact else floats)

    def set_nodes(self, nodes, size, lift):
        self.nodes, self.lift, self.ball = nodes, lift, None
        self.sizes, self.depths, self.gammas, self.piecewise = [size], [0], [0.0], []
        for i, node in enumerate(nodes[1:], start=1):
            depth = max(self.depths[j] for j in node.inputs)
            self.sizes.append(node.size)
            is_affine = isinstance(node, Affine)
            self.piecewise += [] if is_affine else [i]
            self.depths.append(depth + node.mixes if is_affine else np.inf)
            terms = (node.terms if is_affine else 8) + node.size + len(nodes)
            # Twice n u / (1 - n u), n < 2^40: once for the sums, once for sums of errors.
            self.gammas.append(2.02 * UNIT * (terms + 9))
        self.free = {i: self.nodes[i].n_free * self.sizes[i] for i in self.piecewise}
        self.sources = sorted({self.nodes[i].inputs[0] for i in self.piecewise})

    def of_nodes(self, nodes, ball):
        """Return a network of other nodes, over a ball, in the same arithmetic."""
        other = Network.__new__(Network)
        other.set_nodes(nodes, self.sizes[0], self.lift)
        other.ball = ball
        return other

    def bound(self, region, start, rows, at=None, alphas=None, betas=None, distance=None):
        """Return lower bounds of rows of a node over boxes, and the errors that they allow for.

        `at` is the box of each row. What betas add to rows of nodes must not be above 0 there.
        `distance` times the distance from the center is a part of each row.
        """
        pending, constant = {start: self.lift(rows)}, self.lift(np.zeros(len(rows)))
        error = np.full(len(rows), ROOM)

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
        ends = of(region.lows[0]), of(region.highs[0])
        values, slack = least(self.ball, pulled, constant, *ends, self.lift, distance)
        error = error + slack if self.lift is floats else np.zeros(len(rows))
        values = values - error
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


def opened(arrays, exact):
    return (Ensemble if "ensemble" in arrays else Network)(arrays, exact)


def check_claim(arrays, network, digest):
    """Return what the arrays of a file prove, in words; raise `Rejected` where they do not."""
    claim = read_json(arrays.get("claim", b""), "its claim")
    need(claim.get("network") == digest, "it is about another network")
    if isinstance(network, Ensemble):
        return network.check_claim(arrays, claim)
    ball = shell(Ball(arrays, claim.get("norm"), network.sizes[0]), 0.0, np.inf)
    rows = Rows(arrays, network.sizes[-1])
    if claim.get("verdict") == "falsified":
        return _check_point(network, rows, ball, numbers(arrays, "point", (network.sizes[0],)))
    need(claim.get("verdict") == "verified", "its verdict is unknown")
    need(ball.norm == "linf" or network.lift is floats, "exact arithmetic is for boxes only")
    n_leaves = _check_pieces(network, rows, ball, arrays)
    return f"verified: {rows.n_clauses} clauses over the ball, in {n_leaves} leaves"


def _check_pieces(network, rows, ball, arrays):
    """Check proofs of some clauses at some distances each; return the number of leaves."""
    every, radii, by_slopes = np.arange(rows.n_clauses), np.array([[0.0, farthest(ball)]]), [0]
    if "radii" in arrays:
        radii = numbers(arrays, "radii", (None, 2))
        by_slopes = numbers(arrays, "by_slopes", (len(radii),), below=2)
    reached, n_leaves = np.zeros(rows.n_clauses), 0
    for k, (near, far) in enumerate(radii):
        own = {n.removeprefix(f"{k}."): v for n, v in arrays.items() if n.startswith(f"{k}.")}
        own = own if "radii" in arrays else arrays
        clauses = numbers(own, "clauses", (None,), below=len(every)) if "clauses" in own else every
        need(len(clauses) and near <= reached[clauses].min(), "a distance is left out")
        reached[clauses] = np.maximum(reached[clauses], far)
        n_leaves += prove(network, rows, shell(ball, near, far), clauses, own, by_slopes[k])
    need((reached >= farthest(ball)).all(), "a distance is left out")
    return n_leaves


def with_rows(network, rows, ball, relus=False, side=1):
    """Return a network over a ball with a claim's rows, or numbers below them, as its last node.

    With `relus` its pools and clamps are ReLUs. A side of -1 is for numbers above the rows.
    """
    nodes = Relus(network.nodes, network.sizes[0], network.lift).nodes if relus else network.nodes
    last, anchors, point = len(nodes) - 1, 0.0, ball.center[None]
    if rows.anchored.any():
        center = network.of_nodes(nodes, center_of(ball))
        anchors, _ = center.bound(center.relax(point, point), last, -side * rows.A)
        need(np.isfinite(anchors).all(), "the outputs at the center overflow")
    node = rows.node(side * anchors, last, network.lift)
    return network.of_nodes([*nodes, node], ball)


def prove(network, rows, ball, clauses, arrays, by_slopes=False):
    """Raise where clauses are not proved over a ball; return the number of leaves."""
    relus = bool(numbers(arrays, "relus", (), below=2)) if "relus" in arrays else False
    network = with_rows(network, rows, ball, relus)
    region = network.relax(ball.lower[None], ball.upper[None])
    if not by_slopes:
        proof = Proof(network, rows, list(clauses), arrays)
        proof.check(region)
        return int((~proof.inner).sum())
    values = by_slope(network, rows, region)
    for k in clauses:
        own = values[rows.of_clause[k]]
        is_proved = np.where(rows.strict[rows.of_clause[k]] > 0, own > 0, own >= 0).any()
        if rows.limit[k]:
            is_proved = rows.within(k, own, network.lift is integers)
        need(is_proved, f"slopes do not prove clause {k}: its bound is {own.max():.6g}")
    return len(clauses)


def by_slope(network, rows, region):
    """Return lower bounds of rows over a ball, by their slopes from the center."""
    ball, last, own = network.ball, len(network.nodes) - 1, np.eye(rows.count)
    point, center = ball.center[None], network.of_nodes(network.nodes, center_of(ball))
    at_center = center.relax(point, point)
    start, _ = center.bound(at_center, last, own)
    start = np.where(rows.anchored > 0, 0.0, start)
    slopes = network.of_nodes(slope_nodes(network.nodes, region, at_center), unit_ball(ball))
    steep, _ = slopes.bound(
        slopes.relax(slopes.ball.lower[None], slopes.ball.upper[None]), last, own
    )
    steep = np.nextafter(steep + rows.distance, -np.inf)
    sinks = np.nextafter(start + steep * ball.far * (1 + 4 * UNIT) - TINY, -np.inf)
    return np.where(steep >= 0, start, sinks)


def _check_point(network, rows, ball, point):
    need(ball.holds(point), "its point lies outside of the ball")
    net, at = with_rows(network, rows, ball, side=-1), point[None]
    values, error = net.bound(net.relax(at, at), len(net.nodes) - 1, -np.eye(rows.count))
    values, is_exact = rows.moved(-values, distance_of(ball, point)), net.lift is integers
    if not rows.broken(values, is_exact):
        # The bounds are off by at most twice what they allow for.
        is_open = rows.broken(values - 2 * error, is_exact)
        need(not is_open, "floats cannot tell whether its point breaks a clause")
        raise Rejected(f"its point breaks no clause: the lowest row is at most {values.min():.6g}")
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
