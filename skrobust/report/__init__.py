"""Every score of a classifier in one result, and that as a page, a dict or a model card."""

from skrobust.report._curves import RobustnessCurve
from skrobust.report._examples import WorstExamples
from skrobust.report._report import robustness_report
from skrobust.report._result import RobustnessReport

__all__ = ["RobustnessCurve", "RobustnessReport", "WorstExamples", "robustness_report"]
