"""Robustness measures as scorers, for searches and for full per-sample results."""

from skrobust.scorers._base import RobustnessScorer, ScoreResult
from skrobust.scorers._constraint import (
    ConstraintAccuracy,
    ConstraintAccuracyResult,
    ConstraintSecurity,
    ConstraintSecurityResult,
)

__all__ = [
    "ConstraintAccuracy",
    "ConstraintAccuracyResult",
    "ConstraintSecurity",
    "ConstraintSecurityResult",
    "RobustnessScorer",
    "ScoreResult",
]
