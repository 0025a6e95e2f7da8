"""Models of XGBoost and LightGBM: the same labels, right at the thresholds too."""

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from skrobust.attacks import UniformSampling
from skrobust.exceptions import UnsupportedModelError
from skrobust.properties import ClassificationRobustness
from skrobust.scorers import ConstraintSatisfaction, ConstraintSecurity
from skrobust.trees import read_trees
from skrobust.verification import TreeVerifier
from tests.trees._models import data

try:
    import lightgbm
    import xgboost
except ImportError:
    pytest.skip("needs the extra 'trees'", allow_module_level=True)

SMALL = {"n_estimators": 5, "random_state": 0, "n_jobs": 1}
XGB = xgboost.XGBClassifier(max_depth=3, **SMALL)
XGBRF = xgboost.XGBRFClassifier(max_depth=3, **SMALL)
LGBM = lightgbm.LGBMClassifier(num_leaves=6, min_child_samples=3, verbose=-1, **SMALL)
MODELS = {
    "xgboost": XGB,
    "xgboost, many rounds": clone(XGB).set_params(n_estimators=40, learning_rate=0.05),
    "xgboost, base_score": clone(XGB).set_params(base_score=0.3),
    "xgboost, forest": XGBRF,
    "lightgbm": LGBM,
    "lightgbm, steep": clone(LGBM).set_params(sigmoid=3.0),
    "lightgbm, forest": clone(LGBM).set_params(
        boosting_type="rf", subsample=0.7, subsample_freq=1
    ),
    "lightgbm, dart": clone(LGBM).set_params(boosting_type="dart", drop_rate=0.5),
}


def fit(model, n_classes=3, seed=0):
    X, y = data(n_classes, seed=seed)
    return clone(model).fit(X, y), X, y


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("name", MODELS)
@pytest.mark.filterwarnings("ignore:X does not have valid feature names")
def test_labels_on_both_sides_of_each_threshold(name, n_classes):
    model, X, _ = fit(MODELS[name], n_classes)
    trees = read_trees(model)
    inner = np.flatnonzero(trees.feature >= 0)
    index, feature = np.arange(len(inner)), trees.feature[inner]
    many = [X]
    for side in (trees.last[inner], np.nextafter(trees.last[inner], np.inf)):
        rows = X[index % len(X)].copy()
        rows[index, feature] = side
        many.append(rows)
    rows = np.concatenate(many)
    scores = trees.scores(rows)
    top = np.sort(scores, axis=1)
    clear = top[:, -1] - top[:, -2] > trees.slack
    assert clear.mean() > 0.9
    found = model.classes_[scores.argmax(axis=1)]
    np.testing.assert_array_equal(found[clear], model.predict(rows)[clear])


def test_scores_are_the_raw_ones():
    for n_classes in (2, 3):
        for model in (XGB, LGBM):
            model, X, _ = fit(model, n_classes)
            by = "output_margin" if isinstance(model, xgboost.XGBModel) else "raw_score"
            raw = model.predict(X, **{by: True})
            scores = read_trees(model).scores(X)
            scores = scores[:, 1] - scores[:, 0] if n_classes == 2 else scores
            np.testing.assert_allclose(scores, raw, atol=1e-5)


def test_the_base_of_one_class():
    model = fit(clone(XGB).set_params(base_score=0.3, n_estimators=1), 2)[0]
    assert read_trees(model).base == pytest.approx([0.0, np.log(0.3 / 0.7)])


def test_trees_up_to_the_best_round():
    X, y = data(2)
    model = clone(XGB).set_params(n_estimators=60, learning_rate=1.0, early_stopping_rounds=2)
    model.fit(X[:30], y[:30], eval_set=[(X[30:], y[30:])], verbose=False)
    trees = read_trees(model)
    assert len(trees.roots) == model.best_iteration + 1 < 60
    scores = trees.scores(X)
    np.testing.assert_allclose(scores[:, 1], model.predict(X, output_margin=True), atol=1e-5)


@pytest.mark.parametrize("name", ["xgboost", "lightgbm"])
def test_the_scorers(name):
    """Verdicts against samples of the ball, with raw units and names of columns."""
    X, y = data(3, n_features=3)
    frame = pd.DataFrame(X * [1e3, 1.0, 1e-3], columns=list("abc"))
    model = make_pipeline(StandardScaler(), clone(MODELS[name])).fit(frame, y)
    property = ClassificationRobustness([20.0, 0.02, 2e-5], bounds=None, reference="prediction")
    proved = ConstraintSatisfaction(property, TreeVerifier()).evaluate(model, frame, y)
    assert set(proved.verdicts) == {"verified", "falsified"}
    points = proved.counterexamples[proved.verdicts == "falsified"]
    before = model.predict(frame)[proved.verdicts == "falsified"]
    assert (model.predict(pd.DataFrame(points, columns=list("abc"))) != before).all()
    attack = UniformSampling(n_samples=200)
    attacked = ConstraintSecurity(property, attack, random_state=0).evaluate(model, frame, y)
    assert attacked.holds[proved.verdicts == "verified"].all()


def test_numbers_next_to_zero():
    """LightGBM takes the smallest numbers for 0."""
    X = np.array([[-1.0], [-1e-40], [0.0], [1e-40], [1.0]] * 8)
    y = (X[:, 0] > 0.5).astype(int) + (X[:, 0] >= 0)
    model = clone(LGBM).set_params(min_child_samples=1, num_leaves=4).fit(X, y)
    trees, tiny = read_trees(model), float(np.float32(1e-35))
    inner = trees.feature >= 0
    rows = [-tiny, np.nextafter(-tiny, -1), tiny, np.nextafter(tiny, 1), 1e-36, -1e-36]
    rows = np.concatenate([rows, trees.last[inner], np.nextafter(trees.last[inner], 2)])[:, None]
    raw = model.predict(rows, raw_score=True)
    np.testing.assert_allclose(trees.scores(rows), raw, rtol=1e-12)


def test_what_is_not_read_is_refused():
    X, y = data(2)
    codes = pd.DataFrame({"a": pd.Categorical(np.floor(X[:, 0] * 4).astype(int)), "b": X[:, 1]})
    refused = [
        (clone(XGB).set_params(missing=-1.0), X, r"missing=-1\.0, but expected NaN"),
        (clone(XGB).set_params(booster="dart"), X, "booster='dart', but expected 'gbtree'"),
        (clone(XGB).set_params(objective="binary:hinge"), X, "objective='binary:hinge'"),
        (clone(XGB).set_params(objective="multi:softprob", num_class=2), X, "'multi:softprob'"),
        (clone(LGBM).set_params(objective="multiclass", num_class=2), X, "of 2 classes with"),
        (clone(XGB).set_params(enable_categorical=True), codes, "splits of categories"),
        (clone(LGBM).set_params(min_data_per_group=1, cat_smooth=0), codes, "of categories"),
        (clone(LGBM).set_params(objective="cross_entropy"), X, "objective='cross_entropy'"),
        (clone(LGBM).set_params(linear_tree=True), X, "linear_tree=True"),
        (clone(LGBM).set_params(zero_as_missing=True), X, "zero_as_missing=True"),
    ]
    for model, rows, reason in refused:
        with pytest.raises(UnsupportedModelError, match=reason):
            read_trees(model.fit(rows, y))
    X, y = data(3)
    model = clone(XGB).set_params(multi_strategy="multi_output_tree", tree_method="hist")
    with pytest.raises(UnsupportedModelError, match="multi_strategy"):
        read_trees(model.fit(X, y))
