"""Estimators that ask several networks."""

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.calibration import CalibratedClassifierCV
from sklearn.datasets import make_blobs
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.ensemble import BaggingClassifier, VotingClassifier
from sklearn.linear_model import LogisticRegression, SGDClassifier
from sklearn.multiclass import OneVsOneClassifier, OneVsRestClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC
from sklearn.tree import DecisionTreeClassifier

from skrobust import RobustClassifier
from skrobust.attacks import PGD
from skrobust.exceptions import UnsupportedModelError
from skrobust.networks import as_network
from skrobust.properties import ClassificationRobustness
from skrobust.scorers import ConstraintAccuracy, ConstraintSatisfaction, ConstraintSecurity
from skrobust.verification import Exact
from tests._asserts import assert_same_classifier

NAMES = np.array(["lion", "ant", "zebu"])


def data(n_classes=3):
    X, y = make_blobs(90, 4, centers=n_classes, cluster_std=4.0, random_state=0)
    return X / 10, NAMES[y]


def members():
    return [
        ("line", LogisticRegression()),
        ("none", "drop"),
        ("scaled", make_pipeline(StandardScaler(), LogisticRegression(C=0.1))),
        ("net", RobustClassifier(max_epochs=2, random_state=0)),
    ]


COMMITTEES = [
    VotingClassifier(members(), voting="soft"),
    VotingClassifier(members(), voting="soft", weights=[2.0, 9.0, 0.0, 0.5]),
    BaggingClassifier(LogisticRegression(), 3, random_state=0),
    BaggingClassifier(LogisticRegression(), 3, max_features=0.5, random_state=0),
    BaggingClassifier(RobustClassifier(max_epochs=2, random_state=0), 2, random_state=0),
    OneVsRestClassifier(LogisticRegression()),
    OneVsRestClassifier(LinearSVC()),
    OneVsRestClassifier(MLPClassifier(4, max_iter=2, random_state=0)),
    OneVsRestClassifier(RobustClassifier(max_epochs=2, random_state=0)),
]


def name_of(model):
    return type(model).__name__


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("model", COMMITTEES, ids=name_of)
@pytest.mark.filterwarnings("ignore:Stochastic Optimizer")
def test_what_is_computed(model, n_classes):
    X, y = data(n_classes)
    network = as_network(model.fit(X, y))
    assert_same_classifier(network, model, X, network.probabilistic)
    rows = network.rows(X)
    with torch.no_grad():
        torch.testing.assert_close(network(rows), network.replay(rows).to(network(rows)))
    np.testing.assert_array_equal(network.predict(X), model.predict(X))


def test_averages_of_probabilities_are_probabilities():
    X, y = data()
    for model in COMMITTEES[:5]:
        assert as_network(model.fit(X, y)).probabilistic
    X, y = data(2)
    assert as_network(OneVsRestClassifier(LogisticRegression()).fit(X, y)).probabilistic
    assert not as_network(OneVsRestClassifier(LinearSVC()).fit(X, y)).probabilistic


@pytest.mark.filterwarnings("ignore:Only one sample available")
def test_members_that_missed_a_class():
    X, y = data()
    line = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=0.5)
    model = BaggingClassifier(line, 8, max_samples=6, random_state=0).fit(X, y)
    assert any(len(member.classes_) < 3 for member in model.estimators_)
    assert_same_classifier(as_network(model), model, X)


def test_other_columns_are_another_model():
    X, y = data()
    model = BaggingClassifier(LogisticRegression(), 2, max_features=0.5, random_state=0).fit(X, y)
    before = repr(as_network(model).fingerprint())
    model.estimators_features_[0] = np.roll(model.estimators_features_[0], 1)
    assert repr(as_network(model).fingerprint()) != before


def test_frames():
    X, y = data()
    frame = pd.DataFrame(X, columns=list("abcd"))
    for model in (COMMITTEES[0], OneVsRestClassifier(LogisticRegression())):
        model.fit(frame, y)
        network = as_network(model)
        torch.testing.assert_close(
            network.replay(network.rows(frame)), network(network.rows(frame))
        )


def test_averages_are_attacked_but_not_verified():
    X, y = data()
    model, property = COMMITTEES[2].fit(X, y), ClassificationRobustness(0.2, bounds=None)
    attacked = ConstraintSecurity(property, PGD()).evaluate(model, X, y)
    assert 0 < attacked.score < ConstraintAccuracy(property).evaluate(model, X, y).score
    points, broken = attacked.counterexamples[~attacked.holds], y[~attacked.holds]
    assert (model.predict(points) != broken).all()
    with pytest.raises(UnsupportedModelError, match=r"'mean_of_softmax' in layer .* is not read"):
        ConstraintSatisfaction(property).evaluate(model, X, y)


def test_one_against_the_rest_is_verified():
    X, y = data()
    model = OneVsRestClassifier(LogisticRegression()).fit(X, y)
    property = ClassificationRobustness(0.1, bounds=None)
    found = ConstraintSatisfaction(property, Exact()).evaluate(model, X, y)
    weight = np.vstack([e.coef_[0] for e in model.estimators_])
    scores, index = model.decision_function(X), np.searchsorted(model.classes_, y)
    own = np.arange(len(X)), index
    reach = 0.1 * np.abs(weight[None] - weight[index][:, None]).sum(axis=2)
    leads = scores[own][:, None] - scores - reach
    leads[own] = np.inf
    np.testing.assert_array_equal(found.verdicts == "verified", leads.min(axis=1) > 0)
    assert (found.verdicts == "falsified").any()


def test_what_is_no_network_is_refused_with_the_reason():
    X, y = data()
    line = LogisticRegression()
    refused = [
        (VotingClassifier([("a", line)]), "voting='hard'.*no gradient"),
        (VotingClassifier([("a", line), ("b", LinearSVC())], voting="soft"), "member LinearSVC"),
        (VotingClassifier([("a", line)], voting="soft", weights=[-1.0]), "none below 0"),
        (BaggingClassifier(SGDClassifier(loss="log_loss"), 2), "softmax of their scores"),
        (BaggingClassifier(DecisionTreeClassifier(), 2), "a member that is no network"),
        (OneVsOneClassifier(line), "votes of pairs"),
        (CalibratedClassifierCV(line, cv=2), "method='sigmoid'.*regression of its own"),
    ]
    for model, reason in refused:
        with pytest.raises(UnsupportedModelError, match=reason):
            as_network(model.fit(X, y))
    several = OneVsRestClassifier(line).fit(X, (X[:, :2] > 0).astype(int))
    with pytest.raises(UnsupportedModelError, match="several labels a sample"):
        as_network(several)


def test_what_is_refused_can_be_sampled():
    X, y = data()
    model = CalibratedClassifierCV(LogisticRegression(), cv=2).fit(X, y)
    property = ClassificationRobustness(0.1, bounds=None)
    assert 0.3 < ConstraintAccuracy(property).evaluate(model, X, y).score <= 1
