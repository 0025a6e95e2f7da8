"""Adversarial examples of a data set whose wrong label wins by a margin."""

from functools import partial

import numpy as np
import torch

from skrobust._evaluation import evaluate_in_chunks, model_key
from skrobust._validation import check_bounds, check_within_bounds
from skrobust.attacks import Target
from skrobust.networks import as_network
from skrobust.properties import ClassificationRobustness, LinearRobustness

__all__ = []

_CHUNK = 256  # samples that an attack is given at a time


def closest_examples(
    model, X, y, *, attack, margin, epsilon_max, targets, bounds, random_state, **resources
):
    """Return the closest adversarial example of each sample that a method finds; NaN where none.

    Parameters
    ----------
    model : object
        Fitted classifier.
    X : ndarray of shape (n_samples, n_features)
    y : ndarray of shape (n_samples,)
        Labels, which the model predicts.
    attack : {"lp", "polished"} or Attack
        A method of `pointwise_robustness`, or an attack.
    margin : float
        By how much the score of another label exceeds that of the own one (in a linear program:
        that of every label).
    epsilon_max : float or None
        Largest distance.
    targets : {"runner-up", "all"} or label
        Of the linear programs.
    bounds : pair or None
    random_state : int
    **resources : dict
        `n_jobs`, `memory` and `verbose`.

    Returns
    -------
    ndarray of shape (n_samples, n_features)
    """
    if isinstance(attack, str):
        # Verifiers, trees and HiGHS stand behind it, which no other fit needs.
        from skrobust.pointwise import pointwise_robustness

        result = pointwise_robustness(
            model,
            X,
            y=y,
            method=attack,
            epsilon_max=epsilon_max,
            targets=targets,
            bounds=bounds,
            margin=margin,
            max_rows=None,
            random_state=random_state,
            **resources,
        )
        return result.adversarial_examples
    network = as_network(model)
    rows = network.check_rows(X)
    check_within_bounds(rows, check_bounds(bounds, rows.shape[1]))
    epsilon = widest(bounds) if epsilon_max is None else epsilon_max
    beaten = LinearRobustness(
        partial(_beaten_by, margin), float(epsilon), bounds=bounds, reference="label"
    )
    return evaluate_in_chunks(
        partial(_attacked, attack=attack, property=beaten),
        network,
        rows,
        network.encode(y).cpu().numpy(),
        fingerprint=partial(model_key, network, rows),
        chunk_size=_CHUNK,
        random_state=random_state,
        **resources,
    )["points"]


def widest(bounds):
    """Return the width of the domain in its widest feature; inf where there are no bounds."""
    return np.inf if bounds is None else np.max(np.subtract(bounds[1], bounds[0]))


def _beaten_by(margin, outputs, labels):
    """Rows z_y - z_j + margin >= 0: broken where another score is larger by more than that."""
    rows = ClassificationRobustness().conclusion(outputs, labels)
    return rows.A, rows.b + margin


def _attacked(network, rows, labels, seed, *, attack, property):
    x = network.rows(rows)
    generator = torch.Generator(network.device).manual_seed(seed)
    target = Target(network, property, x, torch.as_tensor(labels, device=network.device))
    outcome = attack.closest(target, generator=generator)
    points = outcome.points.masked_fill(~outcome.broken.unsqueeze(1), torch.nan)
    return {"points": points.cpu().numpy()}
