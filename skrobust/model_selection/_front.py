"""The candidates of searches that no other candidate beats."""

from dataclasses import dataclass

import numpy as np

from skrobust._validation import check_flag, check_instance, expected
from skrobust.model_selection._hypervolume import hypervolume
from skrobust.model_selection._results import (
    comparable,
    means_of,
    named_results,
    parameters_of_candidates,
    standard_errors,
)
from skrobust.networks import import_pandas

__all__ = ["DECIMALS", "ParetoFront", "pareto_front"]

DECIMALS = 12  # to which means are compared: sums of equal scores differ by their order


@dataclass(frozen=True, eq=False, repr=False)
class ParetoFront:
    """What `pareto_front` returns: the candidates that no other one dominates.

    They are in the order of the first score, from the largest on, and of the next scores where it
    ties.

    Parameters
    ----------
    scores : tuple of str
        What is compared.
    indices : ndarray of int, shape (n_front,)
        The places of the candidates in the `cv_results_` of their search.
    params : list of dict
        Their parameters.
    means : ndarray of shape (n_front, n_scores)
        Their mean test scores.
    standard_errors : ndarray of shape (n_front, n_scores)
        Of these means over the folds: the standard deviation, with one degree of freedom less,
        divided by the square root of the number of folds. NaN where results tell fewer than two.
    searches : list
        Which search each is from: the key or the place where there were several, else "".
    n_candidates : int
        Of all searches.
    n_failed : int
        Candidates with NaN in one of the scores, which take no part.
    n_partial : int
        Candidates that were left out since a halving search or a race evaluated them on fewer
        samples than others.
    """

    scores: tuple
    indices: np.ndarray
    params: list
    means: np.ndarray
    standard_errors: np.ndarray
    searches: list
    n_candidates: int
    n_failed: int
    n_partial: int

    def hypervolume(self, reference=None):
        """Return the volume that the front dominates, above a reference point.

        It is the size of all combinations of scores that are above the reference and that some
        candidate reaches or exceeds [1]_: a single number by which fronts of the same scores are
        compared, as long as the reference is the same. It is computed exactly, for any number of
        scores.

        Parameters
        ----------
        reference : array-like of shape (n_scores,), default=None
            None is 0 for each score: what accuracies and shares cannot be below. So the
            hypervolume of two shares lies in [0, 1]. Candidates that are not above the reference
            in all scores add nothing.

        Returns
        -------
        float

        Raises
        ------
        ValueError
            If there is no `reference` for scores below 0, or if scores are infinite.

        References
        ----------
        .. [1] Zitzler and Thiele, "Multiobjective evolutionary algorithms: a comparative case
           study and the strength Pareto approach", IEEE Transactions on Evolutionary Computation
           3(4), 1999.

        Examples
        --------
        >>> from skrobust.model_selection import pareto_front
        >>> results = {"mean_test_accuracy": [0.9, 0.8], "mean_test_proved": [0.3, 0.5]}
        >>> front = pareto_front(results, ["accuracy", "proved"])
        >>> round(front.hypervolume(), 6)  # 0.9 * 0.3 + 0.8 * 0.2
        0.43
        >>> round(front.hypervolume([0.5, 0.0]), 6)
        0.18
        """
        if reference is None:
            is_below = (self.means < 0).any(axis=0)
            if is_below.any():
                below = [self.scores[i] for i in np.flatnonzero(is_below)]
                expectation = f"a point below the scores: {below} of the front are below 0"
                raise ValueError(expected("reference", reference, expectation))
        point = self._check_reference(reference)
        if np.isposinf(self.means).any():
            raise ValueError("Got infinite scores on the front, but expected finite ones.")
        return hypervolume(self.means, point)

    def _check_reference(self, reference):
        if reference is None:
            return np.zeros(len(self.scores))
        expectation = f"None, or {len(self.scores)} finite numbers, one for each of {self.scores}"
        try:
            point = np.asarray(reference, dtype=np.float64)
        except (TypeError, ValueError, OverflowError):
            raise ValueError(expected("reference", reference, expectation)) from None
        if point.shape != (len(self.scores),) or not np.isfinite(point).all():
            raise ValueError(expected("reference", reference, expectation))
        return point

    def to_frame(self):
        """Return a pandas DataFrame with a row for each candidate of the front.

        Its index are `indices`. A column for each score is followed by one of its standard
        error, and these by one for each parameter that is not the same for all. Of several
        searches, the first column is "search".
        """
        pd = import_pandas("to_frame")

        columns = {"search": self.searches} if any(name != "" for name in self.searches) else {}
        for i, name in enumerate(self.scores):
            columns[f"mean_test_{name}"] = self.means[:, i]
            columns[f"standard_error_{name}"] = self.standard_errors[:, i]
        for name in dict.fromkeys(name for params in self.params for name in params):
            values = [params.get(name) for params in self.params]
            if any(repr(value) != repr(values[0]) for value in values):
                columns[f"param_{name}"] = pd.Series(values, dtype=object).to_numpy()
        return pd.DataFrame(columns, index=pd.Index(self.indices, name="candidate"))

    def __len__(self):
        return len(self.indices)

    def __repr__(self):
        return (
            f"ParetoFront(scores={self.scores}, {len(self)} of {self.n_candidates} candidates, "
            f"{self.n_failed} failed, {self.n_partial} partial)"
        )


def pareto_front(results, scores, *, partial=False):
    """Return the candidates of a search that no other candidate beats.

    A candidate is dominated if another one is at least as good in all scores, and better in one.
    The others are the Pareto front: to gain in one score, one has to give up something of another
    one. Candidates with the same scores do not dominate each other, so that all of them are on the
    front, or none. Scores that differ by rounding, beyond the 12th decimal, are the same.

    Parameters
    ----------
    results : search, dict, DataFrame, or list or dict of such
        A fitted search, as `~sklearn.model_selection.GridSearchCV` with several metrics, its
        ``cv_results_``, or a DataFrame of that. Of several, in a list or a dict by names, all
        candidates are compared with each other: they should have been scored on the same folds.
    scores : list of str
        Names of scores in the search's `scoring`; larger is better, as always in scikit-learn. A
        search by a single metric calls its score "score"; of one score, the front are the best.
    partial : bool, default=False
        Whether candidates take part that were dropped on the way, in a halving search or in
        `RacingSearchCV`. Their means are of fewer samples, so that they may be ahead by luck.

    Returns
    -------
    ParetoFront

    Raises
    ------
    TypeError
        If `results` are not of a search.
    ValueError
        If there is no such score, or one is named twice.

    Examples
    --------
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.model_selection import GridSearchCV
    >>> from skrobust.datasets import load_digits
    >>> from skrobust.model_selection import pareto_front
    >>> from skrobust.properties import ClassificationRobustness
    >>> from skrobust.scorers import ConstraintSecurity
    >>> X, y = load_digits(return_X_y=True)
    >>> security = ConstraintSecurity(ClassificationRobustness(0.05), random_state=0)
    >>> search = GridSearchCV(
    ...     LogisticRegression(), {"C": [1e-5, 0.01, 0.1, 10.0]}, cv=3, refit="security",
    ...     scoring={"accuracy": "accuracy", "security": security},
    ... ).fit(X[:300], y[:300])
    >>> front = pareto_front(search.cv_results_, ["accuracy", "security"])
    >>> front.params  # a stronger penalty withstands more, up to a point
    [{'C': 10.0}, {'C': 0.1}]
    >>> 0 < front.hypervolume() < 1
    True
    """
    names = _check_scores(scores)
    check_flag("partial", partial)
    found = {"means": [], "errors": [], "indices": [], "params": [], "searches": []}
    n_candidates = n_failed = n_partial = 0
    for search, table in named_results(results, "results").items():
        means = means_of(table, "scores", names)
        is_scored, is_complete = comparable(table, means)
        indices = np.flatnonzero(is_scored if partial else is_complete)
        candidates = parameters_of_candidates(table)
        n_candidates += len(means)
        n_failed += int((~is_scored).sum())
        n_partial += 0 if partial else int((is_scored & ~is_complete).sum())
        errors = np.stack([standard_errors(table, name) for name in names], axis=1)
        found["means"].append(means[indices])
        found["errors"].append(errors[indices])
        found["indices"].append(indices)
        found["params"] += [candidates[i] for i in indices]
        found["searches"] += [search] * len(indices)
    means, errors, indices = (np.concatenate(found[key]) for key in ("means", "errors", "indices"))
    order = _ordered_front(means)
    return ParetoFront(
        scores=names,
        indices=indices[order],
        params=[found["params"][i] for i in order],
        means=means[order],
        standard_errors=errors[order],
        searches=[found["searches"][i] for i in order],
        n_candidates=n_candidates,
        n_failed=n_failed,
        n_partial=n_partial,
    )


def _check_scores(scores):
    example = "['accuracy', 'security']"
    check_instance("scores", scores, (list, tuple), example)
    for name in scores:
        check_instance("scores", name, str, example)
    if not scores or len(set(scores)) < len(scores):
        raise ValueError(expected("scores", scores, f"different names, such as {example}"))
    return tuple(scores)


def _ordered_front(means):
    """Return the places of rows that no other one dominates, by their columns, largest first."""
    means = np.round(means, DECIMALS)
    order = np.lexsort(-means.T[::-1])
    front = []
    for i in order:
        # What dominates a row stands before it; of these, the front itself is enough.
        ahead = means[front]
        if not ((ahead >= means[i]).all(axis=1) & (ahead > means[i]).any(axis=1)).any():
            front.append(i)
    return np.array(front, dtype=int)
