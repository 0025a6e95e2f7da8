"""By how much outputs change: the quantitative form of global robustness."""

from dataclasses import dataclass, replace

import numpy as np
import torch

from skrobust.attacks import Target
from skrobust.bounds import NUMBERS_AT_ONCE, bound_rows
from skrobust.properties import ClassificationRobustness, LinearRows
from skrobust.scorers._base import ScoreResult, as_tensors
from skrobust.statistics import Interval

__all__ = [
    "QuantitativeRobustnessResult",
    "bounded_change",
    "change",
    "change_scores",
    "mean_change",
    "same_label",
]


@dataclass(frozen=True, eq=False, repr=False)
class QuantitativeRobustnessResult(ScoreResult):
    """What `GlobalRobustness.evaluate` returns with ``quantitative="linf-probabilities"``.

    Parameters
    ----------
    score : float
        One minus the mean of the largest changes; with a threshold, the share of samples whose
        largest change is at most the threshold.
    interval : Interval
        Of the score; where `side` is "both", from the low end of `lower_interval` to the high
        end of `upper_interval`.
    side : {"upper", "both"}
        Which side of the global robustness the score estimates. An attack gives the changes
        from below, and so the score from above. With a verifier there are both, and the score
        is the lower one.
    lower, upper : float
        Scores by the changes from above and from below; 0 where there is no `lower`. With
        "sequential" and "anytime" each side stops at its own time, and its score counts the
        samples up to that stop; `n_used` is the later one.
    lower_interval, upper_interval : Interval or None
        Of these scores.
    tolerance : float
        Largest half-width of the intervals; with "hoeffding" and "sequential" before they are
        cut to [0, 1].
    n_used : int
        Samples looked at.
    index : ndarray of int, shape (n_used,)
        Their rows in `X`, in the order of the draw.
    mean_change : float
        D of the paper, one minus the score: the mean of the largest changes; with a threshold, the
        share of samples whose largest change is above it. Small is robust. Where `side` is
        "upper" it is estimated from below, else from above.
    mean_change_interval : Interval
        Of D.
    changes : ndarray of shape (n_used,)
        Largest change of a probability in the ball that was found.
    change_bounds : ndarray of shape (n_used,)
        Proved upper bounds of the change; 1 where there is no verifier.
    """

    side: str
    lower: float
    upper: float
    lower_interval: Interval | None
    upper_interval: Interval | None
    tolerance: float
    n_used: int
    index: np.ndarray
    mean_change: float
    mean_change_interval: Interval
    changes: np.ndarray
    change_bounds: np.ndarray


def same_label(property):
    """Return classification robustness in the balls of another property."""
    ball = {name: getattr(property, name) for name in ("epsilon", "norm", "bounds")}
    return ClassificationRobustness(reference="prediction", **ball)


def change(model, rows, labels, seed, *, property, attack):
    """Return the largest change of a probability that two descents find."""
    x, _, generator = as_tensors(model, rows, None, seed)
    before = _probabilities(model, x)
    changes = torch.zeros(len(x), dtype=torch.float64, device=x.device)
    # The change itself has hardly a gradient where the softmax is saturated; there, a change of
    # the label is what to look for.
    for aim in (property, same_label(property)):
        points = attack.points(Target(model, aim, x), generator=generator)
        moved = (_probabilities(model, points) - before).abs().amax(dim=1)
        changes = torch.maximum(changes, moved)
    return {"changes": changes.cpu().numpy(), "change_bounds": np.ones(len(rows))}


def _probabilities(model, x):
    return torch.softmax(model.replay(x).double(), dim=1)


def bounded_change(state, rows, labels, seed, *, property, attack, bounds):
    """Add proved bounds of the change to what is found."""
    model = state.network
    reached = change(model, rows, None, seed, property=property, attack=attack)
    x = model.rows(rows)
    n_classes = state.graph.n_classes
    size = n_classes**2 * max(node.size for node in state.graph.nodes)
    parts = x.split(max(1, NUMBERS_AT_ONCE // size))
    reach = [_probability_bounds(state, part, bounds) for part in parts]
    least, most = (torch.cat(side) for side in zip(*reach, strict=True))
    before = _probabilities(model, x)
    moved = torch.maximum(most - before, before - least).amax(dim=1).cpu().numpy()
    # The slack is for the rounding of the network's own outputs, and of the softmax.
    moved = np.minimum(np.maximum(moved + 1e-6, reached["changes"]), 1.0)
    return reached | {"change_bounds": moved}


def _probability_bounds(state, x, bounds):
    """Return proved lower and upper bounds of each probability in the balls, (n, n_classes).

    From lower bounds of all differences of two logits: p_j = 1 / sum_k exp(z_k - z_j).
    """
    n_classes = state.graph.n_classes
    first, second = (~torch.eye(n_classes, dtype=torch.bool, device=x.device)).nonzero(
        as_tuple=True
    )
    unit = torch.eye(n_classes, dtype=torch.float64, device=x.device)
    A = (unit[first] - unit[second]).expand(len(x), -1, -1)
    zero = A.new_zeros(A.shape[:2])
    rows = LinearRows(A, zero, zero, False, uses_distance=False)
    ball = state.property.outer_ball(x)
    with torch.no_grad():
        lower = bound_rows(state.graph, ball, rows, bounds.method, n_steps=bounds.n_steps)
    gaps = A.new_zeros((len(x), n_classes, n_classes))
    gaps[:, first, second] = torch.nan_to_num(lower, nan=-torch.inf)
    return torch.exp(-torch.logsumexp(-gaps, dim=2)), torch.exp(-torch.logsumexp(gaps, dim=1))


def change_scores(arrays, threshold, proves):
    """Return, for each side, the score of each sample in [0, 1]."""
    sides = {"lower": arrays["change_bounds"]} if proves else {}
    sides["upper"] = arrays["changes"]
    if threshold is None:
        return {side: 1 - changes for side, changes in sides.items()}
    return {side: changes <= threshold for side, changes in sides.items()}


def mean_change(score, interval):
    """Return D, one minus the score, and its interval, as fields of the result."""
    turned = replace(interval, low=1 - interval.high, high=1 - interval.low)
    return {"mean_change": 1 - score, "mean_change_interval": turned}
