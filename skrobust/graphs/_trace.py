r"""Any torch module of known operations as a graph of them.

A torch module runs once on marked tensors, and what happens to them is written down, so that
the forward code may be any Python.
"""

import functools
import inspect
import sys

import torch
from torch.overrides import TorchFunctionMode

from skrobust.exceptions import UnsupportedModelError
from skrobust.graphs._graph import Graph
from skrobust.graphs._nodes import Input
from skrobust.networks import check_logits

__all__ = ["arguments", "flat", "option", "reads", "single", "trace"]


def trace(module, x, *, live=False):
    """Run a module on rows; return its graph, and what the module returned.

    Parameters
    ----------
    module : torch.nn.Module
    x : Tensor of shape (n, n_features)
        More than one row, so that what mixes rows shows.
    live : bool, default=False
        Whether the graph holds the parameters themselves, in their own dtype, so that what is
        computed from it has gradients by them. Batch norm in training mode then stands for the
        statistics of these rows. If not, it holds copies in float64.
    """
    tracer = _Tracer(module, x, live)
    try:
        with torch.set_grad_enabled(live and torch.is_grad_enabled()), tracer:
            outputs = module(x)
        return Graph(tracer.finish(outputs)), outputs
    except Refusal as refusal:
        raise UnsupportedModelError(str(refusal)) from None


class Refusal(Exception):
    """Becomes an UnsupportedModelError outside: operators of torch swallow a TypeError."""


class _Tracer(TorchFunctionMode):
    """Writes down a node for each torch function that a marked tensor goes through."""

    def __init__(self, module, x, live):
        super().__init__()
        self.nodes = []
        self.names = {
            id(part): f"{name or 'the module'} ({type(part).__name__})"
            for name, part in module.named_modules()
        }
        self.position = {}  # id of a tensor -> node
        self.alive = []  # a tensor that is gone could hand its id on
        self.live = live
        self.n_rows = len(x)
        self.dtype, self.device = x.dtype if live else torch.float64, x.device
        first = Input(shape=self.shape(x), path="input", device=x.device, dtype=self.dtype)
        self._mark(x, first)

    def finish(self, logits):
        check_logits(logits, self.n_rows)
        if not self.is_marked(logits):
            raise Refusal(
                "Got a module whose outputs do not depend on its input by operations of torch, "
                "but expected logits that do."
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
        if not any(self.is_marked(value) for value in flat([*args, *kwargs.values()])):
            return func(*args, **kwargs)
        name = getattr(func, "__name__", str(func))
        if name == "__get__":
            name = func.__self__.__name__
        name = name.strip("_") if name.startswith("__") else name
        if name in _METADATA:
            return func(*args, **kwargs)
        in_place = name.endswith("_")
        read = READERS.get(name.rstrip("_"))
        if read is None:
            raise self.refusal(name)
        output = func(*args, **kwargs)
        if in_place or option(args, kwargs, func, "inplace"):
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

    def refusal(self, operation, reason="is not read"):
        return Refusal(
            f"{operation!r} in layer {self.label} {reason}. Linear, convolution, ReLU, LeakyReLU, "
            "PReLU, Hardtanh, clamp, tanh, sigmoid, erf, GELU, SiLU, softplus, ELU, SELU, CELU, "
            "max and average pooling, batch norm in evaluation mode, dropout, flatten and other "
            "views, sums, products with constants and concatenation are read."
        )

    def number(self, value):
        """Return a number or tensor in the dtype of the graph; a live one keeps its history."""
        if not isinstance(value, torch.Tensor):
            return torch.tensor(value, dtype=self.dtype, device=self.device)
        if self.live:
            return value.to(self.device, self.dtype)
        return value.detach().to(self.device, self.dtype, copy=True)

    def constant(self, value, ndim):
        """Return a constant operand without a batch axis, for one of `ndim` axes."""
        value = self.number(value)
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


def flat(values):
    for value in values:
        if isinstance(value, list | tuple):
            yield from flat(value)
        else:
            yield value


def arguments(args, kwargs, **defaults):
    """Return arguments by name, in the order of `defaults`; None stands for required ones."""
    named = dict(zip(defaults, args, strict=False))
    return [value for value in (defaults | named | kwargs).values()][: len(defaults)]


def single(tracer, name, value):
    """Return the position of the one marked operand, which must come first."""
    if not tracer.is_marked(value):
        raise tracer.refusal(name, "has an activation as a parameter")
    return tracer.at(value)


def option(args, kwargs, func, name):
    """Return an option of a Python function, by name or place; None if it has none."""
    if name in kwargs:
        return kwargs[name]
    place = _place(func, name)
    return args[place] if place is not None and place < len(args) else None


@functools.cache  # a module that trains is read at each step
def _place(func, name):
    """Return the place of a parameter among positional ones; None if it has none."""
    try:
        parameters = inspect.signature(func).parameters.values()
    except (TypeError, ValueError):  # builtins have no signature
        return None
    names = [each.name for each in parameters if each.kind in _POSITIONAL]
    return names.index(name) if name in names else None


_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
_METADATA = {
    "device", "dim", "dtype", "get_device", "grad_fn", "is_complex", "is_contiguous", "is_cuda",
    "is_floating_point", "is_leaf", "is_mkldnn", "is_nested", "is_sparse", "itemsize", "layout",
    "len", "names", "ndim", "ndimension", "nelement", "numel", "requires_grad", "shape", "size",
    "stride", "requires_grad_", "is_quantized", "is_meta", "is_cpu",
    # Constants of the shape of a marked tensor.
    "zeros_like", "ones_like", "full_like", "new_zeros", "new_ones", "new_full", "new_tensor",
    "new_empty", "empty_like",
}  # fmt: skip
READERS = {}


def reads(*names):
    """Register how torch functions are read, as a decorator of a reader.

    Parameters
    ----------
    *names : str
        Of the functions, without underscores around them: "softshrink", or "mul" for both
        ``torch.mul`` and ``x *= 2``.

    Returns
    -------
    callable
        The decorator. A reader ``read(tracer, name, func, args, kwargs, output)`` returns the
        node that the call stands for, a list of them for a list of outputs, or the position of
        the node that it leaves as it is. `tracer.at(x)` is the position of the node that made
        the tensor x, `tracer.shape(x)` the shape of one sample, `tracer.label` the layer,
        `tracer.number(value)` a constant as a graph holds it, and `tracer.refusal(name, why)`
        the error to raise.
    """

    def register(reader):
        READERS.update(dict.fromkeys(names, reader))
        return reader

    return register
