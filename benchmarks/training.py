"""One epoch of adversarial and of certified training against bare torch loops of the same updates.

Fashion-MNIST, 784-100-10, batches of 128, Adam, one thread. Each bare loop starts from the same
weights, takes the same number of steps on batches of the same size, and does nothing else. That
of certified training has its bounds written out by hand for two linear layers and a ReLU.

Where CTRAIN 0.6.1 and auto_LiRPA can be imported, an epoch of theirs stands beside ours, at the
full radius.

Then what it costs that PGD holds on to a row, beside PGD that follows the smallest row at each
step.
"""

import argparse
import copy

import torch
from _ctrain import is_installed, peer_epoch
from _timing import compare, header
from torch.nn import functional

from skrobust import RobustClassifier
from skrobust.attacks import PGD
from skrobust.datasets import fetch_fashion_mnist
from skrobust.properties import (
    ClassificationRobustness,
    LipschitzRobustness,
    StandardRobustness,
    StrongClassificationRobustness,
)
from skrobust.training import AdversarialTraining, CertifiedTraining

EPSILON, N_STEPS, BATCH, LR = 0.1, 10, 128, 1e-3
PROPERTIES = (
    ClassificationRobustness(EPSILON),
    StandardRobustness(EPSILON, delta=6.0),
    LipschitzRobustness(EPSILON, lipschitz=60.0),
    StrongClassificationRobustness(EPSILON, eta=0.52),
)
RAMP_EPOCHS = 4  # so that lines have a share of 3 / 4 in the first epoch


def main(n_train, repeats):
    X, y = fetch_fashion_mnist(subset="train", return_X_y=True)
    X, y = X[:n_train], y[:n_train]
    module = torch.nn.Sequential(
        torch.nn.Linear(784, 100), torch.nn.ReLU(), torch.nn.Linear(100, 10)
    )
    regimes = [
        (AdversarialTraining(PGD(N_STEPS, objective="cross-entropy")), adversarial_loss),
        *((CertifiedTraining(m, ramp_epochs=RAMP_EPOCHS), certified_loss(m)) for m in METHODS),
    ]
    header()
    for regime, loss in regimes:
        compare_epochs(regime, loss, module, X, y, repeats)
    if is_installed():
        for method in ("ibp", "sabr"):
            compare_with_peer(method, module, X, y, repeats)
    for property in PROPERTIES:
        compare_objectives(property, module, X, y, repeats)


METHODS = ("ibp", "crown-ibp", "sabr")
SMALL, SABR_STEPS = 0.5, 8  # boxes of "sabr", relative to the radius; steps of its attack


def classifier(module, regime, property=PROPERTIES[0]):
    return RobustClassifier(
        module,
        property=property,
        training=regime,
        max_epochs=1,
        batch_size=BATCH,
        lr=LR,
        random_state=0,
    )


def compare_epochs(regime, loss, module, X, y, repeats):
    model = classifier(module, regime)
    method = getattr(regime, "method", None)
    compare(
        f"one epoch of {len(X)} images, {type(regime).__name__}" + (f", {method}" * bool(method)),
        lambda: model.fit(X, y),
        lambda: bare_loop(copy.deepcopy(module), loss, torch.tensor(X), torch.tensor(y)),
        repeats=repeats,
    )


def compare_with_peer(method, module, X, y, repeats):
    regime = CertifiedTraining(method, alpha=SMALL, ramp_epochs=0)
    settings = {"epsilon": EPSILON, "alpha": SMALL, "batch_size": BATCH, "lr": LR}
    compare(
        f"one epoch of {len(X)} images, {method}, and by CTRAIN",
        lambda: classifier(module, regime).fit(X, y),
        lambda: peer_epoch(method, module, X, y, **settings),
        repeats=repeats,
    )


def compare_objectives(property, module, X, y, repeats):
    def fitted(objective):
        regime = AdversarialTraining(PGD(N_STEPS, objective=objective))
        return classifier(module, regime, property).fit(X, y)

    compare(
        f"{type(property).__name__}: a held row (ours) and the smallest row",
        lambda: fitted("margin"),
        lambda: fitted("smallest-row"),
        repeats=repeats,
    )


def bare_loop(module, loss, X, y):
    optimizer = torch.optim.Adam(module.parameters(), lr=LR)
    module.train()
    for index in torch.randperm(len(X)).split(BATCH):
        optimizer.zero_grad()
        loss(module, X[index], y[index]).backward()
        optimizer.step()


def adversarial_loss(module, x, labels):
    return functional.cross_entropy(module(attack(module, x, labels, EPSILON, N_STEPS)), labels)


def attack(module, x, labels, epsilon, n_steps):
    lower, upper = (x - epsilon).clamp(min=0), (x + epsilon).clamp(max=1)
    module.eval()
    attacked = lower + torch.rand_like(x) * (upper - lower)
    for i in range(n_steps):
        attacked.requires_grad_()
        (gradient,) = torch.autograd.grad(
            functional.cross_entropy(module(attacked), labels), attacked
        )
        step = gradient.sign() * (epsilon / 2 * (1 - i / n_steps))
        attacked = torch.clamp(attacked.detach() + step, lower, upper)
    module.train()
    return attacked


def certified_loss(method):
    def loss(module, x, labels):
        ramp = 1 / RAMP_EPOCHS
        epsilon = EPSILON * ramp
        lower, upper = (x - epsilon).clamp(min=0), (x + epsilon).clamp(max=1)
        if method == "sabr":
            points = attack(module, x, labels, epsilon * (1 - SMALL), SABR_STEPS)
            lower = torch.maximum(lower, points - SMALL * epsilon)
            upper = torch.minimum(upper, points + SMALL * epsilon)
        first, _, last = module
        logits = module(x)
        rows = difference_rows(labels)
        inner = rows @ last.weight
        low, high = interval(first, lower, upper)
        worst = least(inner, low.relu(), high.relu()) + rows @ last.bias
        if method == "crown-ibp":
            worst = ramp * worst + (1 - ramp) * (
                by_lines(first, inner, low, high, lower, upper) + rows @ last.bias
            )
        weight = 1 - ramp if method == "sabr" else 1 - ramp / 2
        worst = torch.logsumexp(functional.pad(-worst, (1, 0)), dim=1).mean()
        return weight * functional.cross_entropy(logits, labels) + (1 - weight) * worst

    return loss


def difference_rows(labels):
    """Return z_label - z_j for all other j, of shape (n, 9, 10)."""
    eye = torch.eye(10)
    rows = eye[labels].unsqueeze(1) - eye
    return rows[~eye.bool()[labels]].view(len(labels), 9, 10)


def interval(layer, lower, upper):
    center = layer((lower + upper) / 2)
    radius = functional.linear((upper - lower) / 2, layer.weight.abs())
    return center - radius, center + radius


def least(rows, low, high):
    center, radius = ((high + low) / 2).unsqueeze(2), ((high - low) / 2).unsqueeze(2)
    return (rows @ center - rows.abs() @ radius).squeeze(2)


def by_lines(first, rows, low, high, lower, upper):
    """Return CROWN's bounds: rows of the hidden units pulled back through lines of the ReLUs."""
    is_open = (low < 0) & (high > 0)
    chord = high / torch.where(is_open, high - low, 1.0)
    on = (low >= 0).to(low.dtype)
    above = torch.where(is_open, chord, on).unsqueeze(1)
    below = torch.where(is_open, (high > -low).to(low.dtype), on).unsqueeze(1)
    shift = torch.where(is_open, -chord * low, 0.0)
    positive, negative = rows.clamp(min=0), rows.clamp(max=0)
    pulled = positive * below + negative * above
    constant = (negative @ shift.unsqueeze(2)).squeeze(2) + pulled @ first.bias
    return least(pulled @ first.weight, lower, upper) + constant


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--train", type=int, default=60000)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    main(arguments.train, arguments.repeats)
