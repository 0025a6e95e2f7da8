"""The search around one point against `predict` in every cell, and the steps that it takes."""

import numpy as np
import pytest
import torch
from sklearn.ensemble import RandomForestClassifier

from skrobust.attacks import Target
from skrobust.networks import BlackBox
from skrobust.properties import ClassificationRobustness
from skrobust.trees import ExactBall, read_trees
from skrobust.verification import Reason
from skrobust.verification._base import Stopwatch
from skrobust.verification._tree_search import Question, search
from tests.trees._models import ENSEMBLES, cells, data, fitted, lengths


def ask(model, property, x, seed=0):
    """Ask about one point with the label that the model gives it."""
    network = BlackBox(model)
    target = Target(network, property, torch.as_tensor(x[None]))
    ball = ExactBall.around(x[None], property)
    label = int(network.encode(model.predict(x[None]))[0])
    return Question.ask(read_trees(network), target, ball, label, 0, np.random.default_rng(seed))


def property_of(norm, epsilon=0.08):
    return ClassificationRobustness(epsilon, norm=norm, reference="prediction")


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("name", ["forest", "pure forest", "boosting", "hist"])
def test_the_answer_is_that_of_predict_in_every_cell(name, norm):
    model, property = fitted(ENSEMBLES[name]), property_of(norm)
    answers = set()
    for x in data(n=25, seed=3)[0]:
        answer = search(ask(model, property, x), Stopwatch(), None)
        lower, upper = np.maximum(x - 0.08, 0), np.minimum(x + 0.08, 1)
        points = cells(model, x, lower, upper)
        points = points[lengths(points, x, 0.08, norm) <= 1]
        breaks = (model.predict(points) != model.predict(x[None])).any()
        assert isinstance(answer, np.ndarray) == breaks
        if breaks:
            assert model.predict(answer[None]) != model.predict(x[None])
            assert lengths(answer[None], x, 0.08, norm)[0] <= 1
        else:
            assert answer is Reason.PROVED
        answers.add(bool(breaks))
    assert answers == {True, False}


def hard():
    """A forest and a point that neither vertices nor bounds decide: it takes many boxes."""
    X, y = data(n_features=8, n=200)
    model = RandomForestClassifier(40, max_depth=6, random_state=0).fit(X, y)
    for x in X:
        question = ask(model, property_of("linf", 0.04), x)
        if search(question, Stopwatch(), 1) is Reason.BOUNDS_TOO_LOOSE:
            return question
    raise AssertionError("no such point")


def test_vertices_are_climbed():
    """No turn of one coordinate raises the lead, which is above that of random vertices."""
    question = hard()
    lower, upper = question.ball.lower[0], question.ball.upper[0]
    point = question.climbed(lower, upper)
    assert ((point == lower) | (point == upper)).all()
    turned = np.repeat(point[None], len(point), axis=0)
    np.fill_diagonal(turned, np.where(point == lower, upper, lower))
    leads = question.rivals.at(np.concatenate([point[None], turned])).max(axis=1)
    assert (leads[0] >= leads[1:]).all()
    lower, upper = (np.repeat(side[None], 101, axis=0) for side in (lower, upper))
    assert leads[0] > np.median(question.rivals.at(question.vertices(lower, upper)).max(axis=1))


def test_a_search_ends_at_its_limits():
    question = hard()
    assert search(question, Stopwatch(0.0), None) is Reason.TIME_OUT
    assert search(question, Stopwatch(), 1) is Reason.BOUNDS_TOO_LOOSE


def test_only_rivals_that_may_win_are_asked_about():
    model, x = fitted(ENSEMBLES["forest"]), data()[0][0]
    near, far = (ask(model, property_of("linf", epsilon), x) for epsilon in (0.0, 1.0))
    assert len(near.rivals.classes) == 0
    assert len(far.rivals.classes) == 2
    # What no point of the ball comes to is gone.
    assert len(near.trees.feature) < len(far.trees.feature)
    assert search(near, Stopwatch(), None) is Reason.PROVED


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_vertices_and_nearest_points_lie_in_their_boxes(norm):
    x = np.array([0.4, 0.6])
    question = ask(fitted(ENSEMBLES["forest"]), property_of(norm, 0.2), x)
    ends = np.sort(np.random.default_rng(0).uniform(-0.2, 0.2, (2, 50, 2)), axis=0)
    lower, upper = x + ends
    for points in (question.vertices(lower, upper), question.nearest(lower, upper)):
        assert (lower <= points).all() and (points <= upper).all()
    nearest = question.nearest(lower, upper)
    others = lower + np.random.default_rng(1).random((50, 2)) * (upper - lower)
    assert (np.abs(nearest - x) <= np.abs(others - x)).all()
    inside = question.touches(lower, upper)
    exact = lengths(nearest, x, 0.2, norm) <= 1
    # A box that holds a point of the ball is never dropped.
    assert not (exact & ~inside).any()
    if norm == "l2":
        assert inside.any() and not inside.all()


def test_a_point_that_predict_does_not_confirm_is_no_answer():
    model, x = fitted(ENSEMBLES["forest"]), data(n=25, seed=3)[0]
    property = property_of("linf")
    broken = next(
        row
        for row in x
        if isinstance(search(ask(model, property, row), Stopwatch(), None), np.ndarray)
    )
    question = ask(model, property, broken)
    label = model.predict(broken[None])[0]
    model.predict = lambda points: np.full(len(points), label)
    assert not isinstance(search(question, Stopwatch(), 50), np.ndarray)
