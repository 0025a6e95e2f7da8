"""The layers: a module imports only what stands above it, and files of a package only `_base`."""

import ast
from pathlib import Path

import pytest

import skrobust

ROOT = Path(skrobust.__file__).parent

# Top to bottom, as in the developers' guide: an import upwards is fine, one downwards a fault.
ORDER = [
    "exceptions",
    "_validation",
    "_evaluation",
    "statistics",
    "_parameters",
    "_ball",
    "logics",
    "properties",
    "networks",
    "attacks",
    "verification",
    "pointwise",
    "training",
    "estimators",
    "bayesian",
    "scorers",
    "displays",
    "datasets",
]
# Files that `_base` itself builds on, or that only hold what siblings speak about (the nodes of a
# graph), open to the whole package.
FOUNDATIONS = {
    "attacks._boundary",
    "networks._graph",
    "verification._query",
    "verification._relaxation",
}
# Files that put siblings together: in verification, the complete methods, which combine bounds
# with branch and bound and mixed-integer programs, or with Marabou, which is told the affine parts
# that these programs are, and the cascade; in pointwise, the regions' linear programs, which hand
# their dense rows to a solver, and the methods that combine these programs, attacks and bounds; in
# scorers, the framework's score on an autoencoder's neighbourhoods.
COMPOSITES = {
    "attacks._ensemble",
    "verification._cascade",
    "verification._exact",
    "verification._marabou",
    "pointwise._linear_program",
    "pointwise._radius",
    "scorers._manifold",
}


def module_name(file):
    """Name below skrobust, such as "attacks._pgd"; "" for the package itself."""
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


FILES = {module_name(file): file for file in sorted(ROOT.rglob("*.py"))}


def imported(source, name, is_package, modules):
    """Return the modules of skrobust that `source` imports, also inside functions."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            package = ["skrobust", *name.split(".")] if name else ["skrobust"]
            above = node.level - is_package
            start = package[: len(package) - above] if node.level else []
            source_module = ".".join([*start, *([node.module] if node.module else [])])
            found.add(source_module)
            # `from skrobust.attacks import _pgd` imports a module, not a name in one.
            found |= {f"{source_module}.{alias.name}" for alias in node.names}
    inner = {f.removeprefix("skrobust.") for f in found if f.startswith("skrobust.")}
    inner |= {""} if "skrobust" in found else set()
    return {module for module in inner if module in modules}


def faults(name, source, is_package, modules):
    """Return what is wrong with the imports of one module, as readable lines."""
    top, _, inner = name.partition(".")
    lines = []
    for other in sorted(imported(source, name, is_package, modules) - {name}):
        other_top, _, other_inner = other.partition(".")
        if other_top != top:
            if not other:
                # The package itself stands below everything.
                lines += [f"{name} imports skrobust, which imports everything"] if name else []
            elif name and ORDER.index(other_top) > ORDER.index(top):
                lines.append(f"{name} imports {other}, which stands below it")
        elif inner and not other_inner:
            lines.append(f"{name} imports its own package")
        elif inner and other_inner != "_base" and name not in COMPOSITES:
            if other in FOUNDATIONS:
                continue
            lines.append(f"{name} imports its sibling {other}")
    return lines


def test_every_module_has_a_place():
    places = {name.partition(".")[0] for name in FILES} - {""}
    assert places <= set(ORDER), f"Give {places - set(ORDER)} a place in ORDER."
    assert {"properties", "networks", "attacks", "training", "estimators", "scorers"} <= places


@pytest.mark.parametrize("name", FILES, ids=lambda name: name or "skrobust")
def test_imports_point_upwards(name):
    file = FILES[name]
    assert faults(name, file.read_text(encoding="utf-8"), file.stem == "__init__", FILES) == []


@pytest.mark.parametrize(
    ("name", "source", "fault"),
    [
        ("properties", "from skrobust.attacks import PGD", "properties imports attacks"),
        ("properties", "import skrobust.scorers._base", "properties imports scorers._base"),
        ("attacks._pgd", "from skrobust.attacks._fgsm import FGSM", "its sibling attacks._fgsm"),
        ("attacks._pgd", "from ._fgsm import FGSM", "its sibling attacks._fgsm"),
        ("attacks._pgd", "from . import _fgsm", "its sibling attacks._fgsm"),
        ("attacks._pgd", "from skrobust.attacks import FGSM", "attacks._pgd imports its own"),
        ("networks._torch", "def f():\n    from skrobust import estimators", "imports estimators"),
        ("attacks._base", "from ..training import ConstraintTraining", "imports training"),
        ("_ball", "from skrobust import RobustClassifier", "which imports everything"),
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
    ],
)
def test_the_walk_lets_good_imports_pass(name, source):
    assert faults(name, source, False, FILES) == []
