"""Inputs in units of a scale: the same outputs, the same rows, and refusals."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier

from skrobust.networks import BlackBox, Units, as_network, check_scale

X = np.array([[1.0, 100.0], [2.0, 300.0], [3.0, 200.0], [5.0, 500.0]])
Y = [0, 1, 0, 1]


def pipeline():
    return make_pipeline(StandardScaler(), LogisticRegression()).fit(X, Y)


@pytest.mark.parametrize("kind", ["network", "black box"])
def test_outputs_are_those_of_the_raw_rows(kind):
    model = pipeline()
    model = as_network(model) if kind == "network" else BlackBox(model, "probabilities")
    units = Units(np.array([0.3, 70.0]), (X.min(axis=0), X.max(axis=0)))
    scaled = units.model(model)
    rows = scaled.rows(units.rows(X))
    np.testing.assert_allclose(rows, X / [0.3, 70.0], rtol=1e-15)
    np.testing.assert_allclose(scaled(rows), model(model.rows(X)), rtol=1e-12)
    np.testing.assert_allclose(scaled.replay(rows), model.replay(model.rows(X)), rtol=1e-12)
    assert scaled.dtype == torch.float64 and scaled.n_features == 2


@given(st.floats(1e-6, 1e6), st.floats(-1e6, 1e6))
def test_the_way_back_stays_in_the_bounds_and_near(scale, value):
    units = Units(np.array([scale]), (np.array([value]), np.array([value + 1.0])))
    row = np.array([[value]])
    back = units.raw(units.rows(row))
    assert value <= back[0, 0] <= value + 1.0
    assert abs(back[0, 0] - value) / scale <= units.rounding(row)[0]


def test_the_spread_of_the_training_data_is_the_scalers():
    model = pipeline()
    assert check_scale("std", model, 2).tolist() == model[0].scale_.tolist()
    assert check_scale(2, model, 2).tolist() == [2.0, 2.0]
    assert check_scale(None, model, 2) is None


@pytest.mark.parametrize(
    ("scale", "message"),
    [
        ("std", "Got scale='std' with a DecisionTreeClassifier, but expected a pipeline"),
        (0.0, "Got scale=0.0, but expected None, 'std', or units above 0"),
        ([1.0, 0.0], r"scale=0.0 in feature 1.* A feature that cannot change has the epsilon 0"),
        ([1.0, -2.0], "Got scale=-2.0 in feature 1"),
        ([1.0, np.nan], "Got scale=nan in feature 1"),
        ([1.0, 2.0, 3.0], r"shape \(2,\)"),
        ("mean", "Got scale='mean'"),
        (True, "Got scale=True"),
        ([[1.0], [2.0, 3.0]], "Got scale="),
    ],
)
def test_bad_scales_are_refused(scale, message):
    with pytest.raises(ValueError, match=message):
        check_scale(scale, DecisionTreeClassifier().fit(X, Y), 2)
