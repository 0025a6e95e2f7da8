"""How each torch function that a module calls is read as a node; they register with the tracer."""

import numpy as np
import torch
from torch.nn import functional

from skrobust.graphs._nodes import Average, Concat, Constant, Conv, Linear, Rearrange, Scale, Sum
from skrobust.graphs._pieces import Clamp, MaxPool, Relu
from skrobust.graphs._trace import _BATCH, _flat, _option, reads

__all__ = []


def _arguments(args, kwargs, **defaults):
    """Return arguments by name, in the order of `defaults`; None stands for required ones."""
    named = dict(zip(defaults, args, strict=False))
    return [value for value in (defaults | named | kwargs).values()][: len(defaults)]


def _single(tracer, name, value):
    """Return the position of the one marked operand, which must come first."""
    if not tracer.is_marked(value):
        raise tracer.refusal(name, "has an activation as a parameter")
    return tracer.at(value)


def _unmarked(tracer, name, *values):
    for value in _flat(values):
        if tracer.is_marked(value):
            raise tracer.refusal(name, "multiplies or divides activations by each other")


def _double(value):
    return None if value is None else value.detach().double()


@reads("linear")
def _read_linear(tracer, name, func, args, kwargs, output):
    x, weight, bias = _arguments(args, kwargs, input=None, weight=None, bias=None)
    return _linear(tracer, name, x, weight, bias, output)


def _linear(tracer, name, x, weight, bias, output):
    _unmarked(tracer, name, weight, bias)
    return Linear(
        inputs=(_single(tracer, name, x),),
        shape=tracer.shape(output),
        path=tracer.label,
        weight=_double(weight),
        bias=_double(bias),
    )


@reads("matmul", "mm")
def _read_matmul(tracer, name, func, args, kwargs, output):
    x, weight = _arguments(args, kwargs, input=None, other=None)
    if not tracer.is_marked(weight) and weight.ndim == 2:
        return _linear(tracer, name, x, weight.T, None, output)
    raise tracer.refusal(name, "is read only with a constant matrix on the right")


@reads("addmm")
def _read_addmm(tracer, name, func, args, kwargs, output):
    bias, x, weight = _arguments(args, kwargs, input=None, mat1=None, mat2=None)
    if "beta" in kwargs or "alpha" in kwargs or tracer.is_marked(bias) or bias.ndim != 1:
        raise tracer.refusal(name, "is read only with a constant bias, without alpha and beta")
    return _linear(tracer, name, x, weight.T, bias, output)


@reads("conv1d", "conv2d", "conv3d")
def _read_conv(tracer, name, func, args, kwargs, output):
    x, weight, bias, stride, padding, dilation, groups = _arguments(
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
        inputs=(_single(tracer, name, x),),
        shape=tracer.shape(output),
        path=tracer.label,
        weight=_double(weight),
        bias=_double(bias),
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
    dtype = {"dtype": torch.float64, "device": output.device}
    return Scale(
        inputs=(tracer.at(x),),
        shape=tracer.shape(output),
        path=tracer.label,
        weight=torch.as_tensor(weight, **dtype),
        bias=torch.as_tensor(bias, **dtype),
        input_shape=tracer.shape(x),
    )


@reads("batch_norm")
def _read_batch_norm(tracer, name, func, args, kwargs, output):
    x, mean, variance, weight, bias, training, _, eps = _arguments(
        args, kwargs, input=None, running_mean=None, running_var=None, weight=None, bias=None,
        training=False, momentum=0.1, eps=1e-5,
    )  # fmt: skip
    if training or mean is None:
        raise tracer.refusal(name, "takes its statistics from the batch")
    _single(tracer, name, x)
    scale = (variance.double() + eps).rsqrt()
    scale = scale if weight is None else scale * weight.double()
    shift = -mean.double() * scale
    shift = shift if bias is None else shift + bias.double()
    shape = (-1,) + (1,) * (x.ndim - 2)
    return _scale(tracer, x, scale.detach().view(shape), shift.detach().view(shape), output)


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
    _unmarked(tracer, name, weight)
    return _scale(tracer, x, tracer.constant(weight, output.ndim), 0.0, output)


@reads("div", "divide", "truediv", "true_divide", "itruediv", "idiv")
def _read_div(tracer, name, func, args, kwargs, output):
    x, divisor = args if len(args) > 1 else (*args, kwargs["other"])
    _single(tracer, name, x)
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
    tensors, dim = _arguments(args, kwargs, tensors=None, dim=kwargs.pop("axis", 0))
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
    slope = torch.as_tensor(slope, dtype=torch.float64, device=output.device).detach()
    return Relu(
        inputs=(_single(tracer, name, x),),
        shape=tracer.shape(output),
        path=tracer.label,
        slope=slope,
    )


@reads("relu")
def _read_relu(tracer, name, func, args, kwargs, output):
    return _relu(tracer, name, args[0] if args else kwargs["input"], 0.0, output)


@reads("leaky_relu")
def _read_leaky_relu(tracer, name, func, args, kwargs, output):
    x, slope = _arguments(args, kwargs, input=None, negative_slope=0.01)
    return _relu(tracer, name, x, slope, output)


@reads("prelu")
def _read_prelu(tracer, name, func, args, kwargs, output):
    x, slope = _arguments(args, kwargs, input=None, weight=None)
    _unmarked(tracer, name, slope)
    shape = () if slope.numel() == 1 else (-1, *[1] * (x.ndim - 2))
    return _relu(tracer, name, x, slope.detach().reshape(shape), output)


@reads("abs", "absolute")
def _read_abs(tracer, name, func, args, kwargs, output):
    return _relu(tracer, name, args[0], -1.0, output)


@reads("hardtanh", "relu6", "clamp", "clip", "clamp_min", "clamp_max")
def _read_clamp(tracer, name, func, args, kwargs, output):
    if name in ("hardtanh", "relu6"):
        default = (-1.0, 1.0) if name == "hardtanh" else (0.0, 6.0)
        x, low, high = _arguments(
            args[:3] if name == "hardtanh" else args[:1],
            {k: v for k, v in kwargs.items() if k != "inplace"},
            input=None, min_val=default[0], max_val=default[1],
        )  # fmt: skip
    elif name == "clamp_max":
        x, high = _arguments(args, kwargs, input=None, max=None)
        low = None
    else:
        x, low, high = _arguments(args, kwargs, input=None, min=None, max=None)
    _unmarked(tracer, name, low, high)
    limits = []
    for limit, default in ((low, -np.inf), (high, np.inf)):
        if isinstance(limit, torch.Tensor) and limit.numel() > 1:
            raise tracer.refusal(name, "has a limit for each entry, which is not read")
        limits.append(default if limit is None else float(limit))
    return Clamp(
        inputs=(_single(tracer, name, x),),
        shape=tracer.shape(output),
        path=tracer.label,
        low=limits[0],
        high=limits[1],
    )


@reads("max_pool1d", "max_pool2d")
def _read_max_pool(tracer, name, func, args, kwargs, output):
    x, kernel, stride, padding, dilation, _, indices = _arguments(
        args, kwargs, input=None, kernel_size=None, stride=None, padding=0, dilation=1,
        ceil_mode=False, return_indices=False,
    )  # fmt: skip
    if indices:
        raise tracer.refusal(name, "returns indices")
    n = 1 if name == "max_pool1d" else 2
    if x.ndim != n + 2:
        raise tracer.refusal(name, "has an input without a batch axis")
    stride = kernel if stride is None or stride == [] else stride
    sizes = [_tuple(value, n) for value in (kernel, stride, padding, dilation)]
    shape = tracer.shape(x)
    members = _window_members(shape, tracer.shape(output), *sizes)
    return MaxPool(
        inputs=(_single(tracer, name, x),),
        shape=tracer.shape(output),
        path=tracer.label,
        members=torch.as_tensor(members, device=output.device),
        input_shape=shape,
    )


def _window_members(input_shape, output_shape, kernel, stride, padding, dilation):
    """Return positions in the flattened input, of shape (outputs, window)."""
    axes = [np.arange(input_shape[0]).reshape(-1, 1)]
    for length, count, *sizes in zip(
        input_shape[1:], output_shape[1:], kernel, stride, padding, dilation, strict=True
    ):
        axes.append(_axis_members(length, count, *sizes))
    places = np.zeros((1, 1), dtype=np.int64)
    for axis, length in zip(axes, input_shape, strict=True):
        places = places[:, None, :, None] * length + axis[None, :, None, :]
        places = places.reshape(places.shape[0] * places.shape[1], -1)
    return places


def _axis_members(length, count, kernel, stride, padding, dilation):
    """Return the places along one axis that each window sees; a short one repeats its first."""
    places = np.arange(count)[:, None] * stride - padding + np.arange(kernel) * dilation
    inside = (places >= 0) & (places < length)
    first = places[np.arange(count), inside.argmax(axis=1)]
    return np.where(inside, places, first[:, None])


@reads("avg_pool1d", "avg_pool2d", "adaptive_avg_pool1d", "adaptive_avg_pool2d", "mean", "sum")
def _read_average(tracer, name, func, args, kwargs, output):
    x, *arguments = args if args else (kwargs.pop("input"),)
    if x.ndim != output.ndim and name not in ("mean", "sum"):
        raise tracer.refusal(name, "has an input without a batch axis")
    if name in ("mean", "sum"):
        dims = arguments[0] if arguments else kwargs.get("dim", kwargs.get("axis"))
        dims = range(x.ndim) if dims is None else np.atleast_1d(dims).tolist()
        if any(dim % x.ndim == 0 for dim in dims):
            raise tracer.refusal(name, "joins samples")
        func = getattr(torch, name)
    else:
        func = getattr(functional, name)
    return Average(
        inputs=(_single(tracer, name, x),),
        shape=tracer.shape(output),
        path=tracer.label,
        function=func,
        arguments=tuple(arguments),
        options=dict(kwargs),
        input_shape=tracer.shape(x),
    )


@reads(
    "dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "feature_alpha_dropout",
    "feature_dropout",
)  # fmt: skip
def _read_dropout(tracer, name, func, args, kwargs, output):
    if _option(args, kwargs, func, "training") is not False:
        raise tracer.refusal(name, "is active, in training mode")
    return tracer.at(args[0] if args else kwargs["input"])


@reads("contiguous", "clone", "detach", "data", "float", "double", "to", "type", "type_as",
        "positive", "pos", "alias", "cpu", "cuda")  # fmt: skip
def _read_copy(tracer, name, func, args, kwargs, output):
    if not output.dtype.is_floating_point or output.dtype in (torch.float16, torch.bfloat16):
        raise tracer.refusal(name, f"rounds to {output.dtype}")
    return _single(tracer, name, args[0])


@reads(
    "view", "reshape", "flatten", "unflatten", "squeeze", "unsqueeze", "permute", "transpose",
    "swapaxes", "movedim", "getitem", "narrow", "select", "chunk", "split", "tensor_split",
    "unbind", "expand", "expand_as", "repeat", "repeat_interleave", "tile", "flip", "roll",
    "pad", "index_select", "view_as", "reshape_as", "pixel_shuffle", "pixel_unshuffle",
)  # fmt: skip
def _read_rearrangement(tracer, name, func, args, kwargs, output):
    if name == "pad":
        x, _, mode, value = _arguments(
            args, kwargs, input=None, pad=None, mode="constant", value=None
        )
        if mode == "constant" and value:
            raise tracer.refusal(name, f"fills with {value}, but only 0 is read")
    else:
        x = args[0] if args else kwargs["input"]
    position = _single(tracer, name, x)
    # Run it once more on numbers that tell where each entry went; 0 is what padding adds.
    places = torch.arange(1, x.numel() + 1, dtype=torch.float64, device=x.device).view(x.shape)
    arguments = [places if value is x else value for value in args]
    options = {key: places if value is x else value for key, value in kwargs.items()}
    moved = func(*arguments, **options)
    if isinstance(moved, tuple | list):
        return [_rearrange(tracer, name, position, x, part) for part in moved]
    return _rearrange(tracer, name, position, x, moved)


def _rearrange(tracer, name, position, x, moved):
    count = x[0].numel()
    keeps_rows = moved.ndim > 0 and len(moved) == _BATCH
    if keeps_rows:
        first, second = (part.long() - 1 for part in moved)
        inside = ((first >= -1) & (first < count)).all()
        keeps_rows = inside and torch.equal(torch.where(first < 0, -1, first + count), second)
    if not keeps_rows:
        raise tracer.refusal(name, "mixes samples, or drops the batch axis")
    same = torch.equal(first.flatten(), torch.arange(count, device=first.device))
    if same and first.shape == x.shape[1:]:
        return position
    return Rearrange(
        inputs=(position,),
        shape=tuple(first.shape),
        path=tracer.label,
        index=None if same else first,
        input_shape=tracer.shape(x),
    )
