r"""Any torch module of known operations as a graph of them.

`read_graph` runs a torch module once on marked tensors and writes down what happens to
them, so that the forward code may be any Python.
"""

import inspect
import sys

import torch
from torch.overrides import TorchFunctionMode

from skrobust.exceptions import UnsupportedModelError
from skrobust.graphs._graph import Graph
from skrobust.graphs._nodes import Input
from skrobust.networks import Model, dtype_and_device

__all__ = ["read_graph"]

_BATCH = 2  # rows that are traced; two, so that what mixes rows shows


def read_graph(network, n_features=None):
    """Read a network as a graph of known, piecewise linear operations.

    Parameters
    ----------
    network : Network, torch.nn.Module or Graph
        From rows to logits, in evaluation mode. A graph is returned as it is.
    n_features : int, default=None
        Entries of a row, where the network does not know them.

    Returns
    -------
    Graph

    Raises
    ------
    UnsupportedModelError
        If the forward pass does anything that is not piecewise linear, such as a sigmoid, or
        decides by the values of tensors in Python. The message names the operation and the
        path of the layer.
    """
    if isinstance(network, Graph):
        return network
    if isinstance(network, Model):
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
    tracer = Tracer(module)
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(_BATCH, n_features, generator=generator).to(device, dtype)
    tracer.start(x)
    try:
        with torch.no_grad(), tracer:
            logits = module(x)
        graph = Graph(tracer.finish(logits))
    except Refusal as refusal:
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


class Refusal(Exception):
    """Becomes an UnsupportedModelError outside: operators of torch swallow a TypeError."""


class Tracer(TorchFunctionMode):
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
            raise Refusal(
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
        read = READERS.get(name.rstrip("_"))
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
        return Refusal(
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
    def register(reader):
        READERS.update(dict.fromkeys(names, reader))
        return reader

    return register
