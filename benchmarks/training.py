"""One epoch of PGD-10 adversarial training against a bare torch loop of the same updates.

Fashion-MNIST, 784-100-10, batches of 128, Adam, one thread. The bare loop starts from the same
weights, takes the same number of steps on batches of the same size, and does nothing else.
"""

import argparse
import copy

import torch
from _timing import compare, header

from skrobust import RobustClassifier
from skrobust.attacks import PGD
from skrobust.datasets import fetch_fashion_mnist
from skrobust.properties import ClassificationRobustness
from skrobust.training import AdversarialTraining

EPSILON, N_STEPS, BATCH, LR = 0.1, 10, 128, 1e-3


def main(n_train, repeats):
    X, y = fetch_fashion_mnist(subset="train", return_X_y=True)
    X, y = X[:n_train], y[:n_train]
    module = torch.nn.Sequential(
        torch.nn.Linear(784, 100), torch.nn.ReLU(), torch.nn.Linear(100, 10)
    )
    model = RobustClassifier(
        module,
        property=ClassificationRobustness(EPSILON),
        training=AdversarialTraining(PGD(N_STEPS, objective="cross-entropy")),
        max_epochs=1,
        batch_size=BATCH,
        lr=LR,
        random_state=0,
    )
    header()
    compare(
        f"one epoch of {n_train} images",
        lambda: model.fit(X, y),
        lambda: bare_loop(copy.deepcopy(module), torch.tensor(X), torch.tensor(y)),
        repeats=repeats,
    )


def bare_loop(module, X, y):
    optimizer = torch.optim.Adam(module.parameters(), lr=LR)
    loss = torch.nn.functional.cross_entropy
    for index in torch.randperm(len(X)).split(BATCH):
        x, labels = X[index], y[index]
        lower, upper = (x - EPSILON).clamp(min=0), (x + EPSILON).clamp(max=1)
        module.eval()
        attacked = lower + torch.rand_like(x) * (upper - lower)
        for i in range(N_STEPS):
            attacked.requires_grad_()
            (gradient,) = torch.autograd.grad(loss(module(attacked), labels), attacked)
            step = gradient.sign() * (EPSILON / 2 * (1 - i / N_STEPS))
            attacked = torch.clamp(attacked.detach() + step, lower, upper)
        module.train()
        optimizer.zero_grad()
        loss(module(attacked), labels).backward()
        optimizer.step()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--train", type=int, default=60000)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    main(arguments.train, arguments.repeats)
