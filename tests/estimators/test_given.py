"""TorchClassifier: a given module as a fitted classifier."""

import copy

import numpy as np
import pytest
import torch
from sklearn.base import clone

from skrobust import TorchClassifier
from skrobust.exceptions import UnsupportedModelError
from skrobust.networks import as_network
from skrobust.properties import ClassificationRobustness
from skrobust.scorers import ConstraintSecurity
from tests.estimators._models import compiled, scripted


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
        ValueError, match=r"outputs of shape \(2, 2\) for 2 rows, but expected \(2, 3\)"
    ):
        TorchClassifier(given, 3).predict(X)
    with pytest.raises(TypeError, match="Got module='linear', but expected a Module"):
        TorchClassifier("linear", 2).predict(X)
    with pytest.raises(ValueError, match="NaN"):
        TorchClassifier(given, 2).predict(X * np.nan)


# ---- bad input, and odd but legitimate input --------------------


class Several(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = torch.nn.Linear(4, 2)

    def forward(self, x):
        return self.inner(x), x


X = np.random.default_rng(0).random((5, 4))


@pytest.mark.parametrize(
    ("module", "error", "message"),
    [
        (Several(), UnsupportedModelError, "Got a module that returns a tuple, but expected"),
        (torch.nn.LSTM(4, 2), UnsupportedModelError, "in one that returns the logits alone"),
        (torch.nn.Linear(4, 2).bfloat16(), UnsupportedModelError, r"with module\.float\(\)"),
        (
            torch.nn.Linear(4, 3),
            ValueError,
            r"outputs of shape \(2, 3\) for 2 rows, but expected \(2, 2\)",
        ),
        (torch.nn.Linear(3, 2), ValueError, "Got X with 4 features, but expected 3"),
        (torch.nn.Conv2d(1, 2, 2), UnsupportedModelError, "fails on rows of shape \\(n, 4\\)"),
    ],
)
def test_modules_that_are_refused(module, error, message):
    for method in ("predict", "predict_proba", "decision_function"):
        with pytest.raises(error, match=message):
            getattr(TorchClassifier(module, 2), method)(X)


@pytest.mark.parametrize("module", [Several(), torch.nn.Linear(4, 3)], ids=["several", "wide"])
def test_scorers_refuse_them_as_well(module):
    first = torch.nn.Sequential(torch.nn.Linear(4, 4), module)
    scorer = ConstraintSecurity(ClassificationRobustness(0.1))
    with pytest.raises((UnsupportedModelError, ValueError), match="Got a module"):
        scorer.evaluate(TorchClassifier(first, 2), X, np.arange(5) % 2)


@pytest.mark.parametrize("classes", [2**31, 2**70, np.int64(2**40)])
def test_a_mistaken_number_of_classes_takes_no_memory(given, classes):
    with pytest.raises(ValueError, match=r"Got classes=.*, but expected"):
        TorchClassifier(given, classes).predict(X)


@pytest.mark.parametrize("classes", [0, -1, True, 2.5, "ab", ["a", "a"], [[0, 1]]])
def test_classes_that_are_none(given, classes):
    with pytest.raises(ValueError, match="Got classes="):
        TorchClassifier(given, classes).predict(X)


def test_values_that_become_infinite_are_refused(given):
    huge = X.copy()
    huge[1:3, 0] = 1e300
    for method in ("predict", "predict_proba"):
        with pytest.raises(ValueError, match=r"but expected values that are finite in float32"):
            getattr(TorchClassifier(given, 2), method)(huge)
    # In float64 they are not.
    assert np.isfinite(TorchClassifier(copy.deepcopy(given).double(), 2).predict_proba(huge)).all()


def test_outputs_that_are_nan_are_refused():
    layers = torch.nn.Linear(4, 4), torch.nn.Linear(4, 2)
    for layer in layers:
        torch.nn.init.constant_(layer.weight, 1.0)
    torch.nn.init.constant_(layers[1].weight[0, :2], -1.0)
    model = TorchClassifier(torch.nn.Sequential(*layers), 2)
    with pytest.raises(ValueError, match="Got a module whose outputs are NaN in 1 rows of X"):
        model.predict(np.vstack([X, np.full((1, 4), 3e38)]))


def odd(X):
    return {
        "reversed": X[::-1][::-1],
        "big-endian": X.astype(">f8"),
        "long double": X.astype(np.longdouble),
        "with a gradient": torch.tensor(X, requires_grad=True),
        "read-only": np.broadcast_to(X, (1, *X.shape))[0],
        "by columns": np.asfortranarray(X),
        "lists": X.tolist(),
    }


@pytest.mark.parametrize("kind", odd(X))
def test_odd_arrays_are_accepted(given, kind):
    model = TorchClassifier(given, 2)
    np.testing.assert_array_equal(model.predict_proba(odd(X)[kind]), model.predict_proba(X))


def test_compiled_modules_are_read_as_the_original(given):
    model = TorchClassifier(compiled(given), 2)
    np.testing.assert_array_equal(
        model.predict_proba(X), TorchClassifier(given, 2).predict_proba(X)
    )
    assert as_network(model).module is given


def test_scripted_modules_predict(given):
    model = TorchClassifier(scripted(given), 2)
    np.testing.assert_array_equal(model.predict(X), TorchClassifier(given, 2).predict(X))


@pytest.mark.parametrize("shape", ["a", (2.0, 2), (0, 4), [[2, 2]], -1])
def test_input_shapes_that_are_none(given, shape):
    with pytest.raises(ValueError, match=r"Got input_shape=.*tuple of positive integers"):
        TorchClassifier(given, 2, input_shape=shape).predict(X)
