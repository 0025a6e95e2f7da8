"""What all scorers share: a float for searches, results, jobs, memory, refusals."""

import os
import sys
from dataclasses import dataclass
from functools import partial

import joblib
import numpy as np
import pytest
import torch
from joblib import parallel_config
from scipy.sparse import csr_array
from scipy.stats import uniform
from sklearn.base import clone
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV, RandomizedSearchCV, cross_validate
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler

from skrobust import RobustClassifier, TorchClassifier
from skrobust.attacks import FGSM, PGD
from skrobust.exceptions import UnsupportedModelError
from skrobust.properties import ClassificationRobustness, LinearRobustness, StandardRobustness
from skrobust.scorers import (
    ConstraintAccuracy,
    ConstraintSecurity,
    RobustnessScorer,
    ScoreResult,
)
from skrobust.statistics import Interval
from skrobust.training import AdversarialTraining, StandardTraining

CR = ClassificationRobustness
SCORERS = [
    ConstraintSecurity(CR(0.05), PGD(3), random_state=0, chunk_size=50),
    ConstraintAccuracy(CR(0.05), 10, random_state=0, chunk_size=50),
]
by_scorer = pytest.mark.parametrize("scorer", SCORERS, ids=lambda s: type(s).__name__)


def assert_same_results(first, second):
    for name, value in vars(first).items():
        if isinstance(value, np.ndarray):
            np.testing.assert_array_equal(value, getattr(second, name), err_msg=name)
        else:
            assert value == getattr(second, name), name


class Counted(torch.nn.Module):
    """Writes one character to a file for each call, also from other processes."""

    def __init__(self, layer, path):
        super().__init__()
        self.layer = layer
        self.path = path

    def forward(self, x):
        with open(self.path, "a") as file:
            file.write("x")
        return self.layer(x)


@pytest.fixture
def counted(blobs, tmp_path):
    """A frozen linear classifier of the blobs, and the file of its calls."""
    X, y = blobs
    model = LogisticRegression(C=100).fit(X, y)
    layer = torch.nn.Linear(4, 2)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(np.vstack([0 * model.coef_, model.coef_])))
        layer.bias.copy_(torch.tensor(np.r_[0, model.intercept_]))
    path = tmp_path / "calls"
    path.touch()
    return TorchClassifier(Counted(layer, str(path)), 2), path


# ---- the float --------------------


@by_scorer
def test_call_is_the_score_of_evaluate(digits, digits_model, scorer):
    _, X, _, y = digits
    score = scorer(digits_model, X, y)
    assert type(score) is float
    assert score == scorer.evaluate(digits_model, X, y).score


@by_scorer
def test_random_state(digits, digits_model, scorer):
    _, X, _, y = digits
    results = [
        clone(scorer).set_params(random_state=seed).evaluate(digits_model, X, y)
        for seed in (0, 0, 1)
    ]
    assert_same_results(results[0], results[1])
    assert (results[0].margins != results[2].margins).any()
    before = torch.random.get_rng_state()
    scorer.evaluate(digits_model, X, y)
    assert torch.equal(torch.random.get_rng_state(), before)


@by_scorer
def test_parameters_in_reach(scorer):
    copied = clone(scorer)
    assert copied.property == scorer.property
    assert copied.get_params()["property__epsilon"] == 0.05
    copied.set_params(property__epsilon=0.2, random_state=7)
    assert copied.property.epsilon == 0.2
    assert scorer.property.epsilon == 0.05


def test_parameters_of_the_attack_in_reach():
    scorer = ConstraintSecurity(CR(), PGD(40))
    scorer.set_params(attack__n_steps=7, attack__schedule="linear")
    assert (scorer.attack.n_steps, scorer.attack.schedule) == (7, "linear")
    assert scorer.get_params()["attack__n_steps"] == 7


def test_a_scorer_of_your_own():
    class Always(RobustnessScorer):
        def evaluate(self, estimator, X, y=None):
            return ScoreResult(0.5, Interval(0.0, 1.0, 0.95, "none"))

    assert Always()(None, None) == 0.5
    assert repr(Always().evaluate(None, None)) == (
        "ScoreResult(score=0.5000, interval=[0.0000, 1.0000] (none, 95%))"
    )


def test_frames_hold_what_is_per_sample():
    @dataclass(frozen=True, eq=False, repr=False)
    class Result(ScoreResult):
        holds: np.ndarray
        points: np.ndarray

    interval = Interval(0.0, 1.0, 0.95, "none")
    result = Result(0.5, interval, np.array([True, False]), np.zeros((2, 3)))
    frame = result.to_frame()
    assert frame.columns.tolist() == ["holds"]
    assert frame["holds"].tolist() == [True, False]


# ---- jobs and memory --------------------


@pytest.mark.parametrize("backend", ["loky", "threading"])
@by_scorer
def test_jobs_do_not_change_results(digits, digits_model, scorer, backend):
    _, X, _, y = digits
    one = scorer.evaluate(digits_model, X, y)
    with parallel_config(backend):
        two = clone(scorer).set_params(n_jobs=2).evaluate(digits_model, X, y)
    assert_same_results(one, two)


@by_scorer
def test_jobs_take_pipelines(blobs, scorer):
    X, y = blobs
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(X, y)
    jobs = clone(scorer).set_params(n_jobs=2, chunk_size=30)
    one = clone(jobs).set_params(n_jobs=None)
    assert_same_results(one.evaluate(model, X, y), jobs.evaluate(model, X, y))


@by_scorer
def test_memory_repeats_no_work(blobs, counted, scorer, tmp_path):
    model, calls = counted
    remembering = clone(scorer).set_params(memory=str(tmp_path / "memory"))
    first = remembering.evaluate(model, *blobs)
    n_calls = len(calls.read_text())
    assert n_calls > 0
    second = remembering.evaluate(model, *blobs)
    # Two calls: to see that it takes such rows, and to tell it from others by what it does.
    assert len(calls.read_text()) == n_calls + 2
    assert_same_results(first, second)
    assert_same_results(first, scorer.evaluate(model, *blobs))
    assert len(calls.read_text()) == n_calls + 2 + n_calls - 1


@by_scorer
def test_memory_tells_functions_apart(scorer, tmp_path):
    class Acting(torch.nn.Module):
        def __init__(self, act):
            super().__init__()
            self.act = act

        def forward(self, x):
            return self.act(x)

    X, y = np.array([[0.2, 0.6], [0.9, 0.3]]), [1, 0]
    remembering = clone(scorer).set_params(memory=str(tmp_path / "memory"))
    scores = [remembering(TorchClassifier(Acting(act), 2), X, y) for act in (torch.abs, torch.neg)]
    assert scores == [1.0, 0.0]


@by_scorer
def test_memory_tells_apart_what_differs(blobs, counted, scorer, tmp_path):
    X, y = blobs
    model, calls = counted
    remembering = clone(scorer).set_params(memory=str(tmp_path / "memory"))
    first = remembering.evaluate(model, X, y)
    n_calls = len(calls.read_text())
    with torch.no_grad():
        model.module.layer.weight *= -1
    assert remembering.evaluate(model, X, y).score != first.score
    assert len(calls.read_text()) > n_calls
    for changed in (
        {"property__epsilon": 0.01},
        {"property": StandardRobustness(0.05, delta=0.1)},
        {"random_state": 3},
    ):
        n_calls = len(calls.read_text())
        clone(remembering).set_params(**changed).evaluate(model, X, y)
        assert len(calls.read_text()) > n_calls
    n_calls = len(calls.read_text())
    remembering.evaluate(model, X, 1 - y)
    assert len(calls.read_text()) > n_calls


# ---- in searches --------------------

METRICS = {
    "accuracy": "accuracy",
    "security": ConstraintSecurity(CR(0.1), PGD(3), random_state=0),
    "constraint_accuracy": ConstraintAccuracy(CR(0.1), 10, random_state=0),
}


def tiny(**params):
    defaults = {"hidden_layer_sizes": 8, "max_epochs": 10, "lr": 0.02, "random_state": 0}
    return RobustClassifier(property=CR(0.1), **(defaults | params))


@pytest.mark.parametrize("n_jobs", [None, 2])
def test_cross_validate(blobs, n_jobs):
    X, y = blobs
    found = cross_validate(tiny(), X, y, scoring=METRICS, cv=3, n_jobs=n_jobs, error_score="raise")
    for name in METRICS:
        assert found[f"test_{name}"].shape == (3,)
    assert (found["test_security"] <= found["test_constraint_accuracy"]).all()
    assert (found["test_constraint_accuracy"] <= 1).all()
    assert found["test_accuracy"].mean() > 0.8


def test_grid_search_over_regimes_with_jobs(blobs):
    X, y = blobs
    search = GridSearchCV(
        tiny(),
        {
            "training": [StandardTraining(), AdversarialTraining(FGSM("cross-entropy"))],
            "property__epsilon": [0.05, 0.1],
        },
        scoring=METRICS,
        refit="security",
        cv=2,
        n_jobs=2,
        error_score="raise",
    ).fit(X, y)
    results = search.cv_results_
    assert len(results["params"]) == 4
    for name in METRICS:
        assert np.isfinite(results[f"mean_test_{name}"]).all()
    assert search.best_index_ == results["mean_test_security"].argmax()
    # The search itself can be scored, and gives what its best estimator gives.
    scorer = METRICS["security"]
    assert scorer(search, X, y) == scorer(search.best_estimator_, X, y)
    again = clone(search).set_params(n_jobs=None).fit(X, y)
    for name in METRICS:
        np.testing.assert_array_equal(
            again.cv_results_[f"mean_test_{name}"], results[f"mean_test_{name}"]
        )


def test_randomised_search_of_a_pipeline(blobs):
    X, y = blobs
    search = RandomizedSearchCV(
        make_pipeline(MinMaxScaler(), LogisticRegression()),
        {"logisticregression__C": uniform(0.01, 100)},
        n_iter=3,
        scoring=METRICS,
        refit="constraint_accuracy",
        cv=2,
        n_jobs=2,
        random_state=0,
        error_score="raise",
    ).fit(X, y)
    assert (
        search.cv_results_["mean_test_security"] <= search.cv_results_["mean_test_accuracy"]
    ).all()


def threads_of_a_worker(estimator, X, y, main):
    """A scorer: the threads that torch uses where it is called, or 0 in this process."""
    return 0 if os.getpid() == main else torch.get_num_threads()


def test_jobs_do_not_oversubscribe_the_processors(blobs):
    threads = partial(threads_of_a_worker, main=os.getpid())
    X, y = blobs
    scoring = {"threads": threads, "security": METRICS["security"]}
    params = {"scoring": scoring, "cv": 2, "error_score": "raise"}
    threads = cross_validate(tiny(), X, y, n_jobs=2, **params)["test_threads"]
    assert (threads >= 1).all()
    assert (threads <= max(joblib.cpu_count() // 2, 1)).all()


# ---- refusals --------------------


@by_scorer
def test_what_is_refused(blobs, scorer):
    X, y = blobs
    model = LogisticRegression().fit(X, y)
    cases = [
        (X, y + 5, ValueError, r"Got y with labels \[5, 6\].*classes \[0, 1\]"),
        (X, None, ValueError, r"Got y=None, but expected the true labels.*reference='prediction'"),
        (X, y[:5], ValueError, "Got y of length 5, but expected 80"),
        (X, y[:, None], ValueError, r"Got y of shape \(80, 1\), but expected"),
        (X + 2, y, ValueError, "80 of 80 rows of X lie outside, by up to 1"),
        (X[:, :2], y, ValueError, "Got X with 2 features, but expected 4"),
        (X[:0], y[:0], ValueError, "with at least one sample"),
        (np.full_like(X, np.nan), y, ValueError, "NaN or infinity in 80 rows"),
        (csr_array(X), y, TypeError, "Got a sparse X"),
    ]
    for data, labels, error, message in cases:
        with pytest.raises(error, match=message):
            scorer(model, data, labels)


@pytest.mark.parametrize(
    ("params", "error", "message"),
    [
        ({"property": 0.1}, TypeError, "Got property=0.1, but expected a RobustnessProperty"),
        ({"property__epsilon": -1}, ValueError, "Got epsilon=-1, but expected"),
        ({"property__epsilon": [0.1] * 3}, ValueError, r"shape \(3,\).*\(4,\)"),
        ({"property__bounds": (1, 0)}, ValueError, "expected low <= high"),
        ({"confidence": 1.0}, ValueError, "Got confidence=1.0, but expected"),
        ({"chunk_size": 0}, ValueError, "Got chunk_size=0, but expected an integer"),
    ],
)
@by_scorer
def test_bad_parameters(blobs, scorer, params, error, message):
    X, y = blobs
    model = LogisticRegression().fit(X, y)
    with pytest.raises(error, match=message):
        clone(scorer).set_params(**params)(model, X, y)


@by_scorer
def test_rows_for_another_number_of_classes(blobs, scorer):
    X, y = blobs
    model = LogisticRegression().fit(X, y)
    three = LinearRobustness(([[1.0, 0.0, 0.0]], [0.0]), 0.05)
    with pytest.raises(ValueError, match=r"expected .*m, 2\)"):
        clone(scorer).set_params(property=three)(model, X, y)


# ---- data of any kind, and data that are refused ------------------------------------------


def _kinds(X):
    return {
        "negative strides": X[::-1].copy()[::-1],
        "big-endian": X.astype(">f8"),
        "longdouble": X.astype(np.longdouble),
        "object": X.astype(object),
        "with a gradient": torch.tensor(X, requires_grad=True),
        "lists": X.tolist(),
    }


@by_scorer
@pytest.mark.parametrize("kind", list(_kinds(np.zeros((1, 1)))))
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_arrays_of_any_kind(blobs, scorer, kind, dtype):
    X, y = blobs
    X = X.astype(np.float32).astype(np.float64)  # the same numbers in either precision
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = TorchClassifier(torch.nn.Linear(X.shape[1], 2).to(dtype), 2)
    expected = scorer.evaluate(model, X, y)
    assert_same_results(scorer.evaluate(model, _kinds(X)[kind], y), expected)
    np.testing.assert_array_equal(model.predict(X.astype(">f8")[::-1]), model.predict(X)[::-1])


@by_scorer
def test_half_precision(blobs, scorer):
    X, y = blobs
    X = X.astype(np.float16)
    model = TorchClassifier(torch.nn.Linear(X.shape[1], 2), 2)
    expected = scorer.evaluate(model, X.astype(np.float64), y)
    assert_same_results(scorer.evaluate(model, X, y), expected)


@by_scorer
@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda X: X.astype(complex), TypeError, "Got X of dtype complex128, but expected real"),
        (lambda X: X * 1e300, ValueError, r"expected values that are finite in float32"),
        (lambda X: X[:, :, None] + np.zeros(2), UnsupportedModelError, "fails on rows of shape"),
        (lambda X: X[:, :1], ValueError, "Got X with 1 features, but expected 4"),
    ],
    ids=["complex", "infinite", "deep", "narrow"],
)
def test_data_are_refused_by_name(blobs, scorer, change, error, message):
    X, y = blobs
    everywhere = clone(scorer).set_params(property=CR(0.05, bounds=None))
    with pytest.raises(error, match=message):
        everywhere.evaluate(TorchClassifier(torch.nn.Linear(X.shape[1], 2), 2), change(X), y)


@by_scorer
def test_labels_that_are_none(blobs, scorer):
    X, y = blobs
    with pytest.raises(ValueError, match=r"Got y with labels \['None'\]"):
        scorer.evaluate(LogisticRegression().fit(X, y), X, [None] * len(X))


def test_small_integers_of_numpy(blobs):
    X, y = blobs
    model = LogisticRegression().fit(X, y)
    small = ConstraintAccuracy(CR(0.05), np.int8(3), chunk_size=np.int8(30), random_state=0)
    plain = ConstraintAccuracy(CR(0.05), 3, chunk_size=30, random_state=0)
    assert_same_results(small.evaluate(model, X, y), plain.evaluate(model, X, y))


def test_to_frame_names_what_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    result = ScoreResult(1.0, Interval(0.0, 1.0, 0.95, "none"))
    with pytest.raises(ImportError, match=r'pip install "skrobust\[plots\]"'):
        result.to_frame()
