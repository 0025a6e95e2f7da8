"""Mixtures of the rows of a clause: above 0 only where one of the rows is."""

import numpy as np
import pytest
import torch

from skrobust.bounds import relax
from skrobust.properties import LinearRobustness
from skrobust.verification import Bounds
from skrobust.verification._mixtures import mixture, with_mixtures
from tests.verification._nets import box, grid_of, network


def test_a_mixture_proves_what_no_row_proves():
    """max(z, -z) + 0.1: each row falls to -0.2, half of both is 0.1."""
    identity = torch.nn.Linear(1, 1, bias=False).requires_grad_(False)
    identity.weight.fill_(1.0)
    from skrobust.networks import Network

    net = Network(identity, [0], 1)
    rows = [[1.0], [-1.0]], [0.1, 0.1]
    property = LinearRobustness(rows, 0.3, bounds=None, clauses=[[0, 1]])
    result = Bounds().verify(net, [[0.0]], property=property)
    assert result.verdicts.tolist() == ["verified"]
    assert 0.0999 < result.lower[0] <= 0.1
    assert Bounds("ibp").verify(net, [[0.0]], property=property).verdicts[0] == "unknown"
    alone = LinearRobustness(rows, 0.3, bounds=None)
    assert Bounds().verify(net, [[0.0]], property=alone).verdicts[0] != "verified"


@pytest.mark.parametrize("seed", range(5))
def test_a_mixture_lies_nowhere_above_the_largest_row(seed):
    graph, relaxation = box(seed=seed, epsilon=0.4)
    rng = np.random.default_rng(seed)
    A, shift = torch.tensor(rng.normal(size=(3, 4, 2))), torch.tensor(rng.normal(size=(3, 4)))
    sample = torch.zeros(3, dtype=torch.long)
    mixed, constant, slope, weights = mixture(relaxation, A, shift, sample=sample)
    assert slope is None and mixed.shape == (3, 1, 2)
    share = weights / weights.sum(dim=1, keepdim=True)
    torch.testing.assert_close(mixed, share.unsqueeze(1) @ A)
    outputs = graph(grid_of(relaxation.ball, 41))
    rows = torch.einsum("pwk,gk->pgw", A, outputs) + shift[:, None]
    mixed = torch.einsum("pk,gk->pg", mixed[:, 0], outputs) + constant
    assert (mixed <= rows.amax(dim=2)).all()


def test_clauses_of_one_row_get_no_mixture():
    _, root = box()
    A, shift = torch.zeros(3, 1, 2).double(), torch.zeros(3, 1).double()
    assert with_mixtures(root, A, shift)[0] is A
    wide = with_mixtures(root, A.expand(3, 2, 2), shift.expand(3, 2), shift.expand(3, 2))
    assert [part.shape for part in wide] == [(3, 3, 2), (3, 3), (3, 3), (3, 2)]


def test_the_distance_is_mixed_too():
    graph, root = box(seed=2)
    A = torch.eye(2).double()[None]
    shift = torch.tensor([[-1.0, -2.0]]).double()
    _, constant, slope, _ = with_mixtures(root, A, shift, torch.tensor([[2.0, 4.0]]).double())
    # Both are mixed by the same weights.
    share = (slope[0, 2] - 4) / -2
    torch.testing.assert_close(constant[0, 2], -share - 2 * (1 - share))
    assert relax(graph, root.ball) and network()
