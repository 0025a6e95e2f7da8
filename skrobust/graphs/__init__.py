"""Networks as graphs of known operations: what they are made of, and how modules are read."""

from skrobust.graphs import _readers, _smooth_readers, _view_readers  # noqa: F401  (register)
from skrobust.graphs._distance import LinfDistance
from skrobust.graphs._graph import Graph, pull_back
from skrobust.graphs._live import LiveReader
from skrobust.graphs._nodes import (
    Average,
    AveragePool,
    Concat,
    Constant,
    Conv,
    Input,
    Linear,
    Node,
    Permute,
    Rearrange,
    Reshape,
    Scale,
    Sum,
    no_rule,
)
from skrobust.graphs._onnx import OnnxWriter, write
from skrobust.graphs._pieces import Clamp, MaxPool, PiecewiseNode, Relu
from skrobust.graphs._reading import read_graph, read_live
from skrobust.graphs._smooth import Elu, Erf, Gelu, Sigmoid, Silu, Smooth, Softplus, Tanh
from skrobust.graphs._trace import reads

__all__ = [
    "Average",
    "AveragePool",
    "Clamp",
    "Concat",
    "Constant",
    "Conv",
    "Elu",
    "Erf",
    "Gelu",
    "Graph",
    "Input",
    "Linear",
    "LinfDistance",
    "LiveReader",
    "MaxPool",
    "Node",
    "OnnxWriter",
    "Permute",
    "PiecewiseNode",
    "Rearrange",
    "Relu",
    "Reshape",
    "Scale",
    "Sigmoid",
    "Silu",
    "Smooth",
    "Softplus",
    "Sum",
    "Tanh",
    "no_rule",
    "pull_back",
    "read_graph",
    "read_live",
    "reads",
    "write",
]
