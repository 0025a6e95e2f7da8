"""Classifiers: trained under a robustness property, of a given module, fine-tuned, or pruned."""

from skrobust.estimators._fine_tuning import AdversarialFineTuning
from skrobust.estimators._given import TorchClassifier
from skrobust.estimators._pruning import MagnitudePruning
from skrobust.estimators._robust import RobustClassifier

__all__ = ["AdversarialFineTuning", "MagnitudePruning", "RobustClassifier", "TorchClassifier"]
