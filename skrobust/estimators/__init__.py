"""Classifiers: trained under a property, given, fine-tuned, pruned or Bayesian; an autoencoder."""

from skrobust.estimators._autoencoder import Autoencoder
from skrobust.estimators._bayesian import BayesianClassifier
from skrobust.estimators._fine_tuning import AdversarialFineTuning
from skrobust.estimators._given import TorchClassifier
from skrobust.estimators._pruning import MagnitudePruning
from skrobust.estimators._robust import RobustClassifier

__all__ = [
    "AdversarialFineTuning",
    "Autoencoder",
    "BayesianClassifier",
    "MagnitudePruning",
    "RobustClassifier",
    "TorchClassifier",
]
