"""The distance from each sample to the closest input with another label."""

import time
from collections import Counter
from dataclasses import dataclass, fields
from enum import StrEnum
from functools import partial

import numpy as np
import torch

from skrobust._ball import Ball
from skrobust._evaluation import evaluate_in_chunks
from skrobust._validation import (
    check_bounds,
    check_choice,
    check_instance,
    check_integer,
    check_real,
    check_within_bounds,
    expected,
)
from skrobust.attacks import LBFGS, Attack, Ensemble
from skrobust.exceptions import UnsupportedModelError
from skrobust.networks import as_network
from skrobust.networks._piecewise_linear import piecewise_linear
from skrobust.pointwise._certified import certified_radius
from skrobust.pointwise._linear_program import LazyProgram, closest_by_cvxpy
from skrobust.pointwise._linear_region import linear_region
from skrobust.properties import ClassificationRobustness

__all__ = ["PointwiseResult", "PointwiseStatus", "pointwise_robustness"]

_METHODS = ("lp", "polished", "attack", "lbfgs", "certified", "exact", "bracket")
# Tried in turn, relative to the largest logit. In float32 the first is some 25 units in the last
# place: outputs change by a few when a point is computed within another batch.
_MARGINS = (3e-6, 1e-5, 1e-4, 1e-3)
_MAX_ROUNDS = 20  # of polishing
_GAIN = 1e-4  # relative; less is not worth another round
_FAR = 1e30  # no bound on the distance; infinity has no nearest float below


class PointwiseStatus(StrEnum):
    """How the search for one sample ended; `advice` says what that means."""

    OPTIMAL = "optimal"
    FOUND = "found"
    CERTIFIED = "certified"
    MISCLASSIFIED = "already misclassified"
    ABOVE = "above epsilon_max"
    INFEASIBLE = "infeasible region"
    NOT_FOUND = "not found"
    UNCONFIRMED = "unconfirmed"
    ROWS = "row limit"
    FAILURE = "numerical failure"

    @property
    def advice(self):
        """What the status says about the sample, and what to try."""
        return _ADVICE[self]


_ADVICE = {
    PointwiseStatus.OPTIMAL: "The optimum of the linear program over the region of the sample.",
    PointwiseStatus.FOUND: "An upper bound: a closer adversarial example may exist.",
    PointwiseStatus.CERTIFIED: "A lower bound: no closer adversarial example exists.",
    PointwiseStatus.MISCLASSIFIED: "The label given differs from the prediction: radius 0.",
    PointwiseStatus.ABOVE: (
        "The lower bound of what the method can find has passed epsilon_max. For radii beyond, "
        "raise epsilon_max."
    ),
    PointwiseStatus.INFEASIBLE: (
        "No point of the sample's linear region has the target label. Try targets='all' or "
        "method='polished'."
    ),
    PointwiseStatus.NOT_FOUND: (
        "The attack found nothing, which proves nothing. Try method='polished' or 'certified'."
    ),
    PointwiseStatus.UNCONFIRMED: (
        "The program has a solution, its `optimum`, but the network in its own precision gives "
        "no point near it another label. Try a larger margin."
    ),
    PointwiseStatus.ROWS: (
        "The program needs more half-spaces than max_rows; its optimum is at least `bound`. "
        "Raise max_rows, or set epsilon_max."
    ),
    PointwiseStatus.FAILURE: (
        "The solver failed on this sample. Try solver='cvxpy', or scaled inputs."
    ),
}


_ENDS = {
    "infeasible": PointwiseStatus.INFEASIBLE,
    "limit": PointwiseStatus.ABOVE,
    "rows": PointwiseStatus.ROWS,
    "failure": PointwiseStatus.FAILURE,
}


@dataclass(frozen=True, eq=False, repr=False)
class PointwiseResult:
    """What `pointwise_robustness` returns: one entry for each sample.

    Parameters
    ----------
    radius : ndarray of shape (n_samples,)
        L-infinity distance of the adversarial example; inf where none was found. For
        ``method="certified"``, the proven lower bound. A finite radius of any other method
        always belongs to a point that was seen to have another label.
    adversarial_examples : ndarray of shape (n_samples, n_features)
        Confirmed by the estimator in its own precision; NaN where none.
    status : ndarray of str, shape (n_samples,)
        Values of `PointwiseStatus`, whose `advice` explains them.
    lower, upper : ndarray of shape (n_samples,)
        What is proven and what was found: 0 and inf where a method says nothing.
    optimum : ndarray of shape (n_samples,)
        Optimal value of the linear program itself, in exact arithmetic; the radius is larger
        by what the confirmation needs. NaN where no program was solved to its end.
    bound : ndarray of shape (n_samples,)
        Proven lower bound of that optimum, also where the program stopped early; inf where it
        has no solution, 0 where nothing is known. It says nothing about other regions.
    seconds : ndarray of shape (n_samples,)
        Wall-clock time; what is computed in batches is shared out evenly.
    method : str
    """

    radius: np.ndarray
    adversarial_examples: np.ndarray
    status: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    optimum: np.ndarray
    bound: np.ndarray
    seconds: np.ndarray
    method: str

    def to_frame(self):
        """Return the arrays with one entry a sample as a pandas DataFrame."""
        import pandas as pd

        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return pd.DataFrame(
            {name: v for name, v in values.items() if isinstance(v, np.ndarray) and v.ndim == 1}
        )

    def __repr__(self):
        counts = ", ".join(f"{n} {s}" for s, n in Counter(self.status.tolist()).most_common())
        finite = self.radius[np.isfinite(self.radius)]
        median = f"{np.median(finite):.4g}" if len(finite) else "none"
        return (
            f"PointwiseResult(method={self.method!r}, n_samples={len(self.radius)}, "
            f"median finite radius {median}; {counts})"
        )


def pointwise_robustness(
    estimator,
    X,
    *,
    y=None,
    method="lp",
    solver="lazy",
    epsilon_max=None,
    targets="runner-up",
    bounds=(0.0, 1.0),
    margin=0.0,
    max_rows=100,
    attack=None,
    chunk_size=64,
    random_state=None,
    n_jobs=None,
    memory=None,
    verbose=0,
):
    """Measure the L-infinity distance from each sample to the closest other label.

    Parameters
    ----------
    estimator : object
        Fitted classifier, of a kind that `skrobust.networks.as_network` supports.
    X : array-like of shape (n_samples, n_features) or (n_samples, *input_shape)
        In the raw input space of the estimator.
    y : array-like of shape (n_samples,), default=None
        Labels. A sample that is predicted otherwise has radius 0. None is the network's own
        prediction.
    method : str, default="lp"
        - "lp": the exact optimum over the points of the sample's linear region [1]_.
        - "attack": the closest point that `attack` finds, pulled to the boundary.
        - "lbfgs": the baseline of [1]_, after Szegedy et al.
        - "polished": from the best point of "attack" and "lp", the linear program in that
          point's region, repeated while it improves. Never larger than "attack" or than "lp"
          with the same parameters.
        - "certified": a lower bound, by CROWN on interval bounds. Proven for the network in
          exact arithmetic.
        - "bracket": "certified" as `lower`, "polished" as `upper` and `radius`.
        - "exact": not available yet; raises UnsupportedModelError.
    solver : {"lazy", "cvxpy"}, default="lazy"
        "lazy" adds half-spaces of the region as they are violated. "cvxpy" states the program
        with a variable for every unit, as section 3.3 of [1]_ does: for teaching and checking.
    epsilon_max : float or None, default=None
        Stop as soon as the lower bound passes it; nothing beyond is reported.
    targets : {"runner-up", "all"} or label, default="runner-up"
        Labels that are to win in "lp": the second best at the sample, as in [1]_, every other
        one, or this one.
    bounds : pair of floats or of array-likes, or None, default=(0.0, 1.0)
        Valid domain of the inputs.
    margin : float, default=0.0
        By how much the target's score must at least exceed the others, in "lp".
    max_rows : int or None, default=100
        Half-spaces of one linear program from where on it is given up: some regions of large
        networks need thousands, at seconds to minutes each. Status "row limit" tells where;
        "polished" then keeps the best point so far. None sets no limit.
    attack : Attack or None, default=None
        For "attack", "polished" and "bracket"; None is ``Ensemble()``.
    chunk_size : int, default=64
        Samples of one job.
    random_state : int, RandomState instance or None, default=None
        For attacks with random starts.
    n_jobs : int or None, default=None
        Chunks evaluated at a time, by joblib.
    memory : None, str or joblib.Memory, default=None
        Keeps the result of each chunk (with an int as `random_state`).
    verbose : int, default=0
        joblib's progress messages.

    Returns
    -------
    PointwiseResult

    Raises
    ------
    UnsupportedModelError
        If the estimator is not piecewise linear and the method needs that.
    ValueError
        If an argument is not valid, or rows of `X` lie outside `bounds`.

    References
    ----------
    .. [1] Bastani et al., "Measuring neural net robustness with constraints", NeurIPS 2016.

    Examples
    --------
    The boundary of this classifier is x1 + x2 = 1, so that (0.2, 0.2) is 0.3 away from it:

    >>> import torch
    >>> from skrobust import TorchClassifier
    >>> from skrobust.pointwise import pointwise_robustness
    >>> module = torch.nn.Linear(2, 2)
    >>> module.weight.data = torch.tensor([[0.0, 0.0], [1.0, 1.0]])
    >>> module.bias.data = torch.tensor([0.0, -1.0])
    >>> model = TorchClassifier(module, ["in", "out"])
    >>> pointwise_robustness(model, [[0.2, 0.2]]).radius.round(4)
    array([0.3])
    """
    check_choice("method", method, _METHODS)
    check_choice("solver", solver, ("lazy", "cvxpy"))
    check_real("margin", margin, low=0)
    if epsilon_max is not None:
        check_real("epsilon_max", epsilon_max, low=0, closed="neither")
    if attack is not None:
        check_instance("attack", attack, Attack, "Ensemble()").check()
    check_integer("chunk_size", chunk_size, low=1)
    if max_rows is not None:
        check_integer("max_rows", max_rows, low=1)
    network = as_network(estimator, input_shape=np.shape(X)[1:])
    rows = network.check_rows(X)
    bounds = check_bounds(bounds, rows.shape[1])
    check_within_bounds(rows, bounds)
    if bounds is None and epsilon_max is None and method != "lp":
        raise ValueError(
            f"Got bounds=None and epsilon_max=None, but expected one of them: method={method!r} "
            "needs to know how far to search."
        )
    labels = None if y is None else network.encode(y).cpu().numpy()
    if labels is not None and len(labels) != len(rows):
        raise ValueError(f"Got y of length {len(labels)}, but expected {len(rows)}.")
    if method == "exact":
        raise UnsupportedModelError(
            "Got method='exact', which no network here can be treated with yet. Use "
            "method='bracket' for bounds from both sides."
        )
    if method not in ("attack", "lbfgs"):
        piecewise_linear(network, rows.shape[1])  # refuses before any work
    measure = partial(
        _measure,
        method=method,
        solver=solver,
        epsilon_max=np.inf if epsilon_max is None else float(epsilon_max),
        targets=_checked_targets(targets, network),
        bounds=bounds,
        margin=float(margin),
        max_rows=np.inf if max_rows is None else max_rows,
        attack=attack,
    )
    found = evaluate_in_chunks(
        measure,
        network,
        rows,
        labels,
        fingerprint=network.fingerprint,
        chunk_size=chunk_size,
        random_state=random_state,
        n_jobs=n_jobs,
        memory=memory,
        verbose=verbose,
    )
    return PointwiseResult(**found, method=method)


def _checked_targets(targets, network):
    """Return "runner-up", "all" or the index of a class."""
    if isinstance(targets, str) and targets in ("runner-up", "all"):
        return targets
    classes = network.classes
    if np.ndim(targets) == 0:
        place = np.flatnonzero([label == targets for label in classes.tolist()])
        if len(place):
            return int(place[0])
    choices = f"'runner-up', 'all', or one of the classes {classes.tolist()}"
    raise ValueError(expected("targets", targets, choices))


# ---- one chunk ---------------------------------------------------------------------------


class _Records:
    """Arrays of a result, filled sample by sample."""

    def __init__(self, n, n_features, dtype):
        self.radius = np.full(n, np.inf)
        self.adversarial_examples = np.full((n, n_features), np.nan, dtype=dtype)
        self.status = np.full(n, PointwiseStatus.NOT_FOUND, dtype="<U24")
        self.lower, self.upper = np.zeros(n), np.full(n, np.inf)
        self.optimum, self.bound = np.full(n, np.nan), np.zeros(n)
        self.seconds = np.zeros(n)

    def keep(self, i, point, radius, status):
        """Record an adversarial example if it is the closest so far."""
        if radius < self.radius[i]:
            self.radius[i] = self.upper[i] = radius
            self.adversarial_examples[i] = point
            self.status[i] = status

    def arrays(self):
        return dict(vars(self))


class _Chunk:
    """What the methods need to know about the samples of one chunk."""

    def __init__(self, network, rows, labels, bounds, epsilon_max):
        self.network, self.bounds, self.epsilon_max = network, bounds, epsilon_max
        self.x = network.rows(rows)
        self.exact = self.x.double().cpu()
        predicted = network.replay(self.x).argmax(dim=1)
        self.labels = predicted if labels is None else torch.as_tensor(labels).to(predicted)
        self.is_wrong = (predicted != self.labels).cpu().numpy()
        shape = self.exact.shape[1:]
        low, high = (-np.inf, np.inf) if bounds is None else bounds
        # Rounding the data to float32 may leave the domain: it is widened by as much.
        self.low = np.minimum(np.broadcast_to(low, shape), self.exact.numpy().min(axis=0))
        self.high = np.maximum(np.broadcast_to(high, shape), self.exact.numpy().max(axis=0))

    def domain(self, i):
        center = self.exact[i].numpy()
        low, high = (-np.inf, np.inf) if self.bounds is None else self.bounds
        return np.minimum(low, center), np.maximum(high, center)

    def reach(self):
        """Return the largest possible distance within domain and epsilon_max, as a float."""
        low, high = self.low, self.high
        across = np.max(np.maximum(self.exact.numpy() - low, high - self.exact.numpy()))
        return float(min(across, self.epsilon_max))

    def settle(self, i, point):
        """Return `point` in the network's precision inside the domain, and its distance."""
        center = self.x[i : i + 1]
        point = torch.as_tensor(point, dtype=torch.float64).to(center.device).reshape(1, -1)
        everything = Ball.around(center, _FAR, "linf", self.bounds)
        settled = everything.project(point.to(center.dtype))
        return settled, (settled.double() - center.double()).abs().max().item()

    def label_of(self, settled):
        """Return the label that wins at a point by the estimator itself, or None for a tie."""
        logits = self.network.replay(settled.to(self.x.device))[0]
        best = logits.argmax()
        others = torch.cat([logits[:best], logits[best + 1 :]])
        return None if (others >= logits[best]).any() else int(best)


def _measure(network, rows, labels, seed, *, method, attack, epsilon_max, bounds, **options):
    chunk = _Chunk(network, rows, labels, bounds, epsilon_max)
    records = _Records(*chunk.exact.shape, chunk.x.cpu().numpy().dtype)
    for i in np.flatnonzero(chunk.is_wrong):
        records.keep(i, chunk.x[i].cpu().numpy(), 0.0, PointwiseStatus.MISCLASSIFIED)
    index = np.flatnonzero(~chunk.is_wrong)
    if len(index) == 0:
        return records.arrays()
    if method in ("attack", "lbfgs"):
        _attack(chunk, records, index, LBFGS() if method == "lbfgs" else attack, seed)
        return records.arrays()
    graph = piecewise_linear(network, rows.shape[1])
    if method == "lp":
        _each(_by_program, chunk, records, index, graph, **options)
    if method in ("polished", "bracket"):
        _attack(chunk, records, index, attack, seed)
        _each(_polish, chunk, records, index, graph, **options)
    if method in ("certified", "bracket"):
        _certify(chunk, records, index, graph, is_radius=method == "certified")
    return records.arrays()


def _each(search, chunk, records, index, graph, **options):
    """Run a search on each sample; what goes wrong on one stays there."""
    for i in index:
        start = time.perf_counter()
        try:
            search(chunk, records, i, graph, **options)
        except (ArithmeticError, RuntimeError, ValueError, np.linalg.LinAlgError):
            if not np.isfinite(records.radius[i]):
                records.status[i] = PointwiseStatus.FAILURE
        records.seconds[i] += time.perf_counter() - start


def _attack(chunk, records, index, attack, seed):
    """Record the closest points that an attack finds."""
    start = time.perf_counter()
    attack = Ensemble() if attack is None else attack
    generator = torch.Generator(chunk.x.device).manual_seed(seed)
    property = ClassificationRobustness(chunk.reach(), bounds=chunk.bounds)
    outcome = attack.closest(
        chunk.network, property, chunk.x[index], chunk.labels[index], generator=generator
    )
    for k, i in enumerate(index):
        if not outcome.broken[k]:
            continue
        move = outcome.points[k].double() - chunk.x[i].double()
        # A tie breaks the property, but is no other label yet.
        for beyond in (0.0, 1e-6, 1e-5, 1e-4, 1e-3):
            point = chunk.x[i].double() + (1 + beyond) * move
            if _keep_confirmed(chunk, records, i, point, PointwiseStatus.FOUND):
                break
    records.seconds[index] += (time.perf_counter() - start) / len(index)


def _keep_confirmed(chunk, records, i, point, status):
    """Record a point, where the estimator gives it another label; return whether it does."""
    settled, radius = chunk.settle(i, point)
    label = chunk.label_of(settled)
    if label is None or label == int(chunk.labels[i]) or radius > chunk.epsilon_max:
        return False
    records.keep(i, settled[0].cpu().numpy(), radius, status)
    return True


def _certify(chunk, records, index, graph, is_radius):
    start = time.perf_counter()
    limit = np.full(len(index), chunk.reach())
    if not is_radius:
        limit = np.minimum(limit, records.radius[index])
    low, high = torch.as_tensor(chunk.low), torch.as_tensor(chunk.high)
    device = chunk.x.device
    proven = certified_radius(
        graph,
        chunk.exact[index].to(device),
        chunk.labels[index],
        low.to(device),
        high.to(device),
        torch.as_tensor(limit, device=device),
    )
    records.lower[index] = proven.cpu().numpy()
    if is_radius:
        records.radius[index] = records.lower[index]
        records.status[index] = PointwiseStatus.CERTIFIED
    records.seconds[index] += (time.perf_counter() - start) / len(index)


# ---- linear programs ---------------------------------------------------------------------


def _by_program(chunk, records, i, graph, **options):
    """The linear program in the region of the sample itself."""
    ends = _in_own_region(chunk, records, i, graph, PointwiseStatus.OPTIMAL, **options)
    if not np.isfinite(records.radius[i]):
        # The weightiest reason first: a failure hides what the others say.
        for status in (
            PointwiseStatus.FAILURE,
            PointwiseStatus.UNCONFIRMED,
            PointwiseStatus.ROWS,
            PointwiseStatus.ABOVE,
            PointwiseStatus.INFEASIBLE,
        ):
            if status in ends:
                records.status[i] = status
                return


def _in_own_region(chunk, records, i, graph, status, *, targets, **options):
    """Solve the programs in the region of the sample; return how they ended, as a set."""
    x, label = chunk.exact[i], int(chunk.labels[i])
    region = linear_region(graph, x)
    values = region.at_x
    ends, bounds = set(), []
    for target in _target_classes(targets, values[-1][0].numpy(), label):
        end, bound = _solve_one(
            chunk, records, i, region, int(target), status, values=values, **options
        )
        ends.add(end)
        bounds.append(bound)
    if bounds:
        records.bound[i] = min(bounds)
    return ends


def _target_classes(targets, logits, label):
    order = np.argsort(-logits, kind="stable")
    order = order[order != label]
    if targets == "runner-up":
        return order[:1]
    if targets == "all":
        return order
    return [targets] if targets != label else []


def _solve_one(
    chunk, records, i, region, target, status, *, solver, margin, max_rows, values=None
):
    """Solve one program, and confirm what it finds.

    Returns
    -------
    end : PointwiseStatus
        How that ended.
    bound : float
        Lower bound of the optimum.
    """
    center, label = chunk.exact[i].numpy(), int(chunk.labels[i])
    limit = min(chunk.epsilon_max, records.radius[i])
    low, high = (np.broadcast_to(end, center.shape) for end in chunk.domain(i))
    if values is None:
        values = region.values(torch.as_tensor(center).unsqueeze(0))
    if solver == "cvxpy":
        program = partial(closest_by_cvxpy, region, center, target, low, high, label=label)
        solution = program(margin=margin, limit=limit)
    else:
        program = LazyProgram(region, center, target, low, high, margin, label, values, max_rows)
        solution = program.solve(limit)
    if solution.status != "optimal":
        return _ENDS[solution.status], solution.radius
    if status is PointwiseStatus.OPTIMAL:
        records.optimum[i] = np.fmin(records.optimum[i], solution.radius)
    if margin > 0 and _keep_confirmed(chunk, records, i, solution.point, status):
        return status, solution.radius
    # On the boundary two labels tie, and rounding decides: ask for a little more.
    scale = max(1.0, values[-1].abs().max().item())
    for extra in _MARGINS:
        if solver == "cvxpy":
            nudged = program(margin=margin + extra * scale)
        else:
            program.tighten(extra * scale)
            nudged = program.solve(limit)
        if nudged.status != "optimal":
            break
        if _keep_confirmed(chunk, records, i, nudged.point, status):
            return status, solution.radius
    near = status is PointwiseStatus.OPTIMAL and solution.radius >= limit * (1 - 1e-5)
    return PointwiseStatus.ABOVE if near else PointwiseStatus.UNCONFIRMED, solution.radius


def _polish(chunk, records, i, graph, *, margin, targets, **options):
    """Solve in the regions of ever closer adversarial examples, while that helps."""
    status = PointwiseStatus.FOUND
    _in_own_region(chunk, records, i, graph, status, targets=targets, margin=margin, **options)
    x = chunk.exact[i]
    for _ in range(_MAX_ROUNDS):
        before = records.radius[i]
        if not np.isfinite(before):
            return
        point = torch.as_tensor(records.adversarial_examples[i]).double()
        target = chunk.label_of(torch.as_tensor(records.adversarial_examples[i : i + 1]))
        region = linear_region(graph, point, direction=x - point)
        _solve_one(chunk, records, i, region, target, status, margin=0.0, **options)
        if records.radius[i] > before * (1 - _GAIN):
            return
