"""The framework of robustness scores: closed forms, invariances, and the points drawn."""

import numpy as np
import pytest
import torch
from joblib import parallel_config
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.tree import DecisionTreeClassifier

from skrobust import TorchClassifier
from skrobust.attacks import Ensemble
from skrobust.exceptions import UnsupportedModelError
from skrobust.scorers import MarginRobustness, RobustnessScore
from skrobust.statistics import hoeffding

PAPERS = ["R1", "R2", "R4", "example-3", "example-5-uniform", "example-5-data"]
OURS = ["success-rate", "uniform-share", "class-share"]
PRESETS = PAPERS + OURS
BY_ATTACK = ["R1", "R2"]
MARGINS = {"weight": "constant", "transform": "all"}


class Constant(ClassifierMixin, BaseEstimator):
    """Always the first class, and nothing but `predict`."""

    def __init__(self, classes):
        self.classes_ = np.asarray(classes)

    def predict(self, X):
        return np.full(len(X), self.classes_[0])


@pytest.fixture(scope="module")
def split():
    """A linear classifier that changes at 0.5, and numbers whose balls reach 0.2 around."""
    layer = torch.nn.Linear(1, 2)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[-1.0], [1.0]]))
        layer.bias.copy_(torch.tensor([0.5, -0.5]))
    X = np.array([[0.21], [0.35], [0.43], [0.47], [0.56], [0.62], [0.68], [0.79]])
    return TorchClassifier(layer, 2), X


def linear(weights, bias):
    """A classifier that is class 1 where weights . x + bias is above 0."""
    layer = torch.nn.Linear(len(weights), 2).double()
    with torch.no_grad():
        layer.weight.copy_(torch.stack([torch.zeros(len(weights)), torch.tensor(weights)]))
        layer.bias.copy_(torch.tensor([0.0, bias]))
    return TorchClassifier(layer, 2)


# ---- the paper's scores --------------------


def test_r1_of_half_the_unit_square():
    # The margin |x1 - 1/2| of uniform x, and not the 0.177 of a mean over radii up to sqrt(2).
    scorer = RobustnessScore.preset("R1", n_inputs=20_000, random_state=0)
    result = scorer.evaluate(linear([1.0, 0.0], -0.5), np.zeros((3, 2)))
    assert result.radius.shape == (20_000,)
    assert result.score == pytest.approx(0.25, abs=5 * 0.144 / np.sqrt(20_000))
    assert result.interval.low < 0.25 < result.interval.high
    assert result.normalized == pytest.approx(result.score / np.sqrt(2))
    # It does not look at the data.
    assert scorer(linear([1.0, 0.0], -0.5), np.full((3, 2), 0.9)) == result.score


def test_r1_in_l2_of_a_slanted_boundary():
    # The distance from 2 x1 + x2 = 1.5, which cuts the square in half, by integration.
    grid = np.stack(np.meshgrid(*[(np.arange(400) + 0.5) / 400] * 2), axis=-1).reshape(-1, 2)
    truth = np.abs(grid @ [2, 1] - 1.5).mean() / np.sqrt(5)
    scorer = RobustnessScore.preset("R1", n_inputs=4000, random_state=1)
    score = scorer(linear([2.0, 1.0], -1.5), np.zeros((1, 2)))
    assert score == pytest.approx(truth, abs=0.015)


def test_r2_is_the_mean_margin_of_the_data():
    model, X = linear([3.0, 4.0], -3.5), np.random.default_rng(0).random((50, 2))
    result = RobustnessScore.preset("R2").evaluate(model, X)
    margin = np.abs(X @ [3, 4] - 3.5) / 5
    np.testing.assert_allclose(result.radius, margin, atol=1e-4)
    assert result.score == pytest.approx(margin.mean(), abs=1e-4)
    assert result.epsilons[-1] == pytest.approx(np.sqrt(2))
    same = MarginRobustness("l2", random_state=0).evaluate(model, X)
    assert same.score == pytest.approx(result.score, abs=1e-6)
    assert result.curve == pytest.approx([(margin > e).mean() for e in result.epsilons])
    # By random points too, from above, for what has no gradient.
    by_points = RobustnessScore.preset("R2", attack=None, n_samples=300, random_state=0)
    assert by_points(model, X) == pytest.approx(margin.mean(), abs=0.06)


@pytest.mark.parametrize("n_features", [2, 9])
def test_a_constant_classifier_has_the_diameter_as_its_margin(n_features):
    X = np.random.default_rng(0).random((12, n_features))
    y = np.arange(12) % 2
    model = linear([0.0] * n_features, -1.0)
    for name in ("R1", "R2", "example-3", "example-5-uniform", "example-5-data"):
        result = RobustnessScore.preset(name, random_state=0).evaluate(model, X, y)
        assert result.score == pytest.approx(np.sqrt(n_features))
        assert result.normalized == pytest.approx(1)


def test_r4_of_a_constant_classifier_is_the_mean_of_inverse_radii():
    X, model = np.zeros((6, 2)), linear([0.0, 0.0], 1.0)
    result = RobustnessScore.preset("R4", [1, 2, 4], bounds=None).evaluate(model, X)
    assert (result.n_points == 5).all()  # no ball is empty
    assert result.score == pytest.approx((1 + 1 / 2 + 1 / 4) / 3) == pytest.approx(0.58333, 1e-4)
    assert result.normalized == 1


def test_r4_by_hand():
    model, _ = linear([1.0], -0.5), None
    X = np.array([[0.1], [0.4], [0.6]])
    # Around 0.1: all of 1, then 1/2. Around 0.4: 0, then 1/2. Around 0.6: 0 and 0.
    result = RobustnessScore.preset("R4", [0.35, 0.5]).evaluate(model, X)
    assert result.shares == pytest.approx(np.array([[1, 0.5], [0.5, 0.5], [0, 0]]))
    by_hand = (result.shares / [0.35, 0.5]).mean()
    assert result.score == pytest.approx(by_hand)
    assert result.normalized == pytest.approx(by_hand / np.mean([1 / 0.35, 1 / 0.5]))


def test_examples_3_and_5_by_hand():
    model = linear([1.0], -0.5)
    X, y = np.array([[0.1], [0.4], [0.6], [0.9]]), np.array([0, 1, 1, 1])
    third = RobustnessScore.preset("example-3").evaluate(model, X)
    assert third.radius == pytest.approx([0.5, 0.2, 0.2, 0.5])
    assert third.score == pytest.approx(0.35)
    # Of the first class there is no other row, so that nothing changes its label.
    fifth = RobustnessScore.preset("example-5-data").evaluate(model, X, y)
    assert fifth.values == pytest.approx([1.0, 0.2, 0.2, 0.5])
    # Uniform points keep the class of the closest row: below 0.25, and above. The label changes
    # at 0.5, which the first sample does not get to.
    uniform = RobustnessScore.preset(
        "example-5-uniform", np.linspace(0, 1, 201)[1:], n_samples=400, random_state=0
    ).evaluate(model, X, y)
    np.testing.assert_allclose(uniform.values, [1.0, 0.1, 0.1, 0.4], atol=0.01)


def test_types_follow_from_the_whole_score():
    types = [RobustnessScore.preset(name).type for name in PRESETS]
    assert types == [1, 2, 2, 2, 3, 3, 2, 2, 3]
    assert RobustnessScore("data", weight="constant").type == 2
    assert RobustnessScore.preset("R2", reference="label").type == 3
    assert RobustnessScore(lambda *args: None).type == 2


# ---- this library's --------------------


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_margins_of_a_linear_classifier_by_random_points(split, norm):
    model, X = split
    margin = np.abs(X[:, 0] - 0.5)
    make = {"norm": norm, "random_state": 0}
    rate = RobustnessScore.preset("success-rate", 0.1, n_samples=500, **make)
    assert rate(model, X) == pytest.approx((margin > 0.1).mean(), abs=1e-12)
    epsilons = np.linspace(0, 0.2, 401)[1:]
    r2 = RobustnessScore.preset("R2", epsilons, attack=None, n_samples=2000, **make)
    result = r2.evaluate(model, X)
    truth = np.minimum(margin, 0.2).mean()
    assert result.score == pytest.approx(truth, abs=1e-3)
    assert result.normalized == pytest.approx(truth / 0.2, abs=5e-3)
    np.testing.assert_allclose(result.values, np.minimum(margin, 0.2), atol=1.5e-3)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_uniform_share_of_a_linear_classifier(split, norm):
    model, X = split
    # Of the length 2 epsilon of the ball, margin + epsilon lies on the right side.
    share = np.minimum((np.abs(X[:, 0] - 0.5) + 0.15) / 0.3, 1)
    scorer = RobustnessScore.preset(
        "uniform-share", 0.15, norm=norm, n_samples=100_000, random_state=0
    )
    result = scorer.evaluate(model, X)
    np.testing.assert_allclose(result.shares[:, 0], share, atol=0.01)
    assert result.score == pytest.approx(share.mean(), abs=4e-3)
    assert result.score == result.normalized


def test_balls_are_cut_to_the_bounds(split):
    model, _ = split
    X = np.array([[0.4]])
    # [0.3, 0.55] without the part above it; 0.2 of 0.25 lies on the right side.
    score = RobustnessScore(epsilons=0.25, bounds=(0.3, 0.55), n_samples=100_000, random_state=0)
    assert score(model, X) == pytest.approx(0.8, abs=0.01)
    assert score.set_params(norm="l2")(model, X) == pytest.approx(0.8, abs=0.01)


def test_densities_of_the_radii(split):
    model, X = split
    epsilons = [0.05, 0.1, 0.2]
    make = {"transform": "all", "epsilons": epsilons, "n_samples": 2000, "random_state": 0}
    curve = np.array([(np.abs(X[:, 0] - 0.5) > e).mean() for e in epsilons])
    for weight, weights in (
        ("radii", [0, 1 / 3, 1 / 3, 1 / 3]),
        ("density", [0.025, 0.05, 0.075, 0.05]),
        ("inverse", [0, 20 / 3, 10 / 3, 5 / 3]),
        (lambda X, e: 2 * np.ones(3), [0, 2 / 3, 2 / 3, 2 / 3]),
        (lambda X, e: np.tile([1.0, 0.0, 0.0], (len(X), 1)), [0, 1 / 3, 0, 0]),
    ):
        result = RobustnessScore(weight=weight, **make).evaluate(model, X)
        assert result.curve == pytest.approx(curve)
        assert result.score == pytest.approx(np.dot(np.r_[1, curve], weights))
        assert result.normalized == pytest.approx(result.score / sum(weights))


def test_weights_that_differ_between_samples(split):
    model, X = split
    weight = np.arange(1.0, 9.0)
    scorer = RobustnessScore(
        transform="all",
        weight=lambda X, e: weight[:, None],
        epsilons=0.1,
        n_samples=500,
        random_state=0,
    )
    result = scorer.evaluate(model, X)
    robust = np.abs(X[:, 0] - 0.5) > 0.1
    assert result.score == pytest.approx((robust * weight).mean())
    assert result.normalized == pytest.approx(np.average(robust, weights=weight))
    assert result.interval.method == "normal, approximate"
    assert result.interval.low < result.score < result.interval.high


def test_readings_of_the_probability(split):
    model, X = split
    make = {"epsilons": 0.15, "n_samples": 4000, "random_state": 0}
    shares = RobustnessScore(**make).evaluate(model, X).shares
    for transform, worth in (
        ("identity", shares),
        ("all", shares == 1),
        ("majority", shares > 0.5),
        (np.square, shares**2),
    ):
        assert RobustnessScore(transform=transform, **make)(model, X) == pytest.approx(
            worth.mean()
        )


# ---- invariances --------------------


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_a_constant_classifier_is_robust(blobs, name, norm):
    X, y = blobs
    scorer = RobustnessScore.preset(name, [0.1, 0.3, 0.5], norm=norm, random_state=0)
    scorer.set_params(attack=None)
    for model in (
        DummyClassifier(strategy="constant", constant=1).fit(X, y),
        Constant([0, 1]),
    ):
        result = scorer.evaluate(model, X, y)
        assert result.normalized == pytest.approx(1)
        assert result.interval.high == pytest.approx(result.score)
        assert set(result.curve) <= {1.0}


@pytest.mark.parametrize("name", PRESETS)
def test_names_of_the_classes_do_not_matter(blobs, name):
    X, y = blobs
    scorer = RobustnessScore.preset(name, [0.1, 0.3], attack=None, random_state=0)
    names = np.array(["zebra", "ant"])[y]
    scores = [
        scorer.evaluate(DecisionTreeClassifier(max_depth=1).fit(X, labels), X, labels).normalized
        for labels in (y, 1 - y, names)
    ]
    assert scores[0] == scores[1] == scores[2]
    assert 0 < scores[0] < 1


def test_scores_fall_as_the_balls_grow(blobs):
    X, y = blobs
    model = RandomForestClassifier(10, random_state=0).fit(X, y)
    curve = (
        RobustnessScore(epsilons=[0.02, 0.1, 0.2, 0.4], random_state=0).evaluate(model, X).curve
    )
    assert (np.diff(curve) < 0).all()


def test_reference_to_the_label(blobs):
    X, y = blobs
    model = LogisticRegression(C=0.05).fit(X, y)
    assert 0.5 < model.score(X, y) < 1
    make = {"epsilons": 1e-6, "n_samples": 3, "random_state": 0}
    assert RobustnessScore(reference="label", **make)(model, X, y) == model.score(X, y)
    assert RobustnessScore(**make)(model, X) == 1.0
    # The integral from radius 0 starts with accuracy as well.
    for attack in (None, Ensemble()):
        r2 = RobustnessScore.preset("R2", reference="label", attack=attack, **make)
        assert r2.evaluate(model, X, y).normalized == pytest.approx(model.score(X, y), abs=1e-6)


# ---- the other sources of points --------------------


def test_neighbors_by_hand(split):
    model, _ = split
    X = np.array([[0.3], [0.4], [0.45], [0.55], [0.9]])
    y = np.array([0, 0, 1, 1, 1])
    result = RobustnessScore("data", epsilons=0.16).evaluate(model, X)
    assert result.n_points[:, 0].tolist() == [2, 3, 3, 2, 0]
    assert result.shares[:, 0] == pytest.approx([1, 2 / 3, 2 / 3, 0, 1])
    result = RobustnessScore("class-data", epsilons=0.16).evaluate(model, X, y)
    assert result.n_points[:, 0].tolist() == [1, 1, 1, 1, 0]
    assert result.shares[:, 0].tolist() == [1, 1, 0, 0, 1]
    result = RobustnessScore("data", epsilons=0.16, reference="label").evaluate(model, X, y)
    assert result.shares[:, 0] == pytest.approx([1, 2 / 3, 1 / 3, 0, 1])


def test_a_generator_is_conditioned_on_the_ball(split):
    model, X = split
    seen = []

    def everywhere(X, labels, epsilon, n_samples, generator):
        seen.append((X.shape, labels, epsilon))
        return generator.random((len(X), n_samples, 1))

    make = {"epsilons": 0.15, "n_samples": 50_000, "random_state": 0}
    ours = RobustnessScore(everywhere, **make).evaluate(model, X)
    uniform = RobustnessScore(**make).evaluate(model, X)
    np.testing.assert_allclose(ours.shares, uniform.shares, atol=0.02)
    np.testing.assert_allclose(ours.n_points / 50_000, 0.3, atol=0.02)
    assert seen[0] == ((1, 1), None, 0.15)

    def labeled(X, labels, epsilon, n_samples, generator):
        points = np.full((len(X), n_samples, 1), np.nan)
        points[labels == "b"] = X[labels == "b"][:, None]
        return points

    names = np.array(["a", "b"])
    model = TorchClassifier(model.module, names)
    result = RobustnessScore(labeled, **make).evaluate(model, X, names[[0, 1] * 4])
    assert result.n_points[:, 0].tolist() == [0, 50_000] * 4
    assert (result.shares == 1).all()


# ---- results --------------------


def test_results(split):
    model, X = split
    scorer = RobustnessScore.preset("uniform-share", [0.1, 0.2], random_state=0)
    result = scorer.evaluate(model, X)
    assert result.to_frame().columns.tolist() == ["values"]
    assert result.score == pytest.approx(result.values.mean()) == scorer(model, X)
    assert result.epsilons == (0.1, 0.2)
    assert result.interval == hoeffding(result.values)
    assert result.radius is None
    margins = RobustnessScore.preset("R2").evaluate(model, X)
    assert margins.to_frame().columns.tolist() == ["values", "radius"]
    assert margins.shares is None and margins.n_points is None


@pytest.mark.parametrize("name", PRESETS)
def test_jobs_batches_and_memory(blobs, name, tmp_path):
    X, y = blobs
    model = LogisticRegression().fit(X, y)
    scorer = RobustnessScore.preset(name, [0.1, 0.3], chunk_size=30, random_state=0)
    first = scorer.evaluate(model, X, y)
    for changed in ({"memory": str(tmp_path)}, {"memory": str(tmp_path)}, {"n_jobs": 2}):
        with parallel_config("threading"):
            again = clone(scorer).set_params(**changed).evaluate(model, X, y)
        np.testing.assert_array_equal(again.values, first.values)
    small = clone(scorer).set_params(batch_size=17).evaluate(model, X, y)
    np.testing.assert_allclose(small.curve, first.curve, atol=0.05)
    if name != "example-5-uniform":  # where the draw decides how many points count
        np.testing.assert_array_equal(small.n_points, first.n_points)


# ---- refusals --------------------


@pytest.mark.parametrize(
    ("params", "message"),
    [
        (
            {"neighborhood": "normal"},
            "Got neighborhood='normal', but expected one of 'uniform', 'da",
        ),
        ({"transform": "none"}, "Got transform='none', but expected one of 'identity'"),
        ({"weight": 1.0}, r"Got weight=1\.0, but expected one of 'radii'"),
        (
            {"weight": lambda X, e: np.ones(5)},
            r"Got weight with values of shape \(5,\), but expected \(1,\)",
        ),
        ({"weight": lambda X, e: -np.ones(1)}, "but expected finite weights of at least 0"),
        ({"transform": lambda p: 1.0}, r"Got transform with values of shape \(\)"),
        (
            {"neighborhood": lambda *args: np.zeros(3)},
            r"Got neighborhood with points of shape \(3,\)",
        ),
        ({"transform": lambda p: p * np.nan}, "Got transform with values NaN or infinity"),
        ({"epsilons": 0}, "Got epsilons=0, but expected a positive number"),
        ({"epsilons": [0.2, 0.1]}, "but expected a positive number, or an array of rising"),
        ({"epsilons": "small"}, "Got epsilons='small'"),
        ({"epsilons": True}, "Got epsilons=True, but expected a positive number"),
        ({"epsilons": []}, r"Got epsilons=\[\], but expected a positive number"),
        ({"epsilons": [0.1, np.nan]}, "but expected a positive number, or an array of rising"),
        ({"epsilons": 1j}, "Got epsilons=1j, but expected a positive number"),
        ({"epsilons": [[0.1], [0.2, 0.3]]}, "but expected a positive number, or an array of"),
        ({"norm": None}, "Got norm=None, but expected one of 'linf', 'l2'"),
        ({"norm": "l1"}, "Got norm='l1', but expected one of"),
        ({"reference": "truth"}, "Got reference='truth'"),
        ({"n_samples": 0}, "Got n_samples=0"),
        ({"batch_size": 0}, "Got batch_size=0"),
        ({"confidence": 1.0}, r"Got confidence=1\.0"),
        (
            {"reference": "label"},
            "expected the true labels: the scorer has reference='label'",
        ),
        (
            {"neighborhood": "class-data"},
            "the true labels: the scorer has neighborhood='class-data'",
        ),
        ({"bounds": (0.4, 1.0)}, "2 of 8 rows of X lie outside"),
        ({"bounds": None, "epsilons": None}, "Got epsilons=None, but expected a number, since"),
        ({"n_inputs": 0}, "Got n_inputs=0, but expected an integer"),
        ({"n_inputs": 1, **MARGINS, "attack": Ensemble()}, "n_inputs=1, .* of at least 2"),
        ({"n_inputs": 1, **MARGINS, "neighborhood": "data"}, "n_inputs=1, .* of at least 2"),
        (
            {"weight": "constant", "bounds": None},
            "Got bounds=None, but expected finite bounds, for inputs that are uniform",
        ),
        (
            {"weight": "constant", "neighborhood": "class-data"},
            "Got weight='constant', but expected another one, since uniform inputs have no true",
        ),
        (
            {"attack": Ensemble()},
            r"Got attack=Ensemble\(.*, but expected None, or neighborhood='u",
        ),
    ],
)
def test_bad_parameters(split, params, message):
    with pytest.raises(ValueError, match=message):
        RobustnessScore(random_state=0).set_params(**params)(*split)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"neighborhood": lambda *args: None}, "Got neighborhood with points of type object"),
        ({"transform": lambda p: None}, "Got transform with values None, but expected real"),
        ({"weight": lambda X, e: ["a"]}, r"Got weight with values \['a'\], but expected real"),
    ],
)
def test_callables_that_return_no_numbers(split, params, message):
    with pytest.raises(TypeError, match=message):
        RobustnessScore(random_state=0).set_params(**params)(*split)


def test_parameters_of_numpy_types_are_those_of_python(split):
    model, X = split
    plain = RobustnessScore(epsilons=0.25, n_samples=100, batch_size=120, random_state=0)
    small = RobustnessScore(
        epsilons=np.float32(0.25),
        n_samples=np.int8(100),
        batch_size=np.int8(120),
        confidence=np.float64(0.95),
        random_state=np.int64(0),
    )
    for name in ("uniform", lambda X, y, e, n, random: X[:, None] + random.uniform(-e, e, (n, 1))):
        for scorer in (plain, small):
            scorer.set_params(neighborhood=name)
        assert plain.evaluate(model, X).curve == small.evaluate(model, X).curve


def test_a_preset_has_the_radius_of_the_class():
    for name in OURS:
        assert RobustnessScore.preset(name).epsilons == RobustnessScore().epsilons
    for name in PAPERS:
        assert RobustnessScore.preset(name).epsilons is None
    assert RobustnessScore.preset("R1", 0.3, n_samples=5).n_samples == 5
    for other in ({"neighborhood": "data"}, {"weight": "radii"}, {"transform": "majority"}):
        assert RobustnessScore.preset("R2", **other).check().attack is None


def test_attacks_are_for_networks_and_two_samples_are_needed(split):
    model, X = split
    with pytest.raises(UnsupportedModelError, match="Constant"):
        RobustnessScore.preset("R1")(Constant([0, 1]), X)
    for name in ("R2", "example-3"):
        with pytest.raises(ValueError, match=r"1 sample.*but expected at least 2"):
            RobustnessScore.preset(name)(model, X[:1])
    with pytest.raises(TypeError, match="Got attack='PGD'"):
        RobustnessScore.preset("R1", attack="PGD")(model, X)


def test_bad_labels_and_presets(split):
    model, X = split
    with pytest.raises(ValueError, match="Got y of length 3, but expected 8"):
        RobustnessScore()(model, X, [0, 1, 0])
    with pytest.raises(ValueError, match="Got name='R3', but expected one of 'R1'"):
        RobustnessScore.preset("R3", 0.1)
