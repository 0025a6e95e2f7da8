"""What is claimed of a point: the ball and the rows of a property, as arrays of a file."""

import numpy as np
import torch

from skrobust.attacks import Target
from skrobust.bounds import relax

__all__ = [
    "about_point",
    "about_reach",
    "around_valid",
    "asked",
    "claimed_rows",
    "joined_rows",
    "reference_error",
]


def asked(network, graph, property, x, labels=None):
    """Return the `Target` at reference points, and the conclusion about them in float64.

    Parameters
    ----------
    network : Model
    graph : callable
        The network, from float64 rows to float64 logits.
    property : RobustnessProperty
    x : Tensor of shape (n, n_features)
    labels : Tensor of shape (n,), default=None

    Returns
    -------
    Target
    Conclusion
    """
    target = Target(network, property, x, labels)
    with torch.no_grad():
        reference = graph(property.references(x.double()))
    # Where precision decides what is predicted, the network itself has the last word.
    own = target.anchor_logits.double()
    differs = own.argmax(dim=1) != reference.argmax(dim=1)
    reference = torch.where(differs[:, None], own, reference)
    return target, property.conclusion(reference, property.reference_labels(reference, labels))


def reference_error(graph, ball, rows, x=None):
    """Return what rounding of the outputs at references can do to `LinearRows`, of shape (n, m).

    The references `x` are the centers of the ball if None.
    """
    if not (rows.b != 0).any():
        return torch.zeros_like(rows.b)
    x = ball.center if x is None else x
    point = type(ball)(x, ball.epsilon, "linf", x, x)
    at_center = relax(graph, point, refine=False, lines=False)
    width = (at_center.highs[-1] - at_center.lows[-1]).flatten(1)
    return (rows.A.abs() @ width.unsqueeze(2)).squeeze(2)


def about_point(ball, property):
    """Return the arrays of a claim that say what the ball is; `ball` is around one point."""
    ends = {"lower": ball.lower[0].cpu().numpy(), "upper": ball.upper[0].cpu().numpy()}
    return about_reach(ball.center[0].cpu().numpy(), property) | ends


def about_reach(center, property):
    """Return the arrays of a claim that say which points it is about, around a center."""
    n = len(center)
    bounds, (down, up) = property.box(n), property.sides(n)
    low, high = (-np.inf, np.inf) if bounds is None else bounds
    about, local_set = {}, property.local_set(n)
    if local_set is not None:
        about, (down, up) = _about_valid(local_set.domain, n), local_set.reach(center)
    down, up = (np.broadcast_to(side, n) for side in (down, up))
    return about | {
        "center": center,
        "epsilon": up if (down == up).all() else np.stack([down, up]),
        "domain_low": np.broadcast_to(low, n),
        "domain_high": np.broadcast_to(high, n),
    }


def _about_valid(domain, n):
    """Return the arrays that say which points of a box are valid."""
    about = {}
    if domain.integer_places:
        about["integers"] = np.array(domain.integer_places, dtype=np.int32)
    if domain.groups:
        about["group"] = np.zeros(n, dtype=np.int32)
        for k, places in enumerate(domain.groups, start=1):
            about["group"][places] = k
    if domain.rows is not None:
        about["domain_A"], about["domain_b"] = domain.rows
    return about


def around_valid(arrays):
    """Return a claim whose box is cut to what points that are valid reach, rounded outwards."""
    center = arrays["center"]
    sides = np.broadcast_to(arrays["epsilon"], (2, len(center)))
    low, high = (
        np.where(side > 0, np.nextafter(center + sign * side, sign * np.inf), center)
        for sign, side in zip((-1, 1), sides, strict=True)
    )
    ends = {"lower": np.maximum(arrays["lower"], low), "upper": np.minimum(arrays["upper"], high)}
    return arrays | ends


def claimed_rows(graph, ball, conclusion, is_proof):
    """Return the rows of a conclusion about one point, as arrays of a claim, for each part of it.

    Parameters
    ----------
    graph : Graph
    ball : Ball
    conclusion : Conclusion
        Where a part has no form that the checker knows, its linear enclosure is claimed.
    is_proof : bool
        Constants may stem from rounded outputs at the reference point: those of a proof are
        moved down, and those of a counterexample up.

    Returns
    -------
    list of dict of str to ndarray
    """
    parts = conclusion.parts()
    if not all(part.is_linear or part.exp_limit is not None for part in parts):
        parts = [conclusion.sufficient() if is_proof else conclusion.necessary()]
    return [_rows_of(graph, ball, part, is_proof) for part in parts]


def _rows_of(graph, ball, conclusion, is_proof):
    rows, limit = conclusion.sufficient(), conclusion.exp_limit
    if limit is not None:
        A, zeros = rows.A[0].cpu().numpy(), np.zeros(rows.A.shape[1])
        limit = np.array([_beside(limit, -1 if is_proof else 1)])
        flags = dict.fromkeys(("strict", "anchored", "clause"), zeros.astype(np.uint8))
        return {"A": A, "b": zeros, "distance": zeros, "limit": limit} | flags
    each = [list(dict.fromkeys(clause)) for clause in rows.members.tolist()]
    at = np.array([row for own in each for row in own], dtype=int)
    error = reference_error(graph, ball, rows)[0].cpu().numpy()
    b, anchored = rows.b[0].cpu().numpy(), rows.flags("anchored").cpu().numpy()
    b = np.where(anchored, 0.0, b - error if is_proof else b + error.max(initial=0.0))
    return {
        "A": rows.A[0].cpu().numpy()[at],
        "b": b[at],
        "distance": rows.c[0].cpu().numpy()[at] * rows.uses_distance,
        "limit": np.zeros(len(each)),
        "strict": rows.flags("strict").cpu().numpy().astype(np.uint8)[at],
        "anchored": anchored.astype(np.uint8)[at],
        "clause": np.repeat(np.arange(len(each)), [len(own) for own in each]),
    }


def _beside(value, side):
    """Return the float next to a Fraction that is not on the other side of it."""
    near = float(value)
    is_beyond = near > value if side < 0 else near < value
    return float(np.nextafter(near, side * np.inf)) if is_beyond else near


def joined_rows(parts):
    """Return the rows of several parts as one claim, without what all of them have none of."""
    first = np.cumsum([0, *(len(part["limit"]) for part in parts)])
    parts = [part | {"clause": part["clause"] + k} for part, k in zip(parts, first, strict=False)]
    joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    optional = ("distance", "limit", "anchored")
    return {k: part for k, part in joined.items() if k not in optional or part.any()}
