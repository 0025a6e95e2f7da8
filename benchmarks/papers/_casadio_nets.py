"""The data, properties, regimes and networks of Casadio et al., and how much of each a budget has.

`regimes` is the one place that says how each network is trained. "..., code" marks what the
authors' published code does where the paper's text says something else.
"""

import functools
import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from skrobust import RobustClassifier
from skrobust.attacks import FGSM, PGD, Attack
from skrobust.datasets import fetch_fashion_mnist, fetch_gtsrb, load_digits
from skrobust.logics import DL2
from skrobust.properties import (
    ClassificationRobustness,
    LinearRobustness,
    LipschitzRobustness,
    StandardRobustness,
    StrongClassificationRobustness,
)
from skrobust.training import (
    AdversarialTraining,
    CertifiedTraining,
    ConstraintTraining,
    DataAugmentation,
)

__all__ = [
    "BUDGETS",
    "LARGE_REGIMES",
    "PAPER_REGIMES",
    "REGIMES",
    "SATISFACTION_REGIMES",
    "Budget",
    "images",
    "large_network",
    "network",
    "paper_attack",
    "properties",
    "train",
]

EPSILON = 0.1
PAPER_REGIMES = ("baseline", "RU", "FGSM", "adversarial", "SR loss", "SCR loss", "LR loss")
REGIMES = (*PAPER_REGIMES, "adversarial, code", "SCR loss, code", "certified")
SATISFACTION_REGIMES = ("baseline", "SCR loss", "SR loss", "LR loss", "certified")
LARGE_REGIMES = ("baseline", "RU", "FGSM", "adversarial, FGSM", "SCR loss, code")


@dataclass(frozen=True)
class Budget:
    """How much of everything is done.

    Parameters
    ----------
    data : tuple of str
        Data sets.
    n_train, n_test : int or None
        Images to train on, and to attack; all if None. Accuracy always takes all test images.
    epochs, lr : int, float
        Of the small networks, by Adam, in batches of 128. The small budget has a twentieth of
        the paper's epochs at twenty times its rate, so that their product is the paper's.
    train_steps, train_step_size : int, float
        Of PGD in training.
    attack_steps : int
        Of the paper's attack in evaluation.
    default_attack : Attack or None
        What stands beside it; None is the scorer's own.
    n_satisfied, timeout : int, float
        Test images for the verifier, and its seconds an image.
    n_marabou, marabou_timeout : int, float
        How many of these Marabou is asked for as well.
    n_sampled : int
        Points around each image for constraint accuracy.
    large_data, large_train, large_test, large_epochs, large_lr
        Of the network of 18 layers.
    large_steps, large_step_size : int, float
        Of PGD in its training.
    """

    data: tuple = ("fashion", "gtsrb")
    n_train: int | None = None
    n_test: int | None = 500
    epochs: int = 5
    lr: float = 2e-3
    train_steps: int = 10
    train_step_size: float = 0.02
    attack_steps: int = 50
    default_attack: Attack | None = None
    n_satisfied: int = 200
    timeout: float = 2.0
    n_marabou: int = 3
    marabou_timeout: float = 5.0
    n_sampled: int = 50
    large_data: str = "fashion"
    large_train: int | None = 2000
    large_test: int | None = 100
    large_epochs: int = 4
    large_lr: float = 1e-3
    large_steps: int = 5
    large_step_size: float = 0.04


BUDGETS = {
    "small": Budget(),
    "full": Budget(
        n_test=None,
        epochs=100,
        lr=1e-4,
        train_steps=50,
        train_step_size=0.01,
        timeout=600.0,
        n_marabou=200,
        marabou_timeout=600.0,
        large_train=None,
        large_test=None,
        large_epochs=100,
        large_lr=1e-4,
        large_steps=50,
        large_step_size=0.01,
    ),
    "smoke": Budget(
        data=("digits",),
        n_train=200,
        n_test=10,
        epochs=2,
        lr=5e-3,
        train_steps=1,
        train_step_size=0.1,
        attack_steps=2,
        default_attack=PGD(2),
        n_satisfied=2,
        timeout=0.1,
        n_marabou=1,
        marabou_timeout=0.1,
        n_sampled=2,
        large_data="digits",
        large_train=32,
        large_test=2,
        large_epochs=1,
        large_steps=1,
        large_step_size=0.1,
    ),
}


@functools.cache
def images(data, subset):
    """Return rows of pixels in [0, 1], and labels."""
    if data == "digits":
        return _large_digits(subset)
    fetch = {"fashion": fetch_fashion_mnist, "gtsrb": fetch_gtsrb}[data]
    return fetch(subset=subset, return_X_y=True)


def _large_digits(subset):
    """Return scikit-learn's digits as images of 28 x 28, which the large network can read."""
    X, y = load_digits(return_X_y=True)
    X = np.pad(np.kron(X.reshape(-1, 8, 8), np.ones((1, 3, 3))), ((0, 0), (2, 2), (2, 2)))
    X = X.reshape(len(X), -1).astype(np.float32)
    return (X[:1000], y[:1000]) if subset == "train" else (X[1000:1020], y[1000:1020])


def properties(bounds=(0.0, 1.0)):
    """Return the paper's properties by name; with ``bounds=None`` on its uncut balls."""
    return {
        "CR": ClassificationRobustness(EPSILON, bounds=bounds),
        "SR": StandardRobustness(EPSILON, delta=10.0, bounds=bounds),
        "LR": LipschitzRobustness(EPSILON, lipschitz=10.0, bounds=bounds),
        "SCR": StrongClassificationRobustness(EPSILON, eta=0.52, bounds=bounds),
        "SCR, code": LinearRobustness(true_logit_rows, EPSILON, bounds=bounds, reference="label"),
    }


def true_logit_rows(reference_outputs, labels):
    """The logit of the true class is at least log 0.3: what the published code calls SCR."""
    A = nn.functional.one_hot(labels, reference_outputs.shape[1]).unsqueeze(1)
    return A, torch.full_like(reference_outputs[:, :1], -math.log(0.3))


def paper_attack(n_steps=50):
    """Return the attack of the published code, which follows the largest violation of a step."""
    return PGD(n_steps, step_size=0.01, schedule="constant", objective="smallest-row")


def regimes(n_epochs, n_steps, step_size):
    """Return the regime of each name, and the property that it trains for."""
    known = properties()

    def oracle(objective="smallest-row", **settings):
        return PGD(
            n_steps, step_size=step_size, schedule="constant", objective=objective, **settings
        )

    def constraint():
        # One comparison of one distance, at points that stand still once the property is broken.
        return ConstraintTraining(
            alpha=1.0,
            beta=0.2,
            logic=DL2(conjunction="max"),
            attack=oracle(stop_at_violation=True),
        )

    return {
        "baseline": (None, None),
        "RU": (DataAugmentation(2, "uniform", static=True), known["CR"]),
        "FGSM": (DataAugmentation(2, "fgsm", static=True), known["CR"]),
        "adversarial": (AdversarialTraining(oracle(objective="cross-entropy")), known["CR"]),
        "adversarial, code": (AdversarialTraining(oracle(stop_at_violation=True)), known["SR"]),
        # 1 and 0.2 times the cross-entropy at the image and at a point of FGSM.
        "adversarial, FGSM": (
            AdversarialTraining(FGSM(objective="cross-entropy"), clean_weight=1 / 1.2),
            known["CR"],
        ),
        "SR loss": (constraint(), known["SR"]),
        "SCR loss": (constraint(), known["SCR"]),
        "SCR loss, code": (constraint(), known["SCR, code"]),
        "LR loss": (constraint(), known["LR"]),
        "certified": (CertifiedTraining(ramp_epochs=max(1, n_epochs // 3)), known["CR"]),
    }


def network(budget, regime, hidden, seed):
    """Return an unfitted perceptron of one hidden layer, with outputs cut to [-100, 100]."""
    # Bounds need their time to grow, and an epoch of them is cheap.
    n_epochs = budget.epochs * (3 if regime == "certified" else 1)
    training, property = regimes(n_epochs, budget.train_steps, budget.train_step_size)[regime]
    return RobustClassifier(
        hidden_layer_sizes=(hidden,),
        property=property,
        training=training,
        clamp=(-100.0, 100.0),
        max_epochs=n_epochs,
        batch_size=128,
        lr=budget.lr,
        random_state=seed,
    )


def large_network(budget, regime, seed, device="cpu"):
    """Return the unfitted network of 18 layers of the published code."""
    training, property = regimes(budget.large_epochs, budget.large_steps, budget.large_step_size)[
        regime
    ]
    return RobustClassifier(
        eighteen_layers,
        property=property,
        training=training,
        clamp=(-100.0, 100.0),
        input_shape=(1, 28, 28),
        max_epochs=budget.large_epochs,
        batch_size=128,
        lr=budget.large_lr,
        device=device,
        random_state=seed,
    )


def eighteen_layers():
    """Return the convolutional network that the published code takes over from DL2's."""

    def convolution(before, after, kernel):
        return [nn.Conv2d(before, after, kernel), nn.ReLU(), nn.BatchNorm2d(after)]

    return nn.Sequential(
        *convolution(1, 32, 5),
        *convolution(32, 32, 5),
        nn.MaxPool2d(2),
        nn.Dropout2d(0.2),
        *convolution(32, 64, 3),
        *convolution(64, 64, 3),
        nn.MaxPool2d(2),
        nn.Dropout2d(0.2),
        *convolution(64, 128, 3),
        *convolution(128, 128, 1),
        nn.Flatten(),
        nn.Linear(128, 100),
        nn.ReLU(),
        nn.Linear(100, 10),
    )


def train(model, data, n_train):
    """Fit a model on the first images of a data set; return it."""
    X, y = images(data, "train")
    return model.fit(X[:n_train], y[:n_train])
