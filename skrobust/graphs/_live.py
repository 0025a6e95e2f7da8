"""Modules that are read at each step of their training."""

import torch
from torch import nn
from torch.nn.modules.module import _has_any_global_hook

from skrobust.graphs._graph import Graph
from skrobust.graphs._reading import read_live

__all__ = ["LiveReader"]

# What these do with a batch follows from their parameters alone.
_FIXED = {
    nn.Sequential, nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Flatten, nn.Unflatten,
    nn.Identity, nn.ReLU, nn.LeakyReLU, nn.Tanh, nn.Sigmoid, nn.GELU, nn.SiLU, nn.Softplus,
    nn.ELU, nn.Hardtanh,
}  # fmt: skip


class LiveReader:
    """`read_live` for one step after the other, which reads anew only what may have changed.

    A module of layers without a memory and without hooks does the same at each step, with other
    values of the same parameters; all others are read at each step.

    Examples
    --------
    >>> import torch
    >>> from skrobust.graphs import LiveReader
    >>> module, read = torch.nn.Linear(2, 3), LiveReader()
    >>> first, second = (read(module, torch.rand(4, 2))[0] for _ in range(2))
    >>> first.nodes is second.nodes
    True
    """

    def __init__(self):
        self._known = None

    def __call__(self, module, x):
        """Return the graph of this step, and the outputs at the batch; see `read_live`."""
        state = _state(module, x)
        if state is not None and self._known is not None and self._known[0] == state:
            return Graph(self._known[1]), module(x)
        graph, outputs = read_live(module, x)
        # Nodes alone: what a graph keeps has the history of its step. The parts themselves are
        # kept, so that none is gone and hands its id on.
        self._known = (state, graph.nodes, [*module.modules()]) if _is_leaf_only(graph) else None
        return graph, outputs


def _state(module, x):
    """Return what decides, beside values of parameters, what is read; None if unknown."""
    parts = [*module.modules()]
    is_fixed = all(type(part) in _FIXED and not _is_changed(part) for part in parts)
    if not is_fixed or _has_any_global_hook():
        return None
    # Options, such as the stride, are plain attributes. A part may run more than once.
    options = [
        (
            [id(child) for child in part._modules.values()],
            [(k, _comparable(v)) for k, v in vars(part).items() if k[0] != "_"],
        )
        for part in parts
    ]
    tensors = [(id(p), p.dtype, p.device, p.shape) for p in module.parameters()]
    return id(module), options, tensors, x.shape[1:], x.dtype, x.device, torch.is_grad_enabled()


def _comparable(value):
    """Return an option, or what stands for one whose equality may not be True or False."""
    return value if isinstance(value, bool | int | float | str | tuple) else id(value)


def _is_changed(part):
    """Return whether a layer has hooks, or a forward of its own."""
    return (
        "forward" in vars(part)
        or part._forward_hooks
        or part._forward_pre_hooks
        or part._backward_hooks
        or part._backward_pre_hooks
    )


def _is_leaf_only(graph):
    """Return whether nodes hold parameters themselves, not what was computed from them."""
    held = [value for node in graph.nodes for value in vars(node).values()]
    return all(value.is_leaf for value in held if isinstance(value, torch.Tensor))
