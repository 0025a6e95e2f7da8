"""The programs as the paper states them."""

from skrobust.pointwise import pointwise_robustness
from tests.pointwise._nets import diagonal


def test_solution_without_a_status_is_a_failure(monkeypatch):
    import cvxpy

    def failing(self, **options):
        raise ValueError("Cannot unpack invalid solution")

    monkeypatch.setattr(cvxpy.Problem, "solve", failing)
    found = pointwise_robustness(diagonal(), [[0.25, 0.25]], solver="cvxpy")
    assert found.status[0] == "numerical failure"
