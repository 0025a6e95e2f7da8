"""What programs find, and the units in which they are solved."""

from dataclasses import dataclass

import numpy as np

__all__ = ["Solutions", "units"]


@dataclass(frozen=True, eq=False)
class Solutions:
    """What n linear programs found.

    Parameters
    ----------
    status : ndarray of str, shape (n,)
        "optimal", "infeasible", "limit" where the radius has passed the limit, "rows" where
        more rows than allowed are needed, or "failure".
    radius : ndarray of shape (n,)
        The optima; for "limit" and "rows", lower bounds of them.
    points : ndarray of shape (n, n_features)
        What attains them; NaN where the status is another one.
    seconds : ndarray of shape (n,)
        Wall-clock time; what is done for several programs together is shared out evenly.
    """

    status: np.ndarray
    radius: np.ndarray
    points: np.ndarray
    seconds: np.ndarray

    @classmethod
    def none(cls, n, n_features):
        """Return failures, to be filled."""
        status, points = np.full(n, "failure", dtype="<U10"), np.full((n, n_features), np.nan)
        return cls(status, np.zeros(n), points, np.zeros(n))

    def keep(self, k, status, radius, points=np.nan):
        """Fill in what was found for programs k."""
        self.status[k], self.radius[k], self.points[k] = status, radius, points


def units(low, high):
    """Return the largest finite distance to the domain, of shape (n,); 1 if there is none.

    Programs are solved in these units, so that tolerances mean the same whatever those of the
    inputs are.
    """
    reach = np.maximum(-low, high)
    unit = np.max(reach, axis=1, initial=0.0, where=np.isfinite(reach))
    return np.where(unit > 0, unit, 1.0)
