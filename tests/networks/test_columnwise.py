"""Steps that change each column by itself."""

import numpy as np
import pandas as pd
import pytest
from sklearn.compose import make_column_transformer
from sklearn.decomposition import PCA
from sklearn.impute import SimpleImputer
from sklearn.preprocessing import MaxAbsScaler, MinMaxScaler, OneHotEncoder, StandardScaler

from skrobust.exceptions import UnsupportedModelError
from skrobust.networks import ColumnwiseSteps

X = np.random.default_rng(0).normal([5.0, -2.0, 300.0], [1.0, 0.1, 40.0], size=(20, 3))


def test_outputs_are_those_of_the_steps():
    front = make_column_transformer(
        (StandardScaler(), ["c", "a"]), ("drop", ["b"]), (MinMaxScaler(), ["a"])
    )
    frame = pd.DataFrame(X, columns=list("abc"))
    last = MaxAbsScaler(clip=True)
    scaled = last.fit_transform(front.fit_transform(frame))
    steps = ColumnwiseSteps([("front", front), ("last", last)])
    assert steps.column.tolist() == [2, 0, 0]
    assert (steps.slope > 0).all()
    for output, column in enumerate(steps.column):
        found = steps(np.full(20, output), X[:, column])
        np.testing.assert_array_equal(found, scaled[:, output])
        np.testing.assert_allclose(X[:, column] * steps.slope[output] + steps.bias[output], found)


def test_many_rows_in_parts(monkeypatch):
    monkeypatch.setattr("skrobust.networks._columnwise._NUMBERS", 7)
    step = MinMaxScaler(clip=True).fit(X)
    steps = ColumnwiseSteps([("scale", step)])
    found = steps(np.ones(20, dtype=int), X[:, 1])
    np.testing.assert_array_equal(found, step.transform(X)[:, 1])


def test_an_indicator_is_constant():
    gaps = X.copy()
    gaps[0, 0] = np.nan
    steps = ColumnwiseSteps([("fill", SimpleImputer(add_indicator=True).fit(gaps))])
    assert steps.slope.tolist() == [1.0, 1.0, 1.0, 0.0]


def test_what_mixes_or_encodes_is_refused():
    with pytest.raises(UnsupportedModelError, match=r"'pca' of the pipeline mix columns in 2 "):
        ColumnwiseSteps([("pca", PCA(2).fit(X))])
    with pytest.raises(UnsupportedModelError, match=r"'hot' .* encode the columns \[0, 1, 2\]"):
        ColumnwiseSteps([("hot", OneHotEncoder().fit(X.round()))])
