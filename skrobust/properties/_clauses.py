"""Clauses: conjunctions of disjunctions, as places of rows."""

import torch

from skrobust.exceptions import UnsupportedPropertyError

__all__ = ["both_clauses", "check_clause_count", "either_clauses"]

_MOST_CLAUSES = 10_000


def check_clause_count(n_left, n_right):
    """Return how many clauses two parts make that are joined by "or", or refuse.

    Raises
    ------
    UnsupportedPropertyError
        If they are too many.
    """
    if n_left * n_right > _MOST_CLAUSES:
        raise UnsupportedPropertyError(
            f"Got a disjunction of {n_left} rows and {n_right} rows, which makes "
            f"{n_left * n_right} clauses, but attacks and verifiers take {_MOST_CLAUSES} at most. "
            "Use a property of fewer rows in one of the parts."
        )
    return n_left * n_right


def both_clauses(*parts):
    """Return the clauses of all parts, int tensors of shapes (k, w), as one."""
    width = max(part.shape[1] for part in parts)
    return torch.cat([_widened(part, width) for part in parts])


def either_clauses(left, right):
    """Return each clause of `left` joined with each one of `right`."""
    check_clause_count(len(left), len(right))
    return torch.cat(
        [left.repeat_interleave(len(right), dim=0), right.repeat(len(left), 1)], dim=1
    )


def _widened(clauses, width):
    """Return clauses that repeat their first place, so that they are that wide."""
    missing = width - clauses.shape[1]
    return torch.cat([clauses, clauses[:, :1].expand(-1, missing)], dim=1)
