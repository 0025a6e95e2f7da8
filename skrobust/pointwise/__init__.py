"""Pointwise robustness: network x sample -> distance of the closest other label."""

from skrobust.pointwise._radius import pointwise_robustness
from skrobust.pointwise._result import PointwiseResult, PointwiseStatus

__all__ = ["PointwiseResult", "PointwiseStatus", "pointwise_robustness"]
