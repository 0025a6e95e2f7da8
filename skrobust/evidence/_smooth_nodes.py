"""What is stored of smooth units: the name of the function, and its parameters."""

import numpy as np

from skrobust.evidence._network import stored_node
from skrobust.graphs import Elu, Erf, Gelu, Sigmoid, Silu, Softplus, Tanh

__all__ = []


@stored_node.register(Tanh)
@stored_node.register(Sigmoid)
@stored_node.register(Erf)
@stored_node.register(Silu)
def _without_parameters(node, graph, i):
    return type(node).__name__.lower(), {}


@stored_node.register(Gelu)
def _of_gelu(node, graph, i):
    return "gelu" if node.approximate == "none" else "gelu_tanh", {}


@stored_node.register(Softplus)
def _of_softplus(node, graph, i):
    return "softplus", _numbers(node, "beta", "threshold")


@stored_node.register(Elu)
def _of_elu(node, graph, i):
    return "elu", _numbers(node, "alpha", "scale", "rate")


def _numbers(node, *names):
    return {name: np.array(getattr(node, name), dtype=np.float64) for name in names}
