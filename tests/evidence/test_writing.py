"""Files of evidence: whole or not there, and about one network."""

import json
import os

import numpy as np
import pytest

from skrobust.evidence import Writer, _checker
from skrobust.evidence._writing import packed
from tests.evidence._examples import claim, ramp


def test_the_same_arrays_make_the_same_bytes():
    for compress in (False, True):
        assert packed(ramp(), compress=compress) == packed(ramp(), compress=compress)


def test_a_folder_that_the_checker_accepts(tmp_path):
    writer = Writer(tmp_path / "new" / "folder", ramp())
    arrays = claim([[1.0]], [0.1])
    arrays["claim"] = _about(writer.digest)
    names = [writer.add(arrays), writer.add(arrays)]
    assert names[0] == names[1]
    writer.finish({"property": "x"}, names)
    [(name, accepted, message)] = _checker.check_folder(writer.folder)
    assert (name, accepted) == (names[0], True), message
    manifest = json.loads((writer.folder / "manifest.json").read_text())
    assert (manifest["format"], manifest["version"]) == ("skrobust-evidence", 2)


def _about(digest):
    text = json.dumps({"verdict": "verified", "norm": "linf", "network": digest})
    return np.frombuffer(text.encode(), dtype=np.uint8)


def test_evidence_about_another_network_is_left_alone(tmp_path):
    Writer(tmp_path, ramp())
    Writer(tmp_path, ramp())  # the same once more
    with pytest.raises(ValueError, match="is of another one"):
        Writer(tmp_path, ramp() | {"1.bias": np.array([1e-9])})


def test_a_write_that_fails_leaves_no_file(tmp_path, monkeypatch):
    writer = Writer(tmp_path, ramp())

    def full(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        writer.add(claim([[1.0]], [0.1]))
    assert [path.name for path in tmp_path.iterdir()] == ["network.npz"]
