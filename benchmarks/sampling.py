"""ConstraintAccuracy against a bare forward pass over as many rows, and its memory.

Fashion-MNIST, 784-100-10, 1,000 samples for each of 10,000 images, one thread. The bare pass
runs the same network on one ready-made batch again and again.
"""

import argparse
import threading
import time

import psutil
import torch
from _timing import compare, header

from skrobust import RobustClassifier
from skrobust.datasets import fetch_fashion_mnist
from skrobust.networks import as_network
from skrobust.properties import ClassificationRobustness
from skrobust.scorers import ConstraintAccuracy


def main(n_images, n_samples, repeats):
    X, y = fetch_fashion_mnist(subset="test", return_X_y=True)
    model = RobustClassifier(max_epochs=2, random_state=0).fit(X, y)
    X, y = X[:n_images], y[:n_images]
    scorer = ConstraintAccuracy(ClassificationRobustness(0.1), n_samples, random_state=0)
    network = as_network(model)
    batch = network.rows(X)[:2000]
    n_rows = n_images * n_samples

    def forward():
        with torch.no_grad():
            for _ in range(n_rows // len(batch)):
                network(batch)

    # First of all, while the allocator holds nothing from earlier runs.
    peak = peak_above_baseline(lambda: scorer(model, X, y))
    print(f"Memory of {n_samples} samples for each of {n_images} images: {peak:.0f} MiB\n")
    header()
    compare(
        f"{n_samples} samples for each of {n_images} images",
        lambda: scorer(model, X, y),
        forward,
        repeats=repeats,
    )


def peak_above_baseline(function):
    """Return the highest resident memory while `function` runs, above that before, in MiB."""
    process = psutil.Process()
    before = peak = process.memory_info().rss
    running = True

    def watch():
        nonlocal peak
        while running:
            peak = max(peak, process.memory_info().rss)
            time.sleep(0.005)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        function()
    finally:
        running = False
        watcher.join()
    return (peak - before) / 2**20


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=10000)
    parser.add_argument("--samples", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    main(arguments.images, arguments.samples, arguments.repeats)
