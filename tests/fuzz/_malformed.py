"""Malformed and odd arguments, and the line between a documented ending and another one."""

import re
import traceback
import warnings
from datetime import UTC, datetime
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pandas as pd
import torch
from hypothesis import strategies as st
from scipy import sparse
from sklearn.exceptions import NotFittedError

from skrobust import exceptions

__all__ = ["Call", "ending", "malformed_arrays", "malformed_labels", "malformed_values"]

# Factories, since a call must not change what the next one is given.
_VALUES = {
    "None": lambda: None,
    "True": lambda: True,
    "False": lambda: False,
    "-1": lambda: -1,
    "0": lambda: 0,
    "1": lambda: 1,
    "2": lambda: 2,
    "0.5": lambda: 0.5,
    "-0.5": lambda: -0.5,
    "1.5": lambda: 1.5,
    "nan": lambda: float("nan"),
    "inf": lambda: float("inf"),
    "-inf": lambda: float("-inf"),
    "1e300": lambda: 1e300,
    "1e39": lambda: 1e39,
    "5e-324": lambda: 5e-324,
    "1e-45": lambda: 1e-45,
    "2**64": lambda: 2**64,
    "-2**70": lambda: -(2**70),
    "empty text": lambda: "",
    "text": lambda: "abc",
    "linf": lambda: "linf",
    "l2": lambda: "l2",
    "digits": lambda: "3",
    "bytes": lambda: b"x",
    "()": lambda: (),
    "[]": list,
    "{}": dict,
    "set()": lambda: set(),
    "(0, 1)": lambda: (0, 1),
    "(1.0, 0.0)": lambda: (1.0, 0.0),
    "(0, 1, 2)": lambda: (0.0, 1.0, 2.0),
    "(None, 1)": lambda: (None, 1.0),
    "(nan, 1)": lambda: (float("nan"), 1.0),
    "(-inf, inf)": lambda: (float("-inf"), float("inf")),
    "('a', 'b')": lambda: ("a", "b"),
    "[0.1]": lambda: [0.1],
    "[0.1, 0.2]": lambda: [0.1, 0.2],
    "[0.1, -0.2]": lambda: [0.1, -0.2],
    "[[0.1]]": lambda: [[0.1]],
    "ragged": lambda: [[0.1], [0.1, 0.2]],
    "int8": lambda: np.int8(3),
    "int64": lambda: np.int64(2),
    "uint8": lambda: np.uint8(2),
    "float16": lambda: np.float16(0.1),
    "float32": lambda: np.float32(0.1),
    "longdouble": lambda: np.longdouble("0.1"),
    "array of no axes": lambda: np.array(0.1),
    "array": lambda: np.array([0.1, 0.2]),
    "array of nan": lambda: np.array([0.1, np.nan]),
    "array of two axes": lambda: np.array([[0.1, 0.2]]),
    "array of objects": lambda: np.array([None, "a"], dtype=object),
    "empty array": lambda: np.array([]),
    "tensor": lambda: torch.tensor(0.1),
    "tensor of two": lambda: torch.tensor([0.1, 0.2]),
    "Series": lambda: pd.Series([0.1, 0.2]),
    "Fraction": lambda: Fraction(1, 10),
    "Decimal": lambda: Decimal("0.1"),
    "complex": lambda: 1j,
    "object": lambda: object(),
    "a class": lambda: int,
    "a builtin": lambda: len,
    "a lambda": lambda: lambda *args, **kwargs: None,
    "datetime": lambda: datetime(2026, 1, 1, tzinfo=UTC),
    "iterator": lambda: iter([0.1, 0.2]),
    "range": lambda: range(3),
    "Generator": lambda: np.random.default_rng(0),
}
# A number of steps or samples that no machine has room for is no matter of checks.
_HUGE = {"2**64", "1e300", "1e39", "inf"}
_COUNTS = ("n_", "max_", "chunk", "batch", "size", "classes", "subset", "width", "epochs", "units")


def malformed_values(name):
    """Return a strategy of names of values for the parameter `name`."""
    is_count = any(part in name for part in _COUNTS)
    return st.sampled_from([key for key in _VALUES if not (is_count and key in _HUGE)])


def _with_entry(value):
    def changed(X):
        X = X.copy()
        X[0, 0] = value
        return X

    return changed


# Name -> (change of a well-formed array, whether it holds the same numbers as before).
_ARRAYS = {
    "reversed": (lambda X: X[::-1][::-1], True),
    "negative strides": (lambda X: X[::-1].copy()[::-1], True),
    "big-endian": (lambda X: X.astype(">f8"), True),
    "longdouble": (lambda X: X.astype(np.longdouble), True),
    "Fortran order": (lambda X: np.asfortranarray(X), True),
    "read-only": (lambda X: _frozen(X), True),
    "lists": (lambda X: X.tolist(), True),
    "objects": (lambda X: X.astype(object), True),
    "frame": (lambda X: pd.DataFrame(X), True),
    "tensor": (lambda X: torch.tensor(X), True),
    "tensor with gradient": (lambda X: torch.tensor(X, requires_grad=True), True),
    "masked": (lambda X: np.ma.masked_array(X), True),
    "float16": (lambda X: X.astype(np.float16), False),
    "int8": (lambda X: np.rint(X).astype(np.int8), False),
    "bool": (lambda X: X > 0.5, False),
    "complex": (lambda X: X.astype(complex), False),
    "text": (lambda X: X.astype(str), False),
    "words": (lambda X: np.full(X.shape, "a"), False),
    "dates": (lambda X: np.full(X.shape, np.datetime64("2026-01-01")), False),
    "nan": (_with_entry(np.nan), False),
    "inf": (_with_entry(np.inf), False),
    "1e300": (_with_entry(1e300), False),
    "1e39": (_with_entry(1e39), False),
    "outside": (_with_entry(1.5), False),
    "outside by rounding": (_with_entry(1.0 + 1e-9), False),
    "objects that are none": (lambda X: np.full(X.shape, None, dtype=object), False),
    "no rows": (lambda X: X[:0], False),
    "no columns": (lambda X: X[:, :0], False),
    "one row": (lambda X: X[:1], False),
    "too narrow": (lambda X: X[:, :-1], False),
    "too wide": (lambda X: np.hstack([X, X]), False),
    "one axis": (lambda X: X[0], False),
    "three axes": (lambda X: X[:, :, None], False),
    "four axes": (lambda X: X[:, None, :, None], False),
    "sparse": (lambda X: sparse.csr_matrix(X), False),
    "sparse array": (lambda X: sparse.csr_array(X), False),
    "ragged": (lambda X: [[0.1], [0.1, 0.2]], False),
    "None": (lambda X: None, False),
    "a number": (lambda X: 3.0, False),
    "a text": (lambda X: "abc", False),
    "a dict": (lambda X: {"a": 1}, False),
    "a set": (lambda X: {1.0}, False),
    "iterator": (lambda X: iter(X), False),
    "object": (lambda X: object(), False),
}


def _frozen(X):
    X = X.copy()
    X.flags.writeable = False
    return X


_LABELS = {
    "lists": (lambda y: y.tolist(), True),
    "objects": (lambda y: y.astype(object), True),
    "series": (lambda y: pd.Series(y), True),
    "int8": (lambda y: y.astype(np.int8), True),
    "floats": (lambda y: y.astype(float), True),
    "negative strides": (lambda y: y[::-1].copy()[::-1], True),
    "big-endian": (lambda y: y.astype(">i4"), True),
    "tensor": (lambda y: torch.tensor(y), True),
    "column": (lambda y: y[:, None], False),
    "too short": (lambda y: y[:-1], False),
    "too long": (lambda y: np.append(y, y), False),
    "empty": (lambda y: y[:0], False),
    "None": (lambda y: None, False),
    "list of None": (lambda y: [None] * len(y), False),
    "list of mixed": (lambda y: [0, "a", None, 1.5][: len(y)] * 2, False),
    "nan": (lambda y: np.where(y == 0, np.nan, y), False),
    "text": (lambda y: y.astype(str), False),
    "unseen": (lambda y: y + 7, False),
    "halves": (lambda y: y + 0.5, False),
    "bool": (lambda y: y > 0, False),
    "one class": (lambda y: np.zeros_like(y), False),
    "complex": (lambda y: y.astype(complex), False),
    "dates": (lambda y: np.full(len(y), np.datetime64("2026-01-01")), False),
    "one-hot": (lambda y: np.eye(3, dtype=int)[y], False),
    "a number": (lambda y: 3, False),
    "a text": (lambda y: "abc", False),
    "a dict": (lambda y: {"a": 1}, False),
    "object": (lambda y: object(), False),
}


def malformed_arrays():
    """Return a strategy of names of changes of a well-formed X."""
    return st.sampled_from(list(_ARRAYS))


def malformed_labels():
    """Return a strategy of names of changes of well-formed labels."""
    return st.sampled_from(list(_LABELS))


class Call:
    """A call of a public entry with some arguments replaced.

    Parameters
    ----------
    function : callable
        Takes all arguments by name.
    arguments : dict of str to object
        Well-formed ones.
    replaced : dict of str to (str, str)
        For each replaced argument a kind ("value", "array" or "labels") and the name of what it
        becomes.
    """

    def __init__(self, function, arguments, replaced):
        self.function, self.replaced = function, replaced
        self.arguments = dict(arguments)
        self.same_numbers = True
        for name, (kind, key) in replaced.items():
            if kind == "value":
                self.arguments[name], same = _VALUES[key](), False
            else:
                change, same = (_ARRAYS if kind == "array" else _LABELS)[key]
                self.arguments[name] = change(arguments[name])
            self.same_numbers &= same

    def __call__(self):
        return self.function(**self.arguments)

    def __repr__(self):
        return ", ".join(f"{name}: {key}" for name, (_, key) in self.replaced.items())


_OURS = tuple(getattr(exceptions, name) for name in exceptions.__all__)
# Errors that others raise on our behalf, in words that a user can act on.
_CHECKED_ELSEWHERE = ("/sklearn/", "/joblib/")


def ending(call, right=lambda result, call: True):
    """Return None where a call ends as documented or rightly, else what happened instead.

    A documented ending is an error raised on purpose, by skrobust or by scikit-learn's
    validation, that names the argument. A right one is a result that `right` accepts.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            result = call()
    except Exception as error:  # what ends otherwise is what is looked for
        return _judged(error, call)
    if not right(result, call):
        return f"{call!r}: returned {result!r}"
    return None


def _judged(error, call):
    where = traceback.extract_tb(error.__traceback__)[-1]
    file = where.filename.replace("\\", "/")
    if isinstance(error, (*_OURS, NotFittedError)):
        return None
    if any(part in file for part in _CHECKED_ELSEWHERE) and isinstance(
        error, ValueError | TypeError
    ):
        return None
    on_purpose = "/skrobust/" in file and isinstance(
        error, ValueError | TypeError | ImportError | OSError
    )
    text = str(error)
    # A sample `x` is the one row of `X` in errors of rows.
    names_it = any(re.search(rf"\b{name}\b", text, re.I) for name in call.replaced)
    names_it |= "Got a" in text
    if on_purpose and names_it and ("Got " in text or "expected" in text):
        return None
    shown = "".join(traceback.format_exception_only(error)).strip()
    return f"{call!r}: {shown[:300]} [{file.rsplit('/', 2)[-2:]}:{where.lineno}]"
