"""Classifiers without gradients."""

import numpy as np
import pytest
import torch
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import Normalizer
from sklearn.svm import SVC

from skrobust.exceptions import UnsupportedModelError, UnsupportedPropertyError
from skrobust.networks import BlackBox, Network, as_model

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
    with pytest.raises(
        UnsupportedModelError, match="a fitted classifier with predict and classes_"
    ):
        as_model(RandomForestClassifier(), {"labels"}, needs_gradient=False)
    with pytest.raises(ValueError, match="Got X with 3 features, but expected 4"):
        as_model(forest, {"labels"}, needs_gradient=False).rows(X[:, :3])
