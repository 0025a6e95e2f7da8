"""The driver on a cluster of Dask: worker processes, started and ended here."""

import os
import signal
import warnings
from dataclasses import fields, is_dataclass

import joblib
import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.neural_network import MLPClassifier

from skrobust import pointwise_robustness, robustness_report
from skrobust._evaluation import evaluate_in_chunks
from skrobust.attacks import PGD
from skrobust.datasets import load_digits
from skrobust.exceptions import LostWorkerWarning
from skrobust.properties import ClassificationRobustness
from skrobust.scorers import ConstraintSatisfaction, ConstraintSecurity
from skrobust.verification import Bounds

distributed = pytest.importorskip("distributed")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of the packages below Dask
]

CR = ClassificationRobustness(0.03)
X, Y = (part[:60] for part in load_digits(return_X_y=True))


@pytest.fixture(scope="module")
def cluster():
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        client.wait_for_workers(2)
        yield client


@pytest.fixture(scope="module")
def model():
    return MLPClassifier(10, solver="lbfgs", max_iter=500, random_state=0).fit(X, Y)


def on_cluster(function):
    with joblib.parallel_config("dask"):
        return function()


def assert_equal(one, other, names):
    for name in names:
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


def test_security_is_that_of_one_process(cluster, model):
    scorer = ConstraintSecurity(CR, PGD(5, n_restarts=2), random_state=0, chunk_size=8)
    serial, spread = scorer.evaluate(model, X, Y), on_cluster(lambda: scorer.evaluate(model, X, Y))
    assert_equal(serial, spread, ("holds", "margins", "counterexamples"))


def test_satisfaction_is_that_of_one_process(cluster, model):
    scorer = ConstraintSatisfaction(CR, Bounds(), random_state=0, chunk_size=8)
    serial, spread = scorer.evaluate(model, X, Y), on_cluster(lambda: scorer.evaluate(model, X, Y))
    assert_equal(serial, spread, ("verdicts", "lower", "counterexamples", "reasons"))


def test_pointwise_robustness_is_that_of_one_process(cluster, model):
    def radii():
        return pointwise_robustness(model, X[:16], chunk_size=4)

    assert_equal(radii(), on_cluster(radii), ("radius", "adversarial_examples", "status"))


def test_a_search_is_that_of_one_process(cluster):
    scorer = ConstraintSecurity(CR, PGD(3), random_state=0)
    search = GridSearchCV(
        LogisticRegression(max_iter=200), {"C": [1e-4, 1.0]}, scoring=scorer, cv=2
    )
    serial = search.fit(X, Y).cv_results_["mean_test_score"]
    spread = on_cluster(lambda: search.fit(X, Y)).cv_results_["mean_test_score"]
    np.testing.assert_array_equal(serial, spread)


def arrays_of(value, place=""):
    """Return the arrays and numbers of nested results, by where they stand; no times."""
    if is_dataclass(value):
        names = {field.name for field in fields(value)} - {"seconds", "estimator"}
        inner = {name: getattr(value, name) for name in names}
    elif isinstance(value, dict):
        inner = value
    elif isinstance(value, list | tuple):
        inner = dict(enumerate(value))
    else:
        return {place: value} if isinstance(value, np.ndarray | float | int | str) else {}
    return {
        path: array
        for name, each in inner.items()
        for path, array in arrays_of(each, f"{place}.{name}").items()
    }


def test_a_report_is_that_of_one_process(cluster, model):
    X, y = (part[:70] for part in load_digits(return_X_y=True))  # more than one chunk of radii

    def report():
        found = robustness_report(
            model, X, y, epsilons=[0.02, 0.08], tolerance=0.1, random_state=0
        )
        return arrays_of(found)

    serial, spread = report(), on_cluster(report)
    assert serial.keys() == spread.keys()
    assert len([path for path in serial if path.startswith(".results")]) > 50
    for path, value in serial.items():
        np.testing.assert_array_equal(value, spread[path], err_msg=path)


class Weights:
    """Something large that all chunks share; nothing that Dask could tell the size of."""

    def __init__(self, n_numbers):
        self.weights = np.random.default_rng(0).random(n_numbers)


def total(model, rows, labels, seed):
    return {"total": rows.sum(axis=1) + model.weights.sum(), "seed": np.full(len(rows), seed)}


def evaluate(measure, model, n_rows=40, **params):
    rows = np.arange(3.0 * n_rows).reshape(n_rows, 3)
    params = {"fingerprint": lambda: "model", "chunk_size": 1, "random_state": 0} | params
    return evaluate_in_chunks(measure, model, rows, None, **params)


def test_what_chunks_share_is_sent_once(cluster, monkeypatch):
    model = Weights(500_000)  # 4 MB; 40 chunks
    serial = evaluate(total, model)
    sizes = []
    dumps = distributed.protocol.core.dumps

    def counted(message, *args, **kwargs):
        frames = dumps(message, *args, **kwargs)
        sizes.append(sum(memoryview(frame).nbytes for frame in frames))
        return frames

    for module in (distributed.comm.utils.protocol, distributed.protocol.core):
        monkeypatch.setattr(module, "dumps", counted)
    spread = on_cluster(lambda: evaluate(total, model))
    np.testing.assert_array_equal(serial["total"], spread["total"])
    np.testing.assert_array_equal(serial["seed"], spread["seed"])
    assert 4e6 <= sum(sizes) < 4 * 4e6  # from here: once, or once for each worker; not 40 times


def kill_once(model, rows, labels, seed):
    """Kill the process that is asked for the row of 30, the first time."""
    if 30.0 in rows and not os.path.exists(model):
        open(model, "x").close()
        os.kill(os.getpid(), signal.SIGKILL)
    return {"rows": rows, "seed": np.full(len(rows), seed)}


def test_a_killed_worker_loses_nothing(cluster, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LostWorkerWarning)  # Dask itself may do it again
        spread = on_cluster(lambda: evaluate(kill_once, str(tmp_path / "killed")))
    assert (tmp_path / "killed").exists()
    serial = evaluate(kill_once, str(tmp_path / "killed"))
    for name in serial:
        np.testing.assert_array_equal(serial[name], spread[name])
