"""Which estimators are read as trees, and what is said of the others."""

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.ensemble import (
    AdaBoostClassifier,
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
)
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier

from skrobust.exceptions import UnsupportedModelError, UnsupportedPropertyError
from skrobust.networks import BlackBox
from skrobust.properties import ClassificationRobustness, StandardRobustness
from skrobust.trees import check_tree_property, is_single_tree, read_trees
from skrobust.trees._readers import is_tree_model
from tests.trees._models import ENSEMBLES, SINGLE, data, fitted


@pytest.mark.parametrize("n_classes", [2, 3])
@pytest.mark.parametrize("name", SINGLE | ENSEMBLES)
def test_scores_predict_what_the_estimator_does(name, n_classes):
    # Also the guard of the private names of scikit-learn that the readers need.
    if name == "exponential" and n_classes == 3:
        pytest.skip("scikit-learn's exponential loss is for two classes")
    model = fitted((SINGLE | ENSEMBLES)[name], n_classes)
    X = np.random.default_rng(0).random((200, 2))
    trees = read_trees(model)
    scores = trees.scores(X)
    ties = {"first": 0, "last": -1}[trees.ties]
    best = [np.flatnonzero(row == row.max())[ties] for row in scores]
    clear = np.ptp(np.sort(scores, axis=1)[:, -2:], axis=1) > 1e-9
    np.testing.assert_array_equal(model.classes_[best][clear], model.predict(X)[clear])


def test_what_stands_for_an_estimator():
    X, y = data()
    tree = clone(SINGLE["tree"]).fit(X, y)
    search = GridSearchCV(SINGLE["tree"], {"max_depth": [4]}, cv=2).fit(X, y)
    expected = read_trees(tree)
    for model in (BlackBox(tree), search, BlackBox(search)):
        assert is_tree_model(model) and is_single_tree(model)
        found = read_trees(model)
        np.testing.assert_array_equal(found.last, expected.last)
        np.testing.assert_array_equal(found.values, expected.values)
    assert is_tree_model(fitted(ENSEMBLES["forest"]))
    assert not is_single_tree(fitted(ENSEMBLES["forest"]))
    assert not is_tree_model(LogisticRegression()) and not is_single_tree(LogisticRegression())


def test_other_properties_of_trees_are_refused():
    tree = SINGLE["tree"]
    check_tree_property(tree, ClassificationRobustness())
    check_tree_property(LogisticRegression(), StandardRobustness())
    with pytest.raises(UnsupportedPropertyError, match="Got a StandardRobustness, but the outp"):
        check_tree_property(tree, StandardRobustness())


class Contrarian(DecisionTreeClassifier):
    def predict(self, X):
        return -super().predict(X)


def test_refused_models():
    X, y = data()
    for model in (LogisticRegression(), AdaBoostClassifier(), Contrarian()):
        with pytest.raises(UnsupportedModelError, match=f"Got an? {type(model).__name__}, but"):
            read_trees(model.fit(X, y))
    with pytest.raises(NotFittedError):
        read_trees(RandomForestClassifier())
    for model in (DecisionTreeClassifier(), RandomForestClassifier(3)):
        with pytest.raises(UnsupportedModelError, match="one class, but expected two or more"):
            read_trees(model.fit(X, np.zeros(len(X))))
        model.fit(X, np.stack([y, y], axis=1))
        with pytest.raises(UnsupportedModelError, match="with 2 outputs"):
            read_trees(model)
    with pytest.raises(UnsupportedModelError, match="starts from another estimator"):
        model = GradientBoostingClassifier(init=LogisticRegression(), n_estimators=2).fit(X, y)
        read_trees(model)
    with pytest.raises(UnsupportedModelError, match="categorical features"):
        codes = np.floor(X * 4)
        model = HistGradientBoostingClassifier(categorical_features=[0], max_iter=2).fit(codes, y)
        read_trees(model)


def test_a_tree_behind_a_scaler_is_one():
    X, y = data()
    model = make_pipeline(StandardScaler(), clone(SINGLE["tree"])).fit(X, y)
    for wrapped in (model, BlackBox(model), FrozenEstimator(model), make_pipeline(model)):
        assert is_tree_model(wrapped) and is_single_tree(wrapped)
        assert read_trees(wrapped).feature.tolist() == read_trees(model[-1]).feature.tolist()
    with pytest.raises(UnsupportedModelError, match=r"Got a Pipeline.*also behind scalers"):
        read_trees(make_pipeline(StandardScaler(), LogisticRegression()).fit(X, y))
