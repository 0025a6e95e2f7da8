"""Graphs as ONNX files."""

import itertools

import numpy as np
import torch
from torch.nn import functional

from skrobust.exceptions import UnsupportedModelError
from skrobust.graphs._nodes import Average, Concat, Constant, Conv, Linear, Rearrange, Scale, Sum
from skrobust.graphs._pieces import Clamp, MaxPool, Relu
from skrobust.graphs._readers import _axis_members, _window_members

__all__ = []

_OPSET = 13  # what verifiers know; axes of squeezes and sums are inputs from here on


class OnnxWriter:
    """Writes a Graph graph as an ONNX graph, for a batch of one sample.

    Parameters
    ----------
    onnx : module
    dtype : torch.dtype
        Of the numbers in the file.
    """

    def __init__(self, onnx, dtype):
        self.onnx = onnx
        self.dtype = torch.empty(0, dtype=dtype).numpy().dtype
        self.nodes, self.constants = [], []
        self.names = itertools.count()

    def model(self, graph):
        """Return the ONNX model."""
        helper = self.onnx.helper
        values = ["X"]
        for node in graph.nodes[1:]:
            values.append(_WRITERS[type(node)](self, node, *(values[i] for i in node.inputs)))
        if not self.nodes or list(self.nodes[-1].output) != values[-1:]:
            self.add("Identity", values[-1])
        self.nodes[-1].output[0] = "Y"
        kind = helper.np_dtype_to_tensor_dtype(self.dtype)
        sides = [
            helper.make_tensor_value_info(name, kind, [1, size])
            for name, size in (("X", graph.n_features), ("Y", graph.n_classes))
        ]
        made = helper.make_graph(self.nodes, "network", sides[:1], sides[1:], self.constants)
        imports = [helper.make_opsetid("", _OPSET)]
        model = helper.make_model(made, opset_imports=imports, ir_version=7)
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


_WRITERS = {}


def _writes(kind):
    def register(function):
        _WRITERS[kind] = function
        return function

    return register


@_writes(Constant)
def _constant(writer, node, x):
    return writer.constant(node.value.expand(1, *node.shape))


@_writes(Linear)
def _linear(writer, node, x):
    if len(node.shape) == 1:
        bias = () if node.bias is None else (writer.constant(node.bias),)
        return writer.add("Gemm", x, writer.constant(node.weight), *bias, transB=1)
    product = writer.add("MatMul", x, writer.constant(node.weight.T))
    return product if node.bias is None else writer.add("Add", product, writer.constant(node.bias))


@_writes(Conv)
def _conv(writer, node, x):
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


@_writes(Scale)
def _scale(writer, node, x):
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


@_writes(Average)
def _average(writer, node, x):
    if node.function in (functional.avg_pool1d, functional.avg_pool2d):
        pooled = _average_pool(writer, node, x)
        if pooled is not None:
            return pooled
    # Any other mean or sum as its matrix.
    rows = torch.eye(node.size, dtype=torch.float64).view(node.size, *node.shape)
    (matrix,) = node.adjoint(rows)
    flat = writer.reshape(x, (int(np.prod(node.input_shape)),))
    product = writer.add("Gemm", flat, writer.constant(matrix.reshape(node.size, -1)), transB=1)
    return product if len(node.shape) == 1 else writer.reshape(product, node.shape)


def _average_pool(writer, node, x):
    """Write an AveragePool; None where it has options that ONNX reads differently."""
    names = ("kernel", "stride", "padding", "ceil_mode", "count_include_pad", "divisor_override")
    torch_names = {"kernel_size": "kernel"}
    given = dict(zip(names, node.arguments, strict=False))
    given |= {torch_names.get(name, name): value for name, value in node.options.items()}
    if given.get("ceil_mode") or given.get("divisor_override") is not None:
        return None
    n = 1 if node.function is functional.avg_pool1d else 2
    stride = given.get("stride")
    stride = given["kernel"] if stride is None or stride == [] else stride
    kernel, stride, padding = (
        np.broadcast_to(value, n).tolist()
        for value in (given["kernel"], stride, given.get("padding", 0))
    )
    return writer.add(
        "AveragePool",
        x,
        kernel_shape=kernel,
        strides=stride,
        pads=padding * 2,
        count_include_pad=int(given.get("count_include_pad", True)),
    )


@_writes(Rearrange)
def _rearrange(writer, node, x):
    if node.index is None:
        return writer.reshape(x, node.shape)
    axes = _axes(node)
    if axes is not None:
        return writer.add("Transpose", x, perm=[0, *(axis + 1 for axis in axes)])
    count = int(np.prod(node.input_shape, dtype=int))
    flat = x if len(node.input_shape) == 1 else writer.reshape(x, (count,))
    if bool((node.index < 0).any()):
        flat = writer.add("Concat", flat, writer.constant([[0.0]]), axis=1)
    index = writer.integers(node.index.reshape(-1).cpu().numpy() % (count + 1))
    picked = writer.add("Gather", flat, index, axis=1)
    return picked if len(node.shape) == 1 else writer.reshape(picked, node.shape)


def _axes(node):
    """Return the order of axes that the node permutes to, or None where it does anything else."""
    places = torch.arange(int(np.prod(node.input_shape))).view(node.input_shape)
    for axes in itertools.permutations(range(places.ndim)):
        moved = places.permute(axes)
        if moved.shape == node.shape and torch.equal(moved, node.index.cpu()):
            return axes
    return None


@_writes(Sum)
def _sum(writer, node, *values):
    if node.weights == (1.0, -1.0):
        return writer.add("Sub", *values)
    scaled = (
        value if weight == 1 else writer.add("Mul", value, writer.constant(weight))
        for weight, value in zip(node.weights, values, strict=True)
    )
    return writer.add("Add", *scaled)


@_writes(Concat)
def _concat(writer, node, *values):
    return writer.add("Concat", *values, axis=node.dim)


@_writes(Relu)
def _relu(writer, node, x):
    if node.slope.ndim > 0:
        return writer.add("PRelu", x, writer.constant(node.slope))
    slope = node.slope.item()
    if slope in (0.0, -1.0):
        return writer.add("Relu" if slope == 0 else "Abs", x)
    return writer.add("LeakyRelu", x, alpha=slope)


@_writes(Clamp)
def _clamp(writer, node, x):
    limits = ["" if np.isinf(v) else writer.constant(v) for v in (node.low, node.high)]
    return writer.add("Clip", x, *limits)


@_writes(MaxPool)
def _max_pool(writer, node, x):
    kernel, strides, dilations, before, after = _pool_sizes(node)
    return writer.add(
        "MaxPool",
        x,
        kernel_shape=kernel,
        strides=strides,
        dilations=dilations,
        pads=before + after,
    )


def _pool_sizes(node):
    """Return kernel, stride, dilation, padding before and after, each a list by axes.

    The node only knows the members of its windows, which tell these sizes.
    """
    n_axes = len(node.shape) - 1
    members = node.members.cpu().numpy()
    window = members.shape[1]
    for kernel in [(window,)] if n_axes == 1 else _factor_pairs(window):
        first = members.reshape(*node.shape, *kernel)[0]
        places = np.unravel_index(first, node.input_shape[1:])
        axes = []
        for axis, length in enumerate(node.input_shape[1:]):
            # The first window and the first entry in every other axis.
            index = [0] * (2 * n_axes)
            index[axis] = index[n_axes + axis] = slice(None)
            axes.append(_axis_sizes(places[axis][tuple(index)], length))
        if None in axes:
            continue
        kernel, stride, dilation, before, after = (list(s) for s in zip(*axes, strict=True))
        sizes = (kernel, stride, before, dilation)
        if np.array_equal(_window_members(node.input_shape, node.shape, *sizes), members):
            return kernel, stride, dilation, before, after
    raise UnsupportedModelError(f"The windows of {node.path} are no rectangles.")


def _factor_pairs(number):
    return [(k, number // k) for k in range(1, number + 1) if number % k == 0]


def _axis_sizes(places, length):
    """Return the sizes for the places that windows see along one axis, or None."""
    count, kernel = places.shape
    steps = range(1, length + 1)
    for before, dilation, stride in itertools.product(range(kernel), steps, steps):
        found = _axis_members(length, count, kernel, stride, before, dilation)
        # What the windows cover from the start of the padding; no further one may fit.
        end = (count - 1) * stride + dilation * (kernel - 1) + 1 - before
        if np.array_equal(found, places) and length < end + stride:
            return kernel, stride, dilation, before, max(end - length, 0)
    return None
