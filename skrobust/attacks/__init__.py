"""Attacks: network x property -> points of the ball that break the property."""

from skrobust.attacks._auto_pgd import AutoPGD
from skrobust.attacks._base import Attack, Outcome, Target
from skrobust.attacks._fgsm import FGSM
from skrobust.attacks._pgd import PGD
from skrobust.attacks._uniform import UniformSampling

__all__ = ["FGSM", "PGD", "Attack", "AutoPGD", "Outcome", "Target", "UniformSampling"]
