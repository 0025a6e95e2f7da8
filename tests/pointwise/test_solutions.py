"""What programs find, before and after it is filled in, and the units they are solved in."""

import numpy as np
import pytest

from skrobust.pointwise._solutions import Solutions, units


def test_nothing_is_known_before_it_is_filled_in():
    solutions = Solutions.none(3, 2)
    assert solutions.status.tolist() == ["failure"] * 3
    assert solutions.radius.tolist() == solutions.seconds.tolist() == [0.0] * 3
    assert solutions.points.shape == (3, 2) and np.isnan(solutions.points).all()


def test_results_go_to_their_programs():
    solutions = Solutions.none(4, 2)
    solutions.keep(np.array([0, 2]), "optimal", np.array([0.5, 0.25]), np.ones((2, 2)))
    solutions.keep(3, "limit", 0.75)
    assert solutions.status.tolist() == ["optimal", "failure", "optimal", "limit"]
    assert solutions.radius.tolist() == [0.5, 0.0, 0.25, 0.75]
    assert (solutions.points[[0, 2]] == 1).all() and np.isnan(solutions.points[[1, 3]]).all()
    # A program that was solved, and is then cut off, has no point any more.
    solutions.keep(0, "infeasible", np.inf)
    assert np.isnan(solutions.points[0]).all()


@pytest.mark.parametrize("status", ["optimal", "infeasible", "limit", "rows", "failure"])
def test_every_status_fits(status):
    solutions = Solutions.none(1, 1)
    solutions.keep(0, status, 1.0)
    assert solutions.status[0] == status


def test_units_are_the_largest_finite_way_to_the_border():
    inf = np.inf
    low = np.array([[-0.2, -0.9], [-inf, -0.5], [-inf, -inf], [0.0, 0.0]])
    high = np.array([[0.8, 0.1], [inf, 0.25], [inf, inf], [0.0, 0.0]])
    # No end, and no way: the unit is 1.
    assert units(low, high).tolist() == [0.9, 0.5, 1.0, 1.0]
    np.testing.assert_allclose(units(1e-6 * low, 1e-6 * high)[:2], [0.9e-6, 0.5e-6])
