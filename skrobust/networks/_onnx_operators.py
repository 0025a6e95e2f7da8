"""What each ONNX operator computes, in torch."""

import itertools
import math

import numpy as np
import torch
from torch.nn import functional

from skrobust.exceptions import UnsupportedModelError

__all__ = ["Operator", "computes", "is_constant", "torch_pads"]


class Operator(torch.nn.Module):
    """One node of an ONNX graph.

    Parameters
    ----------
    kind : str
        Of the operation, such as "Conv".
    name : str
        Of the node.
    inputs, outputs : tuple of str
    constants : dict of int to Tensor
        Inputs, by place, that do not depend on the sample.
    settings : dict of str to object
        Attributes of the node.
    has_rows : bool
        Whether the first axis of the output is that of the samples.
    """

    def __init__(self, kind, name, inputs, outputs, constants, settings, has_rows):
        super().__init__()
        self.kind = kind
        self.name = name
        self.inputs = tuple(inputs)
        self.outputs = tuple(outputs)
        self.settings = tuple(sorted(settings.items()))
        self.has_rows = has_rows
        self.places = tuple(sorted(constants))
        for place, value in constants.items():
            if value.is_floating_point():
                value = torch.nn.Parameter(value, requires_grad=False)
                self.register_parameter(f"constant_{place}", value)
            else:
                self.register_buffer(f"constant_{place}", value)

    def get(self, name, default=None):
        """Return an attribute of the node."""
        return dict(self.settings).get(name, default)

    def refusal(self, reason):
        """Build the error that every refusal uses."""
        return UnsupportedModelError(f"Operation {self.kind} of node {self.name!r} {reason}.")

    def forward(self, *values):
        values = list(values)
        for place in self.places:
            values[place] = getattr(self, f"constant_{place}")
        outputs = _OPERATIONS[self.kind](self, *values)
        outputs = outputs if isinstance(outputs, tuple | list) else (outputs,)
        if self.has_rows:
            n = next(
                len(v) for i, v in enumerate(values) if i not in self.places and v is not None
            )
            if any(value.ndim == 0 or len(value) != n for value in outputs):
                raise self.refusal("mixes samples: the first axis must stay that of the batch")
        return outputs

    def extra_repr(self):
        settings = [f"{name}={value}" for name, value in self.settings]
        return ", ".join([f"{self.kind} of {self.inputs} to {self.outputs}", *settings])


# Each takes the Operator and the values of its inputs (None where one is left out).
_OPERATIONS = {}


def computes(*kinds):
    """Register what operations of some kinds compute."""

    def register(function):
        _OPERATIONS.update(dict.fromkeys(kinds, function))
        return function

    return register


def is_constant(op, place):
    """Return whether an input does not depend on the sample."""
    return place in op.places


def _setting_or_input(op, name, value, default=None):
    """Return a list of numbers that older versions give as attribute, newer ones as input."""
    return op.get(name, default) if value is None else value.reshape(-1).tolist()


def _constant(op):
    for name in ("value", "value_float", "value_floats", "value_int", "value_ints"):
        value = op.get(name)
        if value is not None:
            return torch.as_tensor(np.array(value, dtype=_plain_dtype(value)))
    raise op.refusal("holds no numbers")


def _plain_dtype(value):
    """Return float32 for plain floats, as ONNX has it; None leaves the dtype of an array."""
    if isinstance(value, np.ndarray):
        return None
    return np.float32 if np.asarray(value).dtype.kind == "f" else np.int64


_OPERATIONS["Constant"] = _constant


@computes("Identity", "Dropout")
def _identity(op, x, *rest):
    return x


@computes("Cast")
def _cast(op, x, *rest):
    if op.has_rows:
        if op.get("to") not in (1, 11):  # float32 and float64: the module keeps its own dtype
            raise op.refusal("rounds activations")
        return x
    return x.to(torch.float32 if op.get("to") in (1, 10, 11) else torch.int64)


@computes("Relu")
def _relu(op, x):
    return torch.relu(x)


@computes("LeakyRelu")
def _leaky_relu(op, x):
    return functional.leaky_relu(x, op.get("alpha", 0.01))


@computes("PRelu")
def _prelu(op, x, slope):
    if slope.numel() not in (1, max(slope.shape[:1], default=1)):
        raise op.refusal("has a slope for each entry, but one for each channel is read")
    return functional.prelu(x, slope.reshape(-1))


@computes("Clip")
def _clip(op, x, low=None, high=None):
    low = op.get("min") if low is None else low.item()
    high = op.get("max") if high is None else high.item()
    if low is None and high is None:
        return x
    return torch.clamp(x, min=low, max=high)


@computes("Max", "Min")
def _limit(op, *values):
    activations = [v for i, v in enumerate(values) if not is_constant(op, i)]
    constants = [v for i, v in enumerate(values) if is_constant(op, i)]
    if len(activations) != 1 or any((c != c.reshape(-1)[0]).any() for c in constants):
        raise op.refusal("is read only with one activation and numbers")
    limits = [c.reshape(-1)[0].item() for c in constants]
    if op.kind == "Max":
        return torch.clamp(activations[0], min=max(limits))
    return torch.clamp(activations[0], max=min(limits))


_ELEMENTWISE = {
    "Abs": torch.abs,
    "Neg": torch.neg,
    "Sigmoid": torch.sigmoid,
    "Tanh": torch.tanh,
    "Erf": torch.erf,
    "Softplus": functional.softplus,
    "Sqrt": torch.sqrt,
}


@computes(*_ELEMENTWISE)
def _elementwise(op, x):
    return _ELEMENTWISE[op.kind](x)


@computes("Elu")
def _elu(op, x):
    return functional.elu(x, op.get("alpha", 1.0))


@computes("Selu")
def _selu(op, x):
    # The numbers of the standard, with which scale * alpha * (exp(x) - 1) is a scaled ELU.
    alpha = op.get("alpha", 1.67326319217681884765625)
    return functional.elu(x, alpha) * op.get("gamma", 1.05070102214813232421875)


@computes("Celu")
def _celu(op, x):
    return functional.celu(x, op.get("alpha", 1.0))


@computes("Gelu")
def _gelu(op, x):
    return functional.gelu(x, approximate=op.get("approximate", "none"))


@computes("Softmax", "LogSoftmax")
def _softmax(op, x):
    function = torch.softmax if op.kind == "Softmax" else torch.log_softmax
    return function(x, dim=op.get("axis", -1))


_ARITHMETIC = {"Add": torch.add, "Sub": torch.sub, "Mul": torch.mul, "Div": torch.div}


@computes(*_ARITHMETIC)
def _arithmetic(op, first, second):
    if op.kind == "Div" and not first.is_floating_point():
        return torch.div(first, second, rounding_mode="trunc")
    return _ARITHMETIC[op.kind](first, second)


@computes("Sum")
def _sum(op, *values):
    total = values[0]
    for value in values[1:]:
        total = total + value
    return total


@computes("MatMul")
def _matmul(op, first, second):
    if not op.has_rows:
        return torch.matmul(first, second)
    first, second = (
        value.reshape(value.shape[-2:]) if _is_stack_of_one(op, place, value) else value
        for place, value in enumerate((first, second))
    )
    if not is_constant(op, 0):
        return torch.matmul(first, second)
    if first.ndim != 2:
        raise op.refusal("has constant vectors or stacks of matrices on the left")
    if second.ndim == 2:  # samples that are vectors, of a file without batch axis
        return functional.linear(second, first)
    return torch.matmul(second.transpose(-1, -2), first.T).transpose(-1, -2)


def _is_stack_of_one(op, place, value):
    return is_constant(op, place) and value.ndim > 2 and math.prod(value.shape[:-2]) == 1


@computes("Gemm")
def _gemm(op, x, weight, bias=None):
    if op.get("transA", 0) or not is_constant(op, 1):
        raise op.refusal("is read only with samples on the left and a constant on the right")
    weight = weight if op.get("transB", 0) else weight.T
    if op.get("alpha", 1.0) != 1:
        weight = weight * op.get("alpha")
    if bias is not None and op.get("beta", 1.0) != 1:
        bias = bias * op.get("beta")
    if bias is not None and (not is_constant(op, 2) or bias.numel() != len(weight)):
        return functional.linear(x, weight) + bias
    return functional.linear(x, weight, None if bias is None else bias.reshape(-1))


@computes("BatchNormalization")
def _batch_norm(op, x, weight, bias, mean, variance):
    if op.get("training_mode", 0):
        raise op.refusal("takes its statistics from the batch")
    return functional.batch_norm(
        x, mean, variance, weight, bias, training=False, eps=op.get("epsilon", 1e-5)
    )


@computes("ReduceMean", "ReduceSum")
def _reduce(op, x, axes=None):
    axes = _setting_or_input(op, "axes", axes)
    if axes is None:
        if op.get("noop_with_empty_axes", 0):
            return x
        axes = range(x.ndim)
    function = torch.mean if op.kind == "ReduceMean" else torch.sum
    axes = tuple(axis % x.ndim for axis in axes)
    if op.has_rows and 0 in axes:
        raise op.refusal("joins samples")
    return function(x, dim=axes, keepdim=bool(op.get("keepdims", 1)))


@computes("Flatten")
def _flatten(op, x):
    axis = op.get("axis", 1) % (x.ndim + 1)
    return x.flatten(1) if axis == 1 else x.reshape(math.prod(x.shape[:axis]), -1)


@computes("Reshape")
def _reshape(op, x, shape=None):
    shape = [int(length) for length in _setting_or_input(op, "shape", shape)]
    if not op.get("allowzero", 0):
        shape = [x.shape[i] if length == 0 else length for i, length in enumerate(shape)]
    if op.has_rows and len(shape) > 1:
        # Exporters write down the batch that they saw, mostly one sample.
        rest = shape[1:]
        if shape[0] > 0 and (-1 in rest or math.prod(rest) == math.prod(x.shape[1:])):
            shape[0] = len(x)
    return x.reshape(shape)


@computes("Transpose")
def _transpose(op, x):
    axes = op.get("perm", tuple(reversed(range(x.ndim))))
    if op.has_rows and axes[0] != 0:
        raise op.refusal("moves the axis of the samples")
    return x.permute(axes)


@computes("Squeeze")
def _squeeze(op, x, axes=None):
    axes = _setting_or_input(op, "axes", axes)
    if axes is None:
        axes = [i for i in range(op.has_rows, x.ndim) if x.shape[i] == 1]
    axes = {axis % x.ndim for axis in axes}
    if op.has_rows and 0 in axes:
        raise op.refusal("drops the axis of the samples")
    return x.reshape([length for i, length in enumerate(x.shape) if i not in axes])


@computes("Unsqueeze")
def _unsqueeze(op, x, axes=None):
    axes = _setting_or_input(op, "axes", axes)
    ndim = x.ndim + len(axes)
    for axis in sorted(axis % ndim for axis in axes):
        if op.has_rows and axis == 0:
            raise op.refusal("adds an axis before that of the samples")
        x = x.unsqueeze(axis)
    return x


@computes("Concat")
def _concat(op, *values):
    axis = op.get("axis")
    ndim = max(value.ndim for value in values)
    if op.has_rows:
        if axis % ndim == 0:
            raise op.refusal("joins samples")
        n = next(len(v) for i, v in enumerate(values) if not is_constant(op, i))
        values = [
            v.expand(n, *v.shape[1:]) if is_constant(op, i) else v for i, v in enumerate(values)
        ]
    return torch.cat(list(values), dim=axis)


@computes("Split")
def _split(op, x, sizes=None):
    axis = op.get("axis", 0) % x.ndim
    if op.has_rows and axis == 0:
        raise op.refusal("splits the batch")
    sizes = _setting_or_input(op, "split", sizes)
    if sizes is None:
        sizes = math.ceil(x.shape[axis] / len(op.outputs))
    return torch.split(x, sizes, dim=axis)


@computes("Slice")
def _slice(op, x, starts=None, ends=None, axes=None, steps=None):
    starts, ends = (
        _setting_or_input(op, name, value) for name, value in (("starts", starts), ("ends", ends))
    )
    axes = _setting_or_input(op, "axes", axes, range(len(starts)))
    steps = _setting_or_input(op, "steps", steps, [1] * len(starts))
    index = [slice(None)] * x.ndim
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        if step < 1:
            raise op.refusal("goes backwards")
        whole = start == 0 and end >= 2**31 - 1 and step == 1
        if op.has_rows and axis % x.ndim == 0 and not whole:
            raise op.refusal("selects samples")
        index[axis] = slice(start, end, step)
    return x[tuple(index)]


@computes("Gather")
def _gather(op, x, index):
    axis = op.get("axis", 0) % x.ndim
    if op.has_rows and (axis == 0 or not is_constant(op, 1)):
        raise op.refusal("selects samples, or by what depends on the sample")
    index = index % x.shape[axis]
    if index.ndim == 0:
        return x.select(axis, int(index))
    picked = x.index_select(axis, index.reshape(-1))
    return picked.reshape(*x.shape[:axis], *index.shape, *x.shape[axis + 1 :])


def torch_pads(pads):
    """Return paddings as torch.nn.functional.pad takes them: the last axis first."""
    return list(itertools.chain.from_iterable(reversed(pads)))


@computes("Pad")
def _pad(op, x, pads=None, value=None, axes=None):
    pads = _setting_or_input(op, "pads", pads)
    axes = _setting_or_input(op, "axes", axes, range(x.ndim))
    value = op.get("value", 0.0) if value is None else value.item()
    if op.get("mode", "constant") != "constant" or value != 0:
        raise op.refusal("is read only with zeros")
    widths = [(0, 0)] * x.ndim
    for axis, before, after in zip(axes, pads[: len(axes)], pads[len(axes) :], strict=True):
        widths[axis] = (before, after)
    return functional.pad(x, torch_pads(widths))


@computes("Shape")
def _shape(op, x):
    return torch.tensor(x.shape[op.get("start", 0) : op.get("end", x.ndim)], dtype=torch.int64)


@computes("ConstantOfShape")
def _constant_of_shape(op, shape):
    return torch.full(shape.tolist(), op.get("value", 0.0))
