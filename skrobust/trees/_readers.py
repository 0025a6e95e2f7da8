"""Which estimators are read as trees; how those of scikit-learn are."""

import numpy as np
from sklearn.ensemble import (
    ExtraTreesClassifier,
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
)
from sklearn.frozen import FrozenEstimator
from sklearn.pipeline import Pipeline
from sklearn.tree import DecisionTreeClassifier, ExtraTreeClassifier
from sklearn.utils.validation import check_is_fitted

from skrobust._validation import kind_of
from skrobust.exceptions import UnsupportedModelError, UnsupportedPropertyError
from skrobust.networks import BlackBox
from skrobust.properties import ClassificationRobustness, Monotonicity
from skrobust.trees._behind_steps import behind_steps
from skrobust.trees._boosted import read_lightgbm, read_xgboost
from skrobust.trees._ensemble import column_of, joined, last_left

__all__ = [
    "check_tree_model",
    "check_tree_property",
    "is_single_tree",
    "is_tree_model",
    "read_trees",
    "unwrapped",
]


def _sklearn_tree(tree, values):
    return tree.feature, last_left(tree.threshold), tree.children_left, tree.children_right, values


def _read_decision_tree(model):
    _check_outputs(model)
    # A single tree predicts the largest value of its leaf.
    tree = _sklearn_tree(model.tree_, model.tree_.value[:, 0, :])
    return joined([tree], np.zeros(len(model.classes_)), votes=True)


def _read_forest(model):
    _check_outputs(model)
    trees = [_sklearn_tree(e.tree_, e.tree_.value[:, 0, :]) for e in model.estimators_]
    return joined(trees, np.zeros(len(model.classes_)), votes=True)


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
            tree.tree_, column_of(model.learning_rate * tree.tree_.value[:, 0, 0], k, n_classes)
        )
        for stage in model.estimators_
        for k, tree in enumerate(stage)
    ]
    base = sum(column_of(start[[k]], k, n_classes)[0] for k in range(len(start)))
    return joined(trees, base, "last" if n_classes == 2 else "first")


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
            values = column_of(nodes["value"], k, n_classes)
            # Inputs stay in float64 here, so that thresholds are as they are.
            trees.append((nodes["feature_idx"], nodes["num_threshold"], left, right, values))
    base = sum(column_of(start[[k]], k, n_classes)[0] for k in range(len(start)))
    return joined(trees, base)


_READERS = {
    DecisionTreeClassifier: _read_decision_tree,
    ExtraTreeClassifier: _read_decision_tree,
    RandomForestClassifier: _read_forest,
    ExtraTreesClassifier: _read_forest,
    GradientBoostingClassifier: _read_gradient_boosting,
    HistGradientBoostingClassifier: _read_hist_gradient_boosting,
}
# Classes of packages that may not be installed, by where they say that they are.
_READERS_BY_PLACE = {
    "xgboost.sklearn.XGBClassifier": read_xgboost,
    "xgboost.sklearn.XGBRFClassifier": read_xgboost,
    "lightgbm.sklearn.LGBMClassifier": read_lightgbm,
}


def _reader(model):
    """Return the reader of an estimator, or None. Not of subclasses: who knows what they do."""
    kind = type(model)
    place = f"{kind.__module__}.{kind.__qualname__}"
    return _READERS.get(kind) or _READERS_BY_PLACE.get(place)


def unwrapped(model):
    """Return the estimator behind a network, a search, and what else holds just one.

    Of a pipeline with steps that do something, the pipeline.
    """
    if isinstance(model, BlackBox):
        return unwrapped(model.estimator)
    if hasattr(model, "best_estimator_"):  # any of scikit-learn's searches, fitted
        return unwrapped(model.best_estimator_)
    if isinstance(model, FrozenEstimator):
        return unwrapped(model.estimator)
    if isinstance(model, Pipeline) and len(model.steps) == 1:
        return unwrapped(model.steps[0][1])
    return model


def _last(model):
    """Return the estimator of trees behind all else."""
    model = unwrapped(model)
    return _last(model.steps[-1][1]) if isinstance(model, Pipeline) else model


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
    return _reader(_last(model)) is not None


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
    return _reader(_last(model)) is _read_decision_tree


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
    places = [*(kind.__name__ for kind in _READERS), *_READERS_BY_PLACE]
    names = ", ".join(place.rpartition(".")[2] for place in places)
    raise UnsupportedModelError(
        f"Got {kind_of(unwrapped(model))}, but TreeVerifier needs one of {names}, also behind "
        "scalers of a pipeline."
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
        An estimator, a search over it, a pipeline that ends in one, or the
        `~skrobust.networks.BlackBox` of one.

    Raises
    ------
    UnsupportedModelError
        If it is of another kind, or of one class, or has several outputs.
    NotFittedError
    """
    check_tree_model(model)
    model = unwrapped(model)
    check_is_fitted(model)
    if not isinstance(model, Pipeline):
        return _reader(model)(model)
    return behind_steps(model.steps[:-1], read_trees(model.steps[-1][1]))
