"""The driver of per-sample evaluations."""

import numpy as np
import pytest

from skrobust._evaluation import evaluate_in_chunks

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
