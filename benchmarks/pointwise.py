"""Pointwise robustness: time against reference programs and passes, and tightness of methods.

Run ``python benchmarks/pointwise.py --help`` for how to choose parts and numbers of points. One
thread, processor seconds; networks are trained on the spot.
"""

import argparse
import time
from collections import Counter
from functools import partial

import numpy as np
import torch
from _architectures import lenet, network_in_network, perceptron
from threadpoolctl import threadpool_limits

from skrobust import RobustClassifier
from skrobust.datasets import fetch_cifar10, fetch_fashion_mnist, fetch_mnist
from skrobust.networks import as_network
from skrobust.networks._piecewise_linear import piecewise_linear
from skrobust.pointwise import pointwise_robustness
from skrobust.pointwise._linear_program import (
    LazyProgram,
    closest_by_cvxpy,
    closest_by_half_spaces,
)
from skrobust.pointwise._linear_region import linear_region

EPSILON = 20 / 255
MAX_ROWS = 100  # the default of pointwise_robustness
METHODS = ("lbfgs", "attack", "lp", "polished")


def train(module, fetch, input_shape, epochs):
    X, y = fetch(subset="train", return_X_y=True)
    shape = None if len(input_shape) == 1 else input_shape
    model = RobustClassifier(
        module, input_shape=shape, max_epochs=epochs, lr=1e-3, random_state=0
    ).fit(X, y)
    X, y = fetch(subset="test", return_X_y=True)
    return model, X, model.score(X[:2000], y[:2000])


def seconds(function):
    """Return processor seconds, in which other programs on the machine do not show."""
    start = time.process_time()
    result = function()
    return time.process_time() - start, result


def pass_seconds(network, x):
    """Median time of one forward-backward pass of one sample."""

    def once():
        row = x.clone().requires_grad_()
        torch.autograd.grad(network(row)[0, 0], row)

    return np.median([seconds(once)[0] for _ in range(200)][20:])


def problem(graph, row):
    x = torch.as_tensor(row).double()
    region = linear_region(graph, x)
    values = region.at_x
    label, target = values[-1][0].argsort(descending=True)[:2].tolist()
    low, high = np.zeros(len(row)), np.ones(len(row))
    return (region, x.numpy(), target, low, high, 0.0, label), values


def lazy(graph, row, limit):
    arguments, values = problem(graph, row)
    return LazyProgram(*arguments, values, max_rows=MAX_ROWS).solve(limit)


def compare(name, model, X, n_points, n_reference):
    """Print the time of the lazy program against references and passes."""
    network = as_network(model)
    graph = piecewise_linear(network)
    unit = pass_seconds(network, network.rows(X[:1]))
    lazy(graph, X[0], EPSILON)
    for limit, label in ((np.inf, "optimum"), (EPSILON, "epsilon_max=20/255")):
        if limit == np.inf and "LeNet" in name:
            continue
        runs = [
            seconds(lambda row=row, limit=limit: lazy(graph, row, limit)) for row in X[:n_points]
        ]
        times = np.array([time for time, _ in runs])
        median = np.median(times)
        ends = Counter(found.status for _, found in runs)
        print(
            f"| {name}, {label} | {n_points} | {1e3 * median:.2f} ms (max "
            f"{times.max():.2f} s) | {median / unit:.1f} passes of {1e6 * unit:.0f} us; "
            f"{', '.join(f'{n} {end}' for end, n in ends.items())} |",
            flush=True,
        )
        for solver in (closest_by_cvxpy, closest_by_half_spaces):
            pairs, errors = [], []
            for row, (ours, found) in zip(X[:n_reference], runs, strict=False):
                arguments, _ = problem(graph, row)
                theirs, reference = seconds(partial(solver, *arguments, limit=limit))
                pairs.append(theirs / ours)
                if found.status == reference.status == "optimal":
                    errors.append(abs(found.radius - reference.radius))
                elif found.status != reference.status:
                    errors.append(np.inf)
            if pairs:
                print(
                    f"| ... against {solver.__name__} | {n_reference} | {np.median(pairs):.0f} "
                    f"times as fast | largest difference {max(errors, default=0):.1e} |",
                    flush=True,
                )


def tightness(name, model, X, methods=METHODS):
    radius, spent = {}, {}
    for method in methods:
        spent[method], result = seconds(
            lambda m=method: pointwise_robustness(
                model, X, method=m, epsilon_max=EPSILON, random_state=0
            )
        )
        radius[method] = result.radius
    best = np.min([radius[m] for m in methods], axis=0)
    for method in methods:
        is_best = np.isfinite(best) & (radius[method] <= best * (1 + 1e-5))
        share = is_best.sum() / max(np.isfinite(best).sum(), 1)
        print(
            f"| {name}, {method} | {len(X)} | smallest for {share:.0%} | frequency "
            f"{np.isfinite(radius[method]).mean():.0%}, {spent[method] / len(X):.3f} s a point |",
            flush=True,
        )


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--points", type=int, default=100, help="test points")
    parser.add_argument("--reference", type=int, default=100, help="of them, for references")
    parser.add_argument("--points-lenet", type=int, default=100, help="for LeNet")
    parser.add_argument("--reference-lenet", type=int, default=0, help="minutes a point")
    parser.add_argument("--tightness-lenet", type=int, default=10, help="of them; lbfgs is slow")
    parser.add_argument("--points-cifar", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=5, help="for 784-100-10")
    parser.add_argument("--epochs-lenet", type=int, default=1)
    parser.add_argument("--epochs-cifar", type=int, default=2)
    parser.add_argument(
        "--skip", nargs="*", default=[], help="mnist fashion perceptron lenet tightness cifar"
    )
    options = parser.parse_args()
    torch.set_num_threads(1)
    with threadpool_limits(1):
        run(options)


def run(options):
    print("| | points | | |\n|---|---|---|---|")
    for data, fetch in (("MNIST", fetch_mnist), ("Fashion-MNIST", fetch_fashion_mnist)):
        if data.split("-")[0].lower() in options.skip:
            continue
        if "perceptron" not in options.skip:
            model, X, accuracy = train(perceptron(784, 100, 10), fetch, (784,), options.epochs)
            name = f"{data} 784-100-10 (accuracy {accuracy:.1%})"
            compare(name, model, X, options.points, options.reference)
            if "tightness" not in options.skip:
                tightness(name, model, X[: options.points])
        if "lenet" not in options.skip:
            model, X, accuracy = train(lenet(), fetch, (1, 28, 28), options.epochs_lenet)
            name = f"{data} LeNet (accuracy {accuracy:.1%})"
            compare(name, model, X, options.points_lenet, options.reference_lenet)
            if "tightness" not in options.skip:
                tightness(name, model, X[: options.tightness_lenet])
    if "cifar" not in options.skip:
        net, epochs = network_in_network(), options.epochs_cifar
        model, X, accuracy = train(net, fetch_cifar10, (3, 32, 32), epochs)
        name = f"CIFAR-10 NIN (accuracy {accuracy:.1%})"
        tightness(name, model, X[: options.points_cifar], ("attack", "lp", "polished"))


if __name__ == "__main__":
    main()
