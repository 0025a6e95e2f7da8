"""Windows: what spreads entries is the same as onnxruntime has it, and is read as a graph."""

import numpy as np
import pytest
import torch

from skrobust.exceptions import UnsupportedModelError
from skrobust.graphs import Conv, Rearrange, read_graph
from tests.networks.test_onnx_operators import X, compute, ints, normal, operator, reference

NONE = np.zeros(0, np.float32)
SPREAD = {"strides": [2, 3], "pads": [1, 0, 0, 1], "output_padding": [1, 2]}
CASES = {
    "strides": ("ConvTranspose", (normal(2, 3, 3, 2), normal(3)), SPREAD),
    "groups": ("ConvTranspose", (normal(2, 3, 2, 2),), {"group": 2, "strides": [2, 2]}),
    "dilations": ("ConvTranspose", (normal(2, 1, 2, 3),), {"dilations": [2, 1], "pads": [1] * 4}),
    "scales": ("Resize", (NONE, np.float32([1, 1, 2, 3])), {"mode": "nearest"}),
    "floor": (
        "Resize",
        (NONE, np.float32([1, 1, 4, 2])),
        {
            "mode": "nearest",
            "coordinate_transformation_mode": "asymmetric",
            "nearest_mode": "floor",
        },
    ),
    "sizes": ("Resize", (NONE, NONE, ints(3, 2, 8, 15)), {"mode": "nearest"}),
}


@pytest.mark.parametrize("name", CASES)
def test_same_as_onnxruntime(name):
    kind, constants, settings = CASES[name]
    (expected,) = reference(kind, X, constants, **settings)
    (result,) = compute(kind, X, constants, **settings)
    assert result.shape == expected.shape
    np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-5)


def test_one_dimension_is_the_same_as_torch():
    x, weight = X.reshape(3, 2, 20), normal(2, 4, 5)
    (result,) = compute("ConvTranspose", x, (weight,), strides=[3], pads=[2, 2])
    theirs = torch.nn.functional.conv_transpose1d(
        torch.as_tensor(x), torch.as_tensor(weight), stride=3, padding=2
    )
    np.testing.assert_allclose(result, theirs.numpy(), rtol=1e-5, atol=1e-5)


def test_older_files_have_the_scales_as_attribute_or_input():
    expected = np.repeat(np.repeat(X, 2, axis=2), 3, axis=3)
    (result,) = compute("Upsample", X, (np.float32([1, 1, 2, 3]),), mode="nearest")
    np.testing.assert_array_equal(result, expected)
    (result,) = compute("Upsample", X, scales=[1.0, 1.0, 2.0, 3.0])
    np.testing.assert_array_equal(result, expected)


@pytest.mark.parametrize(
    ("kind", "constants", "settings", "message"),
    [
        ("ConvTranspose", (normal(2, 3, 2, 2),), {"auto_pad": "SAME_UPPER"}, "plain pads"),
        ("ConvTranspose", (normal(2, 3, 2, 2),), {"output_shape": [9, 9]}, "plain pads"),
        ("ConvTranspose", (normal(2, 3, 2, 2),), {"pads": [2, 2, 2, 2]}, "cuts off more"),
        ("Resize", (NONE, np.float32([1, 1, 2, 2])), {"mode": "linear"}, "nearest entries"),
        ("Resize", (NONE, np.float32([1, 1, 2, 2])), {"nearest_mode": "ceil"}, "'ceil'"),
        ("Resize", (NONE, np.float32([1, 1, 1.5, 2])), {}, "whole numbers"),
        ("Resize", (NONE, np.float32([2, 1, 1, 1])), {}, "whole numbers"),
        ("Upsample", (), {}, "no scale for each axis"),
    ],
)
def test_what_is_not_read_is_refused(kind, constants, settings, message):
    with pytest.raises(UnsupportedModelError, match=f"Operation {kind} of .*{message}"):
        compute(kind, X, constants, **settings)


@pytest.mark.parametrize("name", CASES)
def test_read_as_known_nodes(name):
    kind, constants, settings = CASES[name]

    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.node = operator(kind, constants, **settings)

        def forward(self, x):
            return self.node(x.view(-1, *X.shape[1:]), *(None for _ in constants))[0].flatten(1)

    rows = torch.as_tensor(X).flatten(1)
    graph = read_graph(Net(), 40)
    assert any(isinstance(node, Conv | Rearrange) for node in graph.nodes)
    expected = compute(kind, X, constants, **settings)[0].reshape(3, -1)
    np.testing.assert_allclose(graph(rows).numpy(), expected, rtol=1e-5, atol=1e-5)
