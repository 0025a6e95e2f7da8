"""Neurons that measure the L-infinity distance of their input from a point."""

import math
from dataclasses import dataclass

import torch

from skrobust.graphs._nodes import Node
from skrobust.graphs._trace import arguments, reads, single

__all__ = ["LinfDistance"]


@dataclass(frozen=True, eq=False, kw_only=True)
class LinfDistance(Node):
    """The largest abs(z_i - weight_ki), for each row k of weights.

    Parameters
    ----------
    inputs, shape : tuple of int
    path : str
        As for `Node`.
    weight : Tensor of shape (n_units, n_entries)
    """

    weight: torch.Tensor

    is_affine = False

    def apply(self, z):
        return torch.cdist(z, self.weight, p=math.inf)


@reads("cdist")
def _read_cdist(tracer, name, func, args, kwargs, output):
    x, weight, p, _ = arguments(args, kwargs, x1=None, x2=None, p=2.0, compute_mode=None)
    if p != math.inf or tracer.is_marked(weight) or weight.ndim != 2 or not tracer.is_marked(x):
        raise tracer.refusal(name, "is read only with p=inf, of rows from a constant matrix")
    return LinfDistance(
        inputs=(single(tracer, name, x),),
        shape=tracer.shape(output),
        path=tracer.label,
        weight=tracer.number(weight),
    )
