"""The one confirmation: which candidates break the property in the estimator itself.

An attack, a solver or a search proposes points. None of them counts before it has been put into
the ball and the domain, in the precision of the network, and before the outputs that the
estimator itself computes there have broken the property.
"""

from dataclasses import dataclass

import numpy as np
import torch

from skrobust._validation import expected
from skrobust.attacks._target import Outcome
from skrobust.networks import Model

__all__ = [
    "ConfirmedOutcome",
    "attack_and_confirm",
    "confirm",
    "confirm_beyond",
    "confirm_outcome",
    "steps_beyond",
]

_REPAIR_STEPS = 25
_REPAIR_SIZE = 0.05  # first step, relative to epsilon
_INSIDE = 1 - 1e-9  # scaled L2 norm in float64, up to which a point surely lies in the ball
_BEYOND = (0.0, 1e-6, 1e-5, 1e-4, 1e-3)  # relative to the distance


@dataclass(frozen=True, eq=False)
class ConfirmedOutcome(Outcome):
    """What an attack found and the estimator confirms, for each of n samples.

    Parameters
    ----------
    points : Tensor of shape (n, n_features)
        The point of lowest margin among those compared.
    margins : Tensor of shape (n,)
        Smallest row of the property at that point.
    broken : bool Tensor of shape (n,)
        Whether the property is broken there, in the estimator itself.
    unconfirmed : bool Tensor of shape (n,)
        Samples at which the network has a violation, but the estimator has none.
    """

    unconfirmed: torch.Tensor


def confirm(target, points, *, repair=False, project=True):
    """Tell which candidates break the property in the estimator itself.

    Each candidate is put into the dtype of the network and into its ball and domain, and
    assessed by the outputs as the estimator computes them.

    Parameters
    ----------
    target : Target
        Of n reference points.
    points : Tensor or array-like of shape (n, n_features)
        Candidates in any dtype. Rows that are not finite are none, and never confirmed.
    repair : bool, default=False
        Whether a candidate that breaks nothing is repaired by a short descent from there: what
        a solver returns may miss the violation by its tolerance. A black box has no gradient
        to walk down.
    project : bool, default=True
        Whether points are put into the ball. False is for callers that have seen to it in exact
        arithmetic, since the ball of a `Target` is rounded inwards.

    Returns
    -------
    Outcome
        In the dtype and on the device of ``target.x``. Rows that are no candidates have the
        reference point.

    Examples
    --------
    >>> import torch
    >>> from skrobust.attacks import Target, confirm
    >>> from skrobust.properties import ClassificationRobustness
    >>> network = torch.nn.Linear(1, 2)
    >>> _ = network.load_state_dict(
    ...     {"weight": torch.tensor([[1.0], [-1.0]]), "bias": torch.tensor([0.0, 1.0])}
    ... )
    >>> x, labels = torch.tensor([[0.6], [0.6], [0.6]]), torch.tensor([0, 0, 0])
    >>> target = Target(network, ClassificationRobustness(0.2), x, labels)
    >>> confirm(target, [[0.45], [0.55], [float("nan")]]).broken
    tensor([ True, False, False])
    >>> confirm(target, [[0.45], [0.55], [float("nan")]], repair=True).broken
    tensor([ True,  True, False])
    """
    points, is_candidate = _candidates(target, points, project)
    outcome = target.replay(points)
    outcome = Outcome(points, outcome.margins, outcome.broken & is_candidate)
    index = (is_candidate & ~outcome.broken).nonzero().squeeze(1)
    if repair and len(index) and _has_gradient(target.network):
        repaired = _descend(target[index], outcome[index])
        outcome = outcome.put(index[repaired.broken], repaired[repaired.broken])
    return outcome


def confirm_outcome(target, outcome):
    """Keep as violations of an outcome only those that the estimator itself shows.

    Parameters
    ----------
    target : Target
    outcome : Outcome
        What an attack found.

    Returns
    -------
    Outcome
        Where `outcome` is broken, the margins are the estimator's own.
    """
    index = outcome.broken.nonzero().squeeze(1)
    if len(index) == 0:
        return outcome
    return outcome.put(index, confirm(target[index], outcome.points[index]))


def attack_and_confirm(attack, target, generator=None):
    """Attack, and confirm what is found; attack again where only rounding broke the property.

    Parameters
    ----------
    attack : Attack
    target : Target
    generator : torch.Generator, default=None
        Source of randomness; torch's own one if None.

    Returns
    -------
    ConfirmedOutcome
    """
    outcome = attack.search(target, generator=generator)
    confirmed = confirm_outcome(target, outcome)
    unconfirmed = outcome.broken & ~confirmed.broken
    index = unconfirmed.nonzero().squeeze(1)
    if len(index):
        # These left the batch at a violation that only rounding made: take all steps.
        part = target[index]
        again = attack.search(part, generator=generator, stop_when_broken=False)
        confirmed = confirmed.put(index, confirm_outcome(part, again))
    return ConfirmedOutcome(
        confirmed.points, confirmed.margins, confirmed.broken, unconfirmed & ~confirmed.broken
    )


def steps_beyond(x, points):
    """Go from points on a boundary a little farther on the rays from their references.

    Where the estimator computes in another precision than its network, a point on the boundary
    may still have the old label, while a point just beyond has the new one.

    Parameters
    ----------
    x, points : Tensor of shape (n, n_features)
        References, and points. The steps are computed in the dtype of `points`.

    Yields
    ------
    Tensor of shape (n, n_features)
        First the points themselves; then those farther by 1e-6 of the distance, and so on in
        powers of ten up to 1e-3. They may lie outside a ball.
    """
    for step in _BEYOND:
        yield x + (1 + step) * (points - x) if step else points


def confirm_beyond(target, outcome):
    """Confirm the closest points that an attack found, or points just beyond them.

    Parameters
    ----------
    target : Target
    outcome : Outcome
        What `Attack.closest` returns.

    Returns
    -------
    Outcome
        Broken where the estimator shows it.
    """
    confirmed = Outcome(outcome.points, outcome.margins, torch.zeros_like(outcome.broken))
    for points in steps_beyond(target.x.double(), outcome.points.double()):
        index = (outcome.broken & ~confirmed.broken).nonzero().squeeze(1)
        if len(index) == 0:
            break
        confirmed = confirmed.put(index, confirm(target[index], points[index]))
    return confirmed


def _candidates(target, points, project):
    """Return points that the network can be asked for, and which of them are candidates."""
    points = _as_tensor(points, target.x.shape).to(target.x.device)
    is_candidate = torch.isfinite(points).all(dim=1)
    points = torch.where(is_candidate[:, None], points, target.x.to(points.dtype))
    points = points.to(target.x.dtype)
    if target.ball.local_set is not None:
        points, is_valid = _settled(target.ball, points, project)
        is_candidate = is_candidate & is_valid
    elif project:
        points = _inside(target.ball, points)
    # What is finite in float64 may be infinite in float32.
    is_finite = torch.isfinite(points).all(dim=1)
    points = torch.where(is_finite[:, None], points, target.x)
    return points, is_candidate & is_finite


def _as_tensor(points, shape):
    """Return candidates, of a tensor or of an array-like of any real kind, or raise."""
    if not isinstance(points, torch.Tensor):
        try:
            array = np.asarray(points)
            is_real = array.dtype.kind in "iufbO"
            points = torch.as_tensor(array.astype(np.float64)) if is_real else None
        except (TypeError, ValueError):
            points = None
    if points is None or points.is_complex() or points.shape != shape:
        kind = type(points).__name__ if points is None else tuple(points.shape)
        expectation = f"real numbers of shape {tuple(shape)}, one row for each of the target"
        raise ValueError(expected("points", kind, expectation))
    return points.detach()


def _settled(ball, points, project):
    """Return valid points, and which are; a point that cannot be made valid is no candidate."""
    if project:
        return ball.settle(points)
    return points, ball.are_valid(points)


def _inside(ball, points):
    """Return the points as they are where they lie in the ball, else its closest ones."""
    projected = ball.project(points)
    if ball.norm == "linf":
        return projected
    # The projection to an L2 ball goes inwards by a millionth: a point that lies between would
    # be moved, and may no longer break what it breaks. Where epsilon is 0, the box decides.
    offset = points.double() - ball.center.double()
    scaled = torch.where(ball.epsilon > 0, offset / ball.epsilon, 0.0)
    is_inside = torch.linalg.vector_norm(scaled, dim=1) <= _INSIDE
    is_inside &= ((points >= ball.lower) & (points <= ball.upper)).all(dim=1)
    return torch.where(is_inside[:, None], points, projected)


def _has_gradient(network):
    return network.has_gradient if isinstance(network, Model) else True


def _descend(target, outcome):
    """Walk down the smallest row from an outcome; return that of the first broken points."""
    x = outcome.points
    for step in range(_REPAIR_STEPS):
        gradient, _, _ = target.gradient(x, "margin")
        x = target.ball.step(x, gradient, -_REPAIR_SIZE * (1 - step / _REPAIR_STEPS))
        seen = target.replay(x)
        fresh = (seen.broken & ~outcome.broken).nonzero().squeeze(1)
        outcome = outcome.put(fresh, seen[fresh])
        if outcome.broken.all():
            break
    return outcome
