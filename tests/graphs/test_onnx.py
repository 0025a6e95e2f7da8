"""Tests of graphs as ONNX files: they compute the same, and pools keep their sizes."""

import numpy as np
import pytest
import torch
from torch import nn

from skrobust.graphs import OnnxWriter, read_graph
from skrobust.networks import load_onnx
from tests._modules import MODULES, build, sample
from tests.bounds._smooth_units import MODULES as SMOOTH

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")


def pools():
    return nn.Sequential(
        nn.Unflatten(1, (2, 7, 6)),
        nn.MaxPool2d((3, 2), stride=2, padding=1, ceil_mode=True),
        nn.AvgPool2d(2, stride=1, padding=1, count_include_pad=False),
        nn.Flatten(2),
        nn.MaxPool1d(2, stride=1, dilation=2),
        nn.AvgPool1d(3, ceil_mode=True),
        nn.Flatten(),
    )


@pytest.mark.parametrize(
    ("factory", "n_features"), [*MODULES, pytest.param(pools, 84, id="pools")]
)
def test_the_file_computes_what_the_graph_computes(factory, n_features):
    graph = read_graph(build(factory), n_features)
    model = OnnxWriter(onnx, torch.float32).model(graph)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    for x in sample(4, n_features).float():
        (outputs,) = session.run(["Y"], {"X": x[None].numpy()})
        np.testing.assert_allclose(outputs, graph(x[None]), rtol=1e-4, atol=1e-4)


def test_sizes_of_pools_and_orders_of_axes_are_written():
    class Moved(nn.Module):
        def forward(self, x):
            x = nn.functional.max_pool2d(x.view(-1, 3, 32, 32), 5, 2, 2)
            return x.permute(0, 2, 3, 1).flatten(1)

    graph = read_graph(Moved(), 3 * 32 * 32)
    model = OnnxWriter(onnx, torch.float32).model(graph)
    nodes = {node.op_type: node for node in model.graph.node}
    assert set(nodes) == {"Reshape", "MaxPool", "Transpose"}
    sizes = {part.name: list(part.ints) for part in nodes["MaxPool"].attribute}
    assert sizes["kernel_shape"] == [5, 5] and sizes["strides"] == [2, 2]
    assert sizes["pads"] == [2, 2, 1, 1]
    assert list(nodes["Transpose"].attribute[0].ints) == [0, 2, 3, 1]


@pytest.mark.parametrize("unit", [*SMOOTH, nn.Softplus(3.0)], ids=repr)
def test_smooth_units_are_written_and_read_back(unit, tmp_path):
    module = nn.Sequential(nn.Linear(4, 6), unit, nn.Linear(6, 3)).requires_grad_(False)
    graph, x = read_graph(module, 4), 8 * sample(20, 4).float() - 4
    model = OnnxWriter(onnx, torch.float32).model(graph)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    path = tmp_path / "net.onnx"
    onnx.save(model, path)
    again = read_graph(load_onnx(path), 4)
    kinds = [{type(node) for node in each.nodes if not node.is_affine} for each in (graph, again)]
    assert kinds[0] == kinds[1]
    # A threshold that torch jumps at is not part of the file.
    atol = 0.05 if isinstance(unit, nn.Softplus) and unit.threshold < 20 else 1e-5
    np.testing.assert_allclose(again(x), graph(x), rtol=1e-5, atol=atol)
    for row in x:
        (outputs,) = session.run(["Y"], {"X": row[None].numpy()})
        np.testing.assert_allclose(outputs, again(row[None]), rtol=1e-4, atol=1e-4)
