"""Pointwise robustness: time against reference programs and passes, and tightness of methods.

Run ``python benchmarks/pointwise.py --help`` for how to choose parts and numbers of points; with
its defaults it takes some forty minutes. One thread, processor seconds; networks are trained on
the spot. Where points are solved together, the time of each step is shared out evenly among the
points that take part in it: medians are of these shares, means of the whole.
"""

import argparse
import time
from collections import Counter
from contextlib import contextmanager

import numpy as np
import torch
from _architectures import lenet, network_in_network, perceptron
from threadpoolctl import threadpool_limits

from skrobust import RobustClassifier
from skrobust.datasets import fetch_cifar10, fetch_fashion_mnist, fetch_mnist
from skrobust.graphs import read_graph
from skrobust.networks import as_network
from skrobust.pointwise import (
    LazyPrograms,
    StatedPrograms,
    closest_by_half_spaces,
    linear_region,
    pointwise_robustness,
)

EPSILON = 20 / 255
MAX_ROWS = 100  # the default of pointwise_robustness
RUNS = 15
METHODS = ("lbfgs", "attack", "lp", "polished")


def train(module, fetch, input_shape, epochs):
    torch.manual_seed(0)
    for part in module.modules():
        if hasattr(part, "reset_parameters"):
            part.reset_parameters()
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


def problems(graph, X):
    """Return the regions of samples, and the other arguments of the programs over them."""
    x = torch.as_tensor(X).double()
    region = linear_region(graph, x)
    labels, targets = region.at_x[-1].argsort(dim=1, descending=True)[:, :2].numpy().T
    return region, x.numpy(), targets, np.zeros(x.shape), np.ones(x.shape), 0.0, labels


def lazy(graph, X, limit):
    """Solve the programs; their seconds include those of the regions, and are of the processor.

    Medians of several runs, since one of them takes less than the machine's other work lasts.
    """
    runs = [one_lazy(graph, X, limit) for _ in range(RUNS)]
    found = runs[0]
    found.seconds[:] = np.median([run.seconds for run in runs], axis=0)
    return found


def one_lazy(graph, X, limit):
    start = time.perf_counter()

    def solve():
        arguments = problems(graph, X)
        begun = time.perf_counter() - start
        found = LazyPrograms(*arguments, max_rows=MAX_ROWS).solve(limit)
        found.seconds[:] += begun / len(X)
        return found

    spent, found = seconds(solve)
    found.seconds[:] *= spent / found.seconds.sum()
    return found


def by_half_spaces(graph, X):
    return closest_by_half_spaces(*problems(graph, X))


def by_cvxpy(graph, X):
    return StatedPrograms(*problems(graph, X)).solve()


@contextmanager
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with threadpool_limits(1):
        yield
    torch.set_num_threads(before)


@one_thread()
def compare(name, model, X, n_reference):
    """Print the time of the lazy programs against references and passes."""
    network = as_network(model)
    graph = read_graph(network)
    unit = pass_seconds(network, network.rows(X[:1]))
    lazy(graph, X, EPSILON)  # a first run pays for the memory
    references = {}
    for limit, label in ((np.inf, "optimum"), (EPSILON, "epsilon_max=20/255")):
        if limit == np.inf and "LeNet" in name:
            continue
        found = lazy(graph, X, limit)
        median, mean = np.median(found.seconds), found.seconds.mean()
        ends = ", ".join(f"{n} {end}" for end, n in Counter(found.status.tolist()).items())
        print(
            f"| {name}, {label} | {len(X)} | median {1e3 * median:.2f} ms, mean {1e3 * mean:.2f} "
            f"ms | median {median / unit:.1f} passes of {1e6 * unit:.0f} us, mean "
            f"{mean / unit:.1f}; {ends} |",
            flush=True,
        )
        for solve in (by_cvxpy, by_half_spaces) if n_reference else ():
            if solve not in references:
                references[solve] = seconds(lambda r=solve: r(graph, X[:n_reference]))
            # They do not stop early, so that one run tells what both limits cost.
            spent, theirs = references[solve]
            shares = theirs.seconds * spent / theirs.seconds.sum()
            status = np.where(theirs.radius > limit, "limit", theirs.status)
            ours = found.seconds[:n_reference]
            same = found.status[:n_reference] == status
            solved = same & (status == "optimal")
            difference = np.abs(found.radius[:n_reference] - theirs.radius)[solved]
            print(
                f"| ... against {solve.__name__} | {len(ours)} | "
                f"{np.median(shares / ours):.0f} times as fast in the median, "
                f"{spent / ours.sum():.0f} on the whole | largest difference "
                f"{difference.max(initial=0):.1e}; the same end for {same.sum()} |",
                flush=True,
            )


@one_thread()
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
    is_found = np.isfinite(best)
    for method in methods:
        share = (radius[method] <= best * (1 + 1e-5))[is_found].mean() if is_found.any() else 0
        print(
            f"| {name}, {method} | {len(X)} | smallest for {share:.0%} of {is_found.sum()} with "
            f"an example | frequency at 20/255 {(radius[method] <= EPSILON).mean():.0%}; "
            f"{spent[method] / len(X):.3f} s a point |",
            flush=True,
        )
    for other in methods:
        assert other == "lbfgs" or (radius["polished"] <= radius[other]).all(), other
        assert np.isfinite(radius["polished"][np.isfinite(radius[other])]).all(), other


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--points", type=int, default=100, help="test points")
    parser.add_argument("--reference", type=int, default=100, help="of them, for references")
    parser.add_argument("--reference-lenet", type=int, default=0, help="minutes a point")
    parser.add_argument("--tightness-lenet", type=int, default=100, help="of them; lbfgs is slow")
    parser.add_argument("--points-cifar", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=5, help="for 784-100-10")
    parser.add_argument("--epochs-lenet", type=int, default=1)
    parser.add_argument("--epochs-cifar", type=int, default=6)
    parser.add_argument(
        "--skip", nargs="*", default=[], help="mnist fashion perceptron lenet tightness cifar"
    )
    options = parser.parse_args()
    print("| | points | | |\n|---|---|---|---|")
    for data, fetch in (("MNIST", fetch_mnist), ("Fashion-MNIST", fetch_fashion_mnist)):
        if data.split("-")[0].lower() in options.skip:
            continue
        if "perceptron" not in options.skip:
            model, X, accuracy = train(perceptron(784, 100, 10), fetch, (784,), options.epochs)
            name = f"{data} 784-100-10 (accuracy {accuracy:.1%})"
            compare(name, model, X[: options.points], options.reference)
            if "tightness" not in options.skip:
                tightness(name, model, X[: options.points])
        if "lenet" not in options.skip:
            model, X, accuracy = train(lenet(), fetch, (1, 28, 28), options.epochs_lenet)
            name = f"{data} LeNet (accuracy {accuracy:.1%})"
            compare(name, model, X[: options.points], options.reference_lenet)
            if "tightness" not in options.skip:
                tightness(name, model, X[: options.tightness_lenet])
    if "cifar" not in options.skip:
        net, epochs = network_in_network(), options.epochs_cifar
        model, X, accuracy = train(net, fetch_cifar10, (3, 32, 32), epochs)
        name = f"CIFAR-10 NIN (accuracy {accuracy:.1%})"
        tightness(name, model, X[: options.points_cifar], ("attack", "lp", "polished"))


if __name__ == "__main__":
    main()
