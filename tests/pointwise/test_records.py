"""Candidates are confirmed, and the closest is kept."""

import numpy as np

from skrobust.networks import as_network
from skrobust.pointwise import PointwiseStatus, _records
from tests.pointwise._nets import diagonal, plateau


def test_nearer_tie_is_better_than_a_farther_win():
    chunk = _records.Chunk(
        as_network(plateau(), input_shape=(1,)), np.array([[0.25]]), None, None, np.inf
    )
    records, index = _records.Records(1, 1, np.float32), np.array([0])
    records.keep(index, np.array([[0.9]]), np.array([0.65]), PointwiseStatus.FOUND)
    assert _records.keep_near(chunk, records, index, np.array([[0.5]])).all()
    assert records.radius[0] == 0.25


def test_examples_beyond_epsilon_max_are_not_reported():
    # The program ends below the limit, but what rounding asks for on top passes it.
    X = np.array([[0.25, 0.25]])
    network = as_network(diagonal(), input_shape=(2,))
    chunk = _records.Chunk(network, network.check_rows(X), None, None, 0.3)
    records = _records.Records(1, 2, np.float32)
    index = np.array([0])
    for far, expected in ((0.4, False), (0.29, True)):
        kept = _records.keep_confirmed(chunk, records, index, X + far, PointwiseStatus.FOUND)
        assert kept.tolist() == [expected]
        assert np.isfinite(records.radius[0]) == expected
