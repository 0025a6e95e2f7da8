"""Run every benchmark to its end: `make bench`, or `python benchmarks/_run.py`.

One script after the other, for two at a time would disturb each other's clocks. What a script
prints is kept in the folder of results, under the state of the code that it was run with. A
second call goes on after the scripts that ended well, so that a killed run loses one script at
most; another commit, or other changes on it, starts anew. A script that fails or outlasts its
limit is reported, and the others go on; the exit status is then 1. With names of scripts, such
as `python benchmarks/_run.py security trees`, it runs these alone, in this order.
"""

import argparse
import hashlib
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent
NO_COMMIT = "unknown"  # nothing says whether the code is still the same, so all starts anew


def main(folder, results, limit, names=()):
    """Run the scripts of a folder that have no result yet; return the exit status."""
    scripts = chosen_scripts(folder, names)
    results.mkdir(parents=True, exist_ok=True)
    state = code_state(folder)
    failed = []
    for script in scripts:
        result = results / f"{script.stem}.txt"
        if is_finished(result, state):
            print(f"== {script.name}: finished before, see {result}", flush=True)
            continue
        print(f"== {script.name}", flush=True)
        ending = run(script, result, state, limit)
        print(f"== {script.name}: {ending}\n", flush=True)
        if ending:
            failed.append(f"{script.name}: {ending}")
    print("\n".join(["Failed:", *failed]) if failed else f"All ended well, see {results}.")
    return 1 if failed else 0


def chosen_scripts(folder, names):
    """Return the scripts of these names, in their order; all of the folder if there are none."""
    scripts = {script.stem: script for script in sorted(folder.glob("[!_]*.py"))}
    unknown = [name for name in names if name not in scripts]
    if unknown:
        raise SystemExit(f"Got {unknown}, but expected names among {[*scripts]}.")
    return [scripts[name] for name in names or scripts]


def code_state(folder):
    """Name the commit, and what differs from it in tracked files."""

    def git(*arguments):
        command = ["git", "-C", str(folder), *arguments]
        return subprocess.run(command, capture_output=True, check=True).stdout

    try:
        commit, changes = git("rev-parse", "HEAD").decode().strip(), git("diff", "HEAD")
    except (OSError, subprocess.CalledProcessError):
        return NO_COMMIT
    return f"{commit} + {hashlib.sha256(changes).hexdigest()[:12]}" if changes else commit


def is_finished(result, state):
    """Return whether a result is there that ended well, of this state of the code."""
    if state == NO_COMMIT or not result.is_file():
        return False
    lines = result.read_text(encoding="utf-8").splitlines()
    return lines[0] == heading(state) and lines[-1].startswith("# ended well")


def heading(state):
    return f"# commit {state}"


def run(script, result, state, limit):
    """Run one script, print what it prints, and keep it; return what went wrong, or ""."""
    start = time.monotonic()
    # Its own session, so that the children of a script that hangs end with it.
    process = subprocess.Popen(
        [sys.executable, "-u", str(script)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    with result.open("w", encoding="utf-8") as kept, guarded(process, limit) as guard:
        print(heading(state), file=kept, flush=True)
        for line in process.stdout:
            print(line, end="", flush=True)
            print(line, end="", file=kept, flush=True)
        status = process.wait()
        minutes = (time.monotonic() - start) / 60
        problem = guard.problem or (f"exit status {status}" if status else "")
        print(f"# {problem or 'ended well'} after {minutes:.1f} minutes", file=kept)
    return problem


class guarded:
    """End a process, with its children, that outlasts `limit` seconds or its caller."""

    def __init__(self, process, limit):
        self.process, self.limit, self.problem = process, limit, ""

    def __enter__(self):
        self.timer = threading.Timer(self.limit, self._stop)
        self.timer.start()
        return self

    def _stop(self):
        self.problem = f"stopped at its limit of {self.limit / 60:g} minutes"
        self._kill()

    def _kill(self):
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)

    def __exit__(self, *error):
        self.timer.cancel()
        self._kill()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="of scripts; all of them if none is given")
    parser.add_argument("--folder", type=Path, default=HERE, help="of the scripts")
    parser.add_argument("--results", type=Path, default=ROOT / "output" / "bench")
    parser.add_argument("--limit", type=float, default=60.0, help="minutes a script")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that a script ends with its caller
    sys.exit(main(options.folder, options.results, 60 * options.limit, options.names))
