"""The runner of the benchmarks goes on where it was killed, and past scripts that fail."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

RUNNER = Path(__file__).parents[1] / "benchmarks" / "_run.py"


class Workplace:
    """A repository of stub scripts, each of which notes that it ran."""

    def __init__(self, folder):
        self.scripts, self.results, self.log = folder / "scripts", folder / "out", folder / "log"
        self.scripts.mkdir()
        self.git("init", "--quiet")

    def git(self, *arguments):
        name = ("-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false")
        subprocess.run(["git", "-C", self.scripts, *name, *arguments], check=True)

    def write(self, **scripts):
        for name, code in scripts.items():
            noted = f"open({str(self.log)!r}, 'a').write({name!r} + ' ')"
            (self.scripts / f"{name}.py").write_text(f"import time\n{noted}\n{code}\n")
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "--message", "stubs")

    def start(self, *flags):
        command = [sys.executable, RUNNER, "--folder", self.scripts, "--results", self.results]
        return subprocess.Popen([*command, *flags], stdout=subprocess.PIPE, text=True)

    def run(self, *flags):
        process = self.start(*flags)
        printed, _ = process.communicate()
        return process.returncode, printed

    def ran(self):
        """Return the scripts that ran since the last question."""
        names = self.log.read_text().split() if self.log.exists() else []
        self.log.unlink(missing_ok=True)
        return names

    def result(self, name):
        return (self.results / f"{name}.txt").read_text().splitlines()


@pytest.fixture
def place(tmp_path):
    return Workplace(tmp_path)


def wait_for(condition):
    for _ in range(6000):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError("It did not come to pass.")


def test_outputs_are_kept_with_the_commit(place):
    place.write(first="print('| a | 1 |')", second="print('two')", _helper="print('never')")
    status, printed = place.run()
    assert status == 0
    assert "| a | 1 |" in printed and "All ended well" in printed
    assert place.ran() == ["first", "second"]
    heading, line, ending = place.result("first")
    commit = subprocess.run(
        ["git", "-C", place.scripts, "rev-parse", "HEAD"], capture_output=True, text=True
    )
    assert heading == f"# commit {commit.stdout.strip()}"
    assert line == "| a | 1 |"
    assert ending.startswith("# ended well after ")


def test_finished_scripts_are_skipped_until_the_code_changes(place):
    place.write(first="print(1)", second="print(2)")
    place.run()
    assert place.ran() == ["first", "second"]
    status, printed = place.run()
    assert (status, place.ran()) == (0, [])
    assert "finished before" in printed
    # A change that is not committed, then the same change as a commit.
    script = place.scripts / "second.py"
    script.write_text(script.read_text() + "\n")
    for _ in range(2):
        place.run()
        assert place.ran() == ["first", "second"]
        place.run()
        assert place.ran() == []
        place.write()


def test_others_go_on_where_one_fails(place):
    place.write(first="raise SystemExit(3)", second="print('two')")
    status, printed = place.run()
    assert status == 1
    assert place.ran() == ["first", "second"]
    assert "Failed:\nfirst.py: exit status 3" in printed
    assert place.result("second")[-1].startswith("# ended well")
    # Only what failed is tried again.
    assert place.run()[0] == 1
    assert place.ran() == ["first"]


def test_errors_are_kept_too(place):
    place.write(first="raise RuntimeError('no such table')")
    status, printed = place.run()
    assert status == 1
    assert "RuntimeError: no such table" in printed
    assert "RuntimeError: no such table" in place.result("first")


@pytest.mark.parametrize("kill", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_killed_run_goes_on(place, kill):
    hang = f"from pathlib import Path\nif not Path({str(place.log)!r} + '2').exists():"
    place.write(
        first="print(1)", second=f"{hang}\n    print('begun', flush=True)\n    time.sleep(60)"
    )
    process = place.start()
    wait_for(lambda: (place.results / "second.txt").exists() and "begun" in place.result("second"))
    process.send_signal(kill)
    process.wait()
    process.stdout.close()
    assert process.returncode != 0
    assert place.ran() == ["first", "second"]
    Path(f"{place.log}2").touch()
    status, _ = place.run()
    assert (status, place.ran()) == (0, ["second"])
    assert place.result("second")[-1].startswith("# ended well")


def test_a_script_that_hangs_is_stopped_with_its_children(place, tmp_path):
    child = f"open({str(tmp_path / 'pid')!r}, 'w').write(str(__import__('os').getpid()))"
    code = (
        "import subprocess, sys\n"
        f"subprocess.run([sys.executable, '-c', {child + '; import time; time.sleep(60)'!r}])"
    )
    place.write(first=code, second="print('two')")
    status, printed = place.run("--limit", "0.05")
    assert status == 1
    assert "first.py: stopped at its limit of 0.05 minutes" in printed
    assert place.ran() == ["first", "second"]
    pid = int((tmp_path / "pid").read_text())
    wait_for(lambda: not is_alive(pid))


def is_alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    stat = Path(f"/proc/{pid}/stat")  # dead, but not yet reaped, where there is no init process
    return not stat.exists() or stat.read_text().split()[2] != "Z"


def test_without_a_commit_nothing_is_skipped(place, monkeypatch):
    place.write(first="print(1)")
    monkeypatch.setenv("PATH", "/nowhere")
    for _ in range(2):
        assert place.run()[0] == 0
        assert place.ran() == ["first"]


def test_every_benchmark_explains_itself():
    # The real scripts are not run here, but a broken one would stop `make bench`.
    scripts = sorted(RUNNER.parent.glob("[!_]*.py"))
    assert len(scripts) >= 10
    for script in scripts:
        compile(script.read_text(encoding="utf-8"), str(script), "exec")
        assert f"benchmarks/{script.name}" in (RUNNER.parent / "README.md").read_text()
