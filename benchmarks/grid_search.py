"""A search over regimes and radii, and a sweep of slow points, with one worker and with two.

Digits, 64-100-100-10: `GridSearchCV` over `training` and the radius that is trained for, five
folds, scored by accuracy and security; and the verdicts of `Exact` at a radius where many points
take long. Workers are joblib's processes of one thread each. "Warm" ones were started before the
clock, "cold" ones have torch and scikit-learn still to import. The ratio of each pair of runs
counts, and both must come to the same scores and verdicts.

The clock tells the truth on a machine with two cores without other work only. What a second worker
costs shows on any: the processor's seconds of all processes, with one worker and with two. Two
times their ratio is what two workers could reach without a moment of idleness.
"""

import argparse
import statistics
import time
from dataclasses import dataclass

import joblib
import numpy as np
import psutil
import torch
from joblib.externals.loky import get_reusable_executor
from sklearn.model_selection import GridSearchCV

from skrobust import RobustClassifier
from skrobust.attacks import PGD
from skrobust.datasets import load_digits
from skrobust.properties import ClassificationRobustness
from skrobust.scorers import ConstraintSatisfaction, ConstraintSecurity
from skrobust.training import AdversarialTraining, StandardTraining, TradesTraining
from skrobust.verification import Exact


@dataclass
class Taken:
    """Seconds of one run: by the clock, and of the processor in all processes."""

    clock: float
    cpu: float


def search(n_jobs, epochs, X, y):
    """Return the scores of the candidates; 30 fits."""
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
    found = GridSearchCV(model, grid, scoring=scoring, refit=False, cv=5, n_jobs=n_jobs).fit(X, y)
    return [found.cv_results_[f"mean_test_{name}"] for name in scoring]


def sweep(n_jobs, model, X, y):
    """Return the verdicts of a complete verifier whose work is limited."""
    property = ClassificationRobustness(0.1)
    scorer = ConstraintSatisfaction(
        property, Exact(max_domains=2000), n_jobs=n_jobs, random_state=0
    )
    return [scorer.evaluate(model, X, y).verdicts]


def run(work, n_jobs):
    """Return what some work gives, and the seconds that it took."""
    processes = [psutil.Process(), *psutil.Process().children(recursive=True)]
    before = {process.pid: busy(process) for process in processes}
    start = time.perf_counter()
    found = work(n_jobs)
    clock = time.perf_counter() - start
    processes = [psutil.Process(), *psutil.Process().children(recursive=True)]
    cpu = sum(busy(process) - before.get(process.pid, 0.0) for process in processes)
    return found, Taken(clock, cpu)


def busy(process):
    times = process.cpu_times()
    return times.user + times.system


def pair(work, is_cold):
    """Run with one worker, then with two; return what both took."""
    if is_cold:
        get_reusable_executor().shutdown(wait=True)
    one, first = run(work, 1)
    two, second = run(work, 2)
    for found, other in zip(one, two, strict=True):
        np.testing.assert_array_equal(found, other)
    return first, second


def report(name, pairs):
    ratios = [one.clock / two.clock for one, two in pairs]
    bounds = [2 * one.cpu / two.cpu for one, two in pairs]
    clocks, cpus = (
        [
            statistics.median(getattr(side, kind) for side in sides)
            for sides in zip(*pairs, strict=True)
        ]
        for kind in ("clock", "cpu")
    )
    numbers = " | ".join(f"{value:.1f}" for value in (*clocks, *cpus))
    print(
        f"| {name} | {numbers} | {statistics.median(ratios):.2f} "
        f"({min(ratios):.2f}-{max(ratios):.2f}) | {statistics.median(bounds):.2f} |",
        flush=True,
    )


def main(epochs, repeats, n_points):
    torch.set_num_threads(1)
    X, y = load_digits(return_X_y=True)
    hard = RobustClassifier(hidden_layer_sizes=(100, 100), max_epochs=20, random_state=0)
    hard.fit(X[n_points:], y[n_points:])
    works = {
        f"search, 30 fits of {epochs} epochs": lambda n: search(n, epochs, X, y),
        f"sweep, {n_points} points": lambda n: sweep(n, hard, X[:n_points], y[:n_points]),
    }
    print("| | one worker, s | two, s | one, CPU s | two, CPU s | one / two (range) | bound |")
    print("|---|---|---|---|---|---|---|")
    with joblib.parallel_config("loky", inner_max_num_threads=1):
        for name, work in works.items():
            for state, times in (("cold", 1), ("warm", repeats)):
                pairs = [pair(work, state == "cold") for _ in range(times)]
                report(f"{name}, {state}", pairs)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--points", type=int, default=200)
    arguments = parser.parse_args()
    main(arguments.epochs, arguments.repeats, arguments.points)
