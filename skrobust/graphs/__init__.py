"""Networks as graphs of known operations: what they are made of, and how modules are read."""

from skrobust.graphs import _readers  # noqa: F401  (register themselves)
from skrobust.graphs._graph import Graph
from skrobust.graphs._nodes import (
    Average,
    Concat,
    Constant,
    Conv,
    Input,
    Linear,
    Node,
    Rearrange,
    Scale,
    Sum,
)
from skrobust.graphs._onnx import OnnxWriter
from skrobust.graphs._pieces import Clamp, MaxPool, PiecewiseNode, Relu
from skrobust.graphs._trace import read_graph

__all__ = [
    "Average",
    "Clamp",
    "Concat",
    "Constant",
    "Conv",
    "Graph",
    "Input",
    "Linear",
    "MaxPool",
    "Node",
    "OnnxWriter",
    "PiecewiseNode",
    "Rearrange",
    "Relu",
    "Scale",
    "Sum",
    "read_graph",
]
