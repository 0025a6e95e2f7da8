"""Attacks where only some points are valid: what they return is, and what there is they find."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from skrobust import RobustClassifier
from skrobust.attacks import PGD, AutoPGD, Target, UniformSampling, confirm
from skrobust.networks import as_network
from skrobust.properties import ClassificationRobustness, Domain
from skrobust.training import AdversarialTraining

RNG = np.random.default_rng(0)
X = np.c_[RNG.integers(0, 6, 80), np.eye(2)[RNG.integers(0, 2, 80)], RNG.uniform(size=80)]
Y = (X[:, 0] + 2 * X[:, 1] + X[:, 3] > 4.2).astype(int)
DOMAIN = Domain(
    [0, 0, 0, 0],
    [5, 1, 1, 1],
    integers=[0],
    one_hot=[[1, 2]],
    constraints=([[1, 0, 0, 5]], [9]),
)
ROWS, LABELS = X[DOMAIN.holds(X)], Y[DOMAIN.holds(X)]


@pytest.mark.parametrize("attack", [PGD(10), AutoPGD(10), UniformSampling(50)], ids=repr)
def test_points_are_valid_and_break_what_can_be_broken(attack):
    model = LogisticRegression(C=100).fit(X, Y)
    property = ClassificationRobustness([1, 1, 1, 0.2], bounds=DOMAIN)
    points = attack.perturb(model, ROWS, LABELS, property=property, random_state=0)
    assert DOMAIN.holds(points, widened_to=ROWS).all()
    assert (np.abs(points - ROWS) <= [1, 1, 1, 0.2 + 1e-12]).all()
    # Corners of a grid: a linear model is worst at one of them.
    found = model.predict(points) != LABELS
    worst = np.array([_can_change(model, x, y) for x, y in zip(ROWS, LABELS, strict=True)])
    assert not (found & ~worst).any()
    assert found.sum() >= worst.sum() * (0.95 if attack.needs_gradient else 0.8)


def _can_change(model, x, y):
    steps = np.clip(x[3] + np.linspace(-0.2, 0.2, 201), 0, 1)
    points = np.array(
        [
            [age, *code, u]
            for age in (x[0] - 1, x[0], x[0] + 1)
            for code in np.eye(2).tolist()
            for u in steps
        ]
    )
    return (model.predict(points[DOMAIN.holds(points)]) != y).any()


def test_a_candidate_that_cannot_be_made_valid_is_none():
    model = LogisticRegression(C=100).fit(X, Y)
    network = as_network(model)
    domain = Domain([0, 0, 0, 0], [5, 1, 1, 1], integers=[0], one_hot=[[1, 2]])
    property = ClassificationRobustness([2, 0, 0, 0], bounds=domain)
    x = network.rows([[4.0, 1.0, 0.0, 0.5]])
    target = Target(network, property, x, torch.tensor([1]))
    assert not confirm(target, [[3.4, 0.0, 1.0, 0.5]], project=False).broken.any()
    # With repair, the whole number next to it; it breaks the property where that does.
    settled = confirm(target, [[2.4, 1.0, 0.0, 0.5]])
    assert settled.points.tolist() == [[2.0, 1.0, 0.0, 0.5]]
    assert settled.broken.item() == (model.predict([[2.0, 1.0, 0.0, 0.5]])[0] != 1)


def test_training_sees_valid_points():
    seen = []

    class Recorded(PGD):
        def points(self, target, *, generator=None):
            points = super().points(target, generator=generator)
            seen.append((points.double().numpy(), target.x.double().numpy()))
            return points

    property = ClassificationRobustness([1, 1, 1, 0.2], bounds=DOMAIN)
    regime = AdversarialTraining(Recorded(3))
    RobustClassifier(
        hidden_layer_sizes=(4,), training=regime, property=property, max_epochs=1, random_state=0
    ).fit(ROWS, LABELS)
    assert seen
    for points, x in seen:
        assert DOMAIN.holds(points, widened_to=x).all()
