"""Download what is in no file, from OpenML or as published, or say what is missing."""

import hashlib
import shutil
from contextlib import suppress
from http.client import HTTPException
from urllib.request import urlopen

import numpy as np
from sklearn.datasets import fetch_openml

from skrobust.datasets._reading import broken, shape_text

__all__ = ["download", "download_published"]


def download(source, subset, paths, download_if_missing):
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
    if everything.data.ndim != 2 or everything.data.shape[1] != source.n_features:
        shape = f"data of shape {everything.data.shape}"
        raise broken(f"OpenML's {source.openml}", shape, f"shape (n, {source.n_features})")
    start = source.n_train if subset == "test" else None
    stop = source.n_train if subset == "train" else None
    # Labels come as text, such as "7".
    return everything.data[start:stop], np.asarray(everything.target[start:stop]).astype(np.int64)


def download_published(source, path, paths, download_if_missing):
    """Download a published file to a path, all of it or nothing; or raise FileNotFoundError."""
    if not download_if_missing:
        raise _missing(source, paths, "download_if_missing=False")
    _, checksum = next(file for file in source.published.values() if file[0] == path.name)
    part = path.with_name(f"{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with urlopen(f"{source.page}/{path.name}", timeout=60) as remote, open(part, "wb") as file:
            shutil.copyfileobj(remote, file)
        with open(part, "rb") as file:
            received = hashlib.file_digest(file, "md5").hexdigest()
        if received != checksum:
            raise OSError(f"what came has the MD5 sum {received}, not {checksum}")
        part.replace(path)
    except (OSError, HTTPException, ValueError) as error:
        with suppress(OSError):  # where there could be none
            part.unlink()
        reason = f"the download failed with {type(error).__name__}: {error}"
        raise _missing(source, paths, reason) from error


def _missing(source, paths, reason):
    """Build the error that says which file is missing, what it holds and where it goes."""
    tried = "\n".join(f"  {path}" for path in paths)
    names = " and ".join(name for name, _ in source.published.values())
    published = f"Put {names} of {source.page} there, or: " if source.page else ""
    return FileNotFoundError(
        f"{source.title} was not found, and {reason}. Tried:\n{tried}\n"
        f"{published}Put {paths[0].name} there, an npz file with the arrays X_train and X_test of "
        f"{shape_text(source.image_shape)} (integer pixels from 0 to 255), y_train and y_test "
        f"of shape (n,) (integers from 0 to {len(source.target_names) - 1}). Another folder "
        "can be given by data_home or by the environment variable SKROBUST_DATA."
    )
