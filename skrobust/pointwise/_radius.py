"""The distance from each sample to the closest input with another label."""

from functools import partial

import numpy as np

from skrobust._evaluation import evaluate_in_chunks, model_key
from skrobust._validation import (
    check_bounds,
    check_choice,
    check_columns,
    check_epsilon,
    check_instance,
    check_integer,
    check_length,
    check_real,
    check_within_bounds,
    expected,
    sample_shape,
)
from skrobust.attacks import Attack
from skrobust.networks import BlackBox, Units, check_scale
from skrobust.pointwise._methods import measure, read
from skrobust.pointwise._result import PointwiseResult, PointwiseStatus
from skrobust.pointwise._trees import model_of
from skrobust.properties import ClassificationRobustness

__all__ = ["pointwise_robustness"]

_METHODS = ("lp", "polished", "attack", "lbfgs", "certified", "exact", "bracket")


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
    scale=None,
    margin=0.0,
    max_rows=None,
    precision=1e-3,
    timeout=60.0,
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
        Fitted classifier, of a kind that `skrobust.networks.as_network` supports; for "exact"
        also an estimator of trees, of a kind that `skrobust.verification.TreeVerifier` treats.
    X : array-like of shape ``(n_samples, n_features)`` or ``(n_samples, *input_shape)``
        In the raw input space of the estimator.
    y : array-like of shape (n_samples,), default=None
        Labels. A sample that is predicted otherwise has radius 0. None is the network's own
        prediction.
    method : str, default="lp"
        - "lp": the exact optimum over the points of the sample's linear region [1]_.
        - "attack": the closest point that `attack` finds, pulled to the boundary.
        - "lbfgs": the baseline of [1]_, after Szegedy et al.
        - "polished": from the best point of "attack" and "lp", the linear program in that
          point's region, repeated while it improves, and once more where "lbfgs" is closer.
          Every point that a program reaches with only some of its half-spaces is tried on the
          network as well. Never larger than "attack", "lp" or "lbfgs" with the same parameters
          and the same `random_state`.
        - "certified": a lower bound, by CROWN. Proven for the network in exact arithmetic.
        - "bracket": "certified" as `lower`, "polished" as `upper` and `radius`.
        - "exact": the distance of the closest adversarial example of all, within `precision`:
          the bracket is closed by bisection with `skrobust.verification.Exact`. Each step may
          take long, and more so in large networks. For trees by
          `skrobust.verification.TreeVerifier`, and then to the last digit.
    solver : {"lazy", "cvxpy"}, default="lazy"
        "lazy" adds half-spaces of the region as they are violated. "cvxpy" states the program
        with a variable for every unit, as section 4 of [1]_ does: for teaching and checking.
    epsilon_max : float, array-like of shape (n_features,), pair of these or None, default=None
        Stop as soon as the lower bound passes it; nothing beyond is reported. At 0, only samples
        with radius 0 are. With one limit for each feature (0 for what cannot change), or a tuple
        (down, up) of how far features may fall and rise, only points within these limits count;
        what is measured is still the distance.
    targets : {"runner-up", "all"} or label, default="runner-up"
        Labels that are to win in "lp": the second best at the sample, as in [1]_, every other
        one, or this one. A label that is itself called "runner-up" or "all" cannot be asked
        for alone: these two words keep their meaning.
    bounds : pair of floats or of array-likes, or None, default=(0.0, 1.0)
        Valid domain of the inputs. The program of [1]_ has no such rows: None is the paper's
        form, whose adversarial examples may lie outside the range of pixels.
    scale : None, "std", float or array-like of shape (n_features,), default=None
        Units of the features, above 0: the distance is then the largest of abs(x' - x) / scale,
        and so are `epsilon_max` and `precision`. "std" takes the standard deviations of the
        training data from the StandardScaler that a pipeline starts with. `X`, `bounds` and the
        adversarial examples stay in raw units.
    margin : float, default=0.0
        By how much the target's score must at least exceed the others, in "lp".
    max_rows : int or None, default=None
        Half-spaces of one linear program from where on it is given up, with the status "row
        limit" where nothing else is found; "polished" keeps the best point so far. None sets no
        limit: each program in the sample's own region is solved to its end. The further rounds
        of "polished", which search for closer points and prove nothing, give a program up at
        100 half-spaces at the latest, whatever `max_rows` is.
    precision : float, default=1e-3
        Of "exact": the largest difference of `lower` and `radius`, in units of the input.
    timeout : float or None, default=60.0
        Of "exact": seconds that the verifier may take for a sample; None sets no limit.
    attack : Attack or None, default=None
        For "attack", "polished", "bracket" and "exact". None is ``Ensemble()``, in the last three
        with ``FastMinimumNorm(random_starts=1)``, which is never farther.
    chunk_size : int, default=64
        Samples of one job.
    random_state : int, RandomState instance or None, default=None
        For attacks with random starts. With a `memory`, None means 0: a fresh seed would never
        find what is kept.
    n_jobs : int or None, default=None
        Chunks evaluated at a time, by joblib.
    memory : None, str or joblib.Memory, default=None
        Keeps the result of each chunk, under a key of all that it follows from: the model, the
        data, the parameters, the code of users, and the versions of skrobust and of what it
        computes with.
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

    Warns
    -----
    AttackWarning
        If an attack fails on a sample: its error is named, and the others go on.
    UncachedWarning
        If there is a `memory`, but code of users whose source cannot be had.

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
        epsilon_max = check_epsilon(epsilon_max, name="epsilon_max")
    if attack is not None:
        check_instance("attack", attack, Attack, "Ensemble()").check()
    check_integer("chunk_size", chunk_size, low=1)
    if max_rows is not None:
        check_integer("max_rows", max_rows, low=1)
    check_real("precision", precision, low=0, closed="neither")
    if timeout is not None:
        check_real("timeout", timeout, low=0, closed="neither")
    check_columns(estimator, X)
    network = model_of(estimator, method, sample_shape(X))
    if len(network.classes) < 2:
        raise ValueError(
            f"Got a classifier of classes {network.classes.tolist()}, but expected at least two."
        )
    rows = network.check_rows(X)
    bounds = check_bounds(bounds, rows.shape[1])
    check_within_bounds(rows, bounds)
    if epsilon_max is not None:
        check_epsilon(epsilon_max, rows.shape[1], name="epsilon_max")
    scale, units = check_scale(scale, estimator, rows.shape[1]), None
    is_of_trees = isinstance(network, BlackBox)  # whose thresholds stay raw, to the last bit
    if scale is not None and not is_of_trees:
        X, own, units = rows, network, Units.of(network, scale, bounds)
        network, rows, bounds = units.model(network), units.rows(rows), units.scaled_bounds
    is_endless = bounds is None or not np.isfinite(bounds).all()
    if is_endless and epsilon_max is None and method != "lp":
        shown = "bounds=None" if bounds is None else "infinite bounds"
        raise ValueError(
            f"Got {shown} and epsilon_max=None, but expected finite bounds or an epsilon_max: "
            f"method={method!r} needs to know how far to search."
        )
    if y is not None:
        check_length("y", y, len(rows))
    labels = None if y is None else network.encode(y).cpu().numpy()
    asked_for = 1.0 if epsilon_max is None else epsilon_max
    network.check_property(ClassificationRobustness(asked_for))  # if anything is moved at all
    reading = read(network, rows.shape[1], method, bounds)  # refuses before any work
    asked = partial(
        measure,
        method=method,
        solver=solver,
        epsilon_max=np.inf if epsilon_max is None else epsilon_max,
        targets=_checked_targets(targets, network),
        bounds=bounds,
        margin=float(margin),
        max_rows=np.inf if max_rows is None else max_rows,
        precision=float(precision),
        timeout=np.inf if timeout is None else float(timeout),
        attack=attack,
        unit=scale if is_of_trees else None,
    )
    arrays = evaluate_in_chunks(
        asked,
        reading,
        rows,
        labels,
        fingerprint=partial(model_key, network, rows),
        chunk_size=chunk_size,
        random_state=random_state,
        n_jobs=n_jobs,
        memory=memory,
        verbose=verbose,
    )
    if is_of_trees and scale is not None:  # a side of a ball in units is rounded once
        arrays |= {name: arrays[name] * (1 - 1e-15) for name in ("lower", "bound")}
    if units is not None:
        points = units.examples(own, arrays["adversarial_examples"], X)
        arrays |= {"adversarial_examples": points} | _proven(units, X, arrays, method)
    return PointwiseResult(**arrays, method=method)


def _proven(units, X, arrays, method):
    """Return what is proven, less what the rounding of the samples to other units can do."""
    error = units.rounding(X)
    proven = {name: np.maximum(0.0, arrays[name] - error) for name in ("lower", "bound")}
    if method == "certified":
        wrong = arrays["status"] == PointwiseStatus.MISCLASSIFIED
        proven["radius"] = np.where(wrong, 0.0, proven["lower"])
    return proven


def _checked_targets(targets, network):
    """Return "runner-up", "all" or the index of a class."""
    if isinstance(targets, str) and targets in ("runner-up", "all"):
        return targets
    classes = network.classes
    if not isinstance(targets, list | tuple) and np.ndim(targets) == 0:
        place = np.flatnonzero([label == targets for label in classes.tolist()])
        if len(place):
            return int(place[0])
    choices = f"'runner-up', 'all', or one of the classes {classes.tolist()}"
    raise ValueError(expected("targets", targets, choices))
