"""The version is said once, and the papers are cited in valid form."""

import ast
import re
import tomllib
from pathlib import Path

import skrobust
from skrobust._version import __version__

ROOT = Path(__file__).parents[1]


def test_package_says_the_version():
    assert skrobust.__version__ == __version__
    assert re.fullmatch(r"\d+\.\d+\.\d+(\.dev\d+)?", __version__)


def test_metadata_take_the_version_from_the_package():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert settings["project"]["dynamic"] == ["version"]
    attribute = settings["tool"]["setuptools"]["dynamic"]["version"]["attr"]
    assert attribute == "skrobust._version.__version__"
    # setuptools reads it without importing torch only where it is a plain literal.
    tree = ast.parse((ROOT / "skrobust" / "_version.py").read_text())
    values = {
        node.targets[0].id: ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign)
    }
    assert values["__version__"] == __version__


def test_docs_take_the_version_from_the_package():
    assert "release = __version__" in (ROOT / "docs" / "conf.py").read_text()


def test_citation_has_the_version_and_the_license():
    lines = (ROOT / "CITATION.cff").read_text().splitlines()
    assert "cff-version: 1.2.0" in lines
    assert f"version: {__version__}" in lines
    assert "license: BSD-3-Clause" in lines
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["license"] == "BSD-3-Clause"
    assert sum(line.startswith("  - type: ") for line in lines) == 3
