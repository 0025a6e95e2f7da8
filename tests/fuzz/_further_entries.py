"""Further entries: methods beside the main ones, and the doors of those who extend the library."""

from functools import cache, partial

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier

import skrobust
from skrobust import (
    attacks,
    bounds,
    datasets,
    evidence,
    graphs,
    logics,
    networks,
    properties,
    scorers,
    statistics,
    training,
    verification,
)
from skrobust.datasets._mnist_c import CORRUPTIONS
from tests.fuzz._entries import (
    CR,
    ENTRIES,
    OWN,
    X,
    Y,
    add,
    fitted,
    folder,
    model,
    module,
    network,
    parameters_of,
)

__all__ = ["ENTRIES"]

_DATA = {"X": "array", "y": "labels"}


def _is_finite(result, call):
    return np.isfinite(np.asarray(result, dtype=float)).all()


def _is_trained(result, call):
    return np.isfinite(result.predict_proba(X)).all()


# ---- scorers ----------------------------------------------------------------------------------

for _scorer in (
    scorers.ConstraintSatisfaction(CR, random_state=0),
    scorers.AdversarialSeverity(0.1, random_state=0),
    scorers.GlobalRobustness(OWN, tolerance=0.4, random_state=0),
):
    add(
        f"{type(_scorer).__name__}.metrics",
        lambda X, y, scorer=_scorer: scorer.metrics(model(), X, y),
        lambda: {"X": X, "y": Y},
        _DATA,
        lambda result, call: all(np.isfinite(value) for value in result.values()),
    )
add(
    "GlobalRobustness of a quantity",
    lambda **parameters: scorers.GlobalRobustness(**parameters, random_state=0).evaluate(
        model(), X, Y
    ),
    lambda: {
        "property": CR,
        "local": attacks.PGD(2),
        "quantitative": "linf-probabilities",
        "tolerance": 0.4,
        "threshold": None,
        "bound": "hoeffding",
    },
    dict.fromkeys(("property", "local", "quantitative", "threshold", "bound"), "value"),
    lambda result, call: np.isfinite(result.score),
)
add(
    "RobustnessScore.preset",
    lambda **parameters: scorers.RobustnessScore.preset(
        **parameters, n_samples=3, random_state=0
    ).evaluate(model(), X, Y),
    lambda: {
        "name": "uniform-share",
        "epsilons": [0.1],
        "transform": "identity",
        "weight": "radii",
    },
    dict.fromkeys(("name", "epsilons", "transform", "weight", "neighborhood"), "value"),
    lambda result, call: np.isfinite(result.score),
)
for _name, _given in {
    "neighborhood": lambda x, labels, epsilon, n, generator: np.repeat(x[:, None], n, axis=1),
    "transform": lambda shares: shares,
    "weight": lambda rows, epsilons: np.ones(len(epsilons)),
}.items():
    # What the user's function returns is malformed; the error names the function.
    add(
        f"RobustnessScore of a {_name}",
        lambda own=_name, **parameters: scorers.RobustnessScore(
            epsilons=[0.1, 0.2],
            n_samples=3,
            random_state=0,
            **{own: lambda *arguments: parameters[own]},
        ).evaluate(model(), X, Y),
        partial(lambda name, own: {name: own(*_ARGUMENTS[name])}, _name, _given),
        {_name: "value"},
        lambda result, call: np.isfinite(result.score),
    )
_ARGUMENTS = {
    "neighborhood": (X, Y, 0.1, 3, None),
    "transform": (np.ones((12, 3)),),
    "weight": (X, np.array([0.1, 0.2])),
}

# ---- estimators and training ------------------------------------------------------------------

_WEIGHTS = np.linspace(0.5, 1.0, len(Y))
add(
    "RobustClassifier.fit with weights",
    lambda sample_weight, class_weight: skrobust.RobustClassifier(
        hidden_layer_sizes=4, max_epochs=1, random_state=0, class_weight=class_weight
    ).fit(X, Y, sample_weight=sample_weight),
    lambda: {"sample_weight": _WEIGHTS, "class_weight": "balanced"},
    {"sample_weight": "value", "class_weight": "value"},
    _is_trained,
)
add(
    "RobustClassifier.partial_fit",
    lambda **arguments: skrobust.RobustClassifier(
        hidden_layer_sizes=4, random_state=0
    ).partial_fit(**arguments),
    lambda: {"X": X, "y": Y, "classes": [0, 1, 2], "sample_weight": None},
    _DATA | {"classes": "value", "sample_weight": "value"},
    lambda result, call: np.isfinite(
        result.predict_proba(np.full((1, result.n_features_in_), 0.5))
    ).all(),
)
add(
    "CertifiedTraining of a property",
    lambda kind, epsilon, norm, method: fitted(
        training=training.CertifiedTraining(
            method, ramp_epochs=1, property=getattr(properties, kind)(epsilon, norm=norm)
        )
    ),
    lambda: {
        "kind": "ClassificationRobustness",
        "epsilon": 0.05,
        "norm": "linf",
        "method": "crown-ibp",
    },
    dict.fromkeys(("epsilon", "norm", "method"), "value"),
    _is_trained,
)
_EXPRESSIVE = {
    "method": "sabr",
    "alpha": 0.5,
    "ramp_epochs": 1,
    "ramp": "smooth",
    "radius_factor": 1.2,
    "initialization": "ibp",
    "ramp_regularization": 0.5,
    "l1": 1e-4,
    "attack": None,
}
add(
    "CertifiedTraining",
    lambda **parameters: fitted(
        training=training.CertifiedTraining(
            **parameters, property=properties.ClassificationRobustness(0.05)
        )
    ),
    lambda: dict(_EXPRESSIVE),
    dict.fromkeys(_EXPRESSIVE, "value"),
    _is_trained,
)
_DISTANCES = {
    "margin": 2.0,
    "p_start": 4.0,
    "p_end": 8.0,
    "final": 0.5,
    "weight_start": 0.1,
    "weight_end": 0.01,
    "scale_lr": 0.01,
    "decay": "cosine",
}
add(
    "LinfDistanceTraining",
    lambda **parameters: skrobust.RobustClassifier(
        networks.LinfDistanceNetwork(3, 3, 4, random_state=0),
        max_epochs=1,
        training=training.LinfDistanceTraining(
            **parameters, property=properties.ClassificationRobustness(0.05)
        ),
        random_state=0,
    ).fit(X, Y),
    lambda: dict(_DISTANCES),
    dict.fromkeys(_DISTANCES, "value"),
    _is_trained,
)
add(
    "LinfDistanceNetwork",
    lambda **parameters: networks.LinfDistanceNetwork(**parameters)(
        torch.zeros(2, parameters["n_features"])
    ),
    lambda: {
        "n_features": 3,
        "n_classes": 2,
        "hidden_layer_sizes": (4,),
        "center": 0.5,
        "spread": 0.3,
        "random_state": 0,
    },
    dict.fromkeys(
        ("n_features", "n_classes", "hidden_layer_sizes", "center", "spread", "random_state"),
        "value",
    ),
    lambda result, call: result.isfinite().all(),
)
for _name in ("StandardRobustness", "StrongClassificationRobustness"):
    add(
        f"CertifiedTraining of {_name}",
        lambda property, clean_weight: fitted(
            training=training.CertifiedTraining(
                property=property, clean_weight=clean_weight, ramp_epochs=1
            )
        ),
        partial(
            lambda kind: {"property": kind(0.05), "clean_weight": 0.5}, getattr(properties, _name)
        ),
        {"property": "value", "clean_weight": "value"},
        _is_trained,
    )

# ---- properties and logics --------------------------------------------------------------------

for _kind in (properties.Conjunction, properties.Disjunction):
    add(
        _kind.__name__,
        lambda left, right, kind=_kind: scorers.ConstraintSecurity(
            kind(left, right), attacks.PGD(2), random_state=0
        ).evaluate(model(), X, Y),
        lambda: {"left": CR, "right": properties.StandardRobustness(0.05)},
        {"left": "value", "right": "value"},
        lambda result, call: np.isfinite(result.score),
    )


def _loss_of_atoms(values, strict):
    atom = logics.Atom(values, strict)
    return logics.DL2().loss(logics.Implies(atom, ~atom | atom))


add(
    "Atom",
    _loss_of_atoms,
    lambda: {"values": torch.tensor(X), "strict": False},
    {"values": "value", "strict": "value"},
)


def _read_formula(kind, **parts):
    formula = kind(**parts)
    return torch.cat([logics.STL().loss(formula), formula.holds()])


def _atom():
    return logics.Atom(torch.tensor(X) - 0.5)


for _name, _parts in {
    "And": ("left", "right"),
    "Or": ("left", "right"),
    "Implies": ("left", "right"),
    "Not": ("operand",),
}.items():
    add(
        f"{_name} of formulas",
        partial(_read_formula, getattr(logics, _name)),
        lambda parts=_parts: {part: _atom() for part in parts},
        dict.fromkeys(_parts, "value"),
        _is_finite,
    )
for _logic in (logics.DL2(), logics.STL(), logics.Yager()):
    add(
        f"{type(_logic).__name__}.loss",
        lambda formula, logic=_logic: logic.loss(formula),
        lambda: {"formula": _atom()},
        {"formula": "value"},
        _is_finite,
    )

# ---- verifiers and constants ------------------------------------------------------------------

add(
    "LipschitzBounds",
    lambda method, property: verification.LipschitzBounds(method).verify(
        model(), X, property=property
    ),
    lambda: {"method": "norm-product", "property": properties.LipschitzRobustness(0.05)},
    {"method": "value", "property": "value"},
)
for _method in ("norm-product", "lipsdp"):
    add(
        f"lipschitz_bound by {_method}",
        partial(verification.lipschitz_bound, LogisticRegression().fit(X, Y), method=_method),
        lambda: {"norm": "l2", "X": None, "epsilon": None, "bounds": (0.0, 1.0)},
        dict.fromkeys(("norm", "X", "epsilon", "bounds"), "value"),
        lambda result, call: np.isfinite(result) and result >= 0,
    )

# ---- the doors of those who extend ------------------------------------------------------------

add(
    "as_network",
    lambda estimator, input_shape: networks.as_network(estimator, input_shape=input_shape),
    lambda: {"estimator": model(), "input_shape": None},
    {"estimator": "value", "input_shape": "value"},
)
add(
    "read_graph",
    lambda network, n_features: graphs.read_graph(network, n_features),
    lambda: {"network": module(), "n_features": 3},
    {"network": "value", "n_features": "value"},
)


@cache
def _stated():
    graph = graphs.read_graph(network(), 3)
    x = network().rows(X).double()
    rows = CR.conclusion(graph(x), torch.as_tensor(Y)).sufficient()
    return graph, CR.outer_ball(x), rows


add(
    "bound_rows",
    lambda **arguments: bounds.bound_rows(*_stated(), **arguments),
    lambda: {"method": "crown", "n_steps": 2},
    {"method": "value", "n_steps": "value"},
    _is_finite,
)
add(
    "forward_error",
    lambda dtype: bounds.forward_error(*_stated()[:2], dtype=dtype),
    lambda: {"dtype": torch.float32},
    {"dtype": "value"},
    _is_finite,
)


@cache
def _bent(kind):
    """A small network of smooth units: of scikit-learn, or of torch."""
    if kind == "tanh":
        return MLPClassifier(5, activation=kind, solver="lbfgs", random_state=0).fit(X, Y)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        units = {"gelu": torch.nn.GELU(), "softplus": torch.nn.Softplus()}
        parts = (torch.nn.Linear(3, 5), units[kind], torch.nn.Linear(5, 3))
        return skrobust.TorchClassifier(torch.nn.Sequential(*parts).double(), [0, 1, 2])


def _bounded(kind, X, y, property):
    return verification.Exact(max_domains=20).verify(_bent(kind), X, y, property=property)


for _kind in ("tanh", "gelu", "softplus"):
    add(
        f"Exact over {_kind}",
        partial(_bounded, _kind),
        lambda: {"X": X, "y": Y, "property": CR},
        {**_DATA, "property": "value"},
        lambda result, call: not np.isnan(result.lower).any(),
    )


@cache
def _evidence_folder():
    place = folder("evidence")
    verification.Bounds().verify(model(), X, Y, property=CR, evidence=place)
    return place


add(
    "evidence.check",
    lambda **arguments: evidence.check(**arguments),
    lambda: {"folder": _evidence_folder(), "estimator": model(), "exact": False},
    dict.fromkeys(("folder", "estimator", "exact"), "value"),
    lambda result, call: call.replaced or (len(result.files) > 0 and result.is_accepted),
)
add(
    "Target",
    lambda **arguments: attacks.PGD(2).search(attacks.Target(**arguments)),
    lambda: {
        "network": network(),
        "property": CR,
        "x": network().rows(X),
        "labels": torch.as_tensor(Y),
    },
    dict.fromkeys(("network", "property", "x", "labels"), "value"),
)
add(
    "confirm",
    lambda points: attacks.confirm(
        attacks.Target(network(), CR, network().rows(X), torch.as_tensor(Y)), points
    ),
    lambda: {"points": X},
    {"points": "array"},
)

# ---- statistics, data sets, displays ----------------------------------------------------------

for _name, _given in {
    "clopper_pearson": {"n_successes": 3, "n": 10},
    "hoeffding": {"values": [0.1, 0.4]},
    "empirical_bernstein": {"values": [0.1, 0.4]},
    "beta_mixture": {"n_successes": 3, "n": 10},
    "sample_size": {"tolerance": 0.1},
    "attainable_tolerance": {"n": 100},
    "anytime_rule": {"tolerance": 0.3},
    "sequential_rule": {"tolerance": 0.4},
}.items():
    _function = getattr(statistics, _name)
    add(
        _name,
        _function,
        partial(dict, _given),
        {name: "value" for name in parameters_of(_function)},
        lambda result, call: "nan" not in repr(result),
    )


def _add_methods(rule, n):
    """Add the methods of a stopping rule, which says when to stop among `n` samples or more."""
    counts = {"n_successes": 3, "n": n}
    given = {
        "stops": counts,
        "half_width": counts,
        "interval": counts,
        "earliest_stop": counts,
        "first_stop": {"outcomes": [True, False]},
        "coverage": {"share": 0.9},
        "mean_samples": {"share": 0.9},
    }
    for name, arguments in given.items():
        if hasattr(rule, name):
            add(
                f"{type(rule).__name__}.{name}",
                getattr(rule, name),
                partial(dict, arguments),
                dict.fromkeys(arguments, "value"),
                lambda result, call: "nan" not in repr(result),
            )


_add_methods(statistics.sequential_rule(0.4), 4)
_add_methods(statistics.anytime_rule(0.3), 4)


@cache
def _data_home():
    """Return a folder with a few images of each data set."""
    place = folder("data")
    for name, shape in {
        "mnist": (28, 28),
        "fashion_mnist": (28, 28),
        "cifar10": (32, 32, 3),
        "gtsrb10": (48, 48),
        "svhn": (32, 32, 3),
    }.items():
        images, labels = np.zeros((2, *shape), dtype=np.uint8), np.arange(2)
        np.savez(
            place / f"{name}.npz", X_train=images, y_train=labels, X_test=images, y_test=labels
        )
    images = np.zeros((2, 28, 28), dtype=np.uint8)
    np.savez(place / "mnist_c.npz", y=np.arange(2), **dict.fromkeys(CORRUPTIONS, images))
    return str(place)


for _name in ("load_digits", "fetch_mnist", "fetch_fashion_mnist", "fetch_cifar10",
              "fetch_gtsrb", "fetch_mnist_c", "fetch_svhn"):  # fmt: skip
    _function = getattr(datasets, _name)
    _names = parameters_of(_function)
    add(
        _name,
        _function,
        partial(lambda names: {"data_home": _data_home()} if "data_home" in names else {}, _names),
        {name: "value" for name in _names if name != "data_home"},
    )
