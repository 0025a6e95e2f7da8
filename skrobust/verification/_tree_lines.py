"""Trees along one feature: their outputs are steps, so that one point of each step says all."""

import numpy as np
import torch

from skrobust.attacks import confirm
from skrobust.exceptions import UnsupportedPropertyError
from skrobust.properties import Domain
from skrobust.verification._result import VerificationBuilder

__all__ = ["check_line", "decide_along"]

_ROWS = 2**16  # points that the estimator is asked for at a time


def check_line(property):
    """Refuse monotonicity where other features move as well.

    Raises
    ------
    UnsupportedPropertyError
    """
    if np.any(np.concatenate([np.ravel(side) for side in np.atleast_1d(property.epsilon)])):
        raise UnsupportedPropertyError(
            f"Got Monotonicity with epsilon={property.epsilon!r}, but TreeVerifier treats "
            "epsilon=0: along one feature the outputs of trees are steps, one after the other. "
            "Use epsilon=0, or look for counterexamples by ConstraintSecurity(property, "
            "UniformSampling())."
        )


def decide_along(encoding, x, labels=None, *, timeout=None, generator=None):
    """Decide `Monotonicity` of trees at one point of each step; see `Verifier.decide`.

    Between two thresholds of a feature, the estimator itself computes the same outputs. So its
    own outputs at one point of each step decide, exactly.
    """
    x = x.double()
    verdicts, trees = VerificationBuilder(x), encoding.graph
    property = encoding.property
    place = property.place(x.shape[1])
    high = float(np.broadcast_to(property.box(x.shape[1])[1], x.shape[1])[place])
    steps = np.unique(np.nextafter(trees.last[trees.feature == place], np.inf))
    if isinstance(property.bounds, Domain) and place in property.bounds.integer_places:
        steps = np.unique(np.ceil(steps))
    target = encoding.target(x, labels)
    for i in range(len(x)):
        start = float(x[i, place])
        line = steps[(steps > start) & (steps <= high)]
        broken = _first_broken(target, i, place, np.r_[start, line])
        if broken is None:
            verdicts.prove([i])
        else:
            verdicts.falsify([i], broken[None])
    return verdicts.result()


def _first_broken(target, i, place, values):
    """Return the first point along a line that breaks the property, or None."""
    for part in np.array_split(values, range(_ROWS, len(values), _ROWS)):
        whole = torch.full((len(part),), i, dtype=torch.int64)
        points = target.x[whole].clone()
        points[:, place] = torch.as_tensor(part)
        outcome = confirm(target[whole], points, project=False)
        if outcome.broken.any():
            return outcome.points[outcome.broken][0]
    return None
