"""What `pointwise_robustness` returns is readable."""

from skrobust.pointwise import PointwiseStatus, pointwise_robustness
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
