"""How models of XGBoost and LightGBM are read: from their own dumps, without importing either."""

import json

import numpy as np

from skrobust._validation import kind_of
from skrobust.exceptions import UnsupportedModelError
from skrobust.trees._ensemble import column_of, joined, last_left

__all__ = ["read_lightgbm", "read_xgboost"]

# What turns equal scores into equal probabilities, or nearly equal ones: a few units of the last
# place of numbers of size 1, in float32 and in float64.
_LINK_32, _LINK_64 = 1e-6, 1e-14

_CATEGORICAL = (
    "splits of categories, but expected numbers alone: a ball has no meaning for categories."
)


def read_xgboost(model):
    """Return the `TreeEnsemble` of a fitted XGBClassifier.

    Inputs, thresholds and sums are float32 there, and what is smaller than the threshold goes to
    the left.
    """
    kind = kind_of(model)
    if model.missing is not None and not np.isnan(model.missing):
        raise UnsupportedModelError(
            f"Got {kind} with missing={model.missing!r}, but expected NaN: trees send a number "
            "that means missing another way than its neighbors."
        )
    learner = json.loads(model.get_booster().save_raw("json"))["learner"]
    gradient_booster, objective = learner["gradient_booster"], learner["objective"]["name"]
    if gradient_booster["name"] != "gbtree":
        raise UnsupportedModelError(
            f"Got {kind} with booster={gradient_booster['name']!r}, but expected 'gbtree'."
        )
    n_classes = len(model.classes_)
    readable = "binary:logistic" if n_classes == 2 else "multi:softprob"
    if objective != readable:
        raise UnsupportedModelError(
            f"Got {kind} of {n_classes} classes with objective={objective!r}, but expected "
            f"{readable!r}, whose scores are read."
        )
    stored = gradient_booster["model"]
    start = learner["learner_model_param"]["base_score"].strip("[]").split(",")
    start = np.array(start, dtype=np.float32)
    if n_classes == 2:  # stored as a probability
        with np.errstate(divide="ignore"):
            start = -np.log(1 / start - np.float32(1))
    n_scores = 1 if n_classes == 2 else n_classes
    base = sum(
        column_of(v, k, n_classes)[0] for k, v in enumerate(np.resize(start, (n_scores, 1)))
    )
    trees = zip(stored["trees"], stored["tree_info"], strict=True)
    trees = [
        _xgboost_tree(t, k, n_classes, kind) for t, k in list(trees)[: _n_used(model, stored)]
    ]
    # A quarter of the unit: the sums of 8 units that others are given would be 8 times too wide.
    return joined(trees, base, unit=np.finfo(np.float32).eps / 4, link=_LINK_32)


def _n_used(model, stored):
    """Return how many trees `predict` sums: those up to the best iteration, if stopped early."""
    try:
        best = model.best_iteration
    except AttributeError:
        return len(stored["trees"])
    return stored["iteration_indptr"][best + 1]


def _xgboost_tree(tree, column, n_classes, kind):
    if any(tree["split_type"]):
        raise UnsupportedModelError(f"Got {kind} with {_CATEGORICAL}")
    if int(tree["tree_param"]["size_leaf_vector"]) > 1:
        raise UnsupportedModelError(
            f"Got {kind} with multi_strategy='multi_output_tree', but expected one score a tree."
        )
    # In a leaf, the condition is its value.
    condition = np.array(tree["split_conditions"], dtype=np.float32)
    left, right = (np.array(tree[side]) for side in ("left_children", "right_children"))
    below = np.nextafter(condition, np.float32(-np.inf))
    values = column_of(np.where(left < 0, condition, 0), column, n_classes)
    return np.array(tree["split_indices"]), last_left(below), left, right, values


def read_lightgbm(model):
    """Return the `TreeEnsemble` of a fitted LGBMClassifier, which computes in float64."""
    kind, dump = kind_of(model), model.booster_.dump_model()
    objective = dump.get("objective", "custom").split(" ")[0]
    n_classes = len(model.classes_)
    readable = "binary" if n_classes == 2 else "multiclass"
    if objective != readable:
        raise UnsupportedModelError(
            f"Got {kind} of {n_classes} classes with objective={objective!r}, but expected "
            f"{readable!r}, whose scores are read."
        )
    if model.booster_.params.get("linear_tree"):
        raise UnsupportedModelError(
            f"Got {kind} with linear_tree=True, but expected leaves of one value each."
        )
    per_round = dump["num_tree_per_iteration"]
    trees = [
        _lightgbm_tree(tree["tree_structure"], k % per_round, n_classes, kind)
        for k, tree in enumerate(dump["tree_info"])
    ]
    # Random forests divide the sums by the number of rounds: that changes no order.
    return joined(
        trees, np.zeros(n_classes), link=_LINK_64 * max(1, len(trees)) * _steepness(dump)
    )


def _steepness(dump):
    """Return by how much more than probabilities the scores of two classes may differ."""
    words = dict(word.split(":") for word in dump["objective"].split(" ")[1:] if ":" in word)
    return max(1.0, 1 / float(words.get("sigmoid", 1.0)))


_ZERO = float(np.float32(1e-35))  # LightGBM takes what is not larger for 0


def _lightgbm_tree(root, column, n_classes, kind):
    nodes, feature, last, left, right, values = [root], [], [], [], [], []
    for node in nodes:  # grows in the loop
        if "leaf_value" in node:
            feature.append(-1)
            last.append(0.0)
            left.append(-1)
            right.append(-1)
            values.append(node["leaf_value"])
            continue
        if node["decision_type"] != "<=":
            raise UnsupportedModelError(f"Got {kind} with {_CATEGORICAL}")
        if node["missing_type"] == "Zero":
            raise UnsupportedModelError(
                f"Got {kind} with zero_as_missing=True, but expected False: trees send a number "
                "that means missing another way than its neighbors."
            )
        feature.append(node["split_feature"])
        last.append(_last_left_of(node["threshold"]))
        for side, name in ((left, "left_child"), (right, "right_child")):
            side.append(len(nodes))
            nodes.append(node[name])
        values.append(0.0)
    columns = (np.array(v) for v in (feature, last, left, right))
    return *columns, column_of(np.array(values), column, n_classes)


def _last_left_of(threshold):
    if 0 <= threshold < _ZERO:
        return _ZERO
    if -_ZERO <= threshold < 0:
        return float(np.nextafter(-_ZERO, -np.inf))
    return threshold
