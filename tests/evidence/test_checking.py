"""Folders of evidence from the public door: accepted, rejected with a reason, never a crash."""

import json
import re
import shutil
from unittest.mock import Mock

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.neural_network import MLPClassifier

from skrobust.evidence import Evidence, _checker, check, claim_bytes, opened
from skrobust.evidence._writing import Writer
from skrobust.exceptions import UnsupportedModelError
from skrobust.properties import ClassificationRobustness
from skrobust.verification import Bounds, Cascade
from tests.evidence._examples import claim, ramp


@pytest.fixture(scope="module")
def trained():
    X, y = load_digits(return_X_y=True)
    model = MLPClassifier((12,), solver="lbfgs", max_iter=60, random_state=0)
    return model.fit(X[:300] / 16, y[:300]), X[300:312] / 16, y[300:312]


@pytest.fixture(scope="module")
def folder(trained, tmp_path_factory):
    model, X, y = trained
    path = tmp_path_factory.mktemp("evidence")
    property = ClassificationRobustness(0.03)
    result = Cascade(timeout=5).verify(model, X, y, property=property, evidence=path)
    assert {"verified", "falsified"} <= set(result.verdicts)
    return path


@pytest.fixture
def copy(folder, tmp_path):
    return shutil.copytree(folder, tmp_path / "copy")


@pytest.mark.parametrize("exact", [False, True])
def test_all_is_accepted(folder, trained, exact):
    evidence = check(folder, trained[0], exact=exact)
    assert isinstance(evidence, Evidence)
    assert evidence.is_accepted, evidence.messages
    assert len(evidence) == 12


def test_another_estimator_is_told_from_this_one(folder, trained):
    _, X, y = trained
    other = MLPClassifier((12,), solver="lbfgs", max_iter=2000, random_state=1).fit(X, y)
    evidence = check(folder, other)
    assert not evidence.accepted.any()
    assert "is not the estimator's" in evidence.messages[0]


@pytest.mark.parametrize("n_features", [np.inf, np.nan, -1, 0, 1e300, 3, 2**30, [64], b"64"])
def test_numbers_of_features_are_those_of_the_estimator(copy, trained, n_features):
    arrays = dict(np.load(copy / "network.npz")) | {"n_features": np.array(n_features)}
    np.savez(copy / "network.npz", **arrays)
    evidence = check(copy, trained[0])
    assert not evidence.is_accepted
    assert re.search("feature|cannot be read|no array", evidence.messages[0])


def test_nodes_are_compared_as_bytes(copy, trained):
    arrays = dict(np.load(copy / "network.npz"))
    arrays["nodes"] = arrays["nodes"].astype(np.int32)
    np.savez(copy / "network.npz", **arrays)
    assert "nodes differs" in check(copy, trained[0]).messages[0]


def test_another_models_files_are_rejected(copy, trained, tmp_path):
    _, X, y = trained
    other = MLPClassifier((5,), solver="lbfgs", max_iter=2000, random_state=1).fit(X, y)
    property = ClassificationRobustness(1e-6)
    Bounds().verify(other, X, y, property=property, evidence=tmp_path / "other")
    names = json.loads((tmp_path / "other" / "manifest.json").read_text())["points"]
    manifest = json.loads((copy / "manifest.json").read_text())
    for name in names:
        shutil.copy(tmp_path / "other" / name, copy / name)
    (copy / "manifest.json").write_text(json.dumps(manifest | {"points": names}))
    evidence = check(copy)
    assert not evidence.accepted.any()
    assert set(evidence.messages) == {"it is about another network"}


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"version": 3}, "version|format"),
        ({"format": "x"}, "format"),
        ({"network": "0"}, "not the network"),
        ({"points": 3}, "no list"),
    ],
)
def test_manifests_that_are_not_understood(copy, change, word):
    path = copy / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    evidence = check(copy)
    assert evidence.files.tolist() == ["manifest.json"]
    assert not evidence.is_accepted
    assert re.search(word, evidence.messages[0])


def test_files_that_are_missing_or_half(copy):
    names = json.loads((copy / "manifest.json").read_text())["points"]
    (copy / names[0]).unlink()
    (copy / names[1]).write_bytes((copy / names[1]).read_bytes()[:300])
    evidence = check(copy)
    assert evidence.accepted.tolist() == [False, False] + [True] * 10
    assert all("cannot be read" in message for message in evidence.messages[:2])


@pytest.mark.parametrize(
    "name", ["../outside.npz", "a/b.npz", 3, None, "", ".", "..", "a\x1b[2J", "a\nb", "\ud800"]
)
def test_names_stay_in_the_folder(copy, name):
    path = copy / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"points": [name]}))
    evidence = check(copy)
    assert "no name" in evidence.messages[0]
    assert evidence.files[0].isascii()
    assert evidence.files[0].isprintable()


def test_a_file_counts_once(copy):
    path = copy / "manifest.json"
    manifest = json.loads(path.read_text())
    path.write_text(json.dumps(manifest | {"points": manifest["points"][:1] * 2}))
    evidence = check(copy)
    assert evidence.accepted.tolist() == [True, False]
    assert "twice" in evidence.messages[1]


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"row": np.array(0)}, "shape"),
        ({"row": np.zeros((1, 1))}, "shape"),
        ({"strict": np.array([0.5])}, "strict"),
        ({"strict": np.array([2])}, "strict"),
        ({"strict": np.array([-1])}, "strict"),
        ({"claim": np.arange(3)}, "bytes"),
    ],
)
def test_arrays_of_strangers(tmp_path, change, word):
    writer = Writer(tmp_path, ramp())
    arrays = claim([[1.0]], [0.1]) | {
        "claim": claim_bytes(verdict="verified", norm="linf", network=writer.digest)
    }
    writer.finish({}, [writer.add(arrays)])
    assert check(tmp_path).is_accepted
    writer.finish({}, [writer.add(arrays | change)])
    evidence = check(tmp_path)
    assert not evidence.is_accepted
    assert word in evidence.messages[0]


def test_networks_of_strangers(tmp_path):
    nodes = b'{"nodes": [{"kind": "maxpool", "inputs": [0]}]}'
    arrays = {"n_features": np.array(1), "1.members": np.zeros((2, 0), dtype=int)}
    for k, (dtype, word) in enumerate(((np.uint8, "empty"), (np.int64, "bytes"))):
        text = np.frombuffer(nodes, dtype=np.uint8).astype(dtype)
        Writer(tmp_path / str(k), arrays | {"nodes": text}).finish({}, ["a.npz"])
        evidence = check(tmp_path / str(k))
        assert evidence.files.tolist() == ["manifest.json"]
        assert word in evidence.messages[0]


def test_what_no_rule_foresees_is_a_rejection(copy, monkeypatch):
    for fault in (MemoryError, OverflowError, KeyError, TypeError, ValueError):
        monkeypatch.setattr(_checker, "check_claim", Mock(side_effect=fault("\x07")))
        evidence = check(copy)
        assert not evidence.accepted.any()
        assert fault.__name__ in evidence.messages[0]
        assert evidence.messages[0].isprintable()


def test_a_folder_that_is_not_there(tmp_path):
    evidence = check(tmp_path / "nothing")
    assert not evidence.is_accepted
    assert "manifest.json" in evidence.messages[0]
    with pytest.raises(TypeError, match="folder"):
        check(3)
    with pytest.raises(ValueError, match="exact"):
        check(tmp_path, exact="yes")


def test_networks_that_the_checker_refuses():
    with pytest.raises(UnsupportedModelError, match="NaN"):
        opened(ramp() | {"1.bias": np.array([np.nan])})


def mutated(rng, data):
    """Change, drop or insert some bytes."""
    data = bytearray(data)
    for _ in range(int(rng.integers(1, 4))):
        at = int(rng.integers(0, len(data)))
        kind = rng.integers(0, 4)
        if kind == 0:
            data[at] ^= 1 << int(rng.integers(0, 8))
        elif kind == 1:
            del data[at : at + int(rng.integers(1, 20))]
        elif kind == 2:
            data[at:at] = rng.bytes(int(rng.integers(1, 20)))
        else:
            data[at : at + 4] = rng.bytes(4)
    return bytes(data)


@pytest.mark.parametrize("part", ["manifest.json", "network.npz", "point"])
@pytest.mark.parametrize("seed", [0, 1, pytest.param(2, marks=pytest.mark.slow)])
def test_mutated_bytes_end_in_a_verdict(copy, part, seed):
    rng, count = np.random.default_rng(seed), 350 if seed == 2 else 25
    names = json.loads((copy / "manifest.json").read_text())["points"]
    manifest = json.loads((copy / "manifest.json").read_text())
    (copy / "manifest.json").write_text(json.dumps(manifest | {"points": names[:1]}))
    path = copy / (names[0] if part == "point" else part)
    data = path.read_bytes()
    for _ in range(count):
        path.write_bytes(mutated(rng, data))
        evidence = check(copy)
        assert len(evidence) >= 1 or part == "manifest.json"
        if part == "network.npz":
            assert not evidence.accepted.any()
