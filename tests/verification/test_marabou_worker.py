"""The process in which Marabou runs: what it is told, what it answers, and when it ends."""

import os
import subprocess
import sys
import time
from multiprocessing import Pipe
from types import SimpleNamespace

import pytest

from skrobust.verification import _marabou_worker as worker

PROBLEM = {
    "lower": [-1.0, 0.0, 0.0],
    "upper": [1.0, 2.0, 2.0],
    "n_inputs": 1,
    "equations": [([0, 1], [-2.0, 1.0], 0.5)],
    "relus": [(1, 2)],
}


class Equation:
    """Keeps what it is told, as `MarabouCore.Equation` does."""

    LE = "at most"

    def __init__(self, kind="equal"):
        self.kind, self.terms, self.scalar = kind, [], None

    def addAddend(self, coefficient, variable):
        self.terms.append((coefficient, variable))

    def setScalar(self, scalar):
        self.scalar = scalar

    def __repr__(self):
        return f"{self.kind} {self.terms} {self.scalar}"


class Query:
    """Keeps what it is told, as `MarabouCore.InputQuery` does."""

    def __init__(self):
        self.said = []

    def __getattr__(self, name):
        return lambda *args: self.said.append((name, *map(str, args)))


class Core:
    """Stands for `MarabouCore`, and answers what it is made with."""

    InputQuery, Equation, Options = Query, Equation, SimpleNamespace

    def __init__(self, status="sat", values=None):
        self.answer = (status, {0: 0.25, 1: 1.0, 2: 1.0} if values is None else values, None)

    def solve(self, *asked):
        self.asked = asked
        return self.answer

    def addReluConstraint(self, query, before, after):
        query.said.append(("relu", before, after))

    def addDisjunctionConstraint(self, query, parts):
        query.said.append(("any of", str(parts)))


def test_a_query_says_the_whole_program():
    said = worker.build(Core(), PROBLEM, [[2]], 0.125).said
    assert said[:2] == [("setNumberOfVariables", "3"), ("setLowerBound", "0", "-1.0")]
    assert ("setUpperBound", "1", "2.0") in said
    assert ("markInputVariable", "0", "0") in said
    assert ("addEquation", "equal [(-2.0, 0), (1.0, 1)] 0.5") in said
    assert ("relu", 1, 2) in said
    # One row is a bound of its variable; several are a disjunction of inequalities.
    assert said[-1] == ("setUpperBound", "2", "0.125")
    said = worker.build(Core(), PROBLEM, [[1], [2]], 0.125).said
    assert said[-1] == ("any of", "[[at most [(1.0, 1)] 0.125], [at most [(1.0, 2)] 0.125]]")


@pytest.mark.parametrize(("seconds", "limit"), [(None, 0), (0.2, 1), (7.0, 7)])
def test_a_limit_is_whole_seconds_and_none_is_no_limit(seconds, limit):
    core = Core()
    assert worker.solve(core, PROBLEM, [[2]], 0.0, seconds) == ("sat", [0.25])
    _, options, file = core.asked
    assert (options._timeoutInSeconds, options._verbosity, file) == (limit, 0, "")


def test_without_a_point_there_are_no_values():
    assert worker.solve(Core("unsat", {}), PROBLEM, [[2]], 0.0, None) == ("unsat", [])


def test_tasks_are_answered_until_the_connection_ends(monkeypatch):
    monkeypatch.setitem(sys.modules, "maraboupy", SimpleNamespace(MarabouCore=Core()))
    ours, theirs = Pipe()
    for _ in range(2):
        ours.send((PROBLEM, [[2]], 0.0, None))
    ours.close()  # what was sent is still read
    answers = []
    worker.main(SimpleNamespace(recv=theirs.recv, send=answers.append))
    assert answers == [("ready", ""), ("sat", [0.25]), ("sat", [0.25])]


def test_a_missing_package_is_told_and_ends_the_process(monkeypatch):
    monkeypatch.setitem(sys.modules, "maraboupy", None)
    answers = []
    worker.main(SimpleNamespace(recv=None, send=answers.append))
    ((word, text),) = answers
    assert word == "missing" and "maraboupy" in text


def test_a_process_that_has_another_parent_by_now_ends_at_once():
    folder = os.path.dirname(worker.__file__)
    code = f"import os, sys; sys.path.insert(0, {folder!r}); import _marabou_worker as worker\n"
    for parent, output in (("os.getppid()", "alive\n"), ("-1", "")):
        end = f"worker.die_with({parent}); print('alive')"
        command = [sys.executable, "-c", code + end]
        result = subprocess.run(command, capture_output=True, text=True, check=True)
        assert result.stdout == output


def test_the_worker_ends_with_its_parent():
    folder = os.path.dirname(worker.__file__)
    child = (
        f"import os, sys, time; sys.path.insert(0, {folder!r}); import _marabou_worker as worker\n"
        "worker.die_with(int(sys.argv[1])); print(os.getpid(), flush=True); time.sleep(60)"
    )
    parent = (
        "import os, subprocess, sys, time\n"
        f"subprocess.Popen([sys.executable, '-c', {child!r}, str(os.getpid())])\n"
        "time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE) as process:
        pid = int(process.stdout.readline())
        assert is_alive(pid)
        process.kill()
    limit = time.perf_counter() + 5
    while is_alive(pid) and time.perf_counter() < limit:
        time.sleep(0.02)
    assert not is_alive(pid)


def is_alive(pid):
    """Whether a process runs; a zombie, which nobody has asked for, does not."""
    try:
        os.kill(pid, 0)
        with open(f"/proc/{pid}/stat", encoding="utf-8") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_marabou_offers_no_limit_on_work():
    """Seconds alone end a search; a limit on work would make its verdicts repeatable."""
    core = pytest.importorskip("maraboupy.MarabouCore")
    words = ("time", "split", "divide", "state", "limit", "max", "depth", "iteration")
    found = {name for name in vars(core.Options) if any(word in name.lower() for word in words)}
    seconds = {"_initialTimeout", "_timeoutInSeconds", "_timeoutFactor", "_milpSolverTimeout"}
    # How to search, and into how many parts for several threads; the parts have no limit either.
    ways = {"_splitThreshold", "_splittingStrategy", "_sncSplittingStrategy", "_restoreTreeStates",
            "_initialDivides", "_onlineDivides", "_performLpTighteningAfterSplit"}  # fmt: skip
    assert found == seconds | ways
