"""What the loaders return: a Bunch, or the pair of data and labels."""

import numpy as np
from sklearn.utils import Bunch

from skrobust._validation import check_choice

__all__ = ["check_subset", "packed", "scaled"]


def check_subset(subset):
    """Return `subset` if it names a part of a data set, else raise a ValueError."""
    return check_choice("subset", subset, ("train", "test", "all"))


def scaled(pixels):
    """Return pixels from 0 to 255 as numbers in [0, 1]."""
    # The dtype of the division is given, so that no float64 copy of the pixels is made.
    return np.divide(pixels, np.float32(255), dtype=np.float32)


def packed(source, data, target, subset, origin, return_X_y):
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
