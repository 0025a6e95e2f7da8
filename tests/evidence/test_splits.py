"""Trees of splits: which rows their leaves may prove, and how many bounds these have."""

import numpy as np
import pytest

from skrobust.evidence import _checker
from skrobust.evidence._rules import Rejected
from skrobust.evidence._splits import Proof
from tests.evidence._examples import claim, ramp


def proof(**arrays):
    net = _checker.Network(ramp(), False)
    claimed = claim([[1.0], [-1.0], [2.0]], [0.0, 2.0, 1.0], clause=[0, 0, 1], limit=[2.0, 0.0])
    rows = _checker.Rows(claimed, 1)
    ball = _checker.Ball(claimed, "linf", 1)
    return Proof(_checker.with_rows(net, rows, ball), rows, [0, 1], arrays)


def test_clauses_with_a_limit_have_bounds_of_all_rows():
    assert proof().counts.tolist() == [2, 1]
    assert proof().first.tolist() == [0, 2]
    assert proof(**{"slopes.2": np.zeros((3, 1))}).alphas[2].shape == (3, 1)
    with pytest.raises(Rejected, match="slopes"):
        proof(**{"slopes.2": np.zeros((2, 1))})


def test_splits_are_of_what_units_read():
    zeros = {name: np.zeros(4) for name in ("row", "unit", "tightens")}
    with pytest.raises(Rejected, match="no unit reads"):
        proof(node=np.array([3, 0, 0, 0]), **zeros)
    assert proof(node=np.array([2, 0, 0, 0]), **zeros).child[0] == 2
