"""Tests of the graphs of a training step: live parameters, and what only training reads."""

import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import nn

from skrobust.exceptions import UnsupportedModelError
from skrobust.graphs import Smooth, read_graph, read_live
from tests._modules import MODULES, build, sample


@pytest.mark.parametrize(("factory", "n_features"), MODULES)
def test_a_live_graph_computes_what_the_module_computes(factory, n_features):
    module, x = build(factory).float(), sample(5, n_features).float()
    graph, outputs = read_live(module, x)
    assert graph.dtype == outputs.dtype == torch.float32
    torch.testing.assert_close(graph(x), outputs, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(outputs, module(x))


@pytest.mark.parametrize(("factory", "n_features"), MODULES)
def test_its_gradients_are_those_of_the_module(factory, n_features):
    module, x = build(factory), sample(5, n_features)
    graph, outputs = read_live(module, x)
    weights = [weight for weight in module.parameters() if weight.requires_grad]
    by_graph, by_module = (
        torch.autograd.grad(z.square().sum(), weights, allow_unused=True, retain_graph=True)
        for z in (graph(x), outputs)
    )
    for ours, theirs in zip(by_graph, by_module, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_the_graph_for_proofs_does_not_change_with_the_module():
    module, x = nn.Linear(2, 2).double(), sample(3, 2)
    graph, (live, _) = read_graph(module, 2), read_live(module, x)
    before = module(x).detach()
    with torch.no_grad():
        module.weight.add_(1.0)
    torch.testing.assert_close(graph(x), before)
    torch.testing.assert_close(live(x), module(x))
    assert not any(part.requires_grad for part in (graph.nodes[1].weight, graph.nodes[1].bias))


def test_batch_norm_in_training_mode_stands_for_this_batch():
    module = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2)).double().train()
    x = sample(6, 3)
    graph, outputs = read_live(module, x)
    torch.testing.assert_close(graph(x), outputs)
    assert module[1].num_batches_tracked == 1
    # Other rows do not bring statistics of their own.
    hidden = module[0](x)
    mean, variance = hidden.mean(dim=0), hidden.var(dim=0, unbiased=False)
    expected = module[2]((module[0](x[:2]) - mean) / (variance + module[1].eps).sqrt())
    torch.testing.assert_close(graph(x[:2]), expected)


UNITS = [nn.Tanh(), nn.Sigmoid(), nn.Softplus(2.0), nn.ELU(0.5, inplace=True), nn.SELU()]


@pytest.mark.parametrize("unit", UNITS, ids=repr)
def test_smooth_activations_are_read_for_training_and_for_proofs(unit):
    module, x = nn.Sequential(nn.Linear(3, 4), unit, nn.Linear(4, 2)).double(), sample(4, 3)
    graph, outputs = read_live(module, x)
    assert isinstance(graph.nodes[2], Smooth)
    torch.testing.assert_close(graph(x), outputs)
    torch.testing.assert_close(read_graph(module, 3)(x), outputs)


def test_dropout_is_read_where_it_drops_nothing():
    x = sample(4, 3)
    graph, _ = read_live(nn.Sequential(nn.Dropout(0.0), nn.Linear(3, 2).double()).train(), x)
    assert len(graph.nodes) == 2
    with pytest.raises(UnsupportedModelError, match="is active, in training mode"):
        read_live(nn.Sequential(nn.Dropout(0.5), nn.Linear(3, 2).double()).train(), x)


def test_a_batch_of_one_row_is_read():
    module, x = nn.Sequential(nn.Unflatten(1, (2, 2)), nn.Flatten(), nn.Linear(4, 2)), sample(1, 4)
    graph, outputs = read_live(module.double(), x)
    torch.testing.assert_close(graph(x), outputs)


def test_half_precision_is_refused():
    with pytest.raises(UnsupportedModelError, match=r"Got a module in float16, but expected"):
        read_live(nn.Linear(2, 2).half(), torch.rand(2, 2).half())


@pytest.mark.parametrize("network", [None, LogisticRegression(), "net.onnx"])
def test_what_is_no_network_is_refused(network):
    with pytest.raises(TypeError, match=r"^Got network=.*such as as_network\(estimator\)"):
        read_graph(network, 3)


def test_a_number_of_features_that_does_not_fit_is_refused():
    with pytest.raises(UnsupportedModelError, match=r"fails on rows of shape \(n, 2\)"):
        read_graph(torch.nn.Linear(3, 2), 2)


@pytest.mark.parametrize("n_features", [0, 1.5, "3", (3,)])
def test_numbers_of_features_that_are_none(n_features):
    with pytest.raises(ValueError, match=r"^Got n_features=.*, but expected an integer of at"):
        read_graph(torch.nn.Linear(3, 2), n_features)
