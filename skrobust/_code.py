"""What code of users is made of: what a function or class refers to, and where it is from."""

import dis
import functools
import importlib
import importlib.metadata
import inspect
import itertools
import sys
import sysconfig
import types

from skrobust._version import __version__

__all__ = ["NoSourceError", "closure", "has_source", "members", "name_of", "named", "version_of"]

# Of a class, what says nothing of what it does, or is derived from the rest.
_NO_MEMBERS = {
    *("__dict__", "__weakref__", "__module__", "__doc__", "__annotations__"),
    "__abstractmethods__",
    *("__firstlineno__", "__static_attributes__", "__dataclass_fields__", "__match_args__"),
    *("__parameters__", "__orig_bases__", "__annotate__", "__annotate_func__", "_abc_impl"),
    *("__annotations_cache__", "__slotnames__", "__qualname__", "__slots__"),
}
_SLOTS = (types.MemberDescriptorType, types.GetSetDescriptorType)
# Calls by which a list, set or dict is changed, and that return nothing.
_WRITES = {"append", "extend", "insert", "add", "update"}
_LOADS = {"LOAD_GLOBAL", "LOAD_NAME", "LOAD_DEREF", "LOAD_CLASSDEREF"}


class NoSourceError(Exception):
    """What an object does cannot be told from its source; the message names it."""


# ---- where code is from ------------------------------------------------------------------------


def version_of(module):
    """Return the version that stands for the code of a module, by name; "" for users' modules.

    Users may edit theirs, also where they are installed to be edited in place.
    """
    top = (module or "").partition(".")[0]
    return __version__ if top == "skrobust" else _installed_version(top)


@functools.cache
def _installed_version(top):
    module = sys.modules.get(top)
    paths = [getattr(module, "__file__", None) or "", *getattr(module, "__path__", ())]
    if top in sys.stdlib_module_names:
        # A file of the user may have the name of one that Python has.
        own = paths[0] == "" or paths[0].startswith(sysconfig.get_path("stdlib"))
        return "python" if own or "lib-dynload" in paths[0] else ""
    if not any("site-packages" in path or "dist-packages" in path for path in paths):
        return ""
    try:
        return importlib.metadata.version(top)
    except importlib.metadata.PackageNotFoundError:
        return str(getattr(module, "__version__", ""))


def has_source(value):
    """Return whether the source of a function or class can be had."""
    # In a worker process, the file of a script is known to its functions alone.
    inner = vars(value).values() if isinstance(value, type) else ()
    functions = (part for part in inner if isinstance(part, types.FunctionType))
    return any(_has_own_source(part) for part in (value, *functions))


def _has_own_source(value):
    try:
        source = inspect.getsource(value)
    except (OSError, TypeError):
        return False
    # From Python 3.13 on, a class is looked for at a line of its module's file, of whatever else
    # that line may be: classes of `exec` stand in no file.
    return not isinstance(value, type) or f"class {value.__name__}" in source


def name_of(value):
    """Return a readable name of an object."""
    if isinstance(value, types.ModuleType):
        return value.__name__
    is_named = hasattr(value, "__qualname__")
    named = value if is_named else type(value)
    name = f"{getattr(named, '__module__', None) or 'builtins'}.{named.__qualname__}"
    return name if is_named else f"an object of class {name}"


# ---- what code refers to -----------------------------------------------------------------------


def members(value):
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


def closure(function):
    """Return what the closure of a function holds, but for what is only written to."""
    cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
    return [
        value
        for name, cell in cells
        for value in _contents(cell)
        if not _is_record(value, name, function.__code__)
    ]


def _contents(cell):
    try:
        return [cell.cell_contents]
    except ValueError:  # not assigned yet
        return []


def named(function):
    """Return what a function refers to by name: globals, and what it takes of users' modules.

    Returns
    -------
    list
        Names and values in turn.
    """
    code, scope = function.__code__, function.__globals__
    used = list(dict.fromkeys(name for part in _nested(code) for name in part.co_names))
    values = []
    for name in used:
        if name in scope and not _is_record(scope[name], name, code):
            values += [name, *_of_module(scope[name], used, set())]
    for name in _imports(code):
        try:
            module = importlib.import_module(name)
        except Exception as error:
            raise NoSourceError(f"the import of {name!r} in {function.__qualname__}") from error
        values += [name, *_of_module(module, used, set())]
    return values


def _is_record(value, name, code):
    """Return whether code only writes to a list, set or dict: no result follows from that."""
    if type(value) not in (list, set, dict):
        return False
    for part in _nested(code):
        steps = list(dis.get_instructions(part))
        for step, following in itertools.pairwise(steps):
            is_load = step.opname in _LOADS and step.argval == name
            if is_load and not (
                following.opname in ("LOAD_METHOD", "LOAD_ATTR") and following.argval in _WRITES
            ):
                return False
    return True


def _of_module(value, used, seen):
    """Return the value; in place of a users' module, what is named of it."""
    if not isinstance(value, types.ModuleType) or version_of(value.__name__):
        return [value]
    parts = [value.__name__]
    for name in used:
        if name in vars(value) and value.__name__ not in seen:
            parts += [name, *_of_module(vars(value)[name], used, seen | {value.__name__})]
    return parts


def _nested(code):
    """Yield code, and that of the functions and classes inside."""
    yield code
    for part in code.co_consts:
        if isinstance(part, types.CodeType):
            yield from _nested(part)


def _imports(code):
    """Return the names of the modules that code imports when it runs."""
    return [
        step.argval
        for part in _nested(code)
        for step in dis.get_instructions(part)
        if step.opname == "IMPORT_NAME"
    ]
