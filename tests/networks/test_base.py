"""Networks: rows in, logits out; labels as indices; what is refused."""

import numpy as np
import pytest
import torch
from scipy.sparse import csr_array
from sklearn.tree import DecisionTreeClassifier

from skrobust.exceptions import UnsupportedModelError
from skrobust.networks import Network, as_network


def network(classes=("b", "a", "c"), n_features=4):
    return Network(torch.nn.Linear(4, len(classes)), classes, n_features)


def test_rows_have_the_type_of_the_network():
    rows = network().rows(np.ones((2, 4), dtype=np.int64))
    assert rows.dtype == torch.float32
    assert rows.shape == (2, 4)
    doubles = Network(torch.nn.Linear(4, 2).double(), [0, 1])
    assert doubles.rows([[1, 2, 3, 4]]).dtype == torch.float64
    assert network().rows(np.ones((2, 2, 2))).shape == (2, 4)


def test_rows_do_not_warn_of_read_only_arrays():
    X = np.ones((2, 4), dtype=np.float32)
    X.flags.writeable = False
    assert network().rows(X).shape == (2, 4)


@pytest.mark.parametrize(
    ("X", "error", "message"),
    [
        ([[1.0, 2.0]], ValueError, "Got X with 2 features, but expected 4, as at fit"),
        ([[1.0, np.nan, 0.0, 0.0]], ValueError, "NaN or infinity in 1 rows"),
        ([[np.inf] * 4, [-np.inf] * 4], ValueError, "NaN or infinity in 2 rows"),
        ([1.0, 2.0, 3.0, 4.0], ValueError, r"Got X of shape \(4,\), but expected"),
        (np.ones((0, 4)), ValueError, "with at least one sample"),
        ([["a", "b", "c", "d"]], TypeError, "Got X of dtype .*, but expected numbers"),
        (csr_array(np.ones((2, 4))), TypeError, r"Got a sparse X.*Use X\.toarray\(\)"),
    ],
)
def test_rows_refused(X, error, message):
    with pytest.raises(error, match=message):
        network().rows(X)


def test_labels_become_indices():
    assert network().encode(["a", "b", "c", "b"]).tolist() == [1, 0, 2, 0]
    assert network([3, 1, 7]).encode(np.array([7, 3])).tolist() == [2, 0]


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (["a", "z", "q"], r"labels \['q', 'z'\], but expected .*classes \['b', 'a', 'c'\]"),
        ([0, 1], "Got y with labels"),
        ([["a"], ["b"]], r"Got y of shape \(2, 1\), but expected"),
    ],
)
def test_labels_refused(y, message):
    with pytest.raises(ValueError, match=message):
        network().encode(y)


def test_the_module_is_in_evaluation_mode():
    module = torch.nn.Sequential(torch.nn.Dropout(0.9), torch.nn.Linear(4, 3)).train()
    net = Network(module, [0, 1, 2])
    assert not module.training
    x = torch.ones(5, 4)
    assert torch.equal(net(x), net(x))


def test_replay_is_the_network_unless_given():
    net = network()
    x = torch.rand(3, 4)
    assert torch.equal(net.replay(x), net(x))
    assert not net.replay(x).requires_grad
    other = Network(net.module, net.classes, replay=lambda X: torch.as_tensor(X) * 2)
    assert torch.equal(other.replay(x), 2 * x)


class Scaled(torch.nn.Module):
    """A number of its own, which is no weight and not shown."""

    def __init__(self, factor):
        super().__init__()
        self.layer = torch.nn.Linear(4, 2)
        torch.nn.init.ones_(self.layer.weight)
        torch.nn.init.zeros_(self.layer.bias)
        self.factor = factor

    def forward(self, x):
        return self.factor * self.layer(x)


def test_fingerprints_tell_networks_apart():
    import joblib

    def key(module):
        return joblib.hash(Network(module, [0, 1]).fingerprint())

    assert key(Scaled(1.0)) == key(Scaled(1.0))
    assert key(Scaled(1.0)) != key(Scaled(2.0))
    moved = Scaled(1.0)
    with torch.no_grad():
        moved.layer.weight[0, 0] += 1e-3
    assert key(moved) != key(Scaled(1.0))
    assert key(torch.nn.Sequential(Scaled(1.0), torch.nn.ReLU())) != key(
        torch.nn.Sequential(Scaled(1.0), torch.nn.Tanh())
    )


@pytest.mark.parametrize("estimator", [DecisionTreeClassifier(), object()])
def test_other_estimators_are_refused_by_name(estimator):
    name = type(estimator).__name__
    with pytest.raises(UnsupportedModelError, match=rf"Got an? {name}, but expected a classifier"):
        as_network(estimator)
