"""What is known of candidates so far, and the form in which a search returns it."""

from dataclasses import dataclass

import numpy as np

__all__ = ["Table", "Trial"]


@dataclass
class Trial:
    """A candidate fitted on the training samples of one fold, or why it is not."""

    model: object
    seconds: float
    error: str = ""


class Table:
    """The values of all candidates at all items, as far as they were evaluated.

    An item is a test sample of a fold.

    Parameters
    ----------
    trials : list of list of Trial
    tests : list of ndarray of int
        Rows of the test samples of each fold.
    """

    def __init__(self, trials, tests):
        self.trials = trials
        self.fold = np.repeat(np.arange(len(tests)), [len(test) for test in tests])
        self.row = np.concatenate(tests)
        self.n_candidates, self.n_splits = len(trials), len(tests)
        self.values = np.zeros((len(trials), len(self.fold)))
        self.limits = np.full(self.values.shape, np.inf)  # what values cannot exceed
        self.is_seen = np.zeros(self.values.shape, dtype=bool)
        self.n_asked = np.zeros(len(trials), dtype=int)
        self.fit_times = np.array([[trial.seconds for trial in row] for row in trials])
        self.score_times = np.zeros(self.fit_times.shape)
        self.failure = ""  # the first one, for those who ask

    def keep_as_limits(self):
        """Take the values for upper bounds of those to come."""
        self.limits = self.values.copy()
        self.is_seen[:], self.n_asked[:] = False, 0

    def enter_known(self, candidate, items, low):
        """Enter the values of those items whose limit is the least value."""
        known = items[self.limits[candidate, items] <= low]
        self.values[candidate, known] = low
        self.is_seen[candidate, items] = True

    def enter(self, candidate, fold, items, values, seconds):
        self.values[candidate, items] = np.minimum(values, self.limits[candidate, items])
        self.n_asked[candidate] += len(items)
        self.score_times[candidate, fold] += seconds

    def forget(self, candidate):
        """Free the models of a candidate."""
        self.trials[candidate] = []

    def results(self, candidates):
        """Return `cv_results_`."""
        scores = np.full(self.fit_times.shape, np.nan)
        for index in np.ndindex(*scores.shape):
            candidate, fold = index
            seen = self.is_seen[candidate] & (self.fold == fold)
            if seen.any():
                scores[index] = self.values[candidate, seen].mean()
        # Early on, some fold may have no sample yet; but a NaN that was entered stays one.
        has_nan = np.isnan(self.values).any(axis=1)
        shown = np.ma.masked_invalid(scores)
        mean = np.where(has_nan, np.nan, shown.mean(axis=1).filled(np.nan))
        std = np.where(has_nan, np.nan, shown.std(axis=1).filled(np.nan))
        counts = self.is_seen.sum(axis=1)  # also where the limit said it all
        table = {}
        for name, times in (("fit_time", self.fit_times), ("score_time", self.score_times)):
            table |= {f"mean_{name}": times.mean(axis=1), f"std_{name}": times.std(axis=1)}
        for name in sorted({name for params in candidates for name in params}):
            column = np.ma.masked_all(len(candidates), dtype=object)
            for i, params in enumerate(candidates):
                if name in params:
                    column[i] = params[name]
            table[f"param_{name}"] = column
        table["params"] = candidates
        table |= {f"split{fold}_test_score": scores[:, fold] for fold in range(self.n_splits)}
        table |= {"mean_test_score": mean, "std_test_score": std}
        table |= {"rank_test_score": _ranks(counts, mean), "n_drawn": counts}
        table["n_evaluations"] = self.n_asked
        return table


def _ranks(counts, means):
    """Rank those first that were evaluated the longest, and of these the best; failures last."""
    failed = np.isnan(means)
    counts, means = np.where(failed, 0, counts), np.where(failed, -np.inf, means)
    is_better = (counts[:, None] > counts) | (
        (counts[:, None] == counts) & (means[:, None] > means)
    )
    return 1 + is_better.sum(axis=0, dtype=np.int32)
