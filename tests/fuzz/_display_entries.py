"""Entries of displays: made of numbers, and of what is measured for them."""

from functools import cache, partial

from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV

from skrobust import attacks, displays, scorers
from tests.fuzz._entries import CR, SCORERS, X, Y, add, model, parameters_of
from tests.fuzz._further_entries import ENTRIES

__all__ = ["ENTRIES"]

_DATA = {"X": "array", "y": "labels"}


def drawn(display, plot=True, **arguments):
    """Return what a display draws; its figures are closed."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    try:
        result = display(**arguments)
        return result.plot() if plot else result
    finally:
        plt.close("all")


for _name, _given in {
    "RobustnessCurveDisplay": {"epsilons": [0.1, 0.2], "scores": {"a": [1.0, 0.5]}},
    "TradeOffDisplay": {"accuracy": [0.9, 0.8], "robustness": [0.1, 0.2]},
    "HyperparameterBoxDisplay": {"values": [1, 2], "scores": [0.1, 0.2]},
    "CorruptionDisplay": {
        "results": {"a": SCORERS["CorruptionRobustness"].evaluate(model(), X, Y)}
    },
    "WinsDisplay": {"results": {"a": SCORERS["MarginRobustness"].evaluate(model(), X, Y)}},
    "AdversarialExamplesDisplay": {
        "originals": X[:2],
        "perturbed": X[:2],
        "labels_before": [0, 1],
        "labels_after": [1, 0],
        "image_shape": (1, 3),
    },
}.items():
    _kind = getattr(displays, _name)
    add(
        _name,
        partial(drawn, _kind),
        partial(dict, _given),
        {name: "value" for name in parameters_of(_kind)},
    )


@cache
def _search():
    scoring = {"accuracy": "accuracy", "security": "accuracy"}
    grid = {"C": [0.1, 1.0]}
    return GridSearchCV(LogisticRegression(), grid, scoring=scoring, refit=False, cv=2).fit(X, Y)


_SECURITY = scorers.ConstraintSecurity(CR, attacks.PGD(2), random_state=0)
_NOISE = scorers.CorruptionRobustness(["noise"], image_shape=(1, 3), random_state=0)
for _name, _function, _given, _kinds in (
    (
        "RobustnessCurveDisplay.from_estimator",
        partial(displays.RobustnessCurveDisplay.from_estimator, model()),
        {"X": X, "y": Y, "scorer": _SECURITY, "epsilons": [0.05, 0.1]},
        {"scorer": "value", "epsilons": "value"} | _DATA,
    ),
    (
        "RobustnessCurveDisplay.from_radius",
        displays.RobustnessCurveDisplay.from_radius,
        {"radius": [0.1, 0.3], "cumulative": False, "confidence": 0.95, "area": True},
        dict.fromkeys(("radius", "epsilons", "cumulative", "confidence", "area"), "value"),
    ),
    (
        "TradeOffDisplay.from_estimator",
        displays.TradeOffDisplay.from_estimator,
        {
            "search": _search(),
            "accuracy": "accuracy",
            "robustness": "security",
            "group_by": None,
            "shade_by": "C",
        },
        dict.fromkeys(("search", "accuracy", "robustness", "group_by", "shade_by"), "value"),
    ),
    (
        "HyperparameterBoxDisplay.from_estimator",
        displays.HyperparameterBoxDisplay.from_estimator,
        {"search": _search(), "by": "C", "score": "security"},
        dict.fromkeys(("search", "by", "score"), "value"),
    ),
    (
        "CorruptionDisplay.from_estimator",
        # The default scorer is for images, which three features are not.
        lambda scorer, **options: displays.CorruptionDisplay.from_estimator(
            model(), scorer=_NOISE if scorer is None else scorer, **options
        ),
        {"X": X, "y": Y, "scorer": _NOISE, "shown": "accuracy"},
        {"scorer": "value", "shown": "value"} | _DATA,
    ),
    (
        "WinsDisplay.from_estimator",
        partial(displays.WinsDisplay.from_estimator, model()),
        {"X": X, "scorer": SCORERS["MarginRobustness"]},
        {"X": "array", "scorer": "value"},
    ),
    (
        "AdversarialExamplesDisplay.from_estimator",
        partial(displays.AdversarialExamplesDisplay.from_estimator, model()),
        {"X": X, "y": Y, "scorer": _SECURITY, "image_shape": (1, 3), "n_examples": 1},
        {"scorer": "value", "image_shape": "value", "n_examples": "value"} | _DATA,
    ),
    (
        "AdversarialExamplesDisplay.from_predictions",
        displays.AdversarialExamplesDisplay.from_predictions,
        {
            "originals": X[:2],
            "perturbed": X[:2],
            "labels_before": [0, 1],
            "labels_after": [1, 0],
            "image_shape": (1, 3),
            "n_examples": 1,
        },
        {
            "originals": "array",
            "perturbed": "array",
            "labels_before": "value",
            "labels_after": "value",
            "n_examples": "value",
        },
    ),
):
    add(_name, partial(drawn, _function, plot=False), partial(dict, _given), _kinds)
