"""A search that stops evaluating candidates that cannot win."""

import time
import traceback
import warnings

import numpy as np
from sklearn.base import clone, is_classifier
from sklearn.exceptions import FitFailedWarning
from sklearn.metrics import get_scorer
from sklearn.model_selection import GridSearchCV, ParameterGrid, ParameterSampler, check_cv
from sklearn.utils import indexable
from sklearn.utils.metaestimators import _safe_split
from sklearn.utils.parallel import Parallel, delayed
from sklearn.utils.validation import _check_method_params

from skrobust._validation import (
    check_flag,
    check_integer,
    check_real,
    check_seed,
    expected,
)
from skrobust.model_selection._race import PairedRace
from skrobust.model_selection._samples import range_of, sample_values
from skrobust.model_selection._table import Table, Trial

__all__ = ["RacingSearchCV"]


class RacingSearchCV(GridSearchCV):
    """A grid search that drops candidates once they are shown to be worse than another one.

    Each candidate is fitted on each fold, as in `sklearn.model_selection.GridSearchCV`. Their
    scores are then computed in growing batches of test samples, the same ones for all, and whoever
    is behind another candidate by more than luck explains is not evaluated further. The last one
    in the race is evaluated on all test samples, so that `best_score_` is that of the full search.
    With probability at least `confidence`, so is the winner, ties included.

    It is for scores that cost more than the fits, such as
    `skrobust.scorers.ConstraintSatisfaction`.

    Parameters
    ----------
    estimator : object
        As in `sklearn.model_selection.GridSearchCV`.
    param_grid : dict, list of dicts, ParameterGrid or ParameterSampler
        The candidates.
    scoring : None, "accuracy", scorer or callable, default=None
        A score that is a mean over samples: None and "accuracy", `ConstraintSecurity`,
        `ConstraintAccuracy`, `ConstraintSatisfaction` and `AdversarialFrequency` of
        `skrobust.scorers`; or ``scoring(estimator, X, y)``, which returns one number for each
        sample.
    screen : scorer or callable, default=None
        A cheap score whose value of a sample is an upper bound of that of `scoring`, such as
        `ConstraintSecurity` with `skrobust.attacks.FGSM` for one with a long attack or for
        `ConstraintSatisfaction`. It is taken of all samples first. Where it is the least value
        there is, the sample is not evaluated; elsewhere a value counts as the smaller of the two,
        and candidates are compared by what the screen leaves open.
    confidence : float, default=0.95
        With which the winner is that of the full search, over the random order of the samples.
    value_range : pair of floats, default=(0.0, 1.0)
        The least and the largest number that a callable as `scoring` returns.
    batch_size : int, default=64
        Test samples, of all folds together, of the first batch.
    growth : float, default=1.1
        By what factor each batch is larger than the one before it.
    n_jobs : int or None, default=None
        Fits, and later scores of one candidate in one fold, at a time, by joblib.
    refit : bool or callable, default=True
        Whether to fit the best candidate on all data; or ``refit(cv_results_)``, which returns the
        index of the candidate to take for best. The scores of dropped candidates are those of the
        samples that were drawn until then; ``cv_results_["n_drawn"]`` tells how many.
    cv : int, cross-validation generator or iterable, default=None
        As in `sklearn.model_selection.GridSearchCV`.
    verbose : int, default=0
        1 prints how many candidates are left after each batch.
    pre_dispatch : int or str, default="2*n_jobs"
        As in `sklearn.model_selection.GridSearchCV`.
    error_score : "raise" or float, default=nan
        The value of all samples of a fold in which the fit or the score fails. A candidate with
        NaN is out of the race.
    random_state : int, RandomState instance or None, default=None
        For the order in which the test samples are taken.

    Attributes
    ----------
    cv_results_ : dict of str to array
        As in `sklearn.model_selection.GridSearchCV`; scores are means over the samples that were
        drawn. "n_drawn" is the number of these, "n_evaluations" that but for those which
        `screen` decided.
        Candidates that stayed longer rank first.
    n_evaluations_ : int
        Samples on which candidates were evaluated, all candidates together.
    n_evaluations_full_ : int
        What a full search evaluates: the number of candidates times that of the test samples.
    n_rounds_ : int
        Batches.
    best_estimator_, best_params_, best_score_, best_index_, scorer_, n_splits_, refit_time_
        As in `sklearn.model_selection.GridSearchCV`.

    Raises
    ------
    TypeError
        If `scoring` is no mean over samples: a maximum, a rank, or the mean of distances.
    ValueError
        If an argument is outside of its range, if values lie outside of `value_range`, or if all
        fits fail.

    Warns
    -----
    FitFailedWarning
        If some fits or scores fail.

    Notes
    -----
    Two candidates are compared on the differences of their values at the same samples, which vary
    less than the values: most samples are robust, or not, for both. The test samples are drawn
    without replacement, so the race is about the mean over these very samples, and knows it when
    few are left. Comparisons hold at any time. One candidate is the best; that any of the other
    C - 1 ever drops it has probability at most 1 - confidence, all of them together.

    An attack with random starts depends on the batch that a sample is in, and so do values to that
    extent; scorers should have a `random_state`. Candidates that are equally good stay to the end,
    and cost as much as in a full search.

    The models of all folds are kept until their candidate is dropped, and sent to where they are
    evaluated in each round.

    References
    ----------
    Maron and Moore, "Hoeffding races: accelerating model selection search for classification and
    function approximation", NIPS 1993. Birattari et al., "A racing algorithm for configuring
    metaheuristics", GECCO 2002, compare on the same samples, as here. Waudby-Smith and Ramdas,
    "Confidence sequences for sampling without replacement", NeurIPS 2020.

    Examples
    --------
    >>> from sklearn.linear_model import LogisticRegression
    >>> from skrobust.attacks import FGSM
    >>> from skrobust.datasets import load_digits
    >>> from skrobust.model_selection import RacingSearchCV
    >>> from skrobust.properties import ClassificationRobustness
    >>> from skrobust.scorers import ConstraintSecurity
    >>> X, y = load_digits(return_X_y=True)
    >>> scoring = ConstraintSecurity(ClassificationRobustness(0.05), FGSM(), random_state=0)
    >>> search = RacingSearchCV(
    ...     LogisticRegression(max_iter=300), {"C": [1e-5, 1e-4, 1e-2]}, scoring=scoring, cv=2,
    ...     random_state=0,
    ... ).fit(X[:400], y[:400])
    >>> search.best_params_
    {'C': 0.01}
    >>> search.n_evaluations_ < search.n_evaluations_full_
    True
    """

    def __init__(
        self,
        estimator,
        param_grid,
        *,
        scoring=None,
        screen=None,
        confidence=0.95,
        value_range=(0.0, 1.0),
        batch_size=64,
        growth=1.1,
        n_jobs=None,
        refit=True,
        cv=None,
        verbose=0,
        pre_dispatch="2*n_jobs",
        error_score=np.nan,
        random_state=None,
    ):
        super().__init__(
            estimator,
            param_grid,
            scoring=scoring,
            n_jobs=n_jobs,
            refit=refit,
            cv=cv,
            verbose=verbose,
            pre_dispatch=pre_dispatch,
            error_score=error_score,
            return_train_score=False,
        )
        self.screen = screen
        self.confidence = confidence
        self.value_range = value_range
        self.batch_size = batch_size
        self.growth = growth
        self.random_state = random_state

    def fit(self, X, y=None, *, groups=None, **fit_params):
        """Fit all candidates on all folds, race them, and refit the winner.

        Parameters
        ----------
        X : array-like of shape ``(n_samples, n_features)`` or ``(n_samples, *input_shape)``
        y : array-like of shape (n_samples,), default=None
        groups : array-like of shape (n_samples,), default=None
            For the cross-validation generator.
        **fit_params : dict
            For the `fit` of the estimator; of arrays as long as `X`, the rows of each fold.

        Returns
        -------
        self : RacingSearchCV
        """
        low, high = self._check()
        candidates = self._candidates()
        X, y, groups = indexable(X, y, groups)
        splitter = check_cv(self.cv, y, classifier=is_classifier(self.estimator))
        folds = list(splitter.split(X, y, groups))
        self.n_splits_ = len(folds)
        with Parallel(
            n_jobs=self.n_jobs, pre_dispatch=self.pre_dispatch, verbose=max(0, self.verbose - 1)
        ) as parallel:
            trials = self._fit_all(parallel, candidates, folds, X, y, fit_params)
            table = Table(trials, [test for _, test in folds])
            self._race(parallel, table, X, y, low, high)
        self.cv_results_ = table.results(candidates)
        self.n_evaluations_ = int(self.cv_results_["n_evaluations"].sum())
        self.n_evaluations_full_ = len(candidates) * len(table.fold)
        self._refit(candidates, X, y, fit_params)
        return self

    def _check(self):
        """Validate the parameters, and return the range of values."""
        check_real("confidence", self.confidence, low=0, high=1, closed="neither")
        check_integer("batch_size", self.batch_size, low=1)
        check_real("growth", self.growth, low=1)
        if not callable(self.refit):
            check_flag("refit", self.refit)
        if self.error_score != "raise" and not isinstance(self.error_score, int | float):
            raise ValueError(expected("error_score", self.error_score, "'raise' or a number"))
        try:
            low, high = range_of(self.scoring, self.value_range)
            low, high = check_real("low", low), check_real("high", high)
        except (TypeError, ValueError):
            low, high = 0.0, 0.0
        if not low < high:
            expectation = "a pair (low, high) of finite floats, low < high"
            raise ValueError(expected("value_range", self.value_range, expectation))
        return low, high

    def _candidates(self):
        grid = self.param_grid
        if not isinstance(grid, ParameterGrid | ParameterSampler):
            grid = ParameterGrid(grid)
        candidates = list(grid)
        if not candidates:
            raise ValueError(expected("param_grid", self.param_grid, "at least one candidate"))
        return candidates

    def _fit_all(self, parallel, candidates, folds, X, y, fit_params):
        """Return `Trial`s, one list for each candidate, in the order of the folds."""
        trials = parallel(
            delayed(_fit)(clone(self.estimator), params, X, y, train, fit_params, self.error_score)
            for params in candidates
            for train, _ in folds
        )
        failures = [trial.error for trial in trials if trial.error]
        if len(failures) == len(trials):
            raise ValueError(
                f"All of the {len(trials)} fits failed. The first says:\n{failures[0]}"
            )
        self._warn_of(failures, "fits", len(trials))
        return [trials[i : i + len(folds)] for i in range(0, len(trials), len(folds))]

    def _warn_of(self, failures, what, n):
        if failures:
            warnings.warn(
                f"{len(failures)} of {n} {what} failed; their samples count as "
                f"error_score={self.error_score}. The first says:\n{failures[0]}",
                FitFailedWarning,
                stacklevel=4,
            )

    def _race(self, parallel, table, X, y, low, high):
        """Evaluate in batches, and drop who cannot win; the last one is evaluated to the end."""
        n_items = len(table.fold)
        order = check_seed(self.random_state).permutation(n_items)
        # Each fold counts as much, as in the mean over folds; so items of small folds weigh more.
        weight = n_items / (table.n_splits * np.bincount(table.fold))[table.fold]
        everyone = np.arange(table.n_candidates)
        if self.screen is not None:
            self._evaluate(parallel, table, self.screen, everyone, order, X, y, low, high)
            table.keep_as_limits()
        else:
            table.limits[:] = high
        start = table.limits @ weight
        width = weight.max() * (high - low)
        race = PairedRace(table.n_candidates, n_items, width, self.confidence, start)
        race.drop(np.flatnonzero(np.isnan(start)))
        size, self.n_rounds_ = float(self.batch_size), 0
        while race.n_seen < n_items and race.is_open.any():
            left = n_items - race.n_seen
            batch = order[race.n_seen :][: left if race.is_open.sum() == 1 else int(size)]
            is_open = np.flatnonzero(race.is_open)
            self._evaluate(parallel, table, self.scoring, is_open, batch, X, y, low, high)
            at = np.ix_(is_open, batch)
            values = (table.values[at] - table.limits[at]) * weight[batch]
            failed = np.isnan(values).any(axis=1)
            race.drop(np.flatnonzero(failed))
            race.add(values[~failed])
            size, self.n_rounds_ = size * self.growth, self.n_rounds_ + 1
            for candidate in np.flatnonzero(~race.is_open):
                table.forget(candidate)
            if self.verbose:
                print(
                    f"{race.is_open.sum()} of {table.n_candidates} candidates are left after "
                    f"{race.n_seen} of {n_items} samples"
                )
        if not race.is_open.any():
            raise ValueError(
                "All candidates failed in one fold or another. The first failure says:\n"
                f"{table.failure}"
            )

    def _evaluate(self, parallel, table, scoring, candidates, batch, X, y, low, high):
        """Enter the values of candidates at the items of a batch into the table."""
        tasks, data = [], {}
        for candidate in candidates:
            asked = batch[~(table.limits[candidate, batch] <= low)]
            table.enter_known(candidate, batch, low)
            for fold in np.unique(table.fold[asked]):
                items = asked[table.fold[asked] == fold]
                key = items.tobytes()  # the same rows are handed to all candidates as one object
                if key not in data:
                    data[key] = _safe_split(self.estimator, X, y, table.row[items])
                tasks.append((candidate, fold, items, *data[key]))
        answers = parallel(
            delayed(_score)(
                scoring, table.trials[candidate][fold], X_part, y_part, self.error_score
            )
            for candidate, fold, _, X_part, y_part in tasks
        )
        for (candidate, fold, items, *_), (values, error, seconds) in zip(
            tasks, answers, strict=True
        ):
            problem = error or table.trials[candidate][fold].error
            _check_range(values, low, high, "error_score" if problem else "a value of `scoring`")
            table.enter(candidate, fold, items, values, seconds)
            table.failure = table.failure or problem
        failures = [error for _, error, _ in answers if error]
        self._warn_of(failures, "scores", len(answers))

    def _refit(self, candidates, X, y, fit_params):
        results = self.cv_results_
        self.multimetric_ = False
        if callable(self.refit):
            self.best_index_ = check_integer("index of `refit`", self.refit(results))
            if self.best_index_ >= len(candidates):
                what = f"an index below {len(candidates)}, the number of candidates"
                raise IndexError(expected("index of `refit`", self.best_index_, what))
        else:
            self.best_index_ = int(results["rank_test_score"].argmin())
            self.best_score_ = float(results["mean_test_score"][self.best_index_])
        self.best_params_ = candidates[self.best_index_]
        self.scorer_ = _scorer_of(self.scoring)
        if self.refit:
            best = clone(self.estimator).set_params(**clone(self.best_params_, safe=False))
            start = time.perf_counter()
            _fit_on(best, X, y, _check_method_params(X, fit_params))
            self.refit_time_ = time.perf_counter() - start
            self.best_estimator_ = best
            if hasattr(best, "feature_names_in_"):
                self.feature_names_in_ = best.feature_names_in_


# ---- what is computed elsewhere -------------------------------------------------------------


def _fit(estimator, params, X, y, train, fit_params, error_score):
    start, error = time.perf_counter(), ""
    try:
        estimator = estimator.set_params(**clone(params, safe=False))
        X_train, y_train = _safe_split(estimator, X, y, train)
        _fit_on(estimator, X_train, y_train, _check_method_params(X, fit_params, train))
    except Exception:  # of the user's estimator
        if error_score == "raise":
            raise
        estimator, error = None, traceback.format_exc()
    return Trial(estimator, time.perf_counter() - start, error)


def _fit_on(estimator, X, y, fit_params):
    if y is None:
        estimator.fit(X, **fit_params)
    else:
        estimator.fit(X, y, **fit_params)


def _score(scoring, trial, X, y, error_score):
    """Return the values of samples, why they are missing, and the seconds."""
    start = time.perf_counter()
    n = X.shape[0] if hasattr(X, "shape") else len(X)
    if trial.error:
        return np.full(n, float(error_score)), "", 0.0
    try:
        values, error = sample_values(scoring, trial.model, X, y), ""
    except Exception as problem:
        # A scoring that no candidate can be raced by is no fault of the candidate.
        if error_score == "raise" or isinstance(problem, TypeError):
            raise
        values, error = np.full(n, float(error_score)), traceback.format_exc()
    return values, error, time.perf_counter() - start


def _scorer_of(scoring):
    """Return what `score` of the search calls: a function that returns a float."""
    if scoring is None or isinstance(scoring, str):
        return get_scorer("accuracy")
    return _Mean(scoring)


class _Mean:
    """The mean of the values of samples."""

    def __init__(self, scoring):
        self.scoring = scoring

    def __call__(self, estimator, X, y=None):
        return float(sample_values(self.scoring, estimator, X, y).mean())


def _check_range(values, low, high, name):
    slack = 1e-9 * (high - low)
    outside = (values < low - slack) | (values > high + slack)
    if outside.any():
        value = float(values[outside][0])
        raise ValueError(expected(name, value, f"a number in [{low}, {high}]"))
