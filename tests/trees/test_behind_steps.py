"""Trees behind scalers: thresholds in raw units, to the last bit."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.compose import make_column_transformer
from sklearn.decomposition import PCA
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.feature_selection import SelectKBest
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline, make_union
from sklearn.preprocessing import (
    FunctionTransformer,
    MaxAbsScaler,
    MinMaxScaler,
    Normalizer,
    OrdinalEncoder,
    RobustScaler,
    StandardScaler,
)
from sklearn.tree import DecisionTreeClassifier

from skrobust.attacks import UniformSampling
from skrobust.exceptions import UnsupportedModelError
from skrobust.networks import ColumnwiseSteps
from skrobust.properties import ClassificationRobustness
from skrobust.scorers import ConstraintAccuracy, ConstraintSatisfaction, ConstraintSecurity
from skrobust.trees import read_trees
from skrobust.trees._behind_steps import behind_steps
from skrobust.verification import TreeVerifier, tree_distances

FRONTS = [
    StandardScaler(),
    MinMaxScaler(),
    MinMaxScaler((0, 3), clip=True),
    MaxAbsScaler(clip=True),
    RobustScaler(),
    SelectKBest(k=2),
    FunctionTransformer(np.negative),
    make_union(StandardScaler(), FunctionTransformer(np.negative)),
    make_column_transformer((StandardScaler(), [2, 0]), remainder="passthrough"),
    make_pipeline(MinMaxScaler(), FunctionTransformer(np.negative), StandardScaler()),
]
TREES = [
    DecisionTreeClassifier(max_depth=4, random_state=0),
    RandomForestClassifier(4, max_depth=3, random_state=0),
    HistGradientBoostingClassifier(max_iter=3, min_samples_leaf=3),
]


def data(seed=0, n=60):
    rng = np.random.default_rng(seed)
    X = rng.normal([1e6, -0.3, 0.0], [30.0, 0.1, 1e-4], size=(n, 3))
    return X, (X[:, 0] - 1e6 + 300 * X[:, 1] + rng.normal(scale=9.0, size=n) > -90).astype(int)


def labels(trees, X):
    scores = trees.scores(X)
    if trees.ties == "first":
        return scores.argmax(axis=1)
    return scores.shape[1] - 1 - scores[:, ::-1].argmax(axis=1)


@pytest.mark.parametrize("final", TREES, ids=lambda model: type(model).__name__)
@pytest.mark.parametrize("front", FRONTS, ids=lambda step: type(step).__name__)
def test_labels_on_both_sides_of_each_threshold(front, final):
    X, y = data()
    model = make_pipeline(front, final).fit(X, y)
    trees = read_trees(model)
    np.testing.assert_array_equal(labels(trees, X), model.predict(X))
    inner = np.flatnonzero((trees.feature >= 0) & np.isfinite(trees.last))
    base = X[np.arange(len(inner)) % len(X)]
    feature, index = trees.feature[inner], np.arange(len(inner))
    for k, side in enumerate((trees.last[inner], np.nextafter(trees.last[inner], np.inf))):
        rows = base.copy()
        rows[index, feature] = side
        np.testing.assert_array_equal(labels(trees, rows), model.predict(rows))
        # The nodes themselves: one float apart, the two sides.
        np.testing.assert_array_equal(rows[index, feature] <= trees.last[inner], k == 0)


@settings(max_examples=25, deadline=None)
@given(
    threshold=st.floats(-1e6, 1e6),
    shift=st.floats(-1e6, 1e6),
    scale=st.floats(1e-6, 1e6),
    sign=st.sampled_from([-1.0, 1.0]),
)
def test_the_last_float_on_a_side(threshold, shift, scale, sign):
    step = StandardScaler().fit(np.zeros((2, 1)))
    step.mean_, step.scale_ = np.array([shift]), np.array([scale])
    steps = [("scale", step)]
    if sign < 0:
        steps.append(("turn", FunctionTransformer(np.negative).fit(np.zeros((1, 1)))))
    tree = DecisionTreeClassifier().fit([[0.0], [1.0]], [0, 1])
    within = read_trees(tree)
    within.last[0] = threshold
    last = behind_steps(steps, within).last[0]
    sides = np.array([last, np.nextafter(last, np.inf)])
    goes_left = ColumnwiseSteps(steps)([0, 0], sides) <= threshold
    assert goes_left.tolist() == ([True, False] if sign > 0 else [False, True])


def test_verdicts_are_those_of_the_tree_on_scaled_data():
    X, y = data()
    scale = np.array([4.0, 0.25, 2.0**-12])  # exact
    front = FunctionTransformer(lambda X: X / scale)
    front.func.is_affine = True
    for final in TREES[:2]:
        raw = make_pipeline(front, final).fit(X, y)
        inner = raw[-1]
        property = ClassificationRobustness(0.5, bounds=None)
        expected = TreeVerifier().verify(inner, X / scale, y, property=property)
        found = TreeVerifier().verify(
            raw, X, y, property=ClassificationRobustness(0.5 * scale, bounds=None)
        )
        np.testing.assert_array_equal(found.verdicts, expected.verdicts)
        assert {"verified", "falsified"} == set(found.verdicts)
    single = make_pipeline(StandardScaler(), TREES[0]).fit(X, y)
    distance = tree_distances(single, X)
    assert np.isfinite(distance).all() and (distance > 0).all()


def test_every_scorer_takes_a_scaled_forest():
    X, y = data()
    frame = pd.DataFrame(X, columns=list("abc"))
    pipeline = make_pipeline(StandardScaler().set_output(transform="pandas"), TREES[1])
    search = GridSearchCV(pipeline, {"randomforestclassifier__max_depth": [3]}, cv=2)
    search.fit(frame, y)
    property = ClassificationRobustness([3.0, 0.01, 1e-5], bounds=None)
    proved = ConstraintSatisfaction(property).evaluate(search, frame, y)
    assert set(proved.verdicts) == {"verified", "falsified"}
    sampled = ConstraintAccuracy(property, random_state=0).evaluate(search, frame, y)
    assert (sampled.shares[proved.verdicts == "verified"] == 1).all()
    attacked = ConstraintSecurity(property, UniformSampling()).evaluate(search, frame, y)
    assert attacked.holds[proved.verdicts == "verified"].all()


def test_steps_that_mix_or_bend_are_refused():
    X, y = data()
    codes = np.c_[X[:, :1], np.arange(60) % 3]
    for model, rows, reason in [
        (make_pipeline(PCA(2), TREES[0]), X, "mix columns in 2 features"),
        (
            make_pipeline(Normalizer(), TREES[0]),
            X - X.mean(axis=0),
            "'normalizer' of the pipeline, a Normalizer",
        ),
        (
            make_pipeline(make_column_transformer((OrdinalEncoder(), [1])), TREES[0]),
            codes,
            r"encode the columns \[1\] as categories",
        ),
    ]:
        with pytest.raises(UnsupportedModelError, match=reason):
            read_trees(model.fit(rows, y))
