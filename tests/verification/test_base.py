"""Tests of what verifiers share: results, confirmation, points decided without a verifier."""

import numpy as np
import pytest
import torch
from sklearn.base import clone
from torch import nn

from skrobust.attacks import Target
from skrobust.networks import Network
from skrobust.properties import ClassificationRobustness, LipschitzRobustness
from skrobust.verification import Bounds, Exact
from skrobust.verification._base import Stopwatch, at_reference
from tests.verification._tensors import decided


def line(replay=None):
    """z = (x, 1 - x): class 0 wins above 1 / 2."""
    layer = nn.Linear(1, 2)
    layer.weight = nn.Parameter(torch.tensor([[1.0], [-1.0]]), requires_grad=False)
    layer.bias = nn.Parameter(torch.tensor([0.0, 1.0]), requires_grad=False)
    return Network(layer, np.arange(2), 1, replay)


def target(epsilon=0.2, x=(0.6, 0.65, 0.9), replay=None, **options):
    property = ClassificationRobustness(epsilon, **options)
    x = torch.tensor(x)[:, None]
    return Target(line(replay), property, x, torch.zeros(len(x), dtype=torch.long))


def test_at_reference_decides_what_needs_no_verifier():
    found = at_reference(target(epsilon=0.1, x=(0.3, 0.7))).result()
    assert found.verdicts.tolist() == ["falsified", "unknown"]
    found = at_reference(target(epsilon=0.0, x=(0.3, 0.7))).result()
    assert found.verdicts.tolist() == ["falsified", "verified"]
    # The domain alone can fix a point, too.
    found = at_reference(target(epsilon=0.1, x=(0.7,), bounds=(np.float32(0.7).item(),) * 2))
    assert found.verdicts.tolist() == ["verified"]


@pytest.mark.parametrize("verifier", [Bounds("ibp", n_steps=3), Exact(batch_size=7)])
def test_verifiers_are_parameters_and_nothing_else(verifier):
    assert clone(verifier).get_params() == verifier.get_params()


@pytest.mark.parametrize("verifier", [Bounds(), Exact()])
def test_labels_are_asked_for_where_they_are_needed(verifier):
    x = torch.tensor([[0.7]])
    with pytest.raises(ValueError, match="needs the true labels"):
        decided(verifier, line(), ClassificationRobustness(0.1), x)
    own = ClassificationRobustness(0.1, reference="prediction")
    assert decided(verifier, line(), own, x).verdicts.tolist() == ["verified"]
    assert decided(verifier, line(), LipschitzRobustness(0.1, 2.0), x).verdicts[0] == "verified"


def test_stopwatch():
    watch = Stopwatch(100.0)
    assert 0 <= watch.elapsed < 50 < watch.left <= 100
    assert watch.part(3.0).left <= 3
    assert watch.part(1e6).left <= 100
    assert Stopwatch().left == np.inf
    assert Stopwatch(0.0).left == 0
