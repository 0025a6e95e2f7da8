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
    """Return the modules that users import from; the estimators are imported from the top."""
    names = [
        name
        for _, name, _ in pkgutil.walk_packages(skrobust.__path__, "skrobust.")
        if not any(part.startswith("_") for part in name.split("."))
    ]
    return ["skrobust", *(name for name in names if name != "skrobust.estimators")]


def public_names():
    return sorted(
        f"{module}.{name}"
        for module in public_modules()
        for name in importlib.import_module(module).__all__
    )


@pytest.mark.parametrize("name", public_names())
def test_docstring_follows_numpydoc(name):
    module, _, attribute = name.rpartition(".")
    public = getattr(importlib.import_module(module), attribute)
    is_enum = inspect.isclass(public) and issubclass(public, Enum)
    checks = CHECKS - {"PR01", "PR02", "PR03"} if is_enum else CHECKS
    found = [
        f"{code} {text}"
        for code, text in validate(name)["errors"]
        if code in checks and not all(part.startswith("_") for part in QUOTED.findall(text) or "x")
    ]
    assert found == []


@pytest.mark.parametrize("name", public_names())
def test_name_is_on_the_api_page(name):
    assert f"    {name}\n" in API_PAGE.read_text() + "\n"


def test_api_page_lists_nothing_else():
    listed = [
        line.strip()
        for line in API_PAGE.read_text().splitlines()
        if line.startswith("    skrobust.")
    ]
    assert sorted(listed) == public_names()


@pytest.mark.parametrize("module", public_modules())
def test_module_says_what_it_is_for(module):
    assert inspect.getdoc(importlib.import_module(module))
