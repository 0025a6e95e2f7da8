"""Networks: rows in, logits out; labels as indices; what is refused."""

import numpy as np
import pytest
import torch
from scipy.sparse import csr_array
from sklearn.tree import DecisionTreeClassifier

from skrobust.attacks import LBFGS, PGD, LinearBoundary, Target, UniformSampling
from skrobust.exceptions import UnsupportedModelError
from skrobust.networks import Network, as_network, evaluation_mode
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
        (np.ones((2, 0)), ValueError, r"Got X of shape \(2, 0\), but expected"),
        ([[1.0, 2.0], [1.0]], ValueError, "Got a ragged X, but expected rows of the same"),
        (np.ones((2, 4), dtype=complex), TypeError, "dtype complex128, but expected real"),
        (torch.ones(2, 4, dtype=torch.complex64), TypeError, "complex64, but expected real"),
        (
            np.full((2, 4), -1e300),
            ValueError,
            r"Got X with values up to 1e\+300, but expected values that are finite in float32",
        ),
        (np.full((2, 4), np.longdouble("1e4000")), ValueError, "NaN or infinity in 2 rows"),
    ],
)
def test_rows_refused(X, error, message):
    with pytest.raises(error, match=message):
        network().rows(X)


X = np.random.default_rng(0).random((5, 4))


@pytest.mark.parametrize(
    "given",
    [
        X[::-1][::-1],
        np.asfortranarray(X),
        np.ascontiguousarray(X[:, ::-1])[:, ::-1],
        X.astype(">f8"),
        X.astype(">f4"),
        X.astype(np.longdouble),
        X.astype(object),
        torch.tensor(X, requires_grad=True),
        torch.tensor(X),
        X.tolist(),
    ],
    ids=[
        "reversed",
        "fortran",
        "negative",
        "big",
        "big4",
        "long",
        "object",
        "grad",
        "torch",
        "list",
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_arrays_of_any_kind_are_rows(given, dtype):
    rows = Network(torch.nn.Linear(4, 2).to(dtype), [0, 1]).rows(given)
    assert rows.dtype == dtype and not rows.requires_grad
    np.testing.assert_allclose(rows, X, rtol=1e-6)


@pytest.mark.parametrize(
    "given",
    [
        np.eye(4, dtype=np.float16),
        torch.eye(4, dtype=torch.bfloat16),
        np.eye(4, dtype=">i4"),
        np.eye(4, dtype=np.uint64),
        np.eye(4, dtype=bool),
    ],
    ids=["float16", "bfloat16", "big", "unsigned", "bool"],
)
def test_numbers_of_any_kind_are_rows(given):
    assert network().rows(given).tolist() == np.eye(4).tolist()


def test_reversed_rows_are_in_their_order():
    np.testing.assert_allclose(network().rows(X[::-1]), X[::-1], rtol=1e-6)


def test_what_is_large_in_float32_fits_in_float64():
    assert (
        Network(torch.nn.Linear(4, 2).double(), [0, 1]).rows(np.full((1, 4), 1e300)).max() > 1e299
    )


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
    with pytest.raises(ValueError, match=r"outputs of shape \(2, 3\), but expected \(2, 2\)"):
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
def test_compiled_modules_are_what_they_were():
    inner = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.ReLU())
    whole = torch.nn.Sequential(inner, torch.nn.Linear(3, 2))
    assert Network(torch.compile(whole, backend="eager"), [0, 1]).module is whole
    partly = torch.nn.Sequential(torch.compile(inner, backend="eager"), whole[1])
    net = Network(partly, [0, 1])
    assert net.module[0] is inner and net.module[1] is whole[1]
    assert hasattr(partly[0], "_orig_mod")  # the given module is as it was
    assert torch.equal(net(net.rows(X)), whole(net.rows(X)))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_scripted_modules_can_be_attacked():
    layer = torch.nn.Linear(4, 2)
    net = Network(torch.jit.script(layer), [0, 1])
    target = Target(net, ClassificationRobustness(0.5), net.rows(X), layer(net.rows(X)).argmax(1))
    assert net.has_gradient
    expected = Target(layer, target.property, target.x, target.labels)
    torch.testing.assert_close(PGD(3).search(target).broken, PGD(3).search(expected).broken)


# ---- evaluation mode ----------------------------------------------------------------------


@pytest.mark.parametrize("training", [True, False])
def test_evaluation_mode_comes_and_goes(training):
    module = torch.nn.Dropout().train(training)
    with evaluation_mode(module):
        assert not module.training
    assert module.training is training
    with pytest.raises(KeyError), evaluation_mode(module):
        raise KeyError
    assert module.training is training


def test_evaluation_mode_leaves_a_frozen_batch_norm_frozen():
    module = torch.nn.Sequential(
        torch.nn.Linear(4, 4), torch.nn.BatchNorm1d(4), torch.nn.Dropout()
    )
    module.train()
    module[1].eval()
    with evaluation_mode(module):
        assert not any(part.training for part in module.modules())
    assert [part.training for part in module] == [True, False, True] and module.training
