"""The public entries that are given malformed arguments, each on a small model."""

import inspect
import tempfile
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path

import numpy as np
import torch
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.neural_network import MLPClassifier
from sklearn.tree import DecisionTreeClassifier

import skrobust
from skrobust import (
    attacks,
    logics,
    networks,
    properties,
    scorers,
    training,
    verification,
)
from skrobust.properties import ClassificationRobustness

__all__ = [
    "CR",
    "ENTRIES",
    "SCORERS",
    "Entry",
    "X",
    "Y",
    "add",
    "fitted",
    "folder",
    "model",
    "module",
    "network",
    "parameters_of",
]

_RNG = np.random.default_rng(0)
Y = np.arange(12) % 3
X = np.clip(np.eye(3)[Y] * 0.6 + 0.2 + 0.1 * _RNG.normal(size=(12, 3)), 0.0, 1.0)
CR = ClassificationRobustness(0.05)
OWN = ClassificationRobustness(0.05, reference="prediction")


# Read again and again, so kept as long as the process, which removes it when it ends.
_FOLDER = tempfile.TemporaryDirectory()


def folder(name):
    """Return a folder of this name for the files of the entries."""
    place = Path(_FOLDER.name) / name
    place.mkdir(exist_ok=True)
    return place


@cache
def model():
    """A small network that scikit-learn trained."""
    return MLPClassifier(5, solver="lbfgs", max_iter=50, random_state=0).fit(X, Y)


@cache
def tree():
    """A decision tree."""
    return DecisionTreeClassifier(random_state=0).fit(X, Y)


@cache
def network():
    """The network of `model`."""
    return networks.as_network(model())


def module():
    """Return a module of 3 inputs and 3 outputs."""
    torch_rng = torch.Generator().manual_seed(0)
    layer = torch.nn.Linear(3, 3)
    with torch.no_grad():
        layer.weight.copy_(torch.rand(3, 3, generator=torch_rng))
        layer.bias.copy_(torch.rand(3, generator=torch_rng))
    return layer


@dataclass(frozen=True)
class Entry:
    """A public call.

    Parameters
    ----------
    function : callable
    arguments : callable
        Returns well-formed arguments, as a dict.
    kinds : dict of str to {"value", "array", "labels"}
        What can be replaced, and by what.
    right : callable
        ``right(result, call)`` says whether a result is a right one.
    package : str or None, default=None
        What must be installed, if it is an extra.
    """

    function: object
    arguments: object
    kinds: dict
    right: object = field(default=lambda result, call: True)
    package: str | None = None


def parameters_of(function):
    """Return the names of the parameters of a class or function that have a default or not."""
    return [name for name in inspect.signature(function).parameters if name != "self"]


def _is_score(result, call):
    """Say whether a score is a number, and the same for the same numbers."""
    if not np.isfinite(result.score):
        return False
    return not call.same_numbers or result.score == _scores(call.function)


@cache
def _scores(function):
    return function(X=X, y=Y).score


ENTRIES = {}


def add(name, function, arguments, kinds, right=None, **options):
    options |= {} if right is None else {"right": right}
    ENTRIES[name] = Entry(function, arguments, kinds, **options)


# ---- data given to scorers, attacks, verifiers ------------------------------------------------

SCORERS = {
    "ConstraintAccuracy": scorers.ConstraintAccuracy(CR, n_samples=5, random_state=0),
    "ConstraintSecurity": scorers.ConstraintSecurity(CR, attacks.PGD(3), random_state=0),
    "ConstraintSatisfaction": scorers.ConstraintSatisfaction(CR, random_state=0),
    "AdversarialFrequency": scorers.AdversarialFrequency(0.1, random_state=0),
    "AdversarialSeverity": scorers.AdversarialSeverity(0.1, random_state=0),
    "GlobalRobustness": scorers.GlobalRobustness(OWN, tolerance=0.4, random_state=0),
    "MarginRobustness": scorers.MarginRobustness(random_state=0),
    "RobustnessScore": scorers.RobustnessScore(epsilons=0.1, n_samples=5, random_state=0),
    "RobustnessScore R2": scorers.RobustnessScore.preset("R2", attack=attacks.FGSM()),
    "RobustnessScore example-3": scorers.RobustnessScore.preset("example-3"),
    "CorruptionRobustness": scorers.CorruptionRobustness(
        ["noise", "contrast"], image_shape=(1, 3), random_state=0
    ),
    "ViolationProbability": scorers.ViolationProbability(
        CR, 32, n_particles=8, n_steps=2, max_evaluations=200, random_state=0
    ),
    "ManifoldRobustness": scorers.ManifoldRobustness(PCA(2).fit(X), n_samples=5, random_state=0),
}


class _Evaluate:
    """`evaluate` of a scorer on `model`; equal ones have equal hashes."""

    def __init__(self, scorer):
        self.scorer = scorer

    def __call__(self, X, y):
        return self.scorer.evaluate(model(), X, y)


class _Configured:
    """`evaluate` of a scorer of a class, of given parameters."""

    def __init__(self, kind):
        self.kind = kind

    def __call__(self, **parameters):
        return self.kind(**parameters).evaluate(model(), X, Y)


for _name, _scorer in SCORERS.items():
    add(
        f"{_name}.evaluate",
        _Evaluate(_scorer),
        lambda: {"X": X, "y": Y},
        {"X": "array", "y": "labels"},
        _is_score,
    )
    _own = _scorer.get_params(deep=False)
    add(
        _name,
        _Configured(type(_scorer)),
        partial(dict, _own),
        # Jobs and progress are joblib's, and start processes.
        {name: "value" for name in _own if name not in ("n_jobs", "verbose", "memory")},
        lambda result, call: np.isfinite(result.score),
    )


_METHODS = {
    "FGSM": attacks.FGSM(),
    "PGD": attacks.PGD(3),
    "AutoPGD": attacks.AutoPGD(3),
    "FastMinimumNorm": attacks.FastMinimumNorm(2, targets=2),
    "NearMissPGD": attacks.NearMissPGD(2, n_runs=2, last_steps=2, last_starts=2),
    "LBFGS": attacks.LBFGS(2, max_iter=3),
    "LinearBoundary": attacks.LinearBoundary(2),
    "UniformSampling": attacks.UniformSampling(5),
    "Ensemble": attacks.Ensemble(),
}


def _is_inside(result, call):
    return result.shape == X.shape and np.isfinite(result).all()


def _perturb(attack, X, y, property=CR):
    return attack.perturb(model(), X, y, property=property, random_state=0)


def _perturb_with(kind, **parameters):
    return _perturb(kind(**parameters), X, Y)


for _name, _attack in _METHODS.items():
    add(
        f"{_name}.perturb",
        partial(_perturb, _attack),
        lambda: {"X": X, "y": Y, "property": CR},
        {"X": "array", "y": "labels", "property": "value"},
    )
    _own = _attack.get_params(deep=False)
    add(
        _name,
        partial(_perturb_with, type(_attack)),
        partial(dict, _own),
        {name: "value" for name in _own},
        _is_inside,
    )


_VERIFIERS = {
    "Bounds": verification.Bounds("alpha-crown", n_steps=2),
    "Exact": verification.Exact(),
    "Cascade": verification.Cascade(),
    "TreeVerifier": verification.TreeVerifier(),
    "Marabou": verification.Marabou("rows"),
}
_EXTRAS = {"Marabou": "maraboupy"}


def _verify(verifier, X, y, property=CR, timeout=None):
    estimator = tree() if isinstance(verifier, verification.TreeVerifier) else model()
    return verifier.verify(estimator, X, y, property=property, timeout=timeout)


def verify_with(kind, **parameters):
    return _verify(kind(**parameters), X, Y)


for _name, _verifier in _VERIFIERS.items():
    add(
        f"{_name}.verify",
        partial(_verify, _verifier),
        lambda: {"X": X, "y": Y, "property": CR, "timeout": None},
        {"X": "array", "y": "labels", "property": "value", "timeout": "value"},
        package=_EXTRAS.get(_name),
    )
    _own = _verifier.get_params(deep=False)
    add(
        _name,
        partial(verify_with, type(_verifier)),
        partial(dict, _own),
        {name: "value" for name in _own},
        package=_EXTRAS.get(_name),
    )

# ---- properties -------------------------------------------------------------------------------

_ROWS = ([[1.0, -1.0, 0.0]], [0.5])
_PROPERTIES = {
    "ClassificationRobustness": {},
    "StandardRobustness": {"delta": 1.0},
    "LipschitzRobustness": {"lipschitz": 3.0},
    "StrongClassificationRobustness": {"eta": 0.6},
    "LinearRobustness": {"rows": _ROWS},
    "IndividualFairness": {"protected": [0], "epsilon": 0.01},
    "Monotonicity": {"feature": 0, "class_index": 1},
}


def _attacked(kind, **parameters):
    scorer = scorers.ConstraintSecurity(kind(**parameters), attacks.PGD(2), random_state=0)
    return scorer.evaluate(model(), X, Y)


for _name, _given in _PROPERTIES.items():
    _kind = getattr(properties, _name)
    _own = _kind(**_given).get_params(deep=False)
    add(
        _name,
        partial(_attacked, _kind),
        partial(dict, _own),
        {name: "value" for name in _own},
        lambda result, call: np.isfinite(result.score),
    )


def _within(**parameters):
    domain = properties.Domain(**parameters)
    return _attacked(ClassificationRobustness, epsilon=[0.05, 1.0, 0.05], bounds=domain)


add(
    "Domain",
    _within,
    lambda: {
        "lower": [0.0, -1.0, 0.0],
        "upper": [1.0, 1.0, 1.0],
        "integers": (),
        "one_hot": (),
        "constraints": ([[1.0, 1.0, 1.0]], [9.0]),
        "feature_names": ["a", "b", "c"],
    },
    dict.fromkeys(
        ("lower", "upper", "integers", "one_hot", "constraints", "feature_names"), "value"
    ),
    lambda result, call: np.isfinite(result.score),
)

_OWN_ROWS = (torch.ones(len(X), 1, 3), torch.zeros(len(X), 1))


def _own_rows(returned):
    """Score a property whose callable returns something odd."""

    def rows(logits, labels):
        is_own = returned is _OWN_ROWS  # which has a row for each of all points
        return [part[: len(logits)] for part in returned] if is_own else returned

    property = properties.LinearRobustness(rows)
    return scorers.ConstraintSecurity(property, attacks.PGD(2)).evaluate(model(), X)


# The error names `rows`, which is what the user gave.
add("LinearRobustness of a callable", lambda rows: _own_rows(rows), lambda: {"rows": _OWN_ROWS},
     {"rows": "value"})  # fmt: skip


def _margin(**arguments):
    return CR.margin(**arguments)


add(
    "margin of a property",
    _margin,
    lambda: {"logits": X, "labels": Y, "reference_logits": X},
    {"logits": "array", "labels": "labels", "reference_logits": "array"},
)
for _name in ("DL2", "STL", "Goedel", "Lukasiewicz", "Reichenbach", "Yager"):
    _kind = getattr(logics, _name)
    add(
        _name,
        lambda kind=_kind, **parameters: CR.loss(X, labels=Y, logic=kind(**parameters)),
        partial(dict, _kind().get_params()),
        {name: "value" for name in _kind().get_params()},
        lambda result, call: np.isfinite(result).all(),
    )

# ---- estimators -------------------------------------------------------------------------------


def fitted(X=X, y=Y, **parameters):
    options = {"hidden_layer_sizes": 4, "max_epochs": 1, "random_state": 0} | parameters
    return skrobust.RobustClassifier(**options).fit(X, y)


add(
    "RobustClassifier.fit",
    lambda X, y: fitted(X, y).predict_proba(np.zeros((1, 3)) + 0.5),
    lambda: {"X": X, "y": Y},
    {"X": "array", "y": "labels"},
    lambda result, call: np.isfinite(result).all(),
)
_own = skrobust.RobustClassifier().get_params(deep=False)
add(
    "RobustClassifier",
    lambda **parameters: fitted(**parameters).predict_proba(X),
    lambda: {"hidden_layer_sizes": 4, "max_epochs": 1, "random_state": 0},
    {name: "value" for name in _own if name not in ("verbose", "callbacks")},
    lambda result, call: np.isfinite(result).all(),
)


@cache
def _robust():
    return fitted()


for _method in ("predict", "predict_proba"):
    add(
        f"RobustClassifier.{_method}",
        lambda X, method=_method: getattr(_robust(), method)(X),
        lambda: {"X": X},
        {"X": "array"},
    )
    add(
        f"TorchClassifier.{_method}",
        lambda X, method=_method: getattr(skrobust.TorchClassifier(module(), [0, 1, 2]), method)(
            X
        ),
        lambda: {"X": X},
        {"X": "array"},
    )
add(
    "TorchClassifier",
    lambda module, classes, bounds, input_shape: skrobust.TorchClassifier(
        module, classes, bounds=bounds, input_shape=input_shape
    ).predict(X),
    lambda: {"module": module(), "classes": [0, 1, 2], "bounds": None, "input_shape": None},
    {"module": "value", "classes": "value", "bounds": "value", "input_shape": "value"},
)
_REGIMES = [name for name in training.__all__ if name.endswith(("Training", "Augmentation"))]
_NEEDED = {"OnManifoldTraining": {"autoencoder": PCA(2).fit(X)}}
for _name in _REGIMES:
    _kind = getattr(training, _name)
    _own = _kind(**_NEEDED.get(_name, {})).get_params(deep=False)
    if _own:
        add(
            _name,
            lambda kind=_kind, **parameters: fitted(
                property=CR, training=kind(**parameters)
            ).predict_proba(X),
            partial(dict, _own),
            {name: "value" for name in _own},
            lambda result, call: np.isfinite(result).all(),
        )

# ---- distances, constants, networks -----------------------------------------------------------

_POINTWISE = [
    name
    for name in parameters_of(skrobust.pointwise_robustness)
    if name not in ("estimator", "n_jobs", "verbose", "memory")
]
add(
    "pointwise_robustness",
    lambda **arguments: skrobust.pointwise_robustness(model(), **arguments),
    lambda: {"X": X, "y": Y},
    {name: {"X": "array", "y": "labels"}.get(name, "value") for name in _POINTWISE},
    lambda result, call: not np.isnan(result.radius).any(),
)
add(
    "pointwise_robustness of y",
    lambda X, y: skrobust.pointwise_robustness(model(), X, y=y, method="attack"),
    lambda: {"X": X, "y": Y},
    {"X": "array", "y": "labels"},
)
add(
    "lipschitz_bound",
    lambda **arguments: verification.lipschitz_bound(model(), **arguments),
    lambda: {"norm": "linf", "method": "local", "X": X, "epsilon": 0.1},
    {"norm": "value", "method": "value", "X": "array", "epsilon": "value"},
    lambda result, call: not np.isnan(np.asarray(result)).any(),
)
add(
    "tree_distances",
    lambda X: verification.tree_distances(tree(), X),
    lambda: {"X": X},
    {"X": "array"},
)
for _name in ("ConstraintAccuracy", "ConstraintSecurity", "ConstraintSatisfaction"):
    add(
        f"{_name} of an estimator",
        lambda estimator, scorer=SCORERS[_name]: scorer.evaluate(estimator, X, Y),
        lambda: {"estimator": LogisticRegression().fit(X, Y)},
        {"estimator": "value"},
    )
add(
    "export_query",
    lambda x, label, property: verification.export_query(
        model(), property, x, label, folder("query")
    ),
    lambda: {"x": X[0], "label": 0, "property": CR},
    {"x": "value", "label": "value", "property": "value"},
)


@cache
def _onnx_file():
    return verification.export_query(model(), CR, X[0], 0, folder("onnx"))[0]


add(
    "TorchClassifier.from_onnx",
    lambda **arguments: skrobust.TorchClassifier.from_onnx(**arguments).predict(X),
    lambda: {"path": _onnx_file(), "classes": [0, 1, 2], "bounds": None, "input_shape": None},
    {"path": "value", "classes": "value", "bounds": "value", "input_shape": "value"},
)
