"""The runner of the benchmarks goes on where it was killed; every script runs to its end."""

import functools
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
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
        # Whatever the shell did that runs these tests: jobs in the background ignore interrupts.
        attend = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
        return subprocess.Popen(
            [*command, *flags], stdout=subprocess.PIPE, text=True, preexec_fn=attend
        )

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


def test_named_scripts_run_in_their_order(place):
    place.write(first="print(1)", second="print(2)", third="print(3)")
    status, printed = place.run("third", "first")
    assert (status, place.ran()) == (0, ["third", "first"])
    assert "second.py" not in printed
    # All of them go on after these.
    assert place.run()[0] == 0
    assert place.ran() == ["second"]


def test_names_without_a_script_are_refused_before_any_runs(place):
    place.write(first="print(1)")
    command = [sys.executable, RUNNER, "--folder", place.scripts, "first", "frist"]
    process = subprocess.run(command, capture_output=True, text=True)
    assert process.returncode == 1
    assert "Got ['frist'], but expected names among ['first']." in process.stderr
    assert place.ran() == []


# The fewest images, runs and seconds with which a script goes through all that it does.
SMALLEST = {
    "bayesian": "--images 40 --samples 8 --proposals 2 --repeats 1 --posterior 5 --layers 20 "
    "--rows 3",
    "bounds": "--train 200 --images 2 --epochs 1 --width 20 --repeats 1 --epsilons 0.01",
    "certified": "--full --part 240 --images 8 --epochs 2 --timeout 1 --output {folder}",
    "faults": "--rows 40 --rounds 2",
    "grid_search": "--epochs 1 --repeats 1 --points 4",
    "closest": "--points 2 --train 240 --epochs 1",
    "large_networks": "--images 1 --epochs 1 --depths 2 --epsilons 0.03 --timeout 5 --queries 1 "
    "--output {folder}",
    "pointwise": "--points 2 --reference 2 --runs 1 --tightness-lenet 1 --points-cifar 1 "
    "--epochs 1 --epochs-cifar 1 --points-caffe 2 --epochs-caffe 1 --skip fashion",
    "regime_forms": "--train 100 --images 20 --epochs 1 --seeds 1",
    "sample_sizes": "--runs 10",
    "sampling": "--images 40 --samples 50 --repeats 1",
    "satisfaction": "--images 2 --epsilons 0.05 --timeout 1 --epochs 1",
    "scale": "--budget 0.01 --most 2 --only-base --tasks 8 --points 200 --hard-points 4",
    "scores": "--images 40 --samples 50 --repeats 1",
    "security": "--images 40 --train 240 --repeats 1 --truth 4 --timeout 1 --epochs 1 "
    "--skip-autoattack",
    "training": "--train 240 --repeats 1",
    "soundness": "--points 2 --width 8 --rounds 2 --restarts 1 --domains 2 --hard 1 --fresh",
    "trees": "--repeats 1 --digits 2 --skip-programs",
}
NEEDS = {
    "bayesian": ["pyro"],
    "closest": ["adv_lib"],
    "grid_search": ["psutil"],
    "pointwise": ["highspy", "cvxpy"],
    "sampling": ["psutil"],
    "satisfaction": ["maraboupy"],
    "scale": ["distributed"],
    "scores": ["psutil"],
    "security": ["foolbox"],
}


@pytest.fixture(scope="module")
def small_data(tmp_path_factory):
    """A folder with a few random images of each data set that a benchmark reads."""
    folder = tmp_path_factory.mktemp("data")
    random = np.random.default_rng(0)
    shapes = {"mnist": (28, 28), "fashion_mnist": (28, 28), "cifar10_subset": (32, 32, 3)}
    for name, shape in shapes.items():
        patterns = random.integers(0, 200, (10, *shape))
        arrays = {}
        for split, n in (("train", 240), ("test", 40)):
            labels = np.arange(n) % 10
            images = patterns[labels] + random.integers(0, 56, (n, *shape))
            arrays |= {f"X_{split}": images.astype(np.uint8), f"y_{split}": labels}
        np.savez(folder / f"{name}.npz", **arrays)
    return folder


def test_there_are_small_flags_for_every_script():
    assert sorted(SMALLEST) == sorted(script.stem for script in RUNNER.parent.glob("[!_]*.py"))


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALLEST)
def test_every_script_runs_to_its_end(name, small_data):
    for package in NEEDS.get(name, []):
        pytest.importorskip(package)
    ended = subprocess.run(
        [
            sys.executable,
            RUNNER.parent / f"{name}.py",
            *SMALLEST[name].format(folder=small_data).split(),
        ],
        capture_output=True,
        text=True,
        env={**os.environ, "SKROBUST_DATA": str(small_data), "OMP_NUM_THREADS": "1"},
    )
    assert ended.returncode == 0, ended.stderr
    assert "|" in ended.stdout


@pytest.mark.slow
def test_the_tree_is_of_the_size_of_the_slides():
    """4,354 leaves, a state of 12 numbers, two actions; the slides' own last title."""
    code = "import trees; tree, X = trees.policy(); print(trees.__doc__); "
    code += "print(tree.get_n_leaves(), X.shape[1], *tree.classes_)"
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=RUNNER.parent, check=True
    )
    assert "Verifiable Models via Model Compression (Ongoing)" in ended.stdout
    assert ended.stdout.splitlines()[-1] == "4354 12 down up"


def test_every_benchmark_explains_itself():
    scripts = sorted(RUNNER.parent.glob("[!_]*.py"))
    assert len(scripts) >= 10
    for script in scripts:
        compile(script.read_text(encoding="utf-8"), str(script), "exec")
        assert f"benchmarks/{script.name}" in (RUNNER.parent / "README.md").read_text()
