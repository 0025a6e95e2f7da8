"""Properties given by their own linear rows."""

import numpy as np
import torch

from skrobust._validation import (
    call_of_user,
    check_choice,
    check_flag,
    check_integer,
    expected,
    shown,
)
from skrobust.properties._base import RobustnessProperty
from skrobust.properties._conclusion import LinearRows, outputs_of

__all__ = ["LinearRobustness"]


class LinearRobustness(RobustnessProperty):
    r"""A property of your own, given by its rows :math:`A z + c d + b \ge 0`.

    Parameters
    ----------
    rows : tuple (A, b) or (A, c, b) of array-likes, or callable
        Arrays of shapes (m, n_classes), (m,) and (m,), the same for every point; or a
        callable ``rows(reference_outputs, labels)`` that returns tensors (A, b) or (A, c, b) of
        shapes (n, m, n_classes), (n, m), (n, m). The reference outputs are those (`output`) of
        n points, labels their class indices.
    epsilon : float or array-like of shape (n_features,), or tuple of two such, default=0.1
        Radius in units of the input; 0 marks a feature that cannot change. A tuple (down, up) says
        how far features may fall, and how far they may rise.
    norm : {"linf", "l2"}, default="linf"
        Norm of the ball.
    bounds : pair of floats or of array-likes, Domain or None, default=(0.0, 1.0)
        Lowest and highest valid value of the features; a `Domain` where fewer points are valid.
    reference : {"label", "prediction"}, default="prediction"
        Which labels a callable is given.
    output : {"logits", "probabilities"}, default="logits"
        Which outputs z are.
    strict : bool or array-like of bool of shape (m,), default=False
        Whether the rows, or which of them, must be above 0.
    clauses : list of lists of int, default=None
        Places of rows, of each of which at least one must hold. None asks all rows to hold, as
        ``[[0], [1], ...]`` does; a row that is in no clause says nothing.

    Examples
    --------
    The last class is never ahead of the first one by more than 2:

    >>> from skrobust.properties import LinearRobustness
    >>> property = LinearRobustness(([[1.0, 0.0, -1.0]], [2.0]), epsilon=0.1)
    >>> property.margin([[0.0, 5.0, 1.0], [0.0, 5.0, 3.0]])
    array([ 1., -1.])

    The first output is the largest, or the third one is below -1:

    >>> rows = [[1.0, -1.0, 0.0], [1.0, 0.0, -1.0], [0.0, 0.0, -1.0]], [0.0, 0.0, -1.0]
    >>> either = LinearRobustness(rows, epsilon=0.1, clauses=[[0, 2], [1, 2]])
    >>> either.margin([[0.0, 5.0, -3.0], [0.0, 5.0, 3.0]])
    array([ 2., -4.])
    """

    def __init__(
        self,
        rows,
        epsilon=0.1,
        *,
        norm="linf",
        bounds=(0.0, 1.0),
        reference="prediction",
        output="logits",
        strict=False,
        clauses=None,
    ):
        super().__init__(epsilon, norm=norm, bounds=bounds, reference=reference)
        self.rows = rows
        self.output = output
        self.strict = strict
        self.clauses = clauses

    @property
    def needs_labels(self):
        return callable(self.rows) and super().needs_labels

    def check(self, X=None, n_classes=None):
        check_choice("output", self.output, ("logits", "probabilities"))
        n_rows = None if callable(self.rows) else len(_constant_rows(self.rows)[0])
        _checked_strict(self.strict, n_rows)
        if self.clauses is not None:
            _checked_clauses(self.clauses, n_rows)
        return super().check(X, n_classes)

    @property
    def needed_outputs(self):
        return frozenset({self.output})

    def conclusion(self, reference_logits, labels):
        n, n_classes = reference_logits.shape
        if callable(self.rows):
            outputs = outputs_of(reference_logits, self.output)
            rows = _returned_rows(
                call_of_user("rows", self.rows, outputs, labels), reference_logits
            )
        else:
            rows = [
                torch.as_tensor(row).to(reference_logits).expand(n, *row.shape)
                for row in _constant_rows(self.rows)
            ]
        A, c, b = rows
        m = A.shape[1] if A.ndim == 3 else None
        if m == 0 or A.shape != (n, m, n_classes) or c.shape != (n, m) or b.shape != (n, m):
            shapes = ", ".join(str(tuple(row.shape)) for row in (A, c, b))
            raise ValueError(
                f"Got rows A, c, b of shapes {shapes}, but expected ({n}, m, {n_classes}), "
                f"({n}, m), ({n}, m) for {n} points and {n_classes} classes, with m at least 1."
            )
        uses_distance = bool((c != 0).any())
        clauses = self.clauses
        if clauses is not None:
            clauses = torch.as_tensor(_checked_clauses(clauses, m), device=A.device)
        options = {"uses_distance": uses_distance, "clauses": clauses}
        strict = _checked_strict(self.strict, m)
        if not isinstance(strict, bool):
            strict = torch.as_tensor(strict, device=A.device)
        return LinearRows(A, c, b, strict, self.output, **options)


def _checked_strict(strict, n_rows=None):
    """Return `strict` as a bool, or as one for each of `n_rows` rows, or raise."""
    array = np.asarray(strict)
    if array.ndim == 0:
        return check_flag("strict", strict)
    if array.dtype != bool or array.ndim != 1 or len(array) != (n_rows or len(array)):
        length = "each row" if n_rows is None else f"each of {n_rows} rows"
        raise ValueError(expected("strict", strict, f"True or False, or one for {length}"))
    return array


def _checked_clauses(clauses, n_rows=None):
    """Return clauses, of `n_rows` rows where that is known, as one int array, or raise."""
    limit = "of rows" if n_rows is None else f"from 0 to {n_rows - 1}"
    expectation = f"None, or lists of places {limit}, none of them empty"
    try:
        lists = [[int(check_integer("clauses", k)) for k in clause] for clause in clauses]
    except (TypeError, ValueError):
        raise ValueError(expected("clauses", clauses, expectation)) from None
    highest = max((max(clause, default=0) for clause in lists), default=0)
    if not lists or not all(lists) or (n_rows is not None and highest >= n_rows):
        raise ValueError(expected("clauses", clauses, expectation))
    width = max(map(len, lists))
    return np.array([[*clause, *clause[:1] * (width - len(clause))] for clause in lists])


def _returned_rows(rows, reference_logits):
    """Return what a callable gave as tensors A, c, b, or raise."""
    expectation = "a callable that returns finite tensors (A, b) or (A, c, b)"
    try:
        tensors = [torch.as_tensor(row).to(reference_logits) for row in rows]
    except (TypeError, ValueError, RuntimeError):
        tensors = []
    if len(tensors) not in (2, 3):
        is_list = isinstance(rows, list | tuple)
        kind = f"a {type(rows).__name__} of {len(rows)}" if is_list else shown(rows)
        raise ValueError(f"Got rows that return {kind}, but expected {expectation}.")
    if len(tensors) == 2:
        tensors.insert(1, torch.zeros_like(tensors[1]))
    # Where the network itself has diverged, the loss will say so.
    if torch.isfinite(reference_logits).all() and not all(map(_is_finite, tensors)):
        raise ValueError(f"Got rows that return NaN or infinity, but expected {expectation}.")
    return tensors


def _is_finite(tensor):
    return bool(torch.isfinite(tensor).all())


def _constant_rows(rows):
    """Return the parameter `rows` as float64 arrays A, c, b, or raise."""
    expectation = (
        "a callable, or arrays (A, b) or (A, c, b) of shapes (m, n_classes), (m,), (m,), with m "
        "at least 1"
    )
    try:
        arrays = [np.array(row, dtype=np.float64) for row in rows]
    except (TypeError, ValueError, OverflowError):
        raise ValueError(expected("rows", rows, expectation)) from None
    if len(arrays) == 2:
        arrays.insert(1, np.zeros_like(arrays[1]))
    fits = len(arrays) == 3 and arrays[0].ndim == 2 and arrays[0].size > 0
    fits = fits and arrays[1].shape == arrays[2].shape == arrays[0].shape[:1]
    if not fits or not all(np.isfinite(array).all() for array in arrays):
        raise ValueError(expected("rows", rows, expectation + ", all finite"))
    return arrays
