"""Data and models that several test files share."""

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, settings

from skrobust import RobustClassifier
from skrobust.datasets import load_digits

# The same examples in every run, so that a failure is that of a change, and not of a machine that
# had other work; TEST_FLAGS="--hypothesis-profile=default" looks at others.
settings.register_profile(
    "repeatable",
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("repeatable")

# The nets of the tests are small: a second thread costs more than it gives.
torch.set_num_threads(1)


# Weights that nobody seeds are the same whichever tests ran before, and in any process: those
# of modules made while a file is imported, and those made in a test.
def pytest_collectstart():
    torch.manual_seed(0)


def pytest_runtest_setup():
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def digits():
    """X_train, X_test, y_train, y_test: rows of 64 pixels in [0, 1]."""
    X, y = load_digits(return_X_y=True)
    return X[:1000], X[1000:1300], y[:1000], y[1000:1300]


@pytest.fixture(scope="session")
def digits_model(digits):
    """A small fitted RobustClassifier. Do not change it."""
    X, _, y, _ = digits
    return RobustClassifier(hidden_layer_sizes=32, max_epochs=15, random_state=0).fit(X, y)


@pytest.fixture(scope="session")
def blobs():
    """X, y: 80 rows of 4 features inside [0, 1], in two classes that overlap a little."""
    rng = np.random.default_rng(0)
    y = np.arange(80) % 2
    X = 0.5 + 0.12 * (2 * y[:, None] - 1) * [1.0, -0.5, 0.8, 0.0] + 0.08 * rng.normal(size=(80, 4))
    return np.clip(X, 0.05, 0.95), y
