"""What code of users refers to, and what stands for the code of others."""

import sys

import numpy as np
import pytest

from skrobust import _code
from skrobust._code import NoSourceError
from skrobust._keys import digest
from tests._user_code import load


def test_what_is_imported_when_it_runs_is_seen(tmp_path):
    source = "def rows(x):\n    from users_helper import gap\n    return gap(x)"
    load(tmp_path, "def gap(x):\n    return x", "users_helper")
    before = digest(load(tmp_path, source).rows)
    load(tmp_path, "def gap(x):\n    return 2 * x", "users_helper")
    assert digest(load(tmp_path, source).rows) != before
    missing = load(tmp_path, source.replace("users_helper", "nowhere_to_be_had"))
    with pytest.raises(NoSourceError, match="import of 'nowhere_to_be_had' in rows"):
        digest(missing.rows)
    del sys.modules["users_helper"], sys.modules["users_module"]


def test_what_is_used_of_a_module_is_seen_and_no_more(tmp_path):
    source = "import users_helper as u\ndef rows(x):\n    return u.gap(x)"
    load(tmp_path, "def gap(x):\n    return x\nother = 1", "users_helper")
    before = digest(load(tmp_path, source).rows)
    load(tmp_path, "def gap(x):\n    return x\nother = 2", "users_helper")
    assert digest(load(tmp_path, source).rows) == before
    load(tmp_path, "def gap(x):\n    return -x\nother = 1", "users_helper")
    assert digest(load(tmp_path, source).rows) != before
    del sys.modules["users_helper"], sys.modules["users_module"]


def test_what_is_only_written_to_is_no_part_of_a_function(tmp_path):
    source = """
calls, seen, table = [], set(), {1: 2}

def counts(x):
    calls.append(x)
    seen.add(x)
    return x

def reads(x):
    calls.append(x)
    return len(calls)

def looks_up(x):
    return table[x]

def made():
    own = []
    def inner(x):
        own.append(x)
        return x
    return inner

inner = made()
"""
    module = load(tmp_path, source)
    names = ("counts", "inner", "reads", "looks_up")
    before = [digest(getattr(module, name)) for name in names]
    module.counts(3)
    module.inner(3)
    module.table[1] = 5
    after = [digest(getattr(module, name)) for name in names]
    assert [one == other for one, other in zip(before, after, strict=True)] == [
        True, True, False, False
    ]  # fmt: skip
    del sys.modules["users_module"]


def test_a_file_with_the_name_of_a_module_of_python_is_the_users(tmp_path, monkeypatch):
    _code._installed_version.cache_clear()
    monkeypatch.setitem(sys.modules, "wave", None)  # so that it is put back
    codes = [digest(load(tmp_path, f"def f(x):\n    return x + {i}", "wave").f) for i in range(2)]
    assert codes[0] != codes[1]
    _code._installed_version.cache_clear()


def test_installed_packages_are_known_by_their_versions():
    assert _code.version_of("numpy.linalg") == np.__version__
    assert _code.version_of("skrobust.attacks") == _code.__version__
    assert _code.version_of("builtins") and _code.version_of("json.decoder")
    assert _code.version_of("__main__") == _code.version_of(__name__) == ""
    assert _code.version_of(None) == ""
