"""Classifiers: trained under a robustness property, of a given module, or fine-tuned."""

from skrobust.estimators._fine_tuning import AdversarialFineTuning
from skrobust.estimators._given import TorchClassifier
from skrobust.estimators._robust import RobustClassifier

__all__ = ["AdversarialFineTuning", "RobustClassifier", "TorchClassifier"]
