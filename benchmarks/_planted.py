"""Networks with counterexamples planted where attacks do not find them.

In the manner of SoundnessBench (Zhou et al., "SoundnessBench: a soundness benchmark for neural
network verifiers", arXiv 2412.03154): random reference points with random labels; for half of
them a point near the edge of their ball that is trained to be of another class by a margin, while
all points of the balls that gradient descent finds, now and in the last rounds, are trained to
keep their label. The training loop is our own.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

__all__ = ["ACTIVATIONS", "FORMS", "Planted", "build", "train"]

SIDE = 5  # inputs are images of one channel, or rows of as many numbers
CHANNELS = 4  # of each convolution
N_CLASSES = 3
FORMS = ("dense", "convolutional")
ACTIVATIONS = {"ReLU": nn.ReLU, "tanh": nn.Tanh, "sigmoid": nn.Sigmoid}
_GAP = 0.1  # by which planted points are trained to be of the other class
_EDGE = 0.98  # planted points lie at least so far out, as a share of epsilon
_WINDOW = 60  # rounds whose worst points are trained on
_BATCH = 400  # of these points, at random, in a step
_CHECK_EVERY = 100  # rounds


@dataclass(frozen=True, eq=False)
class Planted:
    """A network, and n reference points of which the first have a planted counterexample.

    Parameters
    ----------
    module : torch.nn.Module
        From rows of `SIDE` ** 2 numbers to logits.
    x, labels : ndarray of shape (n, SIDE ** 2), (n,)
    points, targets : ndarray of shape (n_planted, SIDE ** 2), (n_planted,)
        The planted points of the first reference points, and their classes.
    epsilon : float
        Radius of the L-infinity balls; no other bounds.
    """

    module: nn.Module
    x: np.ndarray
    labels: np.ndarray
    points: np.ndarray
    targets: np.ndarray
    epsilon: float


def build(form, activation, width):
    """Return an untrained network of two layers of units, the second one dense."""
    unit = ACTIVATIONS[activation]
    if form == "dense":
        return nn.Sequential(
            nn.Linear(SIDE**2, width),
            unit(),
            nn.Linear(width, width),
            unit(),
            nn.Linear(width, N_CLASSES),
        )
    return nn.Sequential(
        nn.Unflatten(1, (1, SIDE, SIDE)),
        nn.Conv2d(1, CHANNELS, 3, padding=1),
        unit(),
        nn.Flatten(),
        nn.Linear(CHANNELS * SIDE**2, width),
        unit(),
        nn.Linear(width, N_CLASSES),
    )


def train(form, activation, *, n=16, width=64, epsilon=0.1, rounds=600, seed=0):
    """Train a network with planted counterexamples.

    Parameters
    ----------
    form : {"dense", "convolutional"}
    activation : {"ReLU", "tanh", "sigmoid"}
    n : int
        Reference points, with a planted counterexample for the first half of them.
    width : int
        Units of a dense layer.
    epsilon : float
    rounds : int
        At most. It stops early where all planted points have their class, and gradient descent
        has found nothing else for two checks in a row.
    seed : int

    Returns
    -------
    Planted
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        instances = _instances(n, epsilon, torch.Generator().manual_seed(seed))
        module = build(form, activation, width)
        with torch.no_grad():
            _plant(module, form, activation, instances)
        _fit(module, instances, epsilon, rounds)
    module = module.eval().requires_grad_(False)
    return Planted(module, *(part.numpy() for part in instances), epsilon)


def _instances(n, epsilon, generator):
    """Return reference points, their labels, planted points and the classes of these."""
    x = 2 * torch.rand(n, SIDE**2, generator=generator) - 1
    labels = torch.randint(N_CLASSES, (n,), generator=generator)
    other = torch.randint(1, N_CLASSES, (n // 2,), generator=generator)
    size = _EDGE + (1 - _EDGE) * torch.rand(n // 2, SIDE**2, generator=generator)
    signs = torch.randint(2, size.shape, generator=generator) * 2 - 1
    # Inside the ball by more than float32 rounds.
    points = x[: n // 2] + epsilon * (1 - 1e-5) * size * signs
    return x, labels, points, (labels[: n // 2] + other) % N_CLASSES


# What a unit is given at its planted point; at the reference point it is -9 times as much.
_FIRES = {"ReLU": 1.0, "tanh": 2.0, "sigmoid": 3.0}


def _plant(module, form, activation, instances):
    """Start the network with a unit for each planted point, which fires near that point alone.

    It fires in the outermost tenth of the ball in the direction of the planted point, where all
    entries must go at once. Without this, networks that are trained for seconds hide nothing:
    the descent found all planted points of them.
    """
    x, labels, points, targets = instances
    n, fires = len(points), _FIRES[activation]
    layers = [layer for layer in module if hasattr(layer, "weight")]
    if activation == "sigmoid":  # whose slopes are a quarter of those of tanh
        for layer in layers[:-1]:
            layer.weight.mul_(4)
    if form == "dense":
        guards, through, last = layers
    else:
        convolution, guards, last = layers
        _pass_pixels(convolution, activation)
    features = module[: list(module).index(guards)] if form != "dense" else nn.Identity()
    here, center = features(points), features(x[:n])
    way = here - center
    if form != "dense":
        way[:, SIDE**2 :] = 0  # the first channel alone passes on the pixels
    way = way.sign() * (way != 0)
    way = 10 * fires * way / (way * (here - center)).sum(dim=1, keepdim=True)
    guards.weight[:n] = way
    guards.bias[:n] = fires - (way * here).sum(dim=1)
    if form == "dense":
        index = torch.arange(n)
        through.weight[:n] = 0
        gain, shift = {"ReLU": (1, 0), "tanh": (2, 0), "sigmoid": (6, -3)}[activation]
        through.weight[index, index], through.bias[:n] = float(gain), float(shift)
    last.weight[:, :n] = 0
    last.weight[targets, torch.arange(n)] = 6.0
    last.weight[labels[:n], torch.arange(n)] = -6.0
    if activation == "tanh":  # which is -1, and not 0, where it does not fire
        last.bias += last.weight[:, :n].sum(dim=1)


def _pass_pixels(layer, activation):
    """Let the first channel of a convolution pass on the image, in the bend of no unit."""
    scale, shift = {"ReLU": (1.0, 1.5), "tanh": (0.5, 0.0), "sigmoid": (2.0, 0.0)}[activation]
    layer.weight[0] = 0
    layer.weight[0, 0, 1, 1], layer.bias[0] = scale, shift


def _fit(module, instances, epsilon, rounds):
    x, labels, points, targets = instances
    optimizer = torch.optim.Adam(module.parameters(), lr=4e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, rounds, eta_min=2e-4)
    window, quiet = [], 0
    for k in range(rounds):
        window = [*window[1 - _WINDOW :], _worst(module, x, labels, epsilon)]
        found = torch.stack(window).flatten(0, 1)
        index = torch.randint(len(found), (_BATCH,))
        index = torch.cat([index, torch.arange(len(found) - len(x), len(found))])
        kept = nn.functional.cross_entropy(module(found[index]), labels[index % len(x)])
        # The gap is to be reached and no more, so that the planted points stand alone.
        planted = (_GAP - _ahead(module(points), targets)).clamp(min=0).mean()
        optimizer.zero_grad()
        (kept + 5 * planted).backward()
        optimizer.step()
        schedule.step()
        if (k + 1) % _CHECK_EVERY == 0:
            quiet = quiet + 1 if _is_hidden(module, instances, epsilon) else 0
            if quiet == 2:
                return


def _ahead(logits, classes):
    """Return by how much a class is ahead of all others, of shape (n,)."""
    own = logits.gather(1, classes[:, None]).squeeze(1)
    others = logits.scatter(1, classes[:, None], -torch.inf)
    return own - others.amax(dim=1)


def _worst(module, x, labels, epsilon, steps=8, starts=4):
    """Return the worst of the points that gradient descent finds, one for each reference."""
    center, own = x.repeat(starts, 1), labels.repeat(starts)
    point = center + epsilon * (2 * torch.rand_like(center) - 1)
    for k in range(steps):
        point.requires_grad_()
        (gradient,) = torch.autograd.grad(_ahead(module(point), own).sum(), point)
        step = epsilon * (1 - k / steps) * gradient.sign()
        point = center + (point.detach() - step - center).clamp(-epsilon, epsilon)
    with torch.no_grad():
        ahead = _ahead(module(point), own).view(starts, -1)
    return point.view(starts, *x.shape)[ahead.argmin(dim=0), torch.arange(len(x))]


def _is_hidden(module, instances, epsilon):
    """Return whether all planted points stand, and a longer descent finds nothing else."""
    x, labels, points, targets = instances
    with torch.no_grad():
        if (_ahead(module(points), targets) <= 0).any():
            return False
    worst = _worst(module, x, labels, epsilon, steps=30, starts=20)
    with torch.no_grad():
        return bool((_ahead(module(worst), labels) > 0).all())
