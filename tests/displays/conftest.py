"""Data and a model that the pictures show."""

import matplotlib.pyplot as plt
import pytest
from sklearn.linear_model import LogisticRegression

from skrobust.datasets import load_digits


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


@pytest.fixture(scope="package")
def digits():
    X, y = load_digits(return_X_y=True)
    return X[:300], y[:300]


@pytest.fixture(scope="package")
def model(digits):
    return LogisticRegression().fit(*digits)
