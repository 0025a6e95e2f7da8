"""Importing the package: what is loaded, and what is found when it is asked for."""

import pickle
import subprocess
import sys
from pathlib import Path

import pytest

import skrobust

# What scikit-learn or torch load themselves is left out, such as pandas where it is installed.
HEAVY = ["cvxpy", "dask", "highspy", "jinja2", "lightgbm", "maraboupy", "matplotlib", "onnx",
         "polars", "pyro", "rich", "skops", "xgboost"]  # fmt: skip
WITHOUT_SCORES = ["skrobust.verification", "skrobust.pointwise", "skrobust.scorers"]


@pytest.fixture(scope="module")
def loaded():
    """Return what each of three statements adds to torch and scikit-learn, one after the other."""
    code = "import sys, torch, sklearn.model_selection"
    for statement in (
        "import skrobust",
        "from skrobust import RobustClassifier",
        "import skrobust.scorers",
    ):
        code += f"; before = set(sys.modules); {statement}; print(*set(sys.modules) - before)"
    root = Path(skrobust.__file__).parents[1]
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root
    )
    return [set(line.split()) for line in ended.stdout.splitlines()]


def packages(names):
    return {name.partition(".")[0] for name in names}


def test_the_package_alone_loads_no_other(loaded):
    assert loaded[0] == {"skrobust", "skrobust._version"}


def test_a_classifier_loads_nothing_heavy_and_no_scores(loaded):
    assert "skrobust.training" in loaded[1]
    assert not packages(loaded[1]) & set(HEAVY)
    assert not loaded[1] & set(WITHOUT_SCORES)


def test_scorers_load_nothing_that_only_some_need(loaded):
    assert set(WITHOUT_SCORES) <= loaded[2]
    assert packages(loaded[2]) & set(HEAVY) <= {"highspy"}  # which solves their programs


@pytest.mark.parametrize("name", skrobust.__all__)
def test_public_names_are_those_of_their_rooms(name):
    found = getattr(skrobust, name)
    assert pickle.loads(pickle.dumps(found)) is found
    assert name in vars(skrobust)  # asked for once
    assert name in dir(skrobust)


def test_rooms_are_attributes():
    root = Path(skrobust.__file__).parent
    rooms = {path.stem for path in root.iterdir() if not path.name.startswith(("_", "."))}
    assert rooms <= set(dir(skrobust))
    for room in rooms:
        assert getattr(skrobust, room).__name__ == f"skrobust.{room}"


def test_other_names_are_refused():
    with pytest.raises(AttributeError, match="module 'skrobust' has no attribute 'robust'"):
        skrobust.robust  # noqa: B018
    with pytest.raises(ImportError, match="cannot import name 'Robust'"):
        exec("from skrobust import Robust")
