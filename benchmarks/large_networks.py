"""Exact on ReLU perceptrons of 2, 4 and 6 hidden layers of 256 units, MNIST, and on small inputs.

These are the sizes of the fully connected benchmark of the yearly competition of verifiers
(VNN-COMP, "mnist_fc"), with its radii, 0.03 and 0.05. The networks are trained on the spot, in
three ways, so that they are not those of the competition: as usual (Adam on the cross-entropy);
with weight decay, so that most units die; and adversarially. The small ones have 5 inputs and 6
hidden layers of 50 units; what is asked of them are random half-spaces of the outputs.

``--peer PATH`` asks another checkout of the library the same, each in a process of its own; the
ratio is that of seconds on the images that took either more than one, where a time-out counts as
its limit. Networks and answers are kept in ``--output``, the answers by commit: a run that was
killed goes on, and ``--depths``, ``--trainings`` and ``--epsilons`` take parts. One thread. The
defaults take some 50 minutes at most; ``--full`` is 30 images at 120 s a point, and takes hours.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch
from torch import nn

from skrobust import RobustClassifier, TorchClassifier
from skrobust.datasets import fetch_mnist
from skrobust.properties import ClassificationRobustness
from skrobust.training import AdversarialTraining
from skrobust.verification import Exact

TRAININGS = {
    "usual": {"lr": 1e-4},
    "decay": {"lr": 1e-3, "optimizer_params": {"weight_decay": 3e-4}},
    "adversarial": {
        "lr": 1e-3,
        "property": ClassificationRobustness(0.05),
        "training": AdversarialTraining(),
    },
}


def main(options):
    print(
        "| network | epsilon | verified | falsified | unknown | median s | total s | domains | "
        "domains a second | peer decided | peer domains a second | median ratio of seconds |\n"
        "|---|---|---|---|---|---|---|---|---|---|---|---|"
    )
    options.output.mkdir(parents=True, exist_ok=True)
    for training in options.trainings:
        for depth in options.depths:
            file = options.output / f"{training}-{depth}-{options.epochs}.npz"
            if not file.exists():
                train(file, depth, TRAININGS[training], options.epochs)
            with np.load(file) as arrays:
                accuracy = float(arrays["accuracy"])
            for epsilon in options.epsilons:
                name = f"{depth}x256, {training} ({accuracy:.1%})"
                ask(name, file, epsilon, options.images, options)
    if options.queries:
        file = options.output / f"small-{options.queries}.npz"
        if not file.exists():
            small(file, options.queries)
        ask("5 inputs, 6x50", file, None, options.queries, options, timeout=60.0)


def train(file, depth, training, epochs):
    """Write the weights of a network, with images that it classifies rightly."""
    X, y = fetch_mnist(subset="train", return_X_y=True)
    X_test, y_test = fetch_mnist(subset="test", return_X_y=True)
    sizes = (256,) * depth
    model = RobustClassifier(
        hidden_layer_sizes=sizes, max_epochs=epochs, random_state=0, **training
    ).fit(X, y)
    right = np.flatnonzero(model.predict(X_test) == y_test)[:30]
    weights = weights_of(model.net_.module_)
    accuracy = model.score(X_test, y_test)
    X, y = np.asarray(X_test)[right], np.asarray(y_test)[right].astype(int)
    write(file, **weights, X=X, y=y, accuracy=accuracy)


def weights_of(module):
    layers = [layer for layer in module.modules() if isinstance(layer, nn.Linear)]
    return {
        f"{kind}_{k}": getattr(layer, kind).detach().numpy()
        for k, layer in enumerate(layers)
        for kind in ("weight", "bias")
    }


def write(file, **arrays):
    """Write arrays, so that a file that is there is whole."""
    part = file.with_suffix(".part.npz")
    np.savez(part, **arrays)
    os.replace(part, file)


def small(file, n_queries):
    """Write networks of 5 inputs, and half-spaces of their outputs: some cut, others do not."""
    heads, points, radii, networks = [], [], [], {}
    for query in range(n_queries):
        seed = query // 20
        generator = torch.Generator().manual_seed(query)
        if query % 20 == 0:
            module = waves(seed)
            networks |= {f"{name}_of_{seed}": w for name, w in weights_of(module).items()}
        radius = (0.02, 0.05, 0.1, 0.15)[query % 4]
        x, row = torch.rand(5, generator=generator), torch.randn(5, generator=generator)
        samples = x + radius * (2 * torch.rand(20_000, 5, generator=generator) - 1)
        with torch.no_grad():
            values = module(samples) @ row
        room = (0.02, 0.05, 0.1, 0.3, -0.005)[query % 5] * (values.max() - values.min())
        heads.append(np.append(row.numpy(), (room - values.min()).item()))
        points.append(x.numpy())
        radii.append(radius)
    write(file, **networks, X=np.stack(points), heads=np.stack(heads), radii=np.array(radii))


def waves(seed):
    """Return a net of 6 layers that was trained to say which of five random waves is highest."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        layers, size = [], 5
        for _ in range(6):
            layers += [nn.Linear(size, 50), nn.ReLU()]
            size = 50
        module = nn.Sequential(*layers, nn.Linear(size, 5))
        directions, phases = 3 * torch.randn(5, 5), 6 * torch.rand(5)
        optimizer = torch.optim.Adam(module.parameters(), lr=2e-3)
        for _ in range(600):
            x = torch.rand(256, 5)
            labels = torch.sin(x @ directions + phases).argmax(dim=1)
            optimizer.zero_grad()
            nn.functional.cross_entropy(module(x), labels).backward()
            optimizer.step()
    return module


def ask(name, file, epsilon, n_images, options, timeout=None):
    """Print the line of one network and one radius."""
    timeout = min(options.timeout, timeout or options.timeout)
    own = answers(None, file, epsilon, n_images, timeout)
    count = [sum(a["verdict"] == v for a in own) for v in ("verified", "falsified", "unknown")]
    seconds = np.array([a["seconds"] for a in own])
    domains = np.array([a["domains"] for a in own])
    line = [name, epsilon or "0.02 to 0.15", *count, f"{np.median(seconds):.2f}"]
    line += [f"{seconds.sum():.0f}", int(domains.sum()), rate(domains, seconds)]
    if options.peer is None:
        line += ["", "", ""]
    else:
        other = answers(options.peer, file, epsilon, n_images, timeout)
        took = np.array([a["seconds"] for a in other])
        is_open = (took > 1) | (seconds > 1)
        ratio = np.median(took[is_open] / seconds[is_open]) if is_open.any() else np.nan
        line += [sum(a["verdict"] != "unknown" for a in other)]
        line += [rate(np.array([a["domains"] for a in other]), took)]
        line += [f"{ratio:.1f} ({int(is_open.sum())} images)"]
    print("| " + " | ".join(str(part) for part in line) + " |", flush=True)


def rate(domains, seconds):
    """Return domains a second, over images that needed more than a few."""
    searched = domains > 100
    return f"{domains[searched].sum() / seconds[searched].sum():.0f}" if searched.any() else ""


def answers(peer, file, epsilon, n_images, timeout):
    """Ask a checkout of the library, in a process; what it said before is kept."""
    root = Path(peer or Path(__file__).parent.parent).resolve()
    commit = ["git", "-C", root, "describe", "--always", "--dirty", "--exclude=*"]
    side = subprocess.run(commit, capture_output=True, text=True).stdout.strip() or "unknown-dirty"
    kept = file.with_name(f"{file.stem}-{epsilon}-{timeout:g}-{side}.jsonl")
    if side.endswith("-dirty"):  # these may be answers of other code
        kept.unlink(missing_ok=True)
    known = kept.read_text().splitlines() if kept.exists() else []
    if len(known) < n_images:
        path = os.pathsep.join([str(root), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
        call = [sys.executable, __file__, "--solve", file, "--timeout", str(timeout)]
        call += ["--first", str(len(known)), "--images", str(n_images)]
        call += [] if epsilon is None else ["--epsilons", str(epsilon)]
        env = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
        with (
            kept.open("a") as out,
            subprocess.Popen(call, stdout=subprocess.PIPE, text=True, env=env) as child,
        ):
            for text in child.stdout:
                out.write(text)
                out.flush()
        if child.returncode:
            raise SystemExit(f"The process of {root} ended with {child.returncode}.")
        known = kept.read_text().splitlines()
    return [json.loads(text) for text in known[:n_images]]


# ---- in the process of one checkout ----


def solve(options):
    """Print an answer for each image of a file, as a line of JSON."""
    count = counted()
    arrays = dict(np.load(options.solve))
    for k in range(options.first, min(options.images, len(arrays["X"]))):
        module, label = network(arrays, k)
        x = arrays["X"][k : k + 1]
        radius = arrays["radii"][k] if "radii" in arrays else options.epsilons[0]
        bounds = None if "radii" in arrays else (0.0, 1.0)
        model = TorchClassifier(module, np.arange(module[-1].out_features))
        property = ClassificationRobustness(float(radius), bounds=bounds)
        count[0] = 0
        found = Exact().verify(
            model, x, [label], property=property, timeout=options.timeout, random_state=0
        )
        answer = {
            "verdict": str(found.verdicts[0]),
            "seconds": float(found.seconds[0]),
            "domains": count[0],
        }
        print(json.dumps(answer), flush=True)


def network(arrays, k):
    """Return the network of point k, and the label that its property speaks of."""
    suffix = f"_of_{k // 20}" if "heads" in arrays else ""
    layers, i = [], 0
    while f"weight_{i}{suffix}" in arrays:
        weight, bias = (torch.as_tensor(arrays[f"{p}_{i}{suffix}"]) for p in ("weight", "bias"))
        if "heads" in arrays and f"weight_{i + 1}{suffix}" not in arrays:
            # The half-space as the difference of two outputs: that of the first and zero.
            head = torch.as_tensor(arrays["heads"][k], dtype=weight.dtype)
            row = head[:-1]
            weight = torch.stack([row @ weight, torch.zeros_like(weight[0])])
            bias = torch.stack([row @ bias + head[-1], torch.zeros_like(head[-1])])
        layer = nn.Linear(weight.shape[1], weight.shape[0])
        layer.weight = nn.Parameter(weight, requires_grad=False)
        layer.bias = nn.Parameter(bias, requires_grad=False)
        layers += [layer, nn.ReLU()]
        i += 1
    return nn.Sequential(*layers[:-1]), 0 if "heads" in arrays else int(arrays["y"][k])


def counted():
    """Count the domains that are bounded, in whatever version of the library this is."""
    from importlib import import_module

    count = [0]
    for name in ("_branch", "_boxes"):
        try:
            module = import_module(f"skrobust.verification.{name}")
        except ModuleNotFoundError:  # of an earlier version
            continue

        def bound(problem, domains, *args, _bound=module._bound, **options):
            count[0] += len(domains)
            return _bound(problem, domains, *args, **options)

        module._bound = bound
    return count


if __name__ == "__main__":
    torch.set_num_threads(1)
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--full", action="store_true", help="30 images, 120 s a point")
    parser.add_argument("--images", type=int, default=4)
    parser.add_argument("--queries", type=int, default=20, help="of the small networks")
    parser.add_argument("--timeout", type=float, default=20.0, help="seconds a point")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--depths", type=int, nargs="+", default=[2, 4, 6])
    parser.add_argument("--trainings", nargs="+", default=list(TRAININGS), choices=TRAININGS)
    parser.add_argument("--epsilons", type=float, nargs="+", default=[0.03, 0.05])
    parser.add_argument("--peer", help="folder of another checkout of the library")
    parser.add_argument("--output", type=Path, default=Path("output/large_networks"))
    parser.add_argument("--solve", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--first", type=int, default=0, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.full:
        options.images, options.timeout, options.queries = 30, 120.0, 100
    solve(options) if options.solve else main(options)
