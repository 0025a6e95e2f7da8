"""Tests of skrobust.networks._piecewise_linear: what is read, refused, and frozen."""

import copy
import pickle

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn
from torch.nn import functional

from skrobust.exceptions import UnsupportedModelError
from skrobust.networks import as_network
from skrobust.networks._piecewise_linear import (
    Conv,
    Linear,
    MaxPool,
    PiecewiseLinear,
    Rearrange,
    linear_region,
    piecewise_linear,
)


class Residual(nn.Module):
    """Arbitrary forward code: a loop over sizes, a residual sum, functional forms."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 3, 3, padding="same")
        self.norm = nn.BatchNorm2d(3)
        self.skip = nn.Conv2d(1, 3, 1)
        self.last = nn.Linear(3 * 16, 4)
        self.norm.running_mean.uniform_(-1, 1)
        self.norm.running_var.uniform_(0.5, 2)

    def forward(self, x):
        x = x.view(x.size(0), 1, 8, 8)
        x = functional.relu(self.norm(self.conv(x))) + self.skip(x)
        x = functional.max_pool2d(x, 2)
        count = 1
        for size in x.shape[1:]:
            count *= size
        return self.last(x.reshape(-1, count))


class Branches(nn.Module):
    """Nearly every reader once."""

    def __init__(self):
        super().__init__()
        self.relu = nn.ReLU(inplace=True)
        self.prelu = nn.PReLU(2)
        self.conv = nn.Conv1d(2, 3, 3, stride=2, padding=1, dilation=2)
        self.norm = nn.BatchNorm1d(3)
        self.pool = nn.MaxPool2d(3, 2, 1, ceil_mode=True)
        self.average = nn.AvgPool2d(2, padding=1, count_include_pad=False)
        self.adaptive = nn.AdaptiveAvgPool2d((3, 2))
        self.dropout = nn.Dropout2d()
        self.matrix = nn.Parameter(torch.randn(5, 4))
        self.register_buffer("one", torch.ones(2, 1, 1))

    def forward(self, x):
        x = nn.Unflatten(1, (2, 4, 6))(x)
        x = self.prelu(self.dropout(x - 0.4)) * 2 + self.one
        parts = [self.pool(x), self.average(x), self.adaptive(x), functional.pad(x, (1, 0, 2, 0))]
        parts += [part.neg() / 3 for part in x.chunk(2, dim=1)]
        parts += [self.norm(self.conv(x.flatten(2))), x.transpose(1, 2)[:, 1:, :, ::2]]
        parts += [x.mean(dim=(2, 3)), x.sum(1, keepdim=True).clamp(max=2.0), (1 - x).abs()]
        x = torch.cat([part.flatten(1) for part in parts], dim=1)
        x = functional.hardtanh(self.relu(x[:, 1::7][:, :20]), 0.2, 1.5)
        x = x.view(len(x), 4, 5) @ self.matrix
        x = functional.leaky_relu(x.clone(), 0.2).permute(0, 2, 1).squeeze(1)
        x = functional.max_pool1d(x, 2)
        return torch.cat([torch.zeros_like(x[..., 0]), x[..., 1]], dim=1)


def lenet():
    return nn.Sequential(
        nn.Unflatten(1, (1, 12, 12)),
        nn.Conv2d(1, 3, 3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(3, 4, 2),
        nn.MaxPool2d(2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(16, 5),
    )


def perceptron():
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3))


MODULES = [
    pytest.param(perceptron, 6, id="perceptron"),
    pytest.param(lenet, 144, id="lenet"),
    pytest.param(Residual, 64, id="residual"),
    pytest.param(Branches, 48, id="branches"),
]


def build(factory, seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return factory().eval().double()


def sample(n, n_features, seed=1):
    return torch.rand(n, n_features, generator=torch.Generator().manual_seed(seed)).double()


@pytest.mark.parametrize(("factory", "n_features"), MODULES)
def test_graph_computes_what_the_module_computes(factory, n_features):
    module = build(factory)
    graph = piecewise_linear(module, n_features)
    x = sample(7, n_features)
    torch.testing.assert_close(graph(x), module(x).detach(), rtol=1e-12, atol=1e-12)
    assert graph.n_features == n_features
    for i, node in enumerate(graph.nodes):
        assert all(j < i for j in node.inputs)
        assert tuple(graph.values(x)[i].shape) == (7, *node.shape)


@pytest.mark.parametrize(("factory", "n_features"), MODULES)
def test_float32_module_is_read_in_float64(factory, n_features):
    module = build(factory)
    graph = piecewise_linear(copy.deepcopy(module).float(), n_features)
    x = sample(3, n_features)
    assert graph(x).dtype == torch.float64
    torch.testing.assert_close(graph(x), module(x).detach(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("factory", "n_features"), MODULES)
def test_affine_nodes_have_their_adjoint_and_magnitude(factory, n_features):
    graph = piecewise_linear(build(factory), n_features)
    generator = torch.Generator().manual_seed(2)
    for node in graph.nodes[1:]:
        if not node.is_affine:
            continue
        shapes = [graph.nodes[i].shape for i in node.inputs]
        u, v = ([torch.randn(2, *s, generator=generator).double() for s in shapes] for _ in "ab")
        w = torch.randn(2, *node.shape, generator=generator).double()
        difference = node.apply(*u) - node.apply(*v)
        pulled = node.adjoint(w)
        right = sum(
            ((a - b) * p).sum() for a, b, p in zip(u, v, pulled, strict=True) if p is not None
        )
        torch.testing.assert_close((difference * w).sum(), torch.as_tensor(right).double())
        radii = [(a - b).abs() for a, b in zip(u, v, strict=True)]
        assert (node.magnitude(*radii) >= difference.abs() - 1e-12).all()
        # The bound is reached: by the sign of each weight, which the adjoint of one output is.
        one = torch.zeros(1, *node.shape, dtype=torch.float64)
        one.view(-1)[0] = 1.0
        weights = node.adjoint(one)
        reached = sum(p.abs().sum() for p in weights if p is not None)
        ones = node.magnitude(*(torch.ones(1, *s, dtype=torch.float64) for s in shapes))
        torch.testing.assert_close(ones.reshape(-1)[0], torch.as_tensor(reached).double())


@pytest.mark.parametrize(("factory", "n_features"), MODULES)
def test_region_holds_its_point_and_has_the_network_s_value_and_gradient(factory, n_features):
    module = build(factory)
    graph = piecewise_linear(module, n_features)
    for x in sample(3, n_features).split(1):
        region = linear_region(graph, x)
        torch.testing.assert_close(region(x), module(x).detach(), rtol=1e-12, atol=1e-12)
        assert region.contains(x).all()
        jacobian = torch.autograd.functional.jacobian(lambda v: module(v)[0], x)[:, 0]
        found = region.normals(outputs=torch.eye(len(jacobian)))
        torch.testing.assert_close(found, jacobian, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(("factory", "n_features"), MODULES)
def test_rows_of_a_region_are_affine_with_the_gradients_that_normals_returns(factory, n_features):
    graph = piecewise_linear(build(factory), n_features)
    x = sample(1, n_features)
    region = linear_region(graph, x)
    slacks = region.slacks(region.values(x))[0]
    finite = slacks.isfinite().nonzero().squeeze(1)
    rng = np.random.default_rng(0)
    rows = rng.permutation(finite.numpy())[:60]
    weights = torch.eye(graph.n_classes)[:2]
    normals = region.normals(rows, weights)
    move = torch.randn(4, n_features, generator=torch.Generator().manual_seed(3)).double()
    values = region.values(x + move)
    expected = slacks[rows] + move @ normals[:-2].T
    torch.testing.assert_close(region.slacks(values)[:, rows], expected, rtol=1e-9, atol=1e-9)
    expected = region(x)[:, :2] + move @ normals[-2:].T
    torch.testing.assert_close(values[-1][:, :2], expected, rtol=1e-9, atol=1e-9)
    derivative = region.values(move, linear=True)[-1]
    torch.testing.assert_close(values[-1], region(x) + derivative, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("factory", "n_features"), MODULES)
def test_network_is_affine_exactly_where_the_slacks_say(factory, n_features):
    graph = piecewise_linear(build(factory), n_features)
    x = sample(1, n_features)
    region = linear_region(graph, x)
    move = torch.randn(500, n_features, generator=torch.Generator().manual_seed(4)).double()
    points = x + move * torch.logspace(-4, 0.5, 500).double().unsqueeze(1)
    inside = region.contains(points)
    assert 0 < inside.sum() < len(points)
    torch.testing.assert_close(region(points[inside]), graph(points[inside]))
    # Outside, some decision differs from what the network decides there.
    for point in points[~inside][::25].split(1):
        there = linear_region(graph, point)
        assert not there.contains(x).all() or not region.contains(point).all()


def test_hand_worked_region():
    # max(0, x1 - x2) and max(0, x1 + x2 - 1) at (0.75, 0.5): both on, slacks 1/4 and 1/4.
    module = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    module[0].weight.data = torch.tensor([[1.0, -1.0], [1.0, 1.0]])
    module[0].bias.data = torch.tensor([0.0, -1.0])
    region = linear_region(module, [0.75, 0.5])
    assert region.n_rows == 2
    x = torch.tensor([[0.75, 0.5], [0.25, 0.5], [0.5, 0.5]])
    slacks = region.slacks(region.values(x))
    assert slacks.tolist() == [[0.25, 0.25], [-0.25, -0.25], [0.0, 0.0]]
    assert region.contains(x).tolist() == [True, False, True]
    assert region(x).tolist() == [[0.25, 0.25], [-0.25, -0.25], [0.0, 0.0]]
    assert region.normals([1, 0]).tolist() == [[1.0, 1.0], [1.0, -1.0]]
    # At (0.25, 0.5) both are off: the output is zero, and the rows point the other way.
    region = linear_region(module, [0.25, 0.5])
    assert region(x).tolist() == [[0.0, 0.0]] * 3
    assert region.normals([0]).tolist() == [[-1.0, 1.0]]


def test_clamp_has_three_pieces():
    module = nn.Sequential(nn.Linear(1, 1), nn.Hardtanh(-1, 2))
    module[0].weight.data, module[0].bias.data = torch.ones(1, 1), torch.zeros(1)
    for x, output, slacks, slope in [
        (-3.0, -1.0, [2.0, np.inf], [-1.0, None]),
        (0.5, 0.5, [1.5, 1.5], [1.0, -1.0]),
        (4.0, 2.0, [np.inf, 2.0], [None, 1.0]),
    ]:
        region = linear_region(module, [x])
        point = torch.tensor([[x]])
        assert region(point).item() == output
        assert region.slacks(region.values(point)).tolist() == [slacks]
        for row, expected in enumerate(slope):
            if expected is not None:
                assert region.normals([row]).item() == expected


def test_pool_rows_compare_the_chosen_entry_with_the_others():
    module = nn.Sequential(nn.Unflatten(1, (1, 4)), nn.MaxPool1d(2), nn.Flatten())
    region = linear_region(module, [0.1, 0.4, 0.9, 0.2])
    x = torch.tensor([[0.5, 0.4, 0.9, 0.2]])
    slacks = region.slacks(region.values(x))
    torch.testing.assert_close(
        slacks, torch.tensor([[-0.1, np.inf, np.inf, 0.7]], dtype=torch.float64)
    )
    assert region.normals([0, 3]).tolist() == [[-1, 1, 0, 0], [0, 0, 1, -1]]


def test_padded_windows_hold_only_real_entries():
    graph = piecewise_linear(
        nn.Sequential(nn.Unflatten(1, (1, 5)), nn.MaxPool1d(3, 2, 1), nn.Flatten()), 5
    )
    pool = next(node for node in graph.nodes if isinstance(node, MaxPool))
    assert pool.members.tolist() == [[0, 0, 1], [1, 2, 3], [3, 4, 3]]
    x = -torch.ones(1, 5)
    assert graph(x).tolist() == [[-1.0, -1.0, -1.0]]


def test_ties_at_zero_give_a_region_with_an_interior():
    # Units x1, -x1 at x1 = 0: their rows must not both ask for x1 >= 0 and -x1 >= 0.
    module = nn.Sequential(nn.Linear(2, 2), nn.ReLU())
    module[0].weight.data = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
    module[0].bias.data = torch.zeros(2)
    for side in (-1.0, 1.0):
        region = linear_region(module, [0.0, 0.3], direction=torch.tensor([side, 0.0]))
        slacks = region.slacks(region.values(torch.tensor([[0.2 * side, 0.3]])))
        assert (slacks > 0.1).all()
    region = linear_region(module, [0.0, 0.3])
    points = torch.tensor([[0.2, 0.3], [-0.2, 0.3]])
    assert region.contains(points).sum() == 1


def test_equal_pool_entries_give_a_region_with_an_interior():
    module = nn.Sequential(nn.Unflatten(1, (1, 4)), nn.MaxPool1d(4), nn.Flatten())
    direction = torch.tensor([0.0, 1.0, 3.0, 2.0])
    region = linear_region(module, [0.5] * 4, direction=direction)
    x = 0.5 + 0.01 * direction.unsqueeze(0)
    assert region.slacks(region.values(x)).min() > 0.009
    constant = linear_region(module, [0.5] * 4)
    assert constant.contains(torch.full((1, 4), 0.5)).all()


def test_zeros_behind_relu_are_no_ties():
    graph = piecewise_linear(
        nn.Sequential(nn.Unflatten(1, (1, 4)), nn.ReLU(), nn.MaxPool1d(2), nn.Flatten()), 4
    )
    pool = next(node for node in graph.nodes if isinstance(node, MaxPool))
    z = torch.tensor([[[0.0, 0.0, 0.3, 0.1]]])
    assert not pool.is_tied(z, behind_relu=True)
    assert pool.is_tied(z)
    assert pool.is_tied(torch.tensor([[[0.0, 0.0, 0.3, 0.3]]]), behind_relu=True)


def test_graph_is_small_and_readable():
    graph = piecewise_linear(build(lenet), 144)
    kinds = [type(node).__name__ for node in graph.nodes]
    assert kinds == [
        "Input", "Rearrange", "Conv", "Relu", "MaxPool", "Conv", "MaxPool", "Relu", "Rearrange",
        "Linear",
    ]  # fmt: skip
    assert isinstance(graph.nodes[1], Rearrange) and graph.nodes[1].index is None
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

    graph = piecewise_linear(Wasteful().eval(), 3)
    assert [type(node) for node in graph.nodes[1:]] == [Linear]


def test_graph_is_picklable():
    graph = piecewise_linear(build(Branches), 48)
    x = sample(2, 48)
    graph(x)
    copied = pickle.loads(pickle.dumps(graph))
    assert isinstance(copied, PiecewiseLinear)
    torch.testing.assert_close(copied(x), graph(x))


def test_networks_of_estimators_are_read():
    rng = np.random.default_rng(0)
    X = rng.random((60, 4))
    y = (X[:, 0] + X[:, 1] > 1).astype(int)
    for model in (
        make_pipeline(StandardScaler(), LogisticRegression()).fit(X, y),
        make_pipeline(StandardScaler(), MLPClassifier((5,), max_iter=20)).set_params(
            mlpclassifier__solver="lbfgs"
        ).fit(X, y),
    ):  # fmt: skip
        network = as_network(model)
        graph = piecewise_linear(network)
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
        (nn.Sequential(nn.Linear(4, 3), nn.Sequential(nn.Sigmoid())), r"'sigmoid' in layer 1\.0"),
        (nn.Sequential(nn.Linear(4, 3), nn.Softmax(1)), r"'softmax' in layer 1 \(Softmax\)"),
        (nn.Tanh(), r"'tanh' in layer the module \(Tanh\)"),
        (attention(), r"in layer attention \(MultiheadAttention\)"),
        (Data(), r"'gt' in layer the module \(Data\)|'sum' in layer the module"),
        (Product(), "multiplies or divides activations by each other"),
        (MixesRows(), "joins samples"),
        (Flips(), "mixes samples"),
        (Aliased(), "outputs differ by"),
        (Noise(), "'rand_like' in layer"),
        (nn.Sequential(nn.Linear(4, 2), nn.Unflatten(1, (1, 2))), "expected logits of shape"),
    ],
)
def test_what_is_not_piecewise_linear_is_refused_by_name(module, message):
    with pytest.raises(UnsupportedModelError, match=message):
        piecewise_linear(module.eval(), 4)


def test_active_dropout_and_batch_statistics_are_refused():
    with pytest.raises(UnsupportedModelError, match=r"'dropout' in layer .*training mode"):
        piecewise_linear(nn.Dropout().train(), 4)
    with pytest.raises(UnsupportedModelError, match="takes its statistics from the batch"):
        piecewise_linear(nn.BatchNorm1d(4).train(), 4)


def test_number_of_features_is_needed():
    with pytest.raises(ValueError, match="Got n_features=None"):
        piecewise_linear(nn.Linear(2, 2))


def test_tracing_leaves_no_hooks():
    module = build(lenet)
    piecewise_linear(module, 144)
    parts = list(module.modules())
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in parts)
