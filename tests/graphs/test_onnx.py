"""Tests of graphs as ONNX files: they compute the same, and pools keep their sizes."""

import numpy as np
import pytest
import torch
from torch import nn

from skrobust.graphs import OnnxWriter, read_graph
from tests._modules import MODULES, build, sample

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
