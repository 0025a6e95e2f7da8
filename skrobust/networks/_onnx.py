"""ONNX files as torch modules.

Each node of the file becomes an `Operator`, which calls plain torch functions, so that the
module can be attacked, read as a piecewise linear network, moved and pickled like any other.
"""

import itertools
import math
import os
from pathlib import Path

import numpy as np
import torch

from skrobust._files import read_limited
from skrobust._validation import expected
from skrobust.exceptions import UnsupportedModelError
from skrobust.networks import _onnx_windows  # noqa: F401  (registers itself)
from skrobust.networks._onnx_limits import (
    MOST_FEATURES,
    MOST_UNPACKED,
    SizeLimit,
    check_tensors,
    load_external,
)
from skrobust.networks._onnx_operators import _OPERATIONS, Operator

__all__ = ["OnnxModule", "import_onnx", "load_onnx"]


class OnnxModule(torch.nn.Module):
    """The graph of an ONNX file, as `load_onnx` reads it.

    It takes samples of shape (n, *input_shape), or rows of shape (n, n_features).

    Attributes
    ----------
    input_shape : tuple of int
        Shape of one sample.
    n_outputs : int
        Number of logits.
    dropped : str or None
        The last operation of the file where it only turned logits into probabilities:
        "Softmax", "LogSoftmax" or "Sigmoid" (of one output s, which becomes the logits (0, s)).
        The module returns the logits.
    """

    def __init__(self, operators, source, result, input_shape, dropped):
        super().__init__()
        self.operators = torch.nn.ModuleDict(operators)
        self.source = source
        self.result = result
        self.input_shape = input_shape
        self.dropped = dropped
        self.n_outputs = None

    def forward(self, x):
        if tuple(x.shape[1:]) != self.input_shape:
            x = x.reshape(len(x), *self.input_shape)
        values = {self.source: x}
        for operator in self.operators.values():
            arguments = [None if name == "" else values.get(name) for name in operator.inputs]
            outputs = operator(*arguments)
            values.update(zip(operator.outputs, outputs, strict=False))
        logits = values[self.result]
        if logits.ndim != 2:
            logits = logits.reshape(len(x), -1)
        if self.dropped == "Sigmoid":
            logits = torch.cat([torch.zeros_like(logits), logits], dim=1)
        return logits


def import_onnx():
    """Return the module onnx, or raise an ImportError that says how to install it."""
    try:
        import onnx
    except ImportError as error:
        raise ImportError(
            "ONNX files need the package onnx. Install it by: pip install 'skrobust[onnx]'."
        ) from error
    return onnx


def load_onnx(path, *, input_shape=None, keep_sigmoid=False):
    """Read an ONNX file as a frozen torch module from samples, or rows, to logits.

    Parameters
    ----------
    path : str or path-like
        Of the file; where its name ends in ``.gz``, gzip unpacks it. Weights in files beside it
        are found, in its own folder. Nothing in a file is run but the operations that are known;
        what it claims of sizes is checked before memory is taken.
    input_shape : tuple of int, default=None
        Shape of one sample; None for what the file says.
    keep_sigmoid : bool, default=False
        Whether a last Sigmoid stays, also of several outputs.

    Returns
    -------
    OnnxModule
        A last Softmax, LogSoftmax, or Sigmoid of one output, is taken off; see `dropped`.

    Raises
    ------
    ImportError
        If the package onnx is not installed.
    ValueError
        If the file cannot be read, or does not say the shape of its input.
    UnsupportedModelError
        If an operation is not known, or mixes samples. The message names it and its node.
    """
    onnx = import_onnx()
    if not isinstance(path, str | os.PathLike) or not Path(path).is_file():
        raise ValueError(expected("path", path, "the path of an ONNX file"))
    try:
        return _as_module(_read(onnx, Path(path)), input_shape, keep_sigmoid)
    except ImportError:
        raise
    except UnsupportedModelError as error:
        raise UnsupportedModelError(f"{error} (in the ONNX file {path})") from error
    except _Refusal as error:
        raise ValueError(f"{error} (in the ONNX file {path})") from error
    except Exception as error:  # the parser of protobuf has errors of its own
        raise ValueError(expected("path", str(path), f"an ONNX file ({error})")) from error


class _Refusal(ValueError):
    """What says already what was expected."""


def _as_module(model, input_shape, keep_sigmoid):
    graph = model.graph
    opset = next((o.version for o in model.opset_import if o.domain in ("", "ai.onnx")), None)
    if opset is None or not graph.output:
        raise ValueError("it has no graph")
    constants = {tensor.name: _tensor(tensor) for tensor in graph.initializer}
    sources = [value for value in graph.input if value.name not in constants]
    for what, values in (("inputs", sources), ("outputs", graph.output)):
        if len(values) != 1:
            raise UnsupportedModelError(
                f"The ONNX graph has the {what} {[v.name for v in values]}, but expected one."
            )
    source = sources[0].name
    declared = _declared_shape(sources[0])
    nodes, end = list(graph.node), graph.output[0].name
    nodes, result, dropped = _without_probabilities(nodes, end, opset)
    if keep_sigmoid and dropped == "Sigmoid":
        result, dropped = end, None
    with SizeLimit(model.ByteSize()):
        operators = _operators(nodes, result, constants, source)
    shape = _input_shape(declared, input_shape)
    if min(shape) < 1 or math.prod(shape) > MOST_FEATURES:
        expectation = f"a sample of 1 to {MOST_FEATURES} numbers"
        raise UnsupportedModelError(f"Got the input shape {shape}, but expected {expectation}.")
    module = OnnxModule(operators, source, result, shape, dropped).eval()
    return _checked(module, model.ByteSize())


def _read(onnx, path):
    """Return the model of a file, with all its tensors, none larger than it claims to be."""
    if str(path).endswith(".gz"):
        model = onnx.load_model_from_string(read_limited(path, MOST_UNPACKED))
    else:
        model = onnx.load(path, load_external_data=False)
    load_external(onnx, model, path)
    check_tensors(onnx, model)
    return model


def _tensor(tensor):
    from onnx import numpy_helper

    return torch.as_tensor(np.array(numpy_helper.to_array(tensor)))


def _settings(node):
    """Return the attributes of a node as plain values and arrays."""
    from onnx import helper, numpy_helper

    settings = {}
    for attribute in node.attribute:
        value = helper.get_attribute_value(attribute)
        if isinstance(value, bytes):
            value = value.decode()
        elif hasattr(value, "raw_data"):
            value = numpy_helper.to_array(value)
            if node.op_type == "ConstantOfShape":
                value = value.item()
        elif not isinstance(value, int | float | str):
            value = tuple(value) if hasattr(value, "__iter__") else value
        settings[attribute.name] = value
    return settings


def _declared_shape(value):
    """Return the shape that the file gives to a sample; None for axes that it leaves open."""
    axes = value.type.tensor_type.shape.dim
    shape = tuple(axis.dim_value if axis.HasField("dim_value") else None for axis in axes)
    # A single axis is that of the features: such a file has no batches.
    return shape if len(shape) == 1 else shape[1:]


def _checked_shape(given):
    """Return the given shape of a sample as a tuple of integers, or raise."""
    try:
        lengths = np.atleast_1d(given).tolist()
    except (TypeError, ValueError):
        lengths = [None]
    if not all(type(length) is int and length > 0 for length in lengths) or not lengths:
        raise _Refusal(expected("input_shape", given, "None, or a tuple of integers from 1 on"))
    return tuple(lengths)


def _input_shape(declared, given):
    if given is not None:
        given = _checked_shape(given)
        fits = [length in (None, other) for length, other in zip(declared, given, strict=False)]
        # Plain rows are shaped; a file that says nothing of its input takes any shape.
        if declared and (len(given) != len(declared) or not all(fits)):
            raise _Refusal(expected("input_shape", given, f"{declared}, as in the ONNX file"))
        return given
    if not declared or None in declared:
        raise _Refusal(
            f"Got input_shape=None, but the ONNX file leaves the shape of a sample open "
            f"({declared}). Give input_shape."
        )
    return declared


def _without_probabilities(nodes, result, opset):
    """Take off what turns logits into probabilities; return nodes, result and its kind."""
    producers = {output: node for node in nodes for output in node.output}
    last = producers.get(result)
    for _ in nodes:  # a file may have a circle of them
        if last is None or last.op_type not in ("Identity", "Dropout"):
            break
        last = producers.get(last.input[0])
    if last is not None and last.op_type in ("Softmax", "LogSoftmax"):
        axis = _settings(last).get("axis", -1 if opset >= 13 else 1)
        if axis in (-1, 1):
            return nodes, last.input[0], last.op_type
    if last is not None and last.op_type == "Sigmoid":
        return nodes, last.input[0], "Sigmoid"
    return nodes, result, None


def _operators(nodes, result, constants, source):
    """Return the operators that `result` depends on, by name; fold what is constant."""
    needed = _needed(nodes, result)
    with_rows, operators = {source}, {}
    for i, node in enumerate(nodes):
        if i not in needed:
            continue
        name = node.name or f"{node.op_type}_{i}"
        if node.domain not in ("", "ai.onnx") or node.op_type not in _OPERATIONS:
            known = ", ".join(sorted(_OPERATIONS))
            domain = f"{node.domain}." if node.domain else ""
            raise UnsupportedModelError(
                f"Operation {domain}{node.op_type} of node {name!r} is not read. "
                f"Known are {known}."
            )
        known = {k: constants[v] for k, v in enumerate(node.input) if v in constants}
        has_rows = node.op_type != "Shape" and any(v in with_rows for v in node.input)
        inputs = ["" if k in known else v for k, v in enumerate(node.input)]
        operator = Operator(
            node.op_type, name, inputs, node.output, known, _settings(node), has_rows
        )
        if has_rows:
            with_rows.update(node.output)
        if any(inputs):
            operators[_free(name, operators)] = operator
        else:
            with torch.no_grad():
                values = _outputs(operator, [None] * len(inputs))
            constants.update(zip(node.output, values, strict=False))
    if result not in with_rows:
        raise UnsupportedModelError(f"The output {result!r} does not depend on the input.")
    return operators


def _free(name, taken):
    """Return a name that torch takes for a module and that is not yet in `taken`."""
    name = name.replace(".", "_").strip("/") or "node"
    numbered = (f"{name}_{i}" for i in itertools.count(1))
    return next(n for n in itertools.chain([name], numbered) if n not in taken)


def _needed(nodes, result):
    """Return the positions of the nodes that `result` depends on."""
    wanted, needed = {result}, set()
    for i in range(len(nodes) - 1, -1, -1):
        if wanted.intersection(nodes[i].output):
            needed.add(i)
            wanted.update(nodes[i].input)
    return needed


def _outputs(operator, values):
    try:
        return operator(*values)
    except (RuntimeError, IndexError) as error:
        raise operator.refusal(f"cannot be computed: {error}") from error


def _checked(module, n_bytes):
    """Run the module once; refuse it where samples are not kept apart."""
    generator = torch.Generator().manual_seed(0)
    first = next(module.parameters(), torch.empty(0))
    dtype = first.dtype if first.is_floating_point() else torch.float32
    x = torch.rand((3, *module.input_shape), generator=generator, dtype=dtype)
    with torch.no_grad():
        try:
            with SizeLimit(n_bytes):
                together = module(x)
            with SizeLimit(n_bytes):
                alone = torch.cat([module(part) for part in x.split(1)])
        except UnsupportedModelError:
            raise
        except (RuntimeError, IndexError, TypeError) as error:
            raise UnsupportedModelError(
                f"The ONNX graph cannot be run on samples of shape {module.input_shape}: {error}"
            ) from error
    scale = 1 + together.abs().max().item()
    if together.shape != alone.shape or not torch.allclose(together, alone, atol=1e-4 * scale):
        raise UnsupportedModelError("The ONNX graph mixes the samples of a batch.")
    if module.dropped == "Sigmoid" and together.shape[1] != 2:
        raise UnsupportedModelError(
            f"The ONNX graph ends in a Sigmoid of {together.shape[1] // 2} outputs: several "
            "labels a sample, but expected one class."
        )
    module.n_outputs = together.shape[1]
    return module
