"""Classifiers: trained under a property, of a module, fine-tuned, pruned, or Bayesian."""

from skrobust.estimators._bayesian import BayesianClassifier
from skrobust.estimators._fine_tuning import AdversarialFineTuning
from skrobust.estimators._given import TorchClassifier
from skrobust.estimators._pruning import MagnitudePruning
from skrobust.estimators._robust import RobustClassifier

__all__ = [
    "AdversarialFineTuning",
    "BayesianClassifier",
    "MagnitudePruning",
    "RobustClassifier",
    "TorchClassifier",
]
