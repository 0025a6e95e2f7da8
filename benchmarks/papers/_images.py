"""The images of the reruns that choose by validation images: which data sets, and which part."""

import functools

import numpy as np

from skrobust.datasets import (
    fetch_cifar10,
    fetch_fashion_mnist,
    fetch_mnist,
    fetch_svhn,
    load_digits,
)

__all__ = ["SHAPES", "images"]

_FETCH = {
    "mnist": fetch_mnist,
    "fashion": fetch_fashion_mnist,
    "cifar10": fetch_cifar10,
    "svhn": fetch_svhn,
}
SHAPES = {
    "mnist": (1, 28, 28),
    "fashion": (1, 28, 28),
    "cifar10": (3, 32, 32),
    "svhn": (3, 32, 32),
    "digits": (1, 8, 8),
}


@functools.lru_cache(maxsize=2)
def _all_images(data, subset):
    if data == "digits":
        X, y = load_digits(return_X_y=True)
        part = slice(None, 1300) if subset == "train" else slice(1300, None)
        return X[part].astype(np.float32), y[part]
    return _FETCH[data](subset=subset, return_X_y=True)


def images(data, part, *, n_train, n_validation, seed=0):
    """Return images of one part of a data set, as rows, and their labels.

    Parameters
    ----------
    data : {"mnist", "fashion", "cifar10", "svhn", "digits"}
    part : {"train", "validation", "test"}
        Training and validation images are drawn at random from the training set, apart from each
        other. Test images are all, in a random order, so that the first of them are a sample.
    n_train : int or None
        None is all that are not for validation.
    n_validation : int
    seed : int, default=0
    """
    X, y = _all_images(data, "test" if part == "test" else "train")
    index = np.random.default_rng(seed).permutation(len(X))
    if part == "validation":
        index = index[:n_validation]
    elif part == "train":
        index = index[n_validation : None if n_train is None else n_validation + n_train]
    return X[index], y[index]
