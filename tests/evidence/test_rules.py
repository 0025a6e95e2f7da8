"""What the checker knows: numbers, lines, and files that claim more than they hold."""

import io
import zipfile
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skrobust.evidence import _rules
from skrobust.evidence._rules import Clamp, Pool, Rejected, Relu, floats, integers

FINITE = st.floats(-1e6, 1e6, allow_nan=False)


@given(st.lists(FINITE, min_size=1, max_size=6), st.lists(FINITE, min_size=1, max_size=6))
def test_integers_are_exact(first, second):
    n = min(len(first), len(second))
    a, b = integers(first[:n]), integers(second[:n])
    total = _rules.add(a, b)
    for k in range(n):
        exact = Fraction(first[k]) + Fraction(second[k])
        assert total[0][k] * Fraction(2) ** total[1] == exact
    assert (_rules.rounded_down(a) == first[:n]).all()


@given(st.integers(-(10**30), 10**30), st.integers(-80, 80))
def test_rounding_is_downwards(value, exponent):
    pair = np.array([value], dtype=object), exponent
    exact, lower = Fraction(value) * Fraction(2) ** exponent, _rules.rounded_down(pair)[0]
    assert Fraction(lower) <= exact
    assert lower == exact or Fraction(np.nextafter(lower, np.inf)) > exact


def units():
    yield "relu", Relu({"slope": np.zeros(1)}, [1], floats)
    yield "leaky", Relu({"slope": np.full(1, 0.1)}, [1], floats)
    yield "steep", Relu({"slope": np.full(1, 1.7)}, [1], floats)
    yield "absolute", Relu({"slope": np.full(1, -1.0)}, [1], floats)
    yield "clamp", Clamp({"limits": np.array([-0.5, 1.25])}, [1], floats)
    yield "lower clamp", Clamp({"limits": np.array([0.25, np.inf])}, [1], floats)


@pytest.mark.parametrize("unit", [unit for _, unit in units()], ids=[name for name, _ in units()])
@settings(max_examples=60)
@given(low=st.floats(-4, 4), width=st.floats(0, 5), alpha=st.floats(0, 1) | st.none())
def test_lines_hold_in_exact_arithmetic(unit, low, width, alpha):
    ends = np.array([[low]]), np.array([[low + width]])
    lines = unit.lines(*ends)
    least, most, _ = unit.image(*ends)
    for z in [*np.linspace(low, low + width, 9), *np.clip(unit.kinks, low, low + width)]:
        if isinstance(unit, Clamp):
            value = min(max(Fraction(z), Fraction(unit.low)), max(Fraction(z), 0) + 10**9)
            value = value if unit.high == np.inf else min(value, Fraction(unit.high))
        else:
            value = Fraction(z) * (1 if z > 0 else Fraction(unit.slope[0]))
        assert Fraction(least[0, 0]) <= value <= Fraction(most[0, 0])
        for sign in (1.0, -1.0):
            rows = integers([[sign]])
            given_slope = None if alpha is None else np.array([[alpha]])
            [(part, k)], (constant, i) = unit.pull(rows, lines, given_slope, integers)
            bound = part[0, 0] * Fraction(2) ** k * Fraction(z) + constant[0] * Fraction(2) ** i
            assert bound <= Fraction(sign) * value


def test_the_largest_of_a_window():
    pool = Pool({"members": np.array([[0, 1], [1, 2]])}, [3], floats)
    low, high = np.array([[0.0, 1.0, -1.0]]), np.array([[0.5, 3.0, 2.0]])
    lines = pool.lines(low, high)
    assert lines.open.tolist() == [[False, True]]  # entry 1 always wins the first window
    assert lines.member.tolist() == [[1, 1]]
    assert pool.wanted(low, high).tolist() == [[False, True, True]]
    [(part, _)], (constant, _) = pool.pull((np.array([[1.0, -2.0]]), 0), lines, None, floats)
    assert part.tolist() == [[0.0, 1.0, 0.0]]
    assert constant.tolist() == [-6.0]  # the second is at most 3


# -- files --


def packed(name="a.npy", data=None, method=zipfile.ZIP_STORED):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", method) as archive:
        archive.writestr(name, data)
    return stream.getvalue()


def npy(array, **options):
    stream = io.BytesIO()
    np.lib.format.write_array(stream, array, version=(1, 0), **options)
    return stream.getvalue()


def test_arrays_come_back(tmp_path):
    (tmp_path / "a.npz").write_bytes(packed(data=npy(np.arange(6.0).reshape(2, 3))))
    assert (_rules.read_arrays(tmp_path / "a.npz")["a"] == np.arange(6.0).reshape(2, 3)).all()


@pytest.mark.parametrize(
    ("data", "word"),
    [
        (packed(data=npy(np.array([{}]), allow_pickle=True)), "no array"),
        (packed(data=npy(np.zeros(9)).replace(b"(9,)", b"(8,)")), "no array"),
        (packed(data=npy(np.zeros(9)).replace(b"(9,), }      ", b"(9999999,), }")), "no array"),
        (packed(data=npy(np.zeros(9)).replace(b"(9,), } ", b"(-9,), }")), "no array"),
        (packed(data=bytes(2**21), method=zipfile.ZIP_DEFLATED), "claims"),
        (packed(data=b"no npy"), "cannot be read"),
        (packed(data=npy(np.zeros(9)))[:-9], "cannot be read"),
        (b"", "cannot be read"),
    ],
    ids=["pickle", "shorter", "longer", "negative", "bomb", "no npy", "half", "empty"],
)
def test_files_that_claim_what_they_are_not(tmp_path, monkeypatch, data, word):
    monkeypatch.setattr(_rules, "_MOST_BYTES", 2**20)
    (tmp_path / "a.npz").write_bytes(data)
    with pytest.raises(Rejected, match=word):
        _rules.read_arrays(tmp_path / "a.npz")


def test_bytes_become_no_more_floats_than_are_allowed(tmp_path, monkeypatch):
    monkeypatch.setattr(_rules, "MOST_NUMBERS", 10)
    (tmp_path / "a.npz").write_bytes(packed(data=npy(np.zeros(11, dtype=bool))))
    with pytest.raises(Rejected, match="more than 10 numbers"):
        _rules.read_arrays(tmp_path / "a.npz")


def test_a_missing_file(tmp_path):
    with pytest.raises(Rejected, match="FileNotFoundError"):
        _rules.read_arrays(tmp_path / "a.npz")


@pytest.mark.parametrize("data", [b"", b"[1]", b"{", b"\xff", b"[" * 100_000])
def test_text_that_is_no_object(data):
    with pytest.raises(Rejected, match="claim is no JSON"):
        _rules.read_json(data, "claim")


@pytest.mark.parametrize(
    ("array", "options", "word"),
    [
        (np.zeros(3), {"shape": (2,)}, "shape"),
        (np.zeros((2, 1)), {"shape": (2,)}, "shape"),
        (np.array([0, np.nan]), {"shape": (2,)}, "NaN"),
        (np.array([0, np.inf]), {"shape": (2,)}, "beyond"),
        (np.array([0.5, 0]), {"shape": (2,), "below": 4}, "no places"),
        (np.array([-1, 0]), {"shape": (2,), "below": 4}, "no places"),
        (np.array([4, 0]), {"shape": (2,), "below": 4}, "no places"),
    ],
)
def test_arrays_that_do_not_fit(array, options, word):
    with pytest.raises(Rejected, match=word):
        _rules.numbers({"a": array}, "a", **options)


@pytest.mark.parametrize("slope", [0.5, 0.25, -0.5, 0.75])
def test_images_hold_values_next_to_zero(slope):
    # Products of the least numbers above and below 0 are rounded, with powers of two as well.
    unit, least = Relu({"slope": np.full(1, slope)}, [1], floats), 5e-324
    low, high, _ = unit.image(np.full((1, 1), -least), np.zeros((1, 1)))
    assert Fraction(low[0, 0]) <= Fraction(slope) * Fraction(-least) <= Fraction(high[0, 0])


def test_chords_next_to_zero_are_not_rounded_away():
    unit, least = Relu({"slope": np.full(1, 0.75)}, [1], floats), np.full(1, 5e-324)
    low, high = unit.chords(-least, least, 0 * least, 0 * least)
    assert low[0] <= 0.75 and high[0] >= 1


@pytest.mark.parametrize("limit", [np.inf, -np.inf])
def test_clamps_leave_numbers(limit):
    with pytest.raises(Rejected, match="leaves no number"):
        Clamp({"limits": np.full(2, limit)}, [1], floats)
