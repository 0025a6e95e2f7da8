"""Global robustness: promises kept, sides named, and closed forms."""

import warnings
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.tree import DecisionTreeClassifier

from skrobust import RobustClassifier, TorchClassifier
from skrobust.attacks import FGSM, PGD, UniformSampling
from skrobust.exceptions import ReferenceWarning, ToleranceWarning, UnsupportedModelError
from skrobust.properties import ClassificationRobustness
from skrobust.scorers import GlobalRobustness
from skrobust.statistics import attainable_tolerance, clopper_pearson, hoeffding, sample_size
from skrobust.verification import (
    Bounds,
    Cascade,
    Exact,
    TreeVerifier,
    VerificationBuilder,
    Verifier,
    tree_distances,
)
from tests._asserts import assert_counterexamples_break

CR = ClassificationRobustness
BOUNDS = ["hoeffding", "clopper-pearson", "bernstein", "sequential", "anytime"]
own = CR(0.1, reference="prediction")


@pytest.fixture(scope="module")
def line():
    """A classifier of numbers in [0, 1] that changes at 0.5, and 3000 uniform ones.

    At epsilon = 0.1 the share that is robust is 0.8.
    """
    layer = torch.nn.Linear(1, 2)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[-20.0], [20.0]]))
        layer.bias.copy_(torch.tensor([10.0, -10.0]))
    X = np.random.default_rng(0).random((3000, 1))
    return TorchClassifier(layer, 2), X


class Exactly(Verifier):
    """A verifier of `line`, in closed form, that knows nothing of some inputs."""

    def __init__(self, unknown_from=2.0):
        self.unknown_from = unknown_from

    def check(self):
        return self

    def encode(self, network, property, n_features=None):
        return SimpleNamespace(network=network, property=property)

    def decide(self, state, x, labels=None, *, timeout=None, generator=None):
        epsilon = state.property.epsilon
        x = x.double().numpy()
        robust, known = np.abs(x[:, 0] - 0.5) > epsilon, x[:, 0] <= self.unknown_from
        verdicts = VerificationBuilder(torch.as_tensor(x))
        verdicts.prove(np.flatnonzero(robust & known))
        broken = np.flatnonzero(~robust & known)
        verdicts.falsify(broken, torch.full((len(broken), 1), 0.5))
        verdicts.lower[:] = 40 * (np.abs(x[:, 0] - 0.5) - epsilon)
        return verdicts.result()


# ---- how many samples, and what is promised --------------------


def test_the_default_looks_at_738_samples(line):
    model, X = line
    result = GlobalRobustness(own, random_state=0).evaluate(model, X)
    assert result.n_used == len(result.index) == len(result.holds) == 738
    assert len(np.unique(result.index)) == 738
    assert result.side == "upper"
    assert result.score == result.upper == result.holds.mean()
    assert result.interval == hoeffding(result.holds)
    assert result.tolerance == pytest.approx(0.05, abs=1e-4)
    assert result.tolerance <= 0.05
    assert (result.lower, result.lower_interval) == (0.0, None)
    # In closed form, but for the attack's last rounding.
    distance = np.abs(X[result.index, 0] - 0.5)
    clear = np.abs(distance - 0.1) > 1e-4
    np.testing.assert_array_equal(result.holds[clear], distance[clear] > 0.1)
    assert_counterexamples_break(model, own, result, X[result.index], None)


@pytest.mark.parametrize("bound", BOUNDS)
def test_every_bound_keeps_its_promise(line, bound):
    model, X = line
    scorer = GlobalRobustness(own, bound=bound, local=FGSM(), tolerance=0.1, random_state=3)
    with warnings.catch_warnings():
        warnings.simplefilter("error", ToleranceWarning)
        result = scorer.evaluate(model, X)
    assert result.interval.low <= 0.8 <= result.interval.high
    assert result.interval.high - result.interval.low <= 0.2 + 1e-9
    assert result.tolerance <= 0.1
    assert result.interval.method == bound
    most = {"hoeffding": 185, "clopper-pearson": 104, "sequential": 110, "anytime": 260}
    assert result.n_used <= most.get(bound, 10_000)


@pytest.mark.parametrize("bound", BOUNDS)
def test_coverage_over_many_draws(line, bound):
    model, X = line
    truth = (np.abs(X[:, 0] - 0.5) > 0.1).mean()
    scorer = GlobalRobustness(own, bound=bound, local=Exactly(), tolerance=0.15, confidence=0.9)
    covered = []
    for seed in range(60):
        interval = clone(scorer).set_params(random_state=seed).evaluate(model, X).interval
        covered.append(interval.low <= truth <= interval.high)
    assert np.mean(covered) >= 0.9 - 3 * np.sqrt(0.09 / 60)


def test_rules_that_stop_early_need_fewer_samples(line):
    model, X = line
    easy = CR(0.02, reference="prediction")
    used = {
        bound: GlobalRobustness(easy, bound=bound, local=FGSM(), random_state=0)
        .evaluate(model, X)
        .n_used
        for bound in ("hoeffding", "sequential")
    }
    assert used["hoeffding"] == 738
    assert 76 <= used["sequential"] <= 738 / 3


@pytest.mark.parametrize("bound", BOUNDS)
def test_too_few_samples_are_said(line, bound):
    model, X = line
    scorer = GlobalRobustness(own, bound=bound, tolerance=0.02, random_state=0, local=FGSM())
    with pytest.warns(ToleranceWarning, match="Got 150 samples, fewer than a tolerance of 0.02"):
        result = scorer.evaluate(model, X[:150])
    assert result.n_used == 150
    assert 0.02 < result.tolerance < 0.25
    assert (result.interval.high - result.interval.low) / 2 <= result.tolerance + 1e-9
    if bound == "hoeffding":
        assert result.tolerance == attainable_tolerance(150)
    if bound in ("clopper-pearson", "bernstein"):
        assert result.tolerance == (result.interval.high - result.interval.low) / 2


@pytest.mark.parametrize("bound", ["clopper-pearson", "bernstein"])
def test_a_promise_that_is_kept_with_fewer_samples_needs_no_warning(line, bound):
    model, X = line
    easy = X[np.abs(X[:, 0] - 0.5) > 0.2][:300]  # all are robust, so that the interval is narrow
    scorer = GlobalRobustness(own, bound=bound, local=Exactly(), random_state=0)
    result = scorer.evaluate(model, easy)  # a warning is an error here
    assert result.n_used == 300 < sample_size(0.05, bound=bound)
    assert result.tolerance == (result.interval.high - result.interval.low) / 2 < 0.05
    assert attainable_tolerance(300, bound=bound) > 0.05
    hard = clone(scorer).set_params(property__epsilon=0.25)  # the worst case: half are robust
    for use in (hard, hard.evaluate, hard.metrics):
        with pytest.warns(ToleranceWarning, match="Got 300 samples") as caught:
            use(model, X[:300])
        assert caught[0].filename == __file__
    with pytest.warns(ToleranceWarning):
        clone(scorer).set_params(bound="hoeffding").evaluate(model, easy)


def test_bernstein_needs_two_samples(line):
    model, X = line
    scorer = GlobalRobustness(own, bound="bernstein", local=Exactly())
    with pytest.raises(ValueError, match="Got X='1 sample', but expected at least 2"):
        scorer.evaluate(model, X[:1])
    with pytest.warns(ToleranceWarning):
        assert scorer.evaluate(model, X[:2]).n_used == 2


def test_clopper_pearson_is_that_of_scipy(line):
    model, X = line
    scorer = GlobalRobustness(own, bound="clopper-pearson", confidence=0.9, random_state=0)
    result = scorer.evaluate(model, X)
    assert result.interval == clopper_pearson(int(result.holds.sum()), result.n_used, 0.9)


# ---- which side --------------------


def test_a_verifier_that_knows_all_is_exact(line):
    model, X = line
    result = GlobalRobustness(own, local=Exactly(), random_state=0).evaluate(model, X)
    assert result.side == "exact"
    assert result.lower == result.upper == result.score
    attacked = GlobalRobustness(own, random_state=0).evaluate(model, X)
    np.testing.assert_array_equal(result.index, attacked.index)
    assert result.score <= attacked.score <= result.score + 0.01


@pytest.mark.parametrize("bound", BOUNDS)
def test_unknowns_give_both_sides(line, bound):
    model, X = line
    scorer = GlobalRobustness(
        own, bound=bound, local=Exactly(unknown_from=0.9), tolerance=0.1, random_state=0
    )
    result = scorer.evaluate(model, X)
    assert result.side == "both"
    assert result.score == result.lower < result.upper
    assert set(result.verdicts) == {"verified", "falsified", "unknown"}
    for interval, truth in ((result.lower_interval, 0.7), (result.upper_interval, 0.8)):
        assert interval.low <= truth <= interval.high
        assert interval.confidence == 0.95
    assert result.interval.low == result.lower_interval.low
    assert result.interval.high == result.upper_interval.high
    sure = bound not in ("sequential", "anytime")
    assert result.interval.confidence == pytest.approx(0.95 if sure else 0.9)


def test_bounds_that_falsify_nothing_give_the_lower_side(line):
    model, X = line
    X = X[np.abs(X[:, 0] - 0.5) > 0.1]
    result = GlobalRobustness(own, local=Exactly(0.9), random_state=0).evaluate(model, X)
    assert result.side == "lower"
    assert result.score == result.lower == (result.verdicts == "verified").mean()
    assert result.interval == result.lower_interval
    assert result.upper == 1.0


@pytest.fixture(scope="module")
def small_net(digits):
    X, _, y, _ = digits
    return RobustClassifier(hidden_layer_sizes=12, max_epochs=15, random_state=0).fit(X, y)


def test_bounds_attack_and_the_exact_verifier_agree(digits, small_net):
    _, X, *_ = digits
    scorer = GlobalRobustness(
        CR(0.1, reference="prediction"), bound="clopper-pearson", tolerance=0.1, random_state=0
    )
    lower, exact, upper = (
        clone(scorer).set_params(local=local).evaluate(small_net, X)
        for local in (Bounds(), Exact(), PGD(40))
    )
    cascaded = clone(scorer).set_params(local=Cascade()).evaluate(small_net, X)
    np.testing.assert_array_equal(cascaded.verdicts, exact.verdicts)
    assert (lower.side, exact.side, upper.side) == ("lower", "exact", "upper")
    assert lower.score < exact.score <= upper.score
    # Point by point: what bounds verify holds, what the attack breaks does not.
    assert (exact.verdicts[lower.verdicts == "verified"] == "verified").all()
    assert (exact.verdicts[upper.verdicts == "falsified"] == "falsified").all()
    assert exact.lower == exact.upper == exact.score
    used = X[exact.index]
    found = exact.verdicts == "falsified"
    assert (
        small_net.predict(exact.counterexamples[found]) != small_net.predict(used[found])
    ).all()


def test_what_the_time_limit_leaves_open_gives_both_sides(digits, small_net):
    _, X, *_ = digits
    scorer = GlobalRobustness(
        CR(0.1, reference="prediction"), tolerance=0.2, local=Exact(), random_state=0
    )
    sure = scorer.evaluate(small_net, X)
    assert sure.side == "exact"
    hurried = clone(scorer).set_params(timeout=1e-6).evaluate(small_net, X)
    assert hurried.side == "both"
    assert hurried.lower <= sure.score <= hurried.upper
    assert hurried.score == hurried.lower < hurried.upper


def test_trees_exactly(digits):
    X, X_test, y, _ = digits
    tree = DecisionTreeClassifier(max_depth=8, random_state=0).fit(X, y)
    scorer = GlobalRobustness(
        CR(0.03, reference="prediction"), tolerance=0.1, local=TreeVerifier(), random_state=0
    )
    result = scorer.evaluate(tree, X_test)
    assert result.side == "exact"
    used = X_test[result.index].astype(np.float64)
    distance = tree_distances(tree, used, bounds=(0.0, 1.0))
    clear = np.abs(distance - 0.03) > 1e-6
    assert clear.mean() > 0.5
    np.testing.assert_array_equal(result.holds[clear], distance[clear] > 0.03)
    found = ~result.holds
    assert (tree.predict(result.counterexamples[found]) != tree.predict(used[found])).all()
    cascaded = clone(scorer).set_params(local=Cascade()).evaluate(tree, X_test)
    np.testing.assert_array_equal(cascaded.verdicts, result.verdicts)


def test_the_memory_tells_properties_apart(line, tmp_path):
    model, X = line
    scores = [
        GlobalRobustness(
            CR(epsilon, reference="prediction"),
            local=local,
            memory=str(tmp_path),
            tolerance=0.1,
            random_state=0,
        )(model, X)
        for local in (Bounds(), PGD())
        for epsilon in (0.05, 0.3)
    ]
    np.testing.assert_allclose(scores, [0.9, 0.4, 0.9, 0.4], atol=0.1)


def test_a_tie_is_not_robust():
    layer = torch.nn.Linear(1, 2)
    with torch.no_grad():
        layer.weight.zero_()
        layer.bias.zero_()
    X = np.full((800, 1), 0.5)
    assert GlobalRobustness(own, random_state=0)(TorchClassifier(layer, 2), X) == 0.0


def test_a_constant_wrong_classifier_is_robust_and_a_label_is_warned_of():
    layer = torch.nn.Linear(1, 2)
    with torch.no_grad():
        layer.weight.zero_()
        layer.bias.copy_(torch.tensor([1.0, 0.0]))
    model, X, y = TorchClassifier(layer, 2), np.full((800, 1), 0.5), np.ones(800, dtype=int)
    assert GlobalRobustness(own, random_state=0)(model, X, y) == 1.0
    scorer = GlobalRobustness(CR(0.1), random_state=0)
    for use in (scorer, scorer.evaluate, scorer.metrics):
        with pytest.warns(ReferenceWarning, match=r"reference='label'.*Set refer") as caught:
            use(model, X, y)
        assert caught[0].filename == __file__
    with pytest.warns(ReferenceWarning):
        assert scorer(model, X, y) == 0.0


def test_fgsm_by_name_is_that_on_the_loss(line):
    model, X = line
    by_name, by_object = (
        GlobalRobustness(own, local=local, random_state=0).evaluate(model, X)
        for local in ("fgsm", FGSM("cross-entropy"))
    )
    assert by_name.score == by_object.score == pytest.approx(0.8, abs=0.05)
    np.testing.assert_array_equal(by_name.holds, by_object.holds)
    quantity = GlobalRobustness(
        own, local="fgsm", quantitative="linf-probabilities", random_state=0
    )
    assert quantity.evaluate(model, X).side == "upper"


@pytest.mark.filterwarnings("ignore::skrobust.exceptions.ReferenceWarning")
def test_properties_about_labels(digits, digits_model):
    X, _, y, _ = digits
    scorer = GlobalRobustness(CR(0.05), bound="sequential", tolerance=0.1, random_state=0)
    result = scorer.evaluate(digits_model, X, y)
    used = result.index
    assert_counterexamples_break(digits_model, CR(0.05), result, X[used], y[used])
    assert 0.3 < result.score < 1
    zero = clone(scorer).set_params(property__epsilon=0.0).evaluate(digits_model, X, y)
    np.testing.assert_array_equal(zero.holds, digits_model.predict(X[zero.index]) == y[zero.index])


def test_black_boxes_by_sampling(blobs):
    X, y = blobs
    forest = RandomForestClassifier(5, random_state=0).fit(X, y)
    scorer = GlobalRobustness(own, tolerance=0.2, local=UniformSampling(20), random_state=0)
    assert 0 < scorer(forest, X) < 1
    with pytest.raises(UnsupportedModelError, match="RandomForestClassifier"):
        clone(scorer).set_params(local=PGD())(forest, X)


# ---- repeats, jobs, memory, frames --------------------


def test_random_state_jobs_and_memory(line, tmp_path):
    model, X = line
    scorer = GlobalRobustness(
        own, bound="sequential", tolerance=0.1, chunk_size=20, random_state=0
    )
    first = scorer.evaluate(model, X)
    for changed in ({}, {"n_jobs": 2}, {"memory": str(tmp_path)}, {"memory": str(tmp_path)}):
        again = clone(scorer).set_params(**changed).evaluate(model, X)
        np.testing.assert_array_equal(again.index, first.index)
        np.testing.assert_array_equal(again.margins, first.margins)
    other = clone(scorer).set_params(random_state=1).evaluate(model, X)
    assert (other.index[:20] != first.index[:20]).any()
    assert type(scorer(model, X)) is float


def test_metrics_of_a_search(line):
    model, X = line
    scorer = GlobalRobustness(own, local=Exactly(unknown_from=0.9), tolerance=0.2, random_state=0)
    result = scorer.evaluate(model, X)
    numbers = {"lower_share": result.lower, "upper_share": result.upper}
    assert scorer.metrics(model, X) == numbers | {"sample_count": result.n_used}
    assert result.lower < result.upper


def test_frames_and_parameters_in_reach(line):
    model, X = line
    scorer = GlobalRobustness(own, tolerance=0.2, random_state=0)
    result = scorer.evaluate(model, X)
    assert result.to_frame().columns.tolist() == ["index", "verdicts", "holds", "margins"]
    assert repr(result).startswith("GlobalRobustnessResult(score=")
    scorer.set_params(local__n_steps=7, property__epsilon=0.2)
    assert (scorer.local.n_steps, scorer.property.epsilon) == (7, 0.2)


# ---- refusals --------------------


@pytest.mark.parametrize(
    ("params", "error", "message"),
    [
        ({"tolerance": 0}, ValueError, r"Got tolerance=0, but expected .*\(0, 1\)"),
        ({"tolerance": 1.0}, ValueError, r"Got tolerance=1\.0, but expected"),
        ({"tolerance": -0.1}, ValueError, r"Got tolerance=-0\.1, but expected"),
        ({"confidence": 0}, ValueError, r"Got confidence=0, but expected .*\(0, 1\)"),
        ({"confidence": 1}, ValueError, "Got confidence=1, but expected"),
        ({"bound": "exact"}, ValueError, "Got bound='exact', but expected one of"),
        ({"local": "pgd"}, TypeError, "Got local='pgd', but expected an Attack, such as"),
        ({"local": PGD(0)}, ValueError, "Got n_steps=0"),
        ({"property": 0.1}, TypeError, r"Got property=0\.1, but expected a Robustness"),
        ({"threshold": 0.5}, ValueError, r"Got threshold=0\.5, but expected None, or quant"),
        ({"quantitative": "l2"}, ValueError, "Got quantitative='l2', but expected one of"),
        (
            {"quantitative": "linf-probabilities", "bound": "sequential"},
            ValueError,
            "Got bound='sequential', but expected 'hoeffding' or 'bernstein'",
        ),
        (
            {"quantitative": "linf-probabilities", "threshold": 2},
            ValueError,
            "Got threshold=2, but expected",
        ),
        (
            {"quantitative": "linf-probabilities", "local": Exact()},
            TypeError,
            r"Got local=Exact\(\), but expected an Attack, or Bounds\(\)",
        ),
        ({"timeout": 0}, ValueError, "Got timeout=0, but expected"),
        ({"timeout": 5}, ValueError, "Got timeout=5, but expected None, unless local is a verif"),
        (
            {"timeout": 5, "quantitative": "linf-probabilities", "local": Bounds()},
            ValueError,
            "Got timeout=5, but expected None",
        ),
        ({"chunk_size": 0}, ValueError, "Got chunk_size=0"),
    ],
)
def test_bad_parameters(line, params, error, message):
    with pytest.raises(error, match=message):
        GlobalRobustness(own).set_params(**params)(*line)


@pytest.mark.filterwarnings("ignore::skrobust.exceptions.ReferenceWarning")
def test_bad_data(blobs):
    X, y = blobs
    model = LogisticRegression().fit(X, y)
    scorer = GlobalRobustness(CR(0.1), tolerance=0.2)
    with pytest.raises(ValueError, match="Got y=None, but expected the true labels"):
        scorer(model, X)
    with pytest.raises(ValueError, match="Got y of length 5, but expected 80"):
        scorer(model, X, y[:5])
    # Also where the labels are not needed.
    by_prediction = clone(scorer).set_params(property=own)
    with pytest.raises(ValueError, match="Got y of length 5, but expected 80"):
        by_prediction(model, X, y[:5])
    by_prediction.set_params(random_state=0)
    # Nor may they be of unknown classes where they are; in a fold they can be.
    with pytest.raises(ValueError, match=r"labels \[7\], but expected"):
        scorer(model, X, np.where(np.arange(80) == 3, 7, y))
    unseen = by_prediction(model, X, np.where(np.arange(80) == 3, 7, y))
    assert unseen == by_prediction(model, X)
    assert by_prediction(model, X, 1 - y) == by_prediction(model, X)
    with pytest.raises(ValueError, match="80 of 80 rows of X lie outside"):
        scorer(model, X + 2, y)
