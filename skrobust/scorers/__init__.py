"""Robustness measures as scorers, for searches and for full per-sample results."""

from skrobust.scorers._adversarial import (
    AdversarialFrequency,
    AdversarialResult,
    AdversarialSeverity,
)
from skrobust.scorers._base import RobustnessScorer, ScoreResult
from skrobust.scorers._constraint import (
    ConstraintAccuracy,
    ConstraintAccuracyResult,
    ConstraintSecurity,
    ConstraintSecurityResult,
)

__all__ = [
    "AdversarialFrequency",
    "AdversarialResult",
    "AdversarialSeverity",
    "ConstraintAccuracy",
    "ConstraintAccuracyResult",
    "ConstraintSecurity",
    "ConstraintSecurityResult",
    "RobustnessScorer",
    "ScoreResult",
]
