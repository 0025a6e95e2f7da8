"""skrobust: train classifiers under a robustness property, and measure how robust they are."""

from importlib import import_module
from typing import TYPE_CHECKING

from skrobust._version import __version__ as __version__

if TYPE_CHECKING:  # editors and type checkers do not run `__getattr__`
    from skrobust.estimators import RobustClassifier, TorchClassifier
    from skrobust.pointwise import pointwise_robustness
    from skrobust.report import robustness_report

__all__ = ["RobustClassifier", "TorchClassifier", "pointwise_robustness", "robustness_report"]

# Imported when first asked for: a worker, a fit or a check of evidence needs a part of the house,
# and each file of it takes time.
_PLACES = {
    "RobustClassifier": "estimators",
    "TorchClassifier": "estimators",
    "pointwise_robustness": "pointwise",
    "robustness_report": "report",
}
_ROOMS = (
    "attacks",
    "balls",
    "bounds",
    "datasets",
    "displays",
    "estimators",
    "evidence",
    "exceptions",
    "graphs",
    "logics",
    "model_selection",
    "networks",
    "pointwise",
    "properties",
    "report",
    "scorers",
    "statistics",
    "training",
    "trees",
    "verification",
    "verify",
)


def __getattr__(name):
    if name in _ROOMS:
        return import_module(f"skrobust.{name}")
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = getattr(import_module(f"skrobust.{_PLACES[name]}"), name)
    globals()[name] = found
    return found


def __dir__():
    return sorted({*globals(), *__all__, *_ROOMS})
