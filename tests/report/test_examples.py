"""The worst examples: real, closest, of samples that are right."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from skrobust.properties import ClassificationRobustness
from skrobust.report._examples import closest_examples

NAN = float("nan")


class _Result:
    def __init__(self, counterexamples):
        self.counterexamples = np.array(counterexamples)


def test_the_closest_of_several_results_by_hand():
    rows = np.array([[0.0, 0.0], [1.0, 1.0], [2.0, 2.0], [3.0, 3.0]])
    first = _Result([[0.3, 0.1], [1.25, 1.0], [NAN, NAN], [3.1, 3.0]])
    second = _Result([[0.1, 0.2], [1.0, 1.0], [NAN, NAN], [3.1, 3.1]])
    right = np.array([True, True, True, False])
    found = closest_examples(
        rows, [first, second], right, ClassificationRobustness(), None, 1.0, 5
    )
    index, distance, points = found
    assert index.tolist() == [0, 1]  # a change of nothing is no example
    np.testing.assert_allclose(distance, [0.2, 0.25])
    np.testing.assert_array_equal(points, [[0.1, 0.2], [1.25, 1.0]])


def test_distances_are_in_the_norm_and_the_scale():
    rows, result = np.zeros((1, 2)), _Result([[3.0, 8.0]])
    l2 = ClassificationRobustness(norm="l2")
    assert closest_examples(rows, [result], [True], l2, np.array([1.0, 2.0]), 9, 1)[1] == 5.0
    linf = ClassificationRobustness()
    assert closest_examples(rows, [result], [True], linf, np.array([1.0, 4.0]), 9, 1)[1] == 3.0


@given(st.lists(st.floats(0.01, 1), min_size=1, max_size=9), st.integers(0, 9))
def test_examples_come_in_order_and_not_too_many(changes, n):
    rows = np.zeros((len(changes), 1))
    result = _Result(np.transpose([changes]))
    right = np.ones(len(changes), dtype=bool)
    index, distance, _ = closest_examples(
        rows, [result], right, ClassificationRobustness(), None, 1.0, n
    )
    assert len(index) == min(n, len(changes))
    np.testing.assert_array_equal(distance, np.sort(changes)[:n])


def test_examples_beyond_the_largest_radius_are_left_out():
    rows, result = np.zeros((3, 1)), _Result([[0.1], [0.2], [0.2001]])
    right = np.ones(3, dtype=bool)
    found = closest_examples(rows, [result], right, ClassificationRobustness(), None, 0.2, 5)
    assert found[0].tolist() == [0, 1]


def test_results_of_other_samples_and_without_points_are_left_out():
    rows, drawn = np.zeros((2, 1)), _Result([[1.0]])
    index, *_ = closest_examples(
        rows, [drawn, object()], [True, True], ClassificationRobustness(), None, 1.0, 3
    )
    assert len(index) == 0


def test_examples_of_a_report_break_the_property(report, digits_model):
    examples = report.examples
    assert 0 < len(examples) <= 8
    moved = np.abs(examples.perturbed - examples.originals).max(axis=1)
    np.testing.assert_allclose(examples.distance, moved, rtol=1e-6)
    assert (np.diff(examples.distance) >= 0).all() and examples.distance[-1] <= 0.1 + 1e-6
    np.testing.assert_array_equal(digits_model.predict(examples.originals), examples.before)
    np.testing.assert_array_equal(digits_model.predict(examples.perturbed), examples.after)
    assert (examples.before == examples.labels).all() and (examples.after != examples.labels).all()
    assert repr(examples).startswith("WorstExamples(distance=[0.0")
