"""The closest adversarial examples under a margin, on a net whose distances are known."""

import numpy as np
import pytest
import torch
from joblib import parallel_config

from skrobust import TorchClassifier
from skrobust.attacks import FGSM, LBFGS, PGD, LinearBoundary
from skrobust.estimators._examples import closest_examples, widest

X = np.array([[0.2, 0.3], [0.4, 0.3], [0.6, 0.5], [0.9, 0.9]], dtype=np.float32)
Y = np.array(["in", "in", "out", "out"])


def model():
    # The score of "out" is 10 (x1 + x2 - 1): in L-infinity 0.25, 0.15, 0.05 and 0.4 away.
    module = torch.nn.Linear(2, 2)
    module.weight.data = torch.tensor([[0.0, 0.0], [10.0, 10.0]])
    module.bias.data = torch.tensor([0.0, -10.0])
    return TorchClassifier(module, ["in", "out"])


def examples(attack, margin=0.0, **options):
    given = {"epsilon_max": None, "targets": "runner-up", "bounds": (0.0, 1.0)}
    given |= {"random_state": 0, "n_jobs": None, "memory": None, "verbose": 0}
    return closest_examples(model(), X, Y, attack=attack, margin=margin, **(given | options))


@pytest.mark.parametrize("attack", ["lp", "polished", LinearBoundary(), LBFGS()], ids=repr)
def test_the_closest_points_are_found(attack):
    points = examples(attack)
    distance = np.abs(points - X).max(axis=1)
    np.testing.assert_allclose(distance, [0.25, 0.15, 0.05, 0.4], atol=2e-3)
    assert (model().predict(points) != Y).all()


@pytest.mark.parametrize("attack", ["lp", LinearBoundary(), LBFGS(), PGD(20)], ids=repr)
def test_the_other_label_wins_by_the_margin(attack):
    points = examples(attack, margin=1.0)
    scores = model().decision_function(points) * np.where(Y == "in", 1, -1)
    assert (scores >= 1.0 - 1e-4).all()
    if not isinstance(attack, PGD):  # which does not look for the closest point
        # A margin of 1 is another 0.05 in both features.
        distance = np.abs(points - X).max(axis=1)
        np.testing.assert_allclose(distance, [0.3, 0.2, 0.1, 0.45], atol=2e-3)


@pytest.mark.parametrize("attack", ["lp", "polished", FGSM()], ids=repr)
def test_nothing_is_found_beyond_epsilon_max(attack):
    points = examples(attack, epsilon_max=0.2)
    assert np.isnan(points).all(axis=1).tolist() == [True, False, False, True]


def test_jobs_and_memory_change_nothing(tmp_path):
    attack = PGD(5)
    first = examples(attack)
    with parallel_config(backend="threading"):
        np.testing.assert_array_equal(examples(attack, n_jobs=2), first)
    for _ in range(2):
        np.testing.assert_array_equal(examples(attack, memory=str(tmp_path)), first)
    assert any(tmp_path.rglob("output.pkl"))


@pytest.mark.parametrize(
    ("bounds", "width"),
    [(None, np.inf), ((0, 1), 1), ((-1.0, [2.0, 1.0]), 3.0), ((-np.inf, np.inf), np.inf)],
)
def test_the_widest_feature(bounds, width):
    assert widest(bounds) == width
