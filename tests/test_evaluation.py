"""The driver of per-sample evaluations."""

import os
import signal
import sys
import time
from concurrent.futures import BrokenExecutor
from functools import partial
from pathlib import Path

import joblib
import numpy as np
import pytest
import torch
from joblib import parallel_config
from sklearn.base import BaseEstimator, ClassifierMixin

from skrobust import TorchClassifier, _keys
from skrobust._evaluation import (
    _MOST_PARTS,
    _chunk,
    _Parts,
    _Tasks,
    evaluate_in_chunks,
    model_key,
)
from skrobust.attacks import PGD
from skrobust.exceptions import LostWorkerWarning, UncachedWarning
from skrobust.networks import as_network
from skrobust.properties import ClassificationRobustness, LinearRobustness
from skrobust.scorers import ConstraintAccuracy, ConstraintSatisfaction, ConstraintSecurity
from tests._user_code import load

ROWS = np.arange(20.0).reshape(10, 2)
LABELS = np.arange(10)


def measure(model, rows, labels, seed):
    """Give back what was handed in, and noise from the seed."""
    noise = np.random.default_rng(seed).random(len(rows))
    return {"rows": rows * model, "labels": labels, "noise": noise}


def counted(model, rows, labels, seed):
    """Leave one more character in the file that `model` names."""
    with open(model, "a") as file:
        file.write("x")
    return {"noise": np.random.default_rng(seed).random(len(rows))}


def evaluate(measure, model, rows=ROWS, labels=LABELS, **params):
    params = {"fingerprint": lambda: "model", "chunk_size": 4, "random_state": 0} | params
    return evaluate_in_chunks(measure, model, rows, labels, **params)


@pytest.mark.parametrize("chunk_size", [1, 3, 10, 99])
def test_chunks_are_joined_in_order(chunk_size):
    found = evaluate(measure, 2, chunk_size=chunk_size)
    np.testing.assert_array_equal(found["rows"], 2 * ROWS)
    np.testing.assert_array_equal(found["labels"], LABELS)
    assert len(np.unique(found["noise"])) == 10  # each chunk has a seed of its own


def test_jobs_do_not_change_the_results():
    one, two = evaluate(measure, 1), evaluate(measure, 1, n_jobs=2)
    assert one.keys() == two.keys()
    for name in one:
        np.testing.assert_array_equal(one[name], two[name])


def sizes(n_chunks, n_workers, seconds, first=0, **params):
    """Return how many chunks each task has, where each ends before the next is handed out."""
    tasks, found = _Tasks(list(range(n_chunks)), first, n_workers, **params), []
    for start, seeds in tasks:
        assert seeds == list(range(start, start + len(seeds)))  # each chunk once, in order
        found.append(len(seeds))
        tasks.ended(len(seeds), seconds * len(seeds))
    assert first + sum(found) == n_chunks
    return found


def test_quick_chunks_go_together_where_workers_are_many():
    found = sizes(100_000, 256, seconds=0.05)
    assert found[0] == 1  # before anything is known
    assert max(found) == 102  # 256 workers x 0.02 s a task
    assert found[-1] == 1  # and no worker waits long for the last
    assert len(found) < 5_000
    assert max(sizes(1000, 2, seconds=0.05)) == 1  # two workers are served in time
    assert max(sizes(1000, 256, seconds=10)) == 1
    assert max(sizes(200, 2, seconds=1e-6)) == 2  # quick so far, but the rest may be slow
    assert max(sizes(1000, 1, seconds=1e-6)) == 1
    assert max(sizes(100_000, 256, seconds=0.05, chunk_bytes=2**18)) == 4
    assert sizes(1000, 64, seconds=0.0, first=990) == [1] * 10


def test_many_small_parts_are_joined_on_the_way():
    parts, n = _Parts(), 2 * _MOST_PARTS + 3
    for k in range(n):
        parts.add({"k": np.array([k])}, n_chunks=1)
        assert len(parts._latest) < _MOST_PARTS
    assert (parts.n_chunks, len(parts._blocks)) == (n, 2)
    np.testing.assert_array_equal(parts.joined()["k"], np.arange(n))


def test_tasks_of_many_chunks_change_nothing(monkeypatch):
    """Each chunk has its own rows, labels and seed, wherever it is evaluated."""
    rows, labels = np.arange(400.0).reshape(200, 2), np.arange(200)
    one = evaluate(measure, 1, rows, labels, chunk_size=1)

    def measure_slowly(*question):
        time.sleep(0.005)  # else all is handed out before anyone knows that it is quick
        return measure(*question)

    monkeypatch.setattr("skrobust._evaluation._TASK_SECONDS", 1.0)
    tasks = []
    params = {"chunk_size": 1, "n_jobs": 3, "on_part": tasks.append}
    with parallel_config("threading"):
        many = evaluate(measure_slowly, 1, rows, labels, **params)
    assert len(tasks) < 200  # chunks
    for name in one:
        np.testing.assert_array_equal(one[name], many[name])
        np.testing.assert_array_equal(one[name], np.concatenate([part[name] for part in tasks]))


def killed(model, rows, labels, seed):
    """End the process that is asked for the row of 8, once, or whenever `model` is no file."""
    if 8.0 in rows and not (model and os.path.exists(model)):
        if model:
            open(model, "x").close()
        os.kill(os.getpid(), signal.SIGKILL)
    return {"rows": rows, "seed": np.full(len(rows), seed)}


@pytest.mark.slow
def test_a_killed_worker_loses_nothing(tmp_path):
    with pytest.warns(LostWorkerWarning, match=r"A worker died .* are evaluated again"):
        spread = evaluate(killed, str(tmp_path / "killed"), n_jobs=2)
    serial = evaluate(killed, str(tmp_path / "killed"))
    for name in serial:
        np.testing.assert_array_equal(serial[name], spread[name])


@pytest.mark.slow
def test_a_chunk_that_kills_every_worker_is_given_up():
    with (
        pytest.warns(LostWorkerWarning) as told,
        pytest.raises(BrokenExecutor, match="terminated"),
    ):
        evaluate(killed, None, n_jobs=2)
    assert 2 <= len(told) <= 3


class Shared:
    """Counts in how many pieces it is pickled."""

    n_pickled = 0

    def __reduce__(self):
        Shared.n_pickled += 1
        return str, ("shared",)


def look(model, rows, labels, seed):
    return {"is_shared": np.full(len(rows), model == "shared")}


def test_what_chunks_share_is_pickled_once():
    assert evaluate(look, Shared(), chunk_size=1, n_jobs=2)["is_shared"].all()
    assert Shared.n_pickled == 1
    assert not evaluate(look, Shared(), chunk_size=1)["is_shared"].any()  # here, it is itself
    with parallel_config("threading"):
        assert not evaluate(look, Shared(), chunk_size=1, n_jobs=2)["is_shared"].any()
    assert Shared.n_pickled == 1


def test_a_single_chunk_stays_here():
    assert not evaluate(look, Shared(), chunk_size=10, n_jobs=2)["is_shared"].any()


def test_random_state_decides_the_noise():
    noise = [evaluate(measure, 1, random_state=seed)["noise"] for seed in (0, 0, 1)]
    np.testing.assert_array_equal(noise[0], noise[1])
    assert (noise[0] != noise[2]).all()


def test_without_labels():
    seen = []

    def look(model, rows, labels, seed):
        seen.append(labels)
        return {"size": np.array([len(rows)])}

    assert evaluate(look, None, labels=None)["size"].tolist() == [4, 4, 2]
    assert seen == [None] * 3


def test_memory_repeats_no_work(tmp_path):
    file, memory = tmp_path / "calls", str(tmp_path / "memory")
    first = evaluate(counted, file, memory=memory)
    assert file.read_text() == "xxx"
    second = evaluate(counted, file, memory=memory)
    assert file.read_text() == "xxx"
    np.testing.assert_array_equal(first["noise"], second["noise"])


def test_chunks_that_joblib_maps_for_its_processes_have_the_same_key(tmp_path):
    mapped = np.memmap(tmp_path / "rows", dtype=ROWS.dtype, mode="w+", shape=ROWS.shape)
    mapped[:] = ROWS
    assert joblib.hash(_chunk(mapped, mapped, 2, 3)) == joblib.hash(_chunk(ROWS, ROWS, 2, 3))


@pytest.mark.parametrize(
    "changed", [{"fingerprint": lambda: "other"}, {"random_state": 1}, {"labels": LABELS[::-1]}]
)
def test_memory_tells_what_differs(tmp_path, changed):
    file, memory = tmp_path / "calls", str(tmp_path / "memory")
    evaluate(counted, file, memory=memory)
    evaluate(counted, file, memory=memory, **changed)
    assert file.read_text() == "x" * 6


def test_a_killed_evaluation_goes_on_where_it_stopped(tmp_path):
    file, memory = tmp_path / "calls", str(tmp_path / "memory")
    broken = ROWS.copy()
    broken[8] = np.nan
    with pytest.raises(FloatingPointError):
        evaluate(_stops_at_nan, file, rows=broken, memory=memory)
    assert file.read_text() == "xx"
    evaluate(_stops_at_nan, file, memory=memory)
    assert file.read_text() == "xxx"  # only the last chunk was missing


def _stops_at_nan(model, rows, labels, seed):
    if np.isnan(rows).any():
        raise FloatingPointError
    return counted(model, rows, labels, seed)


@pytest.mark.parametrize("broken", [b"", b"no pickle"])
def test_what_cannot_be_read_back_is_computed_again(tmp_path, caplog, broken):
    file, memory = tmp_path / "calls", str(tmp_path / "memory")
    first = evaluate(counted, file, memory=memory)
    kept = [path for path in Path(memory).rglob("output.pkl")]
    assert len(kept) == 3
    kept[0].write_bytes(broken)
    second = evaluate(counted, file, memory=memory)
    assert "Exception while loading results" in caplog.text
    assert file.read_text() == "xxxx"
    np.testing.assert_array_equal(first["noise"], second["noise"])


def test_with_a_memory_no_random_state_means_zero(tmp_path):
    noise = [
        evaluate(measure, 1, random_state=seed, memory=str(tmp_path))["noise"]
        for seed in (None, 0)
    ]
    np.testing.assert_array_equal(*noise)
    noise = [evaluate(measure, 1, random_state=None)["noise"] for _ in range(2)]
    assert (noise[0] != noise[1]).any()


# ---- what users wrote --------------------------------------------------------------------------

SOURCE = """
import torch
from skrobust.properties import LinearRobustness, RobustnessProperty

GAP = 0.1

def gap():
    return GAP

def rows(z, labels):
    n = len(z)
    A = torch.zeros(n, 1, z.shape[1])
    return A, torch.zeros(n, 1), torch.full((n, 1), 1.0 - gap())

class Question(RobustnessProperty):
    output = "logits"

    def conclusion(self, reference_logits, labels):
        rows = [[0.0, 0.0]], [1.0]
        return LinearRobustness(rows).conclusion(reference_logits, labels)

class Module(torch.nn.Module):
    def forward(self, x):
        return torch.cat([x[:, :1], 1 - x[:, :1]], dim=1)
"""


@pytest.fixture
def user(tmp_path):
    def edited(old="", new=""):
        assert old in SOURCE
        return load(tmp_path, SOURCE.replace(old, new, 1) if old else SOURCE)

    yield edited
    del sys.modules["users_module"]


X = np.random.default_rng(0).random((12, 2))
SCORERS = (ConstraintAccuracy, ConstraintSecurity, ConstraintSatisfaction)


def by_rows(module):
    return LinearRobustness(module.rows), constant_model()


def by_property(module):
    return module.Question(0.1), constant_model()


def by_module(module):
    property = ClassificationRobustness(0.0, reference="prediction")
    return property.set_params(reference="label"), TorchClassifier(module.Module(), 2)


def constant_model():
    layer = torch.nn.Linear(2, 2)
    layer.weight.data, layer.bias.data = torch.eye(2), torch.zeros(2)
    return TorchClassifier(layer, 2)


@pytest.mark.parametrize("scorer", SCORERS)
@pytest.mark.parametrize(
    ("question", "old", "new"),
    [
        (by_rows, "GAP = 0.1", "GAP = 50"),
        (by_rows, "1.0 - gap()", "-1.0 - gap()"),
        (by_property, "[1.0]", "[-1.0]"),
        (by_module, "1 - x[:, :1]", "100 + x[:, :1]"),
    ],
)
def test_an_edit_of_users_code_is_seen(tmp_path, user, scorer, question, old, new):
    memory, y = str(tmp_path / "memory"), (X[:, 0] < 0.5).astype(int)

    def score(module, memory):
        property, model = question(module)
        return scorer(property, memory=memory)(model, X, y)

    before = score(user(), memory)
    assert before == score(user(), memory) == score(user(), None)
    after = score(user(old, new), memory)
    assert after == score(user(old, new), None) != before
    assert score(user(), memory) == before  # what was kept is still right for what it was of


def test_unchanged_code_is_not_run_again(tmp_path, user):
    calls = tmp_path / "calls"
    calls.touch()
    source = f"""    with open({str(calls)!r}, "a") as file:
        file.write("x")
    n = len(z)"""
    counts = []
    for _ in range(3):
        property, model = by_rows(user("    n = len(z)", source))
        ConstraintSecurity(property, memory=str(tmp_path / "memory"))(model, X)
        counts.append(len(calls.read_text()))
    assert 0 < counts[0] == counts[1] == counts[2]


def test_another_version_computes_anew(tmp_path, monkeypatch):
    file, memory = tmp_path / "calls", str(tmp_path / "memory")
    for version in ("0.1.0", "0.2.0", "0.2.0"):
        monkeypatch.setattr(_keys, "__version__", version)
        evaluate(counted, file, memory=memory)
    assert file.read_text() == "x" * 6


@pytest.mark.parametrize("scorer", SCORERS)
def test_without_source_nothing_is_kept_and_a_warning_names_what_it_is(tmp_path, scorer):
    namespace = {"torch": torch, "__name__": "console"}
    exec(
        "rows = lambda z, y: (torch.zeros(len(z), 1, 2), torch.zeros(len(z), 1), gap(len(z)))\n"
        "def gap(n): return torch.full((n, 1), sign)\nsign = 1.0",
        namespace,
    )
    memory = str(tmp_path)
    question, scores = LinearRobustness(namespace["rows"]), []
    for namespace["sign"] in (1.0, -1.0):
        with pytest.warns(UncachedWarning, match=r"console\.<lambda> cannot.*nothing is kept"):
            scores.append(scorer(question, memory=memory)(constant_model(), X))
    assert scores == [1.0, 0.0]
    assert not list(Path(memory).rglob("output.pkl"))


def test_functions_without_a_name_are_kept_where_they_have_source(tmp_path):
    question = LinearRobustness(
        lambda z, y: (torch.zeros(len(z), 1, 2), torch.zeros(len(z), 1), torch.ones(len(z), 1))
    )
    scorer = ConstraintSecurity(question, memory=str(tmp_path), n_jobs=2, chunk_size=4)
    assert scorer(constant_model(), X) == scorer(constant_model(), X) == 1.0
    assert len(list(Path(tmp_path).rglob("output.pkl"))) == 3


def test_a_module_without_source_is_not_kept(tmp_path):
    namespace = {"torch": torch, "__name__": "console"}
    exec("class Net(torch.nn.Linear):\n    def forward(self, x): return x", namespace)
    scorer = ConstraintAccuracy(ClassificationRobustness(0.1), memory=str(tmp_path))
    with pytest.warns(UncachedWarning, match=r"console\.Net"):
        scorer(TorchClassifier(namespace["Net"](2, 2), 2), X, np.zeros(12, int))


class Threshold(ClassifierMixin, BaseEstimator):
    """A black box, which calls a function of the user."""

    def __init__(self, rule):
        self.rule = rule
        self.classes_ = np.array([0, 1])

    def predict(self, X):
        return self.rule(X).astype(int)


def test_the_code_of_a_black_box_is_a_part_of_the_key(tmp_path):
    y = (X[:, 0] > 0.5).astype(int)
    scores = []
    for sign in (1, -1, 1):
        source = f"def rule(X):\n    return {sign} * (X[:, 0] - 0.5) > 0"
        model = Threshold(load(tmp_path, source, "users_rule").rule)
        scorer = ConstraintAccuracy(
            ClassificationRobustness(0.0), memory=str(tmp_path), random_state=0
        )
        scores.append(scorer(model, X, y))
    assert scores == [1.0, 0.0, 1.0]
    del sys.modules["users_rule"]


def test_the_key_of_a_model_is_the_same_after_another_fit(digits, digits_model):
    from sklearn.base import clone

    X, _, y, _ = digits
    again = clone(digits_model).fit(X, y)
    keys = [
        _keys.digest(model_key(as_network(model), X.astype(np.float32)))
        for model in (digits_model, again)
    ]
    assert keys[0] == keys[1]


def test_parameters_of_what_is_asked_are_a_part_of_the_key(tmp_path):
    file, memory = tmp_path / "calls", str(tmp_path / "memory")
    for n_steps in (1, 2, 1):
        asked = partial(counted_with, attack=PGD(n_steps))
        evaluate(asked, file, memory=memory)
    assert len(file.read_text()) == 6
    assert os.path.isdir(memory)


def counted_with(model, rows, labels, seed, *, attack):
    return counted(model, rows, labels, seed)
