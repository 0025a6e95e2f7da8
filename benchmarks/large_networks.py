"""Exact on ReLU perceptrons of 2, 4 and 6 hidden layers of 256 units, MNIST.

These are the sizes of the fully connected benchmark of the yearly competition of verifiers
(VNN-COMP, "mnist_fc"), with its radii, 0.03 and 0.05, and its number of images. The networks are
trained on the spot, as usual (Adam on the cross-entropy), so that they are not those of the
competition; how they train decides how hard they are: with ``--lr 1e-3`` more units are undecided
at these radii, and fewer points are decided. One thread.

The networks of 6 hidden layers get a sixth of the time a point, for most of their points reach any
limit. The defaults take some 25 minutes; with ``--full``, which gives all the same time, an hour.
"""

import argparse
import time

import numpy as np
import torch

from skrobust import RobustClassifier
from skrobust.datasets import fetch_mnist
from skrobust.properties import ClassificationRobustness
from skrobust.verification import Exact

# Seconds a point for each depth.
TIMEOUTS = {2: 120.0, 4: 120.0, 6: 20.0}


def main(options):
    X, y = fetch_mnist(subset="train", return_X_y=True)
    X_test, y_test = fetch_mnist(subset="test", return_X_y=True)
    print(
        "| hidden layers | accuracy | epsilon | verified | falsified | unknown | decided | "
        "median s | total s |\n|---|---|---|---|---|---|---|---|---|"
    )
    for depth in options.depths:
        timeout = options.timeout or TIMEOUTS.get(depth, 20.0)
        model = RobustClassifier(
            hidden_layer_sizes=(256,) * depth,
            max_epochs=options.epochs,
            lr=options.lr,
            random_state=0,
        ).fit(X, y)
        accuracy = model.score(X_test, y_test)
        right = np.flatnonzero(model.predict(X_test) == y_test)[: options.images]
        for epsilon in options.epsilons:
            verifier, property = Exact(), ClassificationRobustness(epsilon)
            start = time.perf_counter()
            found = verifier.verify(
                model,
                X_test[right],
                y_test[right],
                property=property,
                timeout=timeout,
                random_state=0,
            )
            seconds = time.perf_counter() - start
            count = [
                int((found.verdicts == v).sum()) for v in ("verified", "falsified", "unknown")
            ]
            decided = 1 - count[2] / len(right)
            print(
                f"| {depth}x256, {timeout:g} s a point | {accuracy:.1%} | {epsilon} | "
                f"{count[0]} | {count[1]} | {count[2]} | {decided:.0%} | "
                f"{np.median(found.seconds):.2f} | {seconds:.0f} |",
                flush=True,
            )


if __name__ == "__main__":
    torch.set_num_threads(1)
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--full", action="store_true", help="120 s a point at any depth")
    parser.add_argument("--images", type=int, default=15)
    parser.add_argument("--timeout", type=float, help="seconds a point")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--lr", type=float, default=1e-4)
    parser.add_argument("--depths", type=int, nargs="+", default=[2, 4, 6])
    parser.add_argument("--epsilons", type=float, nargs="+", default=[0.03, 0.05])
    options = parser.parse_args()
    if options.full:
        options.timeout = 120.0
    main(options)
