"""The data of the rerun on global robustness, how its networks are trained, and what is read of
them: accuracy, and by how much one step along the gradient of the loss changes the output."""

import _images
import torch
from _global_grids import build, n_weights
from _images import SHAPES

from skrobust import RobustClassifier
from skrobust.attacks import FGSM, Target
from skrobust.networks import as_network
from skrobust.properties import ClassificationRobustness

__all__ = ["DELTAS", "MEASURES", "changes", "classifier", "images", "reading"]

# The paper says 0.05 of its figure 2, and "smaller" for Fashion-MNIST and CIFAR-10.
DELTAS = (0.005, 0.01, 0.02, 0.03, 0.05, 0.1)
MEASURES = {
    "mean": "mean largest change of the softmax",
    "above": "share with a change above 0.5",
    "label": "share with a change of the label",
}


def images(data, part, *, n_train, n_validation, pool=1, seed=0):
    """Return images of one part of a data set, their labels and their shape.

    Parameters
    ----------
    data, part, n_train, n_validation, seed
        As in `_images.images`.
    pool : int, default=1
        Each square of so many pixels a side is averaged to one.
    """
    sizes = {"n_train": n_train, "n_validation": n_validation}
    X, y = _images.images(data, part, **sizes, seed=seed)
    channels, height, width = SHAPES[data]
    if pool > 1:
        height, width = height // pool, width // pool
        X = X.reshape(-1, channels, height, pool, width, pool).mean(axis=(3, 5))
        X = X.reshape(len(X), -1)
    return X, y, (channels, height, width)


def classifier(shape, config, *, batch_size, optimizer="sgd", device="cpu", seed=0):
    """Return an unfitted network of a grid; `config` may hold "epochs", which others count."""
    architecture = {k: v for k, v in config.items() if k not in ("lr", "epochs")}
    return RobustClassifier(
        build,
        module_params={"input_shape": shape} | architecture,
        input_shape=shape,
        lr=config["lr"],
        batch_size=batch_size,
        max_epochs=config.get("epochs", 1),
        device=device,
        optimizer={"sgd": torch.optim.SGD, "adam": torch.optim.Adam}[optimizer],
        random_state=seed,
    )


def changes(model, X, delta, size=512):
    """Return the largest change of a softmax entry, and whether the label changes, of each image.

    One step of FGSM along the gradient of the cross-entropy of the classifier's own label, in an
    L-infinity ball of radius `delta` cut by [0, 1]: true labels play no part.
    """
    network = as_network(model)
    property = ClassificationRobustness(delta, reference="prediction")
    rows = network.rows(X)
    largest, moved = [], []
    for part in rows.split(size):
        points = FGSM("cross-entropy").points(Target(network, property, part))
        before, after = (torch.softmax(network.replay(x).double(), 1) for x in (part, points))
        largest.append((after - before).abs().amax(dim=1))
        moved.append(after.argmax(dim=1) != before.argmax(dim=1))
    return torch.cat(largest).cpu().numpy(), torch.cat(moved).cpu().numpy()


def reading(model, test, validation, n_attacked, deltas=DELTAS):
    """Return what is known of a fitted network.

    Parameters
    ----------
    model : fitted classifier
    test, validation : pair of arrays
        Images and labels. Accuracy is that of all of them.
    n_attacked : int
        Test images to attack.
    deltas : tuple of float

    Returns
    -------
    dict
        "accuracy", "validation_accuracy", and by delta and measure (`MEASURES`) the change on
        "test" and on "validation" images: D of the paper, so that small is robust.
    """
    found = {
        "accuracy": float(model.score(*test)),
        "validation_accuracy": float(model.score(*validation)),
        "test": {},
        "validation": {},
    }
    for part, X in (("test", test[0][:n_attacked]), ("validation", validation[0])):
        for delta in deltas:
            largest, moved = changes(model, X, delta)
            found[part][delta] = {
                "mean": float(largest.mean()),
                "above": float((largest > 0.5).mean()),
                "label": float(moved.mean()),
            }
    return found


def capacity(model):
    """Return the number of weights of a fitted RobustClassifier."""
    return n_weights(model.net_.module_)
