"""PGD-40 constraint security against Foolbox's LinfPGD with the same steps.

Fashion-MNIST, 784-100-10, classification robustness at epsilon = 0.1, 1,000 test images, one
thread. Foolbox drives the cross-entropy, as it does by default, from random starts.
"""

import argparse

import foolbox
import torch
from _timing import compare, header

from skrobust import RobustClassifier
from skrobust.attacks import PGD
from skrobust.datasets import fetch_fashion_mnist
from skrobust.networks import as_network
from skrobust.properties import ClassificationRobustness
from skrobust.scorers import ConstraintSecurity
from skrobust.training import AdversarialTraining

EPSILON, N_STEPS = 0.1, 40


def main(n_images, n_train, repeats):
    torch.set_num_threads(1)
    X, y = fetch_fashion_mnist(subset="train", return_X_y=True)
    X_test, y_test = fetch_fashion_mnist(subset="test", return_X_y=True)
    X_test, y_test = X_test[:n_images], y_test[:n_images]
    property = ClassificationRobustness(EPSILON)
    header()
    for regime in (None, AdversarialTraining(PGD(5, objective="cross-entropy"))):
        model = RobustClassifier(
            property=property, training=regime, max_epochs=3, lr=1e-3, random_state=0
        ).fit(X[:n_train], y[:n_train])
        name = "adversarial training" if regime else "standard training"
        one_network(name, model, property, X_test, y_test, repeats)


def one_network(name, model, property, X, y, repeats):
    network = as_network(model)
    peer = foolbox.PyTorchModel(network.module, bounds=(0, 1), device="cpu")
    attack = foolbox.attacks.LinfPGD(steps=N_STEPS)
    x, labels = network.rows(X), network.encode(y)
    found = {}

    def foolbox_pgd():
        found["foolbox"] = attack(peer, x, labels, epsilons=EPSILON)[2].float().mean().item()

    for objective in ("margin", "cross-entropy"):
        scorer = ConstraintSecurity(property, PGD(N_STEPS, objective=objective), random_state=0)

        def ours(scorer=scorer):
            found["ours"] = 1 - scorer(model, X, y)

        compare(f"{name}, {objective}", ours, foolbox_pgd, repeats=repeats)
        print(
            f"| success: ours {found['ours']:.3f}, Foolbox {found['foolbox']:.3f} | | | |",
            flush=True,
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--train", type=int, default=60000)
    parser.add_argument("--repeats", type=int, default=7)
    arguments = parser.parse_args()
    main(arguments.images, arguments.train, arguments.repeats)
