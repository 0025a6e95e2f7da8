"""Which transformers are affine maps, and what they multiply by and add."""

from functools import partial

import numpy as np
import pytest
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.decomposition import FastICA, IncrementalPCA
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.random_projection import GaussianRandomProjection, SparseRandomProjection

from skrobust.exceptions import UnsupportedModelError
from skrobust.networks import affine, affine_map, as_network
from skrobust.networks._affine import AffineMap, read_affine

X = np.random.default_rng(0).normal([0.0, 1e3, -5.0], [1.0, 20.0, 0.1], size=(40, 3))
Y = (X[:, 0] > 0).astype(int)


@affine
def to_celsius(X):
    return (np.asarray(X) - 32.0) / 1.8


@affine
def differences(X):
    return np.diff(X, axis=1)


class Halves(TransformerMixin, BaseEstimator):
    def fit(self, X, y=None):
        self.n_features_in_ = X.shape[1]
        return self

    def transform(self, X):
        return X / 2


KNOWN = [
    IncrementalPCA(2),
    IncrementalPCA(2, whiten=True),
    FastICA(2, random_state=0),
    FastICA(whiten=False, random_state=0, max_iter=1000, tol=0.1),
    GaussianRandomProjection(2, random_state=0),
    SparseRandomProjection(2, random_state=0),
    SimpleImputer(),
    SimpleImputer(strategy="constant", fill_value=7.0),
    FunctionTransformer(to_celsius),
    FunctionTransformer(differences, validate=True),
    FunctionTransformer(affine(partial(np.dot, b=np.arange(6.0).reshape(3, 2)))),
]


@pytest.mark.parametrize("step", KNOWN, ids=lambda step: type(step).__name__)
@pytest.mark.filterwarnings("ignore:FastICA did not converge")
def test_the_map_is_what_the_step_does(step):
    step.fit(X)
    found = read_affine(step, 3)
    np.testing.assert_allclose(X @ found.matrix.T + found.bias, step.transform(X), atol=1e-8)


@pytest.mark.parametrize("indicator", [False, True])
@pytest.mark.parametrize("empty", [False, True])
@pytest.mark.filterwarnings("ignore:Skipping features without any observed values")
def test_imputers_of_gaps_at_fit(empty, indicator):
    gaps = X.copy()
    gaps[::3, 1], gaps[:, 2] = np.nan, np.nan
    step = SimpleImputer(keep_empty_features=empty, add_indicator=indicator).fit(gaps)
    found = read_affine(step, 3)
    assert len(found.bias) == 2 + empty + 2 * indicator
    np.testing.assert_array_equal(X @ found.matrix.T + found.bias, step.transform(X))


def test_an_imputer_of_numbers_is_none():
    pipeline = make_pipeline(SimpleImputer(missing_values=-1), LogisticRegression()).fit(X, Y)
    with pytest.raises(UnsupportedModelError, match=r"missing_values=-1, but expected NaN"):
        as_network(pipeline)


def test_missing_values_are_refused_as_rows():
    pipeline = make_pipeline(SimpleImputer(), LogisticRegression()).fit(X, Y)
    gap = np.where(np.eye(3) > 0, np.nan, X[:3])
    with pytest.raises(ValueError, match=r"NaN or infinity in 3 rows.*fill it in before"):
        as_network(pipeline).rows(gap)


def test_what_was_declared_is_tried():
    pipeline = make_pipeline(FunctionTransformer(affine(lambda X: X**2)), LogisticRegression())
    with pytest.raises(UnsupportedModelError, match=r"declared affine, but expected one that is"):
        as_network(pipeline.fit(X, Y))
    with pytest.raises(TypeError, match=r"function=.*but expected a function of Python"):
        affine(np.log)
    with pytest.raises(TypeError, match=r"function=.*but expected a function of Python"):
        affine(len)


def test_steps_of_users():
    model = make_pipeline(Halves(), LogisticRegression()).fit(X, Y)
    with pytest.raises(UnsupportedModelError, match=r"'halves' of the pipeline, a Halves"):
        as_network(model)
    affine_map.register(Halves, lambda step: (0.5, 0.0))
    network = as_network(model)
    found = network(network.rows(X)).numpy()[:, 1]
    np.testing.assert_allclose(found, model.decision_function(X), rtol=1e-12)
    affine_map.register(Halves, lambda step: (np.eye(2), 0.0))
    with pytest.raises(ValueError, match=r"weight of shape \(2, 2\)"):
        as_network(model)


def test_maps_after_maps():
    rng = np.random.default_rng(0)
    scale = AffineMap(np.array([2.0, 3.0]), np.array([1.0, -1.0]))
    dense = AffineMap(rng.normal(size=(2, 2)), rng.normal(size=2))
    rows = rng.normal(size=(5, 2))

    def at(z, x):
        return x @ z.matrix.T + z.bias

    for first in (scale, dense):
        for second in (scale, dense):
            np.testing.assert_allclose(at(second.after(first), rows), at(second, at(first, rows)))
    np.testing.assert_array_equal(at(dense[[1]], rows)[:, 0], at(dense, rows)[:, 1])
    np.testing.assert_array_equal(at(scale[[1, 0]], rows), at(scale, rows)[:, ::-1])
    assert scale[np.arange(2)] is scale


def test_a_scaler_without_variance():
    step = StandardScaler().fit(np.ones((4, 3)))
    found = read_affine(step, 3)
    np.testing.assert_array_equal(X * found.weight + found.bias, step.transform(X))
