"""The two doors to graphs: one for verification, one for training."""

import torch

from skrobust._validation import check_instance, check_integer, kind_of
from skrobust.exceptions import UnsupportedModelError
from skrobust.graphs._graph import Graph
from skrobust.graphs._trace import trace
from skrobust.networks import Model, check_precision, dtype_and_device, outputs_of

__all__ = ["read_graph", "read_live"]

_BATCH = 2  # rows that are traced; two, so that what mixes rows shows


def read_graph(network, n_features=None):
    """Read a network as a graph of known operations.

    Parameters
    ----------
    network : Network, torch.nn.Module or Graph
        From rows to logits, in evaluation mode. A graph is returned as it is.
    n_features : int, default=None
        Entries of a row, where the network does not know them.

    Returns
    -------
    Graph
        In float64, on the device of the network. It does not change with the network.

    Raises
    ------
    TypeError
        If `network` is none of these; of an estimator, `skrobust.networks.as_network` makes one.
    UnsupportedModelError
        If the forward pass does anything that is not known, such as the product of two
        activations, or decides by the values of tensors in Python. The message names the
        operation and the path of the layer.
    ValueError
        If its outputs are not of shape (n, n_classes), or the number of entries of a row is not
        known.

    Examples
    --------
    >>> import torch
    >>> from skrobust.graphs import read_graph
    >>> module = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.ReLU())
    >>> read_graph(module, n_features=2)
    Graph(
      0  Input      (2,)               of ()  input
      1  Linear     (3,)               of (0,)  0 (Linear)
      2  Relu       (3,)               of (1,)  1 (ReLU)
    )
    """
    example = "as_network(estimator), or a torch.nn.Linear(784, 10)"
    check_instance("network", network, (Graph, Model, torch.nn.Module), example)
    if n_features is not None:
        check_integer("n_features", n_features, low=1)
    if isinstance(network, Graph):
        return network
    if isinstance(network, Model):
        module, known, dtype, device = (
            getattr(network, name, None) for name in ("module", "n_features", "dtype", "device")
        )
        n_features = known if known is not None else n_features
        if module is None:
            kind = kind_of(getattr(network, "estimator", network))
            raise UnsupportedModelError(
                f"Got {kind}, which cannot be read as a network of known operations."
            )
    else:
        module = network
        dtype, device = dtype_and_device(module)
    _check_module(module, dtype)
    if n_features is None:
        raise ValueError("Got n_features=None, but expected the number of entries of a row.")
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(_BATCH, n_features, generator=generator).to(device, dtype)
    outputs_of(module, x)
    graph, _ = trace(module, x)
    _compare(graph, module, torch.rand(3, n_features, generator=generator).to(device, dtype))
    return graph


def read_live(module, x):
    """Read what a module does with a batch, for training: nodes hold its own parameters.

    What is computed from the graph has gradients by the parameters. The graph holds for one
    step: batch norm in training mode stands for the statistics of this batch.

    Parameters
    ----------
    module : torch.nn.Module
        In any mode.
    x : Tensor of shape (n, n_features)
        In the dtype of the parameters.

    Returns
    -------
    graph : Graph
        In the dtype of `x`.
    outputs : Tensor of shape (n, n_classes)
        What the module returned, with gradients as ever.

    Raises
    ------
    UnsupportedModelError, ValueError
        As by `read_graph`.

    Examples
    --------
    >>> import torch
    >>> from skrobust.graphs import read_live
    >>> module = torch.nn.Linear(2, 3)
    >>> graph, outputs = read_live(module, torch.rand(4, 2))
    >>> graph.nodes[1].weight is module.weight
    True
    """
    _check_module(module, x.dtype)
    return trace(module, x, live=True)


def _check_module(module, dtype):
    check_precision(dtype)
    if any(isinstance(part, torch.jit.ScriptModule) for part in module.modules()):
        raise UnsupportedModelError(
            "Got a scripted or traced module, whose operations cannot be read, but expected the "
            "module that it was made from."
        )


def _compare(graph, module, x):
    """Refuse a graph that does not compute what the module computes."""
    with torch.no_grad():
        logits = module(x)
        values = graph.values(x)
    read = values[-1]
    if logits.shape != read.shape:
        raise UnsupportedModelError(
            f"The module returns outputs of shape {tuple(logits.shape)} for {len(x)} rows; as a "
            f"graph it would return {tuple(read.shape)}."
        )
    if not torch.isfinite(logits).all():
        raise UnsupportedModelError(
            "The module returns NaN or infinity, but expected finite outputs for finite inputs."
        )
    error = (logits.double() - read).abs().max().item()
    scale = max(value.abs().max().item() for value in values if value.numel())
    if not error <= 1e-3 * (1 + scale):
        raise UnsupportedModelError(
            f"The module could not be read as a graph of known operations: outputs differ by "
            f"{error:.3g}. Operations in place on views, random operations and forward code "
            "that depends on values are the known reasons."
        )
