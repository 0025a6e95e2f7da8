"""Graphs and balls in float32, in which bounds are proved at half the price."""

from contextlib import contextmanager
from dataclasses import fields, replace
from functools import singledispatch
from threading import Lock

import torch

from skrobust.graphs import (
    Average,
    Clamp,
    Concat,
    Constant,
    Conv,
    Graph,
    Input,
    Linear,
    MaxPool,
    Permute,
    Rearrange,
    Relu,
    Reshape,
    Scale,
    Sum,
)

__all__ = ["in_single", "outer_single", "plain_single", "single_graph"]


@singledispatch
def in_single(node):
    """Return a node in float32, for bounds that are proved in that.

    Parameters
    ----------
    node : Node
        Kinds are registered with ``in_single.register(Kind)``: those whose rules hold with the
        rounding of any dtype, and after one relative error of each weight.

    Returns
    -------
    Node or None
        None for other kinds: networks with such a node are bounded in float64 alone.
    """


@in_single.register(Average)
@in_single.register(Clamp)
@in_single.register(Concat)
@in_single.register(Constant)
@in_single.register(Conv)
@in_single.register(Linear)
@in_single.register(MaxPool)
@in_single.register(Permute)
@in_single.register(Rearrange)
@in_single.register(Relu)
@in_single.register(Reshape)
@in_single.register(Scale)
@in_single.register(Sum)
def _with_rounded_weights(node):
    values = {part.name: getattr(node, part.name) for part in fields(node)}
    floats = {
        name: value.float()
        for name, value in values.items()
        if isinstance(value, torch.Tensor) and value.is_floating_point()
    }
    return replace(node, **floats)


@in_single.register(Input)
def _single_input(node):
    return replace(node, dtype=torch.float32)


def single_graph(graph):
    """Return a graph in float32, or None where bounds are not proved in that.

    They are not on accelerators, whose kernels may round more than float32 does.

    Parameters
    ----------
    graph : Graph
        In float64.

    Returns
    -------
    Graph or None
    """
    if graph.device.type != "cpu":
        return None
    nodes = tuple(in_single(node) for node in graph.nodes)
    return None if any(node is None for node in nodes) else Graph(nodes)


def outer_single(ball):
    """Return boxes in float32 that hold the given ones in float64.

    Parameters
    ----------
    ball : Ball
        Of L-infinity.

    Returns
    -------
    Ball
    """
    lower, upper = ball.lower.float(), ball.upper.float()
    infinity = torch.full_like(lower, torch.inf)
    return replace(
        ball,
        center=ball.center.float(),
        epsilon=ball.epsilon.float(),
        lower=torch.where(lower > ball.lower, torch.nextafter(lower, -infinity), lower),
        upper=torch.where(upper < ball.upper, torch.nextafter(upper, infinity), upper),
    )


class _PlainKernels:
    """Turns off the libraries whose convolutions may be no plain sums of products, while needed.

    NNPACK's go by transforms (Winograd), whose errors are of another kind, and oneDNN may be told
    to compute in bfloat16. For many rows of small images, as bounds have them, they are no faster.
    The switches are those of the process: the first thread that comes in turns them off, the last
    that goes puts them back.
    """

    def __init__(self):
        self._lock, self._n_inside = Lock(), 0

    def __enter__(self):
        with self._lock:
            if self._n_inside == 0:
                self._onednn = torch.backends.mkldnn.enabled
                torch.backends.mkldnn.enabled = False
                (self._nnpack,) = torch.backends.nnpack.set_flags(False)
            self._n_inside += 1

    def __exit__(self, *_):
        with self._lock:
            self._n_inside -= 1
            if self._n_inside == 0:
                torch.backends.mkldnn.enabled = self._onednn
                torch.backends.nnpack.set_flags(self._nnpack)


_PLAIN_KERNELS = _PlainKernels()


@contextmanager
def plain_single():
    """Compute in float32 by sums of products; yields whether that is what is computed."""
    with _PLAIN_KERNELS:
        yield _is_plain()


def _is_plain():
    """Whether products of matrices and of kernels keep the digits of float32."""
    if torch.get_float32_matmul_precision() != "highest":
        return False
    # The sum of the squares is 64 (1 + 2^-11 + 2^-24): in float32 as good as exact, in coarser
    # types 64 or 64 (1 + 2^-10).
    one = torch.full((16, 64, 1, 1), 1 + 2.0**-12)
    exact, slack = 64 * (1 + 2.0**-12) ** 2, 64 * 66 * 2.0**-24
    products = (one[:, :, 0, 0] @ one[:, :, 0, 0].T, torch.nn.functional.conv2d(one, one))
    return all(bool(((part.double() - exact).abs() <= slack).all()) for part in products)
