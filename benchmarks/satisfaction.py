"""The cascade and `Exact` against Marabou: constraint satisfaction on Fashion-MNIST, 784-30-10.

Two networks, trained on the whole training set with standard and with adversarial training;
classification robustness, standard robustness (delta = 10) and Lipschitz robustness (L = 10),
each point with a time limit. One thread, one run.

With 100 images it takes about a quarter of an hour, most of it Marabou's.

Marabou's side is its better form: for each point the shorter time of one disjunction and of one
query a row. It gets CROWN bounds of all hidden units, and rows that CROWN proves are not asked;
what these bounds cost is part of its time. It is asked for every point of classification
robustness, and for the points of the other properties that attack and bounds leave open. A point
that neither form decides within the limit counts with the limit, so that its true ratio is larger.

Last, the cascade leaves evidence, and the checker of evidence looks at it: medians a point of the
proof and of its check, in floats and in exact arithmetic, of the points that were verified. A
verdict without evidence is counted, and so is a file that is rejected, of which there is none.
"""

import argparse
import tempfile
import time
import warnings
from collections import Counter

import numpy as np
import torch

from skrobust import RobustClassifier, evidence
from skrobust.attacks import PGD
from skrobust.datasets import fetch_fashion_mnist
from skrobust.properties import (
    ClassificationRobustness,
    LipschitzRobustness,
    StandardRobustness,
)
from skrobust.training import AdversarialTraining
from skrobust.verification import Bounds, Cascade, Exact, Marabou, VerificationBuilder

PROPERTIES = {
    "CR": ClassificationRobustness,
    "SR": lambda epsilon: StandardRobustness(epsilon, delta=10.0),
    "LR": lambda epsilon: LipschitzRobustness(epsilon, lipschitz=10.0),
}


def main(n_images, epsilons, timeout, max_epochs):
    torch.set_num_threads(1)
    X, y = fetch_fashion_mnist(subset="test", return_X_y=True)
    X, y = X[:n_images], y[:n_images]
    rows = []
    for name, model in networks(max_epochs):
        print(f"{name}: accuracy {model.score(X, y):.3f} on the {len(X)} images\n", flush=True)
        print(HEADER)
        for kind, make in PROPERTIES.items():
            for epsilon in epsilons:
                row = compare(model, make(epsilon), X, y, timeout)
                rows.append((kind, row))
                print(f"| {kind}, {epsilon} | " + row.line, flush=True)
        print()
        print(EVIDENCE_HEADER)
        for kind, make in PROPERTIES.items():
            for epsilon in epsilons:
                line = with_evidence(model, make(epsilon), X, y, timeout)
                print(f"| {kind}, {epsilon} | " + line, flush=True)
        print()
    summary(rows)


def networks(max_epochs):
    X, y = fetch_fashion_mnist(subset="train", return_X_y=True)
    for name, training in (("baseline", None), ("adversarial training", AdversarialTraining())):
        yield (
            name,
            RobustClassifier(
                hidden_layer_sizes=(30,),
                property=ClassificationRobustness(0.1),
                training=training,
                max_epochs=max_epochs,
                lr=1e-3,
                random_state=0,
            ).fit(X, y),
        )


HEADER = (
    "| | verified, falsified, unknown | cascade, s | Marabou, s | open | Exact, s | Marabou, s "
    "| Marabou undecided | other verdicts |\n|---|---|---|---|---|---|---|---|---|"
)


EVIDENCE_HEADER = (
    "| | decided | without evidence | rejected | proof, ms | check, ms | exact check, ms "
    "| slowest exact check, s |\n|---|---|---|---|---|---|---|---|"
)


def with_evidence(model, property, X, y, timeout):
    """Leave evidence and check it, point by point, as verdicts are found."""
    proofs, checks, exact_checks, counts = [], [], [], Counter()
    for i in range(len(X)):
        at = slice(i, i + 1)
        with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what has no evidence is counted here
            options = {"property": property, "timeout": timeout}
            plain, seconds = timed(Cascade().verify, model, X[at], y[at], **options)
            Cascade().verify(model, X[at], y[at], evidence=folder, **options)
            counts["decided"] += int(plain.verdicts[0] != "unknown")
            by_floats, by_check = timed(evidence.check, folder)
            exactly, by_exact = timed(evidence.check, folder, exact=True)
        counts["files"] += len(by_floats)
        counts["rejected"] += int((~by_floats.accepted).sum() + (~exactly.accepted).sum())
        if plain.verdicts[0] == "verified" and len(by_floats):
            proofs.append(seconds)
            checks.append(by_check)
            exact_checks.append(by_exact)
    medians = [1e3 * np.median(times or [np.nan]) for times in (proofs, checks, exact_checks)]
    return (
        f"{counts['decided']} | {counts['decided'] - counts['files']} | {counts['rejected']} | "
        + " | ".join(f"{median:.1f}" for median in medians)
        + f" | {max(exact_checks, default=np.nan):.2f} |"
    )


def timed(function, *arguments, **options):
    start = time.process_time()
    return function(*arguments, **options), time.process_time() - start


class Row:
    """What came out for one network, property and epsilon.

    Seconds of the cascade, and of Marabou for the points it was asked for; then those of `Exact`
    and of Marabou for the points that attack and bounds leave open.
    """

    def __init__(self, cascade, elapsed, exact, left, asked, marabou):
        self.cascade, self.exact, self.n_open = elapsed, exact.seconds.sum(), len(left)
        self.counts = Counter(cascade.verdicts.tolist())
        seconds = np.array([form.seconds for form in marabou])
        decided = np.array([form.verdicts != "unknown" for form in marabou])
        # A form that fails early is no better one, where the other one decides.
        best = np.where(decided | ~decided.any(axis=0), seconds, np.inf).min(axis=0)
        self.marabou, self.marabou_open = best.sum(), best[np.isin(asked, left)].sum()
        expected = cascade.verdicts[asked]
        self.undecided = int((~decided.any(axis=0)).sum())
        self.differ = int((exact.verdicts != cascade.verdicts[left]).sum())
        for form, known in zip(marabou, decided, strict=True):
            self.differ += int((form.verdicts[known] != expected[known]).sum())

    @property
    def line(self):
        counts = ", ".join(
            str(self.counts[verdict]) for verdict in ("verified", "falsified", "unknown")
        )
        return (
            f"{counts} | {self.cascade:.2f} | {self.marabou:.2f} | {self.n_open} | "
            f"{self.exact:.2f} | {self.marabou_open:.2f} | {self.undecided} | {self.differ} |"
        )


def compare(model, property, X, y, timeout):
    """Ask all sides about the same points."""
    cheap = Cascade([PGD(n_restarts=3), Bounds()]).verify(model, X, y, property=property)
    left = cheap.undecided_index
    start = time.perf_counter()
    cascade = Cascade(timeout=timeout).verify(model, X, y, property=property)
    elapsed = time.perf_counter() - start
    exact = ask(Exact(), model, property, X, y, left, timeout)
    is_cr = isinstance(property, ClassificationRobustness)
    asked = np.arange(len(X)) if is_cr else left
    marabou = [
        ask(Marabou(form), model, property, X, y, asked, timeout)
        for form in ("disjunction", "rows")
    ]
    return Row(cascade, elapsed, exact, left, asked, marabou)


def ask(verifier, model, property, X, y, index, timeout):
    if len(index) == 0:
        return VerificationBuilder(torch.empty(0, X.shape[1])).result()
    return verifier.verify(model, X[index], y[index], property=property, timeout=timeout)


def summary(rows):
    for kind in PROPERTIES:
        chosen = [row for name, row in rows if name == kind]
        cascade, marabou, exact, marabou_open = (
            sum(getattr(row, name) for row in chosen)
            for name in ("cascade", "marabou", "exact", "marabou_open")
        )
        whole = f", Marabou {marabou:.2f} s, ratio {marabou / cascade:.1f}" if kind == "CR" else ""
        n_open = sum(row.n_open for row in chosen)
        ratio = f", ratio {marabou_open / exact:.1f}" if n_open else ""
        print(
            f"{kind}: cascade {cascade:.2f} s{whole}; {n_open} open points: Exact {exact:.2f} s, "
            f"Marabou {marabou_open:.2f} s{ratio}; unknown to the cascade "
            f"{sum(row.counts['unknown'] for row in chosen)}, to Marabou "
            f"{sum(row.undecided for row in chosen)}; other verdicts "
            f"{sum(row.differ for row in chosen)}"
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--epsilons", type=float, nargs="+", default=[0.02, 0.05, 0.1])
    parser.add_argument("--timeout", type=float, default=60.0)
    parser.add_argument("--epochs", type=int, default=10)
    arguments = parser.parse_args()
    main(arguments.images, arguments.epsilons, arguments.timeout, arguments.epochs)
