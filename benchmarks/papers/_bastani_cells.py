"""What the rerun of Bastani et al. computes, one kept result each."""

import copy

import numpy as np
import torch
from _bastani_nets import classifier, images
from scipy import sparse
from scipy.optimize import linprog
from sklearn.frozen import FrozenEstimator

from skrobust.attacks import FGSM, LBFGS
from skrobust.estimators import AdversarialFineTuning
from skrobust.networks import as_network
from skrobust.pointwise import pointwise_robustness
from skrobust.properties import ClassificationRobustness
from skrobust.scorers import ConstraintSecurity

__all__ = [
    "EPSILON",
    "accuracy",
    "broken_by_signs",
    "linearized",
    "measured",
    "stopped_early",
    "trained",
    "tuned",
]

EPSILON = 20 / 255
_OPEN = ("row limit", "unconfirmed", "numerical failure")  # said neither found nor not to be there


def trained(data, network, n_images, steps, seed, **options):
    """Return the classifier of the recipe, fitted."""
    X, y = images(data, "train", n_images)
    return classifier(network, len(X), steps, seed=seed, **options).fit(X, y)


def tuned(before, data, n_images, method, budget, n_epochs, rounding, seed, memory):
    """Return the fine-tuning one round further on: of a classifier, or of a fine-tuning.

    Parameters
    ----------
    before : RobustClassifier or AdversarialFineTuning
    data : str
    n_images : int
        Training images: those that examples are made of, and that training goes on with.
    method : {"lbfgs", "lp"}
        With the paper's margins: 0.15 and 3.0.
    budget : dict
        Arguments of LBFGS.
    n_epochs : int
    rounding : int or None
    seed : int
    memory : str or None
        Folder in which the examples of each chunk are kept, so that a killed round goes on.
    """
    X, y = images(data, "train", n_images)
    if isinstance(before, AdversarialFineTuning):
        model = copy.deepcopy(before)
        return model.set_params(rounds=model.n_rounds_ + 1).fit(X, y)
    model = AdversarialFineTuning(
        FrozenEstimator(before),
        "lp" if method == "lp" else LBFGS(**budget),
        margin=3.0 if method == "lp" else 0.15,
        n_epochs=n_epochs,
        rounding=rounding,
        warm_start=True,
        random_state=seed,
        memory=memory,
    )
    return model.fit(X, y)


def accuracy(model, data):
    """Return the share of test images that are classified as labeled, and how many these are."""
    X, y = images(data, "test")
    return {"accuracy": float(np.mean(model.predict(X) == y)), "n": len(y)}


def measured(model, data, points, method, budget=None, **options):
    """Return the distances of the closest examples of test images that a method finds.

    Parameters
    ----------
    model : classifier
    data : str
    points : pair of int
        First test image, and the one behind the last.
    method : {"lp", "polished", "lbfgs"}
        The last is LBFGS with `budget` as its arguments.
    budget : dict, default=None
    **options : dict
        Of `pointwise_robustness`.

    Returns
    -------
    dict
        ``radius`` and ``seconds``, arrays, and ``n_open``, the points that stay unresolved.
    """
    X = images(data, "test")[0][slice(*points)]
    if method == "lbfgs":
        options |= {"method": "attack", "attack": LBFGS(**budget)}
    else:
        options |= {"method": method, "max_rows": None}
    result = pointwise_robustness(model, X, epsilon_max=EPSILON, random_state=0, **options)
    return {
        "radius": result.radius,
        "seconds": result.seconds,
        "n_open": int((np.isin(result.status, _OPEN) & np.isinf(result.radius)).sum()),
    }


def stopped_early(model, data, points, max_rows):
    """Return the distances of linear programs that are given up, counted as if they were not.

    Where a program still lacks half-spaces of the region when it has `max_rows` of them, the
    optimum so far is taken, whatever the network says of its point.

    Parameters
    ----------
    model : classifier
    data : str
    points : pair of int
    max_rows : int

    Returns
    -------
    dict
        ``radius`` and ``seconds``, arrays.
    """
    X = images(data, "test")[0][slice(*points)]
    result = pointwise_robustness(model, X, epsilon_max=EPSILON, max_rows=max_rows)
    radius = np.where(result.status == "row limit", result.bound, result.radius)
    return {"radius": radius, "seconds": result.seconds}


def linearized(model, data, points, bounded):
    """Return the optima over the affine map at each test image, without its region's half-spaces.

    This is the first of the programs that the paper's iterative solving goes through: the outputs'
    rows alone. Its optimum is at most that of the whole program, and the network may give its
    point any label.

    Parameters
    ----------
    model : classifier
    data : str
    points : pair of int
    bounded : bool
        Whether points stay within the range of pixels.

    Returns
    -------
    dict
        ``radius``, inf where there is no point, and ``is_example``, whether the network gives the
        point (moved on by a thousandth) another label than the image.
    """
    X = images(data, "test")[0][slice(*points)]
    network = as_network(model)
    x = network.rows(network.check_rows(X))
    found, radius = X.astype(np.float64), np.full(len(X), np.inf)
    for i in range(len(X)):
        move = _closest_of_affine_map(network, x[i], bounded)
        if move is not None:
            found[i] += 1.001 * move
            radius[i] = np.abs(move).max()
    if bounded:
        found = np.clip(found, 0, 1)
    is_example = model.predict(found.astype(X.dtype)) != model.predict(X)
    return {"radius": radius, "is_example": is_example & np.isfinite(radius)}


def _closest_of_affine_map(network, x, bounded):
    """Return the smallest move at which the runner-up leads by the gradients at x, or None."""
    logits = network(x[None])[0].detach().double().numpy()
    gradients = torch.func.jacrev(lambda row: network(row[None])[0])(x).detach().double().numpy()
    target = np.argsort(-logits, kind="stable")[1]
    others = np.arange(len(logits)) != target
    # In the variables move and t: no other output ahead of the target's, and |move| <= t.
    ahead = gradients[others] - gradients[target]
    lead = logits[target] - logits[others]
    d = len(x)
    identity, t = sparse.identity(d), np.ones((d, 1))
    rows = sparse.bmat([[ahead, None], [identity, -t], [-identity, -t]], format="csr")
    right = np.concatenate([lead, np.zeros(2 * d)])
    center, sides = x.double().numpy(), np.full((d + 1, 2), [-np.inf, np.inf])
    if bounded:
        sides[:d] = np.column_stack([-center, 1 - center])
    found = linprog(np.eye(d + 1)[d], rows, right, bounds=sides, method="highs")
    return found.x[:d] if found.status == 0 else None


def broken_by_signs(model, data, subset, n_points):
    """Return how many images FGSM of step 20 makes the network label otherwise, and of how many.

    A label is the network's own, as everywhere in the paper.
    """
    X, y = images(data, subset, n_points)
    property = ClassificationRobustness(EPSILON, reference="prediction")
    result = ConstraintSecurity(property, FGSM("cross-entropy")).evaluate(model, X, y)
    return {"n_broken": round((1 - result.score) * len(X)), "n": len(X)}
