"""skrobust: train classifiers under a robustness property, and measure how robust they are."""

from skrobust.estimators import RobustClassifier, TorchClassifier
from skrobust.pointwise import pointwise_robustness

__version__ = "0.1.0"

__all__ = ["RobustClassifier", "TorchClassifier", "pointwise_robustness"]
