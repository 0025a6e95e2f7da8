"""Files such as those that the loaders read, and a stand-in for OpenML."""

import numpy as np
import pytest

from skrobust.datasets import (
    _download,
    fetch_cifar10,
    fetch_fashion_mnist,
    fetch_gtsrb,
    fetch_mnist,
    fetch_svhn,
)

# fetcher, file, shape of an image in the file, input_shape, has OpenML the data
CASES = [
    pytest.param(fetch_mnist, "mnist.npz", (28, 28), (1, 28, 28), id="mnist"),
    pytest.param(fetch_fashion_mnist, "fashion_mnist.npz", (28, 28), (1, 28, 28), id="fashion"),
    pytest.param(fetch_cifar10, "cifar10.npz", (32, 32, 3), (3, 32, 32), id="cifar10"),
    pytest.param(fetch_svhn, "svhn.npz", (32, 32, 3), (3, 32, 32), id="svhn"),
    pytest.param(fetch_gtsrb, "gtsrb10.npz", (48, 48), (1, 48, 48), id="gtsrb"),
]
N_TRAIN, N_TEST = 5, 3


def make_arrays(image_shape, seed=0):
    rng = np.random.default_rng(seed)
    arrays = {}
    for split, n in (("train", N_TRAIN), ("test", N_TEST)):
        arrays[f"X_{split}"] = rng.integers(0, 256, (n, *image_shape), dtype=np.uint8)
        arrays[f"y_{split}"] = rng.integers(0, 10, n, dtype=np.uint8)
    return arrays


def save(path, arrays):
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, **arrays)


def use_openml(monkeypatch, answer):
    """Replace the download by `answer`, and return the list of calls."""
    calls = []

    def fetch_openml(name, **kwargs):
        calls.append((name, kwargs))
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(_download, "fetch_openml", fetch_openml)
    return calls
