"""Pipelines of affine steps are one network in raw input space."""

from functools import partial

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.datasets import make_blobs
from sklearn.decomposition import PCA, TruncatedSVD
from sklearn.feature_selection import SelectKBest, VarianceThreshold
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    MaxAbsScaler,
    MinMaxScaler,
    Normalizer,
    PolynomialFeatures,
    QuantileTransformer,
    RobustScaler,
    StandardScaler,
)
from skorch import NeuralNetClassifier

from skrobust import RobustClassifier
from skrobust.exceptions import UnsupportedModelError
from skrobust.networks import as_network
from tests._asserts import assert_same_classifier

X, Y = make_blobs(120, 6, centers=3, cluster_std=4.0, random_state=0)
X = X * [1.0, 10.0, 0.1, 3.0, 1.0, 1.0] + [0.0, 100.0, 0.0, -5.0, 0.0, 2.0]

AFFINE = [
    StandardScaler(),
    StandardScaler(with_mean=False),
    StandardScaler(with_std=False),
    StandardScaler(with_mean=False, with_std=False),
    MinMaxScaler(),
    MinMaxScaler((-2, 3)),
    MaxAbsScaler(),
    RobustScaler(),
    RobustScaler(with_centering=False),
    RobustScaler(with_scaling=False),
    PCA(3),
    PCA(3, whiten=True),
    TruncatedSVD(3),
    SelectKBest(k=2),
    VarianceThreshold(),
    FunctionTransformer(),
    FunctionTransformer(np.negative),
    FunctionTransformer(np.positive),
    FunctionTransformer(partial(np.multiply, 0.1)),
    FunctionTransformer(partial(np.add, np.arange(6.0))),
    FunctionTransformer(partial(np.multiply, np.arange(6.0)), validate=True),
]
OTHERS = [
    Normalizer(),
    PolynomialFeatures(2),
    MinMaxScaler(clip=True),
    QuantileTransformer(n_quantiles=10),
    FunctionTransformer(np.tanh),
    FunctionTransformer(partial(np.power, 2.0)),
    FunctionTransformer(np.clip, kw_args={"a_min": 0, "a_max": 1}),
]


@pytest.mark.parametrize("step", AFFINE, ids=repr)
def test_affine_steps(step):
    pipeline = make_pipeline(step, StandardScaler(), LogisticRegression()).fit(X, Y)
    network = as_network(pipeline)
    assert network.n_features == 6
    assert_same_classifier(network, pipeline, X)
    rows = network.rows(X)
    with torch.no_grad():
        torch.testing.assert_close(network.replay(rows), network(rows), rtol=1e-6, atol=1e-8)


# No repr: that of a function holds its address, and workers of xdist must agree on names.
@pytest.mark.parametrize("step", OTHERS, ids=lambda step: type(step).__name__)
def test_other_steps_are_refused_by_name(step):
    pipeline = Pipeline(
        [("first", StandardScaler()), ("bend", step), ("last", LogisticRegression(C=1e-3))]
    ).fit(X, Y)
    kind = type(step).__name__
    with pytest.raises(UnsupportedModelError, match=rf"The step 'bend' of the pipeline, a {kind}"):
        as_network(pipeline)


def test_several_steps_of_several_kinds():
    steps = StandardScaler(), PCA(4, whiten=True), "passthrough", MinMaxScaler(), SelectKBest(k=3)
    pipeline = make_pipeline(*steps, LogisticRegression()).fit(X, Y)
    assert_same_classifier(as_network(pipeline), pipeline, X)


def test_gradients_are_those_of_the_raw_input():
    pipeline = make_pipeline(StandardScaler(), LogisticRegression()).fit(X, Y)
    network = as_network(pipeline)
    x = network.rows(X[:1]).requires_grad_()
    (gradient,) = torch.autograd.grad(network(x)[0, 1], x)
    expected = pipeline[-1].coef_[1] / pipeline[0].scale_
    np.testing.assert_allclose(gradient[0].numpy(), expected)


def test_a_pipeline_of_the_classifier_alone():
    pipeline = make_pipeline(LogisticRegression(C=1e-3, max_iter=5000)).fit(X, Y)
    assert_same_classifier(as_network(pipeline), pipeline, X)
    pipeline = make_pipeline(None, "passthrough", pipeline[-1])
    assert_same_classifier(as_network(pipeline), pipeline, X)


def test_a_robust_classifier_after_steps():
    pipeline = make_pipeline(
        MinMaxScaler(), PCA(4), RobustClassifier(max_epochs=3, random_state=0)
    ).fit(X, Y)
    network = as_network(pipeline)
    # The steps are computed in float64, as they compute themselves.
    assert network.dtype == torch.float64
    assert next(network.module[-2].parameters()).dtype == torch.float32
    assert_same_classifier(network, pipeline, X)


def test_large_raw_units_lose_nothing():
    far = X + 1e6
    pipeline = make_pipeline(StandardScaler(), RobustClassifier(max_epochs=3, random_state=0))
    pipeline.fit(far, Y)
    network = as_network(pipeline)
    with torch.no_grad():
        found = network(network.rows(far)).numpy()
    np.testing.assert_allclose(found, pipeline.decision_function(far), atol=1e-4)


def test_a_skorch_classifier_after_steps():
    net = NeuralNetClassifier(
        torch.nn.Linear(6, 3), criterion=torch.nn.CrossEntropyLoss, verbose=0, train_split=None
    )
    to_float32 = X.astype(np.float32)
    pipeline = make_pipeline(StandardScaler(), net).fit(to_float32, Y)
    assert_same_classifier(as_network(pipeline), pipeline, to_float32)


def test_frames_as_output_and_as_input():
    frame = pd.DataFrame(X, columns=list("abcdef"))
    pipeline = make_pipeline(StandardScaler(), LogisticRegression()).fit(frame, Y)
    network = as_network(pipeline)
    assert_same_classifier(network, pipeline, frame)
    rows = network.rows(frame)
    # The steps know column names, which rows have not: no warning of that.
    with torch.no_grad():
        torch.testing.assert_close(network.replay(rows), network(rows))
    pipeline.set_output(transform="pandas").fit(X, Y)
    network = as_network(pipeline)
    rows = network.rows(X)
    with torch.no_grad():
        torch.testing.assert_close(network.replay(rows), network(rows))


def test_replay_has_the_precision_of_the_estimator():
    # Fitted on float32, and asked for float64 rows: both steps then compute in float64.
    for final in (LogisticRegression(), MLPClassifier(4, solver="lbfgs", max_iter=5000)):
        pipeline = make_pipeline(StandardScaler(), final).fit(X.astype(np.float32), Y)
        network = as_network(pipeline)
        found = network.replay(network.rows(X))
        assert found.dtype == torch.float64
        p = torch.softmax(found, dim=1).numpy()
        np.testing.assert_allclose(p, pipeline.predict_proba(X), rtol=1e-12, atol=1e-15)
