"""Constraint accuracy and security: against closed forms, accuracy, and each other."""

import re

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import binomtest
from sklearn.base import clone
from sklearn.decomposition import PCA
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression, SGDClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier
from skorch import NeuralNetClassifier

from skrobust import RobustClassifier, TorchClassifier
from skrobust.attacks import FGSM, PGD, AutoPGD, UniformSampling
from skrobust.exceptions import UnsupportedModelError, UnsupportedPropertyError
from skrobust.networks import Network, as_network
from skrobust.properties import (
    ClassificationRobustness,
    LipschitzRobustness,
    StandardRobustness,
    StrongClassificationRobustness,
)
from skrobust.scorers import ConstraintAccuracy, ConstraintSecurity
from tests._asserts import assert_counterexamples_break

CR = ClassificationRobustness
PROPERTIES = [
    CR(0.05),
    CR(0.3, norm="l2"),
    CR(0.05, reference="prediction"),
    CR(np.linspace(0, 0.1, 64)),
    StandardRobustness(0.05, delta=2.0),
    StandardRobustness(0.05, delta=0.2, output="probabilities"),
    LipschitzRobustness(0.05, lipschitz=40.0),
    StrongClassificationRobustness(0.05, eta=0.9),
    CR(0.05) & StandardRobustness(0.05, delta=2.0),
]
ATTACKS = [FGSM(), PGD(5), AutoPGD(5), UniformSampling(10)]


def small(digits, n=60):
    _, X, _, y = digits
    return X[:n], y[:n]


# ---- counterexamples and intervals --------------------


@pytest.mark.parametrize("property", PROPERTIES, ids=repr)
def test_security_of_every_property(digits, digits_model, property):
    X, y = small(digits)
    result = ConstraintSecurity(property, PGD(10), random_state=0).evaluate(digits_model, X, y)
    assert_counterexamples_break(digits_model, property, result, X, y)
    assert result.score == result.holds.mean()
    assert 0 < result.holds.sum() < 60
    strict = property.needed_outputs == {"labels"}
    expected = result.margins > 0 if strict else result.margins >= 0
    if not isinstance(property, type(CR() & CR())):
        np.testing.assert_array_equal(result.holds, expected)


@pytest.mark.parametrize("attack", ATTACKS, ids=repr)
def test_security_by_every_attack(digits, digits_model, attack):
    X, y = small(digits)
    property = CR(0.1)
    result = ConstraintSecurity(property, attack, random_state=0).evaluate(digits_model, X, y)
    assert_counterexamples_break(digits_model, property, result, X, y)
    assert (~result.holds).sum() > 0


@pytest.mark.parametrize("property", PROPERTIES, ids=repr)
def test_accuracy_of_every_property(digits, digits_model, property):
    X, y = small(digits)
    result = ConstraintAccuracy(property, 20, random_state=0).evaluate(digits_model, X, y)
    assert_counterexamples_break(digits_model, property, result, X, y)
    assert result.score == pytest.approx(result.shares.mean())
    np.testing.assert_array_equal(result.shares * 20, np.round(result.shares * 20))
    assert 0 < result.score <= 1


@pytest.mark.parametrize("confidence", [0.9, 0.99])
def test_intervals_are_those_of_scipy(digits, digits_model, confidence):
    X, y = small(digits)
    security = ConstraintSecurity(CR(0.1), PGD(3), confidence=confidence, random_state=0)
    result = security.evaluate(digits_model, X, y)
    expected = binomtest(int(result.holds.sum()), 60).proportion_ci(confidence, "exact")
    assert (result.interval.low, result.interval.high) == (expected.low, expected.high)
    assert result.interval.method == "clopper-pearson"
    assert result.interval.confidence == confidence
    accuracy = ConstraintAccuracy(CR(0.1), 10, confidence=confidence, random_state=0)
    result = accuracy.evaluate(digits_model, X, y)
    n_holding = int(np.round(result.shares * 10).sum())
    expected = binomtest(n_holding, 600).proportion_ci(confidence, "exact")
    found = result.sampling_interval
    assert (found.low, found.high) == (expected.low, expected.high)
    # From one point around each input: wider, and an interval for k of 60 for some k.
    assert result.interval.high - result.interval.low > found.high - found.low
    possible = [binomtest(k, 60).proportion_ci(confidence, "exact") for k in range(61)]
    assert (result.interval.low, result.interval.high) in [(p.low, p.high) for p in possible]


def test_frames_and_reprs(digits, digits_model):
    X, y = small(digits)
    result = ConstraintSecurity(CR(0.1), PGD(3), random_state=0).evaluate(digits_model, X, y)
    frame = result.to_frame()
    assert frame.columns.tolist() == ["holds", "margins", "unconfirmed"]
    assert frame["holds"].mean() == result.score
    shown = rf"ConstraintSecurityResult\(score={result.score:.4f}, interval=\[.*95%\)\)"
    assert re.fullmatch(shown, repr(result))
    result = ConstraintAccuracy(CR(0.1), 5, random_state=0).evaluate(digits_model, X, y)
    assert result.to_frame().columns.tolist() == ["shares", "margins"]
    assert repr(result).startswith("ConstraintAccuracyResult(score=")


# ---- against accuracy, closed forms and each other --------------------


@pytest.mark.parametrize("scorer", [ConstraintSecurity(CR(0.0)), ConstraintAccuracy(CR(0.0), 3)])
def test_epsilon_zero_is_accuracy(digits, digits_model, scorer):
    X, _, y, _ = digits
    result = scorer.evaluate(digits_model, X, y)
    assert result.score == pytest.approx(digits_model.score(X, y), abs=1e-12)
    assert 0 < result.score < 1
    found = ~np.isnan(result.counterexamples).any(axis=1)
    np.testing.assert_array_equal(found, digits_model.predict(X) != y)
    np.testing.assert_array_equal(result.counterexamples[found], X[found])


def test_scores_fall_as_epsilon_grows(digits, digits_model):
    _, X, _, y = digits
    epsilons = [0.0, 0.02, 0.05, 0.1, 0.2]
    security = ConstraintSecurity(CR(), PGD(10), random_state=0)
    accuracy = ConstraintAccuracy(CR(), 20, random_state=0)
    scores = np.array(
        [
            [clone(s).set_params(property__epsilon=e)(digits_model, X, y) for e in epsilons]
            for s in (security, accuracy)
        ]
    )
    assert (np.diff(scores[0]) < 0).all()
    assert (np.diff(scores[1]) < 0.01).all()
    assert (scores[0] <= scores[1]).all()
    # Of an input that is misclassified, a sample near by may be right.
    assert (scores[0] <= digits_model.score(X, y)).all()


@pytest.mark.parametrize("labels", [[0, 1], ["no", "yes"]], ids=str)
def test_security_of_a_linear_model_in_closed_form(blobs, labels):
    X, y = blobs
    y = np.array(labels)[y]
    model = LogisticRegression(C=10).fit(X, y)
    score = model.decision_function(X) * np.where(y == labels[1], 1, -1)
    for norm, order in (("linf", 1), ("l2", 2)):
        property = CR(0.08, norm=norm, bounds=None)
        reach = score - 0.08 * np.linalg.norm(model.coef_[0], ord=order)
        result = ConstraintSecurity(property, AutoPGD(50), random_state=0).evaluate(model, X, y)
        clear = np.abs(reach) > 0.02
        np.testing.assert_array_equal(result.holds[clear], reach[clear] > 0)
        assert_counterexamples_break(model, property, result, X, y)
        np.testing.assert_allclose(result.margins[result.holds], reach[result.holds], atol=0.02)
        assert 5 < result.holds.sum() < 75


def test_accuracy_of_a_tree_in_closed_form():
    # One split at 0.5: the share of the ball on the right side is a length.
    X = np.array([[0.1], [0.4], [0.48], [0.52], [0.6], [0.9]])
    y = np.array([0, 0, 0, 1, 1, 1])
    tree = DecisionTreeClassifier().fit(X, y)
    result = ConstraintAccuracy(CR(0.2), 4000, random_state=0).evaluate(tree, X, y)
    np.testing.assert_allclose(result.shares, [1, 0.75, 0.55, 0.55, 0.75, 1], atol=0.03)
    assert_counterexamples_break(tree, CR(0.2), result, X, y)


def test_accuracy_in_the_whole_ball_and_in_the_valid_part_of_it():
    # Split at 0.25 and a ball of radius 0.2 around 0.1: [-0.1, 0.3], of which [0, 0.3] is valid.
    tree = DecisionTreeClassifier().fit([[0.0], [0.5]], [0, 1])
    for bounds, share in ((None, 0.35 / 0.4), ((0.0, 1.0), 0.25 / 0.3)):
        scorer = ConstraintAccuracy(CR(0.2, bounds=bounds), 20_000, random_state=0)
        assert scorer(tree, [[0.1]], [0]) == pytest.approx(share, abs=0.01)


def test_the_two_scores_of_one_sampling_agree(digits, digits_model):
    # A sample is secure against uniform sampling if no point of a sample breaks it.
    X, y = small(digits)
    security = ConstraintSecurity(CR(0.1), UniformSampling(50), random_state=0)
    accuracy = ConstraintAccuracy(CR(0.1), 50, random_state=0)
    holds = security.evaluate(digits_model, X, y).holds
    shares = accuracy.evaluate(digits_model, X, y).shares
    assert np.mean(holds == (shares == 1)) > 0.9


def test_a_standard_property_of_a_linear_map_in_closed_form():
    # z changes by at most 0.1 * 3 under a sup-norm change of 0.1.
    layer = torch.nn.Linear(3, 2).requires_grad_(False)
    layer.weight.copy_(torch.tensor([[1.0, -1.0, 1.0], [0.5, 0.0, 0.0]]))
    model = TorchClassifier(layer, 2)
    X = np.full((4, 3), 0.5)
    # Restarts, since a descent of the smallest row can end at the row of the other output.
    attack = PGD(n_restarts=20)
    for value, holds in ((3.1, 1.0), (2.9, 0.0)):
        for property in (StandardRobustness(0.1, 0.1 * value), LipschitzRobustness(0.1, value)):
            assert ConstraintSecurity(property, attack, random_state=0)(model, X) == holds


# ---- other estimators --------------------


def test_the_default_attack_misses_no_row():
    # Ten outputs, of which one alone breaks the property, at every point (true security: 0).
    weight = np.random.default_rng(0).normal(size=(10, 20)).astype(np.float32)
    norms = np.sort(np.abs(weight).sum(axis=1))
    module = torch.nn.Linear(20, 10)
    module.load_state_dict({"weight": torch.tensor(weight), "bias": torch.zeros(10)})
    model = TorchClassifier(module, classes=range(10))
    X = np.random.default_rng(1).uniform(0.3, 0.7, (50, 20))
    for factor, security in ((norms[-2:].mean(), 0.0), (1.01 * norms[-1], 1.0)):
        properties = (
            StandardRobustness(0.1, delta=0.1 * float(factor)),
            LipschitzRobustness(0.1, lipschitz=float(factor)),
        )
        for property in properties:
            assert ConstraintSecurity(property, random_state=0)(model, X) == security


def test_pipelines_are_scored_in_raw_space(blobs):
    X, y = blobs
    raw = 200 * X - 50
    model = make_pipeline(StandardScaler(), PCA(3), LogisticRegression(C=10)).fit(raw, y)
    scale = model[1].components_ / model[0].scale_
    weight = model[2].coef_[0] @ scale
    reach = model.decision_function(raw) * (2 * y - 1) - 16 * np.abs(weight).sum()
    property = CR(16, bounds=(-50, 150))
    result = ConstraintSecurity(property, PGD(10), random_state=0).evaluate(model, raw, y)
    assert_counterexamples_break(model, property, result, raw, y)
    # Inside the bounds, which only takes from the attack's reach.
    assert (result.holds >= (reach > 1e-6)).all()
    far = ((raw > -34) & (raw < 134)).all(axis=1)
    np.testing.assert_array_equal(result.holds[far], reach[far] > 0)
    result = ConstraintAccuracy(property, 30, random_state=0).evaluate(model, raw, y)
    assert_counterexamples_break(model, property, result, raw, y)


def test_frames_as_input(blobs):
    X, y = blobs
    frame = pd.DataFrame(X, columns=list("abcd"))
    scorers = [ConstraintSecurity(CR(0.1), PGD(5), random_state=0), ConstraintAccuracy(CR(0.1), 5)]
    for model in (
        LogisticRegression().fit(frame, y),
        make_pipeline(StandardScaler(), LogisticRegression()).fit(frame, y),
    ):
        for scorer in scorers:
            assert 0 < scorer(model, frame, pd.Series(y)) <= 1


def test_frames_as_input_of_a_black_box(blobs):
    X, y = blobs
    frame = pd.DataFrame(X, columns=list("abcd"))
    forest = RandomForestClassifier(5, random_state=0).fit(frame, y)
    assert 0 < ConstraintAccuracy(CR(0.1), 5)(forest, frame, pd.Series(y)) <= 1


def test_forests_by_sampling_only(blobs):
    X, y = blobs
    forest = RandomForestClassifier(10, max_depth=3, random_state=0).fit(X, y)
    for property in (
        CR(0.1),
        CR(0.1, reference="prediction"),
        StandardRobustness(0.1, 0.2, output="probabilities"),
        StrongClassificationRobustness(0.1, eta=0.6),
    ):
        result = ConstraintAccuracy(property, 20, random_state=0).evaluate(forest, X, y)
        assert_counterexamples_break(forest, property, result, X, y)
        assert 0 < result.score < 1
    assert ConstraintAccuracy(CR(0.0), 2)(forest, X, y) == pytest.approx(forest.score(X, y))
    with pytest.raises(UnsupportedModelError, match=r"RandomForestClassifier.*ConstraintAccuracy"):
        ConstraintSecurity(CR(0.1))(forest, X, y)
    with pytest.raises(UnsupportedPropertyError, match="output='probabilities'"):
        ConstraintAccuracy(StandardRobustness(0.1))(forest, X, y)


@pytest.mark.filterwarnings("ignore:lbfgs failed to converge")
@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_perceptrons_of_scikit_learn(digits, activation):
    X, y = small(digits, 200)
    labels = np.array(list("abcdefghij"))[y]
    model = MLPClassifier((16,), activation=activation, solver="lbfgs", max_iter=30).fit(X, labels)
    result = ConstraintSecurity(CR(0.1), PGD(10), random_state=0).evaluate(model, X, labels)
    assert_counterexamples_break(model, CR(0.1), result, X, labels)
    assert 0 < result.score < model.score(X, labels)


def test_images_of_a_skorch_classifier(digits):
    X, y = small(digits, 200)
    X = X.reshape(-1, 1, 8, 8)
    module = torch.nn.Sequential(
        torch.nn.Conv2d(1, 4, 3, stride=2),
        torch.nn.ReLU(),
        torch.nn.Flatten(),
        torch.nn.Linear(36, 10),
    )
    net = NeuralNetClassifier(
        module,
        criterion=torch.nn.CrossEntropyLoss,
        optimizer=torch.optim.Adam,
        lr=0.01,
        max_epochs=10,
        verbose=0,
        train_split=None,
    ).fit(X, y.astype(np.int64))
    security = ConstraintSecurity(CR(0.1), PGD(5), random_state=0).evaluate(net, X, y)
    assert_counterexamples_break(net, CR(0.1), security, X, y)
    accuracy = ConstraintAccuracy(CR(0.1), 5, random_state=0).evaluate(net, X, y)
    assert_counterexamples_break(net, CR(0.1), accuracy, X, y)
    assert security.score <= accuracy.score


def test_what_the_estimator_itself_does_not_show_is_no_counterexample():
    # The network has a tie everywhere, which breaks CR; the estimator itself says class 0.
    class Claimed:
        """Its network and its own outputs differ."""

    @as_network.register
    def _(model: Claimed, *, input_shape=None):
        def replay(X):
            return torch.tensor([[1.0, 0.0]]).expand(len(X), 2)

        layer = torch.nn.Linear(2, 2)
        for parameter in layer.parameters():
            torch.nn.init.zeros_(parameter)
        return Network(layer, [0, 1], 2, replay)

    X, y = np.full((5, 2), 0.5), np.array([0, 0, 0, 0, 1])
    result = ConstraintSecurity(CR(0.5), PGD(3)).evaluate(Claimed(), X, y)
    assert result.holds.tolist() == [True] * 4 + [False]
    assert np.isnan(result.counterexamples).all(axis=1).tolist() == [True] * 4 + [False]
    assert result.margins.tolist() == [1.0] * 4 + [-1.0]


# ---- refusals --------------------


def test_bad_parameters(digits, digits_model):
    X, y = small(digits)
    for scorer, error, message in (
        (ConstraintSecurity(CR(), "pgd"), TypeError, "Got attack='pgd', but expected an Attack"),
        (ConstraintSecurity(CR(), PGD(0)), ValueError, "Got n_steps=0, but expected"),
        (ConstraintAccuracy(CR(), 0), ValueError, "Got n_samples=0, but expected an integer"),
        (ConstraintAccuracy(CR(), batch_size=0), ValueError, "Got batch_size=0, but expected"),
    ):
        with pytest.raises(error, match=message):
            scorer(digits_model, X, y)


def test_probabilities_that_are_no_softmax_are_not_attacked(blobs):
    X, y = blobs
    y = np.where(X[:, 0] > 0.6, 2, y)
    model = SGDClassifier(loss="log_loss", random_state=0).fit(X, y)
    scr = StrongClassificationRobustness(0.05)
    with pytest.raises(UnsupportedPropertyError, match="SGDClassifier are not the softmax"):
        ConstraintSecurity(scr).evaluate(model, X, y)
    # Sampling asks predict_proba itself, as an attack by sampling does.
    for scorer in (ConstraintAccuracy(scr, 5), ConstraintSecurity(scr, UniformSampling(5))):
        result = scorer.evaluate(model, X, y)
        found = ~np.isnan(result.counterexamples).any(axis=1)
        labels = np.searchsorted(model.classes_, y[found])
        probabilities = model.predict_proba(result.counterexamples[found])
        assert found.any()
        assert (probabilities[np.arange(found.sum()), labels] < scr.eta + 1e-9).all()


def test_far_from_zero_a_pipeline_is_attacked_as_elsewhere():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(200, 4))
    y = (X[:, 0] + X[:, 1] > 0).astype(int)
    scores = []
    for offset in (0.0, 1e6):
        network = RobustClassifier(hidden_layer_sizes=8, random_state=0, max_epochs=5)
        pipeline = make_pipeline(StandardScaler(), network).fit(X + offset, y)
        scorer = ConstraintSecurity(ClassificationRobustness(0.1, bounds=None), random_state=0)
        result = scorer.evaluate(pipeline, X + offset, y)
        assert not result.unconfirmed.any()
        scores.append(result.score)
    assert scores[0] == pytest.approx(scores[1], abs=0.011)
    assert scores[0] < 1


def test_permuted_columns_are_refused():
    frame = pd.DataFrame(np.random.default_rng(0).random((30, 3)), columns=list("abc"))
    y = (frame["a"] > 0.5).astype(int)
    model = LogisticRegression().fit(frame, y)
    for scorer in (ConstraintSecurity(CR()), ConstraintAccuracy(CR())):
        with pytest.raises(ValueError, match=r"Got X with columns \['c', 'b', 'a'\]"):
            scorer.evaluate(model, frame[list("cba")], y)


def test_parts_that_are_none_can_be_searched(blobs):
    scorer = ConstraintSecurity(CR()).set_params(attack__n_steps=3)
    assert scorer.attack.n_steps == 3
    assert ConstraintSecurity(CR()).attack is None
