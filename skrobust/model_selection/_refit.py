"""Which candidate a search takes where no single score decides."""

import warnings
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from sklearn.base import BaseEstimator

from skrobust._validation import check_instance, check_real, expected
from skrobust.exceptions import InfeasibleWarning
from skrobust.model_selection._front import DECIMALS
from skrobust.model_selection._results import comparable, means_of, standard_errors

__all__ = ["LargestSubjectTo"]


class LargestSubjectTo(BaseEstimator):
    """The candidate with the largest score, subject to bounds of other scores.

    For `refit` of `~sklearn.model_selection.GridSearchCV`,
    `~sklearn.model_selection.RandomizedSearchCV` and `RacingSearchCV`. It is called with
    ``cv_results_``, and returns the index of the candidate to refit; so it also says which one it
    would be of a search that is fitted already. A bound is one of three:

    - ``at_least={"accuracy": 0.8}``: that mean score.
    - ``within={"accuracy": 0.01}``: at most so much below the best mean of any candidate.
    - ``within_standard_errors={"accuracy": 1}``: at most so many standard errors below it, those
      of the best candidate's mean over the folds. This is the one-standard-error rule [1]_, which
      takes for equal what the folds cannot tell apart.

    Bounds of several scores, and of several kinds, hold together. All of this is the
    epsilon-constraint method [2]_ over the candidates that a search has tried: what it takes is on
    the Pareto front of the scores that it names.

    Parameters
    ----------
    score : str
        Name of the score in the search's `scoring` to be as large as possible. A search by a
        single metric calls it "score".
    at_least, within, within_standard_errors : dict of str to float, default=None
        Bounds by the names of scores; the latter two are not negative.

    Raises
    ------
    ValueError
        When called: if there is no such score, if all candidates failed, or if the results tell of
        fewer than two folds, so that there is no standard error.

    Warns
    -----
    InfeasibleWarning
        If no candidate is within the bounds: then it takes the one whose largest shortfall is the
        smallest, as all else of the search would be lost by an error.

    Notes
    -----
    Candidates with NaN in one of these scores are left out, and so are those that a race dropped
    on the way. Where several tie, up to rounding in the 12th decimal, the one with the larger
    bounded scores is taken, in the order in which they are given, and then the first.

    `~sklearn.model_selection.HalvingGridSearchCV` and its kin take no rule for `refit`, and one
    score only. Called with the results of one, a rule chooses from its last round.

    References
    ----------
    .. [1] Breiman, Friedman, Olshen and Stone, "Classification and regression trees", 1984,
       section 3.4.3. Hastie, Tibshirani and Friedman, "The elements of statistical learning",
       2nd edition, section 7.10.
    .. [2] Haimes, Lasdon and Wismer, "On a bicriterion formulation of the problems of integrated
       system identification and system optimization", IEEE Transactions on Systems, Man, and
       Cybernetics 1(3), 1971.

    Examples
    --------
    The largest proved share, as long as the accuracy is within one standard error of the best; and
    the largest one with an accuracy of at least 0.8:

    >>> from skrobust.model_selection import LargestSubjectTo
    >>> rule = LargestSubjectTo("proved", within_standard_errors={"accuracy": 1})
    >>> results = {
    ...     "mean_test_accuracy": [0.95, 0.90, 0.80], "mean_test_proved": [0.1, 0.4, 0.6],
    ...     "split0_test_accuracy": [0.90, 0.85, 0.75], "split1_test_accuracy": [1.00, 0.95, 0.85],
    ... }
    >>> rule(results)  # one standard error of 0.95 is 0.05
    1
    >>> LargestSubjectTo("proved", at_least={"accuracy": 0.8})(results)
    2
    """

    def __init__(self, score, *, at_least=None, within=None, within_standard_errors=None):
        self.score = score
        self.at_least = at_least
        self.within = within
        self.within_standard_errors = within_standard_errors

    def __call__(self, cv_results):
        """Return the index of the candidate to refit.

        Parameters
        ----------
        cv_results : dict of str to array, or DataFrame
            ``cv_results_`` of a fitted search.

        Returns
        -------
        int
        """
        bounds = self._check()
        if not (isinstance(cv_results, Mapping) or hasattr(cv_results, "columns")):
            expectation = "the `cv_results_` of a search, or a DataFrame of them"
            raise TypeError(expected("cv_results", cv_results, expectation))
        names = list(dict.fromkeys([self.score, *(bound.score for bound in bounds)]))
        means = means_of(cv_results, "a score of LargestSubjectTo", names)
        _, is_open = comparable(cv_results, means)
        if not is_open.any():
            raise ValueError(
                f"Got NaN in one of the scores {names} of each of the {len(means)} candidates, "
                "but expected one that did not fail."
            )
        of_score = dict(zip(names, means.T, strict=True))
        limits = [_limit(bound, cv_results, of_score[bound.score], is_open) for bound in bounds]
        missed = [
            _shortfall(of_score[bound.score], limit)
            for bound, limit in zip(bounds, limits, strict=True)
        ]
        worst = np.max([np.zeros(len(means)), *missed], axis=0)
        place = _place_of_largest([is_open, -worst, *np.round(means, DECIMALS).T])
        if worst[place] > 0:
            self._warn(bounds, limits, of_score, place)
        return place

    def _check(self):
        """Return the bounds, in the order of the parameters."""
        check_instance("score", self.score, str, "'satisfaction'")
        bounds = []
        for kind in ("at_least", "within", "within_standard_errors"):
            given = getattr(self, kind)
            if given is None:
                continue
            check_instance(kind, given, Mapping, "{'accuracy': 1}")
            low = -np.inf if kind == "at_least" else 0
            for name, number in given.items():
                check_instance(f"a key of {kind}", name, str, "'accuracy'")
                number = check_real(f"{kind}[{name!r}]", number, low=low)
                bounds.append(_Bound(kind, name, number))
        return bounds

    def _warn(self, bounds, limits, of_score, place):
        missed = [
            f"{bound.score} is {of_score[bound.score][place]:.4g}, where "
            f"{bound.kind}[{bound.score!r}]={bound.number:g} asks for {limit:.4g}"
            for bound, limit in zip(bounds, limits, strict=True)
            if _shortfall(of_score[bound.score][place], limit) > 0
        ]
        warnings.warn(
            f"No candidate is within the bounds. The nearest one, at index {place}, is taken: "
            f"{'; '.join(missed)}.",
            InfeasibleWarning,
            stacklevel=3,
        )


class _Bound(NamedTuple):
    """How a bound was given, of which score, and its number."""

    kind: str
    score: str
    number: float


def _limit(bound, results, means, is_open):
    """Return the least mean of a score that is within a bound."""
    if bound.kind == "at_least":
        return bound.number
    best = means[is_open].max()
    if bound.kind == "within":
        return best - bound.number
    is_best = is_open & (_shortfall(means, best) == 0)
    errors = standard_errors(results, bound.score)[is_best]
    if np.isnan(errors).all():
        raise ValueError(
            f"Got results with fewer than two folds of {bound.score!r}, but expected columns "
            f"split0_test_{bound.score} and so on: within_standard_errors is of the folds. Give "
            "the search a cv with more folds, or the rule `within`."
        )
    return best - bound.number * np.nanmin(errors)  # of several, what the folds agree upon most


def _shortfall(means, limit):
    """Return by how much means are below a limit, 0 where they are not, or by rounding."""
    means = np.asarray(means)
    with np.errstate(invalid="ignore"):  # infinite scores
        return np.where(means >= limit, 0.0, np.round(limit - means, DECIMALS))


def _place_of_largest(keys):
    """Return the place of what is largest by the first key, then by the next, and so on.

    Of several that tie in all keys it is the first.
    """
    backwards = np.lexsort([key[::-1] for key in keys[::-1]])
    return len(keys[0]) - 1 - int(backwards[-1])
