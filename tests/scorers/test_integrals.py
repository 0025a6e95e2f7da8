"""What margins and shares come to."""

import numpy as np
import pytest

from skrobust.scorers._integrals import result_of_margins, result_of_shares
from skrobust.statistics import empirical_bernstein, hoeffding

EPSILONS = np.array([0.5, 1.0, 2.0])


def test_margins_by_hand():
    result = result_of_margins(np.array([0.25, 1.0, 3.0, np.inf]), EPSILONS, 0.9)
    assert result.radius.tolist() == [0.25, 1.0, np.inf, np.inf]
    assert result.values.tolist() == [0.25, 1.0, 2.0, 2.0]
    assert result.score == 5.25 / 4 and result.normalized == result.score / 2
    # Open balls: at its own margin a sample is no longer robust.
    assert result.curve == (0.75, 0.5, 0.5)
    assert result.interval == empirical_bernstein(result.values, 0.0, 2.0, 0.9)
    with pytest.raises(ValueError, match="1 sample"):
        result_of_margins(np.array([1.0]), EPSILONS, 0.9)


def test_shares_by_hand():
    shares = np.array([[1.0, 0.5, 0.0], [1.0, 1.0, 0.5]])
    weights = np.array([[0.0, 2.0, 1.0, 0.5]] * 2)
    n_points = np.full((2, 3), 4)
    result = result_of_shares("identity", weights, EPSILONS, 0.9, np.ones(2), shares, n_points)
    assert result.values.tolist() == [2.5, 3.25]
    assert result.score == 2.875 and result.normalized == 2.875 / 3.5
    assert result.curve == (1.0, 0.75, 0.25)
    assert result.interval == hoeffding(result.values, 0.0, 3.5, 0.9)
    worst = result_of_shares("all", weights, EPSILONS, 0.9, np.ones(2), shares, n_points)
    assert worst.values.tolist() == [2.0, 3.0]
