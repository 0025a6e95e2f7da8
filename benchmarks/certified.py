"""CertifiedTraining on Fashion-MNIST, 784-30-10: what is proved, at which accuracy.

The whole training set, and the whole test set; classification robustness in the L-infinity norm.
Bounds, then Exact, one thread. The best of the networks of Casadio et al. (2022), trained with
a Lipschitz constraint, satisfies it on 34.0 % of 200 images at epsilon = 0.1.
"""

import argparse
import time

import torch

from skrobust import RobustClassifier
from skrobust.datasets import fetch_fashion_mnist
from skrobust.properties import ClassificationRobustness
from skrobust.training import CertifiedTraining
from skrobust.verification import Bounds, Exact


def main(options):
    X, y = fetch_fashion_mnist(subset="train", return_X_y=True)
    X_test, y_test = fetch_fashion_mnist(subset="test", return_X_y=True)
    property = ClassificationRobustness(options.epsilon)
    start = time.perf_counter()
    model = RobustClassifier(
        hidden_layer_sizes=(30,),
        property=property,
        training=CertifiedTraining(
            ramp_epochs=options.ramp_epochs, clean_weight=options.clean_weight
        ),
        max_epochs=options.epochs,
        batch_size=options.batch_size,
        lr=options.lr,
        random_state=options.seed,
    ).fit(X, y)
    print(f"Training: {time.perf_counter() - start:.0f} s")
    print(f"Accuracy on {len(X_test)} test images: {model.score(X_test, y_test):.1%}\n")
    X_test, y_test = X_test[: options.images], y_test[: options.images]
    print("| verifier | verified | falsified | unknown | s |\n|---|---|---|---|---|")
    for verifier in (Bounds("ibp"), Bounds(), Exact()):
        start = time.perf_counter()
        found = verifier.verify(
            model, X_test, y_test, property=property, timeout=options.timeout, random_state=0
        )
        seconds = time.perf_counter() - start
        shares = [(found.verdicts == v).mean() for v in ("verified", "falsified", "unknown")]
        shares = " | ".join(f"{share:.1%}" for share in shares)
        print(f"| {verifier!r} | {shares} | {seconds:.2f} |", flush=True)


if __name__ == "__main__":
    torch.set_num_threads(1)
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epsilon", type=float, default=0.1)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--timeout", type=float, default=60.0, help="seconds a point")
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--ramp-epochs", type=int, default=15)
    parser.add_argument("--clean-weight", type=float, default=0.5)
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--seed", type=int, default=0)
    main(parser.parse_args())
