"""Tests of skrobust.networks._piecewise_linear: what is read, and what is refused."""

import copy

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

from skrobust.exceptions import UnsupportedModelError
from skrobust.graphs import Conv, Linear, read_graph
from skrobust.networks import as_network
from tests._modules import MODULES, build, lenet, sample


@pytest.mark.parametrize(("factory", "n_features"), MODULES)
def test_graph_computes_what_the_module_computes(factory, n_features):
    module = build(factory)
    graph = read_graph(module, n_features)
    x = sample(7, n_features)
    torch.testing.assert_close(graph(x), module(x).detach(), rtol=1e-12, atol=1e-12)
    assert graph.n_features == n_features
    for i, node in enumerate(graph.nodes):
        assert all(j < i for j in node.inputs)
        assert tuple(graph.values(x)[i].shape) == (7, *node.shape)


@pytest.mark.parametrize(("factory", "n_features"), MODULES)
def test_float32_module_is_read_in_float64(factory, n_features):
    module = build(factory)
    graph = read_graph(copy.deepcopy(module).float(), n_features)
    x = sample(3, n_features)
    assert graph(x).dtype == torch.float64
    torch.testing.assert_close(graph(x), module(x).detach(), rtol=1e-4, atol=1e-4)


def test_graph_is_small_and_readable():
    graph = read_graph(build(lenet), 144)
    kinds = [type(node).__name__ for node in graph.nodes]
    assert kinds == [
        "Input", "Reshape", "Conv", "Relu", "MaxPool", "Conv", "MaxPool", "Relu", "Reshape",
        "Linear",
    ]  # fmt: skip
    assert isinstance(graph.nodes[2], Conv) and graph.nodes[2].path == "1 (Conv2d)"
    assert graph.piecewise == (3, 4, 6, 7)
    assert "1 (Conv2d)" in repr(graph)


def test_unused_branches_are_dropped():
    class Wasteful(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.unused = nn.Linear(3, 2), nn.Linear(3, 5)

        def forward(self, x):
            y = self.used(x)
            self.unused(x).relu()
            return y

    graph = read_graph(Wasteful().eval(), 3)
    assert [type(node) for node in graph.nodes[1:]] == [Linear]


def test_networks_of_estimators_are_read():
    rng = np.random.default_rng(0)
    X = rng.random((60, 4))
    y = (X[:, 0] + X[:, 1] > 1).astype(int)
    mlp = MLPClassifier((5,), solver="lbfgs", max_iter=500, random_state=0)
    for final in (LogisticRegression(), mlp):
        model = make_pipeline(StandardScaler(), final).fit(X, y)
        network = as_network(model)
        graph = read_graph(network)
        rows = network.rows(X)
        torch.testing.assert_close(
            graph(rows), network(rows).double().detach(), rtol=1e-5, atol=1e-5
        )


class Data(nn.Module):
    def forward(self, x):
        return x if x.sum() > 0 else -x


class Product(nn.Module):
    def forward(self, x):
        return x * x


class MixesRows(nn.Module):
    def forward(self, x):
        return x - x.mean(dim=0)


class Flips(nn.Module):
    def forward(self, x):
        return x.flip(0)


class Aliased(nn.Module):
    def forward(self, x):
        y = x.view(-1, 2, 2) - 0.5
        z = y.view(-1, 4)
        y.relu_()
        return z


class Noise(nn.Module):
    def forward(self, x):
        return x + torch.rand_like(x)


class Helped(nn.Module):
    """What a helper does with a layer is no part of that layer."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, x):
        def helper(layer, x):
            return torch.sin(layer(x))

        return helper(self.layer, x)


def attention():
    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.attention = nn.MultiheadAttention(2, 1, batch_first=True)

        def forward(self, x):
            x = x.view(-1, 2, 2)
            return self.attention(x, x, x)[0].flatten(1)

    return Attention()


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (nn.Sequential(nn.Linear(4, 3), nn.Sequential(nn.Mish())), r"'mish' in layer 1\.0"),
        (nn.Sequential(nn.Linear(4, 3), nn.Softmax(1)), r"'softmax' in layer 1 \(Softmax\)"),
        (Helped(), r"'sin' in layer the module \(Helped\)"),
        (nn.Softsign(), r"in layer the module \(Softsign\)"),
        (attention(), r"in layer attention \(MultiheadAttention\)"),
        (Data(), r"'gt' in layer the module \(Data\)|'sum' in layer the module"),
        (Product(), "multiplies or divides activations by each other"),
        (MixesRows(), "joins samples"),
        (Flips(), "mixes samples"),
        (Aliased(), "outputs differ by"),
        (Noise(), "'rand_like' in layer"),
    ],
)
def test_what_is_not_known_is_refused_by_name(module, message):
    with pytest.raises(UnsupportedModelError, match=message):
        read_graph(module.eval(), 4)


def test_active_dropout_and_batch_statistics_are_refused():
    with pytest.raises(UnsupportedModelError, match=r"'dropout' in layer .*training mode"):
        read_graph(nn.Dropout().train(), 4)
    with pytest.raises(UnsupportedModelError, match="takes its statistics from the batch"):
        read_graph(nn.BatchNorm1d(4).train(), 4)


def test_number_of_features_is_needed():
    with pytest.raises(ValueError, match="Got n_features=None"):
        read_graph(nn.Linear(2, 2))


def test_tracing_leaves_no_hooks():
    module = build(lenet)
    read_graph(module, 144)
    parts = list(module.modules())
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in parts)


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_scripted_modules_are_refused():
    module = nn.Sequential(torch.jit.script(nn.Linear(4, 3)))
    with pytest.raises(UnsupportedModelError, match="scripted or traced module"):
        read_graph(module, 4)


def test_the_first_parameter_may_be_an_integer():
    module = nn.Linear(4, 3)
    counted = nn.Sequential(nn.Identity(), module)
    counted[0].count = nn.Parameter(torch.tensor(3), requires_grad=False)
    x = torch.rand(2, 4)
    assert torch.equal(read_graph(counted, 4)(x), module.double()(x.double()))
