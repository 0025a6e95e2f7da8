"""Tests of the negated property: its rows, its ball, and what proves it."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from skrobust.exceptions import UnsupportedPropertyError
from skrobust.networks import Network
from skrobust.properties import (
    ClassificationRobustness,
    LipschitzRobustness,
    StandardRobustness,
    StrongClassificationRobustness,
)
from skrobust.verification import Bounds
from skrobust.verification._query import make_query

CR, SR, LR = ClassificationRobustness, StandardRobustness, LipschitzRobustness


def network(bias=(0.0, 1.0, 0.0)):
    layer = nn.Linear(2, 3)
    layer.weight = nn.Parameter(torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]]), False)
    layer.bias = nn.Parameter(torch.tensor(bias), False)
    return Network(layer, np.arange(3), 2)


def query(property, x=((0.5, 0.25), (0.75, 1.0)), labels=(1, 0)):
    encoding = Bounds().encode(network(), property)
    return make_query(encoding, torch.tensor(x), torch.tensor(labels))


def test_rows_of_classification():
    asked = query(CR(0.1))
    # Outputs at the centers: (0.5, 1.25, 0), (0.75, 2, 0).
    values = asked.values(torch.tensor([[0.5, 1.25, 0.0], [0.75, 2.0, 0.0]]).double(), None)
    assert values.tolist() == [[0.75, 1.25], [-1.25, 0.75]]
    assert asked.strict.tolist() == [True, True]
    assert not asked.uses_distance
    assert asked.rows.A.dtype == torch.float64


def test_strict_rows_must_be_above_zero():
    asked = query(CR(0.1))
    lower = torch.tensor([[0.0, 1.0], [1e-9, 1.0]]).double()
    assert asked.holds(lower).tolist() == [False, True]
    weak = query(SR(0.1, 1.0))
    lower = torch.tensor([[0.0] * 6, [-1e-300] * 6], dtype=torch.float64)
    assert weak.holds(lower).tolist() == [True, False]
    nothing = torch.full((2, 6), torch.nan).double()
    assert weak.holds(nothing).tolist() == [False, False]


def test_conjunctions_know_which_rows_are_strict_and_anchored():
    asked = query(CR(0.1) & LR(0.1, 2.0) & SR(0.1, 1.0))
    assert asked.strict.tolist() == [True] * 2 + [False] * 12
    assert asked.anchored.tolist() == [False] * 2 + [True] * 6 + [False] * 6
    assert asked.uses_distance
    assert asked.rows.c[0].tolist() == [0.0] * 2 + [2.0] * 6 + [0.0] * 6


def test_strong_classification_is_enclosed():
    asked = query(StrongClassificationRobustness(0.1, 0.6))
    assert not asked.is_linear
    assert asked.rows.b[0, 0].item() == pytest.approx(-math.log(2 * 0.6 / 0.4))
    assert asked.necessary.b[0, 0].item() == pytest.approx(-math.log(0.6 / 0.4))
    # Gaps g: the row is -log(1 + sum exp(-g)) - log 0.6.
    gaps = torch.tensor([[1.0, 2.0], [0.3, 9.0]]).double()
    row = -torch.log(1 + torch.exp(-gaps).sum(1)) - math.log(0.6)
    margin = asked.margin(gaps + asked.rows.b)
    assert (margin <= row).all()
    torch.testing.assert_close(margin, row, rtol=0, atol=1e-12)
    assert asked.holds(gaps + asked.rows.b).tolist() == [True, False]


def test_ball_is_rounded_outwards():
    x = torch.tensor([[0.1, 0.7]])
    ball = CR([0.3, 0.0], bounds=(0.0, 1.0)).outer_ball(x)
    exact = x.double()
    assert ball.lower.tolist() == [[0.0, exact[0, 1].item()]]
    assert ball.upper[0, 0].item() > exact[0, 0].item() + 0.3 - 1e-16
    assert ball.upper[0, 0].item() == pytest.approx(0.4, abs=1e-7)
    assert ball.upper[0, 1].item() == exact[0, 1].item()


def test_a_center_outside_of_the_domain_by_rounding_stays_inside():
    x = torch.tensor([[0.1, 0.1]])  # float32: a little above 0.1
    ball = CR(0.5, bounds=(0.0, 0.1)).outer_ball(x)
    assert (ball.upper == ball.center).all()
    assert (ball.lower == 0).all()


def test_within_shrinks_and_beyond_keeps_away():
    asked = query(LR(0.2, 2.0), x=((0.5, 0.5), (0.5, 0.5)))
    radius = torch.tensor([0.1, 0.05]).double()
    inner = asked.within(radius)
    np.testing.assert_allclose((inner.ball.upper - inner.ball.center)[:, 0], [0.1, 0.05])
    assert asked.beyond(radius).beyond(radius / 2).nearest.tolist() == radius.tolist()


def test_the_network_itself_says_what_it_predicts():
    # In float32 both outputs are equal, and the first one wins; in float64 the second does.
    layer = nn.Linear(1, 2)
    layer.weight = nn.Parameter(torch.tensor([[1.0], [1.0]]), False)
    layer.bias = nn.Parameter(torch.tensor([0.0, 1e-9]), False)
    tied = Network(layer, np.arange(2), 1)
    encoding = Bounds().encode(tied, CR(0.1, reference="prediction"))
    asked = make_query(encoding, torch.tensor([[0.5]]))
    assert asked.rows.A[0].tolist() == [[1.0, -1.0]]


def test_probabilities_are_refused():
    with pytest.raises(UnsupportedPropertyError, match="linear in the logits"):
        query(SR(0.1, 0.2, output="probabilities"))
