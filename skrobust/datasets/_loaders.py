"""The loaders of digits, MNIST, Fashion-MNIST, CIFAR-10 and traffic signs."""

import numpy as np
from sklearn.datasets import load_digits as load_sklearn_digits
from sklearn.utils import Bunch

from skrobust._validation import check_flag
from skrobust.datasets._bunch import check_subset, packed, scaled
from skrobust.datasets._docstrings import documented
from skrobust.datasets._download import download
from skrobust.datasets._reading import data_folder, read
from skrobust.datasets._sources import CIFAR10, FASHION_MNIST, GTSRB, MNIST

__all__ = [
    "fetch_cifar10",
    "fetch_fashion_mnist",
    "fetch_gtsrb",
    "fetch_mnist",
    "load_digits",
]


def load_digits(*, return_X_y=False):
    """Load scikit-learn's digits with pixels in [0, 1].

    1797 handwritten digits of 8 x 8 pixels. The data come with scikit-learn, so nothing is
    downloaded.

    Parameters
    ----------
    return_X_y : bool, default=False
        Whether to return ``(data, target)`` instead of a Bunch.

    Returns
    -------
    digits : Bunch, or (data, target)
        data : float32 array of shape (1797, 64), pixels divided by 16.
        target : int64 array of shape (1797,).
        images : float32 array of shape (1797, 8, 8), the same data.
        target_names : list of str.
        input_shape : tuple (1, 8, 8) of channels, height, width.
        DESCR : str.

    Raises
    ------
    ValueError
        If `return_X_y` is not a bool.

    Examples
    --------
    >>> from skrobust.datasets import load_digits
    >>> digits = load_digits()
    >>> digits.data.shape, digits.input_shape
    ((1797, 64), (1, 8, 8))
    >>> float(digits.data.min()), float(digits.data.max())
    (0.0, 1.0)
    """
    check_flag("return_X_y", return_X_y)
    raw = load_sklearn_digits()
    data = (raw.data / 16).astype(np.float32)
    target = raw.target.astype(np.int64)
    if return_X_y:
        return data, target
    return Bunch(
        data=data,
        target=target,
        images=data.reshape(-1, 8, 8),
        target_names=[str(digit) for digit in raw.target_names],
        input_shape=(1, 8, 8),
        DESCR="Digits, with pixels divided by 16 so that they lie in [0, 1].\n\n" + raw.DESCR,
    )


@documented(MNIST)
def fetch_mnist(*, subset="train", data_home=None, download_if_missing=True, return_X_y=False):
    """Fetch MNIST, from ``mnist.npz`` or from OpenML.

    {shared}

    References
    ----------
    .. [1] LeCun, Bottou, Bengio, Haffner, "Gradient-based learning applied to document
       recognition", Proceedings of the IEEE 86, 1998.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> from skrobust.datasets import fetch_mnist
    >>> X, y = np.full((3, 28, 28), 255, dtype=np.uint8), [7, 2, 1]
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     np.savez(f"{folder}/mnist.npz", X_train=X, y_train=y, X_test=X, y_test=y)
    ...     mnist = fetch_mnist(subset="all", data_home=folder)
    >>> mnist.data.shape, float(mnist.data.max()), mnist.target
    ((6, 784), 1.0, array([7, 2, 1, 7, 2, 1]))
    """
    return _fetch(MNIST, subset, data_home, download_if_missing, return_X_y)


@documented(FASHION_MNIST)
def fetch_fashion_mnist(
    *, subset="train", data_home=None, download_if_missing=True, return_X_y=False
):
    """Fetch Fashion-MNIST, from ``fashion_mnist.npz`` or from OpenML.

    {shared}

    References
    ----------
    .. [1] Xiao, Rasul, Vollgraf, "Fashion-MNIST: a novel image dataset for benchmarking
       machine learning algorithms", arXiv:1708.07747, 2017.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> from skrobust.datasets import fetch_fashion_mnist
    >>> X, y = np.zeros((2, 28, 28), dtype=np.uint8), [9, 2]
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     np.savez(f"{folder}/fashion_mnist.npz", X_train=X, y_train=y, X_test=X, y_test=y)
    ...     fashion = fetch_fashion_mnist(subset="test", data_home=folder)
    >>> [fashion.target_names[label] for label in fashion.target]
    ['Ankle boot', 'Pullover']
    """
    return _fetch(FASHION_MNIST, subset, data_home, download_if_missing, return_X_y)


@documented(CIFAR10)
def fetch_cifar10(*, subset="train", data_home=None, download_if_missing=True, return_X_y=False):
    """Fetch CIFAR-10, from ``cifar10.npz``, ``cifar10_subset.npz`` or from OpenML.

    {shared}

    Notes
    -----
    Rows hold all of the red channel first, then green, then blue; images in a file have shape
    (32, 32, 3), channels last. ``cifar10_subset.npz`` may hold
    fewer images, and is read only where there is no ``cifar10.npz``.

    References
    ----------
    .. [1] Krizhevsky, "Learning multiple layers of features from tiny images", 2009.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> from skrobust.datasets import fetch_cifar10
    >>> X, y = np.zeros((2, 32, 32, 3), dtype=np.uint8), [0, 9]
    >>> X[..., 0] = 255  # all red
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     np.savez(f"{folder}/cifar10.npz", X_train=X, y_train=y, X_test=X, y_test=y)
    ...     cifar10 = fetch_cifar10(data_home=folder)
    >>> cifar10.data.reshape(-1, *cifar10.input_shape)[0].mean(axis=(1, 2)).tolist()
    [1.0, 0.0, 0.0]
    """
    return _fetch(CIFAR10, subset, data_home, download_if_missing, return_X_y)


@documented(GTSRB)
def fetch_gtsrb(*, subset="train", data_home=None, download_if_missing=True, return_X_y=False):
    """Fetch ten classes of the German traffic signs, from ``gtsrb10.npz``.

    {shared}

    Notes
    -----
    Classes 0 to 9 are the benchmark's own classes 3, 5, 6, 11, 12, 13, 14, 32, 38 and 39. A file
    may say so by an array ``class_ids``, which is then checked.

    These are the ten classes of [2]_. The paper does not name them; the data that its authors'
    published code reads are of these classes, and the counts agree: 12660 images to train on
    (1410, 1860, 420, 1320, 2100, 2160, 780, 240, 2070, 300, in the order of the classes) and
    4170 to test on (450, 630, 150, 420, 690, 720, 270, 60, 690, 90). So they are unbalanced.

    References
    ----------
    .. [1] Stallkamp, Schlipsing, Salmen, Igel, "Man vs. computer: benchmarking machine
       learning algorithms for traffic sign recognition", Neural Networks 32, 2012.
    .. [2] Casadio et al., "Neural network robustness as a verification property: a principled
       case study", CAV 2022.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> from skrobust.datasets import fetch_gtsrb
    >>> X, y = np.zeros((2, 48, 48), dtype=np.uint8), [0, 6]
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     np.savez(f"{folder}/gtsrb10.npz", X_train=X, y_train=y, X_test=X, y_test=y)
    ...     gtsrb = fetch_gtsrb(data_home=folder)
    >>> [gtsrb.target_names[label] for label in gtsrb.target]
    ['Speed limit 60', 'Stop']
    """
    return _fetch(GTSRB, subset, data_home, download_if_missing, return_X_y)


def _fetch(source, subset, data_home, download_if_missing, return_X_y):
    """Read `source` from the first of its files, or download it, or say what is missing."""
    check_subset(subset)
    check_flag("download_if_missing", download_if_missing)
    check_flag("return_X_y", return_X_y)
    folder = data_folder(data_home)
    paths = [folder / name for name in source.files]
    path = next((path for path in paths if path.is_file()), None)
    if path is not None:
        pixels, target = read(path, source, subset)
        origin = f"the file {path}"
    else:
        pixels, target = download(source, subset, paths, download_if_missing)
        origin = f"OpenML, {source.openml}, version 1"
    return packed(source, scaled(pixels), target, subset, origin, return_X_y)
