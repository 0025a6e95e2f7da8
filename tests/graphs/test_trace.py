"""The run on marked tensors: what is written down, by which name, and what it is refused for."""

import threading

import pytest
import torch
from torch import nn

from skrobust.exceptions import UnsupportedModelError
from skrobust.graphs import Linear, Relu, Scale, read_graph, read_live, reads
from skrobust.graphs._trace import READERS, arguments, flat, option, trace
from tests._modules import sample


def test_a_module_is_run_once_and_its_outputs_are_handed_on():
    class Counted(nn.Linear):
        calls = 0

        def forward(self, x):
            type(self).calls += 1
            return super().forward(x)

    module, x = Counted(3, 2).double().requires_grad_(False), sample(4, 3)
    graph, outputs = trace(module, x)
    assert Counted.calls == 1
    torch.testing.assert_close(outputs, nn.functional.linear(x, module.weight, module.bias))
    torch.testing.assert_close(graph(x), outputs)
    assert [type(node) for node in graph.nodes[1:]] == [Linear]
    # Copies, unless the graph is live.
    assert graph.nodes[1].weight.data_ptr() != module.weight.data_ptr()
    live, _ = trace(module, x, live=True)
    assert live.nodes[1].weight is module.weight


def test_functions_are_named_by_the_layer_that_runs_them():
    class Deep(nn.Module):
        def __init__(self):
            super().__init__()
            self.block = nn.Sequential(nn.Linear(3, 2), nn.ReLU())

        def forward(self, x):
            return 2 * self.block(x)

    graph = read_graph(Deep(), 3)
    assert [(type(node), node.path) for node in graph.nodes[1:]] == [
        (Linear, "block.0 (Linear)"),
        (Relu, "block.1 (ReLU)"),
        (Scale, "the module (Deep)"),
    ]


def test_the_layers_of_another_thread_are_not_mixed_in():
    module = nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 2)).requires_grad_(False)
    graphs = []
    threads = [
        threading.Thread(target=lambda: graphs.append(read_graph(module, 3))) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(graphs) == 8
    assert all(len(graph.nodes) == 4 for graph in graphs)
    assert {tuple(node.path for node in graph.nodes) for graph in graphs} == {
        ("input", "0 (Linear)", "1 (ReLU)", "2 (Linear)")
    }


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_what_does_not_depend_on_the_input_is_no_node(dtype):
    class Shifted(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(3))

        def forward(self, x):
            size = torch.softmax(self.weight, dim=0).to(x.dtype)  # any function of constants
            return x * size + torch.full_like(x, 2.0) * x.shape[1]

    module, x = Shifted().requires_grad_(False), sample(4, 3).to(dtype)
    graph, outputs = read_live(module, x)
    assert graph.dtype == dtype
    torch.testing.assert_close(graph(x), outputs)


def test_constants_that_differ_between_rows_are_refused():
    class Numbered(nn.Module):
        def forward(self, x):
            return x + torch.arange(float(len(x)))[:, None]

    with pytest.raises(UnsupportedModelError, match="differs between the rows of a batch"):
        read_graph(Numbered(), 3)


@pytest.mark.parametrize(
    ("returned", "error", "message"),
    [
        (lambda x: (x, x), UnsupportedModelError, "returns a tuple, but expected one tensor"),
        (lambda x: torch.ones(2, 2), UnsupportedModelError, "do not depend on its input"),
        (lambda x: 1.0, UnsupportedModelError, "returns a float, but expected one tensor"),
        (lambda x: x[:, None], ValueError, r"outputs of shape \(2, 1, 3\) for 2 rows"),
    ],
)
def test_modules_that_return_something_else_are_refused(returned, error, message):
    class Odd(nn.Module):
        def forward(self, x):
            return returned(x)

    with pytest.raises(error, match=message):
        read_graph(Odd(), 3)


def test_functions_of_others_can_be_registered(monkeypatch):
    for name in ("sgn", "signbit"):
        monkeypatch.setitem(READERS, name, None)
        monkeypatch.delitem(READERS, name)

    class Half(nn.Module):
        def forward(self, x):
            return torch.sgn(x)  # stands for an operation that nobody has read before

    with pytest.raises(UnsupportedModelError, match=r"'sgn' in layer the module \(Half\)"):
        read_graph(Half(), 3)

    @reads("sgn", "signbit")
    def read(tracer, name, func, args, kwargs, output):
        assert name == "sgn" and output.shape == args[0].shape
        slope = tracer.number(2.0)
        return Relu(
            inputs=(tracer.at(args[0]),),
            shape=tracer.shape(output),
            path=tracer.label,
            slope=slope,
        )

    assert READERS["sgn"] is READERS["signbit"] is read
    tracer_run = trace(Half(), sample(3, 3))
    assert [type(node) for node in tracer_run[0].nodes[1:]] == [Relu]


def test_arguments_by_name_and_place():
    assert arguments((1, 2), {"c": 3}, a=None, b=0, c=0, d=4) == [1, 2, 3, 4]
    assert list(flat([1, (2, [3]), "x"])) == [1, 2, 3, "x"]

    def function(input, p=0.5, inplace=False):
        return input

    assert option((1, 0.5, True), {}, function, "inplace") is True
    assert option((1,), {"inplace": True}, function, "inplace") is True
    assert option((1,), {}, function, "inplace") is None
    assert option((1,), {}, torch.relu, "inplace") is None  # no signature
