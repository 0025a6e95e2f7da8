"""The methods of `pointwise_robustness`, on chunks of samples."""

import itertools
import time
from dataclasses import replace

import numpy as np
import torch

from skrobust.attacks import LBFGS, Ensemble, Target
from skrobust.balls import Ball
from skrobust.graphs import read_graph
from skrobust.pointwise._certified import certified_radius
from skrobust.pointwise._linear_region import linear_region
from skrobust.pointwise._programs import LazyPrograms, StatedPrograms
from skrobust.pointwise._result import PointwiseStatus
from skrobust.properties import ClassificationRobustness
from skrobust.verification import Exact, Reason, Verdict

__all__ = ["SOLVERS", "measure"]

# Tried in turn, relative to the largest logit, and then to 1. In float32 the first is some 25
# units in the last place: outputs change by a few when a point is computed within another batch.
_MARGINS = (3e-6, 1e-5, 1e-4, 1e-3)
_MAX_ROUNDS = 20  # of polishing
_GAIN = 1e-4  # relative; less is not worth another round
_NUMBERS = 2**22  # of all units of the network, in the samples whose regions are held at a time
_FAR = 1e30  # no bound on the distance; infinity has no nearest float below
SOLVERS = {"lazy": LazyPrograms, "cvxpy": StatedPrograms}
_ENDS = {
    "infeasible": PointwiseStatus.INFEASIBLE,
    "limit": PointwiseStatus.ABOVE,
    "rows": PointwiseStatus.ROWS,
    "failure": PointwiseStatus.FAILURE,
}
# A sample at which another label ties has radius 0.
_AT_A_TIE = {
    "lp": PointwiseStatus.OPTIMAL,
    "exact": PointwiseStatus.OPTIMAL,
    "certified": PointwiseStatus.CERTIFIED,
}


class _Records:
    """Arrays of a result, filled by one method after the other."""

    def __init__(self, n, n_features, dtype):
        self.radius = np.full(n, np.inf)
        self.adversarial_examples = np.full((n, n_features), np.nan, dtype=dtype)
        self.status = np.full(n, PointwiseStatus.NOT_FOUND, dtype="<U24")
        self.lower, self.upper = np.zeros(n), np.full(n, np.inf)
        self.optimum, self.bound = np.full(n, np.nan), np.zeros(n)
        self.seconds = np.zeros(n)

    def keep(self, index, points, radius, status):
        """Record adversarial examples that are the closest so far."""
        closer = radius < self.radius[index]
        at = index[closer]
        self.radius[at] = self.upper[at] = radius[closer]
        self.adversarial_examples[at] = points[closer]
        self.status[at] = status

    def arrays(self):
        return dict(vars(self))


class _Chunk:
    """What the methods need to know about the samples of one chunk."""

    def __init__(self, network, rows, labels, bounds, epsilon_max):
        self.network, self.bounds, self.epsilon_max = network, bounds, epsilon_max
        self.x = network.rows(rows)
        self.exact = self.x.double().cpu()
        logits = network.check_logits(network.replay(self.x), len(rows))
        predicted = logits.argmax(dim=1)
        self.scale = logits.abs().amax(dim=1).double().cpu().numpy()
        self.labels = predicted if labels is None else torch.as_tensor(labels).to(predicted)
        self.is_wrong = (predicted != self.labels).cpu().numpy()
        self.is_best = (logits == logits.amax(dim=1, keepdim=True)).cpu().numpy()
        self.is_tied = (self.is_best.sum(axis=1) > 1) & ~self.is_wrong
        low, high = (-np.inf, np.inf) if bounds is None else bounds
        # Rounding the data to float32 may leave the domain: it is widened by as much.
        self.low = np.minimum(low, self.exact.numpy())
        self.high = np.maximum(high, self.exact.numpy())

    def reach(self, index):
        """Return the largest possible distances within domain and epsilon_max."""
        center = self.exact.numpy()[index]
        across = np.maximum(center - self.low[index], self.high[index] - center).max(axis=1)
        return np.minimum(across, self.epsilon_max)

    def nothing_within(self, reach):
        """Return the statuses of samples where it is proved that nothing is within `reach`."""
        return np.where(reach < self.epsilon_max, PointwiseStatus.NOWHERE, PointwiseStatus.ABOVE)

    def settle(self, index, points):
        """Return points in the network's precision inside the domain, and their distances."""
        center = self.x[index]
        points = torch.as_tensor(points, dtype=torch.float64).to(center.device)
        everything = Ball.around(center, _FAR, "linf", self.bounds)
        settled = everything.project(points.to(center.dtype))
        distance = (settled.double() - center.double()).abs().amax(dim=1)
        return settled, distance.cpu().numpy()

    def rivals(self, index, settled):
        """Return the best other class at points, by how much it beats the sample's own one.

        The estimator itself is asked. A lead of 0 is a tie, which breaks the property too.
        """
        if len(index) == 0:
            return np.zeros(0, dtype=int), np.zeros(0)
        logits = self.network.replay(settled.to(self.x.device)).double()
        own = self.labels[index].to(logits.device)[:, None]
        best, rival = logits.scatter(1, own, -torch.inf).max(dim=1)
        lead = best - logits.gather(1, own).squeeze(1)
        return rival.cpu().numpy(), lead.cpu().numpy()


def measure(
    network,
    rows,
    labels,
    seed,
    *,
    method,
    attack,
    epsilon_max,
    bounds,
    tolerance,
    timeout,
    **options,
):
    chunk = _Chunk(network, rows, labels, bounds, epsilon_max)
    records = _Records(*chunk.exact.shape, chunk.x.cpu().numpy().dtype)
    wrong = np.flatnonzero(chunk.is_wrong)
    records.keep(
        wrong, chunk.x[wrong].cpu().numpy(), np.zeros(len(wrong)), PointwiseStatus.MISCLASSIFIED
    )
    is_tied = chunk.is_tied
    if method == "lp" and options["targets"] not in ("runner-up", "all"):
        is_tied = is_tied & chunk.is_best[:, options["targets"]]
    if method == "lp" and options["margin"] > 0:
        is_tied = np.zeros_like(is_tied)
    tied, status = np.flatnonzero(is_tied), _AT_A_TIE.get(method, PointwiseStatus.FOUND)
    records.keep(tied, chunk.x[tied].cpu().numpy(), np.zeros(len(tied)), status)
    if method == "lp":
        records.optimum[tied] = 0.0
    index = np.flatnonzero(~chunk.is_wrong & ~is_tied)
    if len(index) == 0:
        return records.arrays()
    if method in ("attack", "lbfgs"):
        _attack(chunk, records, index, LBFGS() if method == "lbfgs" else attack, seed)
        return records.arrays()
    graph = read_graph(network, rows.shape[1])
    if method == "lp":
        _in_batches(_by_programs, chunk, records, index, graph, **options)
    if method in ("polished", "bracket", "exact"):
        _attack(chunk, records, index, attack, seed)
        _in_batches(_start, chunk, records, index, graph, **options)
        _attack(chunk, records, index[~np.isfinite(records.radius[index])], LBFGS(), seed)
        _in_batches(_polish, chunk, records, index, graph, **options)
    if method in ("certified", "bracket", "exact"):
        is_radius = method == "certified"
        _in_batches(_certify, chunk, records, index, graph, is_radius=is_radius)
        if is_radius:  # nothing is proven where that failed
            records.radius[index] = records.lower[index]
    if method == "exact":
        ends = {"tolerance": tolerance, "timeout": timeout, "seed": seed}
        for i in index:
            _in_batches(_close, chunk, records, np.array([i]), graph, **ends, **options)
    return records.arrays()


def _in_batches(search, chunk, records, index, graph, **options):
    """Run a search on as many samples as memory allows; what goes wrong on one stays there."""
    size = max(1, _NUMBERS // sum(node.size for node in graph.nodes))
    for start in range(0, len(index), size):
        part = index[start : start + size]
        try:
            search(chunk, records, part, graph, **options)
        except (ArithmeticError, RuntimeError, np.linalg.LinAlgError):
            if len(part) > 1:
                for i in part:
                    _in_batches(search, chunk, records, np.array([i]), graph, **options)
            elif not np.isfinite(records.radius[part[0]]):
                records.status[part] = PointwiseStatus.FAILURE


def _attack(chunk, records, index, attack, seed):
    """Record the closest points that an attack finds."""
    if len(index) == 0:
        return
    start = time.perf_counter()
    attack = Ensemble() if attack is None else attack
    generator = torch.Generator(chunk.x.device).manual_seed(seed)
    epsilon = float(chunk.reach(index).max())
    property = ClassificationRobustness(epsilon, bounds=chunk.bounds)
    x = chunk.x[index]
    target = Target(chunk.network, property, x, chunk.labels[index])
    outcome = attack.closest(target, generator=generator)
    broken = outcome.broken.nonzero().squeeze(1).cpu().numpy()
    _keep_near(chunk, records, index[broken], outcome.points[broken])
    records.seconds[index] += (time.perf_counter() - start) / len(index)


def _keep_near(chunk, records, index, points, status=PointwiseStatus.FOUND):
    """Record points that break the property, or points just beyond; return where any did."""
    x, kept = chunk.x[index].double(), np.zeros(len(index), dtype=bool)
    moves = torch.as_tensor(points, dtype=torch.float64).to(x.device) - x
    # A tie breaks the property, but is no other label yet.
    for ties, beyond in itertools.product((False, True), (0.0, 1e-6, 1e-5, 1e-4, 1e-3)):
        left = np.flatnonzero(~kept)
        if len(left) == 0:
            break
        near = x[left] + (1 + beyond) * moves[left]
        kept[left] = _keep_confirmed(chunk, records, index[left], near, status, ties=ties)
    return kept


def _keep_confirmed(chunk, records, index, points, status, ties=False):
    """Record points to which the estimator gives another label; return which those are."""
    settled, radius = chunk.settle(index, points)
    _, lead = chunk.rivals(index, settled)
    is_other = (lead >= 0 if ties else lead > 0) & (radius <= chunk.epsilon_max)
    records.keep(index[is_other], settled.cpu().numpy()[is_other], radius[is_other], status)
    return is_other


def _certify(chunk, records, index, graph, is_radius):
    start = time.perf_counter()
    reach = chunk.reach(index)
    limit = reach
    if not is_radius:
        limit = np.minimum(limit, records.radius[index])
    device = chunk.x.device
    proven = certified_radius(
        graph,
        chunk.exact[index].to(device),
        chunk.labels[index],
        torch.as_tensor(chunk.low[index], device=device),
        torch.as_tensor(chunk.high[index], device=device),
        torch.as_tensor(limit, device=device),
    )
    records.lower[index] = proven = proven.cpu().numpy()
    if is_radius:
        records.status[index] = PointwiseStatus.CERTIFIED
    which = (proven >= reach) & ~np.isfinite(records.radius[index])
    records.status[index[which]] = chunk.nothing_within(reach[which])
    records.seconds[index] += (time.perf_counter() - start) / len(index)


# The weightiest reason first, where there are several targets: a failure hides what the others
# say.
_REASONS = (
    PointwiseStatus.FAILURE,
    PointwiseStatus.UNCONFIRMED,
    PointwiseStatus.ROWS,
    PointwiseStatus.ABOVE,
    PointwiseStatus.INFEASIBLE,
)


def _by_programs(chunk, records, index, graph, **options):
    """The linear programs in the regions of the samples themselves."""
    ends = _in_own_regions(chunk, records, index, graph, PointwiseStatus.OPTIMAL, **options)
    records.status[index[(ends == "").all(axis=1)]] = PointwiseStatus.OWN
    for reason in reversed(_REASONS):
        which = (ends == reason).any(axis=1) & ~np.isfinite(records.radius[index])
        records.status[index[which]] = reason


def _in_own_regions(chunk, records, index, graph, status, *, targets, **options):
    """Solve the programs in the regions of the samples; return how those of each ended."""
    region = linear_region(graph, chunk.exact[index].to(chunk.x.device))
    labels = chunk.labels[index].cpu().numpy()
    wanted = _target_classes(targets, region.at_x[-1].flatten(1).cpu().numpy(), labels)
    ends = np.full(wanted.shape, "", dtype=records.status.dtype)
    bounds = np.full(wanted.shape, np.inf)
    for t in range(wanted.shape[1]):
        at = np.flatnonzero(wanted[:, t] != labels)
        if len(at) == 0:
            continue
        part = region if len(at) == len(index) else region[at]
        ends[at, t], bounds[at, t] = _solve(
            chunk, records, index[at], part, wanted[at, t], status, **options
        )
    records.bound[index] = np.where((ends != "").any(axis=1), bounds.min(axis=1), 0.0)
    return ends


def _target_classes(targets, logits, labels):
    """Return the classes that are to win, of shape (n, n_targets)."""
    if targets not in ("runner-up", "all"):
        return np.full((len(labels), 1), targets)
    order = np.argsort(-logits, axis=1, kind="stable")
    others = order[order != labels[:, None]].reshape(len(labels), -1)
    return others[:, :1] if targets == "runner-up" else others


def _solve(chunk, records, index, region, targets, status, *, solver, margin, max_rows):
    """Solve one program a sample, and confirm what they find.

    Returns
    -------
    ends : ndarray of str, shape (n,)
        `PointwiseStatus`: how that ended.
    bounds : ndarray of shape (n,)
        Lower bounds of the optima.
    """
    start = time.perf_counter()
    limit = np.minimum(chunk.epsilon_max, records.radius[index])
    programs = SOLVERS[solver](
        region,
        chunk.exact[index].numpy(),
        targets,
        chunk.low[index],
        chunk.high[index],
        margin,
        chunk.labels[index].cpu().numpy(),
        max_rows,
    )
    found = programs.solve(limit)
    seconds = found.seconds
    ends = np.array([_ENDS.get(end, status) for end in found.status], dtype=records.status.dtype)
    left = np.flatnonzero(found.status == "optimal")
    if status is PointwiseStatus.OPTIMAL:
        solved = index[left]
        records.optimum[solved] = np.fmin(records.optimum[solved], found.radius[left])
    unconfirmed = np.full(len(index), False)
    unconfirmed[left] = True
    if margin > 0:
        is_kept = _keep_confirmed(chunk, records, index[left], found.points[left], status)
        unconfirmed[left] = ~is_kept
        left = left[~is_kept]
    # On the boundary two labels tie, and rounding decides: ask for a little more.
    asked = np.zeros(len(index))
    for extra in _nudges(chunk.scale[index]):
        at = left[extra[left] > asked[left]]
        if len(at) == 0:
            continue
        asked[at] = extra[at]
        programs.tighten(margin + extra[at], at)
        nudged = programs.solve(limit[at], at)
        seconds[at] += nudged.seconds
        # Without a solution there is none for larger margins either.
        is_solved = nudged.status == "optimal"
        is_kept = np.zeros(len(at), dtype=bool)
        is_kept[is_solved] = _keep_confirmed(
            chunk, records, index[at[is_solved]], nudged.points[is_solved], status
        )
        left = np.setdiff1d(left, at[is_kept | ~is_solved])
        unconfirmed[at[is_kept]] = False
    left = np.flatnonzero(unconfirmed)
    unconfirmed[left] = ~_keep_near(chunk, records, index[left], found.points[left], status)
    near = (status is PointwiseStatus.OPTIMAL) & (found.radius >= limit * (1 - 1e-5))
    ends[unconfirmed] = PointwiseStatus.UNCONFIRMED
    ends[unconfirmed & near] = PointwiseStatus.ABOVE
    shared = time.perf_counter() - start - seconds.sum()
    records.seconds[index] += seconds + max(0.0, shared) / len(index)
    return ends, found.radius


def _nudges(scale):
    """Return ever larger margins for samples with logits of that size, each of its shape."""
    relative = [extra * scale for extra in _MARGINS]
    # Of logits that cancel, the rounding is that of larger numbers.
    return relative + [extra * np.maximum(scale, 1.0) for extra in _MARGINS]


def _start(chunk, records, index, graph, **options):
    """The linear programs in the regions of the samples, where the attack may have been closer."""
    _in_own_regions(chunk, records, index, graph, PointwiseStatus.FOUND, **options)


def _polish(chunk, records, index, graph, *, margin, targets, **options):
    """Solve in the regions of ever closer adversarial examples, while that helps."""
    left = index[np.isfinite(records.radius[index])]
    for _ in range(_MAX_ROUNDS):
        if len(left) == 0:
            return
        before = records.radius[left].copy()
        points = torch.as_tensor(records.adversarial_examples[left]).to(chunk.x.device)
        wins, _ = chunk.rivals(left, points)
        direction = chunk.exact[left].to(points.device) - points.double()
        region = linear_region(graph, points, direction=direction)
        _solve(chunk, records, left, region, wins, PointwiseStatus.FOUND, margin=0.0, **options)
        left = left[records.radius[left] <= before * (1 - _GAIN)]


def _close(chunk, records, index, graph, *, tolerance, timeout, seed, **options):
    """Close the bracket of one sample by bisection with a complete verifier."""
    start = time.perf_counter()
    i, generator = index[0], torch.Generator(chunk.x.device).manual_seed(seed)
    limit, verifier = float(chunk.reach(index)[0]), Exact()
    property = ClassificationRobustness(limit, bounds=chunk.bounds)
    state = verifier.encode(chunk.network, property, chunk.x.shape[1])
    high = min(limit, records.radius[i])
    status = PointwiseStatus.OPTIMAL
    # Where nothing is found yet, the whole ball is asked for first.
    while high - records.lower[i] > tolerance or not np.isfinite(records.radius[i]):
        known = np.isfinite(records.radius[i])
        if not known and records.lower[i] >= limit:
            status = chunk.nothing_within(limit)
            break
        epsilon = float((records.lower[i] + high) / 2) if known else limit
        left = timeout - (time.perf_counter() - start)
        if left <= 0:
            status = PointwiseStatus.TIME_OUT
            break
        found = verifier.decide(
            replace(state, property=property.set_params(epsilon=epsilon)),
            chunk.x[index],
            chunk.labels[index],
            timeout=left if np.isfinite(left) else None,
            generator=generator,
        )
        if found.verdicts[0] == Verdict.VERIFIED:
            records.lower[i] = epsilon
            if not known:
                status = chunk.nothing_within(limit)
                break
        elif found.verdicts[0] == Verdict.FALSIFIED:
            _keep_near(chunk, records, index, found.counterexamples)
            if records.radius[i] > epsilon:
                # What wins lies beyond the ball, so that a tie inside of it is closer.
                _keep_confirmed(
                    chunk, records, index, found.counterexamples, PointwiseStatus.FOUND, ties=True
                )
            _polish(chunk, records, index, graph, **options)
            before, high = high, records.radius[i]
            if not np.isfinite(high):
                status = PointwiseStatus.UNCONFIRMED
                break
            if known and high >= before:  # rounding hides what is closer
                status = PointwiseStatus.UNDECIDED
                break
        else:
            is_late = found.reasons[0] == Reason.TIME_OUT
            status = PointwiseStatus.TIME_OUT if is_late else PointwiseStatus.UNDECIDED
            break
    records.status[i], records.bound[i] = status, records.lower[i]
    records.seconds[i] += time.perf_counter() - start
