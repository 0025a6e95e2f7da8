"""Networks and claims small enough to be worked out by hand, and claims with random proofs."""

import json

import numpy as np

from skrobust.evidence import claim_bytes

DIGEST = "by hand"


def network(*layers):
    """Return the arrays of a chain of layers.

    These are pairs of weight and bias, slopes of units, or names of kinds without parameters.
    """
    nodes, arrays, size = [], {}, np.shape(layers[0][0])[1]
    for i, layer in enumerate(layers, start=1):
        if isinstance(layer, tuple):
            nodes.append({"kind": "affine", "inputs": [i - 1]})
            arrays[f"{i}.weight"], arrays[f"{i}.bias"] = map(np.array, layer)
        elif isinstance(layer, str):
            nodes.append({"kind": layer, "inputs": [i - 1]})
        else:
            nodes.append({"kind": "relu", "inputs": [i - 1]})
            arrays[f"{i}.slope"] = np.array(layer)
    return network_of(nodes, size, arrays)


def network_of(nodes, n_features, arrays):
    """Return the arrays of a network of any nodes."""
    text = json.dumps({"nodes": nodes}).encode()
    nodes = np.frombuffer(text, dtype=np.uint8)
    return {"nodes": nodes, "n_features": np.array(n_features)} | arrays


def outputs(arrays, x):
    """Return what such a chain makes of rows x."""
    i = 1
    while f"{i}.bias" in arrays or f"{i}.slope" in arrays:
        if f"{i}.bias" in arrays:
            x = x @ arrays[f"{i}.weight"].T + arrays[f"{i}.bias"]
        else:
            x = np.where(x > 0, x, arrays[f"{i}.slope"] * x)
        i += 1
    return x


def claim(A, b, *, center=None, epsilon=1.0, norm="linf", verdict="verified", **entries):
    """Return the arrays of a claim over a ball around a center, zeros by default."""
    A = np.array(A, dtype=np.float64)
    n = entries.pop("n", 1)
    center = np.zeros(n) if center is None else np.array(center)
    epsilon = np.zeros(n) + epsilon
    return {
        "claim": claim_bytes(verdict=verdict, norm=norm, network=DIGEST),
        "center": center,
        "epsilon": epsilon,
        "lower": np.nextafter(center - epsilon, -np.inf),
        "upper": np.nextafter(center + epsilon, np.inf),
        "domain_low": np.full(n, -np.inf),
        "domain_high": np.full(n, np.inf),
        "A": A,
        "b": np.array(b, dtype=np.float64),
        "strict": np.zeros(len(A)),
        "clause": np.arange(len(A)),
    } | {name: np.asarray(value) for name, value in entries.items()}


def ramp():
    """Return the network x -> relu(x)."""
    return network(([[1.0]], [0.0]), [0.0], ([[1.0]], [0.0]))


def random_proof(rng, net, n_rows, n_splits):
    """Return any tree with any splits, slopes and multipliers, one clause a row."""
    sources = [i for i in range(1, len(net.nodes)) if i + 1 in net.piecewise]
    node = np.zeros(n_rows + 2 * n_splits, dtype=int)
    inner = []
    for _ in range(n_splits):
        end = n_rows + 2 * len(inner)
        free = np.setdiff1d(np.arange(max(inner, default=-1) + 1, end), inner)
        if len(free) == 0:
            break
        inner.append(int(rng.choice(free)))
    node = node[: n_rows + 2 * len(inner)]
    node[inner] = rng.choice([0, *sources], len(inner)) + 1
    clause = np.arange(len(node))
    for k, parent in enumerate(sorted(inner)):
        clause[n_rows + 2 * k : n_rows + 2 * k + 2] = clause[parent]
    sizes = np.array(net.sizes)
    n_leaves = int((node == 0).sum())
    proof = {
        "row": clause,
        "node": node,
        "unit": rng.integers(0, 2**30, len(node)) % sizes[np.maximum(node - 1, 0)],
        "at": np.where(rng.random(len(node)) < 0.5, 0.0, rng.normal(size=len(node)) / 4),
        "tightens": rng.integers(0, 2, len(node)),
    }
    for i in net.piecewise:
        proof[f"slopes.{i}"] = rng.random((n_leaves, sizes[i])).astype(np.float32)
        j, count = i - 1, int(rng.integers(0, 4 * n_leaves))
        proof[f"betas.{j}"] = rng.exponential(size=count)
        proof[f"betas.{j}.leaf"] = rng.integers(0, n_leaves, count)
        proof[f"betas.{j}.unit"] = rng.integers(0, sizes[j], count)
    return proof
