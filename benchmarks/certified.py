"""Certified networks: what is proved at which accuracy, epsilon = 0.1 in the L-infinity norm.

Classification robustness of Fashion-MNIST and MNIST, pixels in [0, 1]. The configurations, with
what they are to reach, are in `_certified_networks.py`. ``--validate`` trains those that a choice
was made among on five sixths of the training images, and shows them the sixth that is left: by
interval bounds, then `Exact` on a few. The others are trained on all of the training images and
see the test images once: the default `Cascade` with a limit of seconds a point.

Networks and verdicts are kept in ``--output``, by their settings, so that a killed run goes on;
choose another folder for another state of the code. Minutes are those of the processor, on one
thread.
"""

import argparse
import hashlib
import json
import time
from pathlib import Path

import numpy as np
import torch
from _certified_networks import AIMS, CANDIDATES, CONFIGURATIONS, EPSILON
from sklearn.model_selection import train_test_split

from skrobust.datasets import fetch_fashion_mnist, fetch_mnist
from skrobust.properties import ClassificationRobustness
from skrobust.verification import Bounds, Cascade, Exact

FETCH = {"mnist": fetch_mnist, "fashion": fetch_fashion_mnist}
BLOCK = 500  # images whose verdicts are kept at once
PROPERTY = ClassificationRobustness(EPSILON)


def main(options):
    options.output.mkdir(parents=True, exist_ok=True)
    show = validate if options.validate else test
    for name in options.configurations or CONFIGURATIONS:
        show(name, options)


# ---- what is kept ---------------------------------------------------------------------


def key(configuration, options, *more):
    """Name settings, so that what was computed with them is found again."""
    model = configuration.model(options.epochs)
    described = [repr(model), configuration.data, *map(repr, more)]
    text = "\n".join([*described, repr(options.part)])
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def kept(file, compute):
    """Return what a file of JSON holds; computed and written if there is none."""
    if not file.exists():
        written = file.with_suffix(".part")
        written.write_text(json.dumps(compute()), encoding="utf-8")
        written.rename(file)  # at once, so that no killed run leaves half of it
    return json.loads(file.read_text(encoding="utf-8"))


def trained(configuration, X, y, stem, options):
    """Return the trained model and the minutes it took, from the folder if they are there."""
    model = configuration.model(options.epochs)
    weights = stem.with_suffix(".pt")

    def fit():
        start = time.process_time()
        model.fit(X, y)
        minutes = (time.process_time() - start) / 60
        torch.save(model.net_.module_.state_dict(), weights)
        return {"minutes": minutes}

    minutes = kept(stem.with_suffix(".json"), fit)["minutes"]
    if not hasattr(model, "net_"):
        # A model of the same shape, and then the weights that were kept.
        model.set_params(training=None, max_epochs=1, callbacks=None).fit(X[:100], y[:100])
        model.net_.module_.load_state_dict(torch.load(weights))
    return model, minutes


# ---- the choice -----------------------------------------------------------------------


def validate(name, options):
    """Print what the candidates of a configuration reach on a sixth of the training images."""
    print(f"\n{name}: candidates, on a sixth of the training images\n")
    print(
        f"| settings | accuracy | proved by intervals | proved by Exact, of {options.sample} | "
        "core-minutes |\n|---|---|---|---|---|"
    )
    for label, configuration in CANDIDATES[name].items():
        X, y = FETCH[configuration.data](subset="train", return_X_y=True)
        X, X_valid, y, y_valid = train_test_split(
            X[: options.part], y[: options.part], test_size=1 / 6, stratify=y[: options.part],
            random_state=0,
        )  # fmt: skip
        stem = options.output / f"validation-{name}-{key(configuration, options, 'validation')}"
        model, minutes = trained(configuration, X, y, stem, options)
        accuracy = model.score(X_valid, y_valid)
        verdicts = Bounds("ibp").verify(model, X_valid, y_valid, property=PROPERTY).verdicts
        sample = X_valid[: options.sample], y_valid[: options.sample]
        exact = Exact().verify(model, *sample, property=PROPERTY, timeout=options.timeout)
        shares = [accuracy, *((v == "verified").mean() for v in (verdicts, exact.verdicts))]
        printed = " | ".join(f"{share:.1%}" for share in shares)
        print(f"| {label} | {printed} | {minutes:.1f} |", flush=True)


# ---- the test -------------------------------------------------------------------------


def test(name, options):
    """Print what the Cascade says of a configuration on test images."""
    if options.header:
        options.header = False
        print(
            "| configuration | aim: proved at accuracy | proved | accuracy | by intervals alone | "
            "survived attack | undecided | training, core-minutes | proofs, core-minutes |\n"
            "|---|---|---|---|---|---|---|---|---|"
        )
    configuration = CONFIGURATIONS[name]
    X, y = FETCH[configuration.data](subset="train", return_X_y=True)
    stem = options.output / f"{name}-{key(configuration, options)}"
    model, minutes = trained(configuration, X[: options.part], y[: options.part], stem, options)
    X, y = FETCH[configuration.data](subset="test", return_X_y=True)
    blocks = [
        kept(
            stem.with_name(f"{stem.name}-{options.timeout:g}s-{start}-{stop}.json"),
            lambda start=start, stop=stop: verdicts(
                model, X[start:stop], y[start:stop], options.timeout
            ),
        )
        for start in range(0, min(options.images, len(X)), BLOCK)
        for stop in [min(start + BLOCK, options.images, len(X))]
    ]
    total = {each: sum(block[each] for block in blocks) for each in blocks[0]}
    shares = [
        f"{total[each] / total['images']:.1%}"
        for each in ("proved", "accurate", "by intervals", "survived", "undecided")
    ]
    columns = [name, AIMS[name], *shares, f"{minutes:.1f}", f"{total['seconds'] / 60:.1f}"]
    print(f"| {' | '.join(columns)} |", flush=True)


def verdicts(model, X, y, timeout):
    """Count what is said of some images."""
    start = time.process_time()
    found = Cascade(timeout=timeout).verify(model, X, y, property=PROPERTY, random_state=0)
    seconds = time.process_time() - start
    intervals = Bounds("ibp").verify(model, X, y, property=PROPERTY).verdicts
    counts = {
        "images": len(X),
        "accurate": np.sum(model.predict(X) == y),
        "proved": np.sum(found.verdicts == "verified"),
        "by intervals": np.sum(intervals == "verified"),
        "survived": np.sum(found.decided_by != "pgd"),
        "undecided": np.sum(found.verdicts == "unknown"),
        "seconds": seconds,
    }
    return {each: float(count) for each, count in counts.items()}


if __name__ == "__main__":
    torch.set_num_threads(1)
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--configurations", nargs="+", choices=CONFIGURATIONS)
    parser.add_argument("--validate", action="store_true", help="show what the choices were of")
    parser.add_argument("--part", type=int, default=60_000, help="training images")
    parser.add_argument("--epochs", type=int, help="instead of those of the configurations")
    parser.add_argument("--images", type=int, default=10_000, help="test images")
    parser.add_argument("--sample", type=int, default=1_000, help="images for Exact, to choose")
    parser.add_argument("--timeout", type=float, default=5.0, help="seconds a point")
    parser.add_argument("--output", type=Path, default=Path("output/certified"))
    parser.set_defaults(header=True)
    main(parser.parse_args())
