"""Operators one by one: each computes what onnxruntime computes, or is refused by its name."""

import numpy as np
import pytest
import torch

from skrobust.exceptions import UnsupportedModelError
from skrobust.networks._onnx_operators import _OPERATIONS, Operator

X = np.random.default_rng(0).normal(size=(3, 2, 4, 5)).astype(np.float32)
ROWS = X.reshape(3, 40)[:, :6]


def normal(*shape, seed=1):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def ints(*values):
    return np.array(values, dtype=np.int64)


def operator(kind, constants=(), *, n_outputs=1, **settings):
    """Return an operator of one sample-dependent input, which is the first."""
    places = {i + 1: torch.as_tensor(value) for i, value in enumerate(constants)}
    inputs = ["x", *(f"c{place}" for place in places)]
    outputs = [f"y{i}" for i in range(n_outputs)]
    return Operator(kind, "node", inputs, outputs, places, settings, True)


def compute(kind, x, constants=(), **settings):
    values = [torch.as_tensor(x), *(None for _ in constants)]
    return [value.numpy() for value in operator(kind, constants, **settings)(*values)]


def reference(kind, x, constants=(), *, n_outputs=1, **settings):
    """Return what onnxruntime computes for a file of this one node."""
    onnx, ort = pytest.importorskip("onnx"), pytest.importorskip("onnxruntime")
    helper, names = onnx.helper, [f"c{i + 1}" for i in range(len(constants))]
    outputs = [f"y{i}" for i in range(n_outputs)]
    graph = helper.make_graph(
        [helper.make_node(kind, ["x", *names], outputs, **settings)],
        "one",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, x.shape)],
        [helper.make_tensor_value_info(y, onnx.TensorProto.FLOAT, None) for y in outputs],
        [
            onnx.numpy_helper.from_array(np.asarray(value), name)
            for name, value in zip(names, constants, strict=True)
        ],
    )
    version, ir_version = (20, 9) if kind == "Gelu" else (17, 8)
    imports = [helper.make_opsetid("", version)]
    model = helper.make_model(graph, opset_imports=imports, ir_version=ir_version)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})


CASES = {
    "Relu": ("Relu", X, (), {}),
    "LeakyRelu": ("LeakyRelu", X, (), {"alpha": 0.3}),
    "LeakyRelu as it is": ("LeakyRelu", X, (), {}),
    "PRelu": ("PRelu", X, (normal(2, 1, 1),), {}),
    "Clip": ("Clip", X, (np.float32(-0.5), np.float32(0.7)), {}),
    "Clip below": ("Clip", X, (np.float32(-0.5),), {}),
    "Max": ("Max", X, (np.float32(0.1), np.float32(-0.2)), {}),
    "Min": ("Min", X, (np.float32(0.1),), {}),
    "Abs": ("Abs", X, (), {}),
    "Neg": ("Neg", X, (), {}),
    "Sigmoid": ("Sigmoid", X, (), {}),
    "Tanh": ("Tanh", X, (), {}),
    "Softplus": ("Softplus", X, (), {}),
    "Sqrt": ("Sqrt", np.abs(X), (), {}),
    "Elu": ("Elu", X, (), {"alpha": 0.4}),
    "Selu": ("Selu", X, (), {}),
    "Selu by hand": ("Selu", X, (), {"alpha": 1.3, "gamma": 0.7}),
    "Celu": ("Celu", X, (), {"alpha": 0.4}),
    "Erf": ("Erf", X, (), {}),
    "Gelu": ("Gelu", X, (), {}),
    "Gelu by tanh": ("Gelu", X, (), {"approximate": "tanh"}),
    "Softmax": ("Softmax", X, (), {"axis": 1}),
    "LogSoftmax": ("LogSoftmax", X, (), {}),
    "Add": ("Add", X, (normal(5),), {}),
    "Sub": ("Sub", X, (normal(2, 1, 1),), {}),
    "Mul": ("Mul", X, (normal(4, 1),), {}),
    "Div": ("Div", X, (normal(1),), {}),
    "Sum": ("Sum", X, (normal(5), normal(4, 5)), {}),
    "MatMul": ("MatMul", X, (normal(5, 3),), {}),
    "Gemm": ("Gemm", ROWS, (normal(6, 3), normal(3)), {"alpha": 0.5, "beta": 2.0}),
    "Gemm transposed": ("Gemm", ROWS, (normal(3, 6), normal(1, 3)), {"transB": 1}),
    "Gemm without bias": ("Gemm", ROWS, (normal(6, 3),), {}),
    "BatchNormalization": (
        "BatchNormalization",
        X,
        (normal(2), normal(2, seed=2), normal(2, seed=3), np.abs(normal(2, seed=4))),
        {"epsilon": 0.01},
    ),
    "Conv": ("Conv", X, (normal(4, 2, 3, 3), normal(4)), {"pads": [1, 1, 1, 1]}),
    "Conv in groups": (
        "Conv",
        X,
        (normal(4, 1, 2, 2),),
        {"group": 2, "strides": [2, 1], "dilations": [1, 2]},
    ),
    "Conv of uneven padding": ("Conv", X, (normal(3, 2, 2, 3),), {"pads": [0, 2, 1, 0]}),
    "Conv as large": ("Conv", X, (normal(3, 2, 2, 2),), {"auto_pad": "SAME_LOWER"}),
    "Conv, strided": (
        "Conv",
        X,
        (normal(3, 2, 3, 3),),
        {"auto_pad": "SAME_UPPER", "strides": [2, 3]},
    ),
    "Conv of a line": ("Conv", X[:, :, 0], (normal(3, 2, 2),), {"strides": [2]}),
    "MaxPool": ("MaxPool", X, (), {"kernel_shape": [2, 3], "strides": [1, 2]}),
    "MaxPool, uneven": ("MaxPool", X, (), {"kernel_shape": [3, 3], "pads": [2, 0, 1, 1]}),
    "MaxPool, dilated": ("MaxPool", X, (), {"kernel_shape": [2, 2], "dilations": [2, 1]}),
    "MaxPool, ceil": (
        "MaxPool",
        X,
        (),
        {"kernel_shape": [2, 2], "strides": [2, 2], "ceil_mode": 1},
    ),
    "AveragePool": ("AveragePool", X, (), {"kernel_shape": [2, 2], "pads": [1, 0, 1, 0]}),
    "AveragePool with padding": (
        "AveragePool",
        X,
        (),
        {"kernel_shape": [2, 2], "pads": [1, 0, 1, 0], "count_include_pad": 1},
    ),
    "GlobalAveragePool": ("GlobalAveragePool", X, (), {}),
    "GlobalMaxPool": ("GlobalMaxPool", X, (), {}),
    "ReduceMean": ("ReduceMean", X, (), {"axes": [2, -1], "keepdims": 0}),
    "ReduceSum": ("ReduceSum", X, (ints(1, 3),), {}),
    "Flatten": ("Flatten", X, (), {}),
    "Reshape": ("Reshape", X, (ints(0, -1, 10),), {}),
    "Transpose": ("Transpose", X, (), {"perm": [0, 3, 1, 2]}),
    "Squeeze": ("Squeeze", X[:, :1], (ints(1),), {}),
    "Unsqueeze": ("Unsqueeze", X, (ints(-1, 2),), {}),
    "Split": ("Split", X, (ints(2, 3),), {"axis": 3, "n_outputs": 2}),
    "Slice": ("Slice", X, (ints(1, -4), ints(3, -1), ints(2, 3), ints(1, 2)), {}),
    "Gather": ("Gather", X, (ints(1, 0, -1),), {"axis": 1}),
    "Gather of one": ("Gather", X, (np.int64(1),), {"axis": 2}),
    "Pad": ("Pad", X, (ints(0, 0, 1, 2, 0, 0, 0, 1),), {}),
    "ConvTranspose": ("ConvTranspose", X, (normal(2, 3, 3, 2), normal(3)), {}),
    "Identity": ("Identity", X, (), {}),
    "Dropout": ("Dropout", X, (), {}),
}


@pytest.mark.parametrize("name", CASES)
def test_same_as_onnxruntime(name):
    kind, x, constants, settings = CASES[name]
    expected = reference(kind, x, constants, **settings)
    result = compute(kind, x, constants, **settings)
    assert len(result) == len(expected)
    for ours, theirs in zip(result, expected, strict=True):
        assert ours.shape == theirs.shape
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)


def test_every_operator_is_tried_here_or_computes_constants():
    tried = {case[0] for case in CASES.values()} | {"Resize", "Upsample"}  # by their own tests
    constants = {"Cast", "Concat", "Constant", "ConstantOfShape", "Shape"}
    assert tried.isdisjoint(constants)
    assert tried | constants == set(_OPERATIONS)


# ---- constants and shapes ----------------------------------------------------------------


def fixed(kind, *values, **settings):
    """Compute an operator of which no input depends on the sample."""
    node = Operator(kind, "node", [], ["y"], {}, settings, False)
    return node(*map(torch.as_tensor, values))[0]


def test_constants_and_what_is_computed_from_shapes():
    assert fixed("Constant", value_floats=[1.0, 2.0]).dtype == torch.float32
    assert fixed("Constant", value_int=3).dtype == torch.int64
    array = np.ones((2, 2), dtype=np.float64)
    assert torch.equal(fixed("Constant", value=array), torch.as_tensor(array))
    assert fixed("Shape", X).tolist() == [3, 2, 4, 5]
    assert fixed("Shape", X, start=1, end=3).tolist() == [2, 4]
    assert fixed("ConstantOfShape", ints(2, 3), value=1.5).tolist() == [[1.5] * 3] * 2
    assert fixed("Cast", ints(3), to=1).dtype == torch.float32
    assert fixed("Cast", np.float32([3.7]), to=7).tolist() == [3]
    # As ONNX has it, integers are divided towards 0.
    assert fixed("Div", ints(-7), ints(2)).tolist() == [-3]
    with pytest.raises(UnsupportedModelError, match="Constant of node 'node' holds no numbers"):
        fixed("Constant", value_string="a")


def test_the_batch_that_an_exporter_saw_is_not_taken_literally():
    node = operator("Reshape", (ints(1, 40),))
    assert node(torch.as_tensor(X), None)[0].shape == (3, 40)


def test_constants_are_joined_to_each_sample():
    # [CLS] tokens of a transformer: a constant of one row, for every sample.
    token = torch.ones(1, 1, 4, 5)
    node = Operator("Concat", "node", ["c", "x"], ["y"], {0: token}, {"axis": 1}, True)
    (joined,) = node(None, torch.as_tensor(X))
    np.testing.assert_array_equal(joined, np.concatenate([np.ones((3, 1, 4, 5)), X], axis=1))


@pytest.mark.parametrize("shape", [(3, 4), (1, 1, 3, 4)])
def test_weights_on_the_left(shape):
    weight = torch.as_tensor(normal(*shape))
    node = Operator("MatMul", "node", ["w", "x"], ["y"], {0: weight}, {}, True)
    (columns,) = node(None, torch.as_tensor(X[:, 0]))
    np.testing.assert_allclose(
        columns, normal(*shape).reshape(3, 4) @ X[:, 0], rtol=1e-5, atol=1e-6
    )


def test_an_operator_is_a_module_whose_constants_follow_it():
    node = operator("Gemm", (normal(6, 3), normal(3)))
    assert {name for name, _ in node.named_parameters()} == {"constant_1", "constant_2"}
    assert not any(weight.requires_grad for weight in node.parameters())
    x = torch.as_tensor(ROWS).double()
    assert node.double()(x, None, None)[0].dtype == torch.float64
    assert "Gemm of ('x', 'c1', 'c2') to ('y0',)" in repr(node)
    assert {name for name, _ in operator("Reshape", (ints(0, -1),)).named_buffers()} == {
        "constant_1"
    }


# ---- refusals ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "constants", "settings", "message"),
    [
        ("Cast", (), {"to": 7}, "rounds activations"),
        ("PRelu", (normal(2, 4, 5),), {}, "has a slope for each entry"),
        ("Max", (normal(5),), {}, "is read only with one activation and numbers"),
        ("Gemm", (normal(5, 3),), {"transA": 1}, "is read only with samples on the left"),
        ("BatchNormalization", (normal(2),) * 4, {"training_mode": 1}, "from the batch"),
        ("MaxPool", (), {"kernel_shape": [2, 2], "pads": [3, 0, 0, 0]}, "has uneven padding"),
        ("MaxPool", (), {"kernel_shape": [2, 2], "n_outputs": 2}, "without indices"),
        ("AveragePool", (), {"kernel_shape": [2, 2], "ceil_mode": 1}, "without dilations"),
        ("ReduceMean", (), {}, "joins samples"),
        ("Flatten", (), {"axis": 2}, "mixes samples"),
        ("Reshape", (ints(-1),), {}, "mixes samples"),
        ("Transpose", (), {"perm": [1, 0, 2, 3]}, "moves the axis of the samples"),
        ("Squeeze", (ints(0),), {}, "drops the axis of the samples"),
        ("Unsqueeze", (ints(0),), {}, "adds an axis before that of the samples"),
        ("Split", (), {}, "splits the batch"),
        ("Gather", (ints(0),), {}, "selects samples"),
        ("Pad", (ints(0, 0, 1, 0, 0, 0, 0, 0), np.float32(1.0)), {}, "is read only with zeros"),
        ("Pad", (ints(0, 0, 1, 0, 0, 0, 0, 0),), {"mode": "edge"}, "is read only with zeros"),
    ],
)
def test_what_is_not_read_is_refused_by_operation_and_node(kind, constants, settings, message):
    with pytest.raises(
        UnsupportedModelError, match=f"Operation {kind} of node 'node' .*{message}"
    ):
        compute(kind, X, constants, **settings)


def test_activations_are_no_parameters():
    x = torch.as_tensor(X)
    for kind, values in (("Conv", (x, x)), ("Gemm", (x, x)), ("Gather", (x, x)), ("Max", (x, x))):
        node = Operator(kind, "node", ["x", "z"], ["y"], {}, {"axis": 1}, True)
        with pytest.raises(UnsupportedModelError, match=f"Operation {kind} of node 'node'"):
            node(*values)
