"""Words, commands and terms of VNNLIB files."""

import tracemalloc

import pytest

from skrobust.verification._vnnlib_text import Term, commands, term_of, words_of


@pytest.fixture
def written(tmp_path):
    def write(text):
        path = tmp_path / "file.vnnlib"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


def test_words_know_their_lines(written):
    words = list(words_of(written("; a (comment)\n(assert ; more\n\n (<= X_0 -1.5e-3))\r\n")))
    assert words == ["(", "assert", "(", "<=", "X_0", "-1.5e-3", ")", ")"]
    assert [word.line for word in words] == [2, 2, 4, 4, 4, 4, 4, 4]


def test_commands_are_nested_lists(written):
    path = written("(a b (c (d)))\n(e)")
    assert list(commands(path)) == [["a", "b", ["c", ["d"]]], ["e"]]
    assert list(commands(written(""))) == []


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("(a\n(b", r"Got 'a'|Got '\(' in .*line 1, but expected a bracket that is closed"),
        ("(a))", r"Got '\)' in .*line 1, but expected a command in brackets"),
        ("(a)\nb", r"Got 'b' in .*line 2, but expected a command in brackets"),
        ("(a\n())", r"Got '\)' in .*line 2, but expected a command or a term after"),
        ("(" * 101, r"line 1, but expected brackets that nest at most 100 deep"),
        (b"(a \xff)", r"file.vnnlib, which is no text"),
    ],
)
def test_faults_are_named(written, text, fault):
    with pytest.raises(ValueError, match=fault):
        list(commands(written(text)))


def test_a_path_that_is_none_is_named(tmp_path):
    for path in (3, tmp_path, tmp_path / "missing"):
        with pytest.raises(ValueError, match=r"Got vnnlib=.*path of a VNNLIB file"):
            list(commands(path))


def test_a_long_file_is_not_held_at_once(written):
    path = written("(assert (<= X_0 1.0))\n" * 50_000)
    tracemalloc.start()
    count = sum(1 for _ in commands(path))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 50_000
    assert peak < 10 * path.stat().st_size


def term(written, text):
    ((expression,),) = commands(written(f"({text})"))
    found = term_of("f", expression, {"X_0", "Y_0", "Y_1"})
    return found.constant, found.weights


@pytest.mark.parametrize(
    ("text", "constant", "weights"),
    [
        ("-.5", -0.5, {}),
        ("1E+2", 100.0, {}),
        ("Y_0", 0.0, {"Y_0": 1.0}),
        ("(+ Y_0 (* 2 Y_1) 3)", 3.0, {"Y_0": 1.0, "Y_1": 2.0}),
        ("(- Y_0 Y_1 1 2)", -3.0, {"Y_0": 1.0, "Y_1": -1.0}),
        ("(- Y_0)", 0.0, {"Y_0": -1.0}),
        ("(* 2 (+ X_0 1) 3)", 6.0, {"X_0": 6.0}),
        ("(- (* Y_0 0.5) (* Y_0 0.5))", 0.0, {"Y_0": 0.0}),
    ],
)
def test_terms(written, text, constant, weights):
    assert term(written, text) == (constant, weights)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("Z_0", "Got 'Z_0' in f, line 1, but expected a number, or a variable"),
        ("inf", "Got 'inf'"),
        ("nan", "Got 'nan'"),
        ("0x1", "Got '0x1'"),
        ("1_0", "Got '1_0'"),
        ("1e999", "finite in float64"),
        ("(* 1e300 1e300)", "finite in float64"),
        ("(* Y_0 Y_1)", "at most one factor has variables"),
        ("(/ Y_0 2)", r"Got '/' in f, line 1, but expected \+, - or \*"),
        ("(+)", r"Got '\+'"),
        ("((+ 1 2) 3)", r"Got '\+'"),
        ("٣", "Got '٣'"),
    ],
)
def test_terms_that_are_none(written, text, fault):
    with pytest.raises(ValueError, match=fault):
        term(written, text)


def test_terms_add_up():
    total = Term(1.0, {"Y_0": 1.0}).add(Term(2.0, {"Y_0": 3.0, "Y_1": 1.0}), -2.0)
    assert (total.constant, total.weights) == (-3.0, {"Y_0": -5.0, "Y_1": -2.0})
    assert not total.add(Term(float("inf"))).is_finite
