"""Digests that change with data and with the code of users, and with nothing else."""

import functools
import subprocess
import sys
import threading
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression

from skrobust import _keys
from skrobust._code import NoSourceError
from skrobust._keys import code_of, digest, versions
from skrobust.attacks import PGD, Ensemble
from skrobust.properties import ClassificationRobustness, LinearRobustness
from tests._user_code import load

SOURCE = """
import enum
import functools
import threading
import warnings
from dataclasses import dataclass

import numpy as np

GAP = 0.1
WEIGHTS = np.array([1.0, 2.0])
LOCK = threading.Lock()

class Kind(enum.Enum):
    ONE = 1

def helper(x):
    return x + 1

def rows(z, y, scale=2.0, *, shift=0.0):
    return helper(z) * scale + GAP + WEIGHTS.sum() + Kind.ONE.value + shift

def even(n):
    return n == 0 or odd(n - 1)

def odd(n):
    return n != 0 and even(n - 1)

def made(power):
    def inner(x):
        return x**power
    return inner

squared = made(2)
plus = lambda x: x + 1

def locked(x):
    with LOCK:
        return x

@functools.lru_cache
def kept(x):
    return x

class Base:
    limit = 3

    def value(self, x):
        return x * self.limit

class Question(Base):
    @property
    def half(self):
        return self.limit / 2

    @staticmethod
    def third(x):
        return x / 3

    @functools.cached_property
    def slow(self):
        return 4

    def value(self, x):
        return super().value(x) + GAP

@dataclass
class Record:
    size: int = 3
"""


@pytest.fixture
def edit(tmp_path):
    def edited(old="", new=""):
        assert old in SOURCE
        return load(tmp_path, SOURCE.replace(old, new, 1) if old else SOURCE)

    yield edited
    del sys.modules["users_module"]


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("rows", "* scale +", "/ scale +"),
        ("rows", "GAP = 0.1", "GAP = 50"),
        ("rows", "return x + 1", "return x + 2"),
        ("rows", "scale=2.0", "scale=3.0"),
        ("rows", "shift=0.0", "shift=1.0"),
        ("rows", "[1.0, 2.0]", "[1.0, 3.0]"),
        ("rows", "ONE = 1", "ONE = 2"),
        ("even", "n != 0 and", "n != 1 and"),
        ("squared", "made(2)", "made(3)"),
        ("squared", "x**power", "x * power"),
        ("plus", "lambda x: x + 1", "lambda x: x + 3"),
        ("kept", "return x\n\nclass", "return -x\n\nclass"),
        ("Question", "limit = 3", "limit = 4"),
        ("Question", "x * self.limit", "x - self.limit"),
        ("Question", "self.limit / 2", "self.limit / 4"),
        ("Question", "x / 3", "x / 5"),
        ("Question", "return 4", "return 5"),
        ("Question", "GAP = 0.1", "GAP = 50"),
        ("Question", "super().value(x) +", "super().value(x) -"),
        ("Record", "size: int = 3", "size: int = 4"),
    ],
)
def test_an_edit_of_what_is_reached_changes_the_digest(edit, name, old, new):
    before = digest(getattr(edit(), name))
    assert before == digest(getattr(edit(), name))
    after = getattr(edit(old, new), name)
    assert digest(after) != before
    # It is seen from wherever the object is reached.
    inside = digest(functools.partial(print, {"a": [getattr(edit(), name)]}))
    assert digest(functools.partial(print, {"a": [after]})) != inside


@pytest.mark.parametrize("name", ["rows", "Question", "squared"])
def test_comments_and_what_is_not_reached_change_nothing(edit, name):
    before = digest(getattr(edit(), name))
    assert digest(getattr(edit("GAP", "# why\nUNUSED = 1\nGAP"), name)) == before
    assert digest(getattr(edit("n != 0 and", "n != 1 and"), name)) == before


def test_instances_are_told_apart_by_their_class_and_by_their_data(edit):
    module = edit()
    one, two = module.Question(), module.Question()
    before = digest(module.Question)  # before pickle leaves a note on the class
    assert digest(one) == digest(two)
    assert digest(module.Question) == before
    two.limit = 7
    assert digest(one) != digest(two)
    assert digest(module.Record(3)) != digest(module.Record(4))
    before = digest(one)
    assert digest(edit("x / 3", "x / 5").Question()) != before


def test_code_without_source_is_refused_by_name(edit):
    namespace = {"__name__": "__main__"}
    exec("f = lambda x: x\nclass C:\n    def g(self): return 1\nm = C().g", namespace)
    for name in ("f", "C", "m"):
        with pytest.raises(NoSourceError, match=r"__main__\.(<lambda>|C)"):
            digest({"deep": [namespace[name]]})
        with pytest.raises(NoSourceError):
            code_of({"deep": [namespace[name]]})
    with pytest.raises(NoSourceError, match=r"object of class _thread\.lock"):
        digest(edit().locked)
    with pytest.raises(NoSourceError, match=r"object of class _thread\.lock"):
        code_of(edit().locked)


def test_installed_code_is_covered_by_versions():
    for value in (len, np.sin, np.mean, torch.relu, torch.nn.functional.relu, torch.nn.Linear,
                  torch.Tensor.relu, np.linalg.norm, functools.reduce, PGD, torch.float32,
                  LogisticRegression, np, str.upper):  # fmt: skip
        assert digest(value) == digest(value) != digest(print)
    assert set(versions()) >= {"skrobust", "python", "torch", "numpy", "scikit-learn"}
    assert all(versions()[name] for name in ("skrobust", "torch", "numpy", "scikit-learn"))


def test_code_of_a_model_does_not_hold_its_data(edit):
    module = edit()
    question = module.Question()
    code = code_of({"parts": [question, threading.Lock(), np.ones(3)]})
    question.limit = 9
    assert code_of([np.zeros(3), question]) == code
    assert code_of(edit("x / 3", "x / 5").Question()) != code
    assert code_of(functools.partial(print, question)) != []


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (1, True), (1, 1.0), (0.0, -0.0), ("a", b"a"), ([1], (1,)), ([1, 2], [[1], 2]),
        ({"a": 1}, {"a": 2}), ({1, 2}, {1, 3}), (None, "None"), (["ab", "c"], ["a", "bc"]),
        (np.zeros(2), np.zeros(2, np.float32)), (np.zeros((2, 3)), np.zeros((3, 2))),
        (np.float32(1), np.float64(1)), (torch.zeros(2), np.zeros(2, np.float32)),
        (torch.ones(2).bfloat16(), torch.zeros(2).bfloat16()),
        (np.array(["a", None]), np.array(["b", None])),
        (ClassificationRobustness(0.1), ClassificationRobustness(0.2)),
        (PGD(), PGD(n_steps=7)),
        (torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)),
        (np.random.RandomState(0), np.random.RandomState(1)),
        (np.random.default_rng(0), np.random.default_rng(1)),
        (np.random.mtrand, np.random),
    ],
)  # fmt: skip
def test_values_are_told_apart(one, other):
    assert digest(one) == digest(one) != digest(other)


def test_equal_values_have_one_digest():
    text, again = (b"equal text".decode() for _ in range(2))  # two objects, not one literal
    assert digest([text, text]) == digest(["equal text", again])
    assert digest(np.arange(6).reshape(2, 3).T) == digest(np.arange(6).reshape(2, 3).T.copy())
    assert digest(Ensemble()) == digest(Ensemble())
    part = [1]
    assert digest([part, part]) == digest([[1], [1]])
    loop = [1]
    loop.append(loop)
    again = [1]
    again.append(again)
    assert digest(loop) == digest(again)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.tuples(inner, inner),
)


@given(values, values)
def test_digests_agree_as_representations_do(one, other):
    assert (digest(one) == digest(other)) == (repr(one) == repr(other))


def test_a_fitted_estimator_can_be_taken_apart(digits):
    X, _, y, _ = digits
    forests = [RandomForestClassifier(3, random_state=0).fit(X[:50], y[:50]) for _ in range(2)]
    assert digest(forests[0]) == digest(forests[1])
    assert digest(forests[0]) != digest(RandomForestClassifier(4).fit(X[:50], y[:50]))


def test_scripts_are_told_apart():
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
        one, other = (torch.jit.script(layer) for layer in (torch.nn.ReLU(), torch.nn.Tanh()))
    assert digest(one) == digest(one) != digest(other)


def test_the_version_is_a_part_of_what_is_known(monkeypatch):
    assert versions()["skrobust"] == _keys.__version__
    monkeypatch.setattr(_keys, "__version__", "9.9")
    assert versions()["skrobust"] == "9.9"


def test_two_processes_have_the_same_digests(tmp_path):
    """Whatever the order of sets and the addresses of objects."""
    load(tmp_path, SOURCE)
    program = (
        "import users_module as u; from skrobust._keys import digest, versions;"
        "from skrobust.properties import LinearRobustness;"
        "print(digest([versions(), LinearRobustness(u.rows), u.Question(), {'b', 'a', 'c'},"
        "u.even, u.squared, frozenset('xyz')]))"
    )
    paths = [str(tmp_path), str(Path(_keys.__file__).parents[1])]
    environment = {"PYTHONPATH": ":".join(paths), "PYTHONDONTWRITEBYTECODE": "1"}
    outputs = {
        subprocess.run(
            [sys.executable, "-c", program],
            env=environment | {"PYTHONHASHSEED": str(seed)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in (1, 2)
    }
    module = sys.modules.pop("users_module")
    here = digest(
        [versions(), LinearRobustness(module.rows), module.Question(), {"b", "a", "c"},
         module.even, module.squared, frozenset("xyz")]
    )  # fmt: skip
    assert outputs == {here + "\n"}
