"""Ensembles as arrays: the checker predicts what the estimator predicts."""

import numpy as np
import pytest

from skrobust.evidence import ensemble_arrays, opened
from tests.trees._models import ENSEMBLES, SINGLE, fitted


@pytest.mark.parametrize("name", [*SINGLE, *ENSEMBLES])
@pytest.mark.parametrize("n_classes", [2, 3])
def test_the_stored_trees_predict_what_the_estimator_does(name, n_classes):
    if name == "exponential" and n_classes > 2:
        pytest.skip("a loss for two classes")
    model = fitted((SINGLE | ENSEMBLES)[name], n_classes)
    stored = opened(ensemble_arrays(model, 2))
    points = np.random.default_rng(0).random((200, 2))
    labels = np.searchsorted(model.classes_, model.predict(points))
    for point, label in zip(points, labels, strict=True):
        at = point[None], point[None]
        stored.rivals(int(label), *at)
        leads = stored.leads(*at)
        assert stored.is_below(leads, stored.tie + stored.slack).all()
