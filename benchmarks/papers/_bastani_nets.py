"""The networks of Bastani et al., their data, and how Caffe trains them.

The paper names Caffe and "the LeNet, modified to use ReLUs instead of sigmoids", and no more. So
the network is that of Caffe's example of this description: no ReLU after its convolutions, one
after the first linear layer. Its recipe is that example's, too.
"""

import math

import numpy as np
import torch
from sklearn.datasets import load_digits
from skorch.callbacks import LRScheduler
from torch import nn

from skrobust import RobustClassifier
from skrobust.datasets import fetch_cifar10, fetch_mnist

__all__ = ["NETWORKS", "classifier", "images"]

BATCH = 64
_N_SMOKE = 40  # digits that train and test a smoke run


def images(data, subset, n=None):
    """Return the first n images of a data set, one a row, and their labels.

    Parameters
    ----------
    data : {"mnist", "cifar10", "digits", "color-digits"}
        The last two are scikit-learn's digits, enlarged to the sizes of the first two.
    subset : {"train", "test"}
    n : int or None, default=None
        All of them, if None.
    """
    if data in ("mnist", "cifar10"):
        fetch = {"mnist": fetch_mnist, "cifar10": fetch_cifar10}[data]
        X, y = fetch(subset=subset, return_X_y=True)
    else:
        X, y = _enlarged_digits(data == "color-digits")
        part = slice(None, -_N_SMOKE) if subset == "train" else slice(-_N_SMOKE, None)
        X, y = X[part], y[part]
    return X[:n], y[:n]


def _enlarged_digits(is_color):
    digits, y = load_digits(return_X_y=True)
    pixels = np.kron(digits.reshape(-1, 8, 8) / 16, np.ones((1, 4, 4), dtype=np.float32))
    if is_color:
        return np.repeat(pixels[:, None], 3, axis=1).reshape(len(y), -1).astype(np.float32), y
    return pixels[:, 2:-2, 2:-2].reshape(len(y), -1).astype(np.float32), y


def lenet(channels=(20, 50), hidden=500, pool="max", relus=1):
    """Return Caffe's LeNet for images of shape (1, 28, 28), or a variant of it.

    Parameters
    ----------
    channels : pair of int, default=(20, 50)
    hidden : int, default=500
    pool : {"max", "average"}, default="max"
    relus : {1, 3}, default=1
        One after the first linear layer, as in the example, or one after each convolution too.
    """
    pooled = {"max": nn.MaxPool2d, "average": nn.AvgPool2d}[pool]
    layers, before = [], 1
    for after in channels:
        layers += [nn.Conv2d(before, after, 5), *([nn.ReLU()] if relus == 3 else []), pooled(2)]
        before = after
    layers += [nn.Flatten(), nn.Linear(16 * before, hidden), nn.ReLU(), nn.Linear(hidden, 10)]
    return _started(nn.Sequential(*layers))


def network_in_network(width=192):
    """Return a network in network (Lin et al. 2014) for images of shape (3, 32, 32).

    With batch norm, which neither Lin et al. nor Caffe's model has: without it, it does not learn
    in a few epochs.
    """
    narrow = max(1, width // 2)

    def block(before, kernel, *after):
        layers = []
        for channels in after:
            conv = nn.Conv2d(before, channels, kernel, padding=kernel // 2)
            layers += [conv, nn.BatchNorm2d(channels), nn.ReLU()]
            before, kernel = channels, 1
        return layers

    return nn.Sequential(
        *block(3, 5, width, width, narrow),
        nn.MaxPool2d(2),
        *block(narrow, 5, width, width, width),
        nn.AvgPool2d(2),
        *block(width, 3, width, width),
        nn.Conv2d(width, 10, 1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    )


def _started(module):
    """Draw weights by Caffe's "xavier", uniform by the inputs of a unit; biases are 0."""
    for part in module:
        if hasattr(part, "weight"):
            reach = math.sqrt(3 / part.weight[0].numel())
            nn.init.uniform_(part.weight, -reach, reach)
            nn.init.zeros_(part.bias)
    return module


NETWORKS = {"lenet": (lenet, (1, 28, 28)), "nin": (network_in_network, (3, 32, 32))}


def inverse_decay(step):
    """Return the share of the first learning rate that Caffe's policy "inv" has come to."""
    return (1 + 1e-4 * step) ** -0.75


def classifier(network, n_images, steps, *, seed, weight_decay=5e-4, **shape):
    """Return the classifier of Caffe's recipe, for about as many steps.

    Parameters
    ----------
    network : {"lenet", "nin"}
    n_images : int
        Of the training data, of which the steps make epochs.
    steps : int
        Of 64 images each.
    seed : int
    weight_decay : float, default=5e-4
    **shape : dict
        Arguments of the network.

    Returns
    -------
    RobustClassifier
        Not fitted.
    """
    module, input_shape = NETWORKS[network]
    if network == "nin":  # Caffe's recipe is that of the LeNet; the paper has none
        optimizer, lr, params, callbacks = torch.optim.Adam, 2e-3, {}, None
    else:
        optimizer, lr = torch.optim.SGD, 0.01
        biases = [("*.bias", {"lr": 2 * lr})]  # Caffe doubles their rate
        params = {"momentum": 0.9, "weight_decay": weight_decay, "param_groups": biases}
        decay = LRScheduler(
            torch.optim.lr_scheduler.LambdaLR, lr_lambda=inverse_decay, step_every="batch"
        )
        callbacks = [("decay", decay)]
    return RobustClassifier(
        module,
        module_params=shape,
        input_shape=input_shape,
        max_epochs=max(1, round(steps * BATCH / n_images)),
        batch_size=BATCH,
        lr=lr,
        optimizer=optimizer,
        optimizer_params=params,
        callbacks=callbacks,
        random_state=seed,
    )
