"""The network that averages: against means of networks one by one, in values and gradients."""

import copy
import pickle
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from skrobust.estimators import _average
from skrobust.estimators._average import PosteriorAverage
from skrobust.exceptions import UnsupportedModelError
from skrobust.graphs import read_graph
from tests.estimators._models import convolutional


def perceptron():
    return torch.nn.Sequential(torch.nn.Linear(4, 5), torch.nn.ReLU(), torch.nn.Linear(5, 3))


class Looking(torch.nn.Module):
    """A module that decides by numbers, which cannot be mapped over samples."""

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(4, 3)

    def forward(self, x):
        out = self.layer(x)
        return out if float(self.layer.weight.sum()) > 0 else 2 * out


class Listed(torch.nn.Module):
    """A module that keeps its layers in a list as well, and a method of one of them."""

    def __init__(self):
        super().__init__()
        self.first, self.last = torch.nn.Linear(4, 5), torch.nn.Linear(5, 3)
        self.layers, self.end = [self.first, torch.nn.Tanh()], self.last.forward

    def forward(self, x):
        for layer in self.layers:
            x = layer(x)
        return self.end(x)


class Aliased(torch.nn.Module):
    """A module that computes with a parameter under a name that is none of a parameter."""

    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(4, 3)
        self.kept = [self.layer.weight]

    def forward(self, x):
        return x @ self.kept[0].T


def normed():
    return torch.nn.utils.parametrizations.weight_norm(torch.nn.Linear(4, 3))


def reshaped():
    return torch.nn.Sequential(torch.nn.Unflatten(1, (1, 2, 2)), convolutional(n_classes=3))


def average(module, n=6, scale=1.0):
    torch.manual_seed(0)
    names = [name for name, _ in module.named_parameters()]
    n_weights = parameters_to_vector(module.parameters()).numel()
    return PosteriorAverage(module, names, scale * torch.randn(n, n_weights), torch.rand(2, 4))


def one_by_one(averaged, x):
    """Return the probabilities of each network of its own."""
    outputs = []
    for weights in averaged.samples:
        module = copy.deepcopy(averaged.module)
        vector_to_parameters(weights, module.parameters())
        outputs.append(module(x).softmax(dim=1))
    return torch.stack(outputs)


def test_modules_whose_parameters_go_by_other_names_are_refused():
    with pytest.raises(UnsupportedModelError, match=r"Got module=Aliased.*not with aliases"):
        average(Aliased())


@pytest.mark.parametrize("module", [perceptron, reshaped, Looking, Listed, normed])
@pytest.mark.parametrize("budget", [2**24, 1, 100])
def test_mean_and_its_gradient(module, budget, monkeypatch):
    monkeypatch.setattr(_average, "_BUDGET", budget)
    averaged = average(module())
    assert averaged._at_once is (module not in (Looking, normed))
    x = torch.rand(7, 4, requires_grad=True)
    expected = one_by_one(averaged, x).mean(dim=0).log()
    logits = averaged(x)
    torch.testing.assert_close(logits, expected)
    torch.testing.assert_close(averaged(x.detach()), expected)
    pull = torch.randn(7, 3)
    gradients = [torch.autograd.grad((pull * out).sum(), x)[0] for out in (logits, expected)]
    torch.testing.assert_close(*gradients)


def test_parts_are_bounded_in_floats_of_layers_and_of_weights(monkeypatch):
    averaged = average(perceptron(), n=20)  # 43 weights, and 5 + 5 + 3 + 3 floats of a row
    monkeypatch.setattr(_average, "_BUDGET", 200)
    assert [len(part) for part in averaged._parts(1)] == [3, 3, 3, 3, 3, 3, 2]
    assert {len(part) for part in averaged._parts(3)} == {2}
    assert {len(part) for part in averaged._parts(1000)} == {1}


def test_log_probabilities_of_each_sample():
    averaged = average(perceptron())
    x = torch.rand(5, 4)
    expected = one_by_one(averaged, x).log()
    torch.testing.assert_close(averaged.log_probabilities(x), expected)


def test_small_probabilities_stay_finite_with_a_gradient():
    averaged = average(perceptron(), scale=1e3)
    x = torch.rand(5, 4, requires_grad=True)
    logits = averaged(x)
    assert logits.min() < -200  # zero as a probability in float32
    assert torch.isfinite(torch.autograd.grad(logits.sum(), x)[0]).all()
    torch.testing.assert_close(logits.detach().softmax(dim=1).sum(dim=1), torch.ones(5))


def test_only_named_parameters_are_replaced():
    module = perceptron()
    kept = module[0].weight.clone()
    names = ["2.weight", "2.bias"]
    averaged = PosteriorAverage(module, names, torch.zeros(3, 18), torch.rand(2, 4))
    torch.testing.assert_close(averaged(torch.rand(2, 4)).exp(), torch.full((2, 3), 1 / 3))
    assert torch.equal(averaged.module[0].weight, kept)


def test_module_is_the_same_after_a_call_and_threads_do_not_meet():
    averaged = average(perceptron())
    before = {name: value.clone() for name, value in averaged.module.state_dict().items()}
    inputs = [torch.rand(3, 4) for _ in range(40)]
    expected = [averaged(x) for x in inputs]
    with ThreadPoolExecutor(4) as pool:
        for first, second in zip(pool.map(averaged, inputs), expected, strict=True):
            torch.testing.assert_close(first, second)
    for name, value in averaged.module.state_dict().items():
        assert torch.equal(value, before[name])


def test_copies_and_pickles_compute_the_same():
    averaged = average(perceptron())
    x = torch.rand(3, 4)
    for other in (copy.deepcopy(averaged), pickle.loads(pickle.dumps(averaged))):
        assert torch.equal(other(x), averaged(x))


def test_nothing_of_it_is_trained():
    averaged = average(perceptron())
    assert not any(p.requires_grad for p in averaged.parameters())
    assert not averaged.module.training


def test_readers_of_networks_refuse_it_by_name():
    message = r"'log_mean_probabilities' in layer .*PosteriorAverage.* is not read"
    with pytest.raises(UnsupportedModelError, match=message):
        read_graph(average(perceptron()), 4)


def test_repr_says_how_many():
    assert "6 samples of 43 weights" in repr(average(perceptron()))
