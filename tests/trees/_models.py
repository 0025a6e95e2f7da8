"""Trees that several test files share, and the cells in which they are constant."""

import itertools

import numpy as np
from sklearn.base import clone
from sklearn.ensemble import (
    ExtraTreesClassifier,
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
)
from sklearn.tree import DecisionTreeClassifier, ExtraTreeClassifier

from skrobust.trees._ensemble import last_left

SINGLE = {
    "tree": DecisionTreeClassifier(max_depth=4, random_state=0),
    "extra tree": ExtraTreeClassifier(max_depth=4, random_state=0),
}
ENSEMBLES = {
    "forest": RandomForestClassifier(4, max_depth=3, random_state=0),
    "pure forest": RandomForestClassifier(4, random_state=0),
    "extra": ExtraTreesClassifier(4, max_depth=3, random_state=0),
    "boosting": GradientBoostingClassifier(n_estimators=4, max_depth=2, random_state=0),
    "exponential": GradientBoostingClassifier(
        loss="exponential", n_estimators=4, max_depth=2, init="zero", random_state=0
    ),
    "hist": HistGradientBoostingClassifier(max_iter=4, max_leaf_nodes=5, min_samples_leaf=3),
}


def data(n_classes=3, n_features=2, n=60, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.random((n, n_features)).round(2)
    return X, (np.floor(X.sum(axis=1) * 5) + rng.integers(2, size=n)).astype(int) % n_classes


def fitted(model, n_classes=3, n_features=2, seed=0):
    X, y = data(n_classes, n_features, seed=seed)
    return clone(model).fit(X, y)


def thresholds(model):
    """All pairs (feature, threshold) of a model, and whether it rounds inputs to float32."""
    if isinstance(model, HistGradientBoostingClassifier):
        nodes = np.concatenate([p.nodes for stage in model._predictors for p in stage])
        nodes = nodes[nodes["is_leaf"] == 0]
        return nodes["feature_idx"], nodes["num_threshold"], False
    trees = np.ravel(getattr(model, "estimators_", [model]))
    feature = np.concatenate([tree.tree_.feature for tree in trees])
    threshold = np.concatenate([tree.tree_.threshold for tree in trees])
    return feature[feature >= 0], threshold[feature >= 0], True


def cells(model, x, lower, upper):
    """The closest point to x of every cell, in a box, in which the model is constant."""
    feature, threshold, in_float32 = thresholds(model)
    last = last_left(threshold) if in_float32 else threshold
    sides = []
    for j in range(len(x)):
        cuts = last[feature == j]
        values = np.concatenate([[x[j]], cuts, np.nextafter(cuts, np.inf)])
        sides.append(np.unique(values[(values >= lower[j]) & (values <= upper[j])]))
    return np.array(list(itertools.product(*sides)))


def lengths(points, x, epsilon, norm):
    gap = np.abs(points - x)
    with np.errstate(divide="ignore", invalid="ignore"):
        gap = np.where(gap > 0, gap / epsilon, 0.0)
    return gap.max(axis=1) if norm == "linf" else np.linalg.norm(gap, axis=1)
