"""What `make test-lowest` installs, and what CI calls."""

import re
import tomllib
from pathlib import Path

import pytest

from tests._lower_bounds import PYPROJECT, lowest, requirements

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize(
    ("text", "constraint"),
    [
        ("numpy>=2.0", "numpy==2.0"),
        ("dask[distributed]>=2024.8", "dask==2024.8"),
        ("maraboupy>=2.0; python_version < '3.12'", "maraboupy==2.0; python_version < '3.12'"),
    ],
)
def test_lowest_by_hand(text, constraint):
    assert lowest(text) == constraint


def test_requirement_without_a_lower_bound_is_refused():
    with pytest.raises(ValueError, match=r"Got 'numpy' in pyproject.toml, but expected name>="):
        lowest("numpy")


def test_all_requirements_of_the_suite_are_there():
    project = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["project"]
    names = {lowest(text).split("==")[0] for text in requirements(project, "test")}
    assert {"numpy", "torch", "scikit-learn", "pytest", "matplotlib", "onnx"} <= names
    assert "skrobust" not in names
    for extra in project["optional-dependencies"]:
        assert all(lowest(text) for text in requirements(project, extra))


def test_pins_meet_the_lower_bounds():
    project = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["project"]
    pins = dict(
        line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if line
    )

    def numbers(version):
        return [int(part) for part in re.findall(r"\d+", version)]

    for extra in project["optional-dependencies"]:
        for text in requirements(project, extra):
            name, bound = lowest(text).split(";")[0].split("==")
            assert numbers(pins[name]) >= numbers(bound), name


def test_ci_calls_the_targets():
    lines = (ROOT / ".ci" / "run").read_text().splitlines()
    assert {"make lint", "make test"} <= set(lines)
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert {"lint", "test", "test-matrix", "test-lowest", "bench", "docs", "demo"} <= targets
