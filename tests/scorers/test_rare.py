"""Rare violations: closed forms down to 1e-9, budgets, black boxes, and bad parameters."""

import math
import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from joblib import parallel_config
from scipy.special import betainc
from sklearn.base import clone
from sklearn.ensemble import RandomForestClassifier
from sklearn.svm import SVC
from sklearn.tree import DecisionTreeClassifier

from skrobust import TorchClassifier
from skrobust.exceptions import UnsupportedModelError
from skrobust.properties import (
    ClassificationRobustness,
    LipschitzRobustness,
    StandardRobustness,
    StrongClassificationRobustness,
)
from skrobust.scorers import ConstraintAccuracy, ViolationProbability
from tests._asserts import assert_counterexamples_break

CR = ClassificationRobustness


def linear(weight, bias):
    """A classifier of two classes, whose margin of class 0 is linear."""
    layer = torch.nn.Linear(len(weight), 2).double()
    with torch.no_grad():
        layer.weight.zero_()[0] = torch.tensor(weight, dtype=torch.float64)
        layer.bias.copy_(torch.tensor([bias, 0.0], dtype=torch.float64))
    return TorchClassifier(layer, 2)


def one_feature(p):
    """Class 0 is lost in the lowest share p of the first feature's interval."""
    weight = np.array([1.0, 0.0, 0.0, 0.0])
    return linear(weight, -(0.4 + 0.2 * p)), CR(0.1), np.full(4, 0.5)


def corner(p):
    """Class 0 is lost in the simplex sum a_i (x_i - 0.4) <= t at a corner of the box."""
    a = np.array([0.5, 0.8, 1.0, 1.5, 2.0])
    t = (p * math.factorial(5) * np.prod(2 * 0.1 * a)) ** (1 / 5)
    assert t <= 0.2 * a.min()
    return linear(a, -(0.4 * a.sum() + t)), CR(0.1), np.full(5, 0.5)


def many_features(p):
    """The sum of twenty uniform numbers is at most s (Irwin and Hall)."""

    def cdf(s):
        terms = ((-1) ** k * math.comb(20, k) * (s - k) ** 20 for k in range(int(s) + 1))
        return sum(terms) / math.factorial(20)

    s = bisect(cdf, p, 0.0, 8.0)
    return linear(np.ones(20), -(0.4 * 20 + 0.2 * s)), CR(0.1), np.full(20, 0.5)


def cap(p):
    """A cap of the L2 ball of thirty dimensions."""
    h = bisect(lambda u: -0.5 * betainc(15.5, 0.5, 1 - u * u), -p, 0.0, 1.0)
    weight = np.eye(30)[0]
    return linear(weight, -(0.5 - 0.1 * h)), CR(0.1, norm="l2"), np.full(30, 0.5)


def folded_cap(p):
    """The same at a corner of the domain, where a billionth of a thousandth of it is left."""
    h = bisect(lambda u: -betainc(15.5, 0.5, 1 - u * u), -p, 0.0, 1.0)
    return linear(-np.eye(30)[0], 0.1 * h), CR(0.1, norm="l2"), np.zeros(30)


def bisect(function, value, low, high):
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if function(middle) < value else (low, middle)
    return middle


def evaluate(case, n=1, random_state=0, **parameters):
    """Measure one case n times over, as that many samples."""
    model, property, x = case
    scorer = ViolationProbability(
        property, random_state=random_state, chunk_size=max(n, 1), **parameters
    )
    return scorer.evaluate(model, np.repeat(x[None], n, axis=0), np.zeros(n, dtype=int))


# ---- closed forms --------------------


@pytest.mark.parametrize(
    ("case", "p"),
    [
        (one_feature, 0.3),
        (one_feature, 1e-3),
        (one_feature, 1e-9),
        (corner, 1e-9),
        (many_features, 1e-9),
        (cap, 1e-9),
        (folded_cap, 1e-9),
    ],
)
def test_closed_forms_within_their_intervals(case, p):
    result = evaluate(case(p), n=12, confidence=0.9)
    covered = (result.low <= p) & (p <= result.high)
    # Of 12 intervals of 90 % fewer than 8 cover with probability 5e-4.
    assert covered.sum() >= 8
    assert result.finished.all()
    assert result.n_unfinished == 0
    assert result.probability_interval.low < p < result.probability_interval.high
    assert result.probability == pytest.approx(p, rel=0.5)
    assert (result.evaluations <= 100_000).all()
    # Not so wide that everything is covered: a factor of three each way.
    assert (result.high / result.low < 9).all()
    assert result.score == pytest.approx(-math.log10(result.probability))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("case", "p"), [(one_feature, 1e-6), (one_feature, 1e-9), (corner, 1e-9), (cap, 1e-6)]
)
def test_coverage_is_the_confidence(case, p):
    results = [evaluate(case(p), n=100, random_state=seed) for seed in range(2)]
    low, high, estimates = (
        np.concatenate([getattr(result, name) for result in results])
        for name in ("low", "high", "probabilities")
    )
    covered = np.mean((low <= p) & (p <= high))
    # Walks do not forget all: a little below 95 %.
    assert 0.87 < covered < 1
    assert abs(estimates.mean() / p - 1) < 4 * estimates.std() / p / math.sqrt(200)


def test_last_particle():
    result = evaluate(
        one_feature(1e-3), n=12, n_samples=32, n_particles=32, n_replaced=1, n_steps=10
    )
    assert (((result.low <= 1e-3) & (result.high >= 1e-3)).sum()) >= 9
    # About n log(1/p) particles of ten moves each.
    assert result.evaluations.mean() == pytest.approx(32 * math.log(1e3) * 10, rel=0.2)


@settings(max_examples=25)
@given(st.floats(0.1, 3.0), st.floats(0.1, 3.0), st.floats(1e-5, 1.0), st.floats(0.02, 0.4))
def test_half_planes_in_two_dimensions(a, b, share, epsilon):
    width = 2 * epsilon
    t = share * (a + b) * width
    # The area below a x + b y = t in a square of that width: of a triangle, less two tips.
    tips = sum(max(0.0, t - c * width) ** 2 for c in (a, b))
    p = min(1.0, (t * t - tips) / (2 * a * b * width**2))
    case = linear([a, b], -((0.5 - epsilon) * (a + b) + t)), CR(epsilon), np.full(2, 0.5)
    result = evaluate(case, confidence=1 - 1e-6, n_particles=64, n_samples=256, n_steps=15)
    assert result.low[0] <= p <= result.high[0]


def test_agrees_with_plain_sampling(digits, digits_model):
    _, X, _, y = digits
    property = CR(0.2)
    plain = ConstraintAccuracy(property, 20_000, random_state=0, chunk_size=8)
    shares = 1 - plain.evaluate(digits_model, X[:40], y[:40]).shares
    rare = np.flatnonzero((shares > 5e-4) & (shares < 0.05))[:6]
    assert len(rare) >= 3
    scorer = ViolationProbability(property, random_state=0, confidence=0.999)
    result = scorer.evaluate(digits_model, X[rare], y[rare])
    error = 4 * np.sqrt(shares[rare] / 20_000)
    assert (result.low <= shares[rare] + error).all()
    assert (shares[rare] - error <= result.high).all()
    assert (result.evaluations > 2049).any()


# ---- what results say --------------------


def test_every_property(digits, digits_model):
    _, X, _, y = digits
    for property in (
        StandardRobustness(0.1, delta=2.0),
        LipschitzRobustness(0.1, lipschitz=10.0, norm="l2"),
        StrongClassificationRobustness(0.1, eta=0.9),
        CR(0.1) & StandardRobustness(0.1, delta=2.0, output="probabilities"),
    ):
        scorer = ViolationProbability(
            property, 64, n_particles=16, max_evaluations=1000, random_state=0
        )
        result = scorer.evaluate(digits_model, X[:4], y[:4])
        assert_counterexamples_break(
            digits_model, property, result_with_holds(result), X[:4], y[:4]
        )
        assert (result.evaluations <= 1000).all()
        assert ((result.low <= result.probabilities) & (result.probabilities <= result.high)).all()


def result_with_holds(result):
    """Add what the assertion about counterexamples reads."""
    object.__setattr__(result, "holds", np.isnan(result.counterexamples).any(axis=1))
    return result


def test_what_is_not_reached_is_an_upper_bound():
    nowhere = linear([0.0, 0.0], 1.0), CR(0.1), np.full(2, 0.5)
    result = evaluate(nowhere, n=3, max_evaluations=20_000)
    assert result.n_unfinished == 3
    assert not result.finished.any()
    assert np.isnan(result.counterexamples).all()
    np.testing.assert_array_equal(result.probabilities, result.high)
    np.testing.assert_array_equal(result.low, 0)
    # A constant margin is one plateau, which the ties alone divide: moves are 128 * 20 a level.
    assert (result.evaluations == 2049 + 128 * 20 * 7).all()
    assert (result.probabilities < 256 / 2048 * 0.5**7 * 0.2).all()
    assert result.probability_interval.high > result.probability
    assert result.interval.high > 300  # the lower end is 0
    more = evaluate(nowhere, n=3, max_evaluations=40_000)
    assert (more.probabilities < result.probabilities / 100).all()


def test_balls_of_one_point_are_exact():
    model = linear([1.0, 0.0], -0.5)
    scorer = ViolationProbability(CR(0.0), random_state=0)
    result = scorer.evaluate(model, [[0.8, 0.0], [0.2, 0.0]], [0, 0])
    for values in (result.probabilities, result.low, result.high):
        np.testing.assert_array_equal(values, [0.0, 1.0])
    assert result.probability == 0.5
    assert (result.interval.low, result.interval.high) == (result.score, result.score)
    np.testing.assert_array_equal(result.counterexamples[1], [0.2, 0.0])
    best = scorer.evaluate(model, [[0.8, 0.0]], [0])
    assert best.score == pytest.approx(307.65, abs=0.01)


def test_mean_interval_is_a_union_bound():
    case = one_feature(1e-4)
    result = evaluate(case, n=5, confidence=0.9)
    stricter = evaluate(case, n=5, confidence=0.98)
    interval = result.probability_interval
    assert interval.low == pytest.approx(stricter.low.mean())
    assert interval.high == pytest.approx(stricter.high.mean())
    assert interval.confidence == 0.9
    assert result.interval.low == pytest.approx(-math.log10(interval.high))
    assert result.interval.high == pytest.approx(-math.log10(interval.low))


def test_frame_and_repr():
    result = evaluate(one_feature(0.3), n=2)
    columns = ["probabilities", "low", "high", "finished", "evaluations", "acceptance", "margins"]
    assert result.to_frame().columns.tolist() == columns
    assert re.fullmatch(
        r"ViolationProbabilityResult\(score=0\.5\d*, .*splitting.*\)", repr(result)
    )
    assert (result.evaluations == 2049).all()
    assert np.isnan(result.acceptance).all()


def test_results_follow_from_the_seed(tmp_path):
    model, property, x = one_feature(1e-4)
    X, y = np.repeat(x[None], 6, axis=0), np.zeros(6, dtype=int)
    scorer = ViolationProbability(property, 512, n_particles=64, chunk_size=2, random_state=3)
    first = scorer.evaluate(model, X, y).to_frame()
    torch.manual_seed(1)
    assert first.equals(scorer.evaluate(model, X, y).to_frame())
    with parallel_config(backend="threading"):
        assert first.equals(clone(scorer).set_params(n_jobs=2).evaluate(model, X, y).to_frame())
    kept = clone(scorer).set_params(memory=str(tmp_path))
    for _ in range(2):
        assert first.equals(kept.evaluate(model, X, y).to_frame())
    assert not first.equals(scorer.set_params(random_state=4).evaluate(model, X, y).to_frame())


# ---- black boxes --------------------


def test_plateaus_of_a_tree_have_the_exact_probability():
    # Class 1 in the corner where both features are below 1/16; two leaves of class 0 beside it.
    points = (np.arange(32) + 0.5) / 32
    X = np.stack(np.meshgrid(points, points), axis=2).reshape(-1, 2)
    tree = DecisionTreeClassifier(random_state=0).fit(X, (X < 1 / 16).all(axis=1))
    p = (1 / 16 - 0.02) * (1 / 16 - 0.03) / 0.6**2
    assert p == pytest.approx(0.0038, abs=1e-4)
    scorer = ViolationProbability(CR(0.3), 512, n_particles=128, confidence=0.999, random_state=0)
    result = scorer.evaluate(tree, [[0.32, 0.33]] * 6, [False] * 6)
    assert 0 < result.low.max() <= p <= result.high.min()
    assert result.finished.all()
    assert result.probability == pytest.approx(p, rel=0.4)
    assert (result.evaluations > 513).all()
    found = result.counterexamples
    np.testing.assert_array_equal(tree.predict(found), True)


def test_black_boxes_need_probabilities(digits):
    X, _, y, _ = digits
    forest = RandomForestClassifier(5, random_state=0).fit(X, y)
    scorer = ViolationProbability(CR(0.1), 32, n_particles=8, max_evaluations=500, random_state=0)
    assert 0 <= scorer(forest, X[:3], y[:3]) < 308
    with pytest.raises(UnsupportedModelError, match=r"SVC.* without predict_proba.*margin"):
        scorer.evaluate(SVC().fit(X[:200], y[:200]), X[:3], y[:3])


# ---- bad parameters --------------------


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"n_samples": 255}, "Got n_samples=255, but expected an integer of at least n_particles"),
        ({"n_particles": 1}, "Got n_particles=1, but expected an integer of at least 2"),
        ({"n_particles": 2.5}, "Got n_particles=2.5"),
        ({"n_replaced": 256}, "Got n_replaced=256, but expected an integer below n_particles=256"),
        ({"n_replaced": 0}, "Got n_replaced=0"),
        ({"n_steps": 0}, "Got n_steps=0"),
        ({"max_evaluations": 2000}, "Got max_evaluations=2000, .* at least n_samples=2048"),
        ({"batch_size": 0}, "Got batch_size=0"),
        ({"confidence": 1.0}, "Got confidence=1.0"),
        ({"chunk_size": 0}, "Got chunk_size=0"),
        ({"random_state": "0"}, "Got random_state='0'"),
    ],
)
def test_bad_parameters_are_named(parameters, message):
    model, property, x = one_feature(0.3)
    with pytest.raises(ValueError, match=message):
        ViolationProbability(property, **parameters).evaluate(model, x[None], [0])


def test_bad_property_and_labels_are_named():
    model, property, x = one_feature(0.3)
    with pytest.raises(TypeError, match="Got property='CR'"):
        ViolationProbability("CR").evaluate(model, x[None], [0])
    with pytest.raises(ValueError, match="Got y=None"):
        ViolationProbability(property).evaluate(model, x[None])
