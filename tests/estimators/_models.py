"""Small classifiers that several test files train."""

import warnings

import torch

from skrobust import RobustClassifier
from skrobust.attacks import LinearBoundary
from skrobust.estimators import AdversarialFineTuning
from skrobust.properties import ClassificationRobustness
from skrobust.training import (
    AdversarialTraining,
    ConstraintTraining,
    DataAugmentation,
    StandardTraining,
)

CR = ClassificationRobustness
REGIMES = [
    StandardTraining(),
    DataAugmentation(),
    AdversarialTraining(),
    ConstraintTraining(),
]


def small(**params):
    defaults = {"hidden_layer_sizes": 8, "max_epochs": 3, "random_state": 0, "batch_size": 20}
    return RobustClassifier(**(defaults | params))


def tuning(estimator=None, attack=None, rounds=1, **params):
    estimator = small(max_epochs=20, lr=0.05) if estimator is None else estimator
    defaults = {"margin": 0.0, "n_epochs": 2, "random_state": 0}
    attack = LinearBoundary() if attack is None else attack
    return AdversarialFineTuning(estimator, attack, rounds, **(defaults | params))


def weights(model):
    return [p.detach().clone() for p in model.net_.module_.parameters()]


def same(first, second):
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def convolutional(width=2, n_classes=2):
    return torch.nn.Sequential(
        torch.nn.Conv2d(1, width, 2),
        torch.nn.ReLU(),
        torch.nn.Flatten(),
        torch.nn.Linear(width, n_classes),
    )


def compiled(module):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own, when it is first asked to compile
        return torch.compile(module)


def scripted(module):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.jit.script(module)
