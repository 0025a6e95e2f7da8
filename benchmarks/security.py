"""Attacks against Foolbox, and against the truth.

First PGD-40 constraint security against Foolbox's LinfPGD with the same steps: Fashion-MNIST,
784-100-10, classification robustness at epsilon = 0.1, 1,000 test images. Foolbox drives the
cross-entropy, as it does by default, from random starts.

Then, on five networks, which share of the violations that there are each attack finds, and in what
time, beside the AutoAttack of torchattacks. The truth is that of the complete cascade; what it
leaves unknown within its seconds counts as no violation in the larger share, and as one in the
smaller. All in one thread. torchattacks asks for an old version of another package, so that it is
not in the extra "bench": `pip install --no-deps torchattacks==3.5.1`. Without it, or with
`--skip-autoattack`, its line is left out.
"""

import argparse
import time

import foolbox
import torch
from _architectures import convolutional
from _timing import compare, header

from skrobust import RobustClassifier
from skrobust.attacks import PGD, AutoPGD, LinearBoundary
from skrobust.datasets import fetch_fashion_mnist, load_digits
from skrobust.networks import as_network
from skrobust.properties import ClassificationRobustness, StandardRobustness
from skrobust.scorers import ConstraintSecurity
from skrobust.training import AdversarialTraining, CertifiedTraining
from skrobust.verification import Cascade

EPSILON, N_STEPS = 0.1, 40


def main(given):
    torch.set_num_threads(1)
    train = fetch_fashion_mnist(subset="train", return_X_y=True)
    train = train[0][: given.train], train[1][: given.train]
    test = fetch_fashion_mnist(subset="test", return_X_y=True)
    property = ClassificationRobustness(EPSILON)
    header()
    models = {}
    for regime in (None, AdversarialTraining(PGD(5, objective="cross-entropy"))):
        name = "adversarial training" if regime else "standard training"
        models[name] = RobustClassifier(
            property=property, training=regime, max_epochs=3, lr=1e-3, random_state=0
        ).fit(*train)
        X, y = test[0][: given.images], test[1][: given.images]
        against_foolbox(name, models[name], property, X, y, given.repeats)
    for case in networks(models["standard training"], train, test, given.epochs):
        against_truth(*case, given.truth, given.timeout, not given.skip_autoattack)


# ---- against Foolbox ----------------------------------------------------------------------


def against_foolbox(name, model, property, X, y, repeats):
    network = as_network(model)
    peer = foolbox.PyTorchModel(network.module, bounds=(0, 1), device="cpu")
    attack = foolbox.attacks.LinfPGD(steps=N_STEPS)
    x, labels = network.rows(X), network.encode(y)
    found = {}

    def foolbox_pgd():
        found["foolbox"] = attack(peer, x, labels, epsilons=EPSILON)[2].float().mean().item()

    for objective in ("margin", "cross-entropy"):
        scorer = ConstraintSecurity(property, PGD(N_STEPS, objective=objective), random_state=0)

        def ours(scorer=scorer):
            found["ours"] = 1 - scorer(model, X, y)

        compare(f"{name}, {objective}", ours, foolbox_pgd, repeats=repeats)
        print(
            f"| success: ours {found['ours']:.3f}, Foolbox {found['foolbox']:.3f} | | | |",
            flush=True,
        )


# ---- against the truth --------------------------------------------------------------------


def networks(fashion_model, train, test, epochs):
    """Yield name, fitted model, property and test data of each network."""
    X, y = load_digits(return_X_y=True)
    property = ClassificationRobustness(0.12)
    regimes = {
        "standard": None,
        "adversarial": AdversarialTraining(),
        "certified": CertifiedTraining(),
    }
    for name, regime in regimes.items():
        model = RobustClassifier(
            hidden_layer_sizes=(100, 100),
            property=property,
            training=regime,
            max_epochs=epochs,
            random_state=0,
        ).fit(X[:1437], y[:1437])
        yield f"digits, 64-100-100-10, {name}, CR 0.12", model, property, X[1437:], y[1437:]
    name = "Fashion-MNIST, 784-100-10, standard"
    for property in (ClassificationRobustness(0.02), StandardRobustness(0.1, delta=6.0)):
        shown = "CR 0.02" if isinstance(property, ClassificationRobustness) else "SR 0.1, delta 6"
        yield f"{name}, {shown}", fashion_model, property, *test
    property = ClassificationRobustness(0.05)
    model = RobustClassifier(
        convolutional,
        input_shape=(1, 28, 28),
        property=property,
        training=AdversarialTraining(PGD(5, objective="cross-entropy")),
        max_epochs=2,
        lr=1e-3,
        random_state=0,
    ).fit(train[0][:20000], train[1][:20000])
    yield "Fashion-MNIST, convolutional, adversarial, CR 0.05", model, property, *test


def attacks():
    """Yield names and attacks; None is the default of `ConstraintSecurity`."""
    yield "PGD, cross-entropy", PGD(objective="cross-entropy")
    yield "PGD, smallest row", PGD(objective="smallest-row")
    yield "PGD", PGD()
    yield "default", None
    yield "AutoPGD, 3 restarts", AutoPGD(n_restarts=3)
    yield "LinearBoundary", LinearBoundary()


def against_truth(name, model, property, X, y, n_images, timeout, with_autoattack):
    X, y = X[:n_images], y[:n_images]
    verdicts = Cascade(timeout=timeout).verify(model, X, y, property=property).verdicts
    n_broken, n_unknown = (int((verdicts == v).sum()) for v in ("falsified", "unknown"))
    print(f"\n{name}: {len(X)} images, {n_broken} broken, {n_unknown} unknown\n")
    print("| attack | broken | share of the truth | s |\n|---|---|---|---|")
    for key, attack in attacks():
        show(key, *timed(broken_by, model, property, attack, X, y), n_broken, n_unknown)
    if with_autoattack and isinstance(property, ClassificationRobustness):
        count, seconds = timed(broken_by_autoattack, model, property, X, y)
        if count is not None:
            show("AutoAttack", count, seconds, n_broken, n_unknown)


def show(key, count, seconds, n_broken, n_unknown):
    # An attack may break what the cascade left unknown.
    share = f"{min(count / max(n_broken, 1), 1.0):.1%}"
    if n_unknown:
        share = f"{count / max(n_broken + n_unknown, 1):.1%} to {share}"
    print(f"| {key} | {count} | {share} | {seconds:.2f} |", flush=True)


def broken_by(model, property, attack, X, y):
    scorer = ConstraintSecurity(property, attack, random_state=0)
    return int((~scorer.evaluate(model, X, y).holds).sum())


def broken_by_autoattack(model, property, X, y):
    try:
        import torchattacks
    except ImportError:
        return None
    network = as_network(model)
    x, labels = network.rows(X), network.encode(y)
    # It takes images alone.
    peer = torch.nn.Sequential(torch.nn.Flatten(), network.module).eval()
    attack = torchattacks.AutoAttack(peer, eps=property.epsilon, n_classes=10, seed=0)
    points = attack(x.view(len(x), 1, 1, -1), labels).flatten(1)
    with torch.no_grad():
        return int((network(points).argmax(dim=1) != labels).sum())


def timed(function, *arguments):
    start = time.process_time()
    return function(*arguments), time.process_time() - start


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--train", type=int, default=60000)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--truth", type=int, default=200, help="images of each network")
    parser.add_argument("--timeout", type=float, default=3.0, help="of the cascade, an image")
    parser.add_argument("--epochs", type=int, default=50, help="of the networks of digits")
    parser.add_argument("--skip-autoattack", action="store_true")
    main(parser.parse_args())
