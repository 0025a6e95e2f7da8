"""The methods of `pointwise_robustness`, on chunks of samples."""

import time
import warnings
from dataclasses import dataclass, replace

import numpy as np
import torch

from skrobust.attacks import LBFGS, Ensemble, FastMinimumNorm, LinearBoundary, Target
from skrobust.exceptions import AttackWarning
from skrobust.graphs import Graph, read_graph
from skrobust.networks import BlackBox, Model
from skrobust.pointwise._certified import certified_radius
from skrobust.pointwise._linear_region import linear_region
from skrobust.pointwise._programs import LazyPrograms
from skrobust.pointwise._records import Chunk, Records, keep_confirmed, keep_near, larger_margins
from skrobust.pointwise._result import PointwiseStatus
from skrobust.pointwise._stated import StatedPrograms
from skrobust.pointwise._trees import encode_trees, measure_trees
from skrobust.properties import ClassificationRobustness
from skrobust.verification import Exact, Reason, Verdict

__all__ = ["SOLVERS", "Reading", "measure", "read"]

_MAX_ROUNDS = 20  # of polishing
_POLISHING_ROWS = 100  # of one program: beyond, the relaxed points are nearly as good
_GAIN = 1e-4  # relative; less is not worth another round
_NEARLY = 1 - 1e-5  # of a distance: what is below it by less is no closer
_NUMBERS = 2**22  # of all units of the network, in the samples whose regions are held at a time
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


@dataclass(frozen=True, eq=False)
class Reading:
    """A network as the methods need it, read once for all chunks and processes.

    Parameters
    ----------
    network : Model
    graph : Graph or None
        None where the method does without one.
    encoding : object or None
        Of the verifier, where the method asks one.
    """

    network: Model
    graph: Graph | None = None
    encoding: object = None


def read(network, n_features, method, bounds):
    """Return the `Reading` that a method needs; raise if the network cannot be read so."""
    if isinstance(network, BlackBox):
        return Reading(network, None, encode_trees(network, n_features, bounds))
    if method in ("attack", "lbfgs"):
        return Reading(network)
    if method != "exact":
        return Reading(network, read_graph(network, n_features))
    encoding = Exact().encode(network, ClassificationRobustness(bounds=bounds), n_features)
    return Reading(network, encoding.graph, encoding)


def measure(
    reading,
    rows,
    labels,
    seed,
    *,
    method,
    attack,
    epsilon_max,
    bounds,
    precision,
    timeout,
    unit=None,
    **options,
):
    chunk = Chunk(reading.network, rows, labels, bounds, epsilon_max, unit)
    records = Records(*chunk.exact.shape, chunk.x.cpu().numpy().dtype)
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
    if chunk.epsilon_max == 0:
        records.status[index] = PointwiseStatus.ABOVE
    if chunk.epsilon_max == 0 or len(index) == 0:
        return records.arrays()
    if method in ("attack", "lbfgs"):
        _attack(chunk, records, index, LBFGS() if method == "lbfgs" else attack, seed)
        return records.arrays()
    graph = reading.graph
    ends = {"precision": precision, "timeout": timeout, "seed": seed}
    if graph is None:
        measure_trees(chunk, records, index, reading.encoding, **ends)
        return records.arrays()
    if method == "lp":
        _in_batches(_by_programs, chunk, records, index, graph, **options)
    if method in ("polished", "bracket", "exact"):
        attack = _thorough() if attack is None else attack
        _attack(chunk, records, index, attack, seed)
        _in_batches(_start, chunk, records, index, graph, **options)
        _in_batches(_polish, chunk, records, index, graph, **options)
        before = records.radius.copy()
        _attack(chunk, records, index, LBFGS(), seed)
        closer = index[records.radius[index] < before[index]]
        _in_batches(_polish, chunk, records, closer, graph, **options)
    if method in ("certified", "bracket", "exact"):
        is_radius = method == "certified"
        _in_batches(_certify, chunk, records, index, graph, is_radius=is_radius)
        if is_radius:  # nothing is proven where that failed
            records.radius[index] = records.lower[index]
    if method == "exact":
        for i in index:
            at = np.array([i])
            _in_batches(
                _close, chunk, records, at, graph, encoding=reading.encoding, **ends, **options
            )
    return records.arrays()


def _thorough():
    """Return the attack that polishing starts from, which costs little beside its programs."""
    return Ensemble([("linear", LinearBoundary()), ("fmn", FastMinimumNorm(random_starts=1))])


# What goes wrong with numbers, as torch and NumPy say it. Other mistakes, as a RuntimeError of
# torch about shapes in a user's attack, are raised.
_NUMERICAL = (ArithmeticError, np.linalg.LinAlgError, torch.linalg.LinAlgError)


def _in_batches(search, chunk, records, index, graph, **options):
    """Run a search on as many samples as memory allows; what goes wrong on one stays there."""
    size = max(1, _NUMBERS // sum(node.size for node in graph.nodes))
    for start in range(0, len(index), size):
        part = index[start : start + size]
        try:
            search(chunk, records, part, graph, **options)
        except _NUMERICAL:
            if len(part) > 1:
                for i in part:
                    _in_batches(search, chunk, records, np.array([i]), graph, **options)
            else:
                _fail(records, part)


def _fail(records, index):
    """Record a failure where nothing is known, or only the optimum of some of the targets."""
    is_optimum = records.status[index] == PointwiseStatus.OPTIMAL
    is_unknown = is_optimum | ~np.isfinite(records.radius[index])
    records.status[index[is_unknown]] = PointwiseStatus.FAILURE


def _attack(chunk, records, index, attack, seed):
    """Record the closest points that an attack finds; an error on one sample stays there."""
    if len(index) == 0:
        return
    attack = Ensemble() if attack is None else attack
    try:
        _closest(chunk, records, index, attack, seed)
    except _NUMERICAL as error:
        if len(index) > 1:
            for i in index:
                _attack(chunk, records, np.array([i]), attack, seed)
            return
        _fail(records, index)
        warnings.warn(
            f"{type(attack).__name__} failed on a sample, which has no result of it: "
            f"{type(error).__name__}: {error}",
            AttackWarning,
            stacklevel=2,
        )


def _closest(chunk, records, index, attack, seed):
    start = time.perf_counter()
    generator = torch.Generator(chunk.x.device).manual_seed(seed)
    epsilon = float(chunk.reach(index).max())
    x = chunk.x[index]
    target = Target(chunk.network, chunk.property(epsilon), x, chunk.labels[index])
    outcome = attack.closest(target, generator=generator)
    broken = outcome.broken.nonzero().squeeze(1).cpu().numpy()
    keep_near(chunk, records, index[broken], outcome.points[broken])
    records.seconds[index] += (time.perf_counter() - start) / len(index)


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
    optimal = PointwiseStatus.OPTIMAL
    ends, bounds = _in_own_regions(chunk, records, index, graph, optimal, **options)
    records.status[index[(ends == "").all(axis=1)]] = PointwiseStatus.OWN
    for reason in reversed(_REASONS):
        is_missing = ends == reason
        if reason.is_unresolved:  # and closer, perhaps, than what other targets gave
            is_missing &= bounds < _NEARLY * records.radius[index][:, None]
        else:
            is_missing &= np.isinf(records.radius[index])[:, None]
        records.status[index[is_missing.any(axis=1)]] = reason


def _in_own_regions(chunk, records, index, graph, status, *, targets, **options):
    """Solve the programs in the regions of the samples.

    Returns
    -------
    ends : ndarray of str, shape (n, n_targets)
        `PointwiseStatus`: how those of each sample ended; empty where there was none to solve.
    bounds : ndarray of shape (n, n_targets)
        Lower bounds of the optima.
    """
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
    return ends, bounds


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

    def try_points(k, points):
        keep_confirmed(chunk, records, index[k], points, status)

    programs = SOLVERS[solver](
        region,
        chunk.exact[index].numpy(),
        targets,
        chunk.low[index],
        chunk.high[index],
        margin,
        chunk.labels[index].cpu().numpy(),
        max_rows,
        # An optimum is one of the region itself; elsewhere, any example is welcome.
        None if status is PointwiseStatus.OPTIMAL else try_points,
    )
    solutions = programs.solve(limit)
    optimal = np.flatnonzero(solutions.status == "optimal")
    if status is PointwiseStatus.OPTIMAL:
        at, optima = index[optimal], solutions.radius[optimal]
        records.optimum[at] = np.fmin(records.optimum[at], optima)
    open_index = optimal
    if margin > 0:
        points = solutions.points[optimal]
        open_index = optimal[~keep_confirmed(chunk, records, index[optimal], points, status)]
    nudged = _nudged(chunk, records, index, programs, open_index, limit, margin, status)
    open_index, seconds = nudged[0], solutions.seconds + nudged[1]
    points = solutions.points[open_index]
    open_index = open_index[~keep_near(chunk, records, index[open_index], points, status)]
    ends = np.array([_ENDS.get(end, status) for end in solutions.status], records.status.dtype)
    ends[open_index] = PointwiseStatus.UNCONFIRMED
    is_at_limit = solutions.radius >= limit * _NEARLY
    ends[open_index[is_at_limit[open_index]]] = PointwiseStatus.ABOVE
    shared = time.perf_counter() - start - seconds.sum()
    records.seconds[index] += seconds + max(0.0, shared) / len(index)
    return ends, solutions.radius


def _nudged(chunk, records, index, programs, open_index, limit, margin, status):
    """Ask programs for a little more: on the boundary two labels tie, and rounding decides.

    Returns
    -------
    open_index : ndarray of int
        The programs of which nothing is confirmed.
    seconds : ndarray of shape (n,)
    """
    is_open, is_solved = np.zeros((2, len(index)), dtype=bool)
    is_open[open_index] = is_solved[open_index] = True
    margins, seconds = np.zeros(len(index)), np.zeros(len(index))
    for extra in larger_margins(chunk.scale[index]):
        at = np.flatnonzero(is_open & is_solved & (extra > margins))
        if len(at) == 0:
            continue
        margins[at] = extra[at]
        programs.tighten(margin + extra[at], at)
        solutions = programs.solve(limit[at], at)
        seconds[at] += solutions.seconds
        # Without a solution there is none for larger margins either.
        solved = solutions.status == "optimal"
        is_solved[at[~solved]] = False
        points, at = solutions.points[solved], at[solved]
        is_open[at] = ~keep_confirmed(chunk, records, index[at], points, status)
    return np.flatnonzero(is_open), seconds


def _start(chunk, records, index, graph, **options):
    """The linear programs in the regions of the samples, where the attack may have been closer."""
    ends, _ = _in_own_regions(chunk, records, index, graph, PointwiseStatus.FOUND, **options)
    for reason in reversed(_REASONS):
        if reason.is_unresolved:  # what else is found later takes its place
            which = (ends == reason).any(axis=1) & np.isinf(records.radius[index])
            records.status[index[which]] = reason


def _polish(chunk, records, index, graph, *, margin, targets, max_rows, **options):
    """Solve in the regions of ever closer adversarial examples, while that helps."""
    options["max_rows"] = min(max_rows, _POLISHING_ROWS)
    improved = index[np.isfinite(records.radius[index])]
    for _ in range(_MAX_ROUNDS):
        if len(improved) == 0:
            return
        before = records.radius[improved].copy()
        points = torch.as_tensor(records.adversarial_examples[improved]).to(chunk.x.device)
        wins, _ = chunk.rivals(improved, points)
        direction = chunk.exact[improved].to(points.device) - points.double()
        region = linear_region(graph, points, direction=direction)
        status = PointwiseStatus.FOUND
        _solve(chunk, records, improved, region, wins, status, margin=0.0, **options)
        improved = improved[records.radius[improved] <= before * (1 - _GAIN)]


def _close(chunk, records, index, graph, *, encoding, precision, timeout, seed, **options):
    """Close the bracket of one sample by bisection with a complete verifier."""
    start, i = time.perf_counter(), index[0]
    generator = torch.Generator(chunk.x.device).manual_seed(seed)
    limit = float(chunk.reach(index)[0])
    end = None
    while end is None:
        is_found, high = np.isfinite(records.radius[i]), min(limit, records.radius[i])
        # Where nothing is found yet, the whole ball is asked for.
        epsilon = float((records.lower[i] + high) / 2) if is_found else limit
        seconds = timeout - (time.perf_counter() - start)
        if is_found and high - records.lower[i] <= precision:
            end = PointwiseStatus.OPTIMAL
        elif not is_found and records.lower[i] >= limit:
            end = chunk.nothing_within(limit)
        elif seconds <= 0:
            end = PointwiseStatus.TIME_OUT
        else:
            result = Exact().decide(
                replace(encoding, property=chunk.property(epsilon)),
                chunk.x[index],
                chunk.labels[index],
                timeout=seconds if np.isfinite(seconds) else None,
                generator=generator,
            )
            end = _narrow(chunk, records, index, graph, epsilon, result, **options)
    records.status[i], records.bound[i] = end, records.lower[i]
    records.seconds[i] += time.perf_counter() - start


def _narrow(chunk, records, index, graph, epsilon, result, **options):
    """Narrow the bracket of one sample by a verdict; return a status where that ends it."""
    i, before = index[0], records.radius[index[0]]
    if result.verdicts[0] == Verdict.VERIFIED:
        records.lower[i] = epsilon
        return None
    if result.verdicts[0] != Verdict.FALSIFIED:
        is_late = result.reasons[0] == Reason.TIME_OUT
        return PointwiseStatus.TIME_OUT if is_late else PointwiseStatus.UNDECIDED
    points = result.counterexamples
    keep_near(chunk, records, index, points)
    if records.radius[i] > epsilon:
        # What wins lies beyond the ball, so that a tie inside of it is closer.
        keep_confirmed(chunk, records, index, points, PointwiseStatus.FOUND, ties=True)
    _polish(chunk, records, index, graph, **options)
    if not np.isfinite(records.radius[i]):
        return PointwiseStatus.UNCONFIRMED
    # Where rounding hides what is closer, the same would be asked again.
    return PointwiseStatus.UNDECIDED if records.radius[i] >= before else None
