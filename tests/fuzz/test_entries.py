"""Whatever public entries are given, they end in a documented error or in a right result."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz._entries import Entry
from tests.fuzz._malformed import (
    Call,
    ending,
    malformed_arrays,
    malformed_labels,
    malformed_values,
)
from tests.fuzz._meta_entries import ENTRIES

_CHECKS = {"deadline": None, "suppress_health_check": list(HealthCheck), "database": None}


@pytest.fixture(autouse=True)
def _own_folder(tmp_path, monkeypatch):
    """Some arguments are folders, which a malformed value may name."""
    monkeypatch.chdir(tmp_path)


@st.composite
def calls(draw, entry):
    """Draw a call of an entry in which one or two arguments are replaced."""
    names = draw(st.lists(st.sampled_from(list(entry.kinds)), min_size=1, max_size=2, unique=True))
    replaced = {}
    for name in names:
        kind = entry.kinds[name]
        keys = {"array": malformed_arrays, "labels": malformed_labels}.get(kind)
        replaced[name] = (kind, draw(malformed_values(name) if keys is None else keys()))
    return Call(entry.function, entry.arguments(), replaced)


def assert_documented(entry, n_calls):
    """Every one of `n_calls` malformed calls ends as documented."""
    endings = {}

    @settings(max_examples=n_calls, **_CHECKS)
    @given(calls(entry))
    def check(call):
        # All are gathered, so that a failure shows the whole extent.
        text = ending(call, entry.right)
        if text is not None:
            endings.setdefault(repr(call), text)

    check()
    assert not endings, f"{len(endings)} endings:\n" + "\n".join(list(endings.values())[:25])


def _entry(name):
    """Return an entry; skip the test where an extra that it needs is not installed."""
    entry = ENTRIES[name]
    if entry.package is not None:
        pytest.importorskip(entry.package)
    return entry


@pytest.mark.parametrize("name", ENTRIES)
def test_well_formed_calls_end_well(name):
    entry = _entry(name)
    call = Call(entry.function, entry.arguments(), {})
    assert entry.right(call(), call)


@pytest.mark.parametrize("name", ENTRIES)
def test_malformed_calls_end_as_documented(name):
    assert_documented(_entry(name), 12)


@pytest.mark.slow
@pytest.mark.parametrize("name", ENTRIES)
def test_many_malformed_calls_end_as_documented(name):
    assert_documented(_entry(name), 1000)


@pytest.mark.parametrize(
    "function",
    [
        lambda X: np.linalg.inv(X),  # an error of somebody else's
        lambda X: {}["X"],
        lambda X: X.no_such_attribute,
    ],
)
def test_other_endings_are_seen(function):
    call = Call(function, {"X": np.zeros((2, 3))}, {"X": ("array", "reversed")})
    assert ending(call) is not None


def test_wrong_results_are_seen():
    entry = Entry(lambda X: X.sum(), lambda: {"X": np.zeros((2, 3))}, {"X": "array"})
    call = Call(entry.function, entry.arguments(), {"X": ("array", "nan")})
    assert ending(call, lambda result, call: np.isfinite(result)) is not None
    assert ending(call) is None
