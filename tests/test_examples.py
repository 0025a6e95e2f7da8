"""The gallery scripts and the README run, and say what they should."""

import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest

ROOT = Path(__file__).parents[1]


def run(*command, cwd):
    # One thread, as all tests: other workers have the other cores.
    settings = {"MPLBACKEND": "Agg", "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    environment = os.environ | settings
    done = subprocess.run(
        [sys.executable, *map(str, command)],
        capture_output=True,
        text=True,
        cwd=cwd,
        env=environment,
        timeout=3600,  # only for one that hangs: a busy machine takes long
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


EXAMPLES = sorted(path.name for path in (ROOT / "examples").glob("plot_*.py"))


# The first has a test of its own below; the second trains a dozen networks.
APART = {"plot_tradeoff.py", "plot_proved_and_attacked.py"}


@pytest.mark.parametrize(
    "name",
    [
        *(name for name in EXAMPLES if name not in APART),
        pytest.param("plot_proved_and_attacked.py", marks=pytest.mark.slow),
    ],
)
def test_gallery_script_runs(name, tmp_path, monkeypatch, capsys):
    # In this process: to start another and import torch takes as long as some scripts do.
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [name])
    runpy.run_path(str(ROOT / "examples" / name), run_name="__main__")
    plt.close("all")
    assert capsys.readouterr().out


def test_demo_ranks_candidates_and_writes_its_pictures(tmp_path):
    flags = ["--samples", "400", "--epochs", "3", "--output", tmp_path]
    printed = run(ROOT / "examples" / "plot_tradeoff.py", *flags, cwd=tmp_path)
    table = printed[printed.index("trained for") :].splitlines()[1:17]
    surviving, proved = np.array([line.split()[-2:] for line in table], dtype=float).T
    assert len(proved) == 16
    assert (np.diff(proved) <= 0).all() and (proved <= surviving).all()
    for name in ("tradeoff", "curve", "counterexamples"):
        assert (tmp_path / f"{name}.png").stat().st_size > 10_000


def test_every_scorer_has_an_example():
    text = "".join((ROOT / "examples" / name).read_text() for name in EXAMPLES)
    from skrobust import scorers

    names = [name for name in scorers.__all__ if not name.endswith(("Result", "Scorer"))]
    assert names
    missing = [name for name in names if f"import {name}" not in text and name not in text]
    assert missing == []


def test_readme_code_runs(tmp_path):
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert len(blocks) >= 2
    script = tmp_path / "readme.py"
    script.write_text("\n".join(blocks))
    printed = run(script, cwd=tmp_path)
    assert "best_params_" in script.read_text() and "training" in printed


def test_readme_names_the_two_commands():
    text = (ROOT / "README.md").read_text()
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for command in ("make demo", "make test"):
        assert command in text
        assert command.split()[1] in targets
    assert "make test" in (ROOT / ".ci" / "run").read_text()
