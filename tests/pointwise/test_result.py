"""What `pointwise_robustness` returns is readable."""

import pickle

import numpy as np

from skrobust.pointwise import PointwiseStatus, pointwise_robustness
from skrobust.pointwise._records import Records
from tests.pointwise._nets import diagonal


def test_own_label_as_the_target():
    found = pointwise_robustness(diagonal(), [[0.25, 0.25], [0.75, 0.75]], targets=1)
    assert found.status.tolist() == ["optimal", "own label is the target"]
    assert "another one" in PointwiseStatus(found.status[1]).advice


def test_result_is_readable():
    result = pointwise_robustness(diagonal(), [[0.25, 0.25], [0.5, 0.25]])
    assert "2 optimal" in repr(result)
    frame = result.to_frame()
    assert list(frame["radius"].round(3)) == [0.25, 0.125]
    assert all(PointwiseStatus(status).advice for status in result.status)
    assert all(status.advice for status in PointwiseStatus)


def test_a_status_is_its_text_and_has_advice_of_its_own():
    assert PointwiseStatus("row limit") is PointwiseStatus.ROWS
    assert PointwiseStatus.ROWS == "row limit" == str(PointwiseStatus.ROWS)
    assert pickle.loads(pickle.dumps(PointwiseStatus.ROWS)) is PointwiseStatus.ROWS
    assert len({status.advice for status in PointwiseStatus}) == len(PointwiseStatus)
    records = Records(len(PointwiseStatus), 1, np.float32)
    records.status[:] = list(PointwiseStatus)
    assert records.status.tolist() == list(PointwiseStatus)  # none is cut
