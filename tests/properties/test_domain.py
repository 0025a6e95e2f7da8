"""Domains: which points are valid, what contradicts itself, and what data are refused."""

import numpy as np
import pandas as pd
import pytest
from sklearn.base import clone

from skrobust.properties import ClassificationRobustness, Domain, LipschitzRobustness
from skrobust.scorers import AdversarialFrequency, ViolationProbability

NAMES = ["age", "clerk", "baker", "income"]
LOW, HIGH = [18, 0, 0, 0], [60, 1, 1, 90]


def domain(**options):
    plain = {"integers": ["age"], "one_hot": [["clerk", "baker"]], "feature_names": NAMES}
    return Domain(LOW, HIGH, **plain | options)


def test_valid_points_by_hand():
    points = [
        [20, 1, 0, 3.5],
        [20.5, 1, 0, 3.5],
        [20, 1, 1, 3.5],
        [20, 0, 0, 3.5],
        [20, 0.5, 0.5, 3.5],
        [17, 1, 0, 3.5],
    ]
    assert domain().holds(points).tolist() == [True] + [False] * 5
    older = domain(constraints=([[1, 0, 0, -1]], [17]))  # age <= income + 17
    assert older.holds([[20, 1, 0, 3], [20, 1, 0, 2.9]]).tolist() == [True, False]
    assert older.holds([[20, 1, 0, 2.9]], widened_to=[[20, 1, 0, 2.9]]).all()
    assert domain().discrete.tolist() == [0, 1, 2] and not domain().is_box
    assert Domain(0, 1).is_box and Domain(0, 1).box == (0.0, 1.0)


def test_a_frame_says_its_own_domain():
    frame = pd.DataFrame([[20, 1, 0, 3.5], [44, 0, 1, 9.0]], columns=NAMES)
    frame = frame.astype({"age": int, "clerk": int, "baker": int})
    spanned = Domain.from_frame(frame, one_hot=[["clerk", "baker"]])
    assert spanned.integer_places == [0] and spanned.groups == [[1, 2]]
    assert [side.tolist() for side in spanned.box] == [[20, 0, 0, 3.5], [44, 1, 1, 9]]
    assert spanned.places("feature", "income") == [3]


def test_domains_are_values():
    property = ClassificationRobustness(1.0, bounds=domain())
    assert clone(property) == property
    assert property != ClassificationRobustness(1.0, bounds=domain(integers=[]))
    assert domain() != (0.0, 1.0)
    assert "integers=[0]" in repr(domain()) and "one_hot=[[1, 2]]" in repr(domain())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"integers": ["size"]}, "Got integers=.*names among"),
        ({"integers": [9]}, "places from 0 to 3"),
        ({"integers": 3}, "Got integers=3"),
        ({"one_hot": [["clerk"]]}, "groups of at least two features"),
        ({"one_hot": [["clerk", "baker"], ["baker", "age"]]}, "no feature in two"),
        ({"one_hot": [["age", "baker"]]}, "bounds from 18.0 to 60.0 of feature 'age'.*hold 0 and"),
        ({"feature_names": NAMES[:3]}, "numbers of features"),
        ({"constraints": ([[1.0, 0.0]], [1.0])}, "numbers of features"),
        ({"constraints": ([[np.nan] * 4], [1.0])}, "finite arrays"),
        ({"constraints": "age < 3"}, "Got constraints='age < 3'"),
        ({"constraints": (np.ones((2, 4)), [1.0])}, r"shapes \(2, 4\) and \(1,\)"),
    ],
)
def test_bad_parts_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        domain(**options)


def test_contradictions_are_named():
    A = [[1, 0, 0, 0], [0, 0, 0, 1], [-1, 0, 0, 0]]
    with pytest.raises(ValueError, match=r"no point .*: 0 \(\+1 'age' <= 30\), 2 \(-1 'age' <= -"):
        domain(constraints=(A, [30, 50, -31]))
    # Only because ages are whole.
    domain(constraints=(A, [30.9, 50, -30.1]), integers=[])
    with pytest.raises(ValueError, match="constraints that no point"):
        domain(constraints=(A, [30.9, 50, -30.1]))
    # Only because one is 1.
    with pytest.raises(ValueError, match="integers and groups"):
        domain(constraints=([[0, 1, 1, 0]], [0.5]))
    with pytest.raises(ValueError, match="some whole number between them"):
        Domain(0.2, 0.8, integers=[0])
    with pytest.raises(ValueError, match="low <= high"):
        Domain([1, 2], [2, 1])


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ([20.5, 1, 0, 3], "1 of 2 rows of X with a fraction in feature 'age'"),
        ([20, 0, 0, 3], r"'clerk', 'baker', such as \[0.0, 0.0\] in row 1 \(a category that"),
        ([20, 1, 1, 3], "are no one-hot code"),
        ([20, 1, 0, 91], "1 of 2 rows of X lie outside"),
        ([59, 1, 0, 3], "break the constraint 0"),
        ([20, 1, 0], r"bounds=arrays of shapes \(4,\)"),
    ],
)
def test_data_that_are_not_valid_are_refused(row, message):
    property = ClassificationRobustness(1.0, bounds=domain(constraints=([[1, 0, 0, -1]], [50])))
    X = np.array([[20, 1, 0, 3][: len(row)], row], dtype=float)
    with pytest.raises(ValueError, match=message):
        property.check(X)


def test_what_treats_boxes_alone_refuses():
    for property in (
        ClassificationRobustness(1.0, norm="l2", bounds=domain()),
        LipschitzRobustness(1.0, bounds=domain()),
    ):
        with pytest.raises(ValueError, match=r"Use bounds=\(domain.lower, domain.upper\)"):
            property.check()
    scorer = ViolationProbability(ClassificationRobustness(1.0, bounds=domain()))
    with pytest.raises(ValueError, match="Use ConstraintAccuracy"):
        scorer.evaluate(None, [[0.0]])
    with pytest.raises(ValueError, match="Got bounds=Domain"):
        AdversarialFrequency(0.1, bounds=Domain(0, 1, integers=[0])).evaluate(_model(), [[0.0]])


def _model():
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression().fit([[0.0], [1.0]], [0, 1])
