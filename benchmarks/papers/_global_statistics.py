"""Correlations over networks, with intervals that know which networks come from one training.

The networks that are read at several numbers of epochs of one training are not independent. So
the bootstrap draws trainings, each with all of its networks.
"""

from dataclasses import dataclass

import numpy as np
from scipy.stats import pearsonr

__all__ = ["Correlation", "chosen_delta", "correlation", "fisher"]

N_RESAMPLES = 999
CONFIDENCE = 0.95
_FEWEST = 3


@dataclass(frozen=True)
class Correlation:
    """Spearman's rank correlation of two quantities, and its interval.

    Parameters
    ----------
    value, low, high : float
        NaN where it is not defined: fewer than three networks or trainings, or no change.
    n, n_trainings : int
        Networks, and independent trainings that they come from.
    """

    value: float
    low: float
    high: float
    n: int
    n_trainings: int

    def __str__(self):
        if np.isnan(self.value):
            return "undefined"
        if np.isnan(self.low):
            return f"{self.value:+.2f}"
        return f"{self.value:+.2f} [{self.low:+.2f}, {self.high:+.2f}]"

    @property
    def sign(self):
        """ "negative" or "positive" where the interval excludes 0, else "none seen"."""
        if self.high < 0:
            return "negative"
        return "positive" if self.low > 0 else "none seen"


def correlation(first, second, trainings, seed=0):
    """Return the rank correlation of two quantities, with a bootstrap interval over trainings.

    Parameters
    ----------
    first, second : sequence of float
        One a network.
    trainings : sequence
        What tells which networks come from one training.
    seed : int, default=0

    Returns
    -------
    Correlation
    """
    first, second = np.asarray(first, dtype=float), np.asarray(second, dtype=float)
    names, place = np.unique(np.array(list(map(repr, trainings))), return_inverse=True)
    value, low, high = np.nan, np.nan, np.nan
    if len(first) >= _FEWEST and np.ptp(first) > 0 and np.ptp(second) > 0:
        value = float(spearman(first, second, np.ones((1, len(first))))[0])
    if len(names) >= _FEWEST and not np.isnan(value):
        random, shares = np.random.default_rng(seed), np.full(len(names), 1 / len(names))
        drawn = random.multinomial(len(names), shares, size=N_RESAMPLES)
        # Where all that is drawn is alike there is no correlation: none is seen there.
        values = np.nan_to_num(spearman(first, second, drawn[:, place]))
        tail = (1 - CONFIDENCE) / 2
        low, high = map(float, np.quantile(values, (tail, 1 - tail)))
    return Correlation(value, low, high, len(first), len(names))


def spearman(first, second, counts):
    """Return Spearman's correlation where each network counts a number of times, as if repeated.

    Parameters
    ----------
    first, second : ndarray of shape (n,)
    counts : ndarray of shape (n_draws, n)

    Returns
    -------
    ndarray of shape (n_draws,)
        NaN where all that is counted is alike.
    """
    n = counts.sum(axis=1, keepdims=True)
    ranks = (_ranks(values, counts) for values in (first, second))
    first, second = (each - (each * counts).sum(axis=1, keepdims=True) / n for each in ranks)
    squares = (counts * first**2).sum(axis=1) * (counts * second**2).sum(axis=1)
    with np.errstate(invalid="ignore"):
        return (counts * first * second).sum(axis=1) / np.sqrt(squares)


def _ranks(values, counts):
    """Return the rank of each value among all that are counted; those of ties are averaged."""
    _, place = np.unique(values, return_inverse=True)
    order = np.argsort(place, kind="stable")
    starts = np.searchsorted(place[order], np.arange(place.max() + 1))
    alike = np.add.reduceat(counts[:, order], starts, axis=1)
    below = np.cumsum(alike, axis=1) - alike
    return (below + (alike + 1) / 2)[:, place]


def fisher(first, second):
    """Return Pearson's correlation and its interval by Fisher's transform, as text.

    This interval takes the networks as independent.
    """
    if len(first) <= _FEWEST or np.ptp(first) == 0 or np.ptp(second) == 0:
        return "undefined"
    found = pearsonr(first, second)
    ends = found.confidence_interval(CONFIDENCE)
    return f"{found.statistic:+.2f} [{ends.low:+.2f}, {ends.high:+.2f}]"


def chosen_delta(nets, least_accuracy):
    """Return the radius at which, on validation images, half of the labels change.

    Parameters
    ----------
    nets : list of dict
        As cells return them.
    least_accuracy : float
        On validation images; networks below it have learned nothing, and say nothing of a radius.
        If all are, all count.

    Returns
    -------
    float
        Of the radii that were tried, the one whose mean share of changed labels is closest to
        one half; the smaller one of two.
    """
    learned = [net for net in nets if net["validation_accuracy"] >= least_accuracy] or nets
    deltas = sorted(learned[0]["validation"])
    shares = [np.mean([net["validation"][delta]["label"] for net in learned]) for delta in deltas]
    return deltas[int(np.argmin(np.abs(np.array(shares) - 0.5)))]
