"""Street View House Numbers: the cropped digits, from the published files or one npz."""

import numpy as np
from scipy.io import loadmat

from skrobust._validation import check_flag
from skrobust.datasets._bunch import check_subset, packed, scaled
from skrobust.datasets._docstrings import documented
from skrobust.datasets._download import download_published
from skrobust.datasets._reading import (
    as_rows,
    broken,
    check_images,
    check_target,
    data_folder,
    read,
    split_names,
)
from skrobust.datasets._sources import SVHN

__all__ = ["fetch_svhn"]


@documented(SVHN)
def fetch_svhn(*, subset="train", data_home=None, download_if_missing=True, return_X_y=False):
    """Fetch SVHN, the cropped digits, from ``svhn.npz`` or the published files.

    {shared}

    Notes
    -----
    The published files are ``train_32x32.mat`` and ``test_32x32.mat``, in `data_home` or in a
    folder ``svhn`` there; together they take about 250 MB. ``svhn.npz``, if there is one, comes
    first. The further images of ``extra_32x32.mat`` are not read.

    Rows hold all of the red channel first, then green, then blue. The published label 10 of the
    digit 0 becomes 0.

    References
    ----------
    .. [1] Netzer, Wang, Coates, Bissacco, Wu, Ng, "Reading digits in natural images with
       unsupervised feature learning", NIPS workshop on deep learning and unsupervised feature
       learning, 2011.

    Examples
    --------
    >>> import tempfile
    >>> import numpy as np
    >>> from scipy.io import savemat
    >>> from skrobust.datasets import fetch_svhn
    >>> X, y = np.zeros((32, 32, 3, 2), dtype=np.uint8), np.array([[10], [7]])
    >>> X[:, :, 0, 0] = 255  # the first one all red
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     savemat(f"{folder}/test_32x32.mat", {"X": X, "y": y})
    ...     svhn = fetch_svhn(subset="test", data_home=folder)
    >>> svhn.data.reshape(-1, *svhn.input_shape)[0].mean(axis=(1, 2)).tolist(), svhn.target
    ([1.0, 0.0, 0.0], array([0, 7]))
    """
    check_subset(subset)
    check_flag("download_if_missing", download_if_missing)
    check_flag("return_X_y", return_X_y)
    folder = data_folder(data_home)
    whole = folder / SVHN.files[0]
    if whole.is_file():
        pixels, target = read(whole, SVHN, subset)
        return packed(SVHN, scaled(pixels), target, subset, f"the file {whole}", return_X_y)
    paths = [_published(folder, split) for split in split_names(subset)]
    for path in paths:
        if not path.is_file():
            download_published(SVHN, path, [whole, *paths], download_if_missing)
    pixels, target = zip(*map(_read_mat, paths), strict=True)
    data = np.concatenate([scaled(part) for part in pixels])
    origin = " and ".join(str(path) for path in paths)
    return packed(SVHN, data, np.concatenate(target), subset, origin, return_X_y)


def _published(folder, split):
    """Return where the published file of a split is, or else where it is to be put."""
    name, _ = SVHN.published[split]
    return folder / name if (folder / name).is_file() else folder / "svhn" / name


def _read_mat(path):
    """Return pixels, one image a row and channels first, and labels of a published file."""
    try:
        arrays = loadmat(path, variable_names=("X", "y"))
    except Exception as error:  # damaged bytes end in errors of many kinds
        if isinstance(error, OSError) and error.errno is not None:
            raise  # of the disk, which names the file itself
        raise broken(path, "bytes that SciPy cannot read", "a file of MATLAB 5") from error
    missing = [name for name in ("X", "y") if name not in arrays]
    if missing:
        raise broken(path, "other arrays", f"also {', '.join(missing)}")
    X, y = arrays["X"], arrays["y"]
    if X.ndim != 4:
        raise broken(path, f"X of shape {X.shape}", "shape (32, 32, 3, n)")
    images = np.moveaxis(X, -1, 0)
    check_images(path, "X, images first,", images, SVHN)
    if y.shape != (len(images), 1) or y.dtype.kind not in "ui":
        raise broken(path, f"y of shape {y.shape} and dtype {y.dtype}", "integers of shape (n, 1)")
    # The digit 0 has the label 10 there.
    target = np.where(y[:, 0] == 10, 0, y[:, 0])
    check_target(path, "y, with 0 for 10,", target, len(images), SVHN)
    return as_rows(images), target
