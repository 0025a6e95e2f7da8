"""Keys of the memory: digests of objects that change with the code behind them.

A result follows from data, and from the code that ran. Two things stand for code in a key. That
of installed packages is known by their versions. That of users is known by itself: of each
function that an object reaches, the compiled code, defaults, closure, and the globals that it
names; of each class, its members. Compiled code rather than text, since that is what runs: a file
may have been edited after it was imported, and a comment changes no result.
"""

import copyreg
import dis
import functools
import hashlib
import importlib
import importlib.metadata
import inspect
import pickle
import sys
import types

import numpy as np
import torch

from skrobust._version import __version__

__all__ = ["NoSourceError", "code_of", "digest", "versions"]

_PLAIN = (type(None), bool, int, float, complex, str, bytes, type(...), type(NotImplemented))
# Whose fixes change results: an upgrade of any of them computes everything anew.
_PACKAGES = (
    *("torch", "numpy", "scipy", "scikit-learn", "skorch"),
    *("highspy", "cvxpy", "maraboupy"),
)
# Of a class, what says nothing of what it does, or is derived from the rest.
_NO_MEMBERS = {
    *("__dict__", "__weakref__", "__module__", "__doc__", "__annotations__"),
    "__abstractmethods__",
    *("__firstlineno__", "__static_attributes__", "__dataclass_fields__", "__match_args__"),
    *("__parameters__", "__orig_bases__", "__annotate__", "__annotate_func__", "_abc_impl"),
    *("__annotations_cache__", "__qualname__", "__slots__"),
}
_SLOTS = (types.MemberDescriptorType, types.GetSetDescriptorType)


class NoSourceError(Exception):
    """What an object does cannot be told from its source; the message names it."""


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
        raise NoSourceError(f"{_name(value)}, which is nested too deeply,") from None


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
        Digests of all users' functions and classes that were met, and of the versions of the
        packages of all others.
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

    def cells(self, function):
        """Return the digests of what a closure holds."""
        cells = function.__closure__ or ()
        return self.all([cell.cell_contents if _is_full(cell) else None for cell in cells])


def _is_full(cell):
    try:
        cell.cell_contents  # noqa: B018
    except ValueError:
        return False
    return True


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
        raise NoSourceError(_name(value)) from error
    if not isinstance(state, str):
        return "object", *reader.all(state)
    if hasattr(value, "__wrapped__"):
        return "wrapper", *reader.all((type(value), value.__wrapped__))
    if not _is_installed(pickle.whichmodule(value, state), reader):
        raise NoSourceError(_name(value))
    return "global", pickle.whichmodule(value, state), state


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
    if not _is_installed(value.__name__, reader):
        raise NoSourceError(_name(value))
    return "package", value.__name__


@_parts.register(types.MethodType)
def _(value, reader):
    return "method", *reader.all((value.__func__, value.__self__))


@_parts.register(types.BuiltinFunctionType)
def _(value, reader):
    owner, module = value.__self__, value.__module__ or ""
    if owner is not None and not isinstance(owner, types.ModuleType):
        return "builtin", value.__qualname__, reader.digest(owner)
    if not _is_installed(module, reader):
        raise NoSourceError(_name(value))
    return "builtin", module, value.__qualname__


@_parts.register(types.FunctionType)
def _(value, reader):
    if _is_installed(value.__module__, reader):
        # Functions made by others hold what they were made from.
        cells = reader.cells(value) if "<locals>" in value.__qualname__ else ()
        return "installed", value.__module__, value.__qualname__, *cells
    # The source of what is generated for a class, such as a dataclass, is that of the class.
    if not (_has_source(value) or reader.class_depth):
        raise NoSourceError(_name(value))
    return _function_parts(value, reader)


def _function_parts(value, reader):
    named = _named(value.__code__, value.__globals__, reader)
    rest = (value.__defaults__, value.__kwdefaults__, vars(value), *named)
    parts = "function", reader.digest(value.__code__), *reader.of_code(rest)
    skips, reader.skips = reader.skips, False
    parts += tuple(reader.cells(value))
    reader.skips = skips
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
    if _is_installed(value.__module__, reader):
        return "installed", value.__module__, value.__qualname__
    if not _class_has_source(value):
        raise NoSourceError(_name(value))
    reader.class_depth += 1
    try:
        rest = (type(value), *value.__bases__, *_members(value))
        parts = "class", value.__qualname__, *reader.of_code(rest)
    finally:
        reader.class_depth -= 1
    reader.code.add(_joined(*parts))
    return parts


def _members(value):
    """Return names and members of a class; functions in place of what holds them, in turn."""
    parts = []
    for name, member in vars(value).items():
        if name not in _NO_MEMBERS and not isinstance(member, _SLOTS):
            parts += [name, type(member), *_inner(member)]
    return parts


def _inner(member):
    if isinstance(member, staticmethod | classmethod):
        return [member.__func__]
    if isinstance(member, property):
        return [member.fget, member.fset, member.fdel]
    if isinstance(member, functools.cached_property):
        return [member.func]
    return [member]


# ---- code: where it is from, and what it names ------------------------------------------------


def _is_installed(module, reader):
    """Return whether the version of a package stands for the code of a module in it."""
    top = (module or "").partition(".")[0]
    if top in sys.stdlib_module_names or top == "skrobust":
        return True
    version = _installed_version(top)
    if version:
        reader.code.add(_joined("version", top, version))
    return bool(version)


@functools.cache
def _installed_version(top):
    """Return the version of an installed package; "" if it is none, or edited in place."""
    module = sys.modules.get(top)
    paths = [getattr(module, "__file__", None) or "", *getattr(module, "__path__", ())]
    if not any("site-packages" in path or "dist-packages" in path for path in paths):
        return ""
    try:
        return importlib.metadata.version(top)
    except importlib.metadata.PackageNotFoundError:
        return str(getattr(module, "__version__", ""))


def _has_source(value):
    try:
        inspect.getsource(value)
    except (OSError, TypeError):
        return False
    return True


def _class_has_source(value):
    # In a worker process, the file of a script is known to its functions alone.
    inner = (part for part in vars(value).values() if isinstance(part, types.FunctionType))
    return _has_source(value) or any(_has_source(part) for part in inner)


def _named(code, names, reader):
    """Return what code refers to by name: globals, and what it takes from users' modules."""
    used = list(dict.fromkeys(_names(code)))
    values = []
    for name in used:
        if name in names:
            values += [name, *_of_modules(names[name], used, reader, set())]
    for name in _imports(code):
        try:
            module = importlib.import_module(name)
        except Exception as error:
            raise NoSourceError(f"the import of {name!r} in {code.co_qualname}") from error
        values += [name, *_of_modules(module, used, reader, set())]
    return values


def _of_modules(value, used, reader, seen):
    """Return the value; in place of a users' module, what is named of it."""
    if not isinstance(value, types.ModuleType) or _is_installed(value.__name__, reader):
        return [value]
    parts = [value.__name__]
    for name in used:
        if name in vars(value) and value.__name__ not in seen:
            inner = _of_modules(vars(value)[name], used, reader, seen | {value.__name__})
            parts += [name, *inner]
    return parts


def _names(code):
    yield from code.co_names
    for part in code.co_consts:
        if isinstance(part, types.CodeType):
            yield from _names(part)


def _imports(code):
    """Yield the names of the modules that code imports when it runs."""
    for step in dis.get_instructions(code):
        if step.opname == "IMPORT_NAME":
            yield step.argval
    for part in code.co_consts:
        if isinstance(part, types.CodeType):
            yield from _imports(part)


def _name(value):
    """Return a readable name of an object."""
    named = value if hasattr(value, "__qualname__") else type(value)
    name = f"{getattr(named, '__module__', None) or 'builtins'}.{named.__qualname__}"
    if isinstance(value, types.ModuleType):
        return value.__name__
    return name if named is value else f"an object of class {name}"
