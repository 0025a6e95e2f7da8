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
from skrobust.scorers._corruption import CorruptionRobustness, CorruptionRobustnessResult
from skrobust.scorers._framework import RobustnessScore
from skrobust.scorers._global import GlobalRobustness, GlobalRobustnessResult
from skrobust.scorers._integrals import RobustnessScoreResult
from skrobust.scorers._manifold import ManifoldRobustness, ManifoldRobustnessResult
from skrobust.scorers._margin import MarginRobustness, MarginRobustnessResult
from skrobust.scorers._quantitative import QuantitativeRobustnessResult
from skrobust.scorers._rare import ViolationProbability, ViolationProbabilityResult
from skrobust.scorers._satisfaction import (
    ConstraintSatisfaction,
    ConstraintSatisfactionResult,
)

__all__ = [
    "AdversarialFrequency",
    "AdversarialResult",
    "AdversarialSeverity",
    "ConstraintAccuracy",
    "ConstraintAccuracyResult",
    "ConstraintSatisfaction",
    "ConstraintSatisfactionResult",
    "ConstraintSecurity",
    "ConstraintSecurityResult",
    "CorruptionRobustness",
    "CorruptionRobustnessResult",
    "GlobalRobustness",
    "GlobalRobustnessResult",
    "ManifoldRobustness",
    "ManifoldRobustnessResult",
    "MarginRobustness",
    "MarginRobustnessResult",
    "QuantitativeRobustnessResult",
    "RobustnessScore",
    "RobustnessScoreResult",
    "RobustnessScorer",
    "ScoreResult",
    "ViolationProbability",
    "ViolationProbabilityResult",
]
