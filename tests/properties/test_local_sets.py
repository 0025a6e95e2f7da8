"""Points near a reference: single values counted exactly, repair, and uniform draws."""

import numpy as np
import pytest

from skrobust.properties import ClassificationRobustness, Domain

X = np.array([3.0, 0.0, 1.0, 0.0, 0.5])


def local_set(epsilon, **options):
    plain = {"integers": [0], "one_hot": [[1, 2, 3]]}
    domain = Domain([0, 0, 0, 0, 0], [5, 1, 1, 1, 1], **plain | options)
    return ClassificationRobustness(epsilon, bounds=domain).local_set(5)


def test_values_by_hand():
    near = local_set(([2.9, 1, 1, 1, 0.1], [9, 1, 1, 0.5, 0.1]))  # down, up
    (_, ages), (_, codes) = near.values(X)
    assert sorted(ages.ravel()) == [1, 2, 3, 4, 5] and ages[0] == 3
    assert codes.tolist() == [[0, 1, 0], [1, 0, 0]]  # the third may not rise to 1
    assert near.count(X) == 10
    points, is_all = near.assignments(X)
    assert is_all and len(np.unique(points, axis=0)) == 10 and (points[:, 4] == 0.5).all()
    some, is_all = near.assignments(X, 4, np.random.default_rng(0))
    assert not is_all and len(some) <= 4 and (some == X).all(axis=1).any()
    fixed = local_set(0.5)
    assert fixed.count(X) == 1


def test_reach_is_that_of_all_values_without_counting_them():
    near = local_set(([2.9, 1, 1, 1, 0.1], [9, 1, 1, 0.5, 0.1]))
    down, up = near.reach(X)
    assert down.tolist() == [2, 0, 1, 0, 0.1]
    assert up.tolist() == [2, 1, 0, 0, 0.1]  # the bound of the age is 5
    assert local_set(0.5).reach(X)[0].tolist() == [0, 0, 0, 0, 0.5]
    many = Domain([0.0], [1e15], integers=[0])
    down, up = ClassificationRobustness(1e14, bounds=many).local_set(1).reach(np.array([5e14]))
    assert (down, up) == (1e14, 1e14)


def test_repair_makes_points_valid_or_says_that_it_did_not():
    rng = np.random.default_rng(0)
    near = local_set(1.0, constraints=([[0.1, 0, 0, 0, 1]], [0.9]))
    points = X + rng.uniform(-1, 1, size=(200, 5))
    references = np.repeat(X[None], 200, axis=0)
    ends = (np.clip(references + side, 0, [5, 1, 1, 1, 1]) for side in (-1, 1))
    repaired = near.repair(points, references, *ends)
    valid = near.holds(repaired, references)
    assert valid.mean() > 0.95
    assert near.domain.holds(repaired[valid], references[valid]).all()
    assert (np.abs(repaired - references)[valid] <= 1).all()
    # What is valid stays as it is.
    again = near.repair(repaired[valid], references[valid], X - 1, X + 1)
    np.testing.assert_array_equal(again, repaired[valid])


def test_draws_are_uniform_and_valid():
    near = local_set(1.0, constraints=([[1, 0, 0, 0, 0]], [3]))
    lower, upper = np.array([[2, 0, 0, 0, 0]]), np.array([[4, 1, 1, 1, 1]])
    points = near.sample(X[None], lower, upper, 3000, np.random.default_rng(0))[0]
    assert near.holds(points, np.repeat(X[None], 3000, axis=0)).all()
    ages, counts = np.unique(points[:, 0], return_counts=True)
    assert ages.tolist() == [2, 3] and abs(counts[0] / 3000 - 1 / 2) < 0.04
    assert np.abs(points[:, 1:4].mean(axis=0) - 1 / 3).max() < 0.04
    assert abs(points[:, 4].mean() - 0.5) < 0.03


def test_constraints_that_leave_hardly_any_room_are_refused():
    near = local_set(1.0, constraints=([[0, 0, 0, 0, 1], [0, 0, 0, 0, -1]], [0.5, -0.5]))
    with pytest.raises(ValueError, match="uniform points satisfy"):
        near.sample(X[None], X[None] - 1, X[None] + 1, 2, np.random.default_rng(0))


def test_values_without_room_are_left_out():
    near = local_set([2, 0, 0, 0, 0.1], constraints=([[1, 0, 0, 0, -10]], [-1]))
    points, _ = near.assignments(X)
    # age <= 10 x - 1, where x is at most 0.6
    assert sorted(points[near.can_hold(points, X), 0]) == [1, 2, 3, 4, 5]
    near = local_set([2, 0, 0, 0, 0.1], constraints=([[1, 0, 0, 0, 10]], [8]))
    assert sorted(points[near.can_hold(points, X), 0]) == [1, 2, 3, 4]
    assert near.open_rows().tolist() == [0]


def test_more_values_than_a_float_can_count():
    domain = Domain(0, 1000, integers=list(range(200)))
    near = ClassificationRobustness(50.0, bounds=domain).local_set(200)
    x = np.full(200, 500.0)
    assert near.count(x) == 101**200
    points, is_all = near.assignments(x, 8, np.random.default_rng(0))
    assert not is_all and 1 < len(points) <= 8
    assert (np.abs(points - x) <= 50).all()
