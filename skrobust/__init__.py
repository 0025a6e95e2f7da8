"""skrobust: train classifiers under a robustness property, and measure how robust they are."""

from skrobust.estimators import RobustClassifier, TorchClassifier

__version__ = "0.1.0"

__all__ = ["RobustClassifier", "TorchClassifier"]
