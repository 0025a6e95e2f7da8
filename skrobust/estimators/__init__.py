"""Classifiers: one that is trained under a robustness property, and one of a given module."""

from skrobust.estimators._given import TorchClassifier
from skrobust.estimators._robust import RobustClassifier

__all__ = ["RobustClassifier", "TorchClassifier"]
