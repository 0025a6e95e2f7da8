"""Pictures: curves, what a search came to, corruptions, adversarial examples, wins."""

from skrobust.displays._axes import SERIES as SERIES
from skrobust.displays._boxes import HyperparameterBoxDisplay
from skrobust.displays._corruption import CorruptionDisplay
from skrobust.displays._curve import RobustnessCurveDisplay
from skrobust.displays._examples import AdversarialExamplesDisplay
from skrobust.displays._examples import as_image as as_image
from skrobust.displays._examples import check_image_shape as check_image_shape
from skrobust.displays._trade_off import TradeOffDisplay
from skrobust.displays._wins import WinsDisplay

__all__ = [
    "AdversarialExamplesDisplay",
    "CorruptionDisplay",
    "HyperparameterBoxDisplay",
    "RobustnessCurveDisplay",
    "TradeOffDisplay",
    "WinsDisplay",
]
