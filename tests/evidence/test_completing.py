"""Proofs by bounds alone, completed: rows, mixtures, and the distances of slopes."""

import numpy as np

from skrobust.evidence import _checker, completed, why_rejected
from tests.evidence._examples import DIGEST, claim, ramp


def accepted(arrays, pieces=None):
    net = _checker.Network(ramp(), False)
    return why_rejected(arrays | completed(arrays, net, pieces), net, DIGEST) is None


def test_the_best_row_of_each_clause_is_taken():
    arrays = claim([[1.0], [1.0]], [-1.0, 0.1], clause=[0, 0])
    assert completed(arrays, _checker.Network(ramp(), False))["row"].tolist() == [1]
    assert accepted(arrays)
    assert completed(claim([[1.0]], [0.1]), _checker.Network(ramp(), False)) == {}


def test_slopes_are_taken_as_far_as_they_prove():
    rows = {"distance": [0.7, 0.7], "anchored": [1, 1]}
    arrays = claim([[1.0], [-1.0]], [0.0, 0.0], center=[-0.4], **rows)
    assert accepted(arrays)  # by slopes over all of the ball
    assert not accepted(arrays | {"distance": np.array([0.5, 0.5])})  # false at 0.6


def test_mixtures_that_are_given_are_tried():
    arrays = claim([[1.0], [-1.0]], [-0.3, 0.7], clause=[0, 0])
    piece = {"clauses": [0], "near": 0.0, "far": 2.0, "by_slopes": False}
    assert not accepted(arrays)  # relu(x) - 0.3, 0.7 - relu(x): their mean is 0.2
    assert accepted(arrays, [piece | {"arrays": {"mixtures": np.array([[0.5, 0.5]])}}])
