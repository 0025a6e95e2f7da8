"""A search over regimes and radii, scored by accuracy and security, with one worker and with two.

Digits, 64-100-100-10: `GridSearchCV` over `training` and the radius that is trained for, five
folds. Workers are joblib's processes of one thread each, started before the clock. The seconds are
those of the clock, so the machine must have two cores without other work; the ratio of each pair
of runs counts, and both must come to the same scores.
"""

import argparse
import statistics
import time

import joblib
import numpy as np
import torch
from sklearn.model_selection import GridSearchCV

from skrobust import RobustClassifier
from skrobust.attacks import PGD
from skrobust.datasets import load_digits
from skrobust.properties import ClassificationRobustness
from skrobust.scorers import ConstraintSecurity
from skrobust.training import AdversarialTraining, StandardTraining, TradesTraining


def search(n_jobs, epochs):
    property = ClassificationRobustness(0.1)
    scoring = {
        "accuracy": "accuracy",
        "security": ConstraintSecurity(property, random_state=0),
    }
    grid = {
        "training": [StandardTraining(), AdversarialTraining(PGD(5)), TradesTraining()],
        "property__epsilon": [0.05, 0.1],
    }
    model = RobustClassifier(
        hidden_layer_sizes=(100, 100), property=property, max_epochs=epochs, random_state=0
    )
    return GridSearchCV(model, grid, scoring=scoring, refit=False, cv=5, n_jobs=n_jobs)


def main(epochs, repeats):
    torch.set_num_threads(1)
    X, y = load_digits(return_X_y=True)
    seconds = {1: [], 2: []}
    scores = {}
    with joblib.parallel_config("loky", inner_max_num_threads=1):
        for n_jobs in seconds:
            search(n_jobs, 1).fit(X, y)
        for _ in range(repeats):
            for n_jobs, taken in seconds.items():
                start = time.perf_counter()
                results = search(n_jobs, epochs).fit(X, y).cv_results_
                taken.append(time.perf_counter() - start)
                scores[n_jobs] = results["mean_test_accuracy"], results["mean_test_security"]
    np.testing.assert_array_equal(scores[1], scores[2])
    ratios = [one / two for one, two in zip(*seconds.values(), strict=True)]
    one, two = (statistics.median(taken) for taken in seconds.values())
    print("| | one worker, s | two, s | one / two (range) |\n|---|---|---|---|")
    print(
        f"| 6 candidates, 5 folds, {epochs} epochs | {one:.1f} | {two:.1f} | "
        f"{statistics.median(ratios):.2f} ({min(ratios):.2f}-{max(ratios):.2f}) |"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    main(arguments.epochs, arguments.repeats)
