"""How scikit-learn's trees and ensembles are read."""

import numpy as np
from sklearn.ensemble import (
    ExtraTreesClassifier,
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
)
from sklearn.pipeline import Pipeline
from sklearn.tree import DecisionTreeClassifier, ExtraTreeClassifier
from sklearn.utils.validation import check_is_fitted

from skrobust._validation import kind_of
from skrobust.exceptions import UnsupportedModelError, UnsupportedPropertyError
from skrobust.networks import BlackBox
from skrobust.properties import ClassificationRobustness, Monotonicity
from skrobust.trees._ensemble import TreeEnsemble, last_left

__all__ = [
    "check_tree_model",
    "check_tree_property",
    "is_single_tree",
    "is_tree_model",
    "read_trees",
    "unwrapped",
]


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


def _read_decision_tree(model):
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
            f"Got {kind_of(model)} with {model.n_outputs_} outputs, but expected one "
            "class a sample."
        )
    if model.n_classes_ < 2:
        raise UnsupportedModelError(
            f"Got {kind_of(model)} of one class, but expected two or more."
        )


def _column(values, column, n_classes):
    """Return values of one score as (n, n_classes); a binary model scores the second class."""
    placed = np.zeros((len(values), n_classes))
    placed[:, 1 if n_classes == 2 else column] = values
    return placed


# The only private names of scikit-learn that are used here. There are no public ones: what
# boosting starts from, and the trees of its histogram form, are not otherwise to be had. The
# tests against `predict` fail where these change their meaning.


def _initial_scores(model):
    """Return the scores that a GradientBoostingClassifier starts from, (n_scores,)."""
    return model._raw_predict_init(np.zeros((1, model.n_features_in_), dtype=np.float32))[0]


def _histogram_stages(model):
    """Return the predictors of a HistGradientBoostingClassifier, and its initial scores."""
    return model._predictors, np.ravel(model._baseline_prediction)


def _read_gradient_boosting(model):
    if model.init is not None and model.init != "zero":
        raise UnsupportedModelError(
            "Got a GradientBoostingClassifier that starts from another estimator, but expected "
            "init=None or 'zero'."
        )
    n_classes = len(model.classes_)
    start = _initial_scores(model)
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
    stages, start = _histogram_stages(model)
    for stage in stages:
        for k, predictor in enumerate(stage):
            nodes = predictor.nodes
            is_leaf = nodes["is_leaf"].astype(bool)
            left, right = (
                np.where(is_leaf, -1, nodes[side].astype(np.int64)) for side in ("left", "right")
            )
            values = _column(nodes["value"], k, n_classes)
            # Inputs stay in float64 here, so that thresholds are as they are.
            trees.append((nodes["feature_idx"], nodes["num_threshold"], left, right, values))
    base = sum(_column(start[[k]], k, n_classes)[0] for k in range(len(start)))
    return _joined(trees, base)


_READERS = {
    DecisionTreeClassifier: _read_decision_tree,
    ExtraTreeClassifier: _read_decision_tree,
    RandomForestClassifier: _read_forest,
    ExtraTreesClassifier: _read_forest,
    GradientBoostingClassifier: _read_gradient_boosting,
    HistGradientBoostingClassifier: _read_hist_gradient_boosting,
}


def unwrapped(model):
    """Return the estimator behind a network and a search."""
    if isinstance(model, BlackBox):
        model = model.estimator
    if hasattr(model, "best_estimator_"):  # any of scikit-learn's searches, fitted
        model = model.best_estimator_
    return model


def is_tree_model(model):
    """Return whether `read_trees` reads estimators of this kind.

    Parameters
    ----------
    model : object
        An estimator, or what stands for one; fitted or not.

    Returns
    -------
    bool
    """
    # Not subclasses: what they predict is unknown.
    return type(unwrapped(model)) in _READERS


def is_single_tree(model):
    """Return whether an estimator is one decision tree.

    Parameters
    ----------
    model : object
        As for `is_tree_model`.

    Returns
    -------
    bool
    """
    return _READERS.get(type(unwrapped(model))) is _read_decision_tree


def check_tree_model(model):
    """Refuse an estimator that `read_trees` does not read.

    Parameters
    ----------
    model : object
        As for `is_tree_model`.

    Raises
    ------
    UnsupportedModelError
    """
    if is_tree_model(model):
        return
    model = unwrapped(model)
    names = ", ".join(kind.__name__ for kind in _READERS)
    hint = ""
    if isinstance(model, Pipeline) and is_tree_model(model[-1]):
        hint = (
            f" Its last step is one, a {type(unwrapped(model[-1])).__name__}: verify that step "
            "on the data that the steps before it return, model[:-1].transform(X), in whose "
            "units epsilon then is; or leave these steps out, since trees need no scaling."
        )
    raise UnsupportedModelError(
        f"Got {kind_of(model)}, but TreeVerifier needs one of scikit-learn's {names}.{hint}"
    )


def check_tree_property(estimator, property):
    """Refuse properties of trees that nothing verifies, whatever outputs they are stated for.

    Parameters
    ----------
    estimator : object
    property : RobustnessProperty

    Raises
    ------
    UnsupportedPropertyError
        If the estimator is one of trees, and the property another than classification
        robustness.
    """
    treated = (ClassificationRobustness, Monotonicity)
    if is_tree_model(estimator) and not isinstance(property, treated):
        raise UnsupportedPropertyError(
            f"Got {kind_of(property)}, but the outputs of trees are steps, of which "
            "verifiers treat ClassificationRobustness and Monotonicity. Use these, or look for "
            "counterexamples by ConstraintSecurity(property, UniformSampling()), with "
            "output='probabilities' on the property."
        )


def read_trees(model):
    """Return the `TreeEnsemble` of a fitted estimator of trees, or of what stands for one.

    Parameters
    ----------
    model : object
        An estimator, a search over it, or the `~skrobust.networks.BlackBox` of one.

    Raises
    ------
    UnsupportedModelError
        If it is of another kind, or of one class, or has several outputs.
    NotFittedError
    """
    check_tree_model(model)
    model = unwrapped(model)
    check_is_fitted(model)
    return _READERS[type(model)](model)
