"""Find files, read them, and check what is in them."""

import os
import zipfile
import zlib
from pathlib import Path

import numpy as np
from sklearn.datasets import get_data_home

from skrobust._validation import expected

__all__ = [
    "as_rows",
    "broken",
    "check_images",
    "check_target",
    "data_folder",
    "open_archive",
    "read",
    "read_array",
    "shape_text",
    "split_names",
]

_ARRAYS = ("X_train", "y_train", "X_test", "y_test")


def data_folder(data_home):
    """Return the folder that holds the files: argument, environment, scikit-learn's own."""
    if data_home is not None and not isinstance(data_home, str | os.PathLike):
        raise TypeError(expected("data_home", data_home, "a path, or None"))
    folder = data_home if data_home is not None else os.environ.get("SKROBUST_DATA")
    return Path(folder).expanduser() if folder else Path(get_data_home())


def read(path, source, subset):
    """Return pixels, one image a row and channels first, and labels of a part of a file."""
    # Opened here, since np.load leaves the file open where it is a damaged archive.
    with open(path, "rb") as file, open_archive(path, file) as archive:
        missing = [name for name in _ARRAYS if name not in archive.files]
        if missing:
            raise broken(path, f"the arrays {archive.files}", f"also {', '.join(missing)}")
        _check_class_ids(path, archive, source)
        parts = [_read_split(path, archive, source, split) for split in split_names(subset)]
    pixels, target = zip(*parts, strict=True)
    return np.concatenate(pixels), np.concatenate(target)


def split_names(subset):
    return ("train", "test") if subset == "all" else (subset,)


def open_archive(path, file):
    """Return the arrays of an open npz file, or say that it is none."""
    try:
        archive = np.load(file, allow_pickle=False)
    except (zipfile.BadZipFile, EOFError, ValueError) as error:
        raise broken(path, "bytes that NumPy cannot read", "an npz file") from error
    if not isinstance(archive, np.lib.npyio.NpzFile):
        raise broken(path, "a single array", "an npz file")
    return archive


def read_array(path, archive, name):
    """Read one array, or say that it is damaged."""
    try:
        return archive[name]
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError) as error:
        raise broken(path, f"{name}, which NumPy cannot read", "a plain array") from error


def _read_split(path, archive, source, split):
    images = read_array(path, archive, f"X_{split}")
    target = read_array(path, archive, f"y_{split}")
    check_images(path, f"X_{split}", images, source)
    check_target(path, f"y_{split}", target, len(images), source)
    return as_rows(images), target


def as_rows(images):
    """Flatten images of shape (n, height, width[, channels]), channels first."""
    channels_first = np.moveaxis(images, -1, 1) if images.ndim == 4 else images
    return channels_first.reshape(len(images), -1)


def check_images(path, name, images, source):
    if images.ndim == 0 or images.shape != (len(images), *source.image_shape):
        raise broken(path, f"{name} of shape {images.shape}", shape_text(source.image_shape))
    if len(images) == 0:
        raise broken(path, f"{name} of shape {images.shape}", "one image at least")
    if images.dtype.kind not in "ui":
        raise broken(path, f"{name} of dtype {images.dtype}", "integer pixels from 0 to 255")
    # An array of uint8 cannot leave the range, and is what the files hold: skip the pass.
    if images.dtype != np.uint8 and not 0 <= images.min() <= images.max() <= 255:
        values = f"{name} with values from {images.min()} to {images.max()}"
        raise broken(path, values, "pixels from 0 to 255")


def check_target(path, name, target, n_samples, source):
    n_classes = len(source.target_names)
    if target.shape != (n_samples,):
        raise broken(path, f"{name} of shape {target.shape}", f"shape ({n_samples},)")
    if target.dtype.kind not in "ui" or not np.isin(target, np.arange(n_classes)).all():
        shown = f"{name} with the values {np.unique(target)[:20].tolist()}"
        raise broken(path, shown, f"integers from 0 to {n_classes - 1}")


def _check_class_ids(path, archive, source):
    if source.class_ids is None or "class_ids" not in archive.files:
        return
    class_ids = tuple(read_array(path, archive, "class_ids").ravel().tolist())
    if class_ids != source.class_ids:
        raise broken(path, f"class_ids {class_ids}", str(source.class_ids))


def broken(path, content, expectation):
    """Build the error about a file that is there, but not as it should be."""
    return ValueError(f"Got {content} in {path}, but expected {expectation}.")


def shape_text(image_shape):
    return f"shape (n, {', '.join(str(size) for size in image_shape)})"
