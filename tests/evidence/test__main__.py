"""The command line of the checker."""

import runpy
import sys

import pytest
from sklearn.linear_model import LogisticRegression

from skrobust.properties import ClassificationRobustness
from skrobust.verification import Bounds


@pytest.fixture
def run(monkeypatch, capsys):
    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["skrobust.evidence", *map(str, arguments)])
        with pytest.raises(SystemExit) as exit:
            runpy.run_module("skrobust.evidence", run_name="__main__")
        return exit.value.code, *capsys.readouterr()

    return run


def test_it_exits_0_only_where_all_is_accepted(run, tmp_path):
    X, y = [[0.2], [0.4], [0.6], [0.8]], [0, 0, 1, 1]
    model = LogisticRegression(C=1e3).fit(X, y)
    property = ClassificationRobustness(0.05)
    Bounds().verify(model, X, y, property=property, evidence=tmp_path)
    code, out, _ = run("check", tmp_path, "--exact")
    assert (code, out.splitlines()[-1]) == (0, "4 of 4 files accepted")
    min(tmp_path.glob("point-*")).unlink()
    code, out, _ = run("check", tmp_path)
    assert code == 1
    assert "rejected: it cannot be read" in out


@pytest.mark.parametrize("arguments", [(), ("check",), ("look", "here"), ("check", "a", "b")])
def test_its_usage(run, arguments):
    code, _, error = run(*arguments)
    assert code == 2
    assert "usage" in error
