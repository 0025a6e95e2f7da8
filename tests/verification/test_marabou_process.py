"""The child process: words are told apart, a dead or silent one is killed, and started anew."""

import os
import tempfile
from types import SimpleNamespace

import pytest

from skrobust.verification import Reason, _marabou_process
from skrobust.verification._base import Stopwatch
from skrobust.verification._marabou_process import Child, reason_of

ANSWERS = """
import os, sys, time
from multiprocessing.connection import Connection

connection = Connection(int(sys.argv[1]))
try:
    open("left", "w")
    place = os.getcwd()
except FileNotFoundError:
    place = "nowhere"
connection.send({first})
while True:
    task, places, limit, seconds = connection.recv()
    if task == "die":
        os._exit(1)
    if task == "sleep":
        time.sleep(60)
    connection.send((task, [os.getpid(), place, int(sys.argv[2]), places, limit, seconds]))
"""


@pytest.fixture
def child(monkeypatch, tmp_path):
    """A child that answers with its task, and what it was told."""
    write(monkeypatch, tmp_path)
    with Child() as child:
        yield child
    assert child.process is None


def write(monkeypatch, tmp_path, first='("ready", "")'):
    file = tmp_path / "worker.py"
    file.write_text(ANSWERS.format(first=first), encoding="utf-8")
    monkeypatch.setattr(_marabou_process, "_WORKER", file)


def test_it_is_started_when_it_is_first_asked_and_then_kept(child):
    assert child.process is None
    word, first = child.ask("sat", [3], 0.5, Stopwatch())
    _, second = child.ask("unsat", [3], 0.5, Stopwatch(100))
    assert word == "sat" and first[0] == second[0] == child.process.pid != os.getpid()
    assert first[2] == os.getpid()  # it is told whose child it is
    assert first[3:] == [[3], 0.5, None] and second[5] <= 100


def test_it_runs_where_nothing_can_be_left(child, monkeypatch, tmp_path):
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    _, (_, place, *_) = child.ask("sat", [], 0.0, Stopwatch())
    assert place == "nowhere"
    assert not list(folder.iterdir())
    process = child.process
    child.stop()
    assert process.poll() is not None
    child.stop()  # twice is no harm


def test_a_crash_is_told_and_the_next_task_has_a_new_process(child):
    _, (pid, *_) = child.ask("sat", [], 0.0, Stopwatch())
    assert child.ask("die", [], 0.0, Stopwatch()) == ("crash", [])
    assert child.process is None
    word, (other, *_) = child.ask("unsat", [], 0.0, Stopwatch())
    assert word == "unsat" and other != pid


def test_what_does_not_answer_in_time_is_killed(child):
    child.ask("sat", [], 0.0, Stopwatch())
    process = child.process
    assert child.ask("sleep", [], 0.0, Stopwatch(0.2)) == ("TIMEOUT", [])
    assert process.poll() is not None and child.process is None


def test_a_missing_package_says_how_to_install_it(monkeypatch, tmp_path):
    write(monkeypatch, tmp_path, first='("missing", "No module named maraboupy.")')
    with Child() as child:
        with pytest.raises(ImportError, match=r"No module .* pip install maraboupy.*Exact does"):
            child.ask("sat", [], 0.0, Stopwatch())
        assert child.process is None


@pytest.mark.parametrize(
    ("word", "reason"),
    [
        ("unsat", Reason.PROVED),
        ("sat", Reason.COUNTEREXAMPLE),
        ("TIMEOUT", Reason.TIME_OUT),
        ("crash", Reason.SOLVER_CRASH),
        ("ERROR", Reason.SOLVER_ERROR),
        ("UNKNOWN", Reason.SOLVER_ERROR),
        ("QUIT_REQUESTED", Reason.SOLVER_ERROR),
        ("what a later version says", Reason.SOLVER_ERROR),
    ],
)
def test_only_two_words_decide(word, reason):
    assert reason_of(word) is reason


def test_waiting_has_an_end_for_the_operating_system():
    seconds = _marabou_process._seconds
    assert seconds(SimpleNamespace(left=float("inf"))) is None
    assert seconds(SimpleNamespace(left=2.5)) == 2.5
    assert seconds(SimpleNamespace(left=1e12)) == 1e6
