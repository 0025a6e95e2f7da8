"""Image data sets with pixels in [0, 1], one image a row.

`load_digits` needs nothing but scikit-learn. The others read one npz file of integer pixels
from 0 to 255 with the arrays ``X_train``, ``y_train``, ``X_test`` and ``y_test``, found in
`data_home`, in the folder named by the environment variable ``SKROBUST_DATA``, or in
scikit-learn's own data folder; where there is none, they download from OpenML if they can.
`fetch_mnist_c` reads the corrupted digits of MNIST-C, from its published folder.
"""

import os
import zipfile
import zlib
from dataclasses import dataclass, replace
from http.client import HTTPException
from pathlib import Path

import numpy as np
from sklearn.datasets import fetch_openml, get_data_home
from sklearn.datasets import load_digits as load_sklearn_digits
from sklearn.utils import Bunch

from skrobust._validation import check_choice, expected

__all__ = [
    "fetch_cifar10",
    "fetch_fashion_mnist",
    "fetch_gtsrb",
    "fetch_mnist",
    "fetch_mnist_c",
    "load_digits",
]

_SUBSETS = ("train", "test", "all")
_ARRAYS = ("X_train", "y_train", "X_test", "y_test")


@dataclass(frozen=True)
class _Source:
    """Where one data set is found, and what must be found there.

    Parameters
    ----------
    title : str
    description : str
    files : tuple of str
        Names of npz files, the first that exists is read.
    image_shape : tuple of int
        Shape of one image in a file: (height, width) or (height, width, channels).
    target_names : tuple of str
    openml : str or None
        Name at OpenML, version 1, where each row is one image, channels first.
    n_train : int or None
        How many of the rows at OpenML, from the first, are the training split.
    class_ids : tuple of int or None
        What the array ``class_ids`` must hold in files that have one.
    """

    title: str
    description: str
    files: tuple
    image_shape: tuple
    target_names: tuple
    openml: str | None = None
    n_train: int | None = None
    class_ids: tuple | None = None

    @property
    def input_shape(self):
        """The shape (channels, height, width) of one row of the data."""
        height, width, *channels = self.image_shape
        return (*(channels or [1]), height, width)


_MNIST = _Source(
    title="MNIST",
    description="Handwritten digits, 28 x 28 greyscale: 60000 to train on, 10000 to test on.",
    files=("mnist.npz",),
    image_shape=(28, 28),
    target_names=tuple("0123456789"),
    openml="mnist_784",
    n_train=60_000,
)

_FASHION_MNIST = _Source(
    title="Fashion-MNIST",
    description="Pieces of clothing, 28 x 28 greyscale: 60000 to train on, 10000 to test on.",
    files=("fashion_mnist.npz",),
    image_shape=(28, 28),
    target_names=(
        "T-shirt/top",
        "Trouser",
        "Pullover",
        "Dress",
        "Coat",
        "Sandal",
        "Shirt",
        "Sneaker",
        "Bag",
        "Ankle boot",
    ),
    openml="Fashion-MNIST",
    n_train=60_000,
)

_CIFAR10 = _Source(
    title="CIFAR-10",
    description="Small photographs, 32 x 32 in colour: 50000 to train on, 10000 to test on.",
    files=("cifar10.npz", "cifar10_subset.npz"),
    image_shape=(32, 32, 3),
    target_names=(
        "airplane",
        "automobile",
        "bird",
        "cat",
        "deer",
        "dog",
        "frog",
        "horse",
        "ship",
        "truck",
    ),
    openml="CIFAR_10",
    n_train=50_000,
)

_GTSRB = _Source(
    title="GTSRB, ten classes",
    description=(
        "German traffic signs, 48 x 48 greyscale: the ten most frequent classes of the\n"
        "German Traffic Sign Recognition Benchmark, renumbered from 0 to 9."
    ),
    files=("gtsrb10.npz",),
    image_shape=(48, 48),
    target_names=(
        "Speed limit 30",
        "Speed limit 50",
        "Speed limit 70",
        "Speed limit 80",
        "No passing",
        "No passing for trucks",
        "Priority road",
        "Yield",
        "Road work",
        "Keep right",
    ),
    class_ids=(1, 2, 4, 5, 9, 10, 12, 13, 25, 38),
)


_CORRUPTIONS = (
    "shot_noise",
    "impulse_noise",
    "glass_blur",
    "motion_blur",
    "shear",
    "scale",
    "rotate",
    "brightness",
    "translate",
    "stripe",
    "fog",
    "spatter",
    "dotted_line",
    "zigzag",
    "canny_edges",
)


# ---- what the user calls -----------------------------------------------------------------


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

    Examples
    --------
    >>> from skrobust.datasets import load_digits
    >>> digits = load_digits()
    >>> digits.data.shape, digits.input_shape
    ((1797, 64), (1, 8, 8))
    >>> float(digits.data.min()), float(digits.data.max())
    (0.0, 1.0)
    """
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


def fetch_mnist(*, subset="train", data_home=None, download_if_missing=True, return_X_y=False):
    """Fetch MNIST, from ``mnist.npz`` or from OpenML.

    Parameters
    ----------
    subset : {"train", "test", "all"}, default="train"
        Which images to return: the first 60000, the last 10000, or both in this order.
    data_home : str or path-like, default=None
        The folder that holds the file. By default the environment variable
        ``SKROBUST_DATA`` names it, else it is `sklearn.datasets.get_data_home()`.
    download_if_missing : bool, default=True
        Whether to download from OpenML, into `data_home`, where there is no file.
    return_X_y : bool, default=False
        Whether to return ``(data, target)`` instead of a Bunch.

    Returns
    -------
    mnist : Bunch, or (data, target)
        data : float32 array of shape (n_samples, 784), pixels in [0, 1].
        target : int64 array of shape (n_samples,), classes from 0 to 9.
        target_names : list of str, one a class.
        input_shape : tuple (1, 28, 28) of channels, height, width.
        DESCR : str, which says where the data came from.

    Raises
    ------
    FileNotFoundError
        If there is no file, and the download is not wanted or fails.
    ValueError
        If the file does not hold the arrays that it should.

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
    return _fetch(_MNIST, subset, data_home, download_if_missing, return_X_y)


def fetch_fashion_mnist(
    *, subset="train", data_home=None, download_if_missing=True, return_X_y=False
):
    """Fetch Fashion-MNIST, from ``fashion_mnist.npz`` or from OpenML.

    Parameters
    ----------
    subset : {"train", "test", "all"}, default="train"
        Which images to return: the first 60000, the last 10000, or both in this order.
    data_home : str or path-like, default=None
        The folder that holds the file. By default the environment variable
        ``SKROBUST_DATA`` names it, else it is `sklearn.datasets.get_data_home()`.
    download_if_missing : bool, default=True
        Whether to download from OpenML, into `data_home`, where there is no file.
    return_X_y : bool, default=False
        Whether to return ``(data, target)`` instead of a Bunch.

    Returns
    -------
    fashion_mnist : Bunch, or (data, target)
        data : float32 array of shape (n_samples, 784), pixels in [0, 1].
        target : int64 array of shape (n_samples,), classes from 0 to 9.
        target_names : list of str, one a class.
        input_shape : tuple (1, 28, 28) of channels, height, width.
        DESCR : str, which says where the data came from.

    Raises
    ------
    FileNotFoundError
        If there is no file, and the download is not wanted or fails.
    ValueError
        If the file does not hold the arrays that it should.

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
    return _fetch(_FASHION_MNIST, subset, data_home, download_if_missing, return_X_y)


def fetch_cifar10(*, subset="train", data_home=None, download_if_missing=True, return_X_y=False):
    """Fetch CIFAR-10, from ``cifar10.npz``, ``cifar10_subset.npz`` or from OpenML.

    Parameters
    ----------
    subset : {"train", "test", "all"}, default="train"
        Which images to return: the first 50000, the last 10000, or both in this order.
    data_home : str or path-like, default=None
        The folder that holds the file. By default the environment variable
        ``SKROBUST_DATA`` names it, else it is `sklearn.datasets.get_data_home()`.
    download_if_missing : bool, default=True
        Whether to download from OpenML, into `data_home`, where there is no file.
    return_X_y : bool, default=False
        Whether to return ``(data, target)`` instead of a Bunch.

    Returns
    -------
    cifar10 : Bunch, or (data, target)
        data : float32 array of shape (n_samples, 3072), pixels in [0, 1], all of the red
        channel first, then green, then blue.
        target : int64 array of shape (n_samples,), classes from 0 to 9.
        target_names : list of str, one a class.
        input_shape : tuple (3, 32, 32) of channels, height, width.
        DESCR : str, which says where the data came from, and so whether it is a part only.

    Raises
    ------
    FileNotFoundError
        If there is no file, and the download is not wanted or fails.
    ValueError
        If the file does not hold the arrays that it should.

    Notes
    -----
    Images in a file have shape (32, 32, 3), channels last. ``cifar10_subset.npz`` may hold
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
    return _fetch(_CIFAR10, subset, data_home, download_if_missing, return_X_y)


def fetch_gtsrb(*, subset="train", data_home=None, download_if_missing=True, return_X_y=False):
    """Fetch ten classes of the German traffic signs, from ``gtsrb10.npz``.

    Parameters
    ----------
    subset : {"train", "test", "all"}, default="train"
        Which images to return.
    data_home : str or path-like, default=None
        The folder that holds the file. By default the environment variable
        ``SKROBUST_DATA`` names it, else it is `sklearn.datasets.get_data_home()`.
    download_if_missing : bool, default=True
        Without effect, since OpenML does not have this data set.
    return_X_y : bool, default=False
        Whether to return ``(data, target)`` instead of a Bunch.

    Returns
    -------
    gtsrb : Bunch, or (data, target)
        data : float32 array of shape (n_samples, 2304), pixels in [0, 1].
        target : int64 array of shape (n_samples,), classes from 0 to 9.
        target_names : list of str, one a class.
        input_shape : tuple (1, 48, 48) of channels, height, width.
        DESCR : str, which says where the data came from.

    Raises
    ------
    FileNotFoundError
        If there is no file.
    ValueError
        If the file does not hold the arrays that it should.

    Notes
    -----
    Classes 0 to 9 are the benchmark's own classes 1, 2, 4, 5, 9, 10, 12, 13, 25 and 38, its
    ten most frequent. A file may say so by an array ``class_ids``, which is then checked.

    References
    ----------
    .. [1] Stallkamp, Schlipsing, Salmen, Igel, "Man vs. computer: benchmarking machine
       learning algorithms for traffic sign recognition", Neural Networks 32, 2012.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> from skrobust.datasets import fetch_gtsrb
    >>> X, y = np.zeros((2, 48, 48), dtype=np.uint8), [0, 7]
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     np.savez(f"{folder}/gtsrb10.npz", X_train=X, y_train=y, X_test=X, y_test=y)
    ...     gtsrb = fetch_gtsrb(data_home=folder)
    >>> [gtsrb.target_names[label] for label in gtsrb.target]
    ['Speed limit 30', 'Yield']
    """
    return _fetch(_GTSRB, subset, data_home, download_if_missing, return_X_y)


def fetch_mnist_c(*, corruption="all", subset="test", data_home=None, return_X_y=False):
    """Fetch MNIST-C, digits under fifteen corruptions, from its published folder or one file.

    Parameters
    ----------
    corruption : str or list of str, default="all"
        Name of a corruption, such as "fog"; several of them; "all" fifteen; or "identity", the
        digits as they were.
    subset : {"train", "test", "all"}, default="test"
        Which images to return: the first 60000, the last 10000, or both in this order.
    data_home : str or path-like, default=None
        The folder that holds ``mnist_c``, as published, with the files ``train_images.npy``,
        ``train_labels.npy``, ``test_images.npy`` and ``test_labels.npy`` in a folder for each
        corruption; or else the file ``mnist_c.npz``, with an array of images for each
        corruption and their labels ``y``, which is taken for the test subset. By default the
        environment variable ``SKROBUST_DATA`` names it, else it is
        `sklearn.datasets.get_data_home()`.
    return_X_y : bool, default=False
        Whether to return ``(data, target)`` instead of a Bunch.

    Returns
    -------
    mnist_c : Bunch, or (data, target)
        data : float32 array of shape (n_samples, 784), pixels in [0, 1]; for several
        corruptions a dict of names to such arrays, of the same digits, as
        `~skrobust.scorers.CorruptionRobustness` takes it.
        target : int64 array of shape (n_samples,), classes from 0 to 9.
        target_names : list of str, one a class.
        input_shape : tuple (1, 28, 28) of channels, height, width.
        DESCR : str, which says where the data came from.

    Raises
    ------
    FileNotFoundError
        If there is neither folder nor file, or a corruption is not in the folder.
    ValueError
        If files do not hold the arrays that they should.

    References
    ----------
    .. [1] Mu, Gilmer, "MNIST-C: a robustness benchmark for computer vision",
       arXiv:1906.02337, 2019.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> from skrobust.datasets import fetch_mnist_c
    >>> images = np.full((3, 28, 28), 255, dtype=np.uint8)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     np.savez(f"{folder}/mnist_c.npz", fog=images, stripe=images, y=[7, 2, 1])
    ...     X, y = fetch_mnist_c(corruption="fog", data_home=folder, return_X_y=True)
    ...     both = fetch_mnist_c(corruption=["fog", "stripe"], data_home=folder)
    >>> X.shape, y
    ((3, 784), array([7, 2, 1]))
    >>> sorted(both.data)
    ['fog', 'stripe']
    """
    names = _corruption_names(corruption)
    check_choice("subset", subset, _SUBSETS)
    folder = _data_folder(data_home)
    published, file = folder / "mnist_c", folder / "mnist_c.npz"
    if published.is_dir():
        origin = f"the folder {published}"
        found = {name: _read_corruption(published / name, subset) for name in names}
    elif file.is_file():
        origin = f"the file {file}"
        found = _read_corruptions(file, names, subset)
    else:
        raise FileNotFoundError(
            f"MNIST-C was not found. Tried:\n  {published}\n  {file}\nPut the published folder "
            "mnist_c there (doi:10.5281/zenodo.3239543), or such a file. Another folder can be "
            "given by data_home or by the environment variable SKROBUST_DATA."
        )
    target = found[names[0]][1]
    for name, (_, labels) in found.items():
        if not np.array_equal(labels, target):
            raise _broken(published, f"other labels for {name}", f"those for {names[0]}")
    data = {name: _scaled(pixels) for name, (pixels, _) in found.items()}
    if isinstance(corruption, str) and corruption != "all":
        data = data[corruption]
    description = f"Handwritten digits, 28 x 28 greyscale, corrupted: {', '.join(names)}."
    source = replace(_MNIST, title="MNIST-C", description=description)
    return _packed(source, data, target, subset, origin, return_X_y)


# ---- finding, reading, checking ----------------------------------------------------------


def _fetch(source, subset, data_home, download_if_missing, return_X_y):
    """Read `source` from the first of its files, or download it, or say what is missing."""
    check_choice("subset", subset, _SUBSETS)
    folder = _data_folder(data_home)
    paths = [folder / name for name in source.files]
    path = next((path for path in paths if path.is_file()), None)
    if path is not None:
        pixels, target = _read(path, source, subset)
        origin = f"the file {path}"
    else:
        pixels, target = _download(source, subset, paths, download_if_missing)
        origin = f"OpenML, {source.openml}, version 1"
    return _packed(source, _scaled(pixels), target, subset, origin, return_X_y)


def _scaled(pixels):
    """Return pixels from 0 to 255 as numbers in [0, 1]."""
    # The dtype of the division is given, so that no float64 copy of the pixels is made.
    return np.divide(pixels, np.float32(255), dtype=np.float32)


def _packed(source, data, target, subset, origin, return_X_y):
    """Return what the user gets: a pair, or a Bunch."""
    target = target.astype(np.int64)
    if return_X_y:
        return data, target
    return Bunch(
        data=data,
        target=target,
        target_names=list(source.target_names),
        input_shape=source.input_shape,
        DESCR=(
            f"{source.title}\n\n{source.description}\n\n"
            f"Subset {subset!r}, {len(target)} images, pixels divided by 255, from {origin}.\n"
        ),
    )


def _data_folder(data_home):
    """Return the folder that holds the files: argument, environment, scikit-learn's own."""
    folder = data_home if data_home is not None else os.environ.get("SKROBUST_DATA")
    return Path(folder).expanduser() if folder else Path(get_data_home())


def _read(path, source, subset):
    """Return pixels, one image a row and channels first, and labels of a part of a file."""
    # Opened here, since np.load leaves the file open where it is a damaged archive.
    with open(path, "rb") as file, _archive(path, file) as archive:
        missing = [name for name in _ARRAYS if name not in archive.files]
        if missing:
            raise _broken(path, f"the arrays {archive.files}", f"also {', '.join(missing)}")
        _check_class_ids(path, archive, source)
        parts = [_read_split(path, archive, source, split) for split in _splits(subset)]
    pixels, target = zip(*parts, strict=True)
    return np.concatenate(pixels), np.concatenate(target)


def _splits(subset):
    return ("train", "test") if subset == "all" else (subset,)


def _archive(path, file):
    """Return the arrays of an open npz file, or say that it is none."""
    try:
        archive = np.load(file, allow_pickle=False)
    except (zipfile.BadZipFile, EOFError, ValueError) as error:
        raise _broken(path, "bytes that NumPy cannot read", "an npz file") from error
    if not isinstance(archive, np.lib.npyio.NpzFile):
        raise _broken(path, "a single array", "an npz file")
    return archive


def _array(path, archive, name):
    """Read one array, or say that it is damaged."""
    try:
        return archive[name]
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError) as error:
        raise _broken(path, f"{name}, which NumPy cannot read", "a plain array") from error


def _read_split(path, archive, source, split):
    images = _array(path, archive, f"X_{split}")
    target = _array(path, archive, f"y_{split}")
    _check_images(path, f"X_{split}", images, source)
    _check_target(path, f"y_{split}", target, len(images), source)
    return _as_rows(images), target


def _as_rows(images):
    """Flatten images of shape (n, height, width[, channels]), channels first."""
    channels_first = np.moveaxis(images, -1, 1) if images.ndim == 4 else images
    return channels_first.reshape(len(images), -1)


def _check_images(path, name, images, source):
    if images.ndim == 0 or images.shape != (len(images), *source.image_shape):
        raise _broken(path, f"{name} of shape {images.shape}", _shape_text(source.image_shape))
    if images.dtype.kind not in "ui":
        raise _broken(path, f"{name} of dtype {images.dtype}", "integer pixels from 0 to 255")
    # An array of uint8 cannot leave the range, and is what the files hold: skip the pass.
    if images.dtype != np.uint8 and images.size and not 0 <= images.min() <= images.max() <= 255:
        values = f"{name} with values from {images.min()} to {images.max()}"
        raise _broken(path, values, "pixels from 0 to 255")


def _check_target(path, name, target, n_samples, source):
    n_classes = len(source.target_names)
    if target.shape != (n_samples,):
        raise _broken(path, f"{name} of shape {target.shape}", f"shape ({n_samples},)")
    if target.dtype.kind not in "ui" or not np.isin(target, np.arange(n_classes)).all():
        shown = f"{name} with the values {np.unique(target)[:20].tolist()}"
        raise _broken(path, shown, f"integers from 0 to {n_classes - 1}")


def _corruption_names(corruption):
    """Return the names of corruptions as a tuple."""
    if isinstance(corruption, str) and corruption == "all":
        return _CORRUPTIONS
    names = tuple(corruption) if isinstance(corruption, list | tuple) else (corruption,)
    if not names:
        raise ValueError(expected("corruption", corruption, "at least one name, or 'all'"))
    for name in names:
        check_choice("corruption", name, ("identity", *_CORRUPTIONS))
    return names


def _read_corruption(folder, subset):
    """Return pixels, one image a row, and labels from the folder of one corruption."""
    parts = []
    for split in _splits(subset):
        images, labels = (_load(folder / f"{split}_{what}.npy") for what in ("images", "labels"))
        parts.append(_checked_corruption(folder, f"{split}_images", images, labels))
    pixels, target = zip(*parts, strict=True)
    return np.concatenate(pixels), np.concatenate(target)


def _load(path):
    """Read one npy file, or say what is wrong with it."""
    try:
        return np.load(path, allow_pickle=False)
    except FileNotFoundError:
        raise FileNotFoundError(
            f"MNIST-C lacks {path}. Expected is the published folder mnist_c, complete."
        ) from None
    except (EOFError, ValueError) as error:
        raise _broken(path, "bytes that NumPy cannot read", "an npy file") from error


def _read_corruptions(path, names, subset):
    """Return a dict of names to pixels and labels from an npz file."""
    if subset != "test":
        raise _broken(path, f"subset={subset!r}", "subset='test', the only one in such a file")
    with open(path, "rb") as file, _archive(path, file) as archive:
        missing = [name for name in (*names, "y") if name not in archive.files]
        if missing:
            raise _broken(path, f"the arrays {archive.files}", f"also {', '.join(missing)}")
        target = _array(path, archive, "y")
        return {
            name: _checked_corruption(path, name, _array(path, archive, name), target)
            for name in names
        }


def _checked_corruption(path, name, images, target):
    if images.ndim == 4 and images.shape[-1] == 1:  # as published
        images = images[..., 0]
    _check_images(path, name, images, _MNIST)
    _check_target(path, f"the labels of {name}", target, len(images), _MNIST)
    return _as_rows(images), target


def _check_class_ids(path, archive, source):
    if source.class_ids is None or "class_ids" not in archive.files:
        return
    class_ids = tuple(_array(path, archive, "class_ids").ravel().tolist())
    if class_ids != source.class_ids:
        raise _broken(path, f"class_ids {class_ids}", str(source.class_ids))


def _broken(path, found, expectation):
    """Build the error about a file that is there, but not as it should be."""
    return ValueError(f"Got {found} in {path}, but expected {expectation}.")


def _shape_text(image_shape):
    return f"shape (n, {', '.join(str(size) for size in image_shape)})"


# ---- downloading -------------------------------------------------------------------------


def _download(source, subset, paths, download_if_missing):
    """Return pixels, one image a row, and labels from OpenML, or raise FileNotFoundError."""
    if source.openml is None:
        raise _missing(source, paths, "it cannot be downloaded from OpenML")
    if not download_if_missing:
        raise _missing(source, paths, "download_if_missing=False")
    try:
        everything = fetch_openml(
            source.openml, version=1, data_home=paths[0].parent, as_frame=False
        )
    # Network and disk faults, broken transfers, a withdrawn data set, no pandas to parse with.
    except (OSError, HTTPException, ValueError, ImportError) as error:
        reason = f"the download failed with {type(error).__name__}: {error}"
        raise _missing(source, paths, reason) from error
    n_pixels = int(np.prod(source.image_shape))
    if everything.data.ndim != 2 or everything.data.shape[1] != n_pixels:
        shape = f"data of shape {everything.data.shape}"
        raise _broken(f"OpenML's {source.openml}", shape, f"shape (n, {n_pixels})")
    start = source.n_train if subset == "test" else None
    stop = source.n_train if subset == "train" else None
    # Labels come as text, such as "7".
    return everything.data[start:stop], np.asarray(everything.target[start:stop]).astype(np.int64)


def _missing(source, paths, reason):
    """Build the error that says which file is missing, what it holds and where it goes."""
    tried = "\n".join(f"  {path}" for path in paths)
    return FileNotFoundError(
        f"{source.title} was not found, and {reason}. Tried:\n{tried}\n"
        f"Put {paths[0].name} there, an npz file with the arrays X_train and X_test of "
        f"{_shape_text(source.image_shape)} (integer pixels from 0 to 255), y_train and y_test "
        f"of shape (n,) (integers from 0 to {len(source.target_names) - 1}). Another folder "
        "can be given by data_home or by the environment variable SKROBUST_DATA."
    )
