"""Entries of meta-estimators, autoencoders and what trains with them, and Bayesian networks."""

import warnings
from functools import cache

import numpy as np
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

import skrobust
from skrobust import (
    attacks,
    estimators,
    exceptions,
    model_selection,
    networks,
    properties,
    scorers,
    training,
)
from tests.fuzz._display_entries import ENTRIES
from tests.fuzz._entries import X, Y, add, fitted, model, parameters_of

__all__ = ["ENTRIES"]

_REPORT = {"X": X, "y": Y, "epsilons": [0.1], "attack": attacks.PGD(2), "random_state": 0}
add(
    "robustness_report",
    lambda **options: skrobust.robustness_report(model(), **options).to_dict(),
    lambda: dict(_REPORT),
    {"X": "array", "y": "labels"}
    | dict.fromkeys(
        ("epsilons", "scale", "property", "attack", "verifier", "timeout", "tolerance"), "value"
    )
    | dict.fromkeys(
        ("confidence", "n_examples", "image_shape", "details", "random_state"), "value"
    ),
)
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


# ---- autoencoders -----------------------------------------------------------------------------


def _autoencoder(X=X, **parameters):
    return estimators.Autoencoder(**({"n_components": 2, "max_epochs": 1} | parameters)).fit(X)


@cache
def _trained_autoencoder():
    return _autoencoder(random_state=0)


add(
    "Autoencoder",
    lambda **parameters: _autoencoder(**parameters).transform(X),
    dict,
    {name: "value" for name in parameters_of(estimators.Autoencoder) if name != "verbose"},
    lambda result, call: np.isfinite(result).all(),
)
add(
    "Autoencoder.fit",
    lambda X: _autoencoder(X, loss="wasserstein").score(np.zeros((1, 3)) + 0.5),
    lambda: {"X": X},
    {"X": "array"},
    lambda result, call: np.isfinite(result),
)
for _method in ("transform", "score"):
    add(
        f"Autoencoder.{_method}",
        lambda X, method=_method: getattr(_trained_autoencoder(), method)(X),
        lambda: {"X": X},
        {"X": "array"},
    )
add(
    "Autoencoder.inverse_transform",
    lambda X: _trained_autoencoder().inverse_transform(X),
    lambda: {"X": X[:, :2]},
    {"X": "array"},
)
_ADVERSARIAL = {"autoencoder": PCA(2).fit(X), "method": "adversarial", "attack": attacks.PGD(2)}
add(
    "OnManifoldTraining, adversarial",
    lambda **parameters: fitted(
        training=training.OnManifoldTraining(**(_ADVERSARIAL | parameters))
    ).predict_proba(X),
    lambda: dict(_ADVERSARIAL),
    {name: "value" for name in ("autoencoder", "eta", "attack", "clean_weight", "bounds")},
    lambda result, call: np.isfinite(result).all(),
)
_SAMPLED = {"hidden_layer_sizes": 2, "n_samples": 2, "warmup": 1, "num_steps": 1}


def _sampled(X=X, y=Y, **parameters):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # of chains of one sample
        return estimators.BayesianClassifier(**(_SAMPLED | parameters)).fit(X, y)


add(
    "BayesianClassifier",
    lambda **parameters: _sampled(**parameters).predict_proba(X),
    lambda: dict(_SAMPLED),
    {name: "value" for name in parameters_of(estimators.BayesianClassifier)},
    lambda result, call: np.isfinite(result).all(),
    package="pyro",
)
add(
    "BayesianClassifier.fit",
    lambda X, y: _sampled(X, y).predict_proba(np.zeros((1, 3)) + 0.5),
    lambda: {"X": X, "y": Y},
    {"X": "array", "y": "labels"},
    lambda result, call: np.isfinite(result).all(),
    package="pyro",
)


# ---- races ------------------------------------------------------------------------------------

_RACE = {"confidence": 0.95, "batch_size": 16, "growth": 1.5, "value_range": (0.0, 1.0),
         "random_state": 0, "cv": 2, "error_score": "raise"}  # fmt: skip


def _raced(X=X, y=Y, **parameters):
    scoring = scorers.ConstraintAccuracy(
        properties.ClassificationRobustness(0.05, bounds=None), n_samples=4, random_state=0
    )
    race = model_selection.RacingSearchCV(
        LogisticRegression(), {"C": [0.1, 1.0]}, scoring=scoring, **(_RACE | parameters)
    )
    return race.fit(X, y)


add(
    "RacingSearchCV",
    lambda **parameters: _raced(**parameters),
    lambda: dict(_RACE),
    dict.fromkeys((name for name in _RACE if name not in ("cv", "error_score")), "value"),
    lambda result, call: result.best_index_ in (0, 1),
)
add(
    "RacingSearchCV.fit",
    _raced,
    lambda: {"X": X, "y": Y},
    {"X": "array", "y": "labels"},
    lambda result, call: result.best_index_ in (0, 1),
)


# ---- what is read from results ------------------------------------------------------------------

_RESULTS = {
    "mean_test_a": np.array([0.9, 0.8, 0.7]),
    "mean_test_b": np.array([0.1, 0.5, 0.4]),
    "split0_test_a": np.array([0.8, 0.8, 0.7]),
    "split1_test_a": np.array([1.0, 0.8, 0.7]),
    "params": [{"C": 1}, {"C": 2}, {"C": 3}],
}
add(
    "pareto_front",
    model_selection.pareto_front,
    lambda: {"results": _RESULTS, "scores": ["a", "b"], "partial": False},
    {"results": "value", "scores": "value", "partial": "value"},
    lambda result, call: 0 < len(result) <= result.n_candidates,
)
add(
    "ParetoFront.hypervolume",
    lambda reference: model_selection.pareto_front(_RESULTS, ["a", "b"]).hypervolume(reference),
    lambda: {"reference": [0.0, 0.0]},
    {"reference": "value"},
    lambda result, call: result >= 0,
)
_RULE = {"score": "b", "at_least": {"a": 0.1}, "within": {"a": 1}, "within_standard_errors": None}
add(
    "LargestSubjectTo",
    lambda cv_results=_RESULTS, **parameters: model_selection.LargestSubjectTo(
        **(_RULE | parameters)
    )(cv_results),
    lambda: {"cv_results": _RESULTS, **_RULE},
    dict.fromkeys(("cv_results", *_RULE), "value"),
    lambda result, call: result in (0, 1, 2),
)


def _halved(rows):
    return rows / 2


add(
    "networks.affine",
    lambda function: networks.affine(function),
    lambda: {"function": _halved},
    {"function": "value"},
    lambda result, call: callable(result),
)
