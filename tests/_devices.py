"""A device that is none: tensors that claim to lie on a GPU, and refuse to mix with others."""

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_flatten, tree_map_only

__all__ = ["DEVICE", "FakeDevice", "moved"]

DEVICE = torch.device("cuda", 7)
_TO_HOST = {"numpy", "__array__"}  # what torch refuses for a tensor on a GPU


class Elsewhere(torch.Tensor):
    """A tensor of the fake device."""


class FakeDevice(TorchFunctionMode):
    """Inside, ``device=DEVICE`` makes such tensors, and mixing them with others is an error.

    As torch has it: an index may lie on the CPU, and so may a number (a tensor without axes).
    """

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        name = getattr(function, "__name__", "")
        if getattr(function, "__self__", None) is torch.Tensor.device:
            return DEVICE if isinstance(args[0], Elsewhere) else torch.device("cpu")
        inputs = [v for v in tree_flatten((args, kwargs))[0] if isinstance(v, torch.Tensor)]
        ours = [v for v in inputs if isinstance(v, Elsewhere)]
        if ours and name in _TO_HOST:
            raise RuntimeError(f"{name} of a tensor on {DEVICE}: use cpu() first.")
        devices = [part for part in (*args, *kwargs.values()) if isinstance(part, torch.device)]
        moves = DEVICE in devices or (name == "to" and isinstance(args[-1], Elsewhere))
        leaves = name == "cpu" or (name == "to" and torch.device("cpu") in devices)
        if ours and not moves:
            _check_mixed(name, args, inputs)
        args, kwargs = (
            tree_map_only(torch.device, lambda d: torch.device("cpu"), part)
            for part in (args, kwargs)
        )
        with torch._C.DisableTorchFunctionSubclass():
            result = function(*args, **kwargs)
        if leaves:
            return result.detach().as_subclass(torch.Tensor)
        if ours or moves:
            return tree_map_only(torch.Tensor, lambda t: t.as_subclass(Elsewhere), result)
        return result


def _check_mixed(name, args, inputs):
    if name == "to":  # to the device of another tensor
        inputs = []
    elif name == "__getitem__":
        inputs = [args[0]]
    elif name == "__setitem__":
        inputs = [v for v in (args[0], args[2]) if isinstance(v, torch.Tensor)]
    host = [v for v in inputs if not isinstance(v, Elsewhere) and v.ndim > 0]
    if host:
        raise RuntimeError(f"{name} of tensors on {DEVICE} and on cpu, {tuple(host[0].shape)}.")


def moved(module):
    """Return a module whose parameters and buffers claim to lie on the fake device."""
    for part in module.modules():
        for name, value in part.named_parameters(recurse=False):
            data = value.detach().as_subclass(Elsewhere)
            setattr(part, name, torch.nn.Parameter(data, requires_grad=False))
        for name, value in part.named_buffers(recurse=False):
            part._buffers[name] = value.as_subclass(Elsewhere)
    return module
