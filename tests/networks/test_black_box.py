"""Classifiers without gradients."""

import sys

import numpy as np
import pytest
import torch
from sklearn.ensemble import RandomForestClassifier
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import Normalizer
from sklearn.svm import SVC

from skrobust.attacks import FGSM, Target
from skrobust.exceptions import UnsupportedModelError, UnsupportedPropertyError
from skrobust.networks import BlackBox, Model, Network, as_model
from skrobust.properties import ClassificationRobustness

RNG = np.random.default_rng(0)
X, Y = RNG.random((60, 4)), np.array(["no", "yes", "so"])[np.arange(60) % 3]


@pytest.fixture(scope="module")
def forest():
    return RandomForestClassifier(5, max_depth=3, random_state=0).fit(X, Y)


def test_labels_as_logits(forest):
    box = as_model(forest, {"labels"}, needs_gradient=False)
    assert isinstance(box, BlackBox)
    logits = box(box.rows(X))
    assert set(logits.unique().tolist()) == {0.0, 1.0}
    np.testing.assert_array_equal(box.classes[logits.argmax(dim=1)], forest.predict(X))


def test_probabilities_as_logits(forest):
    box = as_model(forest, {"probabilities"}, needs_gradient=False)
    found = torch.softmax(box(box.rows(X)), dim=1).numpy()
    np.testing.assert_allclose(found, forest.predict_proba(X), atol=1e-12)


def test_networks_where_there_are_any():
    model = LogisticRegression().fit(X, Y)
    assert type(as_model(model, {"logits"}, needs_gradient=False)) is Network
    bent = make_pipeline(Normalizer(), LogisticRegression()).fit(X, Y)
    assert isinstance(as_model(bent, {"labels"}, needs_gradient=False), BlackBox)


def test_what_is_refused(forest):
    with pytest.raises(UnsupportedPropertyError, match=r"RandomForestClassifier has none.*'prob"):
        as_model(forest, {"logits"}, needs_gradient=False)
    with pytest.raises(UnsupportedModelError, match=r"Got a SVC without predict_proba"):
        as_model(SVC().fit(X, Y), {"probabilities"}, needs_gradient=False)
    with pytest.raises(NotFittedError, match="RandomForestClassifier instance is not fitted"):
        as_model(RandomForestClassifier(), {"labels"}, needs_gradient=False)
    with pytest.raises(
        UnsupportedModelError, match="Got an object, but expected a fitted classifier with predict"
    ):
        as_model(object(), {"labels"}, needs_gradient=False)
    with pytest.raises(ValueError, match="Got X with 3 features, but expected 4"):
        as_model(forest, {"labels"}, needs_gradient=False).rows(X[:, :3])


@pytest.mark.parametrize("output", ["labels", "probabilities"])
def test_models_are_siblings_of_one_base(forest, output):
    box = BlackBox(forest, output)
    assert isinstance(box, Model) and not isinstance(box, Network)
    assert not box.has_gradient
    assert box.probabilistic is (output == "probabilities")
    assert (box.n_features, box.dtype) == (4, torch.float64)
    rows = box.rows(X[:5])
    assert torch.equal(box.replay(rows), box(rows))
    assert torch.equal(box.replay_rows(X[:5]), box(rows))


def test_a_gradient_attack_refuses_a_black_box(forest):
    box = BlackBox(forest)
    target = Target(box, ClassificationRobustness(0.1), box.rows(X), box.encode(Y))
    with pytest.raises(UnsupportedModelError, match="no gradient in its inputs"):
        FGSM().search(target)


class Named:
    """Takes frames, and says what columns it was given."""

    classes_ = np.array([0, 1])
    feature_names_in_ = np.array(["a", "b"])

    def predict(self, X):
        self.columns_ = list(getattr(X, "columns", ["none"]))
        return np.zeros(len(X), dtype=int)


def test_columns_are_named_where_pandas_is_there(monkeypatch):
    box = BlackBox(Named())
    pytest.importorskip("pandas")
    box(torch.zeros(1, 2, dtype=torch.float64))
    assert box.estimator.columns_ == ["a", "b"]
    monkeypatch.setitem(sys.modules, "pandas", None)
    monkeypatch.setitem(sys.modules, "polars", None)
    box(torch.zeros(1, 2, dtype=torch.float64))
    assert box.estimator.columns_ == ["none"]


def test_columns_are_named_by_polars_where_pandas_is_not_there(monkeypatch):
    pytest.importorskip("polars")
    monkeypatch.setitem(sys.modules, "pandas", None)
    box = BlackBox(Named())
    box(torch.zeros(1, 2, dtype=torch.float64))
    assert box.estimator.columns_ == ["a", "b"]


def test_a_model_of_named_columns_works_without_pandas(monkeypatch):
    pd = pytest.importorskip("pandas")
    model = RandomForestClassifier(3, random_state=0).fit(pd.DataFrame(X, columns=list("abcd")), Y)
    box = BlackBox(model)
    expected = box(box.rows(X))
    monkeypatch.setitem(sys.modules, "pandas", None)
    assert torch.equal(box(box.rows(X)), expected)
