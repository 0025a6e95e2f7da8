"""Certified networks: what is proved at which accuracy, epsilon = 0.1 in the L-infinity norm.

Classification robustness of Fashion-MNIST and MNIST, pixels in [0, 1]. The configurations, with
what they are to reach, are in `_certified_networks.py`; those whose training takes about ten
minutes and more are left out without ``--full``. Each sees the test images once: all of them by
interval bounds, and ``--images`` by the default `Cascade` with a limit of seconds a point.
``--validate`` trains what the choices were among on five sixths of the training images, and shows
it the sixth that is left: by interval bounds, then the Cascade on a few.

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
from _certified_networks import AIMS, CANDIDATES, CONFIGURATIONS, EPSILON, LONG
from sklearn.model_selection import train_test_split

from skrobust.datasets import fetch_fashion_mnist, fetch_mnist
from skrobust.properties import ClassificationRobustness
from skrobust.verification import Bounds, Cascade

FETCH = {"mnist": fetch_mnist, "fashion": fetch_fashion_mnist}
BLOCK = 500  # images whose verdicts are kept at once
PROPERTY = ClassificationRobustness(EPSILON)


def main(options):
    options.output.mkdir(parents=True, exist_ok=True)
    show = validate if options.validate else test
    names = [name for name in CONFIGURATIONS if options.full or name not in LONG]
    for name in options.configurations or names:
        show(name, options)


# ---- what is kept ---------------------------------------------------------------------


def key(configuration, options, is_part):
    """Name settings, so that what was computed with them is found again."""
    model = configuration.model(options.epochs)
    described = [repr(model), configuration.data, repr(options.part), repr(is_part)]
    return hashlib.sha256("\n".join(described).encode()).hexdigest()[:12]


def kept(file, compute):
    """Return what a file of JSON holds; computed and written if there is none."""
    if not file.exists():
        written = file.with_suffix(".part")
        written.write_text(json.dumps(compute()), encoding="utf-8")
        written.rename(file)  # at once, so that no killed run leaves half of it
    return json.loads(file.read_text(encoding="utf-8"))


def trained(name, configuration, options, *, is_part):
    """Return a trained model, the minutes it took, where it is kept, and images to validate it.

    It is read from the folder if it is there. `is_part` keeps a sixth of the images from it.
    """
    X, y = FETCH[configuration.data](subset="train", return_X_y=True)
    X, y = X[: options.part], y[: options.part]
    X_valid = y_valid = None
    if is_part:
        X, X_valid, y, y_valid = train_test_split(
            X, y, test_size=1 / 6, stratify=y, random_state=0
        )
    stem = options.output / f"{name}-{key(configuration, options, is_part)}"
    weights = stem.with_suffix(".pt")
    model = configuration.model(options.epochs)

    def fit():
        start = time.process_time()
        model.fit(X, y)
        minutes = (time.process_time() - start) / 60
        torch.save(model.net_.module_.state_dict(), weights)
        return {"minutes": minutes}

    minutes = kept(stem.with_suffix(".json"), fit)["minutes"]
    if not hasattr(model, "net_"):
        # A model of the same shape, and then the weights that were kept.
        model.set_params(training=None, max_epochs=1).fit(X[:100], y[:100])
        model.net_.module_.load_state_dict(torch.load(weights))
    return model, minutes, stem, (X_valid, y_valid)


# ---- the choice -----------------------------------------------------------------------


def validate(name, options):
    """Print what the candidates of a configuration reach on a sixth of the training images."""
    print(f"\n{name}: candidates, on a sixth of the training images\n")
    print(
        "| settings | accuracy | proved by intervals | "
        f"proved by the Cascade, of {options.sample} | core-minutes |\n|---|---|---|---|---|"
    )
    for label, configuration in CANDIDATES[name].items():
        model, minutes, _, (X_valid, y_valid) = trained(name, configuration, options, is_part=True)
        accuracy = model.score(X_valid, y_valid)
        verdicts = Bounds("ibp").verify(model, X_valid, y_valid, property=PROPERTY).verdicts
        sample = X_valid[: options.sample], y_valid[: options.sample]
        cascade = Cascade(timeout=options.timeout)
        found = cascade.verify(model, *sample, property=PROPERTY, random_state=0)
        shares = [accuracy, *((v == "verified").mean() for v in (verdicts, found.verdicts))]
        printed = " | ".join(f"{share:.1%}" for share in shares)
        print(f"| {label} | {printed} | {minutes:.1f} |", flush=True)


# ---- the test -------------------------------------------------------------------------


def test(name, options):
    """Print what the Cascade says of a configuration on test images."""
    if options.header:
        options.header = False
        print(
            "| configuration | aim: proved at accuracy | accuracy | proved by intervals | "
            "images | proved by the Cascade | survived its attack | undecided | "
            "training, core-minutes | Cascade, core-minutes |\n" + "|---" * 10 + "|"
        )
    configuration = CONFIGURATIONS[name]
    is_part = not configuration.refit
    model, minutes, stem, _ = trained(name, configuration, options, is_part=is_part)
    X, y = FETCH[configuration.data](subset="test", return_X_y=True)
    all_images = kept(
        stem.with_name(f"{stem.name}-intervals.json"), lambda: by_intervals(model, X, y)
    )
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
        f"{total[each] / total['images']:.1%}" for each in ("proved", "survived", "undecided")
    ]
    columns = [
        name,
        AIMS[name],
        *(f"{share:.1%}" for share in all_images.values()),
        f"{total['images']:.0f}",
        *shares,
        f"{minutes:.1f}",
        f"{total['seconds'] / 60:.1f}",
    ]
    print(f"| {' | '.join(columns)} |", flush=True)


def by_intervals(model, X, y):
    """Return the share of right answers, and of images that intervals alone prove."""
    found = Bounds("ibp").verify(model, X, y, property=PROPERTY)
    return {"accuracy": model.score(X, y), "proved": np.mean(found.verdicts == "verified")}


def verdicts(model, X, y, timeout):
    """Count what the Cascade says of some images."""
    start = time.process_time()
    found = Cascade(timeout=timeout).verify(model, X, y, property=PROPERTY, random_state=0)
    counts = {
        "images": len(X),
        "proved": np.sum(found.verdicts == "verified"),
        "survived": np.sum(found.decided_by != "pgd"),
        "undecided": np.sum(found.verdicts == "unknown"),
        "seconds": time.process_time() - start,
    }
    return {each: float(count) for each, count in counts.items()}


if __name__ == "__main__":
    torch.set_num_threads(1)
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--configurations", nargs="+", choices=CONFIGURATIONS)
    parser.add_argument("--full", action="store_true", help=f"also {' and '.join(LONG)}")
    parser.add_argument("--validate", action="store_true", help="show what the choices were of")
    parser.add_argument("--part", type=int, default=60_000, help="training images")
    parser.add_argument("--epochs", type=int, help="instead of those of the configurations")
    parser.add_argument("--images", type=int, default=10_000, help="test images for the Cascade")
    parser.add_argument("--sample", type=int, default=500, help="images for it, with --validate")
    parser.add_argument("--timeout", type=float, default=5.0, help="seconds a point")
    parser.add_argument("--output", type=Path, default=Path("output/certified"))
    parser.set_defaults(header=True)
    main(parser.parse_args())
