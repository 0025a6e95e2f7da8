"""Modules to train: copies of the originals of compiled ones, or refused by name."""

import pickle

import numpy as np
import pytest
import torch
from torch import nn

from skrobust.estimators._modules import n_features_of
from skrobust.exceptions import UnsupportedModelError
from skrobust.networks import as_network
from tests.estimators._models import compiled, scripted, small


class Several(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(4, 2)

    def forward(self, x):
        return self.inner(x), x


class ThroughNumpy(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(4, 2)

    def forward(self, x):
        return torch.tensor(self.inner(x).detach().numpy())


class WrongWhenTraining(nn.Module):
    """A tuple in training mode only, as some image networks have it."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(4, 2)

    def forward(self, x):
        return (self.inner(x), x) if self.training else self.inner(x)


@pytest.mark.parametrize(
    ("module", "error", "message"),
    [
        (Several(), UnsupportedModelError, "Got a module that returns a tuple"),
        (nn.LSTM(4, 2), UnsupportedModelError, "as recurrent layers do"),
        (nn.Linear(4, 3), ValueError, r"outputs of shape \(2, 3\) for 2 rows"),
        (
            nn.Linear(5, 2),
            UnsupportedModelError,
            r"fails on rows of shape \(n, 4\) with input_shape=",
        ),
        (nn.Linear(4, 2).bfloat16(), UnsupportedModelError, "parameters of torch.bfloat16"),
        (nn.Linear(4, 2).double(), UnsupportedModelError, "but expected torch.float32"),
        (ThroughNumpy(), ValueError, "with a gradient in the weights"),
        (WrongWhenTraining(), UnsupportedModelError, "Got a module that returns a tuple"),
        (
            lambda: scripted(nn.Linear(4, 2)),
            UnsupportedModelError,
            "expected a module that is not scripted",
        ),
        (lambda: 3, TypeError, "a callable that returns a torch.nn.Module"),
    ],
)
def test_modules_that_cannot_be_trained(blobs, module, error, message):
    with pytest.raises(error, match=message):
        small(module=module).fit(*blobs)


def test_a_compiled_module_is_trained_as_the_original(blobs):
    X, y = blobs
    module = nn.Sequential(nn.Linear(4, 2))
    plain = small(module=module).fit(X, y)
    for given in (compiled(module), nn.Sequential(compiled(module[0]))):
        model = pickle.loads(pickle.dumps(small(module=given).fit(X, y)))
        np.testing.assert_array_equal(model.predict_proba(X), plain.predict_proba(X))
        layers = as_network(model).module.modules()
        assert not any(hasattr(layer, "_orig_mod") for layer in layers)


def test_the_features_that_a_module_takes():
    module = nn.Sequential(nn.Linear(4, 2))
    assert n_features_of(module) == 4 and n_features_of(nn.Flatten()) is None
