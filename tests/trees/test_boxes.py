"""Balls and leaves as boxes, and distances against brute force over cells and projections."""

from fractions import Fraction

import cvxpy as cp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.tree import DecisionTreeClassifier

from skrobust.exceptions import UnsupportedModelError
from skrobust.properties import ClassificationRobustness
from skrobust.trees import ExactBall, leaf_boxes, read_trees, tree_distances
from tests.trees._models import ENSEMBLES, SINGLE, cells, data, fitted, lengths

FLOATS = st.floats(-1e6, 1e6, allow_nan=False) | st.floats(-1e-3, 1e-3, allow_nan=False)


@given(FLOATS, st.floats(0, 1e3))
def test_the_box_of_a_ball_holds_exactly_its_numbers(x, epsilon):
    ball = ExactBall.around(np.array([[x]]), ClassificationRobustness(epsilon, bounds=None))
    for side, sign in ((ball.lower[0, 0], -1), (ball.upper[0, 0], 1)):
        exact = Fraction(x) + sign * Fraction(epsilon)
        beyond = Fraction(float(np.nextafter(side, sign * np.inf)))
        assert sign * (exact - Fraction(float(side))) >= 0
        assert sign * (beyond - exact) > 0


def test_distances_worked_by_hand():
    # Left of 0.5: "a"; right: "b" below 0.25 in the second feature, else "a".
    X = np.array([[0.25, 0.0], [0.25, 0.5], [0.75, 0.0], [0.75, 0.5]])
    tree = DecisionTreeClassifier(random_state=0).fit(X, ["a", "a", "b", "a"])
    points = [[0.2, 0.1], [0.2, 0.65], [0.6, 0.2], [0.9, 0.65]]
    np.testing.assert_allclose(tree_distances(tree, points), [0.3, 0.4, 0.05, 0.4], atol=1e-7)
    euclidean = tree_distances(tree, points, norm="l2")
    np.testing.assert_allclose(euclidean, [0.3, 0.5, 0.05, 0.4], atol=1e-7)
    labelled = tree_distances(tree, points, ["b", "a", "a", "b"])
    np.testing.assert_allclose(labelled, [0, 0.4, 0, 0], atol=1e-7)


def test_distances_respect_bounds():
    tree = DecisionTreeClassifier().fit([[0.0], [2.0], [5.0]], [0, 1, 0])
    X = [[0.9], [2.9]]
    np.testing.assert_allclose(tree_distances(tree, X), [0.1, 0.6], atol=1e-6)
    bounded = tree_distances(tree, X, bounds=(0.0, 3.0))
    np.testing.assert_allclose(bounded, [0.1, 1.9], atol=1e-6)


def test_a_tree_of_one_label_has_infinite_distances():
    tree = DecisionTreeClassifier(min_samples_leaf=2).fit([[0.0], [1.0], [2.0]], [1, 0, 1])
    assert tree.get_n_leaves() == 1
    assert tree_distances(tree, [[0.3]]).tolist() == [np.inf]


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("name", SINGLE)
def test_distances_are_those_of_brute_force(name, norm):
    model = fitted(SINGLE[name], n_features=3)
    X, _ = data(n_features=3, seed=1)
    distances = tree_distances(model, X, norm=norm, bounds=(0.0, 1.0))
    for x, label, distance in zip(X, model.predict(X), distances, strict=True):
        points = cells(model, x, np.zeros(3), np.ones(3))
        others = points[model.predict(points) != label]
        assert distance == pytest.approx(lengths(others, x, 1.0, norm).min(), abs=1e-12)


def test_euclidean_distances_are_projections():
    model = fitted(SINGLE["tree"], n_classes=2)
    boxes = leaf_boxes(read_trees(model))
    x = np.array([0.31, 0.62])
    label = model.predict([x])[0]
    found = []
    for leaf in np.flatnonzero(boxes.labels != label):
        entries = boxes.entries(leaf)
        z = cp.Variable(2)
        inside = [z >= 0, z <= 1]
        for j, low, high in zip(
            boxes.feature[entries], boxes.lower[entries], boxes.upper[entries], strict=True
        ):
            inside += [z[j] >= max(low, -1), z[j] <= min(high, 2)]
        problem = cp.Problem(cp.Minimize(cp.norm(z - x)), inside)
        found.append(problem.solve(solver=cp.CLARABEL))
    distance = tree_distances(model, x[None], norm="l2", bounds=(0, 1))[0]
    assert distance == pytest.approx(min(found), abs=1e-6)


def test_distances_refuse_bad_input():
    tree, forest = fitted(SINGLE["tree"]), fitted(ENSEMBLES["forest"])
    with pytest.raises(UnsupportedModelError, match="Got a RandomForestClassifier, but expected"):
        tree_distances(forest, [[0.5, 0.5]])
    with pytest.raises(ValueError, match="Got norm='l1'"):
        tree_distances(tree, [[0.5, 0.5]], norm="l1")
    with pytest.raises(ValueError, match="Got X with 3 features, but expected 2"):
        tree_distances(tree, [[0.5, 0.5, 0.5]])
    with pytest.raises(ValueError, match="1 of 1 rows of X lie outside"):
        tree_distances(tree, [[0.5, 1.5]], bounds=(0, 1))
    with pytest.raises(ValueError, match=r"Got y with labels \[7\]"):
        tree_distances(tree, [[0.5, 0.5]], [7])
