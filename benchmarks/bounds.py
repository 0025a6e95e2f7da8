"""CROWN in stages and in float32 first: processor seconds an image, at the same verdicts. MNIST.

Three networks are trained on the spot: 784-1000-1000-10 as usual and by certified training, and a
convolutional one of two layers. Two tables. The first compares `Bounds()` with CROWN in float64
for every image, which is its last stage alone. The second compares one stage, CROWN in float32
with its rounding accounted for, with passes of the same rows, in float32, through the same layers,
written down with `matmul` and `conv_transpose2d`: without rounding, and with all lines, rows and
intervals of hidden layers given. One thread.
"""

import argparse

import numpy as np
import torch
from _timing import compare, header
from torch.nn import functional

from skrobust import RobustClassifier
from skrobust.bounds import _tightening, outer_single, plain_single, relax, single_graph
from skrobust.datasets import fetch_mnist
from skrobust.graphs import Conv, Linear, Relu
from skrobust.networks import as_network
from skrobust.properties import ClassificationRobustness
from skrobust.training import CertifiedTraining
from skrobust.verification import Bounds
from skrobust.verification._stages import Stages

ROWS_AT_ONCE = 128


def main(options):
    X, y = fetch_mnist(subset="train", return_X_y=True)
    X, y = X[: options.train], y[: options.train]
    X_test, y_test = fetch_mnist(subset="test", return_X_y=True)
    X_test, y_test = X_test[: options.images], y_test[: options.images]
    models = {
        "dense": fitted(options, X, y, hidden_layer_sizes=(options.width,) * 2),
        "dense, certified": fitted(
            options,
            X,
            y,
            hidden_layer_sizes=(options.width,) * 2,
            property=ClassificationRobustness(options.epsilons[-1]),
            training=CertifiedTraining(ramp_epochs=max(1, options.epochs - 1)),
        ),
        "convolutional": fitted(options, X, y, module=convolutional()),
    }
    print("## Bounds(), and CROWN in float64 for each image\n")
    header()
    for name, model in models.items():
        for epsilon in options.epsilons:
            against_float64(options, name, model, epsilon, X_test, y_test)
    print("\n## CROWN in float32, and bare passes of the same rows\n")
    header()
    for name, model in models.items():
        for epsilon in options.epsilons:
            against_bare_passes(options, name, model, epsilon, X_test, y_test)


def convolutional():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return torch.nn.Sequential(
            torch.nn.Unflatten(1, (1, 28, 28)),
            torch.nn.Conv2d(1, 16, 4, stride=2, padding=1),
            torch.nn.ReLU(),
            torch.nn.Conv2d(16, 32, 4, stride=2, padding=1),
            torch.nn.ReLU(),
            torch.nn.Flatten(),
            torch.nn.Linear(32 * 49, 100),
            torch.nn.ReLU(),
            torch.nn.Linear(100, 10),
        )


def fitted(options, X, y, **parameters):
    model = RobustClassifier(max_epochs=options.epochs, lr=1e-3, random_state=0, **parameters)
    return model.fit(X, y)


def against_float64(options, name, model, epsilon, X, y):
    property = ClassificationRobustness(epsilon)
    verdicts = {}

    def in_stages():
        verdicts["stages"] = Bounds().verify(model, X, y, property=property).verdicts

    def in_float64():
        with in_one_stage():
            verdicts["float64"] = Bounds().verify(model, X, y, property=property).verdicts

    compare(f"{name}, ε = {epsilon}", in_stages, in_float64, repeats=options.repeats)
    counts = {
        side: [int((found == each).sum()) for each in ("verified", "falsified", "unknown")]
        for side, found in verdicts.items()
    }
    n_differ = int((verdicts["stages"] != verdicts["float64"]).sum())
    print(f"| verified, falsified, unknown | {counts['stages']} | {counts['float64']} | "
          f"{n_differ} differ |", flush=True)  # fmt: skip


class in_one_stage:
    """Leave out the stages in float32."""

    def __enter__(self):
        self.stages = Stages._single_stages
        Stages._single_stages = lambda self: []

    def __exit__(self, *_):
        Stages._single_stages = self.stages


def against_bare_passes(options, name, model, epsilon, X, y):
    property = ClassificationRobustness(epsilon)
    encoding = Bounds().encode(as_network(model), property, X.shape[1])
    graph = single_graph(encoding.graph)
    x = torch.as_tensor(np.asarray(X, dtype=np.float32))
    balls = outer_single(property.outer_ball(x))
    known = [open_rows(graph, balls[i : i + 1]) for i in range(len(x))]

    def ours():
        with torch.no_grad(), plain_single():
            relax(graph, balls)

    def bare():
        with torch.no_grad():
            for relaxation, parts in known:
                for start, part in parts:
                    for some in part.split(ROWS_AT_ONCE):
                        bare_pass(graph, relaxation, start, torch.stack([some, -some], dim=1))

    compare(f"{name}, ε = {epsilon}", ours, bare, repeats=options.repeats)


def open_rows(graph, ball):
    """Return the relaxation of one ball, and the rows of units that are open when it is made.

    They are those of what the units' layer reads, each with the position of that.
    """
    parts, tighten = [], _tightening.tighten

    def noted(built, j, sample, unit, *rest):
        one_hot = torch.eye(graph.nodes[j].size)[unit].view(len(unit), *graph.nodes[j].shape)
        parts.append((graph.nodes[j].inputs[0], graph.nodes[j].adjoint(one_hot)[0]))
        tighten(built, j, sample, unit, *rest)

    _tightening.tighten = noted
    try:
        return relax(graph, ball), parts
    finally:
        _tightening.tighten = tighten


def bare_pass(graph, relaxation, i, rows):
    """Return bounds of rows of node i, of shape (k, 2, *shape), without any care."""
    n, constant = len(rows), 0.0
    while i:
        node = graph.nodes[i]
        if isinstance(node, Relu):
            lines = relaxation.lines[i]
            positive, negative = rows.clamp(min=0), rows.clamp(max=0)
            constant = constant + negative.flatten(2) @ lines.high_shift.flatten()
            rows = positive * lines.low + negative * lines.high
        elif isinstance(node, Linear):
            constant = constant + rows @ node.bias
            rows = rows @ node.weight
        elif isinstance(node, Conv):
            constant = constant + rows.sum(dim=(3, 4)) @ node.bias
            rows = functional.conv_transpose2d(
                rows.flatten(0, 1), node.weight, stride=node.stride, padding=node.padding
            ).unflatten(0, (n, 2))
        else:
            rows = rows.reshape(n, 2, *node.input_shape)
        i = node.inputs[0]
    middle = (relaxation.ball.lower + relaxation.ball.upper)[0] / 2
    half = (relaxation.ball.upper - relaxation.ball.lower)[0] / 2
    rows = rows.flatten(2)
    return rows @ middle - rows.abs() @ half + constant


if __name__ == "__main__":
    torch.set_num_threads(1)
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--train", type=int, default=20_000, help="training images")
    parser.add_argument("--images", type=int, default=20, help="test images")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--width", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--epsilons", type=float, nargs="+", default=[0.01, 0.03])
    main(parser.parse_args())
