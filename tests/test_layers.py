"""The layers: rooms import rooms above them through public names, and files make no circle."""

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import skrobust

ROOT = Path(skrobust.__file__).parent

# Top to bottom, as in the developers' guide: an import upwards is fine, one downwards a fault.
ORDER = [
    "_version",
    "exceptions",
    "_validation",
    "_files",
    "_parameters",
    "_code",
    "_keys",
    "_evaluation",
    "logics",
    "_cut_balls",
    "balls",
    "statistics",
    "properties",
    "networks",
    "graphs",
    "bounds",
    "trees",
    "attacks",
    "evidence",
    "verification",
    "verify",
    "pointwise",
    "training",
    "estimators",
    "scorers",
    "model_selection",
    "displays",
    "report",
    "datasets",
]


def module_name(file):
    """Name below skrobust, such as "attacks._pgd"; "" for the package itself."""
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


FILES = {module_name(file): file for file in sorted(ROOT.rglob("*.py"))}


def statements(tree, at_import):
    """Walk a module; with `at_import` without what runs only when a function is called."""
    for node in ast.iter_child_nodes(tree):
        yield node
        if not (at_import and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)):
            yield from statements(node, at_import)


def imported(source, name, is_package, modules, *, at_import=False):
    """Return the pairs (module of skrobust, name or None) that `source` imports."""
    pairs = set()
    for node in statements(ast.parse(source), at_import):
        if isinstance(node, ast.Import):
            pairs |= {(alias.name, None) for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            package = ["skrobust", *name.split(".")] if name else ["skrobust"]
            start = package[: len(package) - node.level + is_package] if node.level else []
            origin = ".".join([*start, *([node.module] if node.module else [])])
            for alias in node.names:
                # `from skrobust.attacks import _pgd` imports a module, not a name in one.
                inner = f"{origin}.{alias.name}"
                is_module = inner.removeprefix("skrobust.") in modules
                pairs.add((inner, None) if is_module else (origin, alias.name))
    ours = {(module, what) for module, what in pairs if module.partition(".")[0] == "skrobust"}
    return {(module.partition(".")[2], what) for module, what in ours}


def is_private(name):
    """Return whether a name is its package's own; `__version__` is for everyone."""
    return name is not None and name.startswith("_") and not name.startswith("__")


def faults(name, source, is_package, modules):
    """Return what is wrong with the imports of one module, as readable lines."""
    room, _, inner = name.partition(".")
    lines = []
    for other, what in sorted(imported(source, name, is_package, modules), key=str):
        other_room, _, other_inner = other.partition(".")
        if other_room == room:
            if inner and not other_inner:
                lines.append(f"{name} imports its own package")
        elif not other:
            # The package itself stands below everything.
            lines += [f"{name} imports skrobust, which imports everything"] if name else []
        elif name and ORDER.index(other_room) > ORDER.index(room):
            lines.append(f"{name} imports {other}, which stands below it")
        elif other_inner or is_private(what):
            lines.append(f"{name} imports {other}.{what or ''}, which is private to its package")
    return lines


def test_every_module_has_a_place():
    places = {name.partition(".")[0] for name in FILES} - {""}
    assert places <= set(ORDER), f"Give {places - set(ORDER)} a place in ORDER."
    assert {"properties", "networks", "attacks", "training", "estimators", "scorers"} <= places


@pytest.mark.parametrize("name", FILES, ids=lambda name: name or "skrobust")
def test_rooms_import_rooms_above_them(name):
    file = FILES[name]
    assert faults(name, file.read_text(encoding="utf-8"), file.stem == "__init__", FILES) == []


def circle(sources, modules):
    """Return the names of modules that import each other in a circle, or None."""
    graph = {
        name: {
            other
            for other, _ in imported(source, name, is_package, modules, at_import=True)
            if other != name
        }
        for name, (source, is_package) in sources.items()
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return error.args[1]
    return None


def test_files_make_no_circle():
    sources = {
        name: (file.read_text(encoding="utf-8"), file.stem == "__init__")
        for name, file in FILES.items()
    }
    assert circle(sources, FILES) is None


@pytest.mark.parametrize("name", FILES, ids=lambda name: name or "skrobust")
def test_no_file_is_longer_than_500_lines(name):
    assert len(FILES[name].read_text(encoding="utf-8").splitlines()) <= 500


@pytest.mark.parametrize(
    ("name", "source", "fault"),
    [
        ("properties._base", "from skrobust.attacks import PGD", "imports attacks"),
        ("properties._rows", "import skrobust.scorers._base", "imports scorers._base"),
        ("attacks._pgd", "from skrobust.attacks import FGSM", "attacks._pgd imports its own"),
        ("networks._torch", "def f():\n    from skrobust import estimators", "imports estimators"),
        ("attacks._base", "from ..training import ConstraintTraining", "imports training"),
        ("balls", "from skrobust import RobustClassifier", "which imports everything"),
        ("scorers._base", "from skrobust.attacks._base import Attack", "private to its package"),
        ("scorers._base", "from skrobust.attacks import _pgd", "private to its package"),
        ("scorers._base", "from skrobust.attacks import _helper", "private to its package"),
    ],
)
def test_the_walk_sees_faults(name, source, fault):
    assert any(fault in line for line in faults(name, source, False, FILES))


@pytest.mark.parametrize(
    ("name", "source"),
    [
        ("scorers._constraint", "from skrobust.attacks import PGD\nimport numpy"),
        ("scorers._constraint", "from skrobust.scorers._base import PropertyScorer"),
        ("attacks._ensemble", "from skrobust.attacks._pgd import PGD"),
        ("attacks._base", "from ._boundary import closer"),
        ("_evaluation", "from skrobust._version import __version__"),
    ],
)
def test_the_walk_lets_good_imports_pass(name, source):
    assert faults(name, source, False, FILES) == []


def test_the_walk_sees_circles():
    modules = {"a._x": None, "a._y": None}
    inner = "from skrobust.a._y import f"
    outer = "from skrobust.a._x import g"
    assert set(circle({"a._x": (inner, False), "a._y": (outer, False)}, modules)) >= set(modules)
    late = f"def f():\n    {outer}"
    assert circle({"a._x": (inner, False), "a._y": (late, False)}, modules) is None
