"""What an ONNX file may claim: tensors of the bytes that are there, and outputs of a size.

A file may come from anyone. It is data: nothing in it is run but the operations that are known,
weights beside it are read from its own folder only, and no tensor is made before it is known that
it stays small.
"""

import math
from pathlib import Path

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from skrobust.exceptions import UnsupportedModelError

__all__ = ["MOST_FEATURES", "MOST_UNPACKED", "SizeLimit", "check_tensors", "load_external"]

MOST_FEATURES = 2**22
MOST_UNPACKED = 3 * 2**27  # bytes of a file that is packed; in passing, twice that
_LEAST_BYTES = 3 * 2**27  # that the operations of one run may make, however small the file
_TIMES = 16  # the size of the file, where that is more


def check_tensors(onnx, model):
    """Raise a ValueError where a tensor claims more numbers than the file holds for it.

    Parameters
    ----------
    onnx : module
    model : onnx.ModelProto
    """
    for tensor in _tensors(onnx, model.graph):
        dims = list(tensor.dims)
        if any(length < 0 for length in dims):
            raise ValueError(f"the tensor {tensor.name!r} has the shape {dims}")
        count = math.prod(dims)
        held = _held(onnx, tensor)
        if held is not None and count > held:
            raise ValueError(
                f"the tensor {tensor.name!r} has the shape {dims}, but numbers for {held} only"
            )


def _tensors(onnx, graph):
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        raise UnsupportedModelError(f"the sparse tensor {sparse.values.name!r} is not read")
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.TENSOR or attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors


def _held(onnx, tensor):
    """Return how many numbers the file has for a tensor at most; None where it lies beside it."""
    if tensor.data_location == onnx.TensorProto.EXTERNAL:
        return None
    fields = ("float_data", "int32_data", "int64_data", "double_data", "uint64_data")
    listed = max(len(getattr(tensor, name)) for name in (*fields, "string_data"))
    # Two numbers of four bits share a byte, and two of a complex number a place.
    return 2 * max(listed, len(tensor.raw_data))


def load_external(onnx, model, path):
    """Read the weights that lie in files beside the model, in its own folder and nowhere else.

    Raises
    ------
    ValueError
        If a file is none of the folder, or is shorter than is claimed.
    """
    folder = Path(path).resolve().parent
    tensors = [
        tensor
        for tensor in _tensors(onnx, model.graph)
        if tensor.data_location == onnx.TensorProto.EXTERNAL
    ]
    for tensor in tensors:
        facts = {entry.key: entry.value for entry in tensor.external_data}
        location = facts.get("location", "")
        file = (folder / location).resolve()
        if not location or Path(location).is_absolute() or not file.is_relative_to(folder):
            raise ValueError(f"the weights {location!r} lie outside the folder of the file")
        if not file.is_file():
            raise ValueError(f"the file of weights {location!r} is missing")
        offset = _whole(facts.get("offset", "0"), location)
        width = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
        needed = math.prod(tensor.dims) * width
        length = _whole(facts.get("length", str(needed)), location)
        if min(tensor.dims, default=0) < 0 or length != needed:
            raise ValueError(f"the tensor {tensor.name!r} does not fit its file {location!r}")
        if offset + length > file.stat().st_size:
            raise ValueError(f"the file of weights {location!r} is shorter than is claimed")
        with file.open("rb") as source:
            source.seek(offset)
            tensor.raw_data = source.read(length)
        tensor.data_location = onnx.TensorProto.DEFAULT
        del tensor.external_data[:]


def _whole(text, location):
    if not text.isdecimal() or len(text) > 18:
        raise ValueError(f"the place {text!r} in {location!r} is none")
    return int(text)


class SizeLimit(TorchDispatchMode):
    """While it lasts, refuse operations that make more numbers than a file of its size should.

    The size of what an operation makes is found first, without making it.

    Parameters
    ----------
    n_bytes : int
        Size of the file.

    Raises
    ------
    RuntimeError
    """

    def __init__(self, n_bytes):
        super().__init__()
        self.left = max(_LEAST_BYTES, _TIMES * n_bytes)

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if not _is_view(function):
            self.left -= _size(function, args, kwargs)
            if self.left < 0:
                # No TypeError: the operators of a tensor take one for "not implemented".
                raise RuntimeError(
                    f"its operations make larger tensors than expected of a file of its size "
                    f"(by {function.name()})"
                )
        return function(*args, **kwargs)


def _is_view(function):
    returns = function._schema.returns
    return bool(returns) and all(value.alias_info is not None for value in returns)


def _size(function, args, kwargs):
    """Return how many bytes the results of an operation take; 0 where that is not known."""
    try:
        meta_args, meta_kwargs = torch.utils._pytree.tree_map(_as_meta, (args, kwargs))
        if any(argument.name == "device" for argument in function._schema.arguments):
            meta_kwargs["device"] = torch.device("meta")
        results = function(*meta_args, **meta_kwargs)
    except (NotImplementedError, RuntimeError, IndexError, TypeError, ValueError):
        return 0  # the operation itself will say what is wrong
    leaves = torch.utils._pytree.tree_leaves(results)
    return sum(leaf.nbytes for leaf in leaves if isinstance(leaf, torch.Tensor))


def _as_meta(value):
    return value.to("meta") if isinstance(value, torch.Tensor) else value
