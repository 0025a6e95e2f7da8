"""Thresholds of trees, as numbers that go to the left."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from skrobust.trees._ensemble import last_left
from tests.trees._models import SINGLE, data, fitted, thresholds

FLOATS = st.floats(-1e6, 1e6, allow_nan=False) | st.floats(-1e-3, 1e-3, allow_nan=False)


@given(FLOATS)
def test_the_last_number_that_goes_left(threshold):
    last = last_left(np.array([threshold]))
    beyond = np.nextafter(last, np.inf)
    # Through float: beside a float32 number, Python's would be rounded as well.
    assert float(last.astype(np.float32)[0]) <= threshold < float(beyond.astype(np.float32)[0])


def test_thresholds_of_a_tree_are_where_predict_changes():
    tree = fitted(SINGLE["tree"])
    feature, threshold, _ = thresholds(tree)
    nodes = np.flatnonzero(tree.tree_.feature >= 0)
    last = last_left(threshold)
    for node, j, value in zip(nodes, feature, last, strict=True):
        # A point that comes to the node, with the feature at the border.
        path = tree.decision_path(data()[0].astype(np.float32)).toarray()[:, node]
        point = np.repeat(data()[0][path.argmax()][None], 2, axis=0)
        point[:, j] = value, np.nextafter(value, np.inf)
        went = tree.decision_path(point).toarray()[:, [tree.tree_.children_left[node]]]
        assert went.ravel().tolist() == [1, 0]
