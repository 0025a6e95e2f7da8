"""An ensemble of trees as plain arrays."""

import json

import numpy as np

from skrobust.trees import read_trees

__all__ = ["ensemble_arrays"]


def ensemble_arrays(model, n_features):
    """Return the arrays of ``network.npz`` for a model of trees.

    Parameters
    ----------
    model : object
        An estimator that `~skrobust.trees.read_trees` reads, or the `BlackBox` of one.
    n_features : int

    Returns
    -------
    dict of str to ndarray
        "ensemble" is JSON as bytes. Only leaves have values, and they have no feature.
    """
    trees = read_trees(model)
    text = json.dumps({"ties": trees.ties, "votes": bool(trees.votes)}).encode()
    is_leaf = trees.feature < 0
    places = np.arange(len(is_leaf))
    whole = {
        "feature": np.where(is_leaf, 0, trees.feature + 1),
        "left": np.where(is_leaf, places, trees.left),
        "right": np.where(is_leaf, places, trees.right),
        "roots": trees.roots,
    }
    return {name: part.astype(np.int32) for name, part in whole.items()} | {
        "ensemble": np.frombuffer(text, dtype=np.uint8),
        "n_features": np.array(n_features),
        "base": np.asarray(trees.base, dtype=np.float64),
        "last": np.where(is_leaf, 0.0, trees.last),
        "values": np.where(is_leaf[:, None], trees.values, 0.0),
        "unit": np.array(trees.unit),
        "link": np.array(trees.link),
    }
