"""Entries of meta-estimators: what is done further with a trained classifier."""

import warnings

import numpy as np

import skrobust
from skrobust import attacks, estimators, exceptions
from tests.fuzz._display_entries import ENTRIES
from tests.fuzz._entries import X, Y, add, parameters_of

__all__ = ["ENTRIES"]

_TUNED = {"estimator": skrobust.RobustClassifier(hidden_layer_sizes=4, max_epochs=1),
          "attack": attacks.LinearBoundary(2), "margin": 0.0, "n_epochs": 1}  # fmt: skip


def _tuned(X=X, y=Y, **parameters):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", exceptions.AttackWarning)  # that nothing was found
        return estimators.AdversarialFineTuning(**(_TUNED | parameters)).fit(X, y)


add(
    "AdversarialFineTuning",
    lambda **parameters: _tuned(**parameters).predict_proba(X),
    lambda: dict(_TUNED),
    {
        name: "value"
        for name in parameters_of(estimators.AdversarialFineTuning)
        if name not in ("n_jobs", "verbose", "memory")
    },
    lambda result, call: np.isfinite(result).all(),
)
add(
    "AdversarialFineTuning.fit",
    lambda X, y: _tuned(X, y).predict_proba(np.zeros((1, 3)) + 0.5),
    lambda: {"X": X, "y": Y},
    {"X": "array", "y": "labels"},
    lambda result, call: np.isfinite(result).all(),
)
_PRUNED = {"estimator": skrobust.RobustClassifier(hidden_layer_sizes=4, max_epochs=1),
           "amount": 0.5, "n_epochs": 1}  # fmt: skip
add(
    "MagnitudePruning",
    lambda **parameters: (
        estimators.MagnitudePruning(**(_PRUNED | parameters)).fit(X, Y).predict_proba(X)
    ),
    lambda: dict(_PRUNED),
    {name: "value" for name in parameters_of(estimators.MagnitudePruning)},
    lambda result, call: np.isfinite(result).all(),
)
add(
    "MagnitudePruning.fit",
    lambda X, y: estimators.MagnitudePruning(**_PRUNED).fit(X, y).predict_proba(X[:1]),
    lambda: {"X": X, "y": Y},
    {"X": "array", "y": "labels"},
    lambda result, call: np.isfinite(result).all(),
)
