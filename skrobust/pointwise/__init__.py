"""Pointwise robustness: network x sample -> distance of the closest other label."""

from skrobust.pointwise._radius import PointwiseResult, PointwiseStatus, pointwise_robustness

__all__ = ["PointwiseResult", "PointwiseStatus", "pointwise_robustness"]
