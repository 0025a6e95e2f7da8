"""Networks with max-pools and clamps, which branch and bound splits as ReLUs."""

import numpy as np
import pytest
import torch
from torch import nn

from skrobust import TorchClassifier
from skrobust.evidence import check
from skrobust.graphs import Clamp, MaxPool, read_graph
from skrobust.networks import as_network
from skrobust.properties import StandardRobustness
from skrobust.verification import Exact, Reason
from skrobust.verification._relus import as_relus


def test_what_has_neither_stays_as_it_is():
    graph = read_graph(nn.Sequential(nn.Linear(2, 3), nn.ReLU()).double(), n_features=2)
    assert as_relus(graph) is graph


@pytest.mark.parametrize("kind", ["pool", "clamp"])
def test_no_solver_is_needed(kind, tmp_path):
    torch.manual_seed(1)
    middle = [nn.Hardtanh(-0.3, 0.3), nn.Linear(16, 3)]
    if kind == "pool":
        middle = [nn.Unflatten(1, (1, 4, 4)), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(4, 3)]
    model = TorchClassifier(nn.Sequential(nn.Linear(12, 16), *middle), [0, 1, 2])
    X = np.random.default_rng(0).random((6, 12))
    property = StandardRobustness(0.1, delta=0.2)
    verifier = Exact(milp_units=0, max_domains=800)
    result = verifier.verify(model, X, property=property, evidence=tmp_path)
    assert Reason.BY_SOLVER not in set(result.reasons)
    decided = result.verdicts != "unknown"
    assert (result.verdicts == "verified").any() and decided.sum() >= 4
    assert (result.evidence[decided] != "").all()
    assert check(tmp_path, model).is_accepted
    graph = as_relus(read_graph(as_network(model), 12))
    assert not any(isinstance(node, MaxPool | Clamp) for node in graph.nodes)
