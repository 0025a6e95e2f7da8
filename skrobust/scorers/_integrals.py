"""What the scores of the framework of Tibo et al. come to, from margins or from shares."""

from dataclasses import dataclass

import numpy as np

from skrobust._validation import expected
from skrobust.scorers._base import ScoreResult
from skrobust.scorers._radii import mean_interval, transformed
from skrobust.statistics import empirical_bernstein

__all__ = ["RobustnessScoreResult", "result_of_margins", "result_of_shares"]


@dataclass(frozen=True, eq=False, repr=False)
class RobustnessScoreResult(ScoreResult):
    """What `RobustnessScore.evaluate` returns.

    Parameters
    ----------
    score : float
        The score as the paper has it, not normalized: the mean of `values`. With the weights
        "constant" and "density" it is a mean distance, in units of the input; with "inverse" a
        share divided by a distance; with "radii" a share.
    interval : Interval
        Of the score. Empirical Bernstein for margins, Hoeffding's for shares whose weight is the
        same for all samples; else that of a normal mean, approximate.
    normalized : float
        The score divided by that of a constant classifier; in [0, 1].
    values : ndarray of shape (n_samples,)
        The score of each sample alone.
    epsilons : tuple of float
        The radii.
    curve : tuple of float
        Mean over the samples, at each radius, of what the probability is worth. With
        ``transform="all"`` it is the margin curve.
    radius : ndarray of shape (n_samples,) or None
        The margins, where these are computed: distance to the closest change of the label that
        was found, inf where none was within the largest radius; their curve is drawn by
        `RobustnessCurveDisplay.from_radius`. None for shares.
    shares : ndarray of shape (n_samples, n_epsilons) or None
        Share of the points in each ball that have the label of the sample; 1 where there was
        none. None for margins.
    n_points : ndarray of int, shape (n_samples, n_epsilons), or None
        Points that were looked at in each ball.
    """

    normalized: float
    values: np.ndarray
    epsilons: tuple
    curve: tuple
    radius: np.ndarray | None
    shares: np.ndarray | None
    n_points: np.ndarray | None


def result_of_margins(radius, epsilons, confidence):
    """Return the result where H is 1[p = 1], and the integral over radii is a distance.

    Parameters
    ----------
    radius : ndarray of shape (n_samples,)
        Distances of the closest changes of the label, inf where there is none.
    epsilons : ndarray of shape (n_epsilons,)
        The largest is where the integral ends.
    confidence : float
    """
    if len(radius) < 2:
        raise ValueError(expected("X", "1 sample", "at least 2, for the interval"))
    largest = float(epsilons[-1])
    radius = np.where(radius <= largest, radius, np.inf)
    values = np.minimum(radius, largest)
    score = float(values.mean())
    return RobustnessScoreResult(
        score=score,
        interval=empirical_bernstein(values, 0.0, largest, confidence),
        normalized=score / largest,
        values=values,
        epsilons=tuple(epsilons.tolist()),
        curve=tuple((radius[:, None] > epsilons).mean(axis=0).tolist()),
        radius=radius,
        shares=None,
        n_points=None,
    )


def result_of_shares(transform, weights, epsilons, confidence, at_zero, shares, n_points):
    """Return the result of a weighted sum over radii.

    Parameters
    ----------
    transform : str or callable
        H, as `RobustnessScore` has it.
    weights : ndarray of shape (n_samples, n_epsilons + 1)
        Of radius 0, and of each of `epsilons`.
    epsilons : ndarray of shape (n_epsilons,)
    confidence : float
    at_zero : ndarray of shape (n_samples,)
        Whether the sample itself has the label.
    shares, n_points : ndarray of shape (n_samples, n_epsilons)
    """
    worth = transformed(transform, np.c_[at_zero, shares])
    totals = weights.sum(axis=1)
    values = (worth * weights).sum(axis=1)
    return RobustnessScoreResult(
        score=float(values.mean()),
        interval=mean_interval(values, totals, confidence),
        normalized=float(values.sum() / totals.sum()),
        values=values,
        epsilons=tuple(epsilons.tolist()),
        curve=tuple(worth[:, 1:].mean(axis=0).tolist()),
        radius=None,
        shares=shares,
        n_points=n_points,
    )
