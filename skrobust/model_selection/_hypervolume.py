"""The volume of what points dominate, exactly."""

import numpy as np

__all__ = ["hypervolume"]


def hypervolume(points, reference):
    """Return the volume of what lies above a reference point and below one of some points.

    Exact in any number of dimensions, up to rounding: the volume is cut into slabs along the last
    axis, and the cross-section of each is a volume of one dimension less (HSO of [1]_). Of n
    points in d dimensions this takes about n to the power d - 1 operations.

    Parameters
    ----------
    points : ndarray of shape (n_points, n_scores)
        Finite. Points that are not above the reference in all scores add nothing.
    reference : ndarray of shape (n_scores,)

    Returns
    -------
    float

    References
    ----------
    .. [1] While, Hingston, Barone and Huband, "A faster algorithm for calculating hypervolume",
       IEEE Transactions on Evolutionary Computation 10(1), 2006.
    """
    return _volume(points[(points > reference).all(axis=1)] - reference)


def _volume(points):
    """Return the volume between 0 and points with positive coordinates."""
    if len(points) == 0:
        return 0.0
    if points.shape[1] == 1:
        return float(points.max())
    points = points[np.argsort(-points[:, -1], kind="stable")]
    heights = points[:, -1] - np.append(points[1:, -1], 0.0)
    if points.shape[1] == 2:
        return float(np.maximum.accumulate(points[:, 0]) @ heights)
    return sum(
        _volume(points[: i + 1, :-1]) * float(height)
        for i, height in enumerate(heights)
        if height > 0
    )
