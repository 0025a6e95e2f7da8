"""Classification and strong classification robustness: margins and enclosures by hand."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.properties._cases import CR, LOG3, SCR, SR, margin


@pytest.mark.parametrize(
    ("logits", "label", "expected"),
    [([2.0, 0.5, 1.0], 0, 1.0), ([2.0, 0.5, 1.0], 2, -1.0), ([0.0, 3.0], 1, 3.0)],
)
def test_cr_margin(logits, label, expected):
    assert margin(CR(), logits, labels=label) == expected
    assert CR().holds([logits], labels=[label]).item() == (expected > 0)


def test_cr_by_prediction_refers_to_the_reference_point():
    property = CR(reference="prediction")
    assert not property.needs_labels
    assert margin(property, [2.0, 0.5], reference_logits=[0.0, 1.0]) == -1.5
    assert margin(property, [2.0, 0.5]) == 1.5


def test_a_tie_violates_cr():
    assert CR().margin([[1.0, 1.0, 0.0]], labels=[0]).item() == 0.0
    assert CR().holds([[1.0, 1.0, 0.0]], labels=[0]).item() is False
    assert CR().loss([[1.0, 1.0, 0.0]], labels=[0]).item() > 0
    assert SR(delta=0.0).holds([[1.0, 1.0]]).item() is True  # SR's rows are not strict


def test_scr_margin():
    assert margin(SCR(eta=0.5), [LOG3, 0.0], labels=0) == pytest.approx(np.log(1.5))
    assert margin(SCR(eta=0.5), [LOG3, 0.0], labels=1) == pytest.approx(np.log(0.5))
    assert SCR(eta=0.75 - 1e-9).holds([[LOG3, 0.0]], labels=[0]).item() is True
    assert SCR(eta=0.75 + 1e-9).holds([[LOG3, 0.0]], labels=[0]).item() is False


logit_rows = st.lists(st.floats(-8, 8), min_size=2, max_size=6)


@given(logits=logit_rows, eta=st.floats(0.05, 0.95), label=st.integers(0, 5))
def test_scr_lies_between_its_enclosures(logits, eta, label):
    logits = torch.tensor([logits], dtype=torch.float64)
    conclusion = SCR(eta=eta).conclusion(logits, torch.tensor([label % logits.shape[1]]))
    row = conclusion.margin(logits).item()
    if conclusion.sufficient().holds(logits).item():
        assert row >= -1e-14
    if row >= 1e-14:
        assert conclusion.necessary().holds(logits).item()


@given(logits=logit_rows, eta=st.floats(0.5, 0.99, exclude_min=True), label=st.integers(0, 5))
def test_scr_implies_cr_above_one_half(logits, eta, label):
    # Casadio et al., section 4.2: a probability above one half is the largest one.
    given = {"logits": [logits], "labels": [label % len(logits)]}
    if SCR(eta=eta).margin(**given) >= 1e-12:
        assert CR().holds(**given).all()


@given(eta=st.floats(0.01, 0.5))
def test_scr_implies_no_cr_up_to_one_half(eta):
    logits = [[np.log(eta), np.log(1 - eta)]]
    assert SCR(eta=eta).margin(logits, labels=[0]) >= -1e-12
    assert not CR().holds(logits, labels=[0]).any()


@given(logits=logit_rows, eta=st.floats(0.05, 0.95), label=st.integers(0, 5))
def test_bounds_of_gaps_bound_the_concave_row(logits, eta, label):
    logits = torch.tensor([logits], dtype=torch.float64)
    conclusion = SCR(eta=eta).conclusion(logits, torch.tensor([label % logits.shape[1]]))
    rows = conclusion.sufficient().values(logits)
    lower = conclusion.lower_margin(rows).item()
    assert lower <= conclusion.margin(logits).item() <= lower + 1e-11
    # Gaps are the rows without their threshold, and a lower gap lowers the bound.
    gaps = conclusion.gaps(rows)
    assert conclusion.margin(logits).item() == pytest.approx(
        -np.log1p(np.exp(-gaps.numpy()).sum()) - np.log(eta), abs=1e-10
    )
    assert (conclusion.lower_margin(rows - 0.1) < lower).all()


def test_enclosures_are_tight_where_they_can_be():
    # All other classes equal: sufficient is exact. One other class: both are.
    gap = np.log(2 * 0.6 / 0.4)
    logits = torch.tensor([[gap, 0.0, 0.0]], dtype=torch.float64)
    conclusion = SCR(eta=0.6).conclusion(logits, torch.tensor([0]))
    for rows in (conclusion, conclusion.sufficient()):
        assert rows.margin(logits).item() == pytest.approx(0, abs=1e-13)
    pair = SCR(eta=0.6).conclusion(logits[:, :2], torch.tensor([0]))
    torch.testing.assert_close(pair.sufficient().b, pair.necessary().b, rtol=0, atol=1e-13)
    assert pair.necessary().b.item() == pytest.approx(-np.log(0.6 / 0.4))


def test_the_concave_row_proves_more_than_the_sufficient_rows():
    # Gaps 1 and 9: the other classes are far from equal, so the sufficient rows are too strict.
    conclusion = SCR(eta=0.6).conclusion(torch.zeros(1, 3, dtype=torch.float64), torch.tensor([0]))
    rows = torch.tensor([[1.0, 9.0]], dtype=torch.float64) + conclusion.sufficient().b
    assert (rows < 0).any()
    assert conclusion.proved(rows).tolist() == [True]
    assert conclusion.proved(torch.full((1, 2), torch.nan).double()).tolist() == [False]


def test_enclosures_follow_a_selection_of_points():
    labels = torch.tensor([0, 2, 1])
    conclusion = SCR(eta=0.6).conclusion(torch.zeros(3, 3), labels)
    index = torch.tensor([2, 0])
    for name in ("sufficient", "necessary"):
        whole, part = getattr(conclusion, name)(), getattr(conclusion[index], name)()
        assert torch.equal(whole.A[index], part.A)
        assert part.A.dtype == torch.float32
        assert not part.uses_distance


@pytest.mark.parametrize(("eta", "is_implied"), [(0.52, True), (0.5, False), (0.3, False)])
def test_scr_implies_cr_only_above_one_half(eta, is_implied):
    # Of two classes, the label has just eta, and the other one the rest.
    logits = [[np.log(eta / (1 - eta)) + (1e-9 if eta != 0.5 else 0.0), 0.0]]
    assert SCR(eta=eta).holds(logits, labels=[0]).item()
    assert CR().holds(logits, labels=[0]).item() is is_implied


def test_scr_compares_probabilities_where_asked_for():
    logits = torch.tensor([[0.0, 0.0], [np.log(3.0), 0.0]], dtype=torch.float64)
    property = SCR(eta=0.6, output="probabilities")
    margin = property.margin(logits, labels=[0, 0])
    np.testing.assert_allclose(margin, [0.5 - 0.6, 0.75 - 0.6])
    # As one comparison of the output itself: max(0, eta - p_y).
    np.testing.assert_allclose(property.loss(logits, labels=[0, 0]), [0.1, 0.0])
    two = SCR(eta=0.6).loss(logits, labels=[0, 0])
    np.testing.assert_allclose(two, [np.log(0.6 / 0.5), 0.0])
    with pytest.raises(ValueError, match="Got output='logits', but expected one of 'log-prob"):
        SCR(output="logits").check()


@given(logits=logit_rows, eta=st.floats(0.05, 0.95), label=st.integers(0, 5))
def test_both_forms_of_scr_are_one_property(logits, eta, label):
    logits = torch.tensor([logits], dtype=torch.float64)
    labels = torch.tensor([label % logits.shape[1]])
    first = SCR(eta=eta).conclusion(logits, labels)
    second = SCR(eta=eta, output="probabilities").conclusion(logits, labels)
    torch.testing.assert_close(
        second.values(logits), torch.softmax(logits, dim=1)[:, labels] - eta, rtol=0, atol=1e-14
    )
    if first.margin(logits).abs() > 1e-14:
        assert torch.equal(first.holds(logits), second.holds(logits))
    rows = second.sufficient().values(logits)
    assert torch.equal(rows, first.sufficient().values(logits))
    lower, exact = second.lower_margin(rows).item(), second.margin(logits).item()
    assert lower <= exact <= lower + 1e-11
    assert second[:1].output == "probabilities"
