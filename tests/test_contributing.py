"""The developers' guide says what the tests assert."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.test_layers import ORDER

ROOT = Path(__file__).parents[1]
GUIDE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")


def layers():
    """Return the rooms that the guide lists, top to bottom: up to the first wide gap of a line."""
    section = GUIDE.partition("## Layers")[2].partition("\n## ")[0]
    lines = re.findall(r"^    (\S.*?)(?:   .*)?$", section, re.MULTILINE)
    return [name for line in lines for name in line.split(", ")]


def test_layers_are_those_of_the_test():
    there = {path.stem for path in (ROOT / "skrobust").iterdir()}
    assert [name for name in layers() if name in there] == ORDER


def test_commands_are_targets():
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([\w-]+):", text, re.MULTILINE))
    assert set(re.findall(r"^    make ([\w-]+)", GUIDE, re.MULTILINE)) <= targets


@pytest.mark.skipif(shutil.which("make") is None, reason="no make is here")
@pytest.mark.parametrize("version", ["3.11", "3.12", "3.13"])
def test_the_matrix_has_each_python(version):
    # GNU make can take a target that only a pattern names for an intermediate file, and skip it.
    command = ["make", "--dry-run", "test-matrix"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert f"No Python {version} is here" in run.stdout
