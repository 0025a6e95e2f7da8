"""The closest point with another label of trees and ensembles, by verified balls."""

import time
from dataclasses import replace

import numpy as np
import torch

from skrobust._validation import kind_of
from skrobust.exceptions import UnsupportedModelError
from skrobust.networks import BlackBox, as_network
from skrobust.pointwise._result import PointwiseStatus
from skrobust.properties import ClassificationRobustness
from skrobust.trees import is_tree_model
from skrobust.verification import Reason, TreeVerifier, Verdict

__all__ = ["encode_trees", "measure_trees", "model_of"]


def model_of(estimator, method, input_shape):
    """Return an estimator as a network, or as a `BlackBox` where it is one of trees.

    Raises
    ------
    UnsupportedModelError
        If it is neither, or one of trees and the method another than "exact".
    """
    if not is_tree_model(estimator):
        return as_network(estimator, input_shape=input_shape)
    if method != "exact":
        raise UnsupportedModelError(
            f"Got {kind_of(estimator)} and method={method!r}, but expected 'exact': trees have "
            "steps, no linear regions or gradients."
        )
    return BlackBox(estimator)


def encode_trees(network, n_features, bounds):
    """Return what `measure_trees` asks the verifier about."""
    return TreeVerifier().encode(network, ClassificationRobustness(bounds=bounds), n_features)


def measure_trees(chunk, records, index, encoding, *, precision, timeout, seed):
    """Find the closest point with another label of each sample.

    A ball without one is a proof. In one with one, the point moves to the nearest place of the
    cell in which all trees are constant; then a smaller ball is asked about. Once the bracket is
    within the precision, the ball is the one that just leaves out what was found.
    """
    for i in index:
        start = time.perf_counter()
        generator = torch.Generator().manual_seed(seed)
        limit, end = float(chunk.reach(np.array([i]))[0]), None
        while end is None:
            epsilon = _next_epsilon(records.lower[i], min(records.radius[i], limit), precision)
            if np.isinf(records.radius[i]):  # the whole ball first
                epsilon = limit
            left = timeout - (time.perf_counter() - start)
            if left <= 0:
                end = PointwiseStatus.TIME_OUT
                break
            result = TreeVerifier().decide(
                replace(encoding, property=chunk.property(epsilon)),
                chunk.x[[i]],
                chunk.labels[[i]],
                timeout=left if np.isfinite(left) else None,
                generator=generator,
            )
            end = _narrow(chunk, records, i, encoding.graph, epsilon, limit, result)
        records.status[i], records.bound[i] = end, records.lower[i]
        records.seconds[i] += time.perf_counter() - start


def _next_epsilon(low, high, precision):
    return (low + high) / 2 if high - low > precision else float(np.nextafter(high, 0.0))


def _narrow(chunk, records, i, trees, epsilon, limit, result):
    """Narrow the bracket of a sample by a verdict; return a status where that ends it."""
    if result.verdicts[0] == Verdict.VERIFIED:
        records.lower[i] = epsilon
        if np.isinf(records.radius[i]):
            return chunk.nothing_within(limit)
        if epsilon < np.nextafter(records.radius[i], 0.0):
            return None
        records.lower[i] = records.radius[i]  # nothing is closer than what was found
        return PointwiseStatus.OPTIMAL
    if result.verdicts[0] != Verdict.FALSIFIED:
        is_late = result.reasons[0] == Reason.TIME_OUT
        return PointwiseStatus.TIME_OUT if is_late else PointwiseStatus.UNDECIDED
    center, before = chunk.exact[i].numpy(), records.radius[i]
    point = result.counterexamples[0].astype(np.float64)
    for near in (_nearest_in_cell(trees, point, center, chunk.low[i], chunk.high[i]), point):
        _keep(chunk, records, i, near)
    # What the rounding of the distance hides would be found for ever.
    return None if records.radius[i] < before else PointwiseStatus.OPTIMAL


def _nearest_in_cell(trees, point, center, low, high):
    lower, upper = trees.cell(point)
    return np.clip(np.clip(center, lower, upper), low, high)


def _keep(chunk, records, i, point):
    """Record a point to which the estimator gives another label, if it is the closest so far."""
    at = np.array([i])
    _, lead = chunk.rivals(at, torch.as_tensor(point[None]))
    if lead[0] > 0:
        distance = chunk.length(point - chunk.exact[i].numpy())
        records.keep(at, point[None], np.array([distance]), PointwiseStatus.FOUND)
