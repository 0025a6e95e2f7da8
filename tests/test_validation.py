"""Refusals name the argument, its value, and what was expected."""

import re
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from skrobust._validation import (
    call_of_user,
    check_bounds,
    check_choice,
    check_device,
    check_epsilon,
    check_finite_rows,
    check_flag,
    check_instance,
    check_integer,
    check_length,
    check_real,
    check_seed,
    check_within_bounds,
    expected,
    sample_shape,
    shown,
)
from skrobust.exceptions import UnsupportedPropertyError
from skrobust.properties import Domain
from skrobust.scorers import AdversarialFrequency


@pytest.mark.parametrize("epsilon", [0, 0.1, np.float32(0.5), np.int64(2)])
def test_epsilon_scalar(epsilon):
    checked = check_epsilon(epsilon)
    assert type(checked) is float
    assert checked == float(epsilon)


def test_epsilon_per_feature():
    checked = check_epsilon([0, 0.5, 1], n_features=3)
    assert checked.dtype == np.float64
    np.testing.assert_array_equal(checked, [0, 0.5, 1])


@pytest.mark.parametrize(
    "epsilon",
    [
        *[-0.1, np.nan, np.inf, None, "0.1", True, np.True_, 1j, Fraction(1, 2), 2**64, 10**400],
        *[[], [0.1, -0.1], [0.1, np.nan], [[0.1, 0.1]], ["0.1"], [True], [Decimal(1)], [10**400]],
    ],
)
def test_epsilon_refused(epsilon):
    with pytest.raises(ValueError, match=r"^Got epsilon=.*non-negative finite float or an array"):
        check_epsilon(epsilon)


def test_epsilon_and_bounds_are_copies_that_can_be_written_to():
    given = np.array([0.1, 0.2])
    given.flags.writeable = False
    for checked in (check_epsilon(given), *check_bounds((given, given + 1))):
        assert checked.flags.writeable
    assert check_epsilon(pd.Series([0.1, 0.2])).tolist() == [0.1, 0.2]


def test_epsilon_of_wrong_length_names_both_shapes():
    with pytest.raises(ValueError, match=r"shape \(3,\).*expected.*shape \(4,\)"):
        check_epsilon(np.ones(3), n_features=4)


@pytest.mark.parametrize("bounds", [(0, 1), [0.0, 1.0], (-np.inf, np.inf), (1, 1)])
def test_bounds_of_floats(bounds):
    assert check_bounds(bounds) == tuple(float(b) for b in bounds)
    assert all(type(b) is float for b in check_bounds(bounds))


def test_bounds_none_and_arrays():
    assert check_bounds(None) is None
    low, high = check_bounds(([0, 0], 1), n_features=2)
    assert low.dtype == np.float64
    assert high == 1.0


@pytest.mark.parametrize(
    "bounds",
    [0.5, (0,), (0, 1, 2), "ab", (0, np.nan), ([0, 0, 0], [1, 1]), ([[0]], [[1]]), (0, 10**400)],
)
def test_bounds_refused(bounds):
    with pytest.raises(ValueError, match=r"^Got bounds=.*expected None, or a pair \(low, high\)"):
        check_bounds(bounds)


@pytest.mark.parametrize("bounds", [(1, 0), ([0, 2], [1, 1]), (0.5, [1, 0])])
def test_reversed_bounds_refused(bounds):
    with pytest.raises(ValueError, match=r"^Got bounds=.*expected low <= high"):
        check_bounds(bounds)


def test_a_domain_where_a_box_is_asked_for_names_what_takes_one():
    domain = Domain(0.0, 9.0, integers=[0])
    with pytest.raises(UnsupportedPropertyError, match=r"pair \(low, high\).*ConstraintSecurity"):
        check_bounds(domain)
    X, y = np.eye(2), np.arange(2)
    scorer = AdversarialFrequency(0.5, bounds=domain)
    with pytest.raises(UnsupportedPropertyError, match="ConstraintSecurity"):
        scorer.evaluate(LogisticRegression().fit(X, y), X, y)


def test_bounds_of_wrong_length_refused():
    with pytest.raises(ValueError, match=r"^Got bounds=.*\(3,\).*expected.*\(2,\)"):
        check_bounds(([0, 0, 0], [1, 1, 1]), n_features=2)


def test_rows_outside_bounds_are_counted_and_measured():
    X = np.array([[0.5, 0.5], [1.25, 0.5], [-0.5, 2.0]])
    with pytest.raises(ValueError, match=r"Got bounds=\(0, 1\), but 2 of 3 rows.*up to 1\."):
        check_within_bounds(X, (0, 1))
    with pytest.raises(ValueError, match=r"1 of 3 rows.*up to 0\.5\."):
        check_within_bounds(X, (np.array([-1.0, 0.0]), np.array([2.0, 1.5])))
    check_within_bounds(X, (-0.5, 2.0))
    check_within_bounds(X, None)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("bounds", [(0.0, 255.0), (np.zeros(2), np.array([255.0, 100.0]))])
def test_data_outside_by_a_millionth_of_the_width_are_rounding(bounds, dtype):
    inside, first = np.array([[255.0, 50.0], [0.0, 0.0]]), np.array([1.0, 0.0])
    low, high = (np.broadcast_to(bound, (2,)) for bound in bounds)
    check_within_bounds((inside + 2.4e-4 * first).astype(dtype), bounds)
    check_within_bounds((inside - 0.9e-6 * (high - low)).clip(max=100).astype(dtype), bounds)
    for X in (inside + 2.8e-4 * first, inside - 2.8e-4 * first):
        with pytest.raises(ValueError, match=r"1 of 2 rows of X lie outside, by up to 0\.0002"):
            check_within_bounds(X.astype(dtype), bounds)


def test_rows_within_rounding_are_not_counted_as_outside():
    X = np.array([[1 + 1e-7], [1.5], [0.5]])
    with pytest.raises(ValueError, match=r"1 of 3 rows of X lie outside, by up to 0\.5\."):
        check_within_bounds(X, (0.0, 1.0))


def test_a_domain_without_width_or_with_one_end_takes_no_rounding():
    check_within_bounds(np.array([[0.5, 1e9]]), (np.array([0.5, 0.0]), np.array([0.5, np.inf])))
    for x in ([0.5 + 1e-9, 0.0], [0.5, -1e-9]):
        with pytest.raises(ValueError, match="1 of 1 rows"):
            check_within_bounds(np.array([x]), (np.array([0.5, 0.0]), np.array([0.5, np.inf])))


def test_integers_and_bools_as_data_are_compared_with_bounds():
    check_within_bounds(np.array([[0, 1]], dtype=np.uint8), (0.0, 1.0))
    with pytest.raises(ValueError, match=r"1 of 1 rows of X lie outside, by up to 1\."):
        check_within_bounds(np.array([[0, 2]], dtype=np.uint8), (0.0, 1.0))


def test_rows_that_are_not_finite_are_counted():
    X = np.array([[0.0, np.inf], [np.nan, 0.0], [0.0, 0.0]], dtype=np.float32)
    with pytest.raises(ValueError, match=r"NaN or infinity in 2 of 3 rows, once in float32"):
        check_finite_rows(X)
    check_finite_rows(X[2:])


@pytest.mark.parametrize("as_array", [False, True])
def test_rounding_of_the_data_to_float32_is_inside_the_bounds(as_array):
    X = np.random.default_rng(0).random((50, 3))
    bounds = (X.min(), X.max()) if not as_array else (X.min(axis=0), X.max(axis=0))
    check_within_bounds(X.astype(np.float32), bounds)
    with pytest.raises(ValueError, match="1 of 50 rows"):
        check_within_bounds(np.vstack([X[:-1], X.max(axis=0) + 1e-3]).astype("f4"), bounds)


@pytest.mark.parametrize(
    ("closed", "accepted", "refused"),
    [
        ("both", [0, 0.5, 1], [-0.1, 1.1]),
        ("left", [0, 0.5], [1]),
        ("right", [0.5, 1], [0]),
        ("neither", [0.5], [0, 1]),
    ],
)
def test_real_intervals(closed, accepted, refused):
    for value in accepted:
        assert check_real("share", value, low=0, high=1, closed=closed) == value
    for value in [*refused, np.nan, np.inf, "0.5", True, np.True_, None, 0.5j]:
        shown = re.escape(f"Got share={value!r}, but expected a finite number in ")
        with pytest.raises(ValueError, match=shown):
            check_real("share", value, low=0, high=1, closed=closed)


@pytest.mark.parametrize("value", [Fraction(1, 10), Decimal("0.1"), 2**64, -(2**63) - 1, 10**400])
def test_real_numbers_that_torch_does_not_know_are_refused(value):
    shown = re.escape(f"Got share={value!r}"[:100])
    with pytest.raises(
        ValueError, match=rf"^{shown}.*but expected a finite number in \(-inf, inf\)"
    ):
        check_real("share", value)


@pytest.mark.parametrize(
    "kind", [int, float, np.int8, np.uint64, np.float16, np.float32, np.float64, np.longdouble]
)
def test_real_numbers_of_a_grid_become_floats(kind):
    assert type(check_real("share", kind(1), low=0, high=1)) is float


def test_real_message_shows_open_ends():
    with pytest.raises(ValueError, match=re.escape("in [0, inf).")):
        check_real("delta", -1, low=0)
    with pytest.raises(ValueError, match=re.escape("in (0, 1].")):
        check_real("momentum", 0, low=0, high=1, closed="right")


@pytest.mark.parametrize("value", [0, 2.0, "3", None, True])
def test_integer_refused(value):
    shown = re.escape(f"Got n_steps={value!r}, but expected an integer of at least 1.")
    with pytest.raises(ValueError, match=shown):
        check_integer("n_steps", value, low=1)
    for kind in (np.int8, np.int64, np.uint64):
        assert type(check_integer("n_steps", kind(1), low=1)) is int


def test_integers_beyond_64_bits_are_refused():
    with pytest.raises(ValueError, match=r"Got n_steps=9223372036854775808.*below 2\*\*63"):
        check_integer("n_steps", 2**63)


@pytest.mark.parametrize("value", ["l1", None, 2])
def test_choice_refused(value):
    shown = re.escape(f"Got norm={value!r}, but expected one of 'linf', 'l2'.")
    with pytest.raises(ValueError, match=shown):
        check_choice("norm", value, ("linf", "l2"))
    assert check_choice("norm", "l2", ("linf", "l2")) == "l2"


def test_instance_refused():
    with pytest.raises(TypeError, match="Got count='three', but expected an int or a float"):
        check_instance("count", "three", (int, float), "3")
    assert check_instance("count", 3, int, "3") == 3
    with pytest.raises(TypeError, match=r"Got count='three', but expected an int, such as 3"):
        check_instance("count", "three", int, "3")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (np.zeros(784), "ndarray of shape (784,)"),
        (np.float32(0.5), "np.float32(0.5)"),
        (torch.zeros(2, 3), "Tensor of shape (2, 3)"),
        (pd.Series([1, 2]), "Series of shape (2,)"),
        ("one\ntwo", r"'one\ntwo'"),
        ([0.5, 1], "[0.5, 1]"),
    ],
)
def test_errors_show_no_entries_of_arrays(value, text):
    assert shown(value) == text
    assert expected("name", value, "more") == f"Got name={text}, but expected more."


def test_errors_show_the_beginning_of_long_values():
    text = shown([np.zeros((3, 3)), "x" * 1000])
    assert text.startswith("[array([[0., 0., 0.], [0.")
    assert text.endswith("...") and len(text) < 250
    for epsilon in ([-0.1] + [0.0] * 783, ["a"] * 784):
        with pytest.raises(ValueError, match="Got epsilon=") as raised:
            check_epsilon(epsilon)
        assert len(str(raised.value)) < 400


def test_device():
    assert check_device("cpu") == torch.device("cpu")
    with pytest.raises(ValueError, match=r"Got device='gpu', but expected a torch device"):
        check_device("gpu")
    with pytest.raises(ValueError, match="Got device=1267650600228229401496703205376, but expect"):
        check_device(2**100)


def test_cuda_where_there_is_none(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match=r"Got device='cuda', but expected 'cpu', since torch"):
        check_device("cuda")


@pytest.mark.parametrize("value", [True, False, np.True_])
def test_flags(value):
    assert check_flag("flag", value) is bool(value)


@pytest.mark.parametrize("value", [0, 1, None, "False", [True]])
def test_what_is_only_truthy_is_no_flag(value):
    with pytest.raises(ValueError, match=r"^Got flag=.*, but expected True or False.$"):
        check_flag("flag", value)


def test_seeds():
    state = np.random.RandomState(3)
    assert check_seed(state) is state
    assert check_seed(np.int8(3)).randint(1000) == check_seed(3).randint(1000)


@pytest.mark.parametrize("seed", [-1, 2**64, 0.5, "three", np.random.default_rng(0)])
def test_no_seeds(seed):
    with pytest.raises(ValueError, match=r"^Got random_state=.*, but expected None, an integer"):
        check_seed(seed)


@pytest.mark.parametrize(
    ("X", "shape"),
    [
        ([[1, 2], [3, 4]], (2,)),
        (np.zeros((5, 1, 3)), (1, 3)),
        (torch.zeros(5, 3, requires_grad=True), (3,)),
        (3.0, ()),
    ],
)
def test_shape_of_samples(X, shape):
    assert sample_shape(X) == shape


def test_ragged_samples_have_no_shape():
    with pytest.raises(ValueError, match=r"^Got a ragged X, but expected rows of the same"):
        sample_shape([[1], [2, 3]])


def test_lengths():
    check_length("y", [0, 1], 2)
    with pytest.raises(ValueError, match=r"^Got y of length 3, but expected 2, one for each row"):
        check_length("y", "abc", 2)
    with pytest.raises(ValueError, match=r"^Got y=3, but expected an array of 2 entries"):
        check_length("y", 3, 2)


def test_calls_of_users_functions():
    assert call_of_user("weight", lambda a, b: a + b, 1, 2) == 3
    message = r"^Got weight=<built-in function len>, which fails, but .* 2 arguments .* says: len"
    with pytest.raises(ValueError, match=message) as raised:
        call_of_user("weight", len, 1, 2)
    assert isinstance(raised.value.__cause__, TypeError)
