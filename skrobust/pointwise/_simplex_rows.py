"""The rows of the programs of `_simplex`, and sums over them."""

import numpy as np

__all__ = ["Rows", "dots", "ranks", "roots"]

_ROWS = 32  # that a program has room for at first


class Rows:
    """The rows of K programs, which are too large to be copied along with what changes.

    Parameters
    ----------
    K, n_features : int

    Attributes
    ----------
    A, b, scale : ndarray of shape (K, M, n_features), (K, M) and (K, M)
        Scaled to an L1 norm of 1, and by what; places without a row hold 0 >= -1.
    used : list of ndarray of shape (n_rows, n_features)
        The part of A that holds the rows of each program.
    """

    def __init__(self, K, n_features):
        self.used = [np.zeros((0, n_features))] * K
        self.A, self.b, self.scale = (np.zeros((K, 0, *end)) for end in ((n_features,), (), ()))
        self.widen(_ROWS)

    def widen(self, M):
        """Make room for that many rows in each program."""
        K, old, n_features = self.A.shape
        A, b, scale = np.zeros((K, M, n_features)), np.full((K, M), -1.0), np.ones((K, M))
        b[:, :old], scale[:, :old] = self.b, self.scale
        # Memory that holds zeros is not touched before it is used: most programs have few rows.
        for k, used in enumerate(self.used):
            A[k, : len(used)] = used
            self.used[k] = A[k, : len(used)]
        self.A, self.b, self.scale = A, b, scale


def ranks(groups, n):
    """Return how many of the entries before each one are of the same of n ascending groups."""
    counts = np.bincount(groups, minlength=n)
    return np.arange(len(groups)) - (np.cumsum(counts) - counts)[groups]


def roots(size, reach, wanted, start, is_open=True):
    """Return the e >= start where size @ min(e, reach) is `wanted`, and min(e, reach) there.

    Rows that are not open may have any e.
    """
    radius = start.copy()
    is_below = np.broadcast_to(is_open, radius.shape).copy()
    for _ in range(200):
        sizes = np.minimum(reach, radius[:, None])
        gap = wanted - dots(size, sizes)
        is_below &= gap > 1e-14 * np.abs(wanted)
        if not is_below.any():
            break
        slope = dots(size, (sizes < reach).astype(float))
        is_flat = is_below & (slope <= 1e-14)
        radius[is_flat] = np.inf
        is_below &= ~is_flat
        # Newton from below on a concave function: never past the root.
        radius[is_below] += gap[is_below] / slope[is_below]
    return radius, sizes


def dots(a, b):
    """Return the inner product of each row of a with that of b."""
    return np.matmul(a[:, None], b[:, :, None])[:, 0, 0]
