"""Claims: rows of properties as arrays, and what they are held against."""

from fractions import Fraction

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from skrobust.evidence import check, claimed_rows, joined_rows
from skrobust.evidence._claims import _beside, asked
from skrobust.graphs import read_graph
from skrobust.networks import as_network
from skrobust.properties import ClassificationRobustness, StandardRobustness
from skrobust.properties import StrongClassificationRobustness as Strong
from skrobust.verification import Bounds

X, Y = np.array([[0.2], [0.4], [0.6], [0.8]]), np.array([0, 0, 1, 1])


@pytest.fixture(scope="module")
def model():
    return LogisticRegression(C=1e3).fit(X, Y)


def test_rows_of_parts_are_joined(model):
    network = as_network(model)
    graph, property = read_graph(network, 1), Strong(0.1, eta=0.25) & StandardRobustness(0.1, 1.0)
    x = network.rows(X[:1])
    _, conclusion = asked(network, graph, property, x, network.encode(Y[:1]))
    rows = joined_rows(claimed_rows(graph, property.outer_ball(x), conclusion, True))
    assert rows["limit"].tolist() == [0, 0, 0, 0, 3]  # (1 - 1/4) / (1/4), after the linear rows
    assert rows["clause"].tolist() == [0, 1, 2, 3, 4]
    assert "distance" not in rows


def test_floats_beside_fractions():
    for side in (-1, 1):
        near = _beside(Fraction(1, 3), side)
        assert side * (Fraction(near) - Fraction(1, 3)) > 0
        assert abs(near - 1 / 3) < 1e-15
        assert _beside(Fraction(3), side) == 3.0


def test_files_are_held_against_a_property(model, tmp_path):
    property = ClassificationRobustness(0.05)
    Bounds().verify(model, X, Y, property=property, evidence=tmp_path)
    assert check(tmp_path, model, X, Y, property=property).is_accepted
    wider = check(tmp_path, model, X, Y, property=ClassificationRobustness(0.06))
    assert not wider.accepted.any()
    assert "not about the property" in wider.messages[0]
    turned = check(tmp_path, model, X, 1 - Y, property=property)
    assert not turned.accepted.any()
    elsewhere = check(tmp_path, model, X + 0.01, Y, property=property)
    assert "none of the points" in elsewhere.messages[0]
    with pytest.raises(ValueError, match="property"):
        check(tmp_path, model, property=property)


def test_sides_of_a_property_are_held_against_files(model, tmp_path):
    down_more, up_more = (ClassificationRobustness(e) for e in ((0.06, 0.03), (0.03, 0.06)))
    result = Bounds().verify(model, X, Y, property=down_more, evidence=tmp_path)
    assert (result.verdicts == "verified").sum() >= 2
    assert check(tmp_path, model, X, Y, property=down_more).is_accepted
    turned = check(tmp_path, model, X, Y, property=up_more)
    assert not turned.accepted.any()
    wider = check(tmp_path, model, X, Y, property=ClassificationRobustness(0.06))
    assert "not about the property" in wider.messages[0]
