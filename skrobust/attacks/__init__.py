"""Attacks: network x property -> points of the ball that break the property."""

from skrobust.attacks._auto_pgd import AutoPGD
from skrobust.attacks._base import Attack, GradientAttack, Tracker
from skrobust.attacks._confirm import (
    ConfirmedOutcome,
    attack_and_confirm,
    confirm,
    confirm_beyond,
    confirm_outcome,
    steps_beyond,
)
from skrobust.attacks._ensemble import Ensemble, EnsembleOutcome
from skrobust.attacks._fgsm import FGSM
from skrobust.attacks._lbfgs import LBFGS
from skrobust.attacks._linear import LinearBoundary
from skrobust.attacks._minimum_norm import FastMinimumNorm
from skrobust.attacks._near_miss import NearMissPGD
from skrobust.attacks._pgd import PGD
from skrobust.attacks._target import Outcome, Target
from skrobust.attacks._uniform import UniformSampling

__all__ = [
    "FGSM",
    "LBFGS",
    "PGD",
    "Attack",
    "AutoPGD",
    "ConfirmedOutcome",
    "Ensemble",
    "EnsembleOutcome",
    "FastMinimumNorm",
    "GradientAttack",
    "LinearBoundary",
    "NearMissPGD",
    "Outcome",
    "Target",
    "Tracker",
    "UniformSampling",
    "attack_and_confirm",
    "confirm",
    "confirm_beyond",
    "confirm_outcome",
    "steps_beyond",
]
