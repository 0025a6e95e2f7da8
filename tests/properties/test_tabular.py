"""Fairness and monotonicity: toy models that are so are proved, others falsified by a pair."""

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier
from sklearn.tree import DecisionTreeClassifier

from skrobust import RobustClassifier
from skrobust.attacks import PGD
from skrobust.networks import Network
from skrobust.properties import (
    ClassificationRobustness,
    Domain,
    IndividualFairness,
    Monotonicity,
)
from skrobust.scorers import ConstraintSatisfaction, ConstraintSecurity
from skrobust.training import AdversarialTraining, CertifiedTraining, TradesTraining
from skrobust.verification import Cascade, Exact, TreeVerifier

RNG = np.random.default_rng(0)
X = np.c_[RNG.uniform(size=(120, 2)), RNG.integers(0, 2, 120)].astype(float)
Y = (X[:, 0] + 0.2 * X[:, 2] > 0.6).astype(int)  # the last one is protected
NAMES = ["income", "debts", "sex"]
DOMAIN = Domain([0, 0, 0], [1, 1, 1], integers=["sex"], feature_names=NAMES)


def network(weights):
    """Return a ReLU network of one unit a feature, whose log odds are a sum of ramps."""
    module = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.ReLU(), torch.nn.Linear(3, 2))
    with torch.no_grad():
        module[0].weight.copy_(torch.eye(3))
        module[0].bias.copy_(torch.tensor([-0.3, 0.0, 0.0]))
        module[2].weight.copy_(torch.tensor([[0.0, 0.0, 0.0], weights]))
        module[2].bias.copy_(torch.tensor([0.0, -1.0]))
    return Network(module, [0, 1], 3)


@pytest.mark.parametrize("verifier", [Cascade(), Exact()], ids=repr)
def test_a_fair_network_is_proved_and_an_unfair_one_falsified_by_a_pair(verifier):
    property = IndividualFairness(["sex"], bounds=DOMAIN)
    fair, unfair = network([4.0, -1.0, 0.0]), network([4.0, -1.0, 1.5])
    assert (verifier.verify(fair, X[:10], property=property).verdicts == "verified").all()
    result = verifier.verify(unfair, X[:10], property=property, random_state=0)
    other = X[:10] * [1, 1, 0] + [0, 0, 1] - X[:10] * [0, 0, 1]
    differs = unfair.predict(other) != unfair.predict(X[:10])
    assert ((result.verdicts == "falsified") == differs).all() and differs.any()
    np.testing.assert_allclose(result.counterexamples[differs], other[differs], rtol=1e-6)


def test_fairness_of_trees_and_of_values_between():
    tree = DecisionTreeClassifier(max_depth=3, random_state=0).fit(X, Y)
    other = X * [1, 1, 0] + [0, 0, 1] - X * [0, 0, 1]
    differs = tree.predict(other) != tree.predict(X)
    for bounds in (DOMAIN, (0.0, 1.0)):
        property = IndividualFairness([2], bounds=bounds)
        result = TreeVerifier().verify(tree, X, property=property)
        assert ((result.verdicts == "falsified") == differs).all() and differs.any()
    near = IndividualFairness([2], epsilon=0.02, bounds=DOMAIN)
    wider = TreeVerifier().verify(tree, X, property=near)
    assert (wider.verdicts == "falsified").sum() > differs.sum()


@pytest.mark.parametrize("verifier", [Cascade(), Exact()], ids=repr)
@pytest.mark.parametrize("direction", [1, -1])
def test_a_monotone_network_is_proved_and_another_one_falsified_by_a_pair(verifier, direction):
    model = network([4.0 * direction, -4.0 * direction, 0.0])
    rising = Monotonicity("income", direction, bounds=DOMAIN)
    falling = Monotonicity("debts", direction, bounds=DOMAIN)
    assert (verifier.verify(model, X[:5], property=rising).verdicts == "verified").all()
    result = verifier.verify(model, X[:5], property=falling, random_state=0)
    assert (result.verdicts == "falsified").all()
    pairs = result.counterexamples
    assert (pairs[:, 1] > X[:5, 1]).all()
    np.testing.assert_allclose(pairs[:, [0, 2]], X[:5][:, [0, 2]], atol=1e-7)
    odds = [np.diff(model.decision_function(rows), axis=1)[:, 0] for rows in (X[:5], pairs)]
    assert (direction * (odds[1] - odds[0]) < -1e-4).all()
    # Others that move as well take away what the rise gives.
    both = Monotonicity("income", direction, epsilon=0.1, bounds=DOMAIN.box)
    both.set_params(feature=0)
    assert (verifier.verify(model, X[:5], property=both).verdicts == "falsified").all()


def test_rows_by_hand():
    property = Monotonicity(0, class_index=2, tolerance=0.5)
    outputs, reference = [[0.0, 0.0, 1.0], [0.0, 9.0, 0.4]], [[5.0, 0.0, 1.0]] * 2
    np.testing.assert_allclose(
        property.margin(outputs, reference_logits=reference), [0.5, -0.1], atol=1e-12
    )
    down, up = property.sides(3)
    assert down.tolist() == [0, 0, 0] and up[0] > 1 and up[1:].tolist() == [0, 0]
    odds = Monotonicity(0, -1, tolerance=0.5)
    assert odds.margin([[1.0, 3.0]], reference_logits=[[0.0, 1.0]]) == [-0.5]


def test_attacks_training_and_scorers_take_them():
    fair = IndividualFairness(["sex"], epsilon=0.01, bounds=DOMAIN)
    rising = Monotonicity("income", bounds=DOMAIN)
    model = MLPClassifier((4,), solver="lbfgs", max_iter=50, random_state=0).fit(X, Y)
    for property in (fair, rising, fair & clone(fair)):
        security = ConstraintSecurity(property, random_state=0)(model, X[:6])
        satisfaction = ConstraintSatisfaction(property, random_state=0)(model, X[:6])
        assert satisfaction <= security
    points = PGD().perturb(model, X, property=fair, random_state=0)
    assert set(points[:, 2]) <= {0.0, 1.0} and (points[:, 2] != X[:, 2]).any()
    for training in (AdversarialTraining(), CertifiedTraining(ramp_epochs=1), TradesTraining()):
        options = {"max_epochs": 1, "random_state": 0, "hidden_layer_sizes": (4,)}
        trained = RobustClassifier(property=fair, training=training, **options).fit(X[:40], Y[:40])
        assert trained.predict(X).shape == (120,)


def test_training_for_fairness_makes_fair():
    unfair = (X[:, 0] + 0.6 * X[:, 2] > 0.8).astype(int)
    property = IndividualFairness([2], bounds=DOMAIN)
    options = {"max_epochs": 30, "random_state": 0, "hidden_layer_sizes": (4,), "lr": 0.05}
    plain = RobustClassifier(property=property, **options).fit(X, unfair)
    trained = RobustClassifier(
        property=property, training=CertifiedTraining(ramp_epochs=5), **options
    ).fit(X, unfair)
    scorer = ConstraintSatisfaction(property, random_state=0)
    assert scorer(trained, X[:40]) > 0.9 > scorer(plain, X[:40])


@pytest.mark.parametrize(
    ("property", "message"),
    [
        (IndividualFairness([]), "Got protected="),
        (IndividualFairness([3]), "protected"),
        (IndividualFairness(["sex"]), "Give feature_names to use names"),
        (IndividualFairness([0], bounds=None), "bounds=None"),
        (IndividualFairness([0], bounds=(0.0, np.inf)), "infinite bounds of feature 0"),
        (IndividualFairness([0], epsilon=-1.0), "epsilon=-1.0"),
        (Monotonicity(7), "feature"),
        (Monotonicity("income"), "feature_names"),
        (Monotonicity(0, 2), "Got direction=2"),
        (Monotonicity(0, tolerance=0.0), "Got tolerance=0.0"),
        (Monotonicity(0, output="labels"), "Got output='labels'"),
        (Monotonicity(0, class_index=-1), "Got class_index=-1"),
        (Monotonicity(0, bounds=None), "bounds=None"),
    ],
)
def test_bad_parameters_are_refused(property, message):
    with pytest.raises(ValueError, match=message):
        property.check(X)


def test_groups_and_classes_that_do_not_fit_are_refused():
    domain = Domain(0.0, 1.0, one_hot=[[0, 1, 2]])
    rows = np.eye(3)
    with pytest.raises(ValueError, match=r"all of the one-hot group \[0, 1, 2\]"):
        IndividualFairness([0, 1], bounds=domain).check(rows)
    with pytest.raises(ValueError, match="nothing rises alone"):
        Monotonicity(1, bounds=domain).check(rows)
    with pytest.raises(ValueError, match="Got class_index=None, but expected an integer from 0"):
        Monotonicity(0).check(X, n_classes=3)
    with pytest.raises(ValueError, match="expected the same ball"):
        (IndividualFairness([0]) & ClassificationRobustness(0.0)).check(X)
    model = LogisticRegression().fit(X, Y)
    every = IndividualFairness([0, 1, 2], bounds=Domain(0.0, 1.0, one_hot=[[0, 1, 2]]))
    result = Exact().verify(model, rows, property=every)
    labels = model.predict(rows)
    assert ((result.verdicts == "verified") == (labels == labels[0]).all()).all()
