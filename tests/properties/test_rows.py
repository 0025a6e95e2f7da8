"""Properties given by their own rows."""

import re

import numpy as np
import pytest
import torch
from sklearn.base import clone

from skrobust.properties import (
    LinearRobustness,
)
from tests.properties._cases import CR, LOG3, ROWS, margin, sum_rows


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


def test_rows_for_another_number_of_classes():
    with pytest.raises(ValueError, match=r"shapes \(1, 2, 3\).*expected \(1, m, 2\)"):
        LinearRobustness(ROWS).margin([[0.0, 1.0]])
    with pytest.raises(ValueError, match=r"shapes \(1, 2, 3\).*expected \(1, m, 10\)"):
        LinearRobustness(ROWS).check(n_classes=10)
    with pytest.raises(ValueError, match=r"expected \(1, m, 10\)"):
        (CR() & LinearRobustness(ROWS)).check(n_classes=10)
    assert LinearRobustness(ROWS).check(n_classes=3) == LinearRobustness(ROWS)


def returning(rows):
    """A property whose callable returns `rows`, whatever it is asked."""
    return LinearRobustness(lambda logits, labels: rows)


def test_a_callable_may_leave_out_the_distance():
    with_c = returning((torch.ones(2, 1, 3), torch.zeros(2, 1), torch.ones(2, 1)))
    without = returning((torch.ones(2, 1, 3), torch.ones(2, 1)))
    logits = [[1.0, 2.0, 3.0], [0.0, -1.0, 0.0]]
    assert without.margin(logits).tolist() == with_c.margin(logits).tolist() == [7.0, 0.0]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (None, "Got rows that return None, but expected a callable that returns finite tensors"),
        (3.0, "Got rows that return 3.0, but expected"),
        ("rows", "Got rows that return 'rows', but expected"),
        ((torch.ones(1, 1, 2),), "Got rows that return a tuple of 1, but expected"),
        ((torch.ones(1, 1, 2), None), "Got rows that return a tuple of 2, but expected"),
        ((torch.full((1, 1, 2), torch.nan), torch.ones(1, 1)), "Got rows that return NaN or inf"),
        ((torch.ones(1, 1, 2), torch.full((1, 1), torch.inf)), "Got rows that return NaN or inf"),
        ((torch.ones(1, 0, 2), torch.ones(1, 0)), "with m at least 1"),
        ((torch.ones(1, 2), torch.ones(1)), "Got rows A, c, b of shapes (1, 2), (1,), (1,)"),
    ],
)
def test_a_callable_that_returns_the_wrong_thing(rows, message):
    property = returning(rows)
    for reading in (lambda: property.margin([[0.0, 1.0]]), lambda: property.check(n_classes=2)):
        with pytest.raises(ValueError, match=re.escape(message)):
            reading()


def test_outputs_that_have_diverged_are_not_blamed_on_the_rows():
    property = LinearRobustness(sum_rows)
    assert not property.holds([[np.nan, 0.0]]).item()


@pytest.mark.parametrize(
    "rows", [([], []), (np.empty((0, 3)), []), (np.ones((2, 3)), [1.0]), ([[10**400]], [0.0])]
)
def test_constant_rows_that_are_none_are_refused(rows):
    with pytest.raises(ValueError, match=r"Got rows=.*with m at least 1"):
        LinearRobustness(rows).check()


def test_many_constant_rows_are_not_printed():
    with pytest.raises(ValueError, match="all finite") as raised:
        LinearRobustness((np.full((50, 100), np.nan), np.zeros(50))).check()
    assert len(str(raised.value)) < 500


def test_strict_is_a_truth_value():
    with pytest.raises(ValueError, match="Got strict='no', but expected True or False"):
        LinearRobustness(ROWS, strict="no").check()
    some = LinearRobustness(([[1.0, 0.0], [0.0, 1.0]], [0.0, 0.0]), strict=[True, False])
    holds = some.holds([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0], [1.0, -1.0]])
    np.testing.assert_array_equal(holds, [True, False, False, False])
    assert clone(some.check()).strict == [True, False]
    for strict in ([True], [1, 0], [[True, False]]):
        with pytest.raises(ValueError, match=r"Got strict=.*one for each of 2 rows"):
            some.set_params(strict=strict).check()


def test_of_the_rows_of_a_clause_one_is_enough():
    rows = [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]], [0.0, 0.0, 0.0]
    either = LinearRobustness(rows, clauses=[[0, 1], [2]])
    # max(z0, z1) and z2.
    logits = [[-1.0, 2.0, 1.0], [3.0, -4.0, -0.5], [-1.0, -2.0, 5.0]]
    np.testing.assert_array_equal(either.margin(logits), [1.0, -0.5, -1.0])
    np.testing.assert_array_equal(either.holds(logits), [True, False, False])
    # DL2: a product in the clause, a sum of clauses.
    np.testing.assert_array_equal(either.loss(logits), [0.0, 0.5, 2.0])
    same = LinearRobustness(rows, clauses=[[0], [1], [2]])
    np.testing.assert_array_equal(same.margin(logits), LinearRobustness(rows).margin(logits))
    conclusion = either.trial(3)
    assert conclusion.clauses.tolist() == [[0, 1], [2, 2]]
    assert clone(either) == either != same


def test_bad_clauses_are_named():
    rows = [[1.0, 0.0]], [0.0]
    for clauses in ([], [[]], [[0], []], [[1]], [[-1]], [[0.5]], 3, [0], [["a"]]):
        with pytest.raises(ValueError, match=r"Got clauses=.*lists of places from 0 to 0"):
            LinearRobustness(rows, clauses=clauses).check()

    def given(outputs, labels):
        return torch.ones(len(labels), 1, 2), torch.ones(len(labels), 1)

    with pytest.raises(ValueError, match="from 0 to 0"):
        LinearRobustness(given, clauses=[[1]]).margin([[1.0, 2.0]])
    assert LinearRobustness(given, clauses=[[0, 0]]).margin([[1.0, 2.0]]).item() == 4.0
