"""Who can still win: candidates compared in pairs, item by item, in random order.

The items are all test samples of all folds, a finite population, drawn without replacement. For a
pair of candidates (a, b) and the hypothesis that b is at least as good as a on all items, the
capital of a gambler who bets against it, on the difference of the two on the next item, grows
only by luck: whether b is that good or not, what is drawn next has, under the hypothesis, a
conditional mean that the items up to here fix.
"""

import numpy as np

__all__ = ["PairedRace"]

# Shares of the highest stake that cannot ruin. Each is a gambler of its own, and their mean is
# one, too: small stakes win where most items differ by luck, high ones where one side is best.
_STAKES = np.array([0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.7, 0.9])
_ROUNDING = 1e-9  # of the width
_MOST_NUMBERS = 2**21  # in memory at a time


class PairedRace:
    r"""Drops candidates once they are shown to be worse than another one over all items.

    With probability at least `confidence` over the random order of the items, the candidate whose
    sum over all items is the largest is never dropped, at whatever times one looks; candidates
    that tie for it are kept alike.

    Parameters
    ----------
    n_candidates : int
    n_items : int
        How many items there are.
    width : float
        The largest difference that two candidates can have on one item.
    confidence : float, default=0.95
    start : ndarray of shape (n_candidates,), default=None
        A sum over all items that is known of each candidate, of something near its values; what
        `add` is given is then by how much the values differ from that.

    Attributes
    ----------
    is_open : ndarray of bool, shape (n_candidates,)
        Which candidates are not dropped.
    n_seen : int
        Items up to here.

    Notes
    -----
    Let :math:`d_t` be the difference of a and b on item t of N, in [-r, r], and :math:`S_t` the
    sum of the first t, and what is known from the start. If b is at least as good as a, so that
    :math:`S_N \le 0`, the mean of what is left is at most
    :math:`m_t = -S_{t-1} / (N - t + 1)`, and

    .. math:: K_t = \prod_{s \le t} \left(1 + c \frac{d_s - m_s}{r + m_s}\right), \quad
        0 \le c < 1,

    is a nonnegative supermartingale. So is the mean of such :math:`K` over several c, and, if b
    is the best candidate, over all others as a, each up to when it is dropped itself. By Ville's
    inequality that mean ever reaches 1 / (1 - confidence) with probability at most
    1 - confidence. There b is dropped. The mean over C - 1 others is at least as sharp as the
    union bound, by which one of them would have to reach (C - 1) / (1 - confidence). Where
    :math:`m_t < -r`, b cannot catch up, and no luck is left.

    References
    ----------
    Maron and Moore, "Hoeffding races: accelerating model selection search for classification and
    function approximation", NIPS 1993, is where racing is from, with wider intervals, of single
    candidates. Waudby-Smith and Ramdas, "Confidence sequences for sampling without replacement",
    NeurIPS 2020, and "Estimating means of bounded random variables by betting", Journal of the
    Royal Statistical Society B 86, 2024, are the bets.
    """

    def __init__(self, n_candidates, n_items, width, confidence=0.95, start=None):
        self.n_items, self.width = n_items, width
        self.is_open = np.ones(n_candidates, dtype=bool)
        self.n_seen = 0
        self._needed = -np.log(1 - confidence) + np.log(max(n_candidates - 1, 1))
        self._index = np.arange(n_candidates)  # of the open ones, in the order of what follows
        start = np.zeros(n_candidates) if start is None else start
        self._leads = start[:, None] - start
        # Logarithms. What bets on dropped candidates came to stays a part of the mean.
        self._capital = np.zeros((len(_STAKES), n_candidates, n_candidates))
        self._stopped = np.full(n_candidates, -np.inf)

    def add(self, values):
        """Take in the values of further items, and drop whoever cannot win.

        Parameters
        ----------
        values : ndarray of shape (n_open, n_items)
            Of the candidates that are open, in their order.
        """
        size = max(1, _MOST_NUMBERS // max(1, len(_STAKES) * len(values) ** 2))
        for start in range(0, values.shape[1], size):
            self._bet(values[:, start : start + size].T)
        self._drop()

    def drop(self, places):
        """Take candidates out of the race for other reasons, by their places among the open."""
        kept = np.delete(np.arange(len(self._index)), places)
        self._keep(kept)

    def _bet(self, values):
        """Let all gamblers bet on items, of shape (n_items, n_open), one after the other."""
        differences = values[:, :, None] - values[:, None, :]
        leads = self._leads + differences.cumsum(axis=0) - differences
        left = self.n_items - self.n_seen - np.arange(len(values))
        # What is left has a mean of at most -leads / left, from which a difference is at most
        # `room` down. Where the rest cannot make up for a lead, the bet is certain.
        room = self.width - leads / left[:, None, None]
        least = _ROUNDING * self.width
        gains = (differences + self.width - room) / np.maximum(room, least)
        for capital, stake in zip(self._capital, _STAKES, strict=True):
            # What rounding takes below the least value would be more than the stake.
            gain = stake * np.maximum(gains, -1.0)
            capital += np.where(room < -least, np.inf, np.log1p(gain)).sum(axis=0)
        self._leads += differences.sum(axis=0)
        self.n_seen += len(values)

    def _drop(self):
        capital = np.logaddexp(np.logaddexp.reduce(self._pairs(), axis=0), self._stopped)
        # Whoever leads is kept, so that somebody stays whatever happens.
        is_behind = (self._leads > 0).any(axis=0)
        self._keep(np.flatnonzero(~((capital >= self._needed) & is_behind)))

    def _pairs(self):
        """Return the logarithm of the mean capital of the bets on each against each."""
        pairs = np.logaddexp.reduce(self._capital, axis=0) - np.log(len(_STAKES))
        np.fill_diagonal(pairs, -np.inf)
        return pairs

    def _keep(self, places):
        out = np.delete(np.arange(len(self._index)), places)
        if len(out):
            stopped = np.logaddexp.reduce(self._pairs()[out], axis=0)
            self._stopped = np.logaddexp(self._stopped, stopped)[places]
        self._index = self._index[places]
        self._leads = self._leads[np.ix_(places, places)]
        self._capital = self._capital[:, *np.ix_(places, places)]
        self.is_open[:] = False
        self.is_open[self._index] = True
