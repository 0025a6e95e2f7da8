"""The networks and regimes of Tibo et al., and how much of each a budget has."""

import math
from dataclasses import dataclass, field

import torch
from _images import SHAPES, images
from torch import nn

from skrobust import RobustClassifier
from skrobust.attacks import FGSM, PGD, Attack, Ensemble, LinearBoundary
from skrobust.estimators import Autoencoder
from skrobust.training import CrossLipschitzTraining, MarginCoTraining, OnManifoldTraining

__all__ = [
    "BUDGETS",
    "MANIFOLD_REGIMES",
    "REGIMES",
    "Budget",
    "Recipe",
    "attacks",
    "autoencoder",
    "classifier",
    "cnn",
    "images",
    "one_radius",
    "residual",
    "training",
]

REGIMES = ("none", "HEIN", "R2")
MANIFOLD_REGIMES = ("R4", "Stutz")


# ---- budgets -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Recipe:
    """How the classifiers of one data set are trained, and on how many images.

    Parameters
    ----------
    sizes : dict
        Arguments of `images`: "n_train" and "n_validation".
    module : {"cnn", "residual"}
        Function of this file that builds the network from the shape of an image.
    module_params : dict
    epochs, lr, batch_size : int, float, int
        By Adam.
    weights : dict of str to tuple of float
        For each regime, the weights that validation images choose from.
    n_margin : int or None
        Test images that are attacked; None is all.
    """

    sizes: dict
    module: str
    module_params: dict
    epochs: int
    lr: float
    batch_size: int
    weights: dict
    n_margin: int | None


@dataclass(frozen=True)
class Budget:
    """How much of everything is done.

    Parameters
    ----------
    recipes : dict of str to Recipe
        By data set.
    corrupted : str or None
        Data set whose networks table 3 measures; None leaves it out.
    manifold : str
        Data set of tables 4 and 5.
    codes : dict
        Arguments of the Autoencoder.
    n_points, sigma : int, float
        Of R4 in training.
    n_scored : int
        Points that R4 is scored with.
    n_manifold : int or None
        Test images that R4 is scored on; None is all.
    adversarial_steps : int
        Of PGD in on-manifold adversarial training.
    pgd_steps : int
        Of PGD in the margins.
    """

    recipes: dict
    corrupted: str | None = "mnist"
    manifold: str = "fashion"
    codes: dict = field(default_factory=dict)
    n_points: int = 10
    sigma: float = 0.06
    n_scored: int = 200
    n_manifold: int | None = 200
    adversarial_steps: int = 5
    pgd_steps: int = 20


# ---- networks ----------------------------------------------------------------------------------


def cnn(input_shape, channels=(16, 32), hidden=64, kernel=5):
    """Return two convolutions of stride 2, a dense layer and the outputs."""
    before, *area = input_shape
    layers = []
    for after in channels:
        layers += [nn.Conv2d(before, after, kernel, stride=2, padding=kernel // 2), nn.ReLU()]
        before, area = after, [(side + 1) // 2 for side in area]
    width = before * area[0] * area[1]
    dense = [nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, 10)]
    return nn.Sequential(*layers, nn.Flatten(), *dense)


class Block(nn.Module):
    """Two convolutions beside a shortcut, which takes every stride-th pixel and pads channels.

    Option A of He et al., "Deep residual learning for image recognition", CVPR 2016, as for
    CIFAR-10.
    """

    def __init__(self, before, after, stride):
        super().__init__()
        self.stride, self.n_new = stride, after - before
        self.first = nn.Conv2d(before, after, 3, stride, padding=1, bias=False)
        self.second = nn.Conv2d(after, after, 3, padding=1, bias=False)
        self.norms = nn.ModuleList([nn.BatchNorm2d(after), nn.BatchNorm2d(after)])

    def forward(self, x):
        inside = self.norms[1](self.second(torch.relu(self.norms[0](self.first(x)))))
        shortcut = x[:, :, :: self.stride, :: self.stride]
        return torch.relu(inside + nn.functional.pad(shortcut, (0, 0, 0, 0, 0, self.n_new)))


def residual(input_shape, n_blocks=3, width=16, stride=1):
    """Return a residual network of 6 `n_blocks` + 2 layers: ResNet-20 by default.

    Parameters
    ----------
    input_shape : tuple of int
    n_blocks : int
        Of each of the three sizes.
    width : int
        Channels of the first size.
    stride : int
        Of the first convolution; ResNet-20 has 1.
    """
    first = nn.Conv2d(input_shape[0], width, 3, stride, padding=1, bias=False)
    layers, before = [first, nn.BatchNorm2d(width), nn.ReLU()], width
    for size in range(3):
        after = width * 2**size
        for block in range(n_blocks):
            layers.append(Block(before, after, 2 if size and not block else 1))
            before = after
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(before, 10))


def classifier(recipe, data, regime, device="cpu", seed=0):
    """Return an unfitted classifier of the images of a data set, by a regime or None."""
    shape = SHAPES[data]
    return RobustClassifier(
        {"cnn": cnn, "residual": residual}[recipe.module],
        module_params={"input_shape": shape} | recipe.module_params,
        input_shape=shape,
        training=regime,
        max_epochs=recipe.epochs,
        lr=recipe.lr,
        batch_size=recipe.batch_size,
        device=device,
        random_state=seed,
    )


def training(budget, name, weight=None):
    """Return the regime of a name; those on the manifold still need their autoencoder."""
    if name == "none":
        return None
    if name == "HEIN":
        return CrossLipschitzTraining(weight)
    if name == "R2":
        return MarginCoTraining(weight)
    if name == "R4":
        return OnManifoldTraining(
            None, method="R4", weight=weight, sigma=budget.sigma, n_points=budget.n_points
        )
    attack = PGD(budget.adversarial_steps, objective="cross-entropy")
    return OnManifoldTraining(None, method="adversarial", attack=attack)


def autoencoder(budget, data, device="cpu", seed=0):
    """Return the unfitted Wasserstein autoencoder, one and the same for all networks."""
    return Autoencoder(
        input_shape=SHAPES[data],
        loss="wasserstein",
        bounds=(0.0, 1.0),
        device=device,
        random_state=seed,
        **budget.codes,
    )


class OneBall(Attack):
    """An attack in one smaller ball, whose points are pulled to the boundary, and nothing more.

    That is equation 14 to the letter: there is no search for a smaller ball.

    Parameters
    ----------
    attack : Attack
    radius : float
    """

    def __init__(self, attack, radius):
        self.attack = attack
        self.radius = radius

    def check(self):
        self.attack.check()
        return self

    def attempt(self, target, *, generator=None, stop_when_broken=True):
        part = target.within(target.x.new_full((len(target),), self.radius))
        return self.attack.attempt(part, generator=generator, stop_when_broken=stop_when_broken)


def attacks(pgd_steps, radius=None):
    """Return the attacks of table 2, in its order.

    With a radius, FGSM and PGD make one run in a ball of it; else they are repeated in ever
    smaller balls.
    """
    members = [("FGSM", FGSM()), ("PGD", PGD(pgd_steps))]
    if radius is not None:
        members = [(name, OneBall(attack, radius)) for name, attack in members]
    return Ensemble([("BG", LinearBoundary()), *members])


def one_radius(data):
    """Return the radius of one ball: a tenth of the diameter of the unit cube."""
    return math.sqrt(math.prod(SHAPES[data])) / 10


# ---- how much of it ----------------------------------------------------------------------------

_SMALL = Recipe(
    sizes={"n_train": 4000, "n_validation": 2000},
    module="cnn",
    module_params={},
    epochs=5,
    lr=1e-3,
    batch_size=32,
    weights={"HEIN": (0.001, 0.003, 0.01), "R2": (0.1, 0.3, 1.0, 3.0), "R4": (0.1, 0.3, 1.0)},
    n_margin=150,
)
_SMALL_RESIDUAL = Recipe(
    sizes={"n_train": 4000, "n_validation": 1000},
    module="residual",
    module_params={"n_blocks": 1, "width": 8, "stride": 2},
    epochs=8,
    lr=5e-3,
    batch_size=32,
    weights={"HEIN": (0.001, 0.01), "R2": (0.03, 0.1, 0.3)},
    n_margin=100,
)
_FULL_WEIGHTS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0)
_FULL = Recipe(
    sizes={"n_train": None, "n_validation": 5000},
    module="cnn",
    module_params={"channels": (32, 64), "hidden": 256},
    epochs=50,
    lr=1e-3,
    batch_size=64,
    weights=dict.fromkeys(("HEIN", "R2", "R4"), _FULL_WEIGHTS),
    n_margin=None,
)
_FULL_RESIDUAL = Recipe(
    sizes={"n_train": None, "n_validation": 5000},
    module="residual",
    module_params={},
    epochs=100,
    lr=1e-3,
    batch_size=128,
    weights=dict.fromkeys(("HEIN", "R2"), _FULL_WEIGHTS),
    n_margin=None,
)
_SMOKE = {
    "sizes": {"n_train": 300, "n_validation": 50},
    "epochs": 6,
    "lr": 1e-2,
    "batch_size": 32,
    "n_margin": 10,
}

BUDGETS = {
    "small": Budget(
        recipes={
            "mnist": _SMALL,
            "fashion": _SMALL,
            "cifar10": _SMALL_RESIDUAL,
            "svhn": _SMALL,
        },
        codes={"n_components": 16, "max_epochs": 15, "lr": 2e-3},
    ),
    "full": Budget(
        recipes={
            "mnist": _FULL,
            "fashion": _FULL,
            "cifar10": _FULL_RESIDUAL,
            "svhn": _FULL,
        },
        codes={"n_components": 32, "hidden_layer_sizes": (32, 64), "max_epochs": 100, "lr": 1e-3},
        n_manifold=None,
        adversarial_steps=10,
        pgd_steps=40,
    ),
    "smoke": Budget(
        recipes={
            "digits": Recipe(
                module="cnn",
                module_params={"channels": (4, 8), "hidden": 16, "kernel": 3},
                weights={"HEIN": (0.01, 0.1), "R2": (0.01, 0.1), "R4": (0.1, 1.0)},
                **_SMOKE,
            )
        },
        corrupted=None,
        manifold="digits",
        codes={"n_components": 4, "hidden_layer_sizes": (4, 8), "max_epochs": 5},
        n_points=3,
        n_scored=20,
        n_manifold=10,
        adversarial_steps=2,
        pgd_steps=2,
    ),
}
