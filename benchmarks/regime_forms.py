"""Which form of a regime's loss is the better default: each pair on a part of the training set.

A net of one hidden layer of 100 units, on digits or Fashion-MNIST. A validation set that is held
out of the first 1,297 digits, or of the training images, decides; the rest is not looked at. Rows
differ in one choice: whether the violations of SR and LR are added up or the largest one counts,
whether SCR compares probabilities or their logarithms, and whether augmentation draws anew in each
step or once ("3 x epochs" of the first are as many steps of the optimizer). Constraint security is
that of the property trained for, under `LinearBoundary` for SR and LR and PGD for the others; of
augmentation, that of classification robustness. One thread; mean of the seeds.
"""

import argparse
import time

import numpy as np
import torch
from sklearn.model_selection import train_test_split

from skrobust import RobustClassifier
from skrobust.attacks import PGD, LinearBoundary
from skrobust.datasets import fetch_fashion_mnist, load_digits
from skrobust.logics import DL2
from skrobust.properties import (
    ClassificationRobustness,
    LipschitzRobustness,
    StandardRobustness,
    StrongClassificationRobustness,
)
from skrobust.scorers import ConstraintSecurity
from skrobust.training import ConstraintTraining, DataAugmentation


def cases(options):
    """Yield rows: a name, a property, a regime, a factor of the epochs, the attack that scores."""
    epsilon = options.epsilon
    cr = ClassificationRobustness(epsilon / 2)
    for property in (
        StandardRobustness(epsilon, delta=options.delta),
        LipschitzRobustness(epsilon, lipschitz=options.lipschitz),
    ):
        for conjunction in ("sum", "max"):
            regime = ConstraintTraining(logic=DL2(conjunction=conjunction))
            name = f"{type(property).__name__}, {conjunction}"
            yield name, property, regime, 1, LinearBoundary()
    for output in ("log-probabilities", "probabilities"):
        property = StrongClassificationRobustness(epsilon / 2, output=output)
        for beta in (0.2, 1.0):
            regime = ConstraintTraining(beta=beta)
            yield f"SCR, {output}, beta {beta}", property, regime, 1, PGD()
    for sampling in ("uniform", "fgsm"):
        for static, factor in ((False, 1), (False, 3), (True, 1)):
            regime = DataAugmentation(sampling=sampling, static=static)
            name = f"augmentation, {sampling}, {'once' if static else 'anew'}"
            yield f"{name}, {factor} x epochs", cr, regime, factor, PGD()


def main(options):
    if options.data == "digits":
        X, y = (part[:1297] for part in load_digits(return_X_y=True))
    else:
        X, y = fetch_fashion_mnist(subset="train", return_X_y=True)
    X, X_valid, y, y_valid = train_test_split(
        X,
        y,
        train_size=options.train,
        test_size=options.images,
        stratify=y,
        random_state=0,
    )
    print("| regime | accuracy | security | training, s |\n|---|---|---|---|")
    for name, property, regime, factor, attack in cases(options):
        if not name.startswith(options.only):
            continue
        merits = []
        for seed in range(options.seeds):
            start = time.perf_counter()
            model = RobustClassifier(
                property=property,
                training=regime,
                max_epochs=factor * options.epochs,
                lr=options.lr,
                random_state=seed,
            ).fit(X, y)
            seconds = time.perf_counter() - start
            score = ConstraintSecurity(property, attack, random_state=0)
            merits.append((model.score(X_valid, y_valid), score(model, X_valid, y_valid), seconds))
        accuracy, security, seconds = np.mean(merits, axis=0)
        print(f"| {name} | {accuracy:.1%} | {security:.1%} | {seconds:.0f} |", flush=True)


if __name__ == "__main__":
    torch.set_num_threads(1)
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", choices=["digits", "fashion"], default="digits")
    parser.add_argument("--train", type=int, default=900)
    parser.add_argument("--images", type=int, default=397, help="of the validation set")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--epsilon", type=float, default=0.2)
    parser.add_argument("--delta", type=float, default=1.5)
    parser.add_argument("--lipschitz", type=float, default=10.0)
    parser.add_argument("--only", default="", help="rows whose names begin so")
    main(parser.parse_args())
