"""Linear constraints on the points of boxes: which boxes hold a point that satisfies them."""

from dataclasses import dataclass

import numpy as np
from scipy.optimize import linprog

__all__ = ["HalfSpaces"]

# Relative to the terms of a sum. A box is without points only if that shows beyond it: far more
# than what rounding does here, and than what a `Domain` lets pass as the rounding of a sum.
_SLACK = 1e-9
_ROUNDING = 1e-12  # likewise, by which the rounding of a sum may pass a constraint


@dataclass(frozen=True, eq=False)
class HalfSpaces:
    """The points x with A x <= b.

    Parameters
    ----------
    A : ndarray of shape (m, n_features)
    b : ndarray of shape (m,)
    """

    A: np.ndarray
    b: np.ndarray

    def hold(self, points):
        """Return whether points of shape (n, n_features) satisfy all constraints."""
        terms = np.abs(points) @ np.abs(self.A).T + np.abs(self.b)
        return (points @ self.A.T - self.b <= _ROUNDING * terms).all(axis=1)

    def point_in(self, lower, upper):
        """Look for a point of a box, well inside of the constraints where there is one.

        A linear program takes the largest excess down as far as it goes. Its multipliers are
        the proof where that stays above 0: a sum of the constraints, with these weights, that no
        point of the box satisfies. The sum is taken anew here, so that a proof does not rest on
        the solver.

        Parameters
        ----------
        lower, upper : ndarray of shape (n_features,)

        Returns
        -------
        point : ndarray of shape (n_features,) or None
            None where none was found.
        is_empty : bool
            Whether it is proved that there is none, also with b a little larger.

        References
        ----------
        Farkas' lemma: Schrijver, "Theory of linear and integer programming", 1986, section 7.3.
        """
        middle = np.clip(lower / 2 + upper / 2, lower, upper)
        each = self._are_beyond(np.eye(len(self.b)), lower, upper)
        if each.any():
            return None, True
        if np.isfinite(middle).all() and self.hold(middle[None])[0]:
            return middle, False
        # In units of each constraint, so that no row outweighs the others.
        unit = np.maximum(np.abs(self.A).sum(axis=1), np.finfo(float).tiny)
        used = np.flatnonzero((self.A != 0).any(axis=0))
        rows = np.c_[self.A[:, used] / unit[:, None], -np.ones(len(unit))]
        cost = np.r_[np.zeros(len(used)), 1.0]
        sides = [*zip(lower[used], upper[used], strict=True), (-1.0, None)]
        program = linprog(cost, A_ub=rows, b_ub=self.b / unit, bounds=sides, method="highs")
        if program.status != 0:
            return None, False
        weights = np.maximum(-program.ineqlin.marginals, 0.0) / unit
        if self._are_beyond(weights[None], lower, upper)[0]:
            return None, True
        point = np.where(np.isfinite(middle), middle, np.clip(0.0, lower, upper))
        point[used] = np.clip(program.x[:-1], lower[used], upper[used])
        return (point if self.hold(point[None])[0] else None), False

    def _are_beyond(self, weights, lower, upper):
        """Return for each sum of constraints, (k, m), whether a whole box breaks it."""
        sums = weights @ self.A
        size = np.maximum(np.abs(lower), np.abs(upper))
        with np.errstate(invalid="ignore"):  # 0 of an endless side: NaN is no proof
            least = np.minimum(sums * lower, sums * upper).sum(axis=1)
            slack = _SLACK * (weights @ (np.abs(self.A) @ size + np.abs(self.b)))
            # A product that underflows is off by a whole number of the least floats.
            slack += self.A.size * np.finfo(np.float64).tiny
            return least - weights @ self.b > slack
