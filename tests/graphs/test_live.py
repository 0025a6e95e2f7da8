"""Modules that are read at each step of their training: anew where something may have changed."""

import pytest
import torch
from torch import nn

from skrobust import RobustClassifier
from skrobust.graphs import LiveReader, read_live
from skrobust.properties import ClassificationRobustness
from skrobust.training import CertifiedTraining
from tests._modules import MODULES, build, sample


def made():
    return nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))


@pytest.mark.parametrize(("factory", "n_features"), MODULES)
def test_each_step_is_read_as_by_read_live(factory, n_features):
    module, read = build(factory), LiveReader()
    for n in (5, 4):
        x = sample(n, n_features)
        graph, outputs = read(module, x)
        torch.testing.assert_close(graph(x), outputs)
        weights = [weight for weight in module.parameters() if weight.requires_grad]
        found, expected = (
            torch.autograd.grad(g(x).square().sum(), weights, allow_unused=True)
            for g in (graph, read_live(module, x)[0])
        )
        for ours, theirs in zip(found, expected, strict=True):
            torch.testing.assert_close(ours, theirs)
        with torch.no_grad():
            for weight in weights:
                weight.mul_(1.5)


def test_values_of_parameters_are_those_of_the_step():
    module, read, x = made(), LiveReader(), torch.rand(4, 3)
    first, _ = read(module, x)
    first.constants[1].sum().backward()  # the history of a step is gone after it
    with torch.no_grad():
        module[0].bias.add_(1.0)
    second, outputs = read(module, x)
    assert second.nodes is first.nodes and second is not first
    torch.testing.assert_close(outputs, module(x))
    torch.testing.assert_close(second.constants[1][0], module[0].bias)
    second.constants[1].sum().backward()


def doubled(module, args, output):
    return 2 * output


CHANGES = {
    "another parameter": lambda m: setattr(m[0], "weight", nn.Parameter(torch.rand(4, 3))),
    "one layer more": lambda m: m.append(nn.ReLU()),
    "another layer": lambda m: m.__setitem__(1, nn.Tanh()),
    "an option": lambda m: m.__setitem__(1, nn.LeakyReLU(0.5)),
    "a hook": lambda m: m[1].register_forward_hook(doubled),
    "a forward of its own": lambda m: setattr(m[1], "forward", torch.tanh),
    "another type": lambda m: m.double(),
}


@pytest.mark.parametrize("name", CHANGES)
def test_what_changes_is_read_anew(name):
    module, read, x = made(), LiveReader(), torch.rand(4, 3)
    before, _ = read(module, x)
    CHANGES[name](module)
    x = x.to(module[0].weight.dtype)
    graph, outputs = read(module, x)
    assert graph.nodes is not before.nodes
    torch.testing.assert_close(outputs, module(x))
    torch.testing.assert_close(graph(x), outputs)


def test_an_option_that_is_set_is_read_anew():
    module, read, x = (
        nn.Sequential(nn.LeakyReLU(0.1), nn.Linear(3, 2)),
        LiveReader(),
        -torch.rand(4, 3),
    )
    read(module, x)
    module[0].negative_slope = 0.7
    graph, outputs = read(module, x)
    torch.testing.assert_close(graph(x), outputs)


def test_a_layer_that_runs_once_more_is_read_anew():
    module, x, read = nn.Sequential(nn.Linear(2, 2), nn.ReLU()), torch.rand(4, 2), LiveReader()
    read(module, x)
    module.append(module[0])
    graph, outputs = read(module, x)
    assert torch.allclose(graph(x), outputs)


def test_a_module_with_a_memory_is_read_at_each_step():
    module = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2)).train()
    read = LiveReader()
    for x in (torch.rand(4, 3), 5 * torch.rand(4, 3)):
        graph, outputs = read(module, x)
        torch.testing.assert_close(graph(x), outputs)


def test_training_is_the_same_as_with_a_module_that_is_read_at_each_step():
    class Plain(nn.Sequential):
        pass

    generator = torch.Generator().manual_seed(0)
    X = torch.rand(32, 3, generator=generator).numpy()
    y = (X[:, 0] > 0.5).astype(int)
    torch.manual_seed(0)
    layers = made()
    models = [
        RobustClassifier(
            kind(*layers), property=ClassificationRobustness(0.05), max_epochs=3, random_state=0,
            training=CertifiedTraining(ramp_epochs=1), batch_size=8,
        ).fit(X, y)
        for kind in (nn.Sequential, Plain)
    ]  # fmt: skip
    ours, theirs = (m.net_.module_.state_dict().values() for m in models)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b)
