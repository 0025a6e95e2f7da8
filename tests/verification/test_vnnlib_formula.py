"""Boxes and conditions that VNNLIB files state."""

import itertools
from fractions import Fraction
from operator import eq, ge, gt, le, lt

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from skrobust.verification._vnnlib_formula import read_statement
from tests.verification._files import BOX, write_query


def box(case, n=2):
    return [(case.lows[f"X_{i}"].value, case.highs[f"X_{i}"].value) for i in range(n)]


def holds(case, *outputs):
    return case.holds([Fraction(value) for value in outputs])


def test_one_box_and_one_condition(tmp_path):
    statement = read_statement(write_query(tmp_path, BOX + "(assert (<= Y_0 Y_1))"))
    assert (statement.n_inputs, statement.n_outputs) == (2, 2)
    (case,) = statement.cases
    assert box(case) == [(0.2, 0.4), (-1.0, 1.0)]
    # Constraints hold at equality.
    assert holds(case, 1, 1) and holds(case, 0, 1) and not holds(case, 1, 0)


def test_bounds_are_cut_and_turned(tmp_path):
    body = BOX + "(assert (<= 0.25 X_0))(assert (and (>= 1 (* 2 X_1)) (<= (- X_1) 0.5)))"
    (case,) = read_statement(write_query(tmp_path, body)).cases
    assert box(case) == [(0.25, 0.4), (-0.5, 0.5)]
    assert holds(case, -5, 7)  # nothing is asked of the outputs


def test_boxes_with_conditions_of_their_own(tmp_path):
    body = """
    (assert (or
      (and (>= X_0 0) (<= X_0 1) (>= X_1 0) (<= X_1 1) (<= Y_0 0))
      (and (>= X_0 2) (<= X_0 3) (>= X_1 2) (<= X_1 3) (or (>= Y_0 5) (>= Y_1 5)))))
    (assert (<= Y_1 9))
    """
    first, second = read_statement(write_query(tmp_path, body)).cases
    assert (box(first), box(second)) == ([(0, 1), (0, 1)], [(2, 3), (2, 3)])
    assert holds(first, 0, 9) and not holds(first, 1, 0) and not holds(first, 0, 10)
    assert holds(second, 5, 0) and holds(second, 0, 5) and not holds(second, 5, 10)


def test_boxes_multiply(tmp_path):
    halves = "(assert (or (and (>= X_{0} 0) (<= X_{0} 1)) (and (>= X_{0} 2) (<= X_{0} 3))))"
    statement = read_statement(write_query(tmp_path, halves.format(0) + halves.format(1)))
    found = {tuple(box(case)) for case in statement.cases}
    assert found == set(itertools.product([(0, 1), (2, 3)], repeat=2))


def test_boxes_that_do_not_meet_are_left_out(tmp_path):
    halves = "(assert (or (< X_0 0.25) (>= X_0 0.3)))"
    cases = read_statement(write_query(tmp_path, BOX + 2 * halves)).cases
    assert {box(case)[0] for case in cases} == {(0.2, 0.25), (0.3, 0.4)}
    (apart,) = read_statement(write_query(tmp_path, BOX + "(assert (not (< X_0 0.25)))")).cases
    assert box(apart) == [(0.25, 0.4), (-1, 1)]


def test_strict_bounds_are_kept_beside_closed_boxes(tmp_path):
    body = BOX + "(assert (< X_0 0.3))(assert (<= X_0 0.3))(assert (= X_1 0.5))"
    (case,) = read_statement(write_query(tmp_path, body)).cases
    assert box(case) == [(0.2, 0.3), (0.5, 0.5)]
    assert (case.lows["X_0"].strict, case.highs["X_0"].strict) == (False, True)
    assert not case.lows["X_1"].strict and not case.highs["X_1"].strict


@pytest.mark.parametrize(("sign", "is_above"), [("<=", True), (">=", False)])
def test_bounds_that_are_rounded_are_rounded_outwards(tmp_path, sign, is_above):
    body = BOX.replace("0.4", "9").replace("0.2", "-9") + f"(assert ({sign} (* 3 X_0) 1))"
    (case,) = read_statement(write_query(tmp_path, body)).cases
    bound = case.highs["X_0"] if is_above else case.lows["X_0"]
    assert (Fraction(bound.value) > Fraction(1, 3)) is is_above and bound.strict
    assert abs(bound.value - 1 / 3) < 1e-15


def test_what_scripts_say_besides(tmp_path):
    path = tmp_path / "query.vnnlib"
    names = ("X_0", "X_1", "Y_0", "Y_1")
    declared = "".join(f"(declare-fun {name} () Real) ; a remark\n" for name in names)
    start = "(set-logic QF_LRA)(set-info :status unknown)(set-option :produce-models true)"
    path.write_text(start + declared + BOX + "(assert (<= +1.5e-1 Y_0 .25))(check-sat)(exit)")
    (case,) = read_statement(path).cases
    assert holds(case, Fraction(3, 20), 0) is (Fraction(3, 20) >= Fraction(0.15))
    assert holds(case, 0.25, 0) and not holds(case, 0.3, 0) and not holds(case, 0.1, 0)


COMPARISONS = st.one_of(
    st.tuples(st.sampled_from(["<=", ">=", "<", ">", "="]), st.just("Y_0"), st.just("Y_1")),
    st.tuples(
        st.sampled_from(["<=", ">=", "<", ">", "="]),
        st.sampled_from(["Y_0", "Y_1"]),
        st.integers(-2, 2).map(str),
    ),
    st.tuples(st.sampled_from(["<", "<=", "="]), st.just("-1"), st.just("Y_0"), st.just("Y_1")),
)
FORMULAS = st.recursive(
    COMPARISONS.map(lambda parts: f"({' '.join(parts)})"),
    lambda inner: st.one_of(
        inner.map(lambda part: f"(not {part})"),
        st.tuples(st.sampled_from(["and", "or"]), st.lists(inner, min_size=1, max_size=3)).map(
            lambda parts: f"({parts[0]} {' '.join(parts[1])})"
        ),
    ),
    max_leaves=8,
)


def value(text, y):
    """Evaluate a formula as Python."""
    words = text.replace("(", " ( ").replace(")", " ) ").split()

    def read():
        word = words.pop(0)
        if word != "(":
            return y[int(word[2:])] if word.startswith("Y_") else int(word)
        sign, parts = words.pop(0), []
        while words[0] != ")":
            parts.append(read())
        words.pop(0)
        rules = {"and": all, "or": any, "not": lambda parts: not parts[0]}
        if sign in rules:
            return rules[sign](parts)
        signs = {"<=": le, ">=": ge, "<": lt, ">": gt, "=": eq}
        return all(signs[sign](*pair) for pair in itertools.pairwise(parts))

    return read()


@settings(max_examples=60, deadline=None)
@given(FORMULAS, FORMULAS)
def test_conditions_are_classical_logic(tmp_path_factory, first, second):
    path = write_query(tmp_path_factory.mktemp("q"), f"{BOX}(assert {first})(assert {second})")
    (case,) = read_statement(path).cases
    for y in itertools.product((-2, 0, 1, 2), repeat=2):
        assert holds(case, *y) == (value(first, y) and value(second, y))


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        (BOX + "(push)", "Got 'push' in .*line 9, but expected .declare-const"),
        (BOX + "(check-sat)(assert (<= Y_0 1))", "Got 'assert' in .*nothing that is .*asserted"),
        (BOX + "(assert (<= Y_0 ()))", "after the opening bracket"),
        (BOX + "(assert (not (<= Y_0 1) (<= Y_1 1)))", "Got 'not' .*not FORMULA"),
        (BOX + "(assert (= X_0 Y_1))", "Got '=' in .*not a comparison of an input and an output"),
        (BOX + "(assert (< X_0 0.2))", r"line 9, but .*empty: X_0 lies between 0.2 and 0.2"),
        (BOX + "(assert)", "Got 'assert'"),
        (BOX + "(assert X_0)", "Got 'X_0' in .*a formula in brackets"),
        (BOX + "(assert (=> Y_0 1))", "Got '=>' in .*line 9, but expected and, or, not, <=, >="),
        (BOX + "(assert (and))", "Got 'and'"),
        (BOX + "(assert ((and) 1))", "Got 'and'"),
        (BOX + "(assert (<= Y_0))", "Got '<=' .*LEFT RIGHT"),
        (BOX + "(assert (<= X_0 X_1))", "not a comparison of several inputs"),
        (BOX + "(assert (<= X_0 Y_1))", "not a comparison of an input and an output"),
        (BOX + "(assert (<= Y_2 1))", "Got 'Y_2' in .*line 9, but expected a number, or a var"),
        (BOX + "(assert (<= (* 1e-320 X_0) 1))", "bounds that are finite"),
        (BOX + "(assert (<= (- 1e308) (+ Y_0 1e308)))", "finite in float64"),
        (BOX + "(assert (>= X_0 0.5))", r"line 9, but .*empty: X_0 lies between 0.5 and 0.4"),
        (BOX[: BOX.rindex("(assert")], "X_1 has no upper bound"),
        ("", "X_0 has no lower bound"),
        ("(declare-const X_0 Real)", "Got 'X_0' in .*line 5, .*declared in line 1"),
        ("(declare-const Z_0 Real)", "Got 'Z_0'"),
        ("(declare-const X_01 Real)", "Got 'X_01'"),
        ("(declare-const X_5 Real)", "variables X_0 to X_2, but X_2 is missing"),
        ("(declare-const X_2 Int)", "Got 'declare-const'"),
        ("(declare-const (X_2) Real)", "Got 'X_2'"),
    ],
)
def test_what_is_not_understood_is_named(tmp_path, body, fault):
    with pytest.raises(ValueError, match=fault) as raised:
        read_statement(write_query(tmp_path, body))
    assert "query.vnnlib" in str(raised.value)


def test_what_explodes_is_refused(tmp_path):
    either = "(assert (or (<= Y_0 0) (<= Y_1 0) (>= Y_0 5)))"
    with pytest.raises(ValueError, match="at most 10000 conjunctions"):
        read_statement(write_query(tmp_path, BOX + 12 * either))
    halves = "(assert (or (<= X_0 0.3) (>= X_0 0.3)))"
    with pytest.raises(ValueError, match="at most 10000 boxes"):
        read_statement(write_query(tmp_path, BOX + 14 * halves))
    many = "(and " + 30_000 * "(<= Y_0 0) " + ")"  # in proportion to its length
    (case,) = read_statement(write_query(tmp_path, f"{BOX}(assert {many})")).cases
    assert len(case.outputs[0]) == 30_000


def test_without_a_kind_of_variables(tmp_path):
    with pytest.raises(ValueError, match="without a variable Y_0"):
        read_statement(write_query(tmp_path, "", n_outputs=0))
