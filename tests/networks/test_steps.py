"""Columns, unions, nested pipelines and encoders in front of a classifier."""

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.compose import ColumnTransformer, make_column_selector, make_column_transformer
from sklearn.decomposition import PCA, TruncatedSVD
from sklearn.feature_selection import SelectKBest, VarianceThreshold
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import FeatureUnion, Pipeline, make_pipeline, make_union
from sklearn.preprocessing import (
    FunctionTransformer,
    MaxAbsScaler,
    MinMaxScaler,
    Normalizer,
    OneHotEncoder,
    OrdinalEncoder,
    RobustScaler,
    StandardScaler,
    TargetEncoder,
)

from skrobust.attacks import PGD
from skrobust.exceptions import UnsupportedModelError, UnsupportedPropertyError
from skrobust.networks import as_network
from skrobust.networks._rows import without_names
from skrobust.pointwise import pointwise_robustness
from skrobust.properties import ClassificationRobustness, IndividualFairness, Monotonicity
from skrobust.scorers import AdversarialFrequency, ConstraintSatisfaction, ConstraintSecurity

N = 80
NAMES = ["age", "income", "debt", "region", "kind"]
CATEGORIES = {3: [0.0, 1.0, 2.5, 4.0], 4: [-1.0, 7.0]}


def table(seed=0):
    rng = np.random.default_rng(seed)
    numbers = rng.normal([40.0, 3e4, -2.0], [10.0, 8e3, 0.1], size=(N, 3))
    encoded = np.column_stack([rng.choice(v, size=N) for v in CATEGORIES.values()])
    X = np.hstack([numbers, encoded])
    y = (X[:, 0] + 8 * X[:, 3] + rng.normal(size=N) * 5 > 55).astype(int)
    return X, y


X, Y = table()
FRAME = pd.DataFrame(X, columns=NAMES)


def assert_same_outputs(pipeline, X):
    """The network computes the logits of the pipeline, and so does its replay."""
    network = as_network(pipeline)
    with without_names(), torch.no_grad():
        rows = network.rows(X)
        scores = torch.as_tensor(pipeline.decision_function(X))
        torch.testing.assert_close(network(rows)[:, 1], scores, rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(network.replay(rows)[:, 1], scores, rtol=1e-9, atol=1e-9)
    return network


def test_columns_by_name_number_slice_mask_and_function():
    chosen = [
        ["age"],
        slice("income", "debt"),
        [2],
        np.array([True, False, True, False, False]),
        slice(1, 3),
        make_column_selector("income|debt"),
        [-3, 0],
        [],
    ]
    parts = [(f"part {k}", StandardScaler(), columns) for k, columns in enumerate(chosen)]
    front = ColumnTransformer([*parts, ("none", "drop", [0])], remainder="passthrough")
    network = assert_same_outputs(make_pipeline(front, LogisticRegression()).fit(FRAME, Y), FRAME)
    assert network.n_features == 5
    weights = {"part 1": 10.0}
    front = ColumnTransformer(parts, remainder=MinMaxScaler(), transformer_weights=weights)
    assert_same_outputs(make_pipeline(front, LogisticRegression()).fit(FRAME, Y), FRAME)


def test_unions():
    front = FeatureUnion(
        [("s", StandardScaler()), ("p", "passthrough"), ("d", "drop"), ("pca", PCA(2))],
        transformer_weights={"p": 1e-4, "pca": 1e-3},
    )
    assert_same_outputs(make_pipeline(front, LogisticRegression()).fit(X, Y), X)


def test_a_scaler_of_each_column_stays_a_scale():
    front = make_column_transformer((StandardScaler(), [0, 1]), (MinMaxScaler(), [2, 3, 4]))
    network = assert_same_outputs(make_pipeline(front, LogisticRegression()).fit(X, Y), X)
    assert network.module[0].weight.shape == (5,)


STEPS = st.sampled_from(
    [
        StandardScaler(),
        MinMaxScaler(),
        MaxAbsScaler(),
        RobustScaler(),
        PCA(1),
        TruncatedSVD(1),
        SelectKBest(k=1),
        VarianceThreshold(),
        SimpleImputer(),
        FunctionTransformer(np.negative),
        "passthrough",
    ]
)


def fronts():
    """Transformers within transformers."""

    def wider(inner):
        lines = st.lists(inner, min_size=1, max_size=2).map(lambda s: make_pipeline(*s))
        unions = st.lists(inner, min_size=1, max_size=2).map(lambda s: make_union(*s))
        return lines | unions

    return st.recursive(STEPS, wider, max_leaves=4)


def columns():
    return st.lists(st.integers(0, 4), min_size=2, max_size=4, unique=True)


@pytest.mark.filterwarnings("ignore:Stochastic Optimizer")
@settings(max_examples=25, deadline=None)
@given(data=st.data(), frame=st.booleans(), seed=st.integers(0, 3))
def test_random_pipelines(data, frame, seed):
    parts = [
        (f"p{k}", data.draw(fronts()), data.draw(columns()))
        for k in range(data.draw(st.integers(1, 3)))
    ]
    remainder = data.draw(st.sampled_from(["drop", "passthrough"]))
    if frame:
        parts = [(name, step, [NAMES[j] for j in chosen]) for name, step, chosen in parts]
    front = ColumnTransformer(parts, remainder=remainder)
    X, y = table(seed)
    X = pd.DataFrame(X, columns=NAMES) if frame else X
    # Not fitted to an optimum: any weights will do.
    final = MLPClassifier((3,), max_iter=1, random_state=seed)
    pipeline = Pipeline([("front", front), ("scale", StandardScaler()), ("net", final)])
    pipeline.fit(X, y)
    network = as_network(pipeline)
    rows = network.rows(X)
    with torch.no_grad():
        p = torch.softmax(network(rows), dim=1).numpy()
    np.testing.assert_allclose(p, pipeline.predict_proba(X), rtol=1e-6, atol=1e-6)


ENCODERS = [
    OneHotEncoder(),
    OneHotEncoder(drop="first", sparse_output=False),
    OneHotEncoder(handle_unknown="ignore"),
    OneHotEncoder(max_categories=3, handle_unknown="infrequent_if_exist"),
    OrdinalEncoder(),
    TargetEncoder(),
]


@pytest.mark.parametrize("encoder", ENCODERS, ids=lambda step: type(step).__name__)
@pytest.mark.parametrize("frame", [False, True])
def test_encoders(encoder, frame):
    front = make_column_transformer((StandardScaler(), [0, 1, 2]), (encoder, [3, 4]))
    rows = FRAME if frame else X
    pipeline = make_pipeline(front, LogisticRegression()).fit(rows, Y)
    network = assert_same_outputs(pipeline, rows)
    assert {k: v.tolist() for k, v in network.categories.items()} == CATEGORIES


def test_an_encoder_of_integers_in_a_frame():
    frame = FRAME.assign(kind=np.where(X[:, 4] > 0, 3, 5))
    front = make_column_transformer((OneHotEncoder(), ["kind"]), remainder=StandardScaler())
    pipeline = make_pipeline(front, LogisticRegression()).fit(frame, Y)
    assert_same_outputs(pipeline, frame)


def encoded(final=None):
    front = make_column_transformer((StandardScaler(), [0, 1, 2]), (OneHotEncoder(), [3, 4]))
    return make_pipeline(front, LogisticRegression() if final is None else final).fit(X, Y)


def test_fixed_categories_are_verified():
    """With categories that stay, the classifier is linear: the smallest lead is known."""
    model, epsilon = encoded(), np.array([3.0, 1e3, 0.02, 0.0, 0.0])
    property = ClassificationRobustness(epsilon, bounds=None, reference="prediction")
    scale = model[0].named_transformers_["standardscaler"].scale_
    reach = np.abs(model[-1].coef_[0, :3] / scale) @ epsilon[:3]
    expected = np.abs(model.decision_function(X)) > reach
    assert 0 < expected.sum() < N
    found = ConstraintSatisfaction(property).evaluate(model, X, Y)
    np.testing.assert_array_equal(found.verdicts == "verified", expected)
    np.testing.assert_array_equal(found.verdicts == "falsified", ~expected)
    attacked = ConstraintSecurity(property, PGD()).evaluate(model, X, Y)
    np.testing.assert_array_equal(attacked.holds, expected)


def test_perturbed_categories_are_refused():
    model = encoded()
    for epsilon in (0.1, [1.0, 1.0, 1.0, 0.0, 0.5]):
        property = ClassificationRobustness(epsilon, bounds=None)
        with pytest.raises(UnsupportedPropertyError, match=r"Give one epsilon for each column"):
            ConstraintSecurity(property).evaluate(model, X, Y)
        with pytest.raises(UnsupportedPropertyError, match=r"columns .*4"):
            ConstraintSatisfaction(property).evaluate(model, X, Y)
    with pytest.raises(UnsupportedPropertyError, match=r"columns \[3, 4\]"):
        pointwise_robustness(model, X, bounds=None, epsilon_max=1.0)


def test_categories_that_a_property_moves_whatever_its_epsilon_are_refused():
    """Between the categories the network is a straight line, which no estimator computes."""
    model, bounds = encoded(), (X.min(axis=0), X.max(axis=0))
    for property in (IndividualFairness([4], bounds=bounds), Monotonicity(3, bounds=bounds)):
        for scorer in (ConstraintSecurity(property), ConstraintSatisfaction(property)):
            with pytest.raises(UnsupportedPropertyError, match=r"no protected or monotone feat"):
                scorer.evaluate(model, X, Y)
    others = IndividualFairness([0], bounds=bounds)
    assert ConstraintSatisfaction(others).evaluate(model, X, Y).n_unknown == 0


def test_categories_stay_where_distances_are_in_units():
    """Also where rounding to the unit and back makes another number of a category."""
    model, epsilon = encoded(), np.array([3.0, 1e3, 0.02, 0.0, 0.0])
    rows = X[np.abs(model.decision_function(X)).argsort()[[0, 1, 2, -1]]]
    limits = {"bounds": None, "epsilon_max": epsilon}
    plain = pointwise_robustness(model, rows, method="exact", **limits)
    assert np.isfinite(plain.radius).any()
    found = plain.adversarial_examples[np.isfinite(plain.radius)]
    assert (model.predict(found) != model.predict(rows[np.isfinite(plain.radius)])).all()
    scale = np.array([1.0, 1.0, 1.0, 0.7, 0.7])
    same = pointwise_robustness(model, rows, method="exact", scale=scale, **limits)
    np.testing.assert_allclose(same.radius, plain.radius, atol=2e-3)
    relative = AdversarialFrequency(epsilon, bounds=None, method="exact").evaluate(model, rows)
    np.testing.assert_array_equal(np.isfinite(relative.radius), np.isfinite(plain.radius))
    with pytest.raises(UnsupportedPropertyError, match=r"columns \[3, 4\]"):
        pointwise_robustness(model, X, bounds=None, epsilon_max=1.0, scale=scale)
    with pytest.raises(UnsupportedPropertyError, match=r"columns \[4\]"):
        AdversarialFrequency([*epsilon[:4], 0.5], bounds=None).evaluate(model, rows)


def test_categories_that_were_never_seen_are_refused():
    with pytest.raises(ValueError, match=r"values \[9\.0\] in column 4, .* \[-1\.0, 7\.0\]"):
        as_network(encoded()).rows(np.r_[X[:2], [[0.0, 0.0, 0.0, 1.0, 9.0]]])


def test_encoders_that_cannot_be_read():
    words = FRAME.assign(kind="a")
    front = make_column_transformer((OneHotEncoder(), ["kind"]), remainder=StandardScaler())
    model = make_pipeline(front, LogisticRegression()).fit(words, Y)
    with pytest.raises(UnsupportedModelError, match=r"categories \['a'\], but expected numbers"):
        as_network(model)
    model = make_pipeline(MinMaxScaler(), OrdinalEncoder(), LogisticRegression()).fit(X, Y)
    with pytest.raises(UnsupportedModelError, match=r"encodes what other steps"):
        as_network(model)


def test_steps_within_steps_are_refused_by_their_path():
    inner = Pipeline([("fine", StandardScaler()), ("bend", Normalizer())])
    front = ColumnTransformer([("left", "passthrough", [0]), ("right", inner, [1, 2])])
    model = Pipeline([("front", front), ("last", LogisticRegression())]).fit(X, Y)
    with pytest.raises(UnsupportedModelError, match=r"'front__right__bend' .* a Normalizer"):
        as_network(model)
