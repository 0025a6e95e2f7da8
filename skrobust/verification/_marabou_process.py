"""The child process in which Marabou runs, with a clock of its own."""

import os
import subprocess
import sys
import tempfile
from multiprocessing import Pipe
from pathlib import Path

import numpy as np

from skrobust.verification._result import Reason

__all__ = ["MISSING", "Child", "reason_of"]

_LONGEST = 1e6  # seconds that a process is waited for at once
_WORKER = Path(__file__).with_name("_marabou_worker.py")
_REASONS = {
    "unsat": Reason.PROVED,
    "sat": Reason.COUNTEREXAMPLE,
    "TIMEOUT": Reason.TIME_OUT,
    "crash": Reason.SOLVER_CRASH,
}
MISSING = (
    "{} Marabou needs the package maraboupy, which has wheels for Python 3.11 and older on Linux "
    "and macOS: pip install maraboupy. The verifier Exact does the same job without it."
)


def reason_of(word):
    """Return the `Reason` for a word of Marabou or of `Child.ask`; a point is only claimed."""
    # "ERROR", "UNKNOWN" and "QUIT_REQUESTED" are failures.
    return _REASONS.get(word, Reason.SOLVER_ERROR)


class Child:
    """Marabou in a process of its own, started when it is asked, and killed at the end."""

    def __init__(self):
        self.process = self.connection = None

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.stop()

    def start(self):
        self.connection, theirs = Pipe()
        path = os.pathsep.join(os.path.abspath(entry) for entry in sys.path)
        # Marabou writes a query that it fails at into the folder where it runs. That one is
        # removed under its feet, so that nothing is left however the two processes end.
        folder = tempfile.mkdtemp(prefix="skrobust-")
        try:
            with theirs:
                self.process = subprocess.Popen(
                    [sys.executable, "-P", str(_WORKER), str(theirs.fileno()), str(os.getpid())],
                    pass_fds=[theirs.fileno()],
                    env={**os.environ, "PYTHONPATH": path},
                    cwd=folder,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                )
        finally:
            os.rmdir(folder)

    def stop(self):
        if self.process is not None:
            self.connection.close()
            self.process.kill()
            self.process.wait()
            self.process = None

    def ask(self, task, places, limit, watch):
        """Return Marabou's word, or "TIMEOUT" or "crash", and the values of the inputs."""
        try:
            if self.process is None:
                self.start()
                status, text = self._receive(watch)
                if status == "missing":
                    self.stop()
                    raise ImportError(MISSING.format(text))
            self.connection.send((task, places, limit, _seconds(watch)))
            return self._receive(watch)
        except TimeoutError:
            self.stop()
            return "TIMEOUT", []
        except (EOFError, OSError):
            self.stop()
            return "crash", []

    def _receive(self, watch):
        if not self.connection.poll(_seconds(watch)):
            raise TimeoutError
        return self.connection.recv()


def _seconds(watch):
    return None if watch.left == np.inf else min(watch.left, _LONGEST)
