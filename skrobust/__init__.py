"""skrobust: train classifiers under a robustness property, and measure how robust they are."""

from skrobust._version import __version__ as __version__
from skrobust.estimators import RobustClassifier, TorchClassifier
from skrobust.pointwise import pointwise_robustness

__all__ = ["RobustClassifier", "TorchClassifier", "pointwise_robustness"]
