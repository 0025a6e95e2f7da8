"""Claims with proofs of which one thing is changed, and whether they are true at many points."""

import numpy as np

KINDS = (
    "b", "A", "ball", "sign", "leaf", "slopes", "betas", "node", "row", "at",
    "distance", "limit", "anchored", "mixtures", "radii", "by_slopes", "relus", "clauses",
    "clause", "center", "strict", "domain", "tightens",
)  # fmt: skip


def parts_of(arrays, name):
    """Return the names of arrays of all pieces of a proof that begin with a name."""
    return [key for key in arrays if key.lstrip("0123456789.").startswith(name)]


def n_nodes(arrays):
    """Return how many nodes the trees of all pieces have."""
    return sum(len(arrays[key]) for key in parts_of(arrays, "node"))


def change(rng, arrays):
    """Return a claim and a proof of which one thing is changed, and what."""
    arrays = {name: part.copy() for name, part in arrays.items()}
    known = [kind for kind in KINDS if parts_of(arrays, kind) or kind in (*KINDS[:5], "domain")]
    kind = str(rng.choice(known))
    k = int(rng.integers(0, len(arrays["b"])))
    if kind == "b":
        arrays["b"][k] -= rng.exponential(scale=5.0)
    elif kind == "A":
        arrays["A"][k, rng.integers(0, arrays["A"].shape[1])] += rng.normal() * 3
    elif kind == "ball":
        size = 1 + rng.exponential()
        for name in ("lower", "upper"):
            arrays[name] = arrays["center"] + size * (arrays[name] - arrays["center"])
        arrays["epsilon"] = arrays["epsilon"] * min(size, 1.0)
    elif kind == "sign":
        arrays["A"][k] *= -1
    elif kind == "leaf":
        for name in ("row", "node", "unit", "at", "tightens"):
            for key in parts_of(arrays, name):
                arrays[key] = arrays[key][:-1]
    elif kind == "domain":
        for name, side in (("low", -1), ("high", 1)):
            key = ("lower", "upper")[name == "high"]
            size = rng.choice([0.5, 1.0, 2.0])
            arrays[key] = arrays["center"] + size * (arrays[key] - arrays["center"])
            reach = rng.choice([0.0, 0.5, 3.0]) * np.atleast_2d(arrays["epsilon"]).max(axis=0)
            arrays[f"domain_{name}"] = arrays["center"] + side * reach
    elif kind in ("distance", "limit", "radii"):
        for key in parts_of(arrays, kind):
            arrays[key] = arrays[key] * rng.choice([0.3, 0.9, 1.1, 3.0], arrays[key].shape)
    else:
        names = parts_of(arrays, kind)
        part = arrays[names[int(rng.integers(0, len(names)))]]
        if part.size:
            at = tuple(int(rng.integers(0, n)) for n in part.shape)
            is_float = part.dtype.kind == "f" and kind not in ("strict", "anchored")
            part[at] = rng.choice([rng.normal(), -0.0, 7.0]) if is_float else rng.integers(0, 12)
            if kind in ("by_slopes", "relus", "strict", "anchored", "tightens"):
                part[at] = rng.integers(0, 2)
    return arrays, kind


def holds_at_samples(rng, arrays, norm, outputs, count=300):
    """Return whether no point among many breaks the rows that are claimed to be proved.

    `outputs` is a function of points.
    """
    center, n = arrays["center"], len(arrays["center"])
    down, up = np.broadcast_to(arrays["epsilon"], (2, n))
    epsilon = np.maximum(down, up)
    low, high = (
        np.maximum(arrays["lower"], center - down),
        np.minimum(arrays["upper"], center + up),
    )
    low = np.maximum(low, np.minimum(arrays["domain_low"], center))
    high = np.minimum(high, np.maximum(arrays["domain_high"], center))
    corners = np.where(rng.random((count, n)) < 0.5, low, high)
    scale = 10.0 ** rng.uniform(-6, 0, (count, 1))
    near = center + scale * (np.clip(rng.uniform(low, high, (count, n)), low, high) - center)
    points = np.concatenate([rng.uniform(low, high, (count, n)), corners, near])
    move = points - center
    share = np.where(epsilon > 0, move, 0.0) / np.maximum(epsilon, 1e-300)
    order = np.inf if norm == "linf" else 2
    length = np.linalg.norm(share, ord=order, axis=1, keepdims=True)
    points = center + np.where(epsilon > 0, move, 0.0) / np.maximum(length, 1.0)
    distance = np.linalg.norm(points - center, ord=order, axis=1)
    z, none = outputs(points), np.zeros(len(arrays["b"]))
    at_center = outputs(center[None])
    rows = z @ arrays["A"].T + arrays["b"] + np.outer(distance, arrays.get("distance", none))
    rows -= np.where(arrays.get("anchored", none) > 0, at_center @ arrays["A"].T, 0.0)
    # What is changed can be far off: one unit in the last place of the outputs is not.
    room = 1e-9 * (1 + np.abs(z).max()) * (1 + np.abs(arrays["A"]).sum())
    limits = arrays.get("limit", none)
    for k in range(int(arrays["clause"].max()) + 1):
        own = rows[:, arrays["clause"] == k]
        if limits[k] > 0:
            if (np.exp(-own - room).sum(axis=1) > limits[k]).any():
                return False
        elif (own < -room).all(axis=1).any():
            return False
    return True
