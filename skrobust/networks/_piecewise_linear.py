"""Any torch module of known, piecewise linear operations as a graph of them.

`piecewise_linear` runs a torch module once on marked tensors and writes down what happens to
them, so that the forward code may be any Python.
"""

import inspect
import sys

import numpy as np
import torch
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from skrobust.exceptions import UnsupportedModelError
from skrobust.networks._base import Network, dtype_and_device
from skrobust.networks._graph import (
    Average,
    Clamp,
    Concat,
    Constant,
    Conv,
    Input,
    Linear,
    MaxPool,
    PiecewiseLinear,
    Rearrange,
    Relu,
    Scale,
    Sum,
)

__all__ = ["PiecewiseLinear", "piecewise_linear"]

_BATCH = 2  # rows that are traced; two, so that what mixes rows shows


def piecewise_linear(network, n_features=None):
    """Read a network as a graph of known, piecewise linear operations.

    Parameters
    ----------
    network : Network or torch.nn.Module
        From rows to logits, in evaluation mode.
    n_features : int, default=None
        Entries of a row, where the network does not know them.

    Returns
    -------
    PiecewiseLinear

    Raises
    ------
    UnsupportedModelError
        If the forward pass does anything that is not piecewise linear, such as a sigmoid, or
        decides by the values of tensors in Python. The message names the operation and the
        path of the layer.
    """
    if isinstance(network, Network):
        module, known, dtype, device = (
            getattr(network, name, None) for name in ("module", "n_features", "dtype", "device")
        )
        n_features = known if known is not None else n_features
        if module is None:
            name = type(getattr(network, "estimator", network)).__name__
            raise UnsupportedModelError(
                f"Got a {name}, which cannot be read as a piecewise linear network."
            )
    else:
        module = network
        dtype, device = dtype_and_device(module)
    if dtype not in (torch.float32, torch.float64):
        raise UnsupportedModelError(
            f"Got a network of {dtype}, but expected torch.float32 or torch.float64."
        )
    if any(isinstance(part, torch.jit.ScriptModule) for part in module.modules()):
        raise UnsupportedModelError(
            "Got a scripted or traced module, whose operations cannot be read, but expected the "
            "module that it was made from."
        )
    if n_features is None:
        raise ValueError("Got n_features=None, but expected the number of entries of a row.")
    tracer = _Tracer(module)
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(_BATCH, n_features, generator=generator).to(device, dtype)
    tracer.start(x)
    try:
        with torch.no_grad(), tracer:
            logits = module(x)
        graph = PiecewiseLinear(tracer.finish(logits))
    except _Refusal as refusal:
        raise UnsupportedModelError(str(refusal)) from None
    _compare(graph, module, torch.rand(3, n_features, generator=generator).to(device, dtype))
    return graph


def _compare(graph, module, x):
    """Refuse a graph that does not compute what the module computes."""
    with torch.no_grad():
        logits = module(x)
        read = graph(x)
    if logits.shape != read.shape:
        raise UnsupportedModelError(
            f"The module returns outputs of shape {tuple(logits.shape)} for {len(x)} rows; as a "
            f"piecewise linear network it would return {tuple(read.shape)}."
        )
    if not torch.isfinite(logits).all():
        raise UnsupportedModelError(
            "The module returns NaN or infinity, but expected finite outputs for finite inputs."
        )
    error = (logits.double() - read).abs().max().item()
    scale = max(value.abs().max().item() for value in graph.values(x) if value.numel())
    if not error <= 1e-3 * (1 + scale):
        raise UnsupportedModelError(
            f"The module could not be read as a piecewise linear network: outputs differ by "
            f"{error:.3g}. Operations in place on views, random operations and forward code "
            "that depends on values are the known reasons."
        )


# ---- tracing -----------------------------------------------------------------------------


class _Refusal(Exception):
    """Becomes an UnsupportedModelError outside: operators of torch swallow a TypeError."""


class _Tracer(TorchFunctionMode):
    """Writes down a node for each torch function that a marked tensor goes through."""

    def __init__(self, module):
        super().__init__()
        self.nodes = []
        self.names = {
            id(part): f"{name or 'the module'} ({type(part).__name__})"
            for name, part in module.named_modules()
        }
        self.position = {}  # id of a tensor -> node
        self.alive = []  # a tensor that is gone could hand its id on

    def start(self, x):
        self._mark(x, Input(shape=tuple(x.shape[1:]), path="input", device=x.device))

    def finish(self, logits):
        if not (isinstance(logits, torch.Tensor) and self.is_marked(logits) and logits.ndim == 2):
            shown = tuple(logits.shape) if isinstance(logits, torch.Tensor) else type(logits)
            raise _Refusal(
                f"The module returns {shown}, but expected logits of shape (n, n_classes) that "
                "depend on its input."
            )
        last = self.at(logits)
        if last != len(self.nodes) - 1:
            self.nodes = self.nodes[: last + 1]
        return _pruned(self.nodes)

    def is_marked(self, value):
        return isinstance(value, torch.Tensor) and id(value) in self.position

    def at(self, tensor):
        return self.position[id(tensor)]

    def shape(self, tensor):
        return tuple(tensor.shape[1:])

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if not any(self.is_marked(value) for value in _flat([*args, *kwargs.values()])):
            return func(*args, **kwargs)
        name = getattr(func, "__name__", str(func))
        if name == "__get__":
            name = func.__self__.__name__
        name = name.strip("_") if name.startswith("__") else name
        if name in _METADATA:
            return func(*args, **kwargs)
        in_place = name.endswith("_")
        read = _READERS.get(name.rstrip("_"))
        if read is None:
            raise self.refusal(name)
        output = func(*args, **kwargs)
        if in_place or _option(args, kwargs, func, "inplace"):
            # The arguments have changed, but readers only look at shapes and constants.
            output = args[0]
        node = read(self, name.rstrip("_"), func, args, kwargs, output)
        self._record(node, output)
        return output

    def _record(self, node, output):
        if isinstance(node, list):
            for part, tensor in zip(node, output, strict=True):
                self._record(part, tensor)
        elif isinstance(node, int):
            self._alias(output, node)
        else:
            self._mark(output, node)

    def add(self, node):
        """Append a node; return its position."""
        self.nodes.append(node)
        return len(self.nodes) - 1

    def _mark(self, tensor, node):
        self._alias(tensor, self.add(node))

    def _alias(self, tensor, position):
        self.position[id(tensor)] = position
        self.alive.append(tensor)

    @property
    def label(self):
        """The name of the layer that is running.

        Its frame tells: hooks on a module would fire in other threads that use it, too.
        """
        frame = sys._getframe(1)
        while frame is not None:
            owner = frame.f_locals.get("self")
            if id(owner) in self.names:
                return self.names[id(owner)]
            frame = frame.f_back
        return "the module"

    def refusal(self, operation, reason="is not known to be piecewise linear"):
        return _Refusal(
            f"{operation!r} in layer {self.label} {reason}. Linear, convolution, ReLU, LeakyReLU, "
            "PReLU, Hardtanh, clamp, max and average pooling, batch norm in evaluation mode, "
            "dropout, flatten and other views, sums, products with constants and concatenation "
            "are read."
        )

    def constant(self, value, ndim):
        """Return a constant operand as float64, without a batch axis of an operand of `ndim`."""
        if not isinstance(value, torch.Tensor):
            value = torch.tensor(value, dtype=torch.float64)
        value = value.detach().double()
        if value.ndim == ndim:
            if len(value) > 1 and not torch.equal(value[0].expand_as(value), value):
                raise self.refusal("a constant", "differs between the rows of a batch")
            value = value[0]
        if value.ndim > ndim:
            raise self.refusal("a constant", "has more axes than what it is combined with")
        return value


def _pruned(nodes):
    """Drop the nodes that the last one does not depend on."""
    needed = {0, len(nodes) - 1}
    for i in range(len(nodes) - 1, 0, -1):
        if i in needed:
            needed.update(nodes[i].inputs)
    order = sorted(needed)
    place = {old: new for new, old in enumerate(order)}
    return tuple(_moved(nodes[old], tuple(place[i] for i in nodes[old].inputs)) for old in order)


def _moved(node, inputs):
    if node.inputs == inputs:
        return node
    fields = {name: getattr(node, name) for name in node.__dataclass_fields__}
    return type(node)(**{**fields, "inputs": inputs})


def _flat(values):
    for value in values:
        if isinstance(value, list | tuple):
            yield from _flat(value)
        else:
            yield value


def _option(args, kwargs, func, name):
    """Return an option of a Python function, by name or place; None if it has none."""
    if name in kwargs:
        return kwargs[name]
    try:
        bound = inspect.signature(func).bind(*args, **kwargs)
    except (TypeError, ValueError):  # builtins have no signature
        return None
    return bound.arguments.get(name)


def _arguments(args, kwargs, **defaults):
    """Return arguments by name, in the order of `defaults`; None stands for required ones."""
    named = dict(zip(defaults, args, strict=False))
    return [value for value in (defaults | named | kwargs).values()][: len(defaults)]


# Each reader takes (tracer, name, func, args, kwargs, output) and returns a node, the position
# of a node that the output equals, or a list of these for several outputs.

_METADATA = {
    "device", "dim", "dtype", "get_device", "grad_fn", "is_complex", "is_contiguous", "is_cuda",
    "is_floating_point", "is_leaf", "is_mkldnn", "is_nested", "is_sparse", "itemsize", "layout",
    "len", "names", "ndim", "ndimension", "nelement", "numel", "requires_grad", "shape", "size",
    "stride", "requires_grad_", "is_quantized", "is_meta", "is_cpu",
    # Constants of the shape of a marked tensor.
    "zeros_like", "ones_like", "full_like", "new_zeros", "new_ones", "new_full", "new_tensor",
    "new_empty", "empty_like",
}  # fmt: skip
_READERS = {}


def _reads(*names):
    def register(reader):
        _READERS.update(dict.fromkeys(names, reader))
        return reader

    return register


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


@_reads("linear")
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


@_reads("matmul", "mm")
def _read_matmul(tracer, name, func, args, kwargs, output):
    x, weight = _arguments(args, kwargs, input=None, other=None)
    if not tracer.is_marked(weight) and weight.ndim == 2:
        return _linear(tracer, name, x, weight.T, None, output)
    raise tracer.refusal(name, "is read only with a constant matrix on the right")


@_reads("addmm")
def _read_addmm(tracer, name, func, args, kwargs, output):
    bias, x, weight = _arguments(args, kwargs, input=None, mat1=None, mat2=None)
    if "beta" in kwargs or "alpha" in kwargs or tracer.is_marked(bias) or bias.ndim != 1:
        raise tracer.refusal(name, "is read only with a constant bias, without alpha and beta")
    return _linear(tracer, name, x, weight.T, bias, output)


@_reads("conv1d", "conv2d", "conv3d")
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


@_reads("batch_norm")
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


@_reads("add", "radd", "iadd", "sub", "subtract", "isub", "rsub")
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


@_reads("mul", "multiply", "rmul", "imul")
def _read_mul(tracer, name, func, args, kwargs, output):
    first, second = args if len(args) > 1 else (*args, kwargs["other"])
    x, weight = (first, second) if tracer.is_marked(first) else (second, first)
    _unmarked(tracer, name, weight)
    return _scale(tracer, x, tracer.constant(weight, output.ndim), 0.0, output)


@_reads("div", "divide", "truediv", "true_divide", "itruediv", "idiv")
def _read_div(tracer, name, func, args, kwargs, output):
    x, divisor = args if len(args) > 1 else (*args, kwargs["other"])
    _single(tracer, name, x)
    _unmarked(tracer, name, divisor)
    if kwargs.get("rounding_mode") is not None:
        raise tracer.refusal(name, "rounds")
    return _scale(tracer, x, 1 / tracer.constant(divisor, output.ndim), 0.0, output)


@_reads("neg", "negative")
def _read_neg(tracer, name, func, args, kwargs, output):
    return _scale(tracer, args[0], -1.0, 0.0, output)


@_reads("addcmul")
def _read_addcmul(tracer, name, func, args, kwargs, output):
    bias, first, second = args
    _unmarked(tracer, name, bias)
    x, weight = (first, second) if tracer.is_marked(first) else (second, first)
    _unmarked(tracer, name, weight)
    weight = kwargs.get("value", 1) * tracer.constant(weight, output.ndim)
    return _scale(tracer, x, weight, tracer.constant(bias, output.ndim), output)


@_reads("cat", "concat", "concatenate")
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


@_reads("relu")
def _read_relu(tracer, name, func, args, kwargs, output):
    return _relu(tracer, name, args[0] if args else kwargs["input"], 0.0, output)


@_reads("leaky_relu")
def _read_leaky_relu(tracer, name, func, args, kwargs, output):
    x, slope = _arguments(args, kwargs, input=None, negative_slope=0.01)
    return _relu(tracer, name, x, slope, output)


@_reads("prelu")
def _read_prelu(tracer, name, func, args, kwargs, output):
    x, slope = _arguments(args, kwargs, input=None, weight=None)
    _unmarked(tracer, name, slope)
    shape = () if slope.numel() == 1 else (-1, *[1] * (x.ndim - 2))
    return _relu(tracer, name, x, slope.detach().reshape(shape), output)


@_reads("abs", "absolute")
def _read_abs(tracer, name, func, args, kwargs, output):
    return _relu(tracer, name, args[0], -1.0, output)


@_reads("hardtanh", "relu6", "clamp", "clip", "clamp_min", "clamp_max")
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


@_reads("max_pool1d", "max_pool2d")
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


@_reads("avg_pool1d", "avg_pool2d", "adaptive_avg_pool1d", "adaptive_avg_pool2d", "mean", "sum")
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


@_reads(
    "dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "feature_alpha_dropout",
    "feature_dropout",
)  # fmt: skip
def _read_dropout(tracer, name, func, args, kwargs, output):
    if _option(args, kwargs, func, "training") is not False:
        raise tracer.refusal(name, "is active, in training mode")
    return tracer.at(args[0] if args else kwargs["input"])


@_reads("contiguous", "clone", "detach", "data", "float", "double", "to", "type", "type_as",
        "positive", "pos", "alias", "cpu", "cuda")  # fmt: skip
def _read_copy(tracer, name, func, args, kwargs, output):
    if not output.dtype.is_floating_point or output.dtype in (torch.float16, torch.bfloat16):
        raise tracer.refusal(name, f"rounds to {output.dtype}")
    return _single(tracer, name, args[0])


@_reads(
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
