"""Pictures: robustness curves, what a search came to, corruptions, adversarial examples."""

from skrobust.displays._boxes import HyperparameterBoxDisplay
from skrobust.displays._corruption import CorruptionDisplay
from skrobust.displays._curve import RobustnessCurveDisplay
from skrobust.displays._examples import AdversarialExamplesDisplay
from skrobust.displays._trade_off import TradeOffDisplay

__all__ = [
    "AdversarialExamplesDisplay",
    "CorruptionDisplay",
    "HyperparameterBoxDisplay",
    "RobustnessCurveDisplay",
    "TradeOffDisplay",
]
