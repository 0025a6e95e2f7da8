"""The worked example of a property of one's own, as it is printed in the documentation."""

import doctest
from pathlib import Path

EXAMPLE = Path(__file__).parents[2] / "docs" / "extending_property.rst"


def test_the_worked_example_runs_as_it_is_printed():
    results = doctest.testfile(str(EXAMPLE), module_relative=False)
    assert results.attempted > 10
    assert results.failed == 0


def test_the_class_of_the_example_has_ten_lines():
    lines = EXAMPLE.read_text(encoding="utf-8").splitlines()
    start = next(k for k, line in enumerate(lines) if "class KeepsHalfTheLead" in line)
    stop = next(k for k in range(start, len(lines)) if not lines[k])
    assert stop - start <= 10
