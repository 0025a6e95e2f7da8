"""The reruns of papers: their cells outlive a killed run, and each script runs to its end."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

PAPERS = Path(__file__).parents[1] / "benchmarks" / "papers"
SCRIPTS = sorted(script.stem for script in PAPERS.glob("[!_]*.py"))


@pytest.fixture(scope="module")
def rerun():
    """The module that the scripts share."""
    specification = importlib.util.spec_from_file_location("_rerun", PAPERS / "_rerun.py")
    module = importlib.util.module_from_spec(specification)
    sys.modules["_rerun"] = module
    specification.loader.exec_module(module)
    yield module
    del sys.modules["_rerun"]


def noted(log, value):
    """Return a value, and leave a line in a file that it was asked for."""
    with open(log, "a", encoding="utf-8") as file:
        file.write(f"{value}\n")
    return value


def total(log, first, second):
    return noted(log, first + second)


def broken(log):
    noted(log, "broken")
    raise RuntimeError("It does not go on.")


@pytest.fixture
def cells(rerun, tmp_path):
    log = str(tmp_path / "log")
    first, second = (rerun.Cell(f"cell-{i}", noted, {"log": log, "value": i}) for i in (1, 2))
    both = rerun.Cell("total", total, {"log": log, "first": first, "second": second})
    return first, second, both


def ran(cells):
    """Return what was computed since the last question."""
    log = Path(cells[0].settings["log"])
    lines = log.read_text(encoding="utf-8").split() if log.exists() else []
    log.unlink(missing_ok=True)
    return lines


def test_cells_are_computed_once(rerun, cells, tmp_path):
    for expected in (["1", "2", "3"], []):
        run = rerun.Rerun(tmp_path / "kept")
        run.run(cells)
        assert ran(cells) == expected
        assert [run.value(cell) for cell in cells] == [1, 2, 3]
    run = rerun.Rerun(tmp_path / "kept", anew=True)
    run.run(cells[:1])
    assert ran(cells) == ["1"]
    run.run(cells[:1])  # what the run itself has computed is not forgotten
    assert ran(cells) == []


@pytest.mark.parametrize(
    ("pairs", "expected"),
    [
        ([(50.0, 50.0), (0.0, 0.2)], None),
        ([(50.0, 50.0), (3.0, 1.0)], False),
        ([(52.0, 50.0), (3.0, 1.0)], True),
        ([(52.0, 50.0), (1.0, 3.0)], False),
    ],
)
def test_an_order_is_of_more_than_half_a_point(pairs, expected, monkeypatch):
    monkeypatch.syspath_prepend(str(PAPERS))
    claims = importlib.import_module("_casadio_claims")
    assert claims._all_above(pairs) is expected


def test_a_run_that_broke_goes_on(rerun, cells, tmp_path):
    run = rerun.Rerun(tmp_path / "kept")
    bad = rerun.Cell("bad", broken, {"log": cells[0].settings["log"]})
    with pytest.raises(RuntimeError, match="does not go on"):
        run.run([cells[0], bad, cells[1]])
    assert ran(cells) == ["1", "broken"]
    assert run.value(bad) is None
    assert not list(run.folder.glob("*.part"))
    rerun.Rerun(tmp_path / "kept").run(cells)
    assert ran(cells) == ["2", "3"]


def test_keys_follow_settings_functions_and_what_a_cell_builds_on(rerun, cells, tmp_path):
    first, second, both = cells
    log = first.settings["log"]
    same = rerun.Cell("another name", noted, {"value": 1, "log": log})
    assert same.key != second.key
    assert rerun.Cell("cell", noted, {"log": log, "value": 1}).key == first.key
    assert rerun.Cell("cell", broken, {"log": log}).key != first.key
    other = rerun.Cell("total", total, {"log": log, "first": second, "second": second})
    assert other.key != both.key


def test_nothing_is_begun_after_the_time(rerun, cells, tmp_path, capsys):
    run = rerun.Rerun(tmp_path / "kept", minutes=0)
    run.run(cells)
    assert ran(cells) == []
    assert capsys.readouterr().out.count("not run") == 3
    assert run.value(cells[2]) is None
    assert run.account(cells).startswith("0 of 3 cells")


PARALLEL = """
import sys
from _rerun import Cell, Rerun

def double(value):
    return 2 * value

one, two = (Cell(f"cell-{i}", double, {"value": i}) for i in (1, 2))
run = Rerun(sys.argv[1], n_jobs=2)
run.run([one, two])
run.run([one, Cell("four", double, {"value": two})])
print("values", [run.value(Cell("four", double, {"value": two})), run.value(one)])
"""


@pytest.mark.slow
def test_processes_compute_the_same(tmp_path):
    (tmp_path / "script.py").write_text(PARALLEL, encoding="utf-8")
    ended = subprocess.run(
        [sys.executable, tmp_path / "script.py", tmp_path / "kept"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(PAPERS), *sys.path])},
    )
    assert ended.returncode == 0, ended.stderr
    assert "values [8, 2]" in ended.stdout
    assert "1 of 2 cells kept from before." in ended.stdout


def test_tables_show_what_was_not_run(rerun):
    table = rerun.Table("Accuracy", ["regime", "ours", "paper"], ["A note."])
    table.row("baseline", rerun.beside(rerun.percent(0.8812), 88.2), 3)
    table.row("other", rerun.beside(rerun.percent(None), 88.2), rerun.beside("7", None))
    assert table.markdown().splitlines() == [
        "### Accuracy",
        "",
        "| regime | ours | paper |",
        "| --- | --- | --- |",
        "| baseline | 88.1 (88.2) | 3 |",
        "| other | not run | 7 |",
        "",
        "A note.",
    ]
    with pytest.raises(ValueError, match="Got 1 cells, but expected 2"):
        table.row("short", 1)


@pytest.mark.parametrize("name", SCRIPTS)
def test_every_rerun_has_a_smoke_budget(name, tmp_path):
    command = [sys.executable, PAPERS / f"{name}.py", "--smoke", "--output", tmp_path / "out"]
    ended = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    assert ended.returncode == 0, ended.stderr
    report = (tmp_path / "out" / "report.md").read_text(encoding="utf-8")
    assert "not run" not in report
    assert list((tmp_path / "out").glob("*.png"))
