"""Graphs as ONNX files."""

import itertools
from functools import singledispatch

import numpy as np
import torch

from skrobust.graphs._nodes import (
    Average,
    AveragePool,
    Concat,
    Constant,
    Conv,
    Linear,
    Permute,
    Rearrange,
    Reshape,
    Scale,
    Sum,
    no_rule,
    product,
)
from skrobust.graphs._pieces import Clamp, MaxPool, Relu
from skrobust.graphs._smooth import Elu, Erf, Gelu, Sigmoid, Silu, Softplus, Tanh

__all__ = ["OnnxWriter", "write"]

_OPSET = 13  # what verifiers know; axes of squeezes and sums are inputs from here on
_GELU_OPSET, _GELU_IR = 20, 9  # the first that have GELU by tanh


class OnnxWriter:
    """Writes a `Graph` as an ONNX graph, for a batch of one sample.

    Parameters
    ----------
    onnx : module
        The package of that name, which need not be installed for anything else.
    dtype : torch.dtype
        Of the numbers in the file.
    """

    def __init__(self, onnx, dtype):
        self.onnx = onnx
        self.dtype = torch.empty(0, dtype=dtype).numpy().dtype
        self.nodes, self.constants = [], []
        self.opset, self.ir_version = _OPSET, 7
        self.names = itertools.count()

    def model(self, graph):
        """Return the ONNX model."""
        helper = self.onnx.helper
        values = ["X"]
        for node in graph.nodes[1:]:
            values.append(write(node, self, *(values[i] for i in node.inputs)))
        if not self.nodes or list(self.nodes[-1].output) != values[-1:]:
            self.add("Identity", values[-1])
        self.nodes[-1].output[0] = "Y"
        kind = helper.np_dtype_to_tensor_dtype(self.dtype)
        sides = [
            helper.make_tensor_value_info(name, kind, [1, size])
            for name, size in (("X", graph.n_features), ("Y", graph.n_classes))
        ]
        made = helper.make_graph(self.nodes, "network", sides[:1], sides[1:], self.constants)
        imports = [helper.make_opsetid("", self.opset)]
        model = helper.make_model(made, opset_imports=imports, ir_version=self.ir_version)
        self.onnx.checker.check_model(model)
        return model

    def constant(self, value, dtype=None):
        """Add numbers; return their name."""
        if isinstance(value, torch.Tensor):
            value = value.detach().cpu().numpy()
        name = f"constant_{next(self.names)}"
        value = np.asarray(value, dtype=self.dtype if dtype is None else dtype)
        self.constants.append(self.onnx.numpy_helper.from_array(value, name))
        return name

    def integers(self, values):
        return self.constant(values, np.int64)

    def add(self, kind, *inputs, **attributes):
        """Append a node; return the name of its output."""
        name = f"{kind}_{next(self.names)}"
        node = self.onnx.helper.make_node(kind, list(inputs), [name], name=name, **attributes)
        self.nodes.append(node)
        return name

    def reshape(self, x, shape):
        return self.add("Reshape", x, self.integers([1, *shape]))


@singledispatch
def write(node, writer, *values):
    """Append a node to an ONNX graph.

    Parameters
    ----------
    node : Node
        Kinds are registered with ``write.register(Kind)``.
    writer : OnnxWriter
        `add` appends an ONNX operation, `constant` numbers, `reshape` a change of shape.
    *values : str
        Names of what its inputs have become.

    Returns
    -------
    str
        The name of its output.

    Raises
    ------
    UnsupportedModelError
        For a kind that is not registered.
    """
    raise no_rule("graphs.write", node)


@write.register(Constant)
def _constant(node, writer, x):
    return writer.constant(node.value.expand(1, *node.shape))


@write.register(Linear)
def _linear(node, writer, x):
    if len(node.shape) == 1:
        bias = () if node.bias is None else (writer.constant(node.bias),)
        return writer.add("Gemm", x, writer.constant(node.weight), *bias, transB=1)
    product = writer.add("MatMul", x, writer.constant(node.weight.T))
    return product if node.bias is None else writer.add("Add", product, writer.constant(node.bias))


@write.register(Conv)
def _conv(node, writer, x):
    parameters = [writer.constant(p) for p in (node.weight, node.bias) if p is not None]
    return writer.add(
        "Conv",
        x,
        *parameters,
        kernel_shape=list(node.weight.shape[2:]),
        strides=list(node.stride),
        pads=list(node.padding) * 2,
        dilations=list(node.dilation),
        group=node.groups,
    )


@write.register(Scale)
def _scale(node, writer, x):
    missing = len(node.shape) - len(node.input_shape)
    if missing:
        x = writer.reshape(x, (1,) * missing + node.input_shape)
    if not bool((node.weight == 1).all()):
        x = writer.add("Mul", x, writer.constant(node.weight))
    # Zeros of the shape of the output may widen it.
    if node.shape == node.input_shape and not bool(node.bias.any()):
        return x
    bias = node.bias if node.shape == node.input_shape else node.bias.expand(node.shape)
    return writer.add("Add", x, writer.constant(bias))


@write.register(AveragePool)
def _average_pool(node, writer, x):
    if node.ceil_mode or node.divisor is not None:
        # ONNX reads these differently.
        return _average(node, writer, x)
    return writer.add(
        "AveragePool",
        x,
        kernel_shape=list(node.kernel),
        strides=list(node.stride),
        pads=list(node.padding) * 2,
        count_include_pad=int(node.count_include_pad),
    )


@write.register(Average)
def _average(node, writer, x):
    """Write any mean or sum as its matrix."""
    rows = torch.eye(node.size, dtype=torch.float64).view(node.size, *node.shape)
    (matrix,) = node.adjoint(rows)
    flat = writer.reshape(x, (product(node.input_shape),))
    sums = writer.add("Gemm", flat, writer.constant(matrix.reshape(node.size, -1)), transB=1)
    return sums if len(node.shape) == 1 else writer.reshape(sums, node.shape)


@write.register(Reshape)
def _reshape(node, writer, x):
    return writer.reshape(x, node.shape)


@write.register(Permute)
def _permute(node, writer, x):
    return writer.add("Transpose", x, perm=[0, *(axis + 1 for axis in node.axes)])


@write.register(Rearrange)
def _rearrange(node, writer, x):
    count = product(node.input_shape)
    flat = x if len(node.input_shape) == 1 else writer.reshape(x, (count,))
    if node.pads:
        flat = writer.add("Concat", flat, writer.constant([[0.0]]), axis=1)
    index = writer.integers(node.index.reshape(-1).cpu().numpy() % (count + 1))
    picked = writer.add("Gather", flat, index, axis=1)
    return picked if len(node.shape) == 1 else writer.reshape(picked, node.shape)


@write.register(Sum)
def _sum(node, writer, *values):
    if node.weights == (1.0, -1.0):
        return writer.add("Sub", *values)
    scaled = (
        value if weight == 1 else writer.add("Mul", value, writer.constant(weight))
        for weight, value in zip(node.weights, values, strict=True)
    )
    return writer.add("Add", *scaled)


@write.register(Concat)
def _concat(node, writer, *values):
    return writer.add("Concat", *values, axis=node.dim)


@write.register(Relu)
def _relu(node, writer, x):
    if node.slope.ndim > 0:
        return writer.add("PRelu", x, writer.constant(node.slope))
    slope = node.slope.item()
    if slope in (0.0, -1.0):
        return writer.add("Relu" if slope == 0 else "Abs", x)
    return writer.add("LeakyRelu", x, alpha=slope)


@write.register(Clamp)
def _clamp(node, writer, x):
    limits = ["" if np.isinf(v) else writer.constant(v) for v in (node.low, node.high)]
    return writer.add("Clip", x, *limits)


@write.register(MaxPool)
def _max_pool(node, writer, x):
    return writer.add(
        "MaxPool",
        x,
        kernel_shape=list(node.kernel),
        strides=list(node.stride),
        dilations=list(node.dilation),
        pads=[*node.padding, *_padding_behind(node)],
    )


def _padding_behind(node):
    """Yield how far the last window reaches out of the input along each axis (`ceil_mode`)."""
    for length, count, kernel, stride, padding, dilation in zip(
        node.input_shape[1:], node.shape[1:], node.kernel, node.stride, node.padding,
        node.dilation, strict=True,
    ):  # fmt: skip
        end = (count - 1) * stride + dilation * (kernel - 1) + 1 - padding
        yield max(end - length, 0)


@write.register(Tanh)
@write.register(Sigmoid)
@write.register(Erf)
def _plain(node, writer, x):
    return writer.add(type(node).__name__, x)


@write.register(Silu)
def _silu(node, writer, x):
    return writer.add("Mul", x, writer.add("Sigmoid", x))


@write.register(Gelu)
def _gelu(node, writer, x):
    if node.approximate == "tanh":
        writer.opset, writer.ir_version = _GELU_OPSET, _GELU_IR
        return writer.add("Gelu", x, approximate="tanh")
    share = writer.add("Erf", writer.add("Mul", x, writer.constant(np.sqrt(0.5))))
    gate = writer.add("Add", share, writer.constant(1.0))
    return writer.add("Mul", writer.add("Mul", x, gate), writer.constant(0.5))


@write.register(Softplus)
def _softplus(node, writer, x):
    # ONNX knows no threshold: the files differ from torch by what the function jumps there.
    scaled = x if node.beta == 1 else writer.add("Mul", x, writer.constant(node.beta))
    grown = writer.add("Softplus", scaled)
    return grown if node.beta == 1 else writer.add("Mul", grown, writer.constant(1 / node.beta))


@write.register(Elu)
def _elu(node, writer, x):
    scaled = x if node.rate == 1 else writer.add("Mul", x, writer.constant(node.rate))
    # In units of rate * z the positive part is 1 / rate times as steep.
    bent = writer.add("Elu", scaled, alpha=node.alpha * node.rate)
    factor = node.scale / node.rate
    return bent if factor == 1 else writer.add("Mul", bent, writer.constant(factor))
