"""Robustness properties: what must hold for every input in a ball around a reference input."""

from skrobust.properties._base import RobustnessProperty, check_property
from skrobust.properties._classification import (
    ClassificationRobustness,
    StrongClassificationRobustness,
)
from skrobust.properties._conclusion import Conclusion, LinearRows
from skrobust.properties._conjunction import Conjunction
from skrobust.properties._disjunction import Disjunction
from skrobust.properties._domain import Domain
from skrobust.properties._outputs import LipschitzRobustness, StandardRobustness
from skrobust.properties._rows import LinearRobustness
from skrobust.properties._tabular import IndividualFairness, Monotonicity

__all__ = [
    "ClassificationRobustness",
    "Conclusion",
    "Conjunction",
    "Disjunction",
    "Domain",
    "IndividualFairness",
    "LinearRobustness",
    "LinearRows",
    "LipschitzRobustness",
    "Monotonicity",
    "RobustnessProperty",
    "StandardRobustness",
    "StrongClassificationRobustness",
    "check_property",
]
