"""What ONNX operators that look through windows compute, in torch: convolutions, pools, zooms."""

import itertools
import math

import torch
from torch.nn import functional

from skrobust.networks._onnx_operators import computes, is_constant, torch_pads

__all__ = []


def _window(op, x, kernel):
    """Return strides, dilations, and paddings (before, after) of each axis of a window."""
    n = len(kernel)
    strides, dilations = op.get("strides", (1,) * n), op.get("dilations", (1,) * n)
    pads = op.get("pads", (0,) * (2 * n))
    pads = list(zip(pads[:n], pads[n:], strict=True))
    auto = op.get("auto_pad", "NOTSET")
    if auto in ("SAME_UPPER", "SAME_LOWER"):
        pads = []
        for length, k, s, d in zip(x.shape[2:], kernel, strides, dilations, strict=True):
            total = max((math.ceil(length / s) - 1) * s + d * (k - 1) + 1 - length, 0)
            half = total // 2 if auto == "SAME_UPPER" else total - total // 2
            pads.append((half, total - half))
    return tuple(strides), tuple(dilations), pads


def _even(pads):
    return all(before == after for before, after in pads)


@computes("Conv")
def _conv(op, x, weight, bias=None):
    if not is_constant(op, 1):
        raise op.refusal("has an activation as its kernel")
    n = weight.ndim - 2
    strides, dilations, pads = _window(op, x, weight.shape[2:])
    if not _even(pads):
        x, pads = functional.pad(x, torch_pads(pads)), [(0, 0)] * n
    conv = (functional.conv1d, functional.conv2d, functional.conv3d)[n - 1]
    padding = tuple(before for before, _ in pads)
    return conv(x, weight, bias, strides, padding, dilations, op.get("group", 1))


@computes("MaxPool")
def _max_pool(op, x):
    kernel = tuple(op.get("kernel_shape"))
    strides, dilations, pads = _window(op, x, kernel)
    if len(kernel) > 2 or len(op.outputs) > 1:
        raise op.refusal("is read in one or two dimensions, without indices")
    if not _even(pads):
        if any(d != 1 for d in dilations) or any(
            max(pair) >= k for pair, k in zip(pads, kernel, strict=True)
        ):
            raise op.refusal("has uneven padding with dilation, or wider than its window")
        # A window that sees the padding sees the border too: its copies change no maximum.
        x = functional.pad(x, torch_pads(pads), mode="replicate")
        pads = [(0, 0)] * len(kernel)
    pool = functional.max_pool1d if len(kernel) == 1 else functional.max_pool2d
    padding = tuple(before for before, _ in pads)
    return pool(x, kernel, strides, padding, dilations, bool(op.get("ceil_mode", 0)))


@computes("AveragePool")
def _average_pool(op, x):
    kernel = tuple(op.get("kernel_shape"))
    strides, dilations, pads = _window(op, x, kernel)
    if len(kernel) > 2 or any(d != 1 for d in dilations) or op.get("ceil_mode", 0):
        raise op.refusal("is read in one or two dimensions, without dilations and ceil_mode")
    pool = functional.avg_pool1d if len(kernel) == 1 else functional.avg_pool2d
    padded = functional.pad(x, torch_pads(pads)) if any(map(any, pads)) else x
    mean = pool(padded, kernel, strides)
    if padded is x or op.get("count_include_pad", 0):
        return mean
    ones = functional.pad(torch.ones((1, 1, *x.shape[2:]), dtype=x.dtype), torch_pads(pads))
    return mean / pool(ones, kernel, strides).to(x.device)


@computes("GlobalAveragePool")
def _global_average_pool(op, x):
    return x.mean(dim=tuple(range(2, x.ndim)), keepdim=True)


@computes("GlobalMaxPool")
def _global_max_pool(op, x):
    if x.ndim not in (3, 4):
        raise op.refusal("is read in one or two dimensions")
    pool = functional.max_pool1d if x.ndim == 3 else functional.max_pool2d
    return pool(x, tuple(x.shape[2:]))


@computes("ConvTranspose")
def _conv_transpose(op, x, weight, bias=None):
    """Convolve x, with zeros between its entries, by the kernel turned around."""
    n = weight.ndim - 2
    if (
        not is_constant(op, 1)
        or op.get("auto_pad", "NOTSET") != "NOTSET"
        or op.get("output_shape")
    ):
        raise op.refusal("is read only with a constant kernel and plain pads")
    strides, dilations, pads = _window(op, x, weight.shape[2:])
    more = op.get("output_padding", (0,) * n)
    reach = [d * (k - 1) for d, k in zip(dilations, weight.shape[2:], strict=True)]
    pads = [
        (r - before, r - after + extra)
        for r, (before, after), extra in zip(reach, pads, more, strict=True)
    ]
    if min(itertools.chain.from_iterable(pads)) < 0:
        raise op.refusal("cuts off more than its kernel adds")
    group = op.get("group", 1)
    weight = weight.reshape(group, -1, *weight.shape[1:]).transpose(1, 2).flatten(0, 1)
    x = functional.pad(_spread(x, strides), torch_pads(pads))
    conv = (functional.conv1d, functional.conv2d, functional.conv3d)[n - 1]
    turned = weight.flip(tuple(range(2, n + 2)))
    return conv(x, turned, bias, 1, 0, dilations, group)


def _spread(x, strides):
    """Put zeros between the entries of x."""
    for axis, stride in enumerate(strides, start=2):
        if stride > 1:
            before, length, after = x.shape[:axis], x.shape[axis], x.shape[axis + 1 :]
            apart = x.reshape(*before, length, 1, *after)
            behind = [(0, 0)] * (axis + 1) + [(0, stride - 1)] + [(0, 0)] * len(after)
            apart = functional.pad(apart, torch_pads(behind))
            whole = apart.reshape(*before, length * stride, *after)
            x = whole.narrow(axis, 0, (length - 1) * stride + 1)
    return x


_NEAREST = [
    ("asymmetric", "floor"),
    ("half_pixel", "round_prefer_floor"),
    ("half_pixel", "round_prefer_ceil"),
]


@computes("Upsample", "Resize")
def _upsample(op, x, *rest):
    """Repeat entries: the nearest ones, where each becomes a whole number of them."""
    if op.get("mode", "nearest") != "nearest" or not all(
        place in op.places or value is None for place, value in enumerate(rest, start=1)
    ):
        raise op.refusal("is read only where it repeats the nearest entries, at constant scales")
    if op.kind == "Resize":
        way = (
            op.get("coordinate_transformation_mode", "half_pixel"),
            op.get("nearest_mode", "round_prefer_floor"),
        )
        if way not in _NEAREST:
            raise op.refusal(f"is not read with {way[0]!r} and {way[1]!r}")
    for axis, times in enumerate(_times(op, x, rest)):
        if times != 1:
            x = x.repeat_interleave(times, dim=axis)
    return x


def _times(op, x, rest):
    """Return how often each axis of x repeats its entries."""
    sizes = rest[2] if len(rest) > 2 else None
    if sizes is not None:
        times = [int(size) / length for size, length in zip(sizes, x.shape, strict=True)]
        times[0] = 1  # the batch that an exporter saw
    else:
        scales = op.get("scales") if not rest else rest[-1]
        if scales is None or len(scales) != x.ndim:
            raise op.refusal("has no scale for each axis")
        times = [float(scale) for scale in scales]
    if times[0] != 1 or any(t < 1 or t != round(t) for t in times):
        raise op.refusal(f"is read only with scales that are whole numbers, not {times}")
    return [round(t) for t in times]
