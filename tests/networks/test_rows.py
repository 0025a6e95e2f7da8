"""Arrays as rows: which are taken, and which are refused by name."""

import numpy as np
import pytest
import torch
from scipy.sparse import csr_array

from skrobust.networks import Network, check_rows

X = np.random.default_rng(0).random((5, 4))


def network():
    return Network(torch.nn.Linear(4, 3), [0, 1, 2], 4)


def test_rows_do_not_warn_of_read_only_arrays():
    X = np.ones((2, 4), dtype=np.float32)
    X.flags.writeable = False
    assert network().rows(X).shape == (2, 4)


@pytest.mark.parametrize(
    ("X", "error", "message"),
    [
        ([[1.0, 2.0]], ValueError, "Got X with 2 features, but expected 4, as at fit"),
        ([[1.0, np.nan, 0.0, 0.0]], ValueError, "NaN or infinity in 1 rows"),
        ([[np.inf] * 4, [-np.inf] * 4], ValueError, "NaN or infinity in 2 rows"),
        ([1.0, 2.0, 3.0, 4.0], ValueError, r"Got X of shape \(4,\), but expected"),
        (np.ones((0, 4)), ValueError, "with at least one sample"),
        ([["a", "b", "c", "d"]], TypeError, "Got X of dtype .*, but expected numbers"),
        (csr_array(np.ones((2, 4))), TypeError, r"Got a sparse X.*Use X\.toarray\(\)"),
        (np.ones((2, 0)), ValueError, r"Got X of shape \(2, 0\), but expected"),
        ([[10**400, 0, 0, 0]], TypeError, "Got X of dtype object, but expected numbers"),
        ([[1.0, 2.0], [1.0]], ValueError, "Got a ragged X, but expected rows of the same"),
        (np.ones((2, 4), dtype=complex), TypeError, "dtype complex128, but expected real"),
        (torch.ones(2, 4, dtype=torch.complex64), TypeError, "complex64, but expected real"),
        (
            np.full((2, 4), -1e300),
            ValueError,
            r"Got X with values up to 1e\+300, but expected values that are finite in float32",
        ),
        (np.full((2, 4), np.longdouble("1e4000")), ValueError, "NaN or infinity in 2 rows"),
    ],
)
def test_rows_refused(X, error, message):
    with pytest.raises(error, match=message):
        network().rows(X)


@pytest.mark.parametrize(
    "given",
    [
        X[::-1][::-1],
        np.asfortranarray(X),
        np.ascontiguousarray(X[:, ::-1])[:, ::-1],
        X.astype(">f8"),
        X.astype(">f4"),
        X.astype(np.longdouble),
        X.astype(object),
        torch.tensor(X, requires_grad=True),
        torch.tensor(X),
        X.tolist(),
    ],
    ids=[
        "reversed",
        "fortran",
        "negative",
        "big",
        "big4",
        "long",
        "object",
        "grad",
        "torch",
        "list",
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_arrays_of_any_kind_are_rows(given, dtype):
    rows = Network(torch.nn.Linear(4, 2).to(dtype), [0, 1]).rows(given)
    assert rows.dtype == dtype and not rows.requires_grad
    np.testing.assert_allclose(rows, X, rtol=1e-6)


@pytest.mark.parametrize(
    "given",
    [
        np.eye(4, dtype=np.float16),
        torch.eye(4, dtype=torch.bfloat16),
        np.eye(4, dtype=">i4"),
        np.eye(4, dtype=np.uint64),
        np.eye(4, dtype=bool),
    ],
    ids=["float16", "bfloat16", "big", "unsigned", "bool"],
)
def test_numbers_of_any_kind_are_rows(given):
    assert network().rows(given).tolist() == np.eye(4).tolist()


def test_reversed_rows_are_in_their_order():
    np.testing.assert_allclose(network().rows(X[::-1]), X[::-1], rtol=1e-6)


def test_what_is_large_in_float32_fits_in_float64():
    assert (
        Network(torch.nn.Linear(4, 2).double(), [0, 1]).rows(np.full((1, 4), 1e300)).max() > 1e299
    )


def test_rows_keep_their_precision():
    # An estimator computes in the precision that it is given: only what torch lacks is changed.
    kinds = {
        ">f4": "=f4",
        "=f8": "=f8",
        "g": "=f8",
        "e": "=f4",
        ">i2": "=i2",
        "?": "=f8",
        "O": "=f8",
    }
    for given, kept in kinds.items():
        assert check_rows(np.ones((2, 3)).astype(given)).dtype == np.dtype(kept)
    assert check_rows(X) is not None and np.shares_memory(check_rows(X), X)
