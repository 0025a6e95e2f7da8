"""RobustnessScore against a bare forward pass over as many rows, and its memory.

Fashion-MNIST, 784-100-10, 100 samples for each of 10,000 images and each radius, one thread.
The bare pass runs the same network on one ready-made batch again and again.
"""

import argparse

import torch
from _timing import compare, header
from sampling import peak_above_baseline

from skrobust import RobustClassifier
from skrobust.datasets import fetch_fashion_mnist
from skrobust.networks import as_network
from skrobust.scorers import RobustnessScore

CASES = {
    "share, linf, one radius": ("uniform-share", [0.1], "linf"),
    "share, l2, one radius": ("uniform-share", [2.0], "l2"),
    "margin, linf, five radii": ("R2", [0.05, 0.1, 0.15, 0.2, 0.25], "linf"),
    "margin, l2, five radii": ("R2", [0.5, 1.0, 1.5, 2.0, 2.5], "l2"),
}


def main(n_images, n_samples, repeats):
    X, y = fetch_fashion_mnist(subset="test", return_X_y=True)
    model = RobustClassifier(max_epochs=2, random_state=0).fit(X, y)
    X, y = X[:n_images], y[:n_images]
    network = as_network(model)
    batch = network.rows(X)[:2000]
    scorers = {
        claim: RobustnessScore.preset(
            name, epsilons, norm=norm, attack=None, n_samples=n_samples, random_state=0
        )
        for claim, (name, epsilons, norm) in CASES.items()
    }
    # First of all, while the allocator holds nothing from earlier runs.
    torch.set_num_threads(1)
    for claim, scorer in scorers.items():
        peak = peak_above_baseline(lambda scorer=scorer: scorer(model, X))
        print(f"Memory, {claim}: {peak:.0f} MiB")
    print()
    header()
    for claim, scorer in scorers.items():
        n_rows = n_images * n_samples * len(CASES[claim][1])

        def forward(n_rows=n_rows):
            with torch.no_grad():
                for _ in range(n_rows // len(batch)):
                    network(batch)

        compare(claim, lambda scorer=scorer: scorer(model, X), forward, repeats=repeats)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=10000)
    parser.add_argument("--samples", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    main(arguments.images, arguments.samples, arguments.repeats)
