"""Two properties at once."""

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression

from skrobust.exceptions import UnsupportedPropertyError
from skrobust.properties import (
    Conjunction,
)
from skrobust.scorers import ConstraintAccuracy
from tests.properties._cases import CR, LR, SCR, SR


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
    rows = (CR() & SR()).conclusion(reference, labels).sufficient()
    assert rows.A.shape == (1, 5, 2)
    assert rows.strict.tolist() == [True, False, False, False, False]
    mixed = (CR() & SR(output="probabilities")).conclusion(reference, labels)
    with pytest.raises(UnsupportedPropertyError, match="different outputs"):
        mixed.sufficient()


def test_setting_parameters_leaves_the_parts_alone():
    left, right = CR(0.1), SCR(0.1, 0.6)
    both = left & right
    both.set_params(epsilon=0.3, right__eta=0.7, left__reference="prediction")
    assert (left, right) == (CR(0.1), SCR(0.1, 0.6))
    assert both == CR(0.3, reference="prediction") & SCR(0.3, 0.7)
    left.set_params(epsilon=0.5)
    assert both.left.epsilon == 0.3
    left.set_params(epsilon=0.1)
    inner = Conjunction(left, right)
    outer = inner & SR(0.1)
    outer.set_params(norm="l2", left__right__eta=0.8)
    assert inner == CR(0.1) & SCR(0.1, 0.6)
    assert outer.left.right == SCR(0.1, 0.8, norm="l2")
    assert (both.with_epsilon(0.4).epsilon, both.epsilon) == (0.4, 0.3)


def test_a_part_can_be_replaced_and_set_at_once():
    fresh = SR(0.1)
    both = (CR(0.1) & SR(0.1)).set_params(right=fresh, right__delta=2.0)
    assert (both.right.delta, fresh.delta) == (2.0, 10.0)


def test_all_that_is_listed_can_be_set_and_nothing_else():
    both = CR(0.1) & SCR(0.1, 0.6) & SR(0.1)
    names = both.get_params()
    assert {"epsilon", "norm", "bounds", "left__right__eta", "right__delta"} <= set(names)
    assert set(both.get_params(deep=False)) == {"left", "right"}
    for name, value in names.items():
        assert clone(both).set_params(**{name: value}) == both
    for name in ("reference", "eta", "left__delta", "middle"):
        assert name not in names
        with pytest.raises(ValueError, match="Invalid parameter"):
            clone(both).set_params(**{name: 0.5})


def test_a_search_reaches_the_ball_and_the_parts(blobs):
    X, y = blobs
    scorer = ConstraintAccuracy(CR(0.1) & SCR(0.1, 0.6), n_samples=5, random_state=0)
    model = LogisticRegression().fit(X, y)
    scores = [
        clone(scorer).set_params(**{name: value})(model, X, y)
        for name, value in (("property__epsilon", 0.0), ("property__right__eta", 0.999))
    ]
    assert scores[0] > 0.5 > scores[1] == 0.0
    assert scorer.property == CR(0.1) & SCR(0.1, 0.6)


def test_conjunctions_read_as_they_are_written():
    a, b, c = CR(0.2), SR(0.2), LR(0.2)
    assert repr(a & b) == (
        "ClassificationRobustness(epsilon=0.2) & StandardRobustness(epsilon=0.2)"
    )
    assert repr(a & b & c) == f"{a!r} & {b!r} & {c!r}"
    assert repr(a & (b & c)) == f"{a!r} & ({b!r} & {c!r})"
    assert repr(Conjunction(a, 0.1)) == f"{a!r} & 0.1"


def test_different_balls_of_many_features_are_not_printed():
    many = np.linspace(0, 1, 784)
    with pytest.raises(
        ValueError, match=r"epsilon=ndarray of shape \(784,\) on the left"
    ) as raised:
        (CR(many) & SR(many + 0.1)).check()
    assert len(str(raised.value)) < 300


def test_the_enclosure_of_a_conjunction_is_that_of_its_parts():
    rng = np.random.default_rng(0)
    reference = torch.tensor(rng.normal(size=(4, 3)))
    labels = torch.tensor([0, 1, 2, 0])
    parts = [p.conclusion(reference, labels) for p in (CR(), SCR(eta=0.6), SR(delta=0.5))]
    both = (CR() & SCR(eta=0.6) & SR(delta=0.5)).conclusion(reference, labels)
    assert not both.is_linear
    logits = torch.tensor(rng.normal(size=(4, 3)))
    lower = both.sufficient().values(logits)
    pieces = lower.split([2, 2, 6], dim=1)
    for part, piece in zip(parts, pieces, strict=True):
        torch.testing.assert_close(part.sufficient().values(logits), piece)
    margins = torch.stack([p.lower_margin(v) for p, v in zip(parts, pieces, strict=True)])
    torch.testing.assert_close(both.lower_margin(lower), margins.amin(dim=0))
    gaps = torch.cat([p.gaps(v) for p, v in zip(parts, pieces, strict=True)], dim=1)
    torch.testing.assert_close(both.gaps(lower), gaps)
    proved = torch.stack([p.proved(v) for p, v in zip(parts, pieces, strict=True)]).all(dim=0)
    assert torch.equal(both.proved(lower), proved)
    assert both.necessary().b.shape == (4, 10)
    # Linear rows together, and then each concave one.
    rows, concave = both.parts()
    assert rows.is_linear and rows.b.shape == (4, 8)
    torch.testing.assert_close(concave.values(logits), parts[1].values(logits))
    assert [part.is_linear for part in (SCR() & SCR()).trial(3).parts()] == [False, False]


def test_conjunction_class_is_public():
    assert isinstance(CR() & SR(), Conjunction)
