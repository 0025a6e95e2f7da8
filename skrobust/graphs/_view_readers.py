"""How functions that only move entries are read; they register with the tracer."""

import torch

from skrobust.graphs._nodes import Permute, Rearrange, Reshape
from skrobust.graphs._trace import arguments, option, reads, single

__all__ = []


@reads(
    "dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "feature_alpha_dropout",
    "feature_dropout",
)  # fmt: skip
def _read_dropout(tracer, name, func, args, kwargs, output):
    active = option(args, kwargs, func, "training") is not False
    if active and option(args, kwargs, func, "p") != 0:
        raise tracer.refusal(name, "is active, in training mode")
    return tracer.at(args[0] if args else kwargs["input"])


@reads("contiguous", "clone", "detach", "data", "float", "double", "to", "type", "type_as",
        "positive", "pos", "alias", "cpu", "cuda")  # fmt: skip
def _read_copy(tracer, name, func, args, kwargs, output):
    if not output.dtype.is_floating_point or output.dtype in (torch.float16, torch.bfloat16):
        raise tracer.refusal(name, f"rounds to {output.dtype}")
    return single(tracer, name, args[0])


@reads("view", "reshape", "flatten", "unflatten", "squeeze", "unsqueeze", "view_as",
        "reshape_as")  # fmt: skip
def _read_reshape(tracer, name, func, args, kwargs, output):
    x = args[0] if args else kwargs["input"]
    position = single(tracer, name, x)
    # Entries keep their order, and so belong to the same rows if there are as many rows.
    keeps_rows = output.ndim > 0 and len(output) == tracer.n_rows and len(x) == tracer.n_rows
    if not keeps_rows or output.dtype != x.dtype:
        raise _mixes(tracer, name)
    if output.shape == x.shape:
        return position
    return Reshape(
        inputs=(position,),
        shape=tracer.shape(output),
        path=tracer.label,
        input_shape=tracer.shape(x),
    )


@reads("permute", "transpose", "swapaxes", "swapdims", "movedim", "moveaxis")
def _read_permutation(tracer, name, func, args, kwargs, output):
    x = args[0] if args else kwargs["input"]
    position = single(tracer, name, x)
    # Sizes that are all different tell where each axis went.
    like = torch.empty(*range(x.ndim), device="meta")
    axes = _with_input(func, args, kwargs, x, like).shape
    if axes[0] != 0:
        raise _mixes(tracer, name)
    if list(axes) == sorted(axes):
        return position
    return Permute(
        inputs=(position,),
        shape=tracer.shape(output),
        path=tracer.label,
        axes=tuple(axis - 1 for axis in axes[1:]),
    )


def _with_input(func, args, kwargs, x, other):
    """Call a function with something else in the place of x."""
    arguments = [other if value is x else value for value in args]
    return func(*arguments, **{k: other if value is x else value for k, value in kwargs.items()})


def _mixes(tracer, name):
    return tracer.refusal(name, "mixes samples, or drops the batch axis")


@reads(
    "getitem", "narrow", "select", "chunk", "split", "tensor_split", "unbind", "expand",
    "expand_as", "repeat", "repeat_interleave", "tile", "flip", "roll", "pad", "index_select",
    "pixel_shuffle", "pixel_unshuffle",
)  # fmt: skip
def _read_rearrangement(tracer, name, func, args, kwargs, output):
    if name == "pad":
        x, _, mode, value = arguments(
            args, kwargs, input=None, pad=None, mode="constant", value=None
        )
        if mode == "constant" and value:
            raise tracer.refusal(name, f"fills with {value}, but only 0 is read")
    else:
        x = args[0] if args else kwargs["input"]
    position = single(tracer, name, x)
    # Run it once more on numbers that tell where each entry went; 0 is what padding adds.
    places = torch.arange(1, x.numel() + 1, dtype=torch.float64, device=x.device).view(x.shape)
    moved = _with_input(func, args, kwargs, x, places)
    if isinstance(moved, tuple | list):
        return [_rearrange(tracer, name, position, x, part) for part in moved]
    return _rearrange(tracer, name, position, x, moved)


def _rearrange(tracer, name, position, x, moved):
    count = x[0].numel()
    if moved.ndim == 0 or len(moved) != tracer.n_rows:
        raise _mixes(tracer, name)
    index = moved[0].long() - 1
    # Each further row must be the first one, moved on by the entries of the rows between.
    moves = torch.arange(tracer.n_rows, device=index.device).view(-1, *[1] * index.ndim) * count
    inside = ((index >= -1) & (index < count)).all()
    if not inside or not torch.equal(torch.where(index < 0, -1, index + moves), moved.long() - 1):
        raise _mixes(tracer, name)
    same = torch.equal(index.flatten(), torch.arange(count, device=index.device))
    if same and index.shape == x.shape[1:]:
        return position
    fields = {"inputs": (position,), "shape": tuple(index.shape), "path": tracer.label}
    if same:
        return Reshape(**fields, input_shape=tracer.shape(x))
    return Rearrange(**fields, index=index, input_shape=tracer.shape(x))
