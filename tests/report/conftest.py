"""Reports that several files read."""

import pytest
from sklearn.ensemble import RandomForestClassifier
from sklearn.neighbors import KNeighborsClassifier

from skrobust import robustness_report


@pytest.fixture(scope="package")
def report(digits, digits_model, tmp_path_factory):
    """Of a network, with evidence and images."""
    _, X, _, y = digits
    return robustness_report(
        digits_model,
        X[:20],
        y[:20],
        epsilons=[0.1, 0.0, 0.03],
        evidence=tmp_path_factory.mktemp("report") / "evidence",
        image_shape=(8, 8),
        details={"intended_use": "Digits <script>alert(1)</script> & others"},
        random_state=0,
    )


@pytest.fixture(scope="package")
def forest_report(digits):
    """Of trees, for which there are no radii."""
    X, X_test, y, y_test = digits
    forest = RandomForestClassifier(5, max_depth=4, random_state=0).fit(X, y)
    return robustness_report(forest, X_test[:20], y_test[:20], epsilons=[0.1], random_state=0)


@pytest.fixture(scope="package")
def knn_report(digits):
    """Of a classifier that can only be asked."""
    X, X_test, y, y_test = digits
    knn = KNeighborsClassifier().fit(X, y)
    return robustness_report(knn, X_test[:10], y_test[:10], epsilons=[0.05], random_state=0)
