"""MNIST-C: digits under fifteen corruptions."""

from dataclasses import replace

import numpy as np

from skrobust._validation import check_choice, check_flag, expected
from skrobust.datasets._bunch import check_subset, packed, scaled
from skrobust.datasets._reading import (
    as_rows,
    broken,
    check_images,
    check_target,
    data_folder,
    open_archive,
    read_array,
    split_names,
)
from skrobust.datasets._sources import MNIST

__all__ = ["CORRUPTIONS", "fetch_mnist_c"]

CORRUPTIONS = (
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


def fetch_mnist_c(*, corruption="all", subset="test", data_home=None, return_X_y=False):
    """Fetch MNIST-C, digits under fifteen corruptions, from its published folder or one file.

    Parameters
    ----------
    corruption : str or list of str, default="all"
        Name of a corruption, such as "fog"; several of them; "all" fifteen; or "identity", the
        digits as they were.
    subset : {"train", "test", "all"}, default="test"
        Which images to return: those to train on, those to test on, or both in this order.
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
    check_subset(subset)
    check_flag("return_X_y", return_X_y)
    folder = data_folder(data_home)
    published, file = folder / "mnist_c", folder / "mnist_c.npz"
    if published.is_dir():
        origin = f"the folder {published}"
        splits = {name: _read_folder(published / name, subset) for name in names}
    elif file.is_file():
        origin = f"the file {file}"
        splits = _read_archive(file, names, subset)
    else:
        raise FileNotFoundError(
            f"MNIST-C was not found. Tried:\n  {published}\n  {file}\nPut the published folder "
            "mnist_c there (doi:10.5281/zenodo.3239543), or such a file. Another folder can be "
            "given by data_home or by the environment variable SKROBUST_DATA."
        )
    target = splits[names[0]][1]
    for name, (_, labels) in splits.items():
        if not np.array_equal(labels, target):
            raise broken(published, f"other labels for {name}", f"those for {names[0]}")
    data = {name: scaled(pixels) for name, (pixels, _) in splits.items()}
    if isinstance(corruption, str) and corruption != "all":
        data = data[corruption]
    description = f"Handwritten digits, 28 x 28 grayscale, corrupted: {', '.join(names)}."
    source = replace(MNIST, title="MNIST-C", description=description)
    return packed(source, data, target, subset, origin, return_X_y)


def _corruption_names(corruption):
    """Return the names of corruptions as a tuple."""
    if isinstance(corruption, str) and corruption == "all":
        return CORRUPTIONS
    names = tuple(corruption) if isinstance(corruption, list | tuple) else (corruption,)
    if not names:
        raise ValueError(expected("corruption", corruption, "at least one name, or 'all'"))
    for name in names:
        check_choice("corruption", name, ("identity", *CORRUPTIONS))
    return names


def _read_folder(folder, subset):
    """Return pixels, one image a row, and labels from the folder of one corruption."""
    parts = []
    for split in split_names(subset):
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
        raise broken(path, "bytes that NumPy cannot read", "an npy file") from error


def _read_archive(path, names, subset):
    """Return a dict of names to pixels and labels from an npz file."""
    if subset != "test":
        raise broken(path, f"subset={subset!r}", "subset='test', the only one in such a file")
    with open(path, "rb") as file, open_archive(path, file) as archive:
        missing = [name for name in (*names, "y") if name not in archive.files]
        if missing:
            raise broken(path, f"the arrays {archive.files}", f"also {', '.join(missing)}")
        target = read_array(path, archive, "y")
        return {
            name: _checked_corruption(path, name, read_array(path, archive, name), target)
            for name in names
        }


def _checked_corruption(path, name, images, target):
    if images.ndim == 4 and images.shape[-1] == 1:  # as published
        images = images[..., 0]
    check_images(path, name, images, MNIST)
    check_target(path, f"the labels of {name}", target, len(images), MNIST)
    return as_rows(images), target
