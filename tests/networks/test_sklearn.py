"""scikit-learn's linear classifiers, perceptrons and searches as networks."""

import numpy as np
import pytest
import torch
from sklearn.datasets import make_blobs
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import (
    LogisticRegression,
    LogisticRegressionCV,
    Perceptron,
    RidgeClassifier,
    RidgeClassifierCV,
    SGDClassifier,
)
from sklearn.model_selection import GridSearchCV, RandomizedSearchCV
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC
from sklearn.tree import DecisionTreeClassifier

from skrobust.exceptions import UnsupportedModelError
from skrobust.networks import as_network
from tests._asserts import assert_same_classifier

NAMES = np.array(["lion", "ant", "zebu", "bee"])


def data(n_classes):
    X, y = make_blobs(120, 5, centers=n_classes, cluster_std=4.0, random_state=0)
    return X / 10, NAMES[y]


def mlp(activation):
    return MLPClassifier((6,), activation=activation, solver="lbfgs", max_iter=15, alpha=1.0)


LINEAR = [
    # model, whether predict_proba is the softmax of the scores (for 2 and for more classes)
    (LogisticRegression(), True, True),
    (LogisticRegressionCV(Cs=2, use_legacy_attributes=False, l1_ratios=(0,)), True, True),
    (LinearSVC(), False, False),
    (SGDClassifier(random_state=0), False, False),
    (SGDClassifier(loss="log_loss", random_state=0), True, False),
    (RidgeClassifier(), False, False),
    (RidgeClassifierCV(), False, False),
    (LinearDiscriminantAnalysis(), True, True),
    (LinearDiscriminantAnalysis(solver="lsqr", shrinkage=0.1), True, True),
    (Perceptron(), False, False),
]


@pytest.mark.parametrize("n_classes", [2, 4])
@pytest.mark.parametrize(("model", "binary", "several"), LINEAR, ids=lambda m: str(m))
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_linear_classifiers(model, binary, several, n_classes):
    X, y = data(n_classes)
    model.fit(X, y)
    assert_same_classifier(as_network(model), model, X, binary if n_classes == 2 else several)


def test_without_intercept():
    X, y = data(2)
    model = LogisticRegression(fit_intercept=False).fit(X, y)
    assert_same_classifier(as_network(model), model, X)


@pytest.mark.parametrize("n_classes", [2, 4])
@pytest.mark.parametrize("activation", ["relu", "tanh", "logistic", "identity"])
@pytest.mark.filterwarnings("ignore:lbfgs failed to converge")
def test_perceptrons(activation, n_classes):
    X, y = data(n_classes)
    model = mlp(activation).fit(X, y)
    assert_same_classifier(as_network(model), model, X)


@pytest.mark.filterwarnings("ignore:lbfgs failed to converge")
def test_perceptron_of_several_layers():
    X, y = data(4)
    model = MLPClassifier((6, 5, 4), solver="lbfgs", max_iter=10).fit(X, y)
    assert_same_classifier(as_network(model), model, X)


@pytest.mark.filterwarnings("ignore:lbfgs failed to converge")
def test_perceptron_of_several_labels_a_sample_is_refused():
    X, _ = data(2)
    model = mlp("relu").fit(X, (X[:, :3] > 0).astype(int))
    with pytest.raises(UnsupportedModelError, match="several labels a sample"):
        as_network(model)


def test_searches_are_their_best_estimator():
    X, y = data(4)
    for search in (
        GridSearchCV(LogisticRegression(), {"C": [0.01, 1.0]}, cv=2),
        RandomizedSearchCV(
            make_pipeline(StandardScaler(), LogisticRegression()),
            {"logisticregression__C": [0.01, 1.0]},
            n_iter=2,
            cv=2,
        ),
    ):
        search.fit(X, y)
        assert_same_classifier(as_network(search), search, X)


def test_a_search_over_something_else_is_refused():
    X, y = data(2)
    search = GridSearchCV(DecisionTreeClassifier(), {"max_depth": [1, 2]}, cv=2).fit(X, y)
    with pytest.raises(UnsupportedModelError, match="Got a DecisionTreeClassifier"):
        as_network(search)


@pytest.mark.parametrize(
    "model",
    [LogisticRegression(), MLPClassifier(), GridSearchCV(LogisticRegression(), {})],
    ids=lambda m: type(m).__name__,
)
def test_not_fitted(model):
    with pytest.raises(NotFittedError):
        as_network(model)


@pytest.mark.parametrize("n_classes", [2, 3])
def test_sparse_coefficients(n_classes):
    X, y = data(n_classes)
    dense = LogisticRegression().fit(X, y)
    sparse = LogisticRegression().fit(X, y).sparsify()
    network = as_network(sparse)
    rows = network.rows(X)
    torch.testing.assert_close(network(rows), as_network(dense)(rows))
    torch.testing.assert_close(network.replay(rows), network(rows))
