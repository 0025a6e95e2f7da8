"""What all conclusions share: rows, losses and enclosures."""

import numpy as np
import pytest
import torch

from skrobust.exceptions import UnsupportedPropertyError
from skrobust.logics import DL2, STL, Goedel, Lukasiewicz, Reichenbach, Yager
from skrobust.properties import (
    Conclusion,
    LinearRobustness,
    LinearRows,
)
from tests.properties._cases import CR, LR, ROWS, SCR, SR


def test_nan_outputs_do_not_hold():
    for property in (CR(), SR(), LR(), SCR()):
        assert not property.holds([[np.nan, 0.0]], labels=[0]).item()


@pytest.mark.parametrize("property", [CR(), SR(delta=1.0), LR(lipschitz=2.0)], ids=repr)
def test_linear_rows_are_the_margin(property):
    rng = np.random.default_rng(0)
    logits, reference = (torch.tensor(rng.normal(size=(5, 3))) for _ in range(2))
    distance, labels = torch.rand(5, dtype=torch.float64), torch.tensor([0, 1, 2, 0, 1])
    rows = property.conclusion(reference, labels).sufficient()
    values = torch.einsum("nmk,nk->nm", rows.A, logits) + rows.c * distance[:, None] + rows.b
    margins = property.margin(logits, reference_logits=reference, distance=distance, labels=labels)
    np.testing.assert_allclose(margins, values.min(dim=1).values)
    assert rows.strict is isinstance(property, CR)


def test_many_points_around_each_reference():
    rng = np.random.default_rng(0)
    reference, logits = (
        torch.tensor(rng.normal(size=(4, 3))),
        torch.tensor(rng.normal(size=(4, 6, 3))),
    )
    distance, labels = torch.rand(4, 6, dtype=torch.float64), torch.tensor([0, 1, 2, 0])
    for property in (CR(), SR(), LR(), SCR(), CR() & LR(), LinearRobustness(ROWS)):
        conclusion = property.conclusion(reference, property.reference_labels(reference, labels))
        together = conclusion.margin(logits, distance)
        apart = [conclusion.margin(logits[:, r], distance[:, r]) for r in range(6)]
        torch.testing.assert_close(together, torch.stack(apart, dim=1))
        chosen = torch.tensor([2, 0])
        torch.testing.assert_close(
            conclusion[chosen].margin(logits[chosen], distance[chosen]), together[chosen]
        )


def test_loss_is_that_of_the_logic():
    logits, labels = [[0.0, 1.0, 3.0]], [0]  # rows -1 and -3
    assert CR().loss(logits, labels=labels).item() == 4.0
    assert CR().loss(logits, labels=labels, logic=Goedel()).item() == 0.75
    assert CR().loss([[3.0, 1.0, 0.0]], labels=labels).item() == 0.0
    assert CR().loss(logits, labels=labels, logic=STL(sharpness=50.0)).item() == pytest.approx(3)


@pytest.mark.parametrize(
    "logic", [DL2(), STL(), Goedel(), Lukasiewicz(), Reichenbach(), Yager()], ids=repr
)
@pytest.mark.parametrize("property", [CR(), SCR(), CR() & LR()], ids=repr)
def test_losses_of_many_points_have_one_entry_a_point(property, logic):
    rng = np.random.default_rng(0)
    reference = torch.tensor(rng.normal(size=(4, 3)))
    logits = torch.tensor(rng.normal(size=(4, 6, 3)))
    distance, labels = torch.rand(4, 6, dtype=torch.float64), torch.tensor([0, 1, 2, 0])
    conclusion = property.conclusion(reference, labels)
    for reading in (
        lambda z, d: conclusion.loss(z, d, logic),
        conclusion.margin,
        conclusion.holds,
    ):
        together = reading(logits, distance)
        assert together.shape == (4, 6)
        apart = [reading(logits[:, r], distance[:, r]) for r in range(6)]
        torch.testing.assert_close(together, torch.stack(apart, dim=1))


def linear(values, **options):
    """Rows z_0 + b, around as many points as there are values of b."""
    b = torch.tensor(values, dtype=torch.float64)[:, None]
    A = torch.tensor([[[1.0, 0.0]]], dtype=torch.float64).expand(len(b), -1, -1)
    return LinearRows(A, torch.zeros_like(b), b, **options)


def test_linear_rows_enclose_themselves():
    rows = linear([0.5, -1.0], strict=True, uses_distance=False)
    assert rows.is_linear
    assert rows.sufficient() is rows.necessary() is rows
    assert rows.parts() == [rows]
    lower = torch.tensor([[0.0], [1e-9]], dtype=torch.float64)
    assert rows.proved(lower).tolist() == [False, True]
    assert rows.lower_margin(lower).tolist() == [0.0, 1e-9]
    assert rows.gaps(lower) is lower


def test_joined_rows_keep_what_each_row_is():
    one = linear([0.5], strict=True, uses_distance=False)
    other = linear([1.0], strict=False, uses_distance=True, anchored=True)
    joined = LinearRows.join([one, other, one])
    assert joined.b.tolist() == [[0.5, 1.0, 0.5]]
    assert joined.strict.tolist() == [True, False, True]
    assert joined.anchored.tolist() == [False, True, False]
    assert joined.uses_distance
    assert LinearRows.join([one]) is one
    assert LinearRows.join([one, one]).strict is True
    assert joined[torch.tensor([0])].anchored.tolist() == [False, True, False]
    with pytest.raises(UnsupportedPropertyError, match="different outputs"):
        LinearRows.join([one, linear([1.0], strict=True, output="probabilities")])


def test_only_the_rows_of_lipschitz_robustness_are_anchored():
    logits, labels = torch.zeros(1, 2), torch.tensor([0])
    for property, flags in (
        (CR(), [False]),
        (SR(), [False] * 4),
        (LR(), [True] * 4),
        (SCR(), [False]),
        (SCR() & LR() & CR(), [False] + [True] * 4 + [False]),
    ):
        rows = property.conclusion(logits, labels).sufficient()
        assert rows.flags("anchored").tolist() == flags


class Sum(Conclusion):
    """One concave row: the smaller of the first two outputs is at least 1."""

    strict = False
    uses_distance = False

    def values(self, logits, distance=None):
        return logits[..., :2].amin(dim=-1, keepdim=True) - 1

    def __getitem__(self, index):
        return self


class Enclosed(Sum):
    def sufficient(self):
        A = torch.eye(2, 3, dtype=torch.float64)[None]
        b = torch.full((1, 2), -1.0, dtype=torch.float64)
        return LinearRows(A, torch.zeros_like(b), b, strict=False, uses_distance=False)


def test_a_conclusion_without_linear_rows_is_no_case_for_verifiers():
    assert Sum().margin(torch.tensor([[2.0, 1.5, 0.0]])).tolist() == [0.5]
    for reading in (Sum().sufficient, Sum().necessary):
        with pytest.raises(UnsupportedPropertyError, match=r"Got a Sum, .*method sufficient\(\)"):
            reading()


def test_a_conclusion_with_sufficient_rows_is_proved_by_them():
    conclusion = Enclosed()
    lower = torch.tensor([[0.0, 0.5], [-0.1, 2.0]], dtype=torch.float64)
    assert conclusion.proved(lower).tolist() == [True, False]
    # How far the own row falls short is not known.
    assert conclusion.lower_margin(lower).tolist() == [0.0, -torch.inf]
    assert conclusion.necessary().b.shape == (1, 0)
    assert conclusion.needed_outputs == {"logits", "probabilities"}
