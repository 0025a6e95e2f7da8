"""Data that searches are tried on."""

import pytest

from skrobust.datasets import load_digits


@pytest.fixture(scope="package")
def few_digits():
    """X, y: 300 rows of 64 pixels in [0, 1]."""
    X, y = load_digits(return_X_y=True)
    return X[:300], y[:300]
