"""A search over regimes and radii, and a sweep of slow points, with one worker and with two.

Digits, 64-100-100-10: `GridSearchCV` over `training` and the radius that is trained for, five
folds, scored by accuracy and security; and the verdicts of `Exact` at a radius where many points
take long. Workers are joblib's processes of one thread each. "Warm" ones were started before the
clock, "cold" ones have torch and scikit-learn still to import. The ratio of each pair of runs
counts, and both must come to the same scores and verdicts.

The clock tells the truth on a machine with two cores without other work only. What a second worker
costs shows on any: the processor's seconds of all processes, with one worker and with two. Two
times their ratio is what two workers could reach without a moment of idleness; and how long one
waits for the other at the end follows from the seconds of the single fits and points, handed out
in their order. "Expected" is both together.
"""

import argparse
import heapq
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
    """Return the scores of the candidates, and the seconds of each of 30 fits."""
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
    table = found.cv_results_
    seconds = np.repeat(table["mean_fit_time"] + table["mean_score_time"], 5)
    return [table[f"mean_test_{name}"] for name in scoring], seconds


def sweep(n_jobs, model, X, y):
    """Return the verdicts of a verifier whose work is limited, and the seconds of each."""
    property = ClassificationRobustness(0.1)
    scorer = ConstraintSatisfaction(
        property, Exact(max_domains=2000), n_jobs=n_jobs, random_state=0
    )
    result = scorer.evaluate(model, X, y)
    return [result.verdicts], result.seconds


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
    """Run with one worker, then with two; return what both took, and what is to be expected."""
    if is_cold:
        get_reusable_executor().shutdown(wait=True)
    (one, seconds), first = run(work, 1)
    (two, _), second = run(work, 2)
    for found, other in zip(one, two, strict=True):
        np.testing.assert_array_equal(found, other)
    return first, second, first.cpu / second.cpu * spread(seconds)


def spread(seconds, n_workers=2):
    """Return the speed-up of workers of which each takes the next task as soon as it is idle."""
    loads = [0.0] * n_workers
    for each in seconds:
        heapq.heapreplace(loads, loads[0] + each)
    return sum(loads) / max(loads)


def report(name, runs):
    ones, twos, expected = zip(*runs, strict=True)
    ratios = [one.clock / two.clock for one, two in zip(ones, twos, strict=True)]
    numbers = " | ".join(
        f"{statistics.median(getattr(each, kind) for each in side):.1f}"
        for kind in ("clock", "cpu")
        for side in (ones, twos)
    )
    spans = (
        f"{statistics.median(values):.2f} ({min(values):.2f}-{max(values):.2f})"
        for values in (ratios, expected)
    )
    print(f"| {name} | {numbers} | {' | '.join(spans)} |", flush=True)


def main(epochs, repeats, n_points):
    torch.set_num_threads(1)
    X, y = load_digits(return_X_y=True)
    hard = RobustClassifier(hidden_layer_sizes=(100, 100), max_epochs=20, random_state=0)
    hard.fit(X[n_points:], y[n_points:])
    works = {
        f"search, 30 fits of {epochs} epochs": lambda n: search(n, epochs, X, y),
        f"sweep, {n_points} points": lambda n: sweep(n, hard, X[:n_points], y[:n_points]),
    }
    print("| | one worker, s | two, s | one, CPU s | two, CPU s | one / two | expected |")
    print("|---|---|---|---|---|---|---|")
    with joblib.parallel_config("loky", inner_max_num_threads=1):
        for name, work in works.items():
            for state, times in (("cold", 1), ("warm", repeats)):
                runs = [pair(work, state == "cold") for _ in range(times)]
                report(f"{name}, {state}", runs)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--points", type=int, default=100)
    arguments = parser.parse_args()
    main(arguments.epochs, arguments.repeats, arguments.points)
