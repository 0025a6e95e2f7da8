"""Public names are documented, and listed in the API page."""

import importlib
import inspect
import pkgutil
import re
from enum import Enum
from pathlib import Path

import pytest
from numpydoc.validate import validate

import skrobust

API_PAGE = Path(__file__).parents[1] / "docs" / "api.rst"

# The parts of the page, in their order: what users call, what that returns or raises, and what
# they build upon.
PARTS = ["What you call", "What you get back", "What you extend"]

# More names than this are no list to start from.
MOST_TO_CALL = 80

# What the house style asks for: a summary that ends in a full stop, every parameter documented
# with a type, sections in order. The rest (extended summaries, "See Also") is a matter of taste.
CHECKS = {
    "GL06",  # unknown section
    "GL07",  # sections in the wrong order
    "GL08",  # no docstring
    "SS01",  # no summary
    "SS03",  # summary without a full stop
    "SS06",  # summary of several lines
    "PR01",  # undocumented parameter
    "PR02",  # documented parameter that does not exist
    "PR03",  # parameters in the wrong order
    "PR04",  # parameter without a type
}

QUOTED = re.compile(r"'(\w+)'")  # fields that are private need no description


def public_modules():
    """Return the modules that users import from."""
    names = [name for _, name, _ in pkgutil.walk_packages(skrobust.__path__, "skrobust.")]
    return ["skrobust", *(name for name in names if "._" not in name)]


def public_objects():
    """Return for each public object the names that it goes by, such as in a room and at the top.

    A constant is told from others of the same value by its name.
    """
    paths = {}
    for module in map(importlib.import_module, public_modules()):
        for name in module.__all__:
            key = (name, id(getattr(module, name)))
            paths.setdefault(key, []).append(f"{module.__name__}.{name}")
    return list(paths.values())


def object_at(path):
    """Return the public object of a name."""
    module, _, attribute = path.rpartition(".")
    return getattr(importlib.import_module(module), attribute)


def parts_of(page):
    """Return the names that each part of the API page lists, by the title of the part."""
    _, *parts = re.split(r"^(.+)\n-+\n", page, flags=re.MULTILINE)
    return {
        title: re.findall(r"^    (skrobust\.\S+)$", part, re.MULTILINE)
        for title, part in zip(parts[::2], parts[1::2], strict=True)
    }


@pytest.mark.parametrize("path", sorted(paths[0] for paths in public_objects()))
def test_docstring_follows_numpydoc(path):
    public = object_at(path)
    is_enum = inspect.isclass(public) and issubclass(public, Enum)
    checks = CHECKS - {"PR01", "PR02", "PR03"} if is_enum else CHECKS
    errors = [
        f"{code} {text}"
        for code, text in validate(path)["errors"]
        if code in checks and not all(part.startswith("_") for part in QUOTED.findall(text) or "x")
    ]
    assert errors == []


def faults(listed, groups):
    """Return the lines to add to the API page and to take from it, as in a diff."""
    known = {path for paths in groups for path in paths}
    missing = [paths[0] for paths in groups if not set(paths) & set(listed)]
    again = [path for paths in groups for path in [p for p in listed if p in paths][1:]]
    superfluous = [path for path in listed if path not in known]
    return sorted(
        [f"+    {path}" for path in missing] + [f"-    {path}" for path in superfluous + again]
    )


def test_api_page_lists_every_public_object_once():
    listed = [path for paths in parts_of(API_PAGE.read_text()).values() for path in paths]
    lines = faults(listed, public_objects())
    assert not lines, "Change docs/api.rst:\n" + "\n".join(lines)


def test_api_page_lists_what_users_call_first():
    parts = parts_of(API_PAGE.read_text())
    assert list(parts) == PARTS
    assert all(parts[title] for title in PARTS)
    assert len(parts[PARTS[0]]) < MOST_TO_CALL


def test_results_are_what_you_get_back():
    parts = parts_of(API_PAGE.read_text())
    results = {path for paths in parts.values() for path in paths if path.endswith("Result")}
    assert results <= set(parts["What you get back"])


@pytest.mark.parametrize("module", public_modules())
def test_module_says_what_it_is_for(module):
    assert inspect.getdoc(importlib.import_module(module))


def test_the_page_is_read_part_by_part():
    page = "API\n===\n\nA\n-\n\nB\n~\n\n    skrobust.x.y\n\nC\n--\n    skrobust.z\n"
    assert parts_of(page) == {"A": ["skrobust.x.y"], "C": ["skrobust.z"]}


def test_faults_of_the_page_are_seen():
    groups = [["s.a.x", "s.x"], ["s.y"], ["s.z"]]
    assert faults(["s.x", "s.y", "s.z"], groups) == []
    assert faults(["s.a.x", "s.x", "s.old", "s.z"], groups) == [
        "+    s.y",
        "-    s.old",
        "-    s.x",
    ]
