"""Pointwise robustness: time against reference programs and passes, and tightness of methods.

The references are the program of the paper in cvxpy, all half-spaces at once, and what tells the
method from its rows: the same rows, added where they are violated as ours are, but solved by
HiGHS, which is either started afresh each time (`scipy.optimize.linprog`) or kept warm (highspy).

Run ``python benchmarks/pointwise.py --help`` for how to choose parts and numbers of points; with
its defaults it takes some forty minutes. One thread, processor seconds, medians of as many runs
on either side; networks are trained on the spot. Where points are solved together, the time of
each step is shared out evenly among the points that take part in it: medians are of these shares,
means of the whole.
"""

import argparse
import time
from collections import Counter
from contextlib import contextmanager

import highspy
import numpy as np
import torch
from _architectures import caffe_lenet, lenet, network_in_network, perceptron
from threadpoolctl import threadpool_limits

from skrobust import RobustClassifier
from skrobust.datasets import fetch_cifar10, fetch_fashion_mnist, fetch_mnist
from skrobust.graphs import read_graph
from skrobust.networks import as_network
from skrobust.pointwise import pointwise_robustness
from skrobust.pointwise._linear_region import linear_region
from skrobust.pointwise._programs import LazyPrograms, closest_by_half_spaces
from skrobust.pointwise._solutions import Solutions
from skrobust.pointwise._stated import StatedPrograms

EPSILON = 20 / 255
TOGETHER = 250  # points whose programs are solved together
METHODS = ("lbfgs", "attack", "lp", "polished")


def train(module, fetch, input_shape, epochs, batch_size=128):
    torch.manual_seed(0)
    for part in module.modules():
        if hasattr(part, "reset_parameters"):
            part.reset_parameters()
    X, y = fetch(subset="train", return_X_y=True)
    shape = None if len(input_shape) == 1 else input_shape
    model = RobustClassifier(
        module,
        input_shape=shape,
        max_epochs=epochs,
        batch_size=batch_size,
        lr=1e-3,
        random_state=0,
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


def lazy(graph, X, limit=np.inf):
    return LazyPrograms(*problems(graph, X)).solve(limit)


def by_half_spaces(graph, X):
    return closest_by_half_spaces(*problems(graph, X))


def by_cvxpy(graph, X):
    return StatedPrograms(*problems(graph, X)).solve()


def by_linprog_with_lazy_rows(graph, X, limit=np.inf):
    return one_by_one(graph, X, lambda lazy: lazy._by_highs(np.zeros(1, dtype=int), limit))


def by_warm_highs_with_lazy_rows(graph, X, limit=np.inf):
    return one_by_one(graph, X, lambda lazy: warm(lazy, limit))


def one_by_one(graph, X, solve):
    """Return the `Solutions` of ``solve(lazy)``, of one point each."""
    region, centers, targets, low, high, margin, labels = problems(graph, X)
    solutions = Solutions.none(*centers.shape)
    for k in range(len(centers)):
        begin, at = time.perf_counter(), slice(k, k + 1)
        one = (region[at], centers[at], targets[at], low[at], high[at], margin, labels[at])
        solutions.keep(k, *solve(LazyPrograms(*one)))
        solutions.seconds[k] = time.perf_counter() - begin
    return solutions


def warm(lazy, limit):
    """Solve by one model of HiGHS, which goes on from its last basis after rows were added."""
    programs, one = lazy.programs, np.zeros(1, dtype=int)
    n, unit = programs.above.shape[1], lazy.unit[0]
    model = highspy.Highs()
    model.setOptionValue("output_flag", False)
    model.addVars(n + 1, np.append(-programs.below[0], 0.0), np.append(programs.above[0], np.inf))
    model.changeColCost(n, 1.0)
    # -e <= move <= e, as e - move >= 0 and e + move >= 0.
    columns = np.column_stack([np.tile(np.arange(n), 2), np.full(2 * n, n)]).ravel()
    values = np.column_stack([np.repeat([-1.0, 1.0], n), np.ones(2 * n)]).ravel()
    add(model, np.zeros(2 * n), columns, values)
    n_known = 0
    while True:
        rows, right = (part[0, n_known : programs.n_rows[0]] for part in
                       (programs.rows.A, programs.rows.b))  # fmt: skip
        add(model, right, np.tile(np.arange(n), len(right)), rows.ravel())
        n_known = programs.n_rows[0]
        model.run()
        if model.getModelStatus() == highspy.HighsModelStatus.kInfeasible:
            return "infeasible", np.inf, np.nan
        if model.getModelStatus() != highspy.HighsModelStatus.kOptimal:
            return "failure", 0.0, np.nan
        radius = model.getInfo().objective_function_value * unit
        if radius > limit:
            return "limit", radius, np.nan
        move = np.array(model.getSolution().col_value[:n]) * unit
        rows = lazy._violated(one, move[None], programs.n_rows)
        if rows.counts[0] == 0:
            return "optimal", radius, lazy.centers[0] + move
        lazy._add(programs, one, one, rows)


def add(model, right, columns, values):
    """Add rows of equally many entries, which are at least `right`."""
    size = len(columns) // max(1, len(right))
    starts = np.arange(len(right), dtype=np.int32) * size
    no_bound = np.full(len(right), highspy.kHighsInf)
    columns = columns.astype(np.int32)
    model.addRows(len(right), right, no_bound, len(columns), starts, columns, values)


def timed(solve, runs):
    """Return the solutions, with each point's median processor seconds, and the median whole.

    Both sides of a comparison are run equally often.
    """
    shares, totals = [], []
    for _ in range(runs):
        spent, solutions = seconds(solve)
        # What is done for all points together, such as the regions, is shared out.
        shares.append(solutions.seconds * spent / solutions.seconds.sum())
        totals.append(spent)
    solutions.seconds[:] = np.median(shares, axis=0)
    return solutions, float(np.median(totals))


@contextmanager
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with threadpool_limits(1):
        yield
    torch.set_num_threads(before)


REFERENCES = {
    "warm": by_warm_highs_with_lazy_rows,
    "linprog": by_linprog_with_lazy_rows,
    "half-spaces": by_half_spaces,
    "cvxpy": by_cvxpy,
}
STOP_EARLY = ("warm", "linprog")  # at the limit; one timing of the others tells of all limits


@one_thread()
def compare(name, model, X, n_reference, runs, references):
    """Print the time of the lazy programs against references and passes."""
    network = as_network(model)
    graph = read_graph(network)
    unit = pass_seconds(network, network.rows(X[:1]))
    lazy(graph, X)  # a first run pays for the memory
    theirs = {}
    for limit, label in ((np.inf, "optimum"), (EPSILON, "epsilon_max=20/255")):
        if limit == np.inf and "LeNet" in name:
            continue
        ours, total = timed(lambda r=limit: lazy(graph, X, r), runs)
        median, mean = np.median(ours.seconds), total / len(X)
        ends = ", ".join(f"{n} {end}" for end, n in Counter(ours.status.tolist()).items())
        print(
            f"| {name}, {label} | {len(X)} | median {1e3 * median:.2f} ms, mean {1e3 * mean:.2f} "
            f"ms | median {median / unit:.1f} passes of {1e6 * unit:.0f} us, mean "
            f"{mean / unit:.1f}; {ends} |",
            flush=True,
        )
        if n_reference == 0:
            continue
        # On as many points as the others get: together, more points cost less each.
        ours, total = timed(lambda r=limit: lazy(graph, X[:n_reference], r), runs)
        for reference in references:
            solve, limits = REFERENCES[reference], (limit,) if reference in STOP_EARLY else ()
            key = reference, limits
            if key not in theirs:
                theirs[key] = timed(lambda s=solve, a=limits: s(graph, X[:n_reference], *a), runs)
            their, their_total = theirs[key]
            status = np.where(their.radius > limit, "limit", their.status)
            same = ours.status == status
            solved = same & (status == "optimal")
            difference = np.abs(ours.radius - their.radius)[solved]
            print(
                f"| ... against {solve.__name__} | {n_reference} | "
                f"{np.median(their.seconds / ours.seconds):.0f} times as fast in the median, "
                f"{their_total / total:.0f} on the whole ({their_total:.2f} s against "
                f"{total:.3f} s) | largest difference {difference.max(initial=0):.1e}; the same "
                f"end for {same.sum()} |",
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


@one_thread()
def to_the_end(name, model, X):
    """Print what all programs cost within 20/255, hard regions and all, and how they ended."""
    network = as_network(model)
    graph = read_graph(network)
    before = pass_seconds(network, network.rows(X[:1]))
    spent, status, radius = 0.0, [], []
    for start in range(0, len(X), TOGETHER):
        part = X[start : start + TOGETHER]
        each, solutions = seconds(lambda part=part: lazy(graph, part, EPSILON))
        spent += each
        status.extend(solutions.status.tolist())
        radius.extend(solutions.radius[solutions.status == "optimal"])
    unit = np.mean([before, pass_seconds(network, network.rows(X[:1]))])
    ends = ", ".join(f"{n} {end}" for end, n in Counter(status).items())
    mean = f"mean radius {255 * np.mean(radius):.1f}/255" if radius else "none within"
    print(
        f"| {name}, 20/255, to the end | {len(X)} | {spent / len(X):.3f} s a point | mean "
        f"{spent / len(X) / unit:.0f} passes of {1e6 * unit:.0f} us; {ends}; {mean} |",
        flush=True,
    )
    unresolved = sum(end in ("failure", "rows") for end in status)
    assert unresolved == 0, f"{unresolved} points are unresolved"


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--points", type=int, default=100, help="test points")
    parser.add_argument("--reference", type=int, default=100, help="of them, for references")
    parser.add_argument("--references", nargs="*", choices=REFERENCES, default=[*REFERENCES])
    parser.add_argument("--runs", type=int, default=3, help="of each side; medians are printed")
    parser.add_argument("--reference-lenet", type=int, default=0, help="minutes a point")
    parser.add_argument("--tightness-lenet", type=int, default=40, help="of them; lbfgs is slow")
    parser.add_argument("--points-caffe", type=int, default=500, help="solved to their ends")
    parser.add_argument("--epochs-caffe", type=int, default=3, help="of 938 steps")
    parser.add_argument("--points-cifar", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=5, help="for 784-100-10")
    parser.add_argument("--epochs-lenet", type=int, default=1)
    parser.add_argument("--epochs-cifar", type=int, default=6)
    parser.add_argument(
        "--skip",
        nargs="*",
        default=[],
        help="mnist fashion perceptron lenet tightness caffe cifar",
    )
    options = parser.parse_args()
    sides = options.runs, options.references
    print("| | points | | |\n|---|---|---|---|")
    for data, fetch in (("MNIST", fetch_mnist), ("Fashion-MNIST", fetch_fashion_mnist)):
        if data.split("-")[0].lower() in options.skip:
            continue
        if "perceptron" not in options.skip:
            model, X, accuracy = train(perceptron(784, 100, 10), fetch, (784,), options.epochs)
            name = f"{data} 784-100-10 (accuracy {accuracy:.1%})"
            compare(name, model, X[: options.points], options.reference, *sides)
            if "tightness" not in options.skip:
                tightness(name, model, X[: options.points])
        if "lenet" not in options.skip:
            model, X, accuracy = train(lenet(), fetch, (1, 28, 28), options.epochs_lenet)
            name = f"{data} LeNet (accuracy {accuracy:.1%})"
            compare(name, model, X[: options.points], options.reference_lenet, *sides)
            if "tightness" not in options.skip:
                tightness(name, model, X[: options.tightness_lenet])
    if "caffe" not in options.skip:
        net, epochs = caffe_lenet(), options.epochs_caffe
        model, X, accuracy = train(net, fetch_mnist, (1, 28, 28), epochs, batch_size=64)
        name = f"MNIST LeNet of Caffe (accuracy {accuracy:.1%})"
        to_the_end(name, model, X[: options.points_caffe])
    if "cifar" not in options.skip:
        net, epochs = network_in_network(), options.epochs_cifar
        model, X, accuracy = train(net, fetch_cifar10, (3, 32, 32), epochs)
        name = f"CIFAR-10 NIN (accuracy {accuracy:.1%})"
        tightness(name, model, X[: options.points_cifar], ("attack", "lp", "polished"))


if __name__ == "__main__":
    main()
