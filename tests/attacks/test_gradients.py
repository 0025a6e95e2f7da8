"""Gradients in the input: refusals, and steps that fail."""

import pytest
import torch

from skrobust.attacks._gradients import finite_or_zero, input_gradient
from skrobust.exceptions import AttackWarning, UnsupportedModelError


def test_the_gradient_of_a_sum():
    x = torch.tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True)
    gradient = input_gradient((x**2).sum(), x)
    assert gradient.tolist() == [[2.0, 4.0], [6.0, 8.0]]


@pytest.mark.parametrize("total", [torch.tensor(1.0), torch.ones(1, requires_grad=True).sum()])
def test_what_does_not_depend_on_the_input_is_refused(total):
    x = torch.ones(1, 2, requires_grad=True)
    with pytest.raises(UnsupportedModelError, match="no gradient in its inputs"):
        input_gradient(total, x)


def test_rows_that_are_not_finite_become_zero():
    gradient = torch.tensor([[1.0, torch.nan], [2.0, 3.0], [torch.inf, 0.0]])
    with pytest.warns(AttackWarning, match="not finite at 2 of 3 points"):
        assert finite_or_zero(gradient).tolist() == [[0.0, 0.0], [2.0, 3.0], [0.0, 0.0]]


def test_large_gradients_whose_sum_overflows_stay():
    gradient = torch.full((2, 2), 3e38)
    assert torch.equal(finite_or_zero(gradient), gradient)
