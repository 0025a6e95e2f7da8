"""Attacks: network x property -> points of the ball that break the property."""

from skrobust.attacks._auto_pgd import AutoPGD
from skrobust.attacks._base import Attack, Outcome, Target
from skrobust.attacks._boundary import pull_to_boundary
from skrobust.attacks._ensemble import Ensemble, EnsembleOutcome
from skrobust.attacks._fgsm import FGSM
from skrobust.attacks._lbfgs import LBFGS
from skrobust.attacks._linear import LinearBoundary
from skrobust.attacks._pgd import PGD
from skrobust.attacks._uniform import UniformSampling

__all__ = [
    "FGSM",
    "LBFGS",
    "PGD",
    "Attack",
    "AutoPGD",
    "Ensemble",
    "EnsembleOutcome",
    "LinearBoundary",
    "Outcome",
    "Target",
    "UniformSampling",
    "pull_to_boundary",
]
