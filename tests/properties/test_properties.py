"""Properties: rows worked by hand, and the behaviour of value objects."""

import pickle
import re

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.base import clone

from skrobust.exceptions import UnsupportedPropertyError
from skrobust.logics import STL, Goedel
from skrobust.properties import (
    ClassificationRobustness,
    Conjunction,
    LinearRobustness,
    LipschitzRobustness,
    StandardRobustness,
    StrongClassificationRobustness,
)

CR, SR, LR = ClassificationRobustness, StandardRobustness, LipschitzRobustness
SCR = StrongClassificationRobustness
LOG3 = np.log(3.0)
ROWS = ([[1.0, 0.0, -1.0], [0.0, 2.0, 0.0]], [0.5, -1.0], [2.0, 3.0])


def sum_rows(reference_logits, labels):
    """One row a point: the sum of the outputs is at least that at the reference point."""
    A = torch.ones(len(labels), 1, reference_logits.shape[1])
    b = -reference_logits.sum(dim=1, keepdim=True)
    return A, torch.zeros_like(b), b


def margin(property, logits, **given):
    given = {name: [value] for name, value in given.items()}
    return property.margin([logits], **given).item()


# ---- margins by hand --------------------


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


def test_sr_margin():
    # Changes of +0.5 and -1.5 against delta = 1.
    changes = {"reference_logits": [1.0, 2.0]}
    assert margin(SR(delta=1.0), [1.5, 0.5], **changes) == -0.5
    assert margin(SR(delta=2.0), [1.5, 0.5], **changes) == 0.5
    assert SR(delta=1.5).holds([[1.5, 0.5]], reference_logits=[[1.0, 2.0]]).item() is True


def test_sr_of_probabilities():
    # Probabilities 3/4 and 1/4 against 1/2 and 1/2.
    property = SR(delta=0.3, output="probabilities")
    found = margin(property, [LOG3, 0.0], reference_logits=[7.0, 7.0])
    assert found == pytest.approx(0.05)


def test_lr_margin():
    changes = {"reference_logits": [1.0, 2.0]}
    assert margin(LR(lipschitz=2.0), [1.5, 0.5], distance=0.5, **changes) == -0.5
    assert margin(LR(lipschitz=4.0), [1.5, 0.5], distance=0.5, **changes) == 0.5
    # At the reference point itself the rows hold with equality.
    assert margin(LR(), [1.0, 2.0], **changes) == 0.0
    assert LR().holds([[1.0, 2.0]]).item() is True


def test_lr_of_probabilities():
    property = LR(lipschitz=1.0, output="probabilities")
    found = margin(property, [LOG3, 0.0], reference_logits=[0.0, 0.0], distance=0.5)
    assert found == pytest.approx(0.25)


def test_scr_margin():
    assert margin(SCR(eta=0.5), [LOG3, 0.0], labels=0) == pytest.approx(np.log(1.5))
    assert margin(SCR(eta=0.5), [LOG3, 0.0], labels=1) == pytest.approx(np.log(0.5))
    assert SCR(eta=0.75 - 1e-9).holds([[LOG3, 0.0]], labels=[0]).item() is True
    assert SCR(eta=0.75 + 1e-9).holds([[LOG3, 0.0]], labels=[0]).item() is False


def test_custom_rows():
    # z0 - z2 + d / 2 + 2 and 2 z1 - d + 3.
    property = LinearRobustness(ROWS)
    assert margin(property, [0.0, 1.0, 1.0], distance=2.0) == 2.0
    assert margin(property, [0.0, -1.0, 0.0], distance=2.0) == -1.0
    without_distance = LinearRobustness((ROWS[0], ROWS[2]))
    assert margin(without_distance, [0.0, -1.0, 0.0], distance=9.0) == 1.0


def test_custom_rows_from_a_callable():
    property = LinearRobustness(sum_rows)
    assert margin(property, [1.0, 1.0], reference_logits=[0.0, 3.0]) == -1.0
    labelled = LinearRobustness(sum_rows, reference="label")
    assert labelled.needs_labels and not property.needs_labels


def test_strict_custom_rows():
    rows = ([[1.0, -1.0]], [0.0])
    assert LinearRobustness(rows).holds([[1.0, 1.0]]).item() is True
    assert LinearRobustness(rows, strict=True).holds([[1.0, 1.0]]).item() is False


def test_custom_rows_for_probabilities():
    # The last class never has a probability above 0.3.
    property = LinearRobustness(([[0.0, -1.0]], [0.3]), output="probabilities")
    assert margin(property, [LOG3, 0.0]) == pytest.approx(0.05)
    assert property.needed_outputs == {"probabilities"}


def test_nan_outputs_do_not_hold():
    for property in (CR(), SR(), LR(), SCR()):
        assert not property.holds([[np.nan, 0.0]], labels=[0]).item()


@pytest.mark.parametrize("property", [CR(), SR(delta=1.0), LR(lipschitz=2.0)], ids=repr)
def test_linear_rows_are_the_margin(property):
    rng = np.random.default_rng(0)
    logits, reference = (torch.tensor(rng.normal(size=(5, 3))) for _ in range(2))
    distance, labels = torch.rand(5, dtype=torch.float64), torch.tensor([0, 1, 2, 0, 1])
    rows = property.conclusion(reference, labels).linear_rows()
    values = torch.einsum("nmk,nk->nm", rows.A, logits) + rows.c * distance[:, None] + rows.b
    found = property.margin(logits, reference_logits=reference, distance=distance, labels=labels)
    np.testing.assert_allclose(found, values.min(dim=1).values)
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


# ---- strong classification robustness and its enclosures --------------------

logit_rows = st.lists(st.floats(-8, 8), min_size=2, max_size=6)


@given(logits=logit_rows, eta=st.floats(0.05, 0.95), label=st.integers(0, 5))
def test_scr_lies_between_its_enclosures(logits, eta, label):
    label %= len(logits)
    property = SCR(eta=eta)
    inner = margin(property.sufficient(len(logits)), logits, labels=label)
    exact = margin(property, logits, labels=label)
    outer = margin(property.necessary(), logits, labels=label)
    if inner >= 1e-9:
        assert exact > 0
    if exact >= 1e-9:
        assert outer > 0


def test_enclosures_are_tight_where_they_can_be():
    # All other classes equal: sufficient is exact. One other class: both are.
    gap = np.log(2 * 0.6 / 0.4)
    assert margin(SCR(eta=0.6).sufficient(3), [gap, 0.0, 0.0], labels=0) == pytest.approx(0)
    assert margin(SCR(eta=0.6), [gap, 0.0, 0.0], labels=0) == pytest.approx(0)
    assert SCR(eta=0.6).sufficient(2).rows == SCR(eta=0.6).necessary().rows


def test_enclosures_keep_ball_and_reference():
    property = SCR([0.1, 0.2], eta=0.7, norm="l2", bounds=None, reference="prediction")
    for enclosure in (property.sufficient(4), property.necessary()):
        assert (enclosure.epsilon, enclosure.norm, enclosure.bounds) == ([0.1, 0.2], "l2", None)
        assert enclosure.reference == "prediction"
        assert enclosure == pickle.loads(pickle.dumps(enclosure))
    with pytest.raises(UnsupportedPropertyError, match=r"concave.*sufficient\(\) and necessary"):
        SCR().conclusion(torch.zeros(1, 3), torch.tensor([0])).linear_rows()


# ---- conjunctions --------------------


def test_conjunction_is_the_lower_margin():
    both = CR() & SR(delta=1.0)
    given = {"labels": [0, 0], "reference_logits": [[1.0, 0.0], [1.0, 0.0]]}
    logits = [[1.5, 1.0], [0.5, 0.25]]  # margins 0.5 and 0, then 0.25 and 0.5
    np.testing.assert_array_equal(both.margin(logits, **given), [0.0, 0.25])
    np.testing.assert_array_equal(both.holds(logits, **given), [True, True])
    # The strictness stays with the rows: a tie breaks CR, not SR.
    assert not both.holds([[1.0, 1.0]], labels=[0], reference_logits=[[1.0, 1.0]]).item()


def test_conjunction_needs_what_its_parts_need():
    assert (CR() & SR()).needs_labels
    assert not (CR(reference="prediction") & SR()).needs_labels
    assert (CR() & SCR()).needed_outputs == {"labels", "probabilities"}
    assert (SR() & SCR()).needed_outputs == {"logits", "probabilities"}
    mixed = CR(reference="prediction") & CR()
    # At [0, 1], the prediction is 1 and the label 0.
    assert mixed.margin([[0.0, 1.0]], labels=[0]).item() == -1.0
    assert (CR(reference="prediction") & SR()).margin([[0.0, 1.0]]).item() == 1.0


def test_conjunction_sets_the_ball_of_both():
    both = (CR(0.1) & SR(0.1)) & LR(0.1)
    both.set_params(epsilon=0.3, norm="l2", bounds=None, left__right__delta=7.0)
    for part in (both.left.left, both.left.right, both.right):
        assert (part.epsilon, part.norm, part.bounds) == (0.3, "l2", None)
    assert both.left.right.delta == 7.0
    assert (both.epsilon, both.norm, both.bounds) == (0.3, "l2", None)


def test_conjunction_of_different_balls_is_refused():
    with pytest.raises(ValueError, match=r"epsilon=0.1 on the left and epsilon=0.2 on the right"):
        (CR(0.1) & SR(0.2)).check()
    with pytest.raises(ValueError, match=r"norm='linf' on the left and norm='l2'"):
        (CR() & SR(norm="l2")).check()
    with pytest.raises(TypeError, match=r"Got right=0.1, but expected a RobustnessProperty"):
        (CR() & 0.1).check()


def test_conjunction_linear_rows():
    reference, labels = torch.tensor([[1.0, 0.0]]), torch.tensor([0])
    rows = (CR() & SR()).conclusion(reference, labels).linear_rows()
    assert rows.A.shape == (1, 5, 2)
    assert rows.strict.tolist() == [True, False, False, False, False]
    mixed = (CR() & SR(output="probabilities")).conclusion(reference, labels)
    with pytest.raises(UnsupportedPropertyError, match="different outputs"):
        mixed.linear_rows()


# ---- value objects --------------------

PROPERTIES = [
    CR(0.05, norm="l2", reference="prediction"),
    SR([0.1, 0.0], delta=2.0, output="probabilities"),
    LR(0.1, 3.0, bounds=None),
    SCR(0.1, 0.9, bounds=([0.0, 0.0], [1.0, 2.0])),
    LinearRobustness(ROWS, np.array([0.1, 0.2])),
    LinearRobustness(sum_rows, reference="label", strict=True),
    CR() & SR(),
]


@pytest.mark.parametrize("property", PROPERTIES, ids=lambda p: type(p).__name__)
@pytest.mark.parametrize("copy", [clone, lambda p: pickle.loads(pickle.dumps(p))])
def test_copies_are_equal(property, copy):
    copied = copy(property)
    assert copied is not property
    assert copied == property
    assert (copied != property) is False
    assert copied.check() == property


@pytest.mark.parametrize("property", PROPERTIES, ids=lambda p: type(p).__name__)
def test_with_epsilon_changes_a_copy_only(property):
    before = clone(property)
    other = property.with_epsilon(0.25)
    assert other.epsilon == 0.25
    assert property == before
    assert other != property


def test_parameters():
    property = SR(0.2, delta=3.0)
    assert property.get_params() == {
        "epsilon": 0.2,
        "delta": 3.0,
        "norm": "linf",
        "bounds": (0.0, 1.0),
        "reference": "label",
        "output": "logits",
    }
    assert property.set_params(delta=1.0) is property
    assert property.delta == 1.0
    assert (CR() & property).get_params()["right__delta"] == 1.0
    with pytest.raises(ValueError, match="Invalid parameter 'radius'"):
        property.set_params(radius=1)


def test_equality():
    assert CR(0.1) == CR(0.1)
    assert CR(0.1) != CR(0.2)
    assert CR(0.1) != SCR(0.1)
    assert CR([0.1, 0.2]) == CR(np.array([0.1, 0.2]))
    assert CR([0.1, 0.2]) != CR([0.1, 0.3])
    assert CR(0.1) != CR([0.1])
    assert CR(bounds=None) != CR()
    assert CR() & SR() == CR() & SR()
    assert CR() & SR() != SR() & CR()
    assert CR() != 0.1
    with pytest.raises(TypeError, match="unhashable"):
        hash(CR())


def test_repr_shows_what_differs_from_the_defaults():
    assert repr(CR(0.05)) == "ClassificationRobustness(epsilon=0.05)"
    assert repr(SR(delta=1.0, norm="l2")) == "StandardRobustness(delta=1.0, norm='l2')"
    shown = repr(CR(0.2) & SR(0.2))
    assert "ClassificationRobustness(epsilon=0.2)" in shown
    assert "StandardRobustness(epsilon=0.2)" in shown


# ---- refusals --------------------


@pytest.mark.parametrize(
    ("property", "message"),
    [
        (CR(-0.1), "Got epsilon=-0.1, but expected a non-negative finite float"),
        (CR(np.nan), "Got epsilon=nan, but expected a non-negative finite float"),
        (CR(bounds=(1, 0)), "Got bounds=(1, 0), but expected low <= high"),
        (CR(bounds="unit"), "Got bounds='unit', but expected None, or a pair"),
        (CR(norm="l1"), "Got norm='l1', but expected one of 'linf', 'l2'"),
        (CR(reference="truth"), "Got reference='truth', but expected one of 'label'"),
        (SR(delta=-1), "Got delta=-1, but expected a finite number in [0, inf)"),
        (SR(output="scores"), "Got output='scores', but expected one of 'logits'"),
        (LR(lipschitz=0), "Got lipschitz=0, but expected a finite number in (0, inf)"),
        (LR(lipschitz=np.nan), "Got lipschitz=nan, but expected a finite number"),
        (SCR(eta=0), "Got eta=0, but expected a finite number in (0, 1)"),
        (SCR(eta=1.0), "Got eta=1.0, but expected a finite number in (0, 1)"),
        (LinearRobustness(3), "Got rows=3, but expected a callable, or arrays"),
        (LinearRobustness(([1.0], [1.0])), "but expected a callable, or arrays (A, b)"),
        (LinearRobustness(([[np.nan]], [1.0])), "all finite"),
        (LinearRobustness(ROWS, output="z"), "Got output='z', but expected one of 'logits'"),
    ],
)
def test_bad_parameters(property, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        property.check()
    with pytest.raises(ValueError, match=re.escape(message)):
        (property & property).check()


def test_data_that_do_not_fit():
    X = np.array([[0.5, 0.5], [0.5, 1.5]])
    with pytest.raises(ValueError, match=r"1 of 2 rows of X lie outside, by up to 0\.5"):
        CR().check(X)
    with pytest.raises(ValueError, match=r"shape \(3,\).*shape \(2,\)"):
        CR([0.1, 0.1, 0.1], bounds=None).check(X)
    assert CR([0.1, 0.0], bounds=(0, 2)).check(X) == CR([0.1, 0.0], bounds=(0, 2))


def test_labels_that_are_missing():
    with pytest.raises(ValueError, match=r"needs the true labels.*reference='prediction'"):
        CR().margin([[0.0, 1.0]])
    with pytest.raises(ValueError, match="needs the true labels"):
        (SR() & CR()).margin([[0.0, 1.0]])


def test_rows_for_another_number_of_classes():
    with pytest.raises(ValueError, match=r"shapes \(1, 2, 3\).*expected \(1, m, 2\)"):
        LinearRobustness(ROWS).margin([[0.0, 1.0]])


def test_conjunction_class_is_public():
    assert isinstance(CR() & SR(), Conjunction)
