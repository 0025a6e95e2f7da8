"""How scikit-learn's trees and ensembles are read."""

import numpy as np
from sklearn.ensemble import (
    ExtraTreesClassifier,
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
)
from sklearn.model_selection._search import BaseSearchCV
from sklearn.tree import DecisionTreeClassifier, ExtraTreeClassifier
from sklearn.utils.validation import check_is_fitted

from skrobust.exceptions import UnsupportedModelError
from skrobust.networks import BlackBox
from skrobust.trees._ensemble import TreeEnsemble, last_left

__all__ = []


def _joined(trees, base, ties="first", votes=False):
    """Join trees, each (feature, last, left, right, values) with children of leaves below 0."""
    sizes = [len(tree[0]) for tree in trees]
    offsets = np.cumsum([0, *sizes[:-1]])
    feature, last, left, right, values = (
        np.concatenate(parts) for parts in zip(*trees, strict=True)
    )
    shift = np.repeat(offsets, sizes)
    is_leaf = left < 0
    itself = np.arange(len(feature))
    return TreeEnsemble(
        np.where(is_leaf, -1, feature),
        last,
        np.where(is_leaf, itself, left + shift),
        np.where(is_leaf, itself, right + shift),
        values,
        offsets,
        np.asarray(base, dtype=np.float64),
        ties,
        votes,
    )


def _sklearn_tree(tree, values):
    return tree.feature, last_left(tree.threshold), tree.children_left, tree.children_right, values


def read_decision_tree(model):
    _check_outputs(model)
    # A single tree predicts the largest value of its leaf.
    tree = _sklearn_tree(model.tree_, model.tree_.value[:, 0, :])
    return _joined([tree], np.zeros(len(model.classes_)), votes=True)


def _read_forest(model):
    _check_outputs(model)
    trees = [_sklearn_tree(e.tree_, e.tree_.value[:, 0, :]) for e in model.estimators_]
    return _joined(trees, np.zeros(len(model.classes_)), votes=True)


def _check_outputs(model):
    if model.n_outputs_ > 1:
        raise UnsupportedModelError(
            f"Got a {type(model).__name__} with {model.n_outputs_} outputs, but expected one "
            "class a sample."
        )
    if model.n_classes_ < 2:
        raise UnsupportedModelError(
            f"Got a {type(model).__name__} of one class, but expected two or more."
        )


def _column(values, column, n_classes):
    """Return values of one score as (n, n_classes); a binary model scores the second class."""
    placed = np.zeros((len(values), n_classes))
    placed[:, 1 if n_classes == 2 else column] = values
    return placed


def _read_gradient_boosting(model):
    if model.init is not None and model.init != "zero":
        raise UnsupportedModelError(
            "Got a GradientBoostingClassifier that starts from another estimator, but expected "
            "init=None or 'zero'."
        )
    n_classes = len(model.classes_)
    start = model._raw_predict_init(np.zeros((1, model.n_features_in_), dtype=np.float32))[0]
    trees = [
        _sklearn_tree(
            tree.tree_, _column(model.learning_rate * tree.tree_.value[:, 0, 0], k, n_classes)
        )
        for stage in model.estimators_
        for k, tree in enumerate(stage)
    ]
    base = sum(_column(start[[k]], k, n_classes)[0] for k in range(len(start)))
    return _joined(trees, base, "last" if n_classes == 2 else "first")


def _read_hist_gradient_boosting(model):
    if model.is_categorical_ is not None:
        raise UnsupportedModelError(
            "Got a HistGradientBoostingClassifier with categorical features, but expected "
            "numbers: a ball has no meaning for categories."
        )
    n_classes = len(model.classes_)
    trees = []
    for stage in model._predictors:
        for k, predictor in enumerate(stage):
            nodes = predictor.nodes
            is_leaf = nodes["is_leaf"].astype(bool)
            left, right = (
                np.where(is_leaf, -1, nodes[side].astype(np.int64)) for side in ("left", "right")
            )
            values = _column(nodes["value"], k, n_classes)
            # Inputs stay in float64 here, so that thresholds are as they are.
            trees.append((nodes["feature_idx"], nodes["num_threshold"], left, right, values))
    start = np.ravel(model._baseline_prediction)
    base = sum(_column(start[[k]], k, n_classes)[0] for k in range(len(start)))
    return _joined(trees, base)


READERS = {
    DecisionTreeClassifier: read_decision_tree,
    ExtraTreeClassifier: read_decision_tree,
    RandomForestClassifier: _read_forest,
    ExtraTreesClassifier: _read_forest,
    GradientBoostingClassifier: _read_gradient_boosting,
    HistGradientBoostingClassifier: _read_hist_gradient_boosting,
}


def unwrapped(model):
    """Return the estimator behind a network and a search."""
    if isinstance(model, BlackBox):
        model = model.estimator
    if isinstance(model, BaseSearchCV):
        check_is_fitted(model, "best_estimator_")
        model = model.best_estimator_
    return model


def reader(model):
    """Return what reads the trees of an estimator, or refuse it."""
    model = unwrapped(model)
    # Not subclasses: what they predict is unknown.
    if type(model) in READERS:
        check_is_fitted(model)
        return READERS[type(model)]
    names = ", ".join(kind.__name__ for kind in READERS)
    raise UnsupportedModelError(
        f"Got a {type(model).__name__}, but TreeVerifier needs one of scikit-learn's {names}."
    )
