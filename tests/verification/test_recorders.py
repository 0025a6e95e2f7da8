"""The recorder of a model: that of networks, or that of trees."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.tree import DecisionTreeClassifier

from skrobust.networks import BlackBox, as_network
from skrobust.properties import ClassificationRobustness
from skrobust.verification import make_recorder
from skrobust.verification._tree_evidence import TreeRecorder

X, Y = np.array([[0.2], [0.4], [0.6], [0.8]]), [0, 0, 1, 1]


@pytest.mark.parametrize("evidence", ["required", "folder"])
def test_models_get_their_recorder(evidence, tmp_path):
    place = evidence if evidence == "required" else tmp_path / evidence
    property = ClassificationRobustness(0.1)
    tree = BlackBox(DecisionTreeClassifier().fit(X, Y))
    recorder = make_recorder(place, tree, property, 1)
    assert isinstance(recorder, TreeRecorder)
    assert recorder.place == str(place)
    with pytest.raises(ValueError, match="another one") if evidence == "folder" else _nothing():
        line = make_recorder(place, as_network(LogisticRegression().fit(X, Y)), property, 1)
        assert not isinstance(line, TreeRecorder)


class _nothing:
    def __enter__(self):
        return self

    def __exit__(self, *error):
        return False
