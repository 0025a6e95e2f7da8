"""Keys of the memory: digests of objects that change with the code behind them.

A result follows from data, and from the code that ran. Two things stand for code in a key. That
of installed packages is known by their versions. That of users is known by itself: of each
function that an object reaches, the compiled code, defaults, closure, and the globals that it
names; of each class, its members. Compiled code rather than text, since that is what runs: a file
may have been edited after it was imported, and a comment changes no result.
"""

import copyreg
import functools
import hashlib
import importlib.metadata
import pickle
import sys
import types

import numpy as np
import torch

from skrobust._code import (
    NoSourceError,
    closure,
    has_source,
    members,
    name_of,
    named,
    version_of,
)
from skrobust._version import __version__

__all__ = ["code_of", "digest", "versions"]

_PLAIN = (type(None), bool, int, float, complex, str, bytes, type(...), type(NotImplemented))
# Whose fixes change results: an upgrade of any of them computes everything anew.
_PACKAGES = (
    *("torch", "numpy", "scipy", "scikit-learn", "skorch"),
    *("highspy", "cvxpy", "maraboupy"),
)


def versions():
    """Return the versions of skrobust and of what it computes with, as a dict of str."""
    return {"skrobust": __version__, **_versions_of_others()}


@functools.cache
def _versions_of_others():
    others = {"python": "{}.{}".format(*sys.version_info)}
    for name in _PACKAGES:
        try:
            others[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            others[name] = ""
    return others


def digest(value):
    """Return what tells a value from others, in this process and in others.

    Parameters
    ----------
    value : object
        Its data are told apart, and the code of functions and classes that it is made of.

    Returns
    -------
    str

    Raises
    ------
    NoSourceError
        If code of users has no source, or a part cannot be taken apart.
    """
    return _whole(_Reader(), value)


def code_of(value):
    """Return digests of the users' code that a value reaches, and of nothing else, sorted.

    Raises
    ------
    NoSourceError
        If code of users has no source.
    """
    reader = _Reader(skips=True)
    _whole(reader, value)
    return sorted(reader.code)


def _whole(reader, value):
    try:
        return reader.digest(value)
    except RecursionError:
        raise NoSourceError(f"{name_of(value)}, which is nested too deeply,") from None


def _joined(*parts):
    """Return the digest of str, which are told apart from one another."""
    state = hashlib.blake2b(digest_size=16)
    for part in parts:
        data = part.encode("utf-8", "surrogatepass")
        state.update(b"%d:" % len(data))
        state.update(data)
    return state.hexdigest()


class _Reader:
    """Takes objects apart, as pickle does.

    Parameters
    ----------
    skips : bool, default=False
        Whether to pass over what cannot be taken apart and is not a part of code. Attributes
        are read as they are then, not as `__getstate__` shows them.

    Attributes
    ----------
    code : set of str
        Digests of all users' functions and classes that were met, and the versions of the
        packages of all others.
    class_depth : int
        Of how many classes what is taken apart is a part.
    """

    def __init__(self, skips=False):
        self.skips, self.code, self.class_depth = skips, set(), 0
        self._done, self._above = {}, []

    def digest(self, value):
        if type(value) in _PLAIN:
            return _joined("plain", type(value).__name__, repr(value))
        key = id(value), self.skips
        if key in self._done:
            return self._done[key][1]
        if id(value) in self._above:
            return _joined("above", str(len(self._above) - self._above.index(id(value))))
        self._above.append(id(value))
        try:
            result = _joined(*_parts(value, self))
        finally:
            self._above.pop()
        self._done[key] = value, result  # kept, so that no other object gets its id
        return result

    def all(self, values):
        """Return the digest of each value, as a list."""
        return [self.digest(value) for value in values]

    def of_code(self, values):
        """As `all`, of what code refers to: nothing of that may be passed over."""
        skips, self.skips = self.skips, False
        try:
            return self.all(values)
        finally:
            self.skips = skips


# ---- how each kind of object is taken apart ----------------------------------------------------


@functools.singledispatch
def _parts(value, reader):
    """Return str that make up the digest of a value."""
    try:
        if reader.skips and hasattr(value, "__dict__"):
            state = type(value), vars(value)
        else:
            state = _reduced(value)
    except Exception as error:  # __reduce_ex__ is the user's, and may do anything
        if reader.skips:
            return ("passed over",)
        raise NoSourceError(name_of(value)) from error
    if not isinstance(state, str):
        return "object", *reader.all(state)
    if hasattr(value, "__wrapped__"):
        return "wrapper", *reader.all((type(value), value.__wrapped__))
    return "global", state, _installed(value, pickle.whichmodule(value, state), reader)


def _reduced(value):
    """Return what pickle makes of an object: the name of a global, or a tuple."""
    reduce = copyreg.dispatch_table.get(type(value))
    state = value.__reduce_ex__(4) if reduce is None else reduce(value)
    if isinstance(state, str):
        return state
    # The last entries are iterators of items, where there are any.
    return [part if i < 3 or part is None else list(part) for i, part in enumerate(state)]


@_parts.register(list)
@_parts.register(tuple)
def _(value, reader):
    return "sequence", reader.digest(type(value)), *reader.all(value)


@_parts.register(functools.partial)
def _(value, reader):
    return "partial", *reader.all((value.func, value.args, value.keywords))


@_parts.register(set)
@_parts.register(frozenset)
def _(value, reader):
    return "set", reader.digest(type(value)), *sorted(reader.all(value))


@_parts.register(dict)
@_parts.register(types.MappingProxyType)
def _(value, reader):
    entries = [reader.digest(part) for entry in value.items() for part in entry]
    return "dict", reader.digest(type(value)), *entries


@_parts.register(np.ndarray)
@_parts.register(np.generic)
def _(value, reader):
    array = np.asarray(value)
    if array.dtype.hasobject:
        return "objects", str(array.shape), *reader.all(array.ravel().tolist())
    data = hashlib.blake2b(np.ascontiguousarray(array).tobytes(), digest_size=16)
    return "array", array.dtype.str, str(array.dtype.descr), str(array.shape), data.hexdigest()


@_parts.register(torch.Tensor)
def _(value, reader):
    dense = value.detach().to_dense() if value.layout != torch.strided else value.detach()
    is_known = dense.dtype not in (torch.bfloat16,)
    array = (dense if is_known else dense.float()).cpu().numpy()
    return "tensor", str(value.dtype), reader.digest(array)


@_parts.register(torch.nn.Module)
def _(value, reader):
    return "module", reader.digest(type(value)), reader.digest(vars(value))


@_parts.register(torch.jit.ScriptModule)
def _(value, reader):
    return "script", str(value.inlined_graph), reader.digest(dict(value.state_dict()))


@_parts.register(types.ModuleType)
def _(value, reader):
    return "package", _installed(value, value.__name__, reader)


@_parts.register(types.MethodType)
def _(value, reader):
    return "method", *reader.all((value.__func__, value.__self__))


@_parts.register(types.BuiltinFunctionType)
def _(value, reader):
    owner = value.__self__
    if owner is not None and not isinstance(owner, types.ModuleType):
        return "builtin", value.__qualname__, reader.digest(owner)
    return "builtin", value.__qualname__, _installed(value, value.__module__, reader)


@_parts.register(types.FunctionType)
def _(value, reader):
    if version_of(value.__module__):
        # Functions made by others hold what they were made from.
        held = closure(value) if "<locals>" in value.__qualname__ else ()
        package = _installed(value, value.__module__, reader)
        return "installed", value.__qualname__, package, *reader.all(held)
    # The source of what is generated for a class, such as a dataclass, is that of the class.
    if not (has_source(value) or reader.class_depth):
        raise NoSourceError(name_of(value))
    rest = (value.__defaults__, value.__kwdefaults__, vars(value), closure(value), named(value))
    parts = "function", *reader.of_code((value.__code__, *rest))
    reader.code.add(_joined(*parts))
    return parts


@_parts.register(types.CodeType)
def _(value, reader):
    names = ("co_names", "co_varnames", "co_freevars", "co_cellvars", "co_consts")
    counts = ("co_argcount", "co_posonlyargcount", "co_kwonlyargcount", "co_flags")
    fields = (value.co_code, value.co_exceptiontable, *(getattr(value, name) for name in counts))
    return "code", *reader.all((*fields, *(getattr(value, name) for name in names)))


@_parts.register(type)
def _(value, reader):
    if version_of(value.__module__):
        return "installed", value.__qualname__, _installed(value, value.__module__, reader)
    if not has_source(value):
        raise NoSourceError(name_of(value))
    reader.class_depth += 1
    try:
        rest = (type(value), *value.__bases__, *members(value))
        parts = "class", value.__qualname__, *reader.of_code(rest)
    finally:
        reader.class_depth -= 1
    reader.code.add(_joined(*parts))
    return parts


def _installed(value, module, reader):
    """Return the module, and the version that stands for its code."""
    version = version_of(module)
    if not version:
        raise NoSourceError(name_of(value))
    reader.code.add(f"{(module or '').partition('.')[0]} {version}")
    return f"{module} {version}"
