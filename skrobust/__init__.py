"""skrobust: train classifiers under a robustness property, and measure how robust they are."""

from skrobust._version import __version__ as __version__
from skrobust.estimators import RobustClassifier, TorchClassifier
from skrobust.pointwise import pointwise_robustness

__all__ = ["RobustClassifier", "TorchClassifier", "pointwise_robustness", "robustness_report"]


def __getattr__(name):
    # A report has every scorer and display behind it, which most programs do without.
    if name == "robustness_report":
        from skrobust.report import robustness_report

        return robustness_report
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
