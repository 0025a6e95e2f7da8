"""How each torch function that a module calls is read as a node; they register with the tracer."""

from dataclasses import replace
from functools import partial

import numpy as np
import torch
from torch.nn import functional

from skrobust.graphs._nodes import (
    Average,
    AveragePool,
    Concat,
    Constant,
    Conv,
    Linear,
    Scale,
    Sum,
)
from skrobust.graphs._pieces import Clamp, MaxPool, Relu
from skrobust.graphs._smooth_readers import gated
from skrobust.graphs._trace import arguments, flat, reads, single

__all__ = []


def _unmarked(tracer, name, *values):
    for value in flat(values):
        if tracer.is_marked(value):
            raise tracer.refusal(name, "multiplies or divides activations by each other")


def _number(tracer, value):
    return None if value is None else tracer.number(value)


@reads("linear")
def _read_linear(tracer, name, func, args, kwargs, output):
    x, weight, bias = arguments(args, kwargs, input=None, weight=None, bias=None)
    return _linear(tracer, name, x, weight, bias, output)


def _linear(tracer, name, x, weight, bias, output):
    _unmarked(tracer, name, weight, bias)
    return Linear(
        inputs=(single(tracer, name, x),),
        shape=tracer.shape(output),
        path=tracer.label,
        weight=tracer.number(weight),
        bias=_number(tracer, bias),
    )


@reads("matmul", "mm")
def _read_matmul(tracer, name, func, args, kwargs, output):
    x, weight = arguments(args, kwargs, input=None, other=None)
    if not tracer.is_marked(weight) and weight.ndim == 2:
        return _linear(tracer, name, x, weight.T, None, output)
    raise tracer.refusal(name, "is read only with a constant matrix on the right")


@reads("addmm")
def _read_addmm(tracer, name, func, args, kwargs, output):
    bias, x, weight = arguments(args, kwargs, input=None, mat1=None, mat2=None)
    if "beta" in kwargs or "alpha" in kwargs or tracer.is_marked(bias) or bias.ndim != 1:
        raise tracer.refusal(name, "is read only with a constant bias, without alpha and beta")
    return _linear(tracer, name, x, weight.T, bias, output)


@reads("conv1d", "conv2d", "conv3d")
def _read_conv(tracer, name, func, args, kwargs, output):
    x, weight, bias, stride, padding, dilation, groups = arguments(
        args, kwargs, input=None, weight=None, bias=None, stride=1, padding=0, dilation=1, groups=1
    )
    _unmarked(tracer, name, weight, bias)
    n = weight.ndim - 2
    dilation = _tuple(dilation, n)
    if padding == "valid":
        padding = 0
    if padding == "same":
        total = [d * (k - 1) for d, k in zip(dilation, weight.shape[2:], strict=True)]
        if any(t % 2 for t in total):
            raise tracer.refusal(name, "has padding='same' with an even kernel, which is not read")
        padding = [t // 2 for t in total]
    return Conv(
        inputs=(single(tracer, name, x),),
        shape=tracer.shape(output),
        path=tracer.label,
        weight=tracer.number(weight),
        bias=_number(tracer, bias),
        input_shape=tracer.shape(x),
        stride=_tuple(stride, n),
        padding=_tuple(padding, n),
        dilation=dilation,
        groups=groups,
    )


def _tuple(value, n):
    value = tuple(np.atleast_1d(value).tolist())
    return value * n if len(value) == 1 else value


def _scale(tracer, x, weight, bias, output):
    return Scale(
        inputs=(tracer.at(x),),
        shape=tracer.shape(output),
        path=tracer.label,
        weight=tracer.number(weight),
        bias=tracer.number(bias),
        input_shape=tracer.shape(x),
    )


@reads("batch_norm")
def _read_batch_norm(tracer, name, func, args, kwargs, output):
    x, mean, variance, weight, bias, training, _, eps = arguments(
        args, kwargs, input=None, running_mean=None, running_var=None, weight=None, bias=None,
        training=False, momentum=0.1, eps=1e-5,
    )  # fmt: skip
    single(tracer, name, x)
    if training or mean is None:
        if not tracer.live:
            raise tracer.refusal(name, "takes its statistics from the batch")
        # The statistics that the module itself has just used.
        axes = [axis for axis in range(x.ndim) if axis != 1]
        mean, variance = x.mean(dim=axes), x.var(dim=axes, unbiased=False)
    scale = (tracer.number(variance) + eps).rsqrt()
    scale = scale if weight is None else scale * tracer.number(weight)
    shift = -tracer.number(mean) * scale
    canceled = shift.abs()
    if bias is not None:
        shift, canceled = shift + tracer.number(bias), canceled + tracer.number(bias).abs()
    shape = (-1,) + (1,) * (x.ndim - 2)
    parts = (part.view(shape) for part in (scale, shift))
    return replace(_scale(tracer, x, *parts, output), canceled=canceled.detach().view(shape))


@reads("add", "radd", "iadd", "sub", "subtract", "isub", "rsub")
def _read_add(tracer, name, func, args, kwargs, output):
    first, second, *rest = args if len(args) > 1 else (*args, kwargs["other"])
    factor = kwargs.get("alpha", rest[0] if rest else 1)
    signs = (1.0, -1.0 * factor) if "sub" in name else (1.0, 1.0 * factor)
    if name == "rsub":
        first, second, signs = second, first, (1.0, -1.0)
        if factor != 1:
            raise tracer.refusal(name, "is read only without alpha")
    if tracer.is_marked(first) and tracer.is_marked(second):
        inputs = tuple(_widened(tracer, value, output) for value in (first, second))
        return Sum(inputs=inputs, shape=tracer.shape(output), path=tracer.label, weights=signs)
    if tracer.is_marked(first):
        shift = signs[1] * tracer.constant(second, output.ndim)
        return _scale(tracer, first, signs[0], shift, output)
    shift = signs[0] * tracer.constant(first, output.ndim)
    return _scale(tracer, second, signs[1], shift, output)


def _widened(tracer, value, output):
    """Return the position of an operand, broadcast to the shape of the output."""
    if value.shape == output.shape:
        return tracer.at(value)
    if value.ndim != output.ndim:
        raise tracer.refusal("add", "has operands with different numbers of axes")
    return tracer.add(_scale(tracer, value, 1.0, 0.0, output))


@reads("mul", "multiply", "rmul", "imul")
def _read_mul(tracer, name, func, args, kwargs, output):
    first, second = args if len(args) > 1 else (*args, kwargs["other"])
    x, weight = (first, second) if tracer.is_marked(first) else (second, first)
    if tracer.is_marked(weight):
        unit = gated(tracer, output, x, weight)
        if unit is not None:
            return unit
    _unmarked(tracer, name, weight)
    return _scale(tracer, x, tracer.constant(weight, output.ndim), 0.0, output)


@reads("div", "divide", "truediv", "true_divide", "itruediv", "idiv")
def _read_div(tracer, name, func, args, kwargs, output):
    x, divisor = args if len(args) > 1 else (*args, kwargs["other"])
    single(tracer, name, x)
    _unmarked(tracer, name, divisor)
    if kwargs.get("rounding_mode") is not None:
        raise tracer.refusal(name, "rounds")
    return _scale(tracer, x, 1 / tracer.constant(divisor, output.ndim), 0.0, output)


@reads("neg", "negative")
def _read_neg(tracer, name, func, args, kwargs, output):
    return _scale(tracer, args[0], -1.0, 0.0, output)


@reads("addcmul")
def _read_addcmul(tracer, name, func, args, kwargs, output):
    bias, first, second = args
    _unmarked(tracer, name, bias)
    x, weight = (first, second) if tracer.is_marked(first) else (second, first)
    _unmarked(tracer, name, weight)
    weight = kwargs.get("value", 1) * tracer.constant(weight, output.ndim)
    return _scale(tracer, x, weight, tracer.constant(bias, output.ndim), output)


@reads("cat", "concat", "concatenate")
def _read_cat(tracer, name, func, args, kwargs, output):
    tensors, dim = arguments(args, kwargs, tensors=None, dim=kwargs.pop("axis", 0))
    dim = dim % output.ndim
    if dim == 0:
        raise tracer.refusal(name, "joins samples")
    inputs = []
    for value in tensors:
        if tracer.is_marked(value):
            inputs.append(tracer.at(value))
        else:
            constant = tracer.constant(value, output.ndim)
            inputs.append(
                tracer.add(
                    Constant(
                        inputs=(0,),
                        shape=tuple(constant.shape),
                        path=tracer.label,
                        value=constant,
                    )
                )
            )
    return Concat(
        inputs=tuple(inputs),
        shape=tracer.shape(output),
        path=tracer.label,
        dim=dim,
        lengths=tuple(value.shape[dim] for value in tensors),
    )


def _relu(tracer, name, x, slope, output):
    return Relu(
        inputs=(single(tracer, name, x),),
        shape=tracer.shape(output),
        path=tracer.label,
        slope=tracer.number(slope),
    )


@reads("relu")
def _read_relu(tracer, name, func, args, kwargs, output):
    return _relu(tracer, name, args[0] if args else kwargs["input"], 0.0, output)


@reads("leaky_relu")
def _read_leaky_relu(tracer, name, func, args, kwargs, output):
    x, slope = arguments(args, kwargs, input=None, negative_slope=0.01)
    return _relu(tracer, name, x, slope, output)


@reads("prelu")
def _read_prelu(tracer, name, func, args, kwargs, output):
    x, slope = arguments(args, kwargs, input=None, weight=None)
    _unmarked(tracer, name, slope)
    shape = () if slope.numel() == 1 else (-1, *[1] * (x.ndim - 2))
    return _relu(tracer, name, x, slope.reshape(shape), output)


@reads("abs", "absolute")
def _read_abs(tracer, name, func, args, kwargs, output):
    return _relu(tracer, name, args[0], -1.0, output)


@reads("hardtanh", "relu6", "clamp", "clip", "clamp_min", "clamp_max")
def _read_clamp(tracer, name, func, args, kwargs, output):
    if name in ("hardtanh", "relu6"):
        default = (-1.0, 1.0) if name == "hardtanh" else (0.0, 6.0)
        x, low, high = arguments(
            args[:3] if name == "hardtanh" else args[:1],
            {k: v for k, v in kwargs.items() if k != "inplace"},
            input=None, min_val=default[0], max_val=default[1],
        )  # fmt: skip
    elif name == "clamp_max":
        x, high = arguments(args, kwargs, input=None, max=None)
        low = None
    else:
        x, low, high = arguments(args, kwargs, input=None, min=None, max=None)
    _unmarked(tracer, name, low, high)
    limits = []
    for limit, default in ((low, -np.inf), (high, np.inf)):
        if isinstance(limit, torch.Tensor) and limit.numel() > 1:
            raise tracer.refusal(name, "has a limit for each entry, which is not read")
        limits.append(default if limit is None else float(limit))
    return Clamp(
        inputs=(single(tracer, name, x),),
        shape=tracer.shape(output),
        path=tracer.label,
        low=limits[0],
        high=limits[1],
    )


@reads("max_pool1d", "max_pool2d")
def _read_max_pool(tracer, name, func, args, kwargs, output):
    x, kernel, stride, padding, dilation, ceil_mode, indices = arguments(
        args, kwargs, input=None, kernel_size=None, stride=None, padding=0, dilation=1,
        ceil_mode=False, return_indices=False,
    )  # fmt: skip
    if indices:
        raise tracer.refusal(name, "returns indices")
    n = 1 if name == "max_pool1d" else 2
    if x.ndim != n + 2:
        raise tracer.refusal(name, "has an input without a batch axis")
    kernel, stride = _windows(kernel, stride, n)
    return MaxPool(
        inputs=(single(tracer, name, x),),
        shape=tracer.shape(output),
        path=tracer.label,
        input_shape=tracer.shape(x),
        kernel=kernel,
        stride=stride,
        padding=_tuple(padding, n),
        dilation=_tuple(dilation, n),
        ceil_mode=bool(ceil_mode),
        device=tracer.device,
    )


def _windows(kernel, stride, n):
    """Return kernel and stride by axes; without a stride windows lie side by side."""
    stride = kernel if stride is None or stride == [] else stride
    return _tuple(kernel, n), _tuple(stride, n)


@reads("avg_pool1d", "avg_pool2d")
def _read_average_pool(tracer, name, func, args, kwargs, output):
    x, kernel, stride, padding, ceil_mode, include, divisor = arguments(
        args, kwargs, input=None, kernel_size=None, stride=None, padding=0, ceil_mode=False,
        count_include_pad=True, divisor_override=None,
    )  # fmt: skip
    n = 1 if name == "avg_pool1d" else 2
    if x.ndim != n + 2:
        raise tracer.refusal(name, "has an input without a batch axis")
    kernel, stride = _windows(kernel, stride, n)
    padding, options = _tuple(padding, n), {}
    if divisor is not None:
        options["divisor_override"] = divisor
    pool = getattr(functional, name)
    return AveragePool(
        inputs=(single(tracer, name, x),),
        shape=tracer.shape(output),
        path=tracer.label,
        function=partial(
            pool, kernel_size=kernel, stride=stride, padding=padding, ceil_mode=bool(ceil_mode),
            count_include_pad=bool(include), **options,
        ),
        input_shape=tracer.shape(x),
        kernel=kernel,
        stride=stride,
        padding=padding,
        ceil_mode=bool(ceil_mode),
        count_include_pad=bool(include),
        divisor=divisor,
    )  # fmt: skip


@reads("adaptive_avg_pool1d", "adaptive_avg_pool2d")
def _read_adaptive_pool(tracer, name, func, args, kwargs, output):
    x, size = arguments(args, kwargs, input=None, output_size=None)
    if x.ndim != output.ndim or x.ndim != int(name[-2]) + 2:
        raise tracer.refusal(name, "has an input without a batch axis")
    return _average(tracer, name, x, partial(getattr(functional, name), output_size=size), output)


@reads("mean", "sum")
def _read_mean(tracer, name, func, args, kwargs, output):
    options = dict(kwargs)
    axis = options.pop("axis", None)
    x, dims, keepdim, _ = arguments(args, options, input=None, dim=axis, keepdim=False, dtype=None)
    dims = range(x.ndim) if dims is None else np.atleast_1d(dims).tolist()
    if any(dim % x.ndim == 0 for dim in dims):
        raise tracer.refusal(name, "joins samples")
    function = partial(getattr(torch, name), dim=tuple(dims), keepdim=bool(keepdim))
    return _average(tracer, name, x, function, output)


def _average(tracer, name, x, function, output):
    return Average(
        inputs=(single(tracer, name, x),),
        shape=tracer.shape(output),
        path=tracer.label,
        function=function,
        input_shape=tracer.shape(x),
    )
