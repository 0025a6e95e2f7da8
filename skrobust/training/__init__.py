"""Training regimes: what loss a classifier minimizes on a batch."""

from skrobust.training._adversarial import AdversarialTraining
from skrobust.training._augmentation import DataAugmentation
from skrobust.training._base import PropertyRegime, TrainingRegime
from skrobust.training._certified import CertifiedTraining
from skrobust.training._co_training import MarginCoTraining
from skrobust.training._constraint import ConstraintTraining
from skrobust.training._cross_lipschitz import CrossLipschitzTraining
from skrobust.training._hook import TrainingFit, TrainingStep
from skrobust.training._linf_distance import LinfDistanceTraining
from skrobust.training._mart import MartTraining
from skrobust.training._on_manifold import OnManifoldTraining
from skrobust.training._sequential import SequentialTraining
from skrobust.training._standard import StandardTraining
from skrobust.training._trades import TradesTraining

__all__ = [
    "AdversarialTraining",
    "CertifiedTraining",
    "ConstraintTraining",
    "CrossLipschitzTraining",
    "DataAugmentation",
    "LinfDistanceTraining",
    "MarginCoTraining",
    "MartTraining",
    "OnManifoldTraining",
    "PropertyRegime",
    "SequentialTraining",
    "StandardTraining",
    "TradesTraining",
    "TrainingFit",
    "TrainingRegime",
    "TrainingStep",
]
