"""The divergence of probabilities, and the property whose attacks look for the largest one."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from skrobust.attacks import PGD, Target
from skrobust.properties import ClassificationRobustness, LipschitzRobustness
from skrobust.training._divergence import (
    DivergenceRow,
    SameProbabilities,
    cross_entropy,
    divergence,
)
from tests.training._steps import WEIGHT, linear

LOGITS = st.lists(st.floats(-30, 30), min_size=3, max_size=3)


def test_divergence_by_hand():
    p, q = torch.tensor([[0.5, 0.25, 0.25]]), torch.tensor([[0.25, 0.25, 0.5]])
    expected = 0.5 * math.log(2) - 0.25 * math.log(2)
    assert divergence(p.log(), q.log()).item() == pytest.approx(expected, rel=1e-6)


@given(LOGITS, LOGITS)
def test_divergence_is_that_of_torch_and_never_negative(first, second):
    z, w = (torch.tensor([logits], dtype=torch.float64) for logits in (first, second))
    value = divergence(z, w)
    distributions = [torch.distributions.Categorical(logits=logits) for logits in (z, w)]
    torch.testing.assert_close(value, torch.distributions.kl_divergence(*distributions))
    assert value >= -1e-12
    assert divergence(z, z).item() == pytest.approx(0, abs=1e-12)


def test_cross_entropy_is_that_of_torch():
    generator = torch.Generator().manual_seed(0)
    logits, others = (3 * torch.randn(5, 4, generator=generator) for _ in range(2))
    ours = cross_entropy(logits, others)
    theirs = torch.nn.functional.cross_entropy(others, logits.softmax(1), reduction="none")
    torch.testing.assert_close(ours, theirs)
    certain = torch.tensor([[0.0, 200.0]])
    assert cross_entropy(certain, -certain).item() == 200.0


def test_probabilities_that_vanish_have_a_finite_divergence():
    logits = torch.tensor([[500.0, -500.0]], requires_grad=True)
    value = divergence(logits, torch.zeros(1, 2))
    assert value.item() == pytest.approx(math.log(2), rel=1e-6)
    assert torch.isfinite(torch.autograd.grad(value.sum(), logits)[0]).all()


def test_the_row_is_minus_the_divergence_at_one_point_and_at_many():
    reference, logits = torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(0))
    row = DivergenceRow(reference)
    values = row.values(logits)
    torch.testing.assert_close(values, -divergence(reference, logits)[:, None])
    several = torch.stack([logits, reference, logits], dim=1)
    torch.testing.assert_close(row.values(several)[:, 0], values)
    torch.testing.assert_close(row.values(several)[:, 1], torch.zeros(4, 1))
    torch.testing.assert_close(row[1:3].values(logits[1:3]), values[1:3])


def test_attacks_look_for_the_largest_divergence():
    module = linear(WEIGHT).double().eval()
    x = torch.tensor([[0.5, 0.5], [0.3, 0.8]], dtype=torch.float64)
    same = SameProbabilities.in_ball_of(LipschitzRobustness(0.2))
    found = PGD(20, n_restarts=30).search(Target(module, same, x), generator=torch.Generator())
    # The gap of two logits is linear, and the divergence grows with its change: corners are worst.
    corners = x[:, None] + 0.2 * torch.tensor([[a, b] for a in (-1, 1) for b in (-1, 1)])
    values = divergence(module(x)[:, None].expand(2, 4, 2), module(corners))
    # The search ends at the first violation; of all steps the last points are the worst.
    assert found.broken.all()
    points = PGD(20, n_restarts=30).points(Target(module, same, x), generator=torch.Generator())
    reached = divergence(module(x), module(points))
    torch.testing.assert_close(reached, values.max(dim=1).values)


def test_the_ball_is_that_of_the_property():
    property = ClassificationRobustness([0.1, 0.0], norm="l2", bounds=(-1.0, 2.0))
    same = SameProbabilities.in_ball_of(property)
    assert same.epsilon is property.epsilon
    assert (same.norm, same.bounds) == ("l2", (-1.0, 2.0))
    assert not same.needs_labels
