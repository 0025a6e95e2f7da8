"""What classifiers with logits share: labels, scores and probabilities follow from the logits."""

import numpy as np
import pytest
import torch
from scipy.special import softmax

from skrobust.estimators._base import LogitsClassifier, plain_array


class Table(LogitsClassifier):
    """Its logits are its rows."""

    def __init__(self, classes):
        self.classes_ = np.array(classes)

    def _logits(self, X):
        return np.asarray(X, dtype=np.float32)


def test_the_largest_logit_is_predicted():
    model = Table(["c", "a", "b"])
    X = [[0.0, 2.0, 1.0], [3.0, 1.0, 2.0], [1.0, 1.0, 0.0]]
    # Of equal ones the first.
    assert model.predict(X).tolist() == ["a", "c", "c"]
    np.testing.assert_array_equal(model.decision_function(X), np.float32(X))
    np.testing.assert_allclose(model.predict_proba(X), softmax(X, axis=1), rtol=1e-6)


def test_two_classes_have_one_value_whose_sign_decides():
    model, X = Table([7, 9]), [[0.5, 2.0], [1.0, -1.0]]
    np.testing.assert_allclose(model.decision_function(X), [1.5, -2.0])
    assert model.predict(X).tolist() == [9, 7]
    assert model.score(X, [9, 9]) == 0.5


@pytest.mark.parametrize("requires_grad", [False, True])
def test_tensors_become_plain_arrays(requires_grad):
    values = torch.arange(3.0, requires_grad=requires_grad)
    array = plain_array(values)
    assert isinstance(array, np.ndarray) and array.tolist() == [0.0, 1.0, 2.0]
    rows = [[1, 2]]
    assert plain_array(rows) is rows
