"""Networks: rows in, logits out; labels as indices; what is refused."""

import numpy as np
import pytest
import torch
from sklearn.tree import DecisionTreeClassifier

from skrobust.attacks import LBFGS, PGD, LinearBoundary, Target, UniformSampling
from skrobust.exceptions import UnsupportedModelError
from skrobust.networks import Network, as_network
from skrobust.properties import ClassificationRobustness


def network(classes=("b", "a", "c"), n_features=4):
    return Network(torch.nn.Linear(4, len(classes)), classes, n_features)


def test_rows_have_the_type_of_the_network():
    rows = network().rows(np.ones((2, 4), dtype=np.int64))
    assert rows.dtype == torch.float32
    assert rows.shape == (2, 4)
    doubles = Network(torch.nn.Linear(4, 2).double(), [0, 1])
    assert doubles.rows([[1, 2, 3, 4]]).dtype == torch.float64
    assert network().rows(np.ones((2, 2, 2))).shape == (2, 4)


X = np.random.default_rng(0).random((5, 4))


def test_labels_become_indices():
    assert network().encode(["a", "b", "c", "b"]).tolist() == [1, 0, 2, 0]
    assert network([3, 1, 7]).encode(np.array([7, 3])).tolist() == [2, 0]


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (["a", "z", "q"], r"labels \['q', 'z'\], but expected .*classes \['b', 'a', 'c'\]"),
        ([0, 1], "Got y with labels"),
        ([None] * 3, r"Got y with labels \['None'\], but expected labels among"),
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


# ---- modules ------------------------------------------------------------------------------


class Tuple(torch.nn.Linear):
    def forward(self, x):
        return super().forward(x), x


class ByNumpy(torch.nn.Linear):
    """Computes outside of torch."""

    def forward(self, x):
        return torch.as_tensor(x.numpy() @ self.weight.detach().numpy().T)


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (Tuple(4, 2), "Got a module that returns a tuple, but expected one tensor"),
        (torch.nn.LSTM(4, 2), "Got a module that returns a tuple, but expected one tensor"),
        (torch.nn.Linear(5, 2), r"fails on rows of shape \(n, 4\).*shapes cannot be multiplied"),
        (torch.nn.Conv2d(1, 2, 3), r"fails on rows of shape \(n, 4\)"),
        (torch.nn.Embedding(4, 2), r"fails on rows of shape \(n, 4\)"),
    ],
    ids=["tuple", "lstm", "width", "images", "integers"],
)
def test_modules_that_cannot_take_rows_are_refused(module, message):
    net = Network(module, [0, 1])
    for _ in range(2):  # a refusal is not forgotten
        with pytest.raises(UnsupportedModelError, match=message):
            net.rows(X)
    assert net._width is None


def test_a_module_with_other_outputs_is_refused():
    with pytest.raises(
        ValueError, match=r"outputs of shape \(2, 3\) for 2 rows, but expected \(2, 2\)"
    ):
        Network(torch.nn.Linear(4, 3), [0, 1]).rows(X)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_modules_in_half_precision_are_refused(dtype):
    with pytest.raises(UnsupportedModelError, match=r"Got a module in .*float16.*module\.float"):
        Network(torch.nn.Linear(4, 2).to(dtype), [0, 1])


def test_a_module_without_a_gradient_is_known_by_its_first_rows():
    net = Network(ByNumpy(4, 2), [0, 1])
    rows = net.rows(X)
    assert not net.has_gradient
    target = Target(net, ClassificationRobustness(0.1), rows, torch.zeros(5, dtype=torch.int64))
    for attack in (PGD(), LBFGS(), LinearBoundary()):
        for call in (attack.search, attack.closest, attack.points):
            with pytest.raises(UnsupportedModelError, match="no gradient in its inputs"):
                call(target)
    assert len(UniformSampling(2).search(target)) == 5
    other = network()
    other.rows(X)
    assert other.has_gradient


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_scripted_modules_can_be_attacked():
    layer = torch.nn.Linear(4, 2)
    net = Network(torch.jit.script(layer), [0, 1])
    target = Target(net, ClassificationRobustness(0.5), net.rows(X), layer(net.rows(X)).argmax(1))
    assert net.has_gradient
    expected = Target(layer, target.property, target.x, target.labels)
    outcomes = [
        PGD(3).search(each, generator=torch.Generator().manual_seed(0))
        for each in (target, expected)
    ]
    torch.testing.assert_close(outcomes[0].broken, outcomes[1].broken)


def test_a_module_is_tried_once_for_each_width():
    class Counting(torch.nn.Linear):
        n = 0

        def forward(self, x):
            Counting.n += 1
            return super().forward(x)

    net = Network(Counting(4, 2), [0, 1])
    net.rows(X), net.rows(X[:1]), net.check_rows(X)
    assert Counting.n == 1
