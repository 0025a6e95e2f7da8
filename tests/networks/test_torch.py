"""skorch classifiers and our own as networks."""

import numpy as np
import pytest
import torch
from sklearn.exceptions import NotFittedError
from skorch import NeuralNetBinaryClassifier, NeuralNetClassifier
from skorch.dataset import ValidSplit

from skrobust import RobustClassifier, TorchClassifier
from skrobust.networks import as_network
from tests._asserts import assert_same_classifier


def data(n_classes=3, dtype=np.float32):
    rng = np.random.default_rng(0)
    X = rng.random((90, 4)).astype(dtype)
    return X, np.arange(90) % n_classes


class Probabilities(torch.nn.Module):
    """Ends in a softmax, but is no Sequential."""

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(4, 3)

    def forward(self, x):
        return torch.softmax(self.layer(x), dim=-1)


def perceptron(n_outputs, *last):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return torch.nn.Sequential(
            torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, n_outputs), *last
        )


def skorch_net(module, criterion, kind=NeuralNetClassifier, **params):
    return kind(
        module, criterion=criterion, max_epochs=2, lr=0.5, verbose=0, train_split=None, **params
    )


@pytest.mark.parametrize(
    ("module", "criterion"),
    [
        (perceptron(3, torch.nn.Softmax(dim=-1)), torch.nn.NLLLoss),
        (Probabilities(), torch.nn.NLLLoss),
        (perceptron(3), torch.nn.CrossEntropyLoss),
    ],
    ids=["softmax", "probabilities", "cross-entropy"],
)
def test_skorch_classifiers(module, criterion):
    X, y = data()
    net = skorch_net(module, criterion).fit(X, y)
    network = as_network(net)
    assert_same_classifier(network, net, X)
    assert network.classes.tolist() == [0, 1, 2]


def test_a_final_softmax_is_taken_off():
    # So that the network is piecewise linear, and its logits have no floor.
    X, y = data()
    net = skorch_net(perceptron(3, torch.nn.Softmax(dim=-1)), torch.nn.NLLLoss).fit(X, y)
    with torch.no_grad():
        torch.testing.assert_close(
            as_network(net)(torch.tensor(X)), net.module_[:-1](torch.tensor(X))
        )


@pytest.mark.parametrize("threshold", [0.5, 0.3, 0.8])
def test_skorch_binary_classifier(threshold):
    X, y = data(2)
    net = skorch_net(
        perceptron(1, torch.nn.Flatten(0)),
        torch.nn.BCEWithLogitsLoss,
        NeuralNetBinaryClassifier,
        threshold=threshold,
    ).fit(X, y.astype(np.float32))
    # Spread the scores around the threshold.
    with torch.no_grad():
        net.module_[2].weight *= 20
        net.module_[2].bias -= net.forward(X).mean() - np.log(threshold / (1 - threshold))
    assert 0.2 < net.predict(X).mean() < 0.8
    assert_same_classifier(as_network(net), net, X, probabilities=threshold == 0.5)


def test_thresholds_tell_binary_networks_apart():
    import joblib

    X, y = data(2)
    net = skorch_net(
        perceptron(1, torch.nn.Flatten(0)), torch.nn.BCEWithLogitsLoss, NeuralNetBinaryClassifier
    ).fit(X, y.astype(np.float32))
    first = joblib.hash(as_network(net).fingerprint())
    net.threshold = 0.9
    assert joblib.hash(as_network(net).fingerprint()) != first


def test_outputs_of_a_class_that_was_not_seen():
    X, y = data()
    X, y = X[y != 1], y[y != 1]
    net = skorch_net(perceptron(3), torch.nn.CrossEntropyLoss).fit(X, y)
    network = as_network(net)
    assert_same_classifier(network, net, X)
    assert network.encode([0, 2]).tolist() == [0, 2]


def test_images():
    X = np.random.default_rng(0).random((30, 1, 6, 6)).astype(np.float32)
    y = np.arange(30) % 3
    module = torch.nn.Sequential(
        torch.nn.Conv2d(1, 2, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(32, 3)
    )
    net = skorch_net(module, torch.nn.CrossEntropyLoss).fit(X, y)
    network = as_network(net, input_shape=(1, 6, 6))
    assert network.n_features == 36
    assert_same_classifier(network, net, X)


def test_robust_classifier():
    X, y = data()
    labels = np.array(["red", "green", "blue"])[y]
    model = RobustClassifier(max_epochs=3, clamp=(-1, 1), random_state=0).fit(X, labels)
    assert_same_classifier(as_network(model), model, X)
    logits = as_network(model)(torch.tensor(X * 100)).detach()
    assert logits.abs().max() <= 1


def test_robust_classifier_with_a_validation_split():
    X, y = data()
    model = RobustClassifier(max_epochs=2, train_split=ValidSplit(3)).fit(X, y)
    assert_same_classifier(as_network(model), model, X)


@pytest.mark.parametrize("shape", [(4,), (1, 2, 2)])
def test_torch_classifier(shape):
    X, _ = data()
    module = torch.nn.Sequential(torch.nn.Flatten(), perceptron(3))
    model = TorchClassifier(module, ["a", "b", "c"])
    X = X.reshape(-1, *shape)
    assert_same_classifier(as_network(model, input_shape=shape), model, X)


@pytest.mark.parametrize(
    "estimator",
    [
        RobustClassifier(),
        NeuralNetClassifier(perceptron(3)),
        NeuralNetBinaryClassifier(perceptron(1)),
    ],
    ids=lambda e: type(e).__name__,
)
def test_not_fitted(estimator):
    with pytest.raises(NotFittedError):
        as_network(estimator)
