"""Clauses as places of rows."""

import pytest
import torch

from skrobust.exceptions import UnsupportedPropertyError
from skrobust.properties._clauses import both_clauses, check_clause_count, either_clauses


def test_both_keeps_all_clauses():
    narrow, wide = torch.tensor([[0], [1]]), torch.tensor([[2, 3, 4]])
    assert both_clauses(narrow, wide).tolist() == [[0, 0, 0], [1, 1, 1], [2, 3, 4]]


def test_either_joins_each_with_each():
    left, right = torch.tensor([[0], [1]]), torch.tensor([[2, 3], [4, 4]])
    assert either_clauses(left, right).tolist() == [[0, 2, 3], [0, 4, 4], [1, 2, 3], [1, 4, 4]]
    assert either_clauses(left[:0], right).shape == (0, 3)


def test_there_are_not_too_many():
    assert check_clause_count(100, 100) == 10_000
    with pytest.raises(UnsupportedPropertyError, match="10100 clauses"):
        check_clause_count(100, 101)
