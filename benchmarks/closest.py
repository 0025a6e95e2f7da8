"""Closest points that break a property, against adv-lib's minimum-norm attacks.

Fashion-MNIST, 784-100-10, plainly and adversarially trained, L-infinity and L2, 200 test images.
A pass is a forward and a backward one of a sample, and either alone is half a pass; the bisection
at the end of our attacks is counted. The aim is a mean distance no larger than that of any of
adv-lib's with as many passes or more, and, for L-infinity, "polished" radii that are no larger on
any single image. A sample on which an attack fails counts with the farthest distance.

Settings of both sides were chosen on training images that no network was trained on.
"""

import argparse
import sys
import time
import types

import numpy as np
import torch

from skrobust import RobustClassifier
from skrobust.attacks import PGD, Ensemble, FastMinimumNorm, LinearBoundary, Target
from skrobust.datasets import fetch_fashion_mnist
from skrobust.networks import as_network
from skrobust.pointwise import pointwise_robustness
from skrobust.properties import ClassificationRobustness
from skrobust.training import AdversarialTraining


def import_adv_lib():
    """Import adv-lib without what it asks for and does not use here: plots, perceptual losses."""
    for name in ("visdom", "torchvision", "torchvision.models"):
        sys.modules.setdefault(name, types.ModuleType(name))
    sys.modules["torchvision"].models = sys.modules["torchvision.models"]
    from adv_lib import attacks
    from adv_lib.attacks.auto_pgd import minimal_apgd

    return attacks, minimal_apgd


ADV_LIB, MINIMAL_APGD = import_adv_lib()
ORDER = {"linf": float("inf"), "l2": 2}
FARTHEST = {"linf": 1.0, "l2": 28.0}
FIRST_RADIUS = {"linf": 0.2, "l2": 2.0}  # of minimal_apgd, which looks up to twice as far
FMN_STEP = 1.0
SLACK = 1e-5  # relative: the rounding of float32 distances


class Counted:
    """A network that counts passes."""

    def __init__(self, network):
        self.network, self.halves = network, 0

    def __call__(self, x):
        logits = self.network(x)
        self.halves += len(x)
        if logits.requires_grad:
            logits.register_hook(self._count)
        return logits

    def _count(self, gradient):
        self.halves += len(gradient)


def ours(attack):
    def run(network, x, labels, norm):
        property = ClassificationRobustness(FARTHEST[norm], norm=norm)
        return attack.closest(Target(network, property, x, labels)).points

    return run


def apgd(n_radii, n_steps):
    def run(network, x, labels, norm):
        return MINIMAL_APGD(
            network,
            x,
            labels,
            ORDER[norm],
            FIRST_RADIUS[norm],
            binary_search_steps=n_radii,
            targeted_version=True,
            n_iter=n_steps,
        )

    return run


def fmn(network, x, labels, norm):
    return ADV_LIB.fmn(network, x, labels, ORDER[norm], steps=300, α_init=FMN_STEP)


def ddn(network, x, labels, norm):
    # Without the rounding to 256 levels, which no other attack does.
    return ADV_LIB.ddn(network, x, labels, steps=300, levels=None)


OURS = {
    "FastMinimumNorm(targets=3)": ours(FastMinimumNorm(targets=3)),
    "FastMinimumNorm()": ours(FastMinimumNorm()),
    "LinearBoundary()": ours(LinearBoundary()),
    "Ensemble()": ours(Ensemble()),
}
PEERS = {
    "minimal_apgd, targeted, 8x20": apgd(8, 20),
    "minimal_apgd, targeted, 12x60": apgd(12, 60),
    "FMN-300": fmn,
    "DDN-300": ddn,
}


def distances(network, x, labels, points, norm):
    """Return the distances of the points with another label; that of the farthest for others."""
    with torch.no_grad():
        logits = network(points)
    own = logits.gather(1, labels[:, None]).squeeze(1)
    rival = logits.scatter(1, labels[:, None], -torch.inf).amax(dim=1)
    # A tie breaks the property; within the rounding of another batch.
    broken = rival >= own - 1e-5 * logits.abs().amax(dim=1)
    gaps = torch.linalg.vector_norm((points - x).double(), ord=ORDER[norm], dim=1)
    return torch.where(broken, gaps, FARTHEST[norm]).numpy()


def one_network(name, model, X, pairs):
    """Print the rows of one network; return the distances by peers for L-infinity."""
    network = as_network(model)
    x = network.rows(X)
    with torch.no_grad():
        labels = network(x).argmax(dim=1)
    for norm in ORDER:
        found = {}
        for side in (OURS, PEERS):
            for attack, run in side.items():
                if attack == "DDN-300" and norm == "linf":
                    continue
                counted, start = Counted(network), time.process_time()
                torch.manual_seed(0)
                points = run(counted, x, labels, norm).detach()
                seconds = time.process_time() - start
                gaps = found[attack] = distances(network, x, labels, points, norm)
                passes, failures = counted.halves / 2 / len(x), (gaps >= FARTHEST[norm]).sum()
                print(
                    f"| {name}, {norm}, {attack} | {passes:.0f} | {gaps.mean():.5f} | "
                    f"{np.median(gaps):.5f} | {failures} | {1e3 * seconds / len(x):.1f} |",
                    flush=True,
                )
        if norm == "linf":
            pairs[name] = {attack: found[attack] for attack in PEERS if attack in found}


def polished(name, model, X, theirs):
    """Print on how many images a peer is closer than the polished radius, and by how much."""
    start = time.process_time()
    radius = pointwise_robustness(model, X, method="polished", random_state=0).radius
    seconds = time.process_time() - start
    print(
        f"| {name}, polished | {radius.mean():.5f} | | | {1e3 * seconds / len(X):.0f} |",
        flush=True,
    )
    for attack, gaps in theirs.items():
        excess = radius / gaps - 1
        print(
            f"| ... against {attack} | {gaps.mean():.5f} | {(excess > SLACK).sum()} of {len(X)} | "
            f"{max(excess.max(), 0):.2%} | |",
            flush=True,
        )


def main(n_points, n_train, epochs):
    torch.set_num_threads(1)
    X, y = fetch_fashion_mnist(subset="train", return_X_y=True)
    X_test = fetch_fashion_mnist(subset="test", return_X_y=True)[0][:n_points]
    models, theirs = {}, {}
    for name, regime in (
        ("standard", None),
        ("adversarial", AdversarialTraining(PGD(5, objective="cross-entropy"))),
    ):
        models[name] = RobustClassifier(
            property=ClassificationRobustness(0.1),
            training=regime,
            max_epochs=epochs,
            lr=1e-3,
            random_state=0,
        ).fit(X[:n_train], y[:n_train])
    print(
        "| | passes | mean distance | median | failures | ms a point |\n|---|---|---|---|---|---|"
    )
    for name, model in models.items():
        one_network(name, model, X_test, theirs)
    print("\n| | mean radius | farther on | by at most | ms a point |\n|---|---|---|---|---|")
    for name, model in models.items():
        polished(name, model, X_test, theirs[name])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--points", type=int, default=200)
    parser.add_argument("--train", type=int, default=50000)
    parser.add_argument("--epochs", type=int, default=3)
    arguments = parser.parse_args()
    main(arguments.points, arguments.train, arguments.epochs)
