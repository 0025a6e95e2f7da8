"""Logics: a loss that agrees with the truth, values worked by hand, finite gradients."""

import math
import re
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.base import clone

from skrobust.logics import (
    DL2,
    STL,
    And,
    Atom,
    Goedel,
    Implies,
    Lukasiewicz,
    Not,
    Or,
    Reichenbach,
    Yager,
)

FUZZY = [Goedel(), Lukasiewicz(), Reichenbach(), Yager(), Yager(p=1.0), Yager(scale=3.0, p=4.0)]
LOGICS = [DL2(), DL2(conjunction="max"), STL(), STL(sharpness=20.0), *FUZZY]

# Violations of 1 and 3, so truths of 1/2 and 1/4 in the fuzzy logics.
HALF = Atom(torch.tensor([-1.0], dtype=torch.float64))
QUARTER = Atom(torch.tensor([-3.0], dtype=torch.float64))
TRUE = Atom(torch.tensor([2.0], dtype=torch.float64))


def loss(logic, formula):
    return logic.loss(formula).item()


# ---- random formulas, each with its truth by plain Python --------------------

numbers = st.sampled_from([-2.0, -0.5, -0.25, 0.0, 0.25, 1.0, 3.0])


@st.composite
def atoms(draw, strict=(False, True)):
    rows = draw(st.lists(numbers, min_size=1, max_size=3))
    flags = [draw(st.sampled_from(strict)) for _ in rows]
    truth = all(v > 0 if flag else v >= 0 for v, flag in zip(rows, flags, strict=True))
    values = torch.tensor([rows], dtype=torch.float64)
    return Atom(values, torch.tensor(flags)), truth


def _combined(parts):
    pairs = st.tuples(parts, parts)
    return st.one_of(
        parts.map(lambda p: (Not(p[0]), not p[1])),
        pairs.map(lambda p: (And(p[0][0], p[1][0]), p[0][1] and p[1][1])),
        pairs.map(lambda p: (Or(p[0][0], p[1][0]), p[0][1] or p[1][1])),
        pairs.map(lambda p: (Implies(p[0][0], p[1][0]), p[1][1] or not p[0][1])),
    )


formulas = st.recursive(atoms(), _combined, max_leaves=6)
conjunctions = st.recursive(
    atoms(strict=(False,)),
    lambda parts: st.tuples(parts, parts).map(
        lambda p: (And(p[0][0], p[1][0]), p[0][1] and p[1][1])
    ),
    max_leaves=5,
)


@given(formulas)
def test_holds_is_classical_logic(case):
    formula, truth = case
    assert formula.holds().tolist() == [truth]


@given(formulas)
def test_dl2_is_zero_exactly_where_the_formula_is_true(case):
    formula, truth = case
    value = loss(DL2(), formula)
    assert value >= 0
    assert (value == 0) == truth


@pytest.mark.parametrize("logic", LOGICS, ids=repr)
@given(case=conjunctions)
def test_conjunctions_have_no_loss_exactly_where_they_hold(logic, case):
    formula, truth = case
    value = loss(logic, formula)
    assert value >= 0
    assert (value < 1e-12) == truth


@pytest.mark.parametrize("sharpness", [0.5, 1.0, 30.0])
@given(case=formulas)
def test_stl_has_no_loss_where_the_formula_is_true(sharpness, case):
    formula, truth = case
    if truth:
        assert loss(STL(sharpness), formula) == 0


@given(st.lists(st.floats(-5, 5).filter(lambda v: abs(v) > 1e-3), min_size=1, max_size=6))
def test_smooth_minimum_has_the_sign_of_the_minimum(rows):
    truth = STL()._truth(Atom(torch.tensor([rows], dtype=torch.float64))).item()
    assert np.sign(truth) == np.sign(min(rows))
    sharp = STL(sharpness=1e5)._truth(Atom(torch.tensor([rows], dtype=torch.float64))).item()
    # Within a row or two of equal size, the sharp one is the minimum itself.
    assert sharp == pytest.approx(min(rows), rel=0.01)


@given(case=formulas)
def test_operators_build_the_same_formulas(case):
    formula, _ = case
    for built, written in (
        (And(formula, HALF), formula & HALF),
        (Or(formula, HALF), formula | HALF),
        (Not(formula), ~formula),
        (Implies(formula, HALF), formula.implies(HALF)),
    ):
        assert type(built) is type(written)
        assert loss(Lukasiewicz(), built) == loss(Lukasiewicz(), written)


# ---- values by hand --------------------


@given(st.lists(st.floats(-5, 5), min_size=1, max_size=6), st.floats(0, 3))
def test_the_largest_violation_is_one_comparison_of_the_norm(change, delta):
    change = torch.tensor([change], dtype=torch.float64)
    rows = torch.cat([delta - change, delta + change], dim=1)  # those of standard robustness
    expected = max(0.0, change.abs().max().item() - delta)
    assert loss(DL2(conjunction="max"), Atom(rows)) == pytest.approx(expected, abs=1e-12)


def test_sum_and_largest_of_two_violations():
    rows = Atom(torch.tensor([[2.0 - 3.0, 2.0 + 3.0, 2.0 + 4.0, 2.0 - 4.0]]))  # (3, -4), delta 2
    assert loss(DL2(), rows) == 3.0
    assert loss(DL2(conjunction="max"), rows) == 2.0
    assert loss(DL2(conjunction="max"), rows & Atom(torch.tensor([-1.5]))) == 2.0


@pytest.mark.parametrize(
    ("logic", "both", "either", "implication", "negation"),
    [
        # Rows 1 and 3 short; "not HALF" and "HALF implies QUARTER" are true.
        (DL2(), 4.0, 3.0, 0.0, 0.0),
        (Goedel(), 0.75, 0.5, 0.75, 0.5),
        (Lukasiewicz(), 1.0, 0.25, 0.25, 0.5),
        (Reichenbach(), 0.875, 0.375, 0.375, 0.5),
        (Yager(), math.hypot(0.5, 0.75), 1 - math.hypot(0.5, 0.25), 0.5, 0.5),
        (Yager(p=1.0), 1.0, 0.25, 0.5, 0.5),
    ],
    ids=repr,
)
def test_values_by_hand(logic, both, either, implication, negation):
    assert loss(logic, HALF & QUARTER) == pytest.approx(both)
    assert loss(logic, HALF | QUARTER) == pytest.approx(either)
    assert loss(logic, HALF.implies(QUARTER)) == pytest.approx(implication)
    assert loss(logic, ~HALF) == pytest.approx(negation)


@pytest.mark.parametrize("logic", FUZZY, ids=repr)
def test_fuzzy_logics_at_the_corners(logic):
    # A row that is violated without end has truth 0: there, they are classical.
    false = Atom(torch.tensor([-1e300], dtype=torch.float64))
    for left, a in ((TRUE, True), (false, False)):
        for right, b in ((TRUE, True), (false, False)):
            assert loss(logic, left & right) == pytest.approx(float(not (a and b)), abs=1e-9)
            assert loss(logic, left | right) == pytest.approx(float(not (a or b)), abs=1e-9)
            assert loss(logic, left.implies(right)) == pytest.approx(float(a and not b), abs=1e-9)
        assert loss(logic, ~left) == pytest.approx(float(a), abs=1e-9)


def test_scale_is_where_the_truth_is_one_half():
    for kind in (Goedel, Lukasiewicz, Reichenbach, Yager):
        assert loss(kind(scale=3.0), QUARTER) == 0.5


def test_dl2_ties_and_implication():
    tie = Atom(torch.tensor([0.0]), strict=True)
    assert loss(DL2(tie_penalty=0.25), tie) == 0.25
    assert loss(DL2(tie_penalty=0.25), Not(Atom(torch.tensor([0.0])))) == 0.25
    assert loss(DL2(), Atom(torch.tensor([0.0]))) == 0
    # TRUE (2) implies QUARTER (-3): not TRUE costs 2, QUARTER 3, and "or" is the product.
    assert loss(DL2(), TRUE.implies(QUARTER)) == 6.0
    assert loss(DL2(), ~(TRUE & TRUE)) == 4.0
    assert loss(DL2(), ~(HALF | TRUE)) == 2.0
    assert loss(DL2(), ~~HALF) == 1.0


def test_stl_values_by_hand():
    # Varnai and Dimarogonas: both rows positive, a weighted mean; else the lowest is scaled.
    positive = Atom(torch.tensor([[1.0, 2.0]], dtype=torch.float64))
    weights = np.exp([0.0, -1.0])
    expected = (weights * [1.0, 2.0]).sum() / weights.sum()
    assert STL()._truth(positive).item() == pytest.approx(expected)
    mixed = Atom(torch.tensor([[-0.5, 1.0]], dtype=torch.float64))
    weights = np.exp([0.0, -3.0])
    expected = (weights * -0.5 * np.exp([0.0, -3.0])).sum() / weights.sum()
    assert STL()._truth(mixed).item() == pytest.approx(expected)
    assert loss(STL(), mixed) == pytest.approx(-expected)
    # "or" is the mirror image of "and", "not" the negative.
    assert STL()._truth(~mixed).item() == pytest.approx(-expected)
    assert loss(STL(), HALF | TRUE) == 0
    assert loss(STL(sharpness=50.0), HALF | QUARTER) == pytest.approx(1.0)


def test_losses_are_per_sample():
    atom = Atom(torch.tensor([[0.0, 1.0], [-1.0, 0.0], [-1.0, -3.0]], dtype=torch.float64))
    assert DL2().loss(atom).tolist() == [0.0, 1.0, 4.0]
    assert atom.holds().tolist() == [True, False, False]
    assert Atom(atom.values, torch.tensor([True, False])).holds().tolist() == [False] * 3


# ---- gradients --------------------

ROWS = [
    [0.0, 0.0, 0.0],  # all at the tie; truths of 1
    [1.0, 1.0, 2.0],
    [-1.0, -1.0, 2.0],
    [-1e30, 1.0, 1.0],  # a truth of (almost) 0
    [-1e30, -1e30, -1e30],
    [1e-30, 0.0, 5.0],
]


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("logic", LOGICS, ids=repr)
@pytest.mark.parametrize(
    "build",
    [
        lambda a, b: a,
        lambda a, b: a & b,
        lambda a, b: a | b,
        lambda a, b: ~(a & b),
        lambda a, b: a.implies(b),
        lambda a, b: ~a.implies(~b),
    ],
    ids=["atom", "and", "or", "nand", "implies", "nested"],
)
def test_gradients_are_finite(logic, build, strict):
    values = torch.tensor(ROWS, dtype=torch.float64, requires_grad=True)
    formula = build(Atom(values, strict), Atom(values.flip(0), strict))
    losses = logic.loss(formula)
    assert losses.shape == (len(ROWS),)
    assert torch.isfinite(losses).all()
    (gradient,) = torch.autograd.grad(losses.sum(), values)
    assert torch.isfinite(gradient).all()


@pytest.mark.parametrize("logic", LOGICS, ids=repr)
def test_a_step_against_the_gradient_helps(logic):
    values = torch.tensor([[-0.2, -0.1, 3.0]], dtype=torch.float64, requires_grad=True)
    before = logic.loss(Atom(values))
    (gradient,) = torch.autograd.grad(before.sum(), values)
    after = logic.loss(Atom(values.detach() - 0.01 * gradient))
    assert 0 < after < before
    assert gradient[0, 2] == 0 or isinstance(logic, STL)


# ---- value objects --------------------


@pytest.mark.parametrize("logic", LOGICS, ids=repr)
def test_clone_and_parameters(logic):
    copied = clone(logic)
    assert copied.get_params() == logic.get_params()
    assert loss(copied, HALF & QUARTER) == loss(logic, HALF & QUARTER)


@pytest.mark.parametrize(
    ("logic", "message"),
    [
        (DL2(conjunction="min"), "Got conjunction='min', but expected one of 'sum', 'max'"),
        (DL2(tie_penalty=0), "Got tie_penalty=0, but expected a finite number in (0, 3.40282"),
        (STL(sharpness=-1), "Got sharpness=-1, but expected a finite number in (0, inf)"),
        (Goedel(scale=0), "Got scale=0, but expected a finite number in (0, inf)"),
        (Yager(p=0.5), "Got p=0.5, but expected a finite number in [1, inf)"),
        (Yager(scale=np.nan), "Got scale=nan, but expected"),
    ],
)
def test_bad_parameters(logic, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        logic.loss(HALF)


# ---- points in an array, infinite rows, parameters --------------------


@pytest.mark.parametrize("logic", LOGICS, ids=repr)
def test_losses_have_the_shape_of_the_points(logic):
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(4, 5, m, generator=generator).double() for m in (3, 2))
    strict = torch.tensor([True, False, True])
    for build in (
        lambda a, b: Atom(a, strict),
        lambda a, b: Atom(a, strict) & Atom(b),
        lambda a, b: ~(Atom(a) | ~Atom(b)),
        lambda a, b: Atom(a).implies(Atom(b)),
    ):
        together = logic.loss(build(a, b))
        assert together.shape == (4, 5)
        apart = logic.loss(build(a.flatten(0, 1), b.flatten(0, 1))).view(4, 5)
        torch.testing.assert_close(together, apart)
        assert build(a, b).holds().shape == (4, 5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("logic", LOGICS, ids=repr)
def test_infinite_rows_have_a_loss_and_a_gradient_that_are_numbers(logic, dtype):
    rows = [[-torch.inf, 1.0], [-torch.inf, -torch.inf], [torch.inf, torch.inf], [-2.0, torch.inf]]
    values = torch.tensor(rows, dtype=dtype, requires_grad=True)
    losses = logic.loss(Atom(values))
    assert not losses.isnan().any()
    assert (losses[[0, 1, 3]] > 0).all() and losses[2] == 0
    worse = logic.loss(Atom(torch.tensor([[-100.0, 1.0]], dtype=dtype)))
    assert losses[0] >= worse
    (gradient,) = torch.autograd.grad(losses.sum(), values)
    assert not gradient.isnan().any()


@pytest.mark.parametrize("logic", LOGICS, ids=repr)
def test_nan_rows_are_not_made_numbers(logic):
    assert logic.loss(Atom(torch.tensor([[torch.nan, 1.0]]))).isnan().all()


@pytest.mark.parametrize(
    ("logic", "name"),
    [
        *[(DL2, "tie_penalty"), (STL, "sharpness"), (Goedel, "scale"), (Lukasiewicz, "scale")],
        *[(Reichenbach, "scale"), (Yager, "scale"), (Yager, "p")],
    ],
)
@pytest.mark.parametrize(
    "value", [0, -1.0, np.nan, np.inf, "1", None, True, 2**64, Fraction(1, 2)]
)
def test_parameters_are_checked(logic, name, value):
    wrong = logic(**{name: value})
    for reading in (wrong.check, lambda: wrong.loss(TRUE)):
        with pytest.raises(ValueError, match=re.escape(f"Got {name}={value!r}, but expected")):
            reading()


@pytest.mark.parametrize("kind", [np.int8, np.int64, np.float32, int])
@pytest.mark.parametrize(
    ("logic", "name"), [(DL2, "tie_penalty"), (STL, "sharpness"), (Goedel, "scale"), (Yager, "p")]
)
def test_numbers_of_a_grid_are_as_good_as_any(logic, name, kind):
    formula = Atom(torch.tensor([[-1.0, 0.0], [-3.0, 1.0]]), torch.tensor([False, True]))
    found, expected = (logic(**{name: two}).check().loss(formula) for two in (kind(2), 2.0))
    assert type(found) is torch.Tensor
    assert torch.equal(found, expected)


@pytest.mark.parametrize("values", [None, [0.1], np.zeros(3), torch.tensor(0.1)])
def test_values_of_atoms_that_are_refused(values):
    with pytest.raises(TypeError, match=r"^Got values=.*, but expected a tensor of shape"):
        Atom(values)


@pytest.mark.parametrize("strict", [None, 1, "no", torch.tensor([1, 0]), torch.tensor([True] * 3)])
def test_strictness_of_atoms_that_is_refused(strict):
    with pytest.raises(TypeError, match=r"^Got strict=.*, but expected True, False, or a bool"):
        Atom(torch.zeros(4, 2), strict)
