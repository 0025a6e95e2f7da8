"""What a point costs by each method, and what follows for a million points on many workers.

First the seconds of one core that each method takes for a point, in batches as users have them,
against the width, the depth and the number of features of a network (trained for an epoch on
synthetic classes), and for trees. The radius is the median distance to another label that an
attack finds: about half of the points are falsified, and complete methods have work with the
others. Then the cost of the driver itself: what one task more, and one point more, take in the
process that asks, on joblib's processes and on Dask, whose scheduler runs in that process here.
From both follows how long a million points take on N workers, and whether the workers or the
driver set the pace. Last, the predictions are put to the test, by a tenth of the million (a cheap
score), by ten times as many points as predict them (an expensive one), and by the tasks that
Dask's scheduler has seen.

Seconds are the processor's, of all threads and of child processes.
"""

import argparse
import math
import resource
import subprocess
import sys
import time
import warnings

import numpy as np
import torch
from _driver_costs import DaskTraffic, costs, dask_cluster, evaluate, on, seconds_here
from _scale_methods import (
    FEW,
    FEWEST,
    METHODS,
    TREE_METHODS,
    TREES,
    Question,
    network,
    proved,
    scored,
)

from skrobust._evaluation import _LEFT_TASKS, _TASK_BYTES, _TASK_SECONDS
from skrobust.scorers import ConstraintAccuracy
from skrobust.verification import Exact

BASE = {"features": 64, "width": 64, "depth": 2}
GRID = {"features": (16, 256), "width": (16, 256), "depth": (1, 4)}
MILLION = 1_000_000
WORKERS = (1, 16, 256)
_WAIT = 2.0  # seconds in which the driver does nothing


def main(budget, most, only_base, n_tasks, check_points, hard_points):
    torch.set_num_threads(1)
    base = network(*BASE.values())
    measured = networks(base, budget, most, only_base)
    trees(budget, most)
    driver = drivers(n_tasks)
    million(measured, driver)
    check(base, driver, check_points, hard_points)


# ---- the cost of a point -----------------------------------------------------------------------


def cpu_seconds():
    """Return the processor time of this process and of children that have ended."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def taken(method, question, n):
    """Return the seconds that n points take; the test set is repeated where it is too small."""
    index = np.arange(n) % len(question.X)
    X, y = question.X[index], question.y[index]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of samples that are too few for a tolerance, and limits
        start = cpu_seconds()
        method(question, X, y)
        return cpu_seconds() - start


def cost(method, question, budget, most, chunk_size):
    """Return the seconds a point, of one chunk or of as many as take about `budget` seconds."""
    taken(method, question, min(2, most))  # what happens once
    n = min(most, 256, FEWEST if chunk_size == 1 else chunk_size)
    while True:
        seconds = taken(method, question, n)
        if n >= most or seconds > budget / 3:
            return seconds / n
        n = min(most, int(n * min(8, max(2, budget / max(seconds, 1e-6)))))


def variations(only_base):
    """Yield the title and the sizes of each network."""
    yield "base", BASE
    for name, values in GRID.items():
        for value in () if only_base else values:
            yield f"{name} {value}", BASE | {name: value}


def networks(base, budget, most, only_base):
    """Print the table of networks; return the seconds a point by method, of the base."""
    asked = [
        (title, base if title == "base" else network(*sizes.values()))
        for title, sizes in variations(only_base)
    ]
    sizes = ", ".join(f"{name} {value}" for name, value in BASE.items())
    print(f"Milliseconds a point, one core; base: {sizes}\n")
    return point_costs(asked, METHODS, budget, most)[0]


def trees(budget, most):
    asked = [(title, Question(BASE["features"], build)) for title, build in TREES.items()]
    print(f"Trees of {BASE['features']} features, milliseconds a point\n")
    point_costs(asked, TREE_METHODS, budget, most)


def point_costs(asked, methods, budget, most):
    """Print what each method takes of each question; return the seconds by name, a dict each."""
    columns = [
        {
            name: cost(method, question, budget, min(most, FEW.get(name, most)), chunk_size)
            for name, (chunk_size, method) in methods.items()
        }
        for _, question in asked
    ]
    rows = [
        ["accuracy", *(f"{question.accuracy:.2f}" for _, question in asked)],
        ["radius", *(f"{question.epsilon:.3f}" for _, question in asked)],
    ]
    rows += [[name, *(f"{1e3 * each[name]:.3g}" for each in columns)] for name in methods]
    table(["", *(title for title, _ in asked)], rows)
    return columns


# ---- the cost of the driver --------------------------------------------------------------------


def drivers(n_tasks):
    """Print what the driver takes; return seconds a task and a point, by backend."""
    from distributed import Client

    found = {}
    with on("loky"):
        found["processes"] = costs(n_tasks, BASE["features"])
    with dask_cluster() as cluster, Client(cluster), on("dask"):
        found["Dask"] = costs(n_tasks, BASE["features"])
    start = import_seconds("import skrobust.scorers, skrobust.estimators")
    print(f"A worker imports for {start:.1f} s of its processor before its first task.\n")
    units = {"task": 1e3, "chunk": 1e3, "point": 1e6}
    rows = [
        [name, *(f"{scale * each[key]:.3g}" for key, scale in units.items())]
        for name, each in found.items()
    ]
    table(["in the process that asks", "ms a task", "ms a quick chunk", "µs a point"], rows)
    for each in found.values():
        each["start"] = start
    return found


def import_seconds(statement):
    before = cpu_seconds()
    subprocess.run([sys.executable, "-c", statement], check=True)
    return cpu_seconds() - before


# ---- a million points --------------------------------------------------------------------------


def duration(n_points, n_workers, point, chunk_size, driver):
    """Return seconds until all is done, and the seconds of the driver in them.

    Tasks are as `skrobust._evaluation` makes them: of several chunks where these are quick.
    """
    n_chunks = math.ceil(n_points / chunk_size)
    chunk = point * min(chunk_size, n_points)
    enough, fair = _TASK_SECONDS * n_workers / chunk, n_chunks / (2 * n_workers + _LEFT_TASKS)
    most = _TASK_BYTES // (8 * BASE["features"] * chunk_size)
    together = max(1, int(min(enough, fair, most)))
    if n_workers == 1:
        return n_points * point, 0.0
    driving = n_chunks / together * driver["task"] + n_points * driver["point"]
    working = driver["start"] + n_points * point / n_workers + chunk  # the last one, alone
    return max(driving, working), driving


def million(measured, driver):
    rows = []
    for name, point in measured.items():
        size = METHODS[name][0]
        row = [name, size, hours(MILLION * point)]
        for n_workers in WORKERS[1:]:
            seconds, driving = duration(MILLION, n_workers, point, size, driver["Dask"])
            row += [hours(seconds), f"{driving / seconds:.0%}"]
        rows.append(row)
    heads = [text for n in WORKERS[1:] for text in (f"{n} workers", "of that, driver")]
    print(f"{MILLION:,} points, Dask; 100 % is where the driver sets the pace\n")
    table(["", "chunk", "1 worker", *heads], rows)
    rows = []
    for name, each in driver.items():
        for n_workers in WORKERS[1:]:
            rate, least = 1 / each["task"], 1e3 * n_workers * each["task"]
            lasts = 1e3 * _TASK_SECONDS * n_workers
            row = [f"{value:,.0f}" for value in (rate, least, lasts, 1 / each["point"])]
            rows.append([name, n_workers, *row])
    table(
        ["", "workers", "tasks/s handed out", "least ms a task", "our ms a task", "points/s"],
        rows,
    )


# ---- predictions against runs ------------------------------------------------------------------


def check(base, driver, n_points, n_hard):
    cheap = scored(lambda q: ConstraintAccuracy(q.property, n_samples=10))
    hard = proved(Exact(max_domains=50))
    rows = []
    for name, method, n_small, n in (
        ("ConstraintAccuracy, 10 samples", cheap, 2048, n_points),
        ("Exact(50 domains)", hard, max(1, n_hard // 10), n_hard),
    ):
        n_small = min(n_small, n)
        taken(method, base, min(8, n_small))
        predicted = n * taken(method, base, n_small) / n_small
        doubt = uncertainty(method, base, n_small)
        real = taken(method, base, n)
        seconds = f"{predicted:.1f}", doubt, f"{real:.1f}", f"{real / predicted:.2f}"
        rows.append([name, f"{n_small:,}", f"{n:,}", *seconds])
    print("Predicted from few points, and measured\n")
    table(["", "from points", "points", "predicted, s", "±", "measured, s", "ratio"], rows)
    dask_runs(base, cheap, hard, n_points, n_hard, driver["Dask"])


def uncertainty(method, question, n):
    """Return two standard errors of the mean seconds a point, relative, where points have them."""
    result = method(question, question.X[:n], question.y[:n])
    if not hasattr(result, "seconds"):
        return "-"
    return f"{2 * result.seconds.std() / result.seconds.mean() / math.sqrt(n):.0%}"


def dask_runs(base, cheap, hard, n_points, n_hard, driver):
    """Print the tasks of Dask's scheduler, and what the driver took beside what was predicted.

    To each task and point comes what the process takes that only waits, and looks up in between.
    """
    from distributed import Client

    rows = []
    with dask_cluster() as cluster, Client(cluster) as client, on("dask"):
        evaluate(8, BASE["features"], 1)
        idle = seconds_here(lambda: time.sleep(_WAIT)) / _WAIT
        shared = np.zeros(1_000_000)  # 8 MB, such as a large network
        runs = {
            "ConstraintAccuracy, 10 samples": (n_points, lambda: taken(cheap, base, n_points)),
            "Exact(50 domains)": (n_hard, lambda: taken(hard, base, n_hard)),
            "nothing, 8 MB shared": (
                n_points,
                lambda: evaluate(n_points, BASE["features"], 64, model=shared),
            ),
        }
        for name, (n, run) in runs.items():
            with DaskTraffic(client) as traffic:
                start = time.perf_counter()
                seconds = seconds_here(run)
                waited = time.perf_counter() - start
            n_tasks = len(traffic.tasks)
            predicted = n_tasks * driver["task"] + n * driver["point"] + idle * waited
            sent = f"{traffic.n_bytes / 1e6:.1f}", f"{traffic.n_bytes / n:,.0f}"
            rows.append([name, f"{n:,}", n_tasks, *sent, f"{seconds:.2f}", f"{predicted:.2f}"])
    print("On two workers of Dask: what its scheduler saw\n")
    table(
        ["", "points", "tasks", "MB sent", "bytes a point", "driver, CPU s", "predicted, s"],
        rows,
    )


# ---- tables ------------------------------------------------------------------------------------


def hours(seconds):
    for unit, size in (("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:,.1f} {unit}"
    return f"{seconds:.1f} s"


def table(head, rows):
    for row in (head, ["---"] * len(head), *rows):
        print("| " + " | ".join(str(cell) for cell in row) + " |", flush=True)
    print()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--budget", type=float, default=0.5, help="seconds a cell, about")
    parser.add_argument("--most", type=int, default=2048, help="points a cell, at most")
    parser.add_argument("--only-base", action="store_true", help="no other sizes of networks")
    parser.add_argument("--tasks", type=int, default=400, help="tasks that measure the driver")
    parser.add_argument("--points", type=int, default=100_000, help="of the cheap check")
    parser.add_argument("--hard-points", type=int, default=600, help="of the expensive check")
    arguments = parser.parse_args()
    main(
        arguments.budget,
        arguments.most,
        arguments.only_base,
        arguments.tasks,
        arguments.points,
        arguments.hard_points,
    )
