"""TorchClassifier: a given module as a fitted classifier."""

import numpy as np
import pytest
import torch
from sklearn.base import clone

from skrobust import TorchClassifier


@pytest.fixture
def given():
    module = torch.nn.Linear(4, 2)
    with torch.no_grad():
        module.weight.copy_(torch.tensor([[1.0, 0, 0, 0], [0, 1.0, 0, 0]]))
        module.bias.zero_()
    return module


def test_torch_classifier_is_fitted(given):
    model = TorchClassifier(given, ["left", "right"])
    X = [[1.0, 0.0, 0.0, 0.0], [0.0, 2.0, 0.0, 0.0]]
    assert model.predict(X).tolist() == ["left", "right"]
    np.testing.assert_allclose(model.decision_function(X), [-1.0, 2.0])
    np.testing.assert_allclose(model.predict_proba(X)[0, 0], 1 / (1 + np.exp(-1)), rtol=1e-6)
    assert model.score(X, ["left", "left"]) == 0.5
    assert model.fit(X, ["left", "left"]).predict(X).tolist() == ["left", "right"]


def test_torch_classifier_clone_predicts_the_same(given):
    model = clone(TorchClassifier(given, 2))
    assert model.module is not given
    assert model.predict([[0.0, 1.0, 0.0, 0.0]]).tolist() == [1]


def test_torch_classifier_takes_images_as_images_or_rows(given):
    module = torch.nn.Sequential(torch.nn.Flatten(), given)
    X = np.random.default_rng(0).random((5, 1, 2, 2))
    as_images = TorchClassifier(module, 2)
    as_rows = TorchClassifier(module, 2, input_shape=(1, 2, 2))
    np.testing.assert_array_equal(as_images._logits(X), as_rows._logits(X.reshape(5, 4)))
    np.testing.assert_array_equal(as_images._logits(X), as_rows._logits(X))


def test_torch_classifier_refuses(given):
    X = np.full((3, 4), 0.5)
    with pytest.raises(ValueError, match=r"3 of 3 rows of X lie outside, by up to 0\.25"):
        TorchClassifier(given, 2, bounds=(0, 0.25)).predict(X)
    with pytest.raises(
        ValueError, match=r"outputs of shape \(3, 2\) for 3 rows, but expected \(3, 3\)"
    ):
        TorchClassifier(given, 3).predict(X)
    with pytest.raises(TypeError, match="Got module='linear', but expected a Module"):
        TorchClassifier("linear", 2).predict(X)
    with pytest.raises(ValueError, match="NaN"):
        TorchClassifier(given, 2).predict(X * np.nan)
