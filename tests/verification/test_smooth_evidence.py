"""Evidence about networks with smooth units: proofs of searches, and files that are changed."""

import json

import numpy as np
import pytest
import torch
from torch import nn

from skrobust.estimators import TorchClassifier
from skrobust.evidence import check, opened, why_rejected
from skrobust.graphs import read_graph
from skrobust.networks import as_network
from skrobust.properties import ClassificationRobustness
from skrobust.verification import Exact
from tests.evidence._changes import change, holds_at_samples, n_nodes

UNITS = {
    "tanh": nn.Tanh, "sigmoid": nn.Sigmoid, "gelu": nn.GELU,
    "gelu by tanh": lambda: nn.GELU("tanh"),
    "silu": nn.SiLU, "softplus": lambda: nn.Softplus(2.0, 3.0), "selu": nn.SELU,
}  # fmt: skip


def model(name, seed=0, scale=3.0, n_features=8):
    torch.manual_seed(seed)
    layers = [nn.Linear(n_features, 8), UNITS[name](), nn.Linear(8, 6), UNITS[name]()]
    module = nn.Sequential(*layers, nn.Linear(6, 3)).double()
    with torch.no_grad():
        for layer in module[::2]:
            layer.weight.mul_(scale)
    return TorchClassifier(module, [0, 1, 2])


def leaves_of(folder):
    manifest = json.loads((folder / "manifest.json").read_text())
    files = [dict(np.load(folder / name)) for name in manifest["points"]]
    return files, [n_nodes(arrays) for arrays in files]


@pytest.mark.parametrize("name", UNITS)
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_what_a_search_proves_is_accepted(name, norm, tmp_path):
    estimator, X = model(name), np.random.default_rng(0).random((3, 8))
    radius = 0.05 if norm == "linf" else 0.15
    property = ClassificationRobustness(radius, norm=norm, reference="prediction")
    result = Exact(attack=None, max_domains=20, split_inputs=0).verify(
        estimator, X, property=property, evidence=tmp_path
    )
    decided = result.verdicts != "unknown"
    assert (result.verdicts == "verified").any()
    evidence = check(tmp_path, estimator)
    assert evidence.is_accepted, evidence.messages
    assert set(result.evidence[decided]) == set(evidence.files)


@pytest.fixture(scope="module")
def proofs(tmp_path_factory):
    folder, estimator = tmp_path_factory.mktemp("smooth"), model("tanh")
    X = np.random.default_rng(1).random((12, 8))
    property = ClassificationRobustness(0.1, reference="prediction")
    Exact(max_domains=60, split_inputs=0).verify(estimator, X, property=property, evidence=folder)
    assert check(folder).is_accepted
    files, sizes = leaves_of(folder)
    trees = [arrays for arrays, size in zip(files, sizes, strict=True) if size > 6]
    assert len(trees) >= 2
    return folder, estimator, trees


def test_exact_arithmetic_agrees(proofs):
    folder, estimator, _ = proofs
    names = json.loads((folder / "manifest.json").read_text())["points"]
    assert check(folder, estimator, exact=True).accepted.all()
    assert len(names) > 4


def test_splits_of_inputs_are_accepted(tmp_path):
    estimator = model("gelu", scale=5.0, n_features=3)
    X = np.random.default_rng(1).random((12, 3))[:8]
    property = ClassificationRobustness(0.3, reference="prediction")
    result = Exact(max_domains=100).verify(estimator, X, property=property, evidence=tmp_path)
    assert (result.verdicts == "verified").any()
    assert check(tmp_path, estimator).is_accepted
    assert max(leaves_of(tmp_path)[1]) > 6


def test_changed_files_are_rejected_or_true(proofs):
    folder, estimator, trees = proofs
    rng, n_rejected = np.random.default_rng(0), 0
    network = opened(dict(np.load(folder / "network.npz")))
    digest = json.loads((folder / "manifest.json").read_text())["network"]
    graph = read_graph(as_network(estimator), n_features=8)

    def outputs(points):
        with torch.no_grad():
            return graph(torch.as_tensor(points)).numpy()

    for k in range(40):
        arrays, kind = change(rng, trees[k % len(trees)])
        if why_rejected(arrays, network, digest) is not None:
            n_rejected += 1
        else:
            assert holds_at_samples(rng, arrays, "linf", outputs), kind
    assert 10 <= n_rejected < 40
