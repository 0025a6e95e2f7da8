"""Files from strangers end in an error that names the file, or in a right reading."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
KINDS = ["onnx", "vnnlib", "evidence"]
ROOT = Path(__file__).parents[2]


def read_mutations(kind, start, count, folder, seconds):
    """Read mutated files in a process of its own, and return what came of them."""
    command = [sys.executable, "-m", "tests.fuzz._strange_files", kind, start, count, folder]
    done = subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, timeout=seconds, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout.splitlines()[-1])


def assert_safe(answer, count):
    assert answer["faults"] == []
    assert answer["read"] + answer["refused"] == count
    assert answer["read"] > 0 and answer["refused"] > 0
    assert answer["peak"] < 2**30


@pytest.mark.parametrize("kind", KINDS)
def test_a_slice_of_mutated_files(kind, tmp_path):
    assert_safe(read_mutations(kind, 0, 60, tmp_path, 300), 60)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_thousand_mutated_files(kind, tmp_path):
    assert_safe(read_mutations(kind, 60, 1000, tmp_path, 1800), 1000)
